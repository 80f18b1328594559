import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor, RandomKernelsConfig, RandomKernelsModel
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.train.comparison import scoreboard, scoreboard_encoders
from ecg_transformers.train.comparison.data import ComparisonData
from ecg_transformers.train.comparison.scoreboard import Scoreboard
from ecg_transformers.train.comparison.scoreboard_data import ScoreboardData, superclasses_of_codes
from ecg_transformers.train.comparison.scoreboard_encoders import (
    BoardRow,
    Features,
    digest,
    load_rows,
    parse_models,
    random_name,
)
from ecg_transformers.train.comparison.scoreboard_report import evaluate_term, predictions_table, scoreboard_lines
from ecg_transformers.train.evaluation import protocols
from ecg_transformers.train.features import embed, random_encoder_like

from ..conftest import tiny_encoder

LABELS = ["CD", "HYP", "MI", "NORM", "STTC"]
PARTS = {"train": 50, "validation": 20, "test": 20}
INPUT = {"leads": STANDARD_LEADS, "sampling_rate": 100, "num_samples": 1000}


@pytest.fixture(scope="module")
def data():
    parts = {name: load_ecg("ptb-xl-sample", split=name, decode=False) for name in PARTS}
    parts = {
        name: rows.select([n for n, labels in enumerate(rows["labels"]) if labels][: PARTS[name]])
        for name, rows in parts.items()
    }
    hospital = parts["test"].to_list()
    codes = {"NORM": "426783006", "CD": "59118001", "STTC": "164934002", "MI": "164865005", "HYP": "164873001"}
    for row in hospital:
        row |= {"record_id": f"h{row['record_id']}", "patient_id": None}
        row["labels"] = [codes[name] for name in row["labels"]]
    hospital = Dataset.from_list(hospital, features=parts["test"].features)
    return ScoreboardData(
        ComparisonData("ptb-xl-sample", parts["train"], **parts, label_names=LABELS), None, None, hospital
    )


@pytest.fixture(scope="module")
def rows():
    extractor = EcgFeatureExtractor(**INPUT, missing_leads="mask")
    kernels = RandomKernelsModel(RandomKernelsConfig(**INPUT, num_kernels=12)).eval()
    model, _ = tiny_encoder(**INPUT)
    seeds = [model, random_encoder_like(model, 5)]
    fresh = [random_encoder_like(model, seed) for seed, model in enumerate(seeds)]
    named = {"random-kernels": [kernels], random_name("tiny"): fresh, "tiny": seeds}
    kinds = ("untrained", "random", "model")
    return [
        BoardRow(name, kind, [(model, extractor) for model in models], [""] * len(models))
        for kind, (name, models) in zip(kinds, named.items(), strict=True)
    ]


@pytest.fixture(scope="module")
def board(rows, data, tmp_path_factory):
    features = Features(rows, tmp_path_factory.mktemp("board"))
    with pytest.MonkeyPatch.context() as patch:  # fewer fits
        patch.setattr(scoreboard, "NUM_DRAWS", 2)
        patch.setattr(protocols, "cross_validated_C", lambda *args: 0.01)
        terms = Scoreboard(features, data).terms()
    return features, terms, [evaluate_term(term, rows, num_resamples=50) for term in terms]


def test_every_number_follows_from_the_predictions_by_scikit_learn_alone(board):
    _, terms, evaluated = board
    table = predictions_table(terms).to_pylist()
    checked = set()
    for term in evaluated:
        for row, facts in term["rows"].items():
            groups = {}
            for line in table:
                if (line["term"], line["row"]) == (term["key"], row):
                    groups.setdefault((line["seed"], line["draw"]), {}).setdefault(line["label"], []).append(line)
            values = []
            for by_label in groups.values():
                arrays = [np.array([(x["truth"], x["score"]) for x in lines]).T for lines in by_label.values()]
                if term["metric"] == "auroc":
                    values.append(np.mean([roc_auc_score(*pair) for pair in arrays if 0 < pair[0].mean() < 1]))
                else:
                    values.append(np.mean([np.abs(score - truth).mean() for truth, score in arrays]))
                    values[-1] = 1 - values[-1] if term["metric"] == "share" else values[-1]
            assert facts["value"] == pytest.approx(np.mean(values)), (term["key"], row)
            checked.add(term["key"])
    assert {
        "labels_100",
        "labels_10",
        "lead_II",
        "noise_0_dB",
        "seconds_2.5",
        "sex",
        "age",
        "other_hospital",
    } <= checked


def test_all_labels_are_predicted_by_a_fit_of_the_folds_1_to_8_and_evaluated_on_9_and_10(board, rows, data):
    labelled = data.labelled
    found = board[2][0]["rows"]["tiny"]
    encoder = rows[2].encoders[0]
    features = {split: embed(*encoder, vars(labelled)[split], progress=False).features for split in PARTS}
    scaler = StandardScaler().fit(features["train"])
    tested = scaler.transform(np.concatenate([features["validation"], features["test"]]))
    truth = {
        split: np.array([[name in of for name in LABELS] for of in vars(labelled)[split]["labels"]]) for split in PARTS
    }
    evaluated = np.concatenate([truth["validation"], truth["test"]])
    (said,) = board[1][0].results["tiny"][0]
    for column in range(len(LABELS)):
        model = LogisticRegression(C=found["C"][0][0], solver="newton-cholesky", tol=1e-8)
        model.fit(scaler.transform(features["train"]), truth["train"][:, column])
        expected = model.predict_proba(tested)[:, 1]
        np.testing.assert_allclose(said.test.scores[:, column], expected, atol=1e-5)
    assert np.array_equal(said.test.labels, evaluated)
    assert found["value"] == pytest.approx(np.mean(found["seeds"]))


def test_gains_are_positive_where_the_model_is_better_errors_included(board):
    for term in board[2]:
        sign = -1 if term["lower_is_better"] else 1
        for gain in term["gains"]:
            difference = term["rows"][gain["model"]]["value"] - term["rows"][gain["over"]]["value"]
            assert gain["gain"] == pytest.approx(sign * difference)
            assert gain["ci95"][0] <= gain["ci95"][1]
    overs = {gain["over"] for gain in board[2][0]["gains"]}
    assert overs == {"random-kernels", random_name("tiny")}


def test_a_second_time_nothing_is_embedded_or_fitted(board, data, monkeypatch):
    monkeypatch.setattr(scoreboard_encoders, "embed", None)
    monkeypatch.setattr(scoreboard, "NUM_DRAWS", 2)
    monkeypatch.setattr(scoreboard, "linear_scores", None)
    again = Scoreboard(board[0], data).terms()
    assert [evaluate_term(term, board[0].rows, num_resamples=50) for term in again] == board[2]


def test_what_is_not_available_is_named_and_leaves_the_others(board, rows):
    _, _, evaluated = board
    terms = {term["key"]: term for term in evaluated}
    assert not terms["intervals"]["rows"] and not terms["waves"]["rows"]
    facts = {"rows": [{"name": row.name, "kind": row.kind, "num_features": 1} for row in rows], "terms": evaluated}
    lines = "\n".join(scoreboard_lines(facts))
    assert "not available" in lines and "--ludb" in lines


def test_an_encoder_that_cannot_do_without_a_lead_is_not_available_there(rows, data, tmp_path):
    strict = RandomKernelsModel(RandomKernelsConfig(**INPUT, num_kernels=6)).eval()
    strict.admits_missing_leads = False
    row = BoardRow("strict", "untrained", [(strict, rows[0].encoders[0][1])], [""])
    board = Scoreboard(Features([rows[0], row], tmp_path), data)
    term = evaluate_term(board.leads("lead_II", ("II",)), [rows[0], row], 20)
    assert set(term["rows"]) == {"random-kernels"}
    assert "never trained without a lead" in term["not_available"]["strict"]


def test_other_weights_or_another_input_are_other_features(rows):
    (model, extractor), (other, _) = rows[2].encoders
    clipped = EcgFeatureExtractor(**(extractor.to_dict() | {"clip": 3.0}))
    assert len({digest(model, extractor), digest(model, clipped), digest(other, extractor)}) == 3
    assert digest(model, EcgFeatureExtractor(**extractor.to_dict())) == digest(model, extractor)


def test_superclasses_of_another_hospital_are_those_that_its_codes_state():
    assert superclasses_of_codes(["426783006"]) == superclasses_of_codes(["426177001", "427393009"]) == ["NORM"]
    assert superclasses_of_codes(["426783006", "164934002"]) == ["STTC"]  # a normal rhythm beside a T wave change
    assert superclasses_of_codes(["59118001", "164873001"]) == ["CD", "HYP"]
    assert superclasses_of_codes(["164889003"]) == superclasses_of_codes([]) == []  # fibrillation has none


def test_models_are_named_once_with_the_folders_of_their_seeds(tmp_path):
    assert parse_models(["a=x,y", "b=z"]) == {"a": ["x", "y"], "b": ["z"]}
    for wrong in (["a"], ["a="], ["a=x,"], ["a=x", "a=y"], ["random-kernels=x"]):
        with pytest.raises(ValueError, match="NAME=DIR"):
            parse_models(wrong)


def test_flags_of_the_input_are_the_whole_treatment_for_all_encoders(tmp_path):
    tiny_encoder(tmp_path, extractor={"highpass_hz": 0.5, "normalization": "lead"}, **INPUT)
    for row in load_rows({"tiny": [str(tmp_path)]}, {"unit": "dimensionless", "clip": 5}):
        extractor = row.encoders[0][1]
        assert (extractor.unit, extractor.clip, extractor.highpass_hz) == ("dimensionless", 5, None)
    ((_, stored),) = load_rows({"tiny": [str(tmp_path)]}, {})[-1].encoders
    assert stored.highpass_hz == 0.5
    with pytest.raises(ValueError, match="--learning_rate is no setting"):
        load_rows({"tiny": [str(tmp_path)]}, {"learning_rate": 1})


@pytest.mark.slow
def test_the_command_writes_numbers_table_and_predictions(tmp_path):
    from ecg_transformers.train.cli import main

    tiny_encoder(tmp_path / "model", extractor={"missing_leads": "mask"}, **INPUT)
    command = ["compare", "--dataset", "ptb-xl-sample", "--scoreboard", f"tiny={tmp_path / 'model'}"]
    assert main([*command, "--output_dir", str(tmp_path / "out"), "--debug"]) == 0
    facts = json.loads((tmp_path / "out" / "scoreboard.json").read_text())
    assert [row["name"] for row in facts["rows"]][-2:] == [random_name("tiny"), "tiny"]
    assert facts["terms"][0]["num_test_records"] > 100
    assert (tmp_path / "out" / "scoreboard.md").read_text().count("\n| all labels |") == 2
    terms = set(pq.read_table(tmp_path / "out" / "predictions.parquet")["term"].to_pylist())
    assert {"labels_1", "sex", "identity_at_10"} <= terms or "identity_at_10" not in terms
    assert os.listdir(tmp_path / "out" / "features")
