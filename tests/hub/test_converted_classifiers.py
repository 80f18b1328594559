"""Whatever authors' classifier is converted: it says what its labels are, its card is that of a classifier, and the
pipeline gives scores."""

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, pipeline

from ecg_transformers.hub.convert import SOURCES
from ecg_transformers.hub.convert_st_mem import st_mem_state_dict
from ecg_transformers.hub.convert_weimann import weimann_state_dict
from ecg_transformers.modeling import (
    EcgViTConfig,
    EcgViTForSequenceClassification,
    StMemConfig,
    StMemForSequenceClassification,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.train.cli import main

from .test_convert_ecg_fm import WIDTH
from .test_convert_ecg_fm import published_state as ecg_fm_state
from .test_convert_ecg_founder import published_state as ecg_founder_state
from .test_convert_hubert_ecg import published as hubert_ecg
from .test_convert_lejepa import probe_file

SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def st_mem_file():
    config = StMemConfig(**SIZES, head_dim=64, num_samples=750, patch_size=75, num_labels=5, decoder_hidden_size=16)
    return {"model": st_mem_state_dict(StMemForSequenceClassification(config))}, ["--num_attention_heads", "2"]


def hubert_file():
    head = {"classifier.weight": torch.randn(3, 32), "classifier.bias": torch.zeros(3)}
    encoder = {key: value for key, value in hubert_ecg()[1].items() if not key.startswith(("final_proj", "label_emb"))}
    return {"hubert_ecg." + key: value for key, value in encoder.items()} | head, ["--num_attention_heads", "4"]


def ecg_fm_file():
    pretraining = ("mask_emb", "quantizer", "project_q", "final_proj")
    state = {"encoder." + key: value for key, value in ecg_fm_state().items() if not key.startswith(pretraining)}
    head = {"proj.weight": torch.randn(17, WIDTH), "proj.bias": torch.zeros(17)}
    return {"model": state | head}, ["--num_attention_heads", "4"]


def weimann_file():
    config = EcgViTConfig(
        **SIZES | {"num_attention_heads": 3},
        leads=STANDARD_LEADS,
        sampling_rate=500,
        num_samples=1250,
        patch_size=25,
        patching="all_leads",
        attention_pattern="full",
        position_embedding="sincos_interleaved",
        position_every_layer=False,
        num_registers=1,
        use_bias=False,
        layer_norm_bias=False,
        layer_norm_eps=1e-6,
        classifier_pooling="register",
        num_labels=5,
    )
    return {"model": weimann_state_dict(EcgViTForSequenceClassification(config))}, ["--num_attention_heads", "3"]


FILES = {
    "ecg-fm": ecg_fm_file,
    "ecg-founder": lambda: ({"state_dict": ecg_founder_state()}, []),
    "hubert-ecg": hubert_file,
    "lejepa-ecg": lambda: (probe_file("register"), []),
    "st-mem": st_mem_file,
    "weimann": weimann_file,
}
KINDS = {"st-mem": "single_label_classification"}  # the others have several labels a record


def test_every_source_with_classifiers_is_here():
    assert set(FILES) == set(SOURCES) - {"kim", "ecg-cpc"}


@pytest.mark.parametrize("source", FILES)
def test_a_converted_classifier_says_what_it_is_and_gives_scores(source, tmp_path):
    checkpoint, flags = FILES[source]()
    torch.save(checkpoint, tmp_path / "theirs.pth")
    folder = str(tmp_path / "converted")
    command = ["convert", "--source", source, "--checkpoint", str(tmp_path / "theirs.pth"), "--output_dir", folder]
    assert main([*command, *flags]) == 0
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.problem_type == KINDS.get(source, "multi_label_classification")
    # It is no feature extractor, and the Hub has no tag for its task.
    assert ModelCard.load(f"{folder}/README.md").data.pipeline_tag is None
    signal = np.random.default_rng(0).normal(size=(12, 5000)).cumsum(-1) / 50
    recording = {"array": signal, "sampling_rate": 500, "leads": list(STANDARD_LEADS), "unit": "mV"}
    scores = [row["score"] for row in pipeline("ecg-classification", model=folder, device="cpu")(recording)]
    assert len(scores) == model.config.num_labels and all(0 <= score <= 1 for score in scores)


def test_a_converted_encoder_is_for_features(tmp_path):
    torch.save({"model": ecg_fm_state()}, tmp_path / "theirs.pt")
    command = ["convert", "--source", "ecg-fm", "--checkpoint", str(tmp_path / "theirs.pt"), "--output_dir"]
    assert main([*command, str(tmp_path / "converted"), "--num_attention_heads", "4"]) == 0
    assert ModelCard.load(tmp_path / "converted" / "README.md").data.pipeline_tag == "feature-extraction"
