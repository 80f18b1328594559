"""Every Python snippet of docs/fine_tune.md runs, in order."""

import importlib.util
import re
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

PAGE = (Path(__file__).parents[2] / "docs" / "fine_tune.md").read_text(encoding="utf-8")


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(snippets) == 4
    names = {}
    for snippet in snippets[:3]:
        exec(compile(snippet, "fine_tune.md", "exec"), names)
    assert names["low"] <= names["metrics"]["test"]["macro_auroc"] <= names["high"]
    assert names["scores"].shape == (5,) and len(names["inputs"]["input_values"]) == 2
    if importlib.util.find_spec("peft") is not None:
        exec(compile(snippets[3], "fine_tune.md", "exec"), names)
        assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 20_000
        merged = AutoModelForSequenceClassification.from_pretrained("merged").eval()
        given = names["inputs"]["input_values"]
        torch.testing.assert_close(merged(given).logits, names["adapted"].eval()(input_values=given).logits)
