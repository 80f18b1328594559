"""The metrics as `evaluate.Metric`: offline, by path and by class, in batches, equal to the plain functions."""

import re
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from ecg_transformers.train.evaluate_metrics import METRICS, ecg_metric, metric_path
from ecg_transformers.train.evaluate_metrics.calibration_scores import calibration_scores
from ecg_transformers.train.evaluate_metrics.challenge_scores import challenge_scores
from ecg_transformers.train.evaluate_metrics.classification_scores import classification_scores
from ecg_transformers.train.evaluate_metrics.delineation_scores import POINTS, delineation_scores, mask_scores


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)


def multilabel(num_labels=3, num_records=50):
    generator = np.random.default_rng(0)
    return (generator.random((num_records, num_labels)) < 0.3).astype(int), generator.random((num_records, num_labels))


def test_every_module_loads_by_its_path_without_a_network(monkeypatch):
    import evaluate

    def refuse(*arguments):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name, class_name in METRICS.items():
        assert type(evaluate.load(metric_path(name))).__name__ == class_name


@pytest.mark.parametrize("name", METRICS)
def test_imports_are_such_as_the_scanner_of_evaluate_reads(name):
    from evaluate.loading import get_imports

    for kind, module, _, _ in get_imports(metric_path(name)):
        assert kind == "library"
        import_module(module)
    assert not re.search(r"^import .*,", Path(metric_path(name)).read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_multilabel_classification_equals_the_function():
    labels, scores = multilabel()
    options = {"label_names": ["NORM", "MI", "CD"], "validation_labels": labels, "validation_probabilities": scores}
    result = ecg_metric("ecg_classification").compute(predictions=scores, references=labels, **options)
    assert result == classification_scores(labels, scores, **options)


def test_single_label_classification_equals_the_function():
    labels, scores = multilabel()
    scores, classes = scores / scores.sum(axis=1, keepdims=True), np.arange(50) % 3
    result = ecg_metric("ecg_classification").compute(predictions=scores, references=classes)
    assert result == classification_scores(classes, scores)


def test_batches_give_the_same_as_one_call():
    labels, scores = multilabel()
    metric = ecg_metric("ecg_classification")
    for start in range(0, 50, 16):
        metric.add_batch(predictions=scores[start : start + 16], references=labels[start : start + 16])
    assert metric.compute() == classification_scores(labels, scores)


def test_a_metric_on_disk_gives_the_same_as_in_memory():
    labels, scores = multilabel()
    metric = ecg_metric("ecg_classification", keep_in_memory=False)
    assert metric.compute(predictions=scores, references=labels) == classification_scores(labels, scores)


def test_calibration_equals_the_function():
    labels, scores = multilabel()
    options = {"validation_labels": labels, "validation_logits": scores - 0.5, "num_bins": 10}
    result = ecg_metric("calibration").compute(predictions=scores - 0.5, references=labels, **options)
    assert result == calibration_scores(labels, scores - 0.5, **options)


def test_the_challenge_metric_equals_the_function():
    labels, scores = multilabel(26)
    result = ecg_metric("cinc2021_challenge").compute(predictions=(scores > 0.8).astype(int), references=labels)
    assert result == challenge_scores(labels, scores > 0.8)


def test_probabilities_are_not_cut_off_to_outputs_of_the_challenge():
    labels, scores = multilabel(26)
    with pytest.raises(ValueError, match="outputs of 0 and 1"):
        ecg_metric("cinc2021_challenge").compute(predictions=scores, references=labels)


def test_delineation_of_points_or_masks_equals_the_functions():
    references = [dict.fromkeys(POINTS, []) | {"QRS_peak": [100, 500]}]
    predictions = [dict.fromkeys(POINTS, []) | {"QRS_peak": [102, 499]}]
    metric = ecg_metric("delineation")
    result = metric.compute(predictions=predictions, references=references, sampling_rate=500)
    assert result == delineation_scores(references, predictions, 500)
    masks = np.random.default_rng(0).integers(0, 4, (2, 3, 50))
    result = ecg_metric("delineation", config_name="masks").compute(
        predictions=masks[0], references=masks[1], sampling_rate=500
    )
    assert result == mask_scores(masks[1], masks[0], 500)


def test_an_unknown_form_of_delineation_is_refused():
    with pytest.raises(ValueError, match="masks"):
        ecg_metric("delineation", config_name="waves")


def test_an_unknown_metric_is_refused_with_the_names():
    with pytest.raises(ValueError, match="ecg_classification"):
        ecg_metric("accuracy")
    with pytest.raises(ValueError, match="ecg_classification"):
        metric_path("accuracy")


@pytest.mark.slow
def test_the_functions_do_not_import_evaluate():
    modules = [f"ecg_transformers.train.evaluate_metrics.{path.stem}" for path in _score_files()]
    code = f"import sys, {', '.join(modules)}; assert 'evaluate' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def _score_files():
    return sorted(Path(metric_path("calibration")).parent.glob("*_scores.py"))
