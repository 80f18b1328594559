"""Every Python snippet of docs/evaluate.md runs."""

from pathlib import Path

import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel

from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTModel
from ecg_transformers.train.evaluation import protocols, run
from ecg_transformers.train.evaluation.run import ProtocolOptions, evaluate_encoder
from ecg_transformers.train.results import write_json
from ecg_transformers.train.tasks.targets import load_task

from .snippets import page_text, run_snippets, snippets_of

PAGE = page_text("evaluate.md")
INPUT = {"leads": ["I", "II", "V2"], "sampling_rate": 100, "num_samples": 500}


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "KERNELS", {"random_kernels": 24})  # faster
    monkeypatch.setattr(protocols, "cross_validated_C", lambda *args: 0.01)  # 25 fits fewer a model
    torch.manual_seed(0)
    config = EcgViTConfig(
        patch_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, **INPUT
    )
    EcgViTModel(config).save_pretrained("model")
    EcgFeatureExtractor(**INPUT, normalization="lead").save_pretrained("model")
    model, extractor = AutoModel.from_pretrained("model"), AutoFeatureExtractor.from_pretrained("model")
    splits = load_task("ptb-xl-sample")
    evaluation = evaluate_encoder(model, extractor, splits, ["linear"], [], ProtocolOptions(Path("evaluation")))
    write_json(evaluation.facts, Path("evaluation/metrics.json"))
    evaluation.write_predictions(Path("evaluation/predictions.parquet"))
    snippets = snippets_of(PAGE)
    assert len(snippets) == 3
    names = run_snippets(snippets)
    assert names["area"] == pytest.approx(names["metrics"]["pretrained"]["linear"]["macro_auroc"])
    assert 0 < names["error"] < 40
