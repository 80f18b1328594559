"""Weights that come with the package."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForTokenClassification, pipeline

from ecg_transformers import carried_model, load_ecg
from ecg_transformers.data.corpora.ludb import LUDB
from ecg_transformers.modeling.beat_channels import find_r_peaks
from ecg_transformers.train.carried_models import CARRIED_MODELS
from ecg_transformers.train.cli import main
from ecg_transformers.train.delineation.evaluation import delineate
from ecg_transformers.train.delineation.intervals import measure_intervals
from ecg_transformers.train.delineation.masks import annotated_waves
from ecg_transformers.train.delineation.scores import count_waves, score_waves
from ecg_transformers.train.tasks import targets


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


@pytest.fixture(scope="module")
def delineator():
    folder = carried_model("ecg-small-delineation")
    return AutoModelForTokenClassification.from_pretrained(folder), AutoFeatureExtractor.from_pretrained(folder)


def test_the_delineator_finds_the_waves_of_its_corpus(delineator, shared_data_dir):
    entries = LUDB.index(shared_data_dir / "ludb", {})[:5]
    rows = [LUDB.read(entry, {}).to_row() for entry in entries]
    scores = score_waves(count_waves([annotated_waves(row) for row in rows], delineate(*delineator, rows)), 10)
    for point, least in {"P_onset": 0.9, "QRS_onset": 0.98, "QRS_offset": 0.98, "T_offset": 0.9}.items():
        found = scores["per_point"][point]
        assert found["sensitivity"] > least and found["ppv"] > least  # it was trained on them


def test_the_delineator_sees_the_beats_of_recordings_that_it_was_not_trained_on(delineator):
    rows = load_ecg("ptb-xl-sample", split="test").select(range(12))
    for row, found in zip(rows, delineate(*delineator, rows), strict=True):
        signal, leads, rate = row["ecg"]["signal"], row["ecg"]["leads"], row["ecg"]["sampling_rate"]
        peaks = find_r_peaks(np.asarray(signal)[leads.index("II")], rate)
        assert measure_intervals(found).values["heart_rate_bpm"] == pytest.approx(
            60 * rate / np.median(np.diff(peaks)), rel=0.03
        )


def test_the_delineator_reads_one_lead(delineator):
    row = load_ecg("ptb-xl-sample", split="test")[0]
    place = row["ecg"]["leads"].index("II")
    alone = row | {"ecg": row["ecg"] | {"signal": row["ecg"]["signal"][place : place + 1], "leads": ["II"]}}
    (found,), (among) = delineate(*delineator, [alone]), delineate(*delineator, [row])
    assert found.leads == ("II",)
    peaks, expected = ([wave.peak for wave in one.of_lead("II", "QRS")] for one in (found, among[0]))
    assert len(peaks) == len(expected) > 5 and np.abs(np.subtract(peaks, expected)).max() <= 5


def test_intervals_of_a_task_come_from_the_carried_delineator_by_its_name(monkeypatch):
    monkeypatch.setattr(targets, "load_ecg", lambda *args, **options: load_ecg(*args, **options).select(range(12)))
    splits = targets.load_task("ptb-xl-sample", target="intervals", delineator="ecg-small-delineation")
    found = splits.truth_of("test")
    assert len(found) > 4
    for name, low, high in (("heart_rate_bpm", 30, 200), ("qrs_duration_ms", 50, 200), ("qt_interval_ms", 250, 600)):
        values = found[:, splits.label_names.index(name)]
        assert ((values > low) & (values < high)).all()


@pytest.mark.parametrize("name", ["ecg-small", "ecg-small-delineation"])
def test_commands_take_a_carried_model_by_its_name(name, tmp_path):
    command = ["embed", "--model", name, "--dataset", "ptb-xl-sample", "--split", "test"]
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
