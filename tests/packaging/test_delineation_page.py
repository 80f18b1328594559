"""Every Python snippet of docs/delineation.md runs, in order, with a tiny model and five subjects of LUDB."""

import shutil

import numpy as np
import pytest
import torch

from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTModel

from .snippets import page_text, snippets_of

PAGE = page_text("delineation.md")


@pytest.fixture
def folder(tmp_path, shared_data_dir, monkeypatch):
    """What the page takes for granted: a model and LUDB."""
    torch.manual_seed(0)
    leads, sizes = ("I", "II"), {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
    frame = {"leads": leads, "sampling_rate": 50, "num_samples": 500}
    EcgViTModel(EcgViTConfig(**frame, patch_size=50, num_attention_heads=2, **sizes)).save_pretrained(
        tmp_path / "model"
    )
    EcgFeatureExtractor(**frame).save_pretrained(tmp_path / "model")
    (tmp_path / "ludb" / "data").mkdir(parents=True)
    shutil.copy(shared_data_dir / "ludb" / "ludb.csv", tmp_path / "ludb")
    for subject in range(1, 6):  # one of each fold
        for path in (shared_data_dir / "ludb" / "data").glob(f"{subject}.*"):
            shutil.copy(path, tmp_path / "ludb" / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_snippets_of_the_page_run(folder):
    snippets = snippets_of(PAGE)
    assert len(snippets) == 3
    names = {}
    for snippet in snippets:
        exec(compile(snippet.replace("max_steps=200", "max_steps=2"), "delineation.md", "exec"), names)
    evaluated = names["result"]["pretrained"]["delineation_linear"]
    assert names["again"]["per_point"] == evaluated["per_point"] and names["again"]["miou"] == evaluated["miou"]
    assert np.isfinite(names["marked"]["heart_rate_bpm"]).all()
    assert len(names["targets"]["qt_interval_ms"]) == len(names["others"]) == len(names["predicted"])
