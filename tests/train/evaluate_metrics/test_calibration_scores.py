import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from ecg_transformers.train.evaluate_metrics.calibration_scores import (
    calibration_scores,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_curve,
)


def multilabel(num_records=400, overconfidence=3.0, seed=0):
    """Logits whose calibrated size is `1 / overconfidence` of theirs."""
    generator = np.random.default_rng(seed)
    calibrated = generator.normal(size=(num_records, 2)) * 1.5
    labels = (generator.random(calibrated.shape) < 1 / (1 + np.exp(-calibrated))).astype(int)
    return labels, calibrated * overconfidence


def singlelabel(num_records=400, overconfidence=3.0, seed=0):
    generator = np.random.default_rng(seed)
    calibrated = generator.normal(size=(num_records, 4)) * 1.5
    noise = generator.gumbel(size=calibrated.shape)  # the largest of logits + Gumbel noise is a draw of the softmax
    return (calibrated + noise).argmax(axis=1), calibrated * overconfidence


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def ece_slowly(correct, probabilities, num_bins):
    total = 0.0
    for b in range(num_bins):
        low, high = b / num_bins, (b + 1) / num_bins
        members = [i for i, p in enumerate(probabilities) if low < p <= high or (b == 0 and p == 0)]
        if members:
            frequency = sum(correct[i] for i in members) / len(members)
            probability = sum(probabilities[i] for i in members) / len(members)
            total += len(members) / len(probabilities) * abs(frequency - probability)
    return total


def temperature_slowly(labels, logits):
    """The best of a fine grid of temperatures, by a likelihood written with loops."""

    def nll(temperature):
        losses = []
        for row, label in zip(logits / temperature, labels, strict=True):
            losses.append(math.log(sum(math.exp(value) for value in row)) - row[label])
        return sum(losses) / len(losses)

    return min(np.arange(1.0, 5.0, 0.02), key=nll)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_error_equals_a_slow_manual_version(num_bins):
    labels, logits = multilabel()
    probabilities = sigmoid(logits[:, 0])
    expected = ece_slowly(labels[:, 0], probabilities, num_bins)
    assert expected_calibration_error(labels[:, 0], probabilities, num_bins) == pytest.approx(expected)


def test_the_edges_of_the_bins_belong_to_the_lower_bin():
    curve = reliability_curve(np.array([1, 0, 1, 1]), np.array([0.0, 0.5, 0.75, 1.0]), num_bins=2)
    assert curve["count"].tolist() == [2, 2]
    assert curve["frequency"].tolist() == [0.5, 1.0]


def test_an_empty_bin_has_no_frequency_and_no_share_in_the_error():
    curve = reliability_curve(np.array([1, 1]), np.array([0.9, 0.8]), num_bins=2)
    assert np.isnan(curve["frequency"][0]) and curve["count"][0] == 0
    assert expected_calibration_error(np.array([1, 1]), np.array([0.9, 0.8]), 2) == pytest.approx(0.15)


def test_brier_and_likelihood_of_several_labels_equal_scikit_learn():
    labels, logits = multilabel()
    result = calibration_scores(labels, logits, ["MI", "CD"])
    for column, name in enumerate(("MI", "CD")):
        expected = brier_score_loss(labels[:, column], sigmoid(logits[:, column]))
        assert result["per_class"][name]["brier"] == pytest.approx(expected)
    assert result["nll"] == pytest.approx(log_loss(labels.ravel(), sigmoid(logits.ravel())))


def test_scores_of_a_single_label_equal_slow_manual_versions():
    labels, logits = singlelabel()
    probabilities = softmax(logits)
    result = calibration_scores(labels, logits)
    brier = 0.0
    for row, label in zip(probabilities, labels, strict=True):
        brier += sum((p - (c == label)) ** 2 for c, p in enumerate(row)) / len(labels)
    assert result["brier"] == pytest.approx(brier)
    assert result["nll"] == pytest.approx(log_loss(labels, probabilities))
    correct = (probabilities.argmax(axis=1) == labels).astype(int)
    assert result["ece"] == pytest.approx(ece_slowly(correct, probabilities.max(axis=1), 15))


@pytest.mark.parametrize("make", [multilabel, singlelabel])
def test_temperature_scaling_lowers_the_likelihood_and_the_calibration_error(make):
    (labels, logits), validation = make(seed=0), make(seed=1)
    result = calibration_scores(labels, logits, None, *validation)
    assert result["temperature"] == pytest.approx(3, rel=0.25)
    assert result["nll_scaled"] < result["nll"]
    assert result["ece_scaled"] < result["ece"]
    assert result["brier_scaled"] < result["brier"]


def test_the_fitted_temperature_equals_a_slow_manual_search():
    labels, logits = singlelabel(100)
    assert fit_temperature(labels, logits) == pytest.approx(temperature_slowly(labels, logits), abs=0.02)


@pytest.mark.parametrize("make", [multilabel, singlelabel])
@pytest.mark.parametrize("overconfidence", [0.3, 1.0, 4.0])
def test_the_fitted_temperature_never_raises_the_likelihood_where_it_was_fitted(make, overconfidence):
    labels, logits = make(overconfidence=overconfidence)
    scaled = negative_log_likelihood(labels, logits / fit_temperature(labels, logits))
    assert scaled <= negative_log_likelihood(labels, logits) + 1e-9


def test_large_logits_give_a_finite_likelihood():
    assert negative_log_likelihood(np.array([[1, 0]]), np.array([[1e4, -1e4]])) == 0
    assert negative_log_likelihood(np.array([1]), np.array([[1e4, -1e4]])) == pytest.approx(2e4)


def test_labels_without_positives_are_excluded_and_named():
    labels, logits = multilabel()
    labels[:, 1] = 0
    result = calibration_scores(labels, logits, ["MI", "CD"])
    assert list(result["per_class"]) == ["MI"] and "CD" in result["excluded"]
    assert result["ece"] == result["per_class"]["MI"]["ece"]


def test_probabilities_are_refused():
    labels, logits = multilabel()
    with pytest.raises(ValueError, match="Expected logits"):
        calibration_scores(labels, sigmoid(logits))


def test_labels_of_another_shape_are_refused():
    labels, logits = multilabel()
    with pytest.raises(ValueError, match="shape of the logits"):
        calibration_scores(labels[:, :1], logits)
    with pytest.raises(ValueError, match="one class for each"):
        calibration_scores(labels[:5, 0], logits)
