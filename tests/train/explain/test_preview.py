"""The picture of a published model: the carried recording, and what the model makes of it."""

import matplotlib.image
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.train.explain import preview
from ecg_transformers.train.explain.preview import RECORD_ID, ecg_picture

SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
LEADS = ["I", "II", "V2"]


def save(folder, auto_class=AutoModel, model_type="ecg_vit", leads=LEADS, **settings):
    torch.manual_seed(0)
    given = {"leads": leads, "sampling_rate": 250, "num_samples": settings.pop("num_samples", 1000)}
    config = AutoConfig.for_model(model_type, patch_size=50, **given, **SIZE, **settings)
    auto_class.from_config(config).save_pretrained(folder)
    EcgFeatureExtractor(**given).save_pretrained(folder)
    return folder


def test_a_classifier_says_its_scores_of_the_carried_recording(tmp_path):
    labels = {number: name for number, name in enumerate(["CD", "M|I", "NORM"])}
    settings = {"id2label": labels, "problem_type": "multi_label_classification"}
    picture = ecg_picture(save(tmp_path, AutoModelForSequenceClassification, **settings))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    (row,) = (row for row in load_ecg("ptb-xl-sample", split="test") if row["record_id"] == RECORD_ID)
    with torch.inference_mode():
        scores = model(**EcgFeatureExtractor.from_pretrained(tmp_path)(row)).logits[0].sigmoid()
    for name, score in zip(("CD", r"M\|I", "NORM"), scores.tolist(), strict=True):  # Markdown of others is escaped
        assert f"{name} {score:.2f}" in picture.caption
    assert picture.caption.startswith("Uncalibrated scores: ")
    assert "(Wagner et al., 2020, CC BY 4.0" in picture.caption
    assert picture.content.startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("auto_class", "model_type", "settings", "says"),
    [
        (AutoModelForSequenceClassification, "ecg_vit", {"problem_type": "regression"}, "The model predicts: "),
        (AutoModelForPreTraining, "ecg_jepa", {}, "what one mask of the pretraining hides ("),
        (AutoModelForPreTraining, "sigreg_jepa", {}, "what one mask of the pretraining hides ("),
        (AutoModelForPreTraining, "mtae", {}, "what the decoder makes of them"),
        (AutoModel, "ecg_vit", {}, "Where the attention of the encoder goes."),
    ],
)
def test_every_kind_of_model_shows_what_it_does_with_an_attribution(tmp_path, auto_class, model_type, settings, says):
    picture = ecg_picture(save(tmp_path, auto_class, model_type, **settings))
    assert says in picture.caption and f"Recording {RECORD_ID} of [PTB-XL]" in picture.caption
    assert picture == ecg_picture(tmp_path)  # the same file again: a second push sends nothing


@pytest.mark.slow
def test_an_encoder_without_attention_shows_the_leads_that_it_reads(tmp_path, monkeypatch):
    def none(*args, **settings):
        raise ValueError("no attention")

    monkeypatch.setattr(preview, "explain_recording", none)
    picture = ecg_picture(save(tmp_path))
    assert picture.caption.startswith("The leads that the model reads. Recording")


def test_a_model_that_cannot_read_the_recording_is_published_without_a_picture(tmp_path, caplog):
    assert ecg_picture(save(tmp_path, num_samples=3000)) is None  # 12 s; the recording has 10
    assert "No preview on ECG paper: ValueError: " in caplog.text


@pytest.mark.slow
def test_code_of_the_folder_is_not_run(tmp_path):
    save(tmp_path)
    (tmp_path / "modeling_ecg_vit.py").write_text("raise SystemExit('executed')")
    assert ecg_picture(tmp_path) is not None


@pytest.mark.slow
def test_the_picture_of_twelve_leads_is_not_wider_than_a_page(tmp_path):
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    picture = ecg_picture(save(tmp_path, AutoModelForPreTraining, "ecg_jepa", leads))
    (tmp_path / "a.png").write_bytes(picture.content)
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    assert pixels.shape[1] < 1300 and len(picture.content) < 500_000 and np.unique(pixels).size > 10
