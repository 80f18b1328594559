import json

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from transformers import AutoConfig, pipeline

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgViTConfig, EcgViTForSequenceClassification
from ecg_transformers.train.finetune import build_finetuning, check_lead_subsets, finish, load_classifier
from ecg_transformers.train.predictions import stored_calibration
from ecg_transformers.train.tasks.labelled_splits import load_labelled_splits
from ecg_transformers.train.tasks.lead_subsets import chosen_subsets, keep_leads
from ecg_transformers.train.trainer import train_and_save

from .conftest import tiny_encoder

LABELS = ("NORM", "MI", "CD")


def test_thresholds_after_the_temperature_split_the_same_records():
    scores = np.linspace(0.01, 0.99, 50)
    evaluated = {"temperature": 3.0, "thresholds": {"NORM": 0.3, "MI": 0.77}}
    stored = stored_calibration(evaluated, LABELS)
    scaled = expit(logit(scores) / 3.0)
    for name, threshold in evaluated["thresholds"].items():
        assert ((scaled >= stored["thresholds"][name]) == (scores >= threshold)).all()
    assert EcgViTConfig(calibration=stored).calibration["labels"] == list(LABELS)


def test_one_label_a_record_has_a_temperature_alone_and_a_regression_nothing():
    assert stored_calibration({"temperature": 1.5}, LABELS) == {"labels": list(LABELS), "temperature": 1.5}
    assert stored_calibration({"macro_zmae": 0.5}, LABELS) is None


def test_a_classifier_that_is_fine_tuned_again_starts_without_its_calibration(tmp_path):
    calibration, names = {"labels": list(LABELS), "temperature": 2.0}, dict(enumerate(LABELS))
    tiny_encoder(tmp_path, EcgViTForSequenceClassification, leads=["I"], id2label=names, calibration=calibration)
    for settings in ({}, {"calibration": calibration}):  # `finish` alone stores one
        again = load_classifier(str(tmp_path), LABELS, "multi_label_classification", settings)
        assert again.config.calibration is None


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A classifier that was not trained but calibrated, on all leads and on two subsets, with its metrics."""
    folder = tmp_path_factory.mktemp("calibrated")
    tiny_encoder(folder / "encoder", leads=["I", "II", "III", "V1"], extractor={"long_records": "all"})
    splits = load_labelled_splits("ptb-xl-sample", options={"task": "superdiagnostic"})
    output = str(folder / "classifier")
    trainer = build_finetuning(str(folder / "encoder"), splits, {"output_dir": output, "max_steps": 1})
    with torch.no_grad():
        trainer.model.classifier.weight.normal_()
    subsets = chosen_subsets(["2", "V1,II"])
    check_lead_subsets(trainer, splits, subsets)
    metrics = finish(trainer, splits, subsets)
    trainer.save_model(output)
    return output, metrics


def test_a_calibration_says_what_it_was_measured_on(calibrated):
    stored = AutoConfig.from_pretrained(calibrated[0]).calibration
    leads = ["I", "II", "III", "V1"]
    assert stored["input"] == {"leads": leads, "electrode_placement": "standard", "long_records": "all"}
    assert [subset["leads"] for subset in stored["subsets"]] == [["I", "II", "III"], ["II", "V1"]]  # III is derived


def test_recordings_of_a_measured_subset_are_calibrated_by_it(calibrated):
    folder, metrics = calibrated
    classify = pipeline("ecg-classification", model=folder, device="cpu")
    row = load_ecg("ptb-xl-sample", split="test")[0]
    for name, leads in {"2": ("I", "II"), "V1,II": ("V1", "II")}.items():
        some, measured = keep_leads(row, leads), metrics["lead_subsets"][name]
        found = {scored["label"]: scored for scored in classify(some, missing_leads="mask")}
        plain = classify(some, missing_leads="mask", function_to_apply="none")
        logits = {scored["label"]: scored["score"] for scored in plain}
        for label, threshold in measured["thresholds"].items():
            expected = expit(logits[label] / measured["temperature"])
            assert found[label]["score"] == pytest.approx(expected, abs=1e-6)
            assert found[label]["above_threshold"] == (expit(logits[label]) >= threshold)
    assert metrics["lead_subsets"]["2"]["temperature"] != metrics["test"]["temperature"]
    other = classify(keep_leads(row, ("II",)), missing_leads="mask")[0]
    assert other["above_threshold"] is None
    assert "not_calibrated" in [finding["name"] for finding in other["quality"]]


@pytest.mark.parametrize("names", [["13"], ["I,V9"]])
def test_an_unknown_subset_is_refused(names):
    with pytest.raises(ValueError, match="lead subsets of"):
        chosen_subsets(names)


@pytest.mark.slow
def test_what_finetune_writes_gives_calibrated_scores_in_the_pipeline(tmp_path):
    tiny_encoder(tmp_path / "encoder", extractor={"long_records": "all"})
    splits = load_labelled_splits("ptb-xl-sample", options={"task": "superdiagnostic"})
    folder = str(tmp_path / "classifier")
    settings = {"output_dir": folder, "learning_rate": 1e-2, "max_steps": 4, "eval_strategy": "steps", "eval_steps": 4}
    trainer = build_finetuning(str(tmp_path / "encoder"), splits, settings)
    train_and_save(trainer)
    evaluated = finish(trainer, splits)["test"]
    stored = json.loads((tmp_path / "classifier" / "config.json").read_text())["calibration"]
    assert stored["temperature"] == evaluated["temperature"]
    row = load_ecg("ptb-xl-sample", split="test")[0]
    classify = pipeline("ecg-classification", model=folder, device="cpu")
    found = {scored["label"]: scored for scored in classify(row)}
    logits = {scored["label"]: scored["score"] for scored in classify(row, function_to_apply="none")}
    for name, threshold in evaluated["thresholds"].items():
        assert found[name]["score"] == pytest.approx(expit(logits[name] / evaluated["temperature"]), abs=1e-6)
        assert found[name]["above_threshold"] == (expit(logits[name]) >= threshold)
    # What is trained anew is not calibrated any more.
    again = load_classifier(folder, splits.label_names, splits.problem_type, {})
    assert again.config.calibration is None and AutoConfig.from_pretrained(folder).calibration is not None
