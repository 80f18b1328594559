"""Weights that come with the package."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from transformers import AutoFeatureExtractor, AutoModel, pipeline

from ecg_transformers import carried_model, load_ecg
from ecg_transformers.train.carried_models import CARRIED_MODELS
from ecg_transformers.train.cli import main


@pytest.mark.parametrize("name", CARRIED_MODELS)
def test_a_carried_folder_holds_weights_extractor_and_card_and_is_small(name):
    files = {path.name: path for path in Path(carried_model(name)).iterdir()}
    assert set(files) == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert sum(path.stat().st_size for path in files.values()) < 2_000_000
    assert "license: cc-by-4.0" in files["README.md"].read_text(encoding="utf-8")


def test_the_encoder_gives_features_of_a_recording_in_millivolts_at_any_rate():
    folder = carried_model("ecg-small")
    model, extractor = AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    row = load_ecg("ptb-xl-sample", split="test")[0]
    features = model(**extractor(row["ecg"], return_tensors="pt")).pooler_output
    assert features.shape == (1, 448) and features.isfinite().all()


def test_the_classifier_ranks_recordings_of_the_carried_test_fold():
    classify = pipeline("ecg-classification", model=carried_model("ecg-small-superdiagnostic"), device="cpu")
    rows = [row for row in load_ecg("ptb-xl-sample", split="test") if row["labels"]]
    scores = [{score["label"]: score["score"] for score in classify(row)} for row in rows]
    truth = np.array([[label in row["labels"] for label in scores[0]] for row in rows])
    values = np.array([[score[label] for label in scores[0]] for score in scores])
    assert roc_auc_score(truth, values, average="macro") > 0.8  # 0.906 on folds 9 and 10 of docs/carried_models.md


def test_a_lead_alone_has_thresholds_of_its_own():
    classify = pipeline("ecg-classification", model=carried_model("ecg-small-superdiagnostic"), device="cpu")
    ecg = load_ecg("ptb-xl-sample", split="test")[0]["ecg"]
    place = ecg["leads"].index("II")
    alone = ecg | {"signal": ecg["signal"][place : place + 1], "leads": ["II"]}
    assert all(score["above_threshold"] in (True, False) for score in classify({"ecg": alone}))
    two = ecg | {"signal": ecg["signal"][[place, place + 5]], "leads": ["II", ecg["leads"][place + 5]]}
    assert all(score["above_threshold"] is None for score in classify({"ecg": two}))  # measured on no such leads


def test_commands_take_a_carried_model_by_its_name(tmp_path):
    command = ["embed", "--model", "ecg-small", "--dataset", "ptb-xl-sample", "--split", "test"]
    assert main([*command, "--output_dir", str(tmp_path), "--debug"]) == 0
    assert pq.read_table(tmp_path / "embeddings.parquet")["features"].type.list_size == 448


def test_another_name_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="ecg-small-superdiagnostic"):
        carried_model("ecg-large")


def test_the_snippets_of_the_page_run():
    page = (Path(__file__).parents[2] / "docs" / "carried_models.md").read_text(encoding="utf-8")
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(snippet, "carried_models.md", "exec"), names)
    assert names["features"].shape == (8, 449) and len(names["scores"]) == 8
