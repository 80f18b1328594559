"""Every Python snippet of docs/fine_tune.md runs, in order."""

import importlib.util

import torch
from transformers import AutoModelForSequenceClassification

from .snippets import page_text, run_snippets, snippets_of

PAGE = page_text("fine_tune.md")


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = snippets_of(PAGE)
    assert len(snippets) == 4
    names = run_snippets(snippets[:3])
    assert names["low"] <= names["metrics"]["test"]["macro_auroc"] <= names["high"]
    assert names["scores"].shape == (5,) and len(names["inputs"]["input_values"]) == 2
    if importlib.util.find_spec("peft") is not None:
        run_snippets([snippets[3]], names)
        assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 20_000
        merged = AutoModelForSequenceClassification.from_pretrained("merged").eval()
        given = names["inputs"]["input_values"]
        torch.testing.assert_close(merged(given).logits, names["adapted"].eval()(input_values=given).logits)
