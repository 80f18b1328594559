import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from ecg_transformers.train.evaluate_metrics.classification_scores import choose_thresholds, classification_scores

NAMES = ("NORM", "MI", "STTC")


def multilabel(num_records=150, seed=0):
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_records, 3)) < (0.5, 0.2, 0.1)).astype(int)
    return labels, 1 / (1 + np.exp(-(generator.normal(size=labels.shape) + 1.5 * labels - 1.5)))


def singlelabel(num_records=150, seed=0):
    generator = np.random.default_rng(seed)
    classes = generator.integers(3, size=num_records)
    scores = np.exp(generator.normal(size=(num_records, 3)) + 1.5 * np.eye(3)[classes])
    return classes, scores / scores.sum(axis=1, keepdims=True)


def best_f1_slowly(labels, scores):
    """The largest F1 over every cut of the scores, counted by hand."""
    best = 0.0
    for cut in sorted(set(scores)):
        hits = sum(1 for label, score in zip(labels, scores, strict=True) if label and score >= cut)
        said = sum(1 for score in scores if score >= cut)
        best = max(best, 2 * hits / (said + sum(labels)))
    return best


def test_multilabel_scores_equal_scikit_learn():
    labels, scores = multilabel()
    result = classification_scores(labels, scores, NAMES)
    assert result["macro_auroc"] == pytest.approx(roc_auc_score(labels, scores, average="macro"))
    assert result["macro_auprc"] == pytest.approx(average_precision_score(labels, scores, average="macro"))
    assert result["macro_f1_at_0.5"] == pytest.approx(f1_score(labels, scores >= 0.5, average="macro"))
    assert result["per_class"]["MI"]["f1_at_0.5"] == pytest.approx(f1_score(labels[:, 1], scores[:, 1] >= 0.5))


def test_single_label_scores_equal_scikit_learn():
    classes, scores = singlelabel()
    result = classification_scores(classes, scores, NAMES)
    assert result["macro_auroc"] == pytest.approx(roc_auc_score(classes, scores, multi_class="ovr", average="macro"))
    assert result["macro_f1_argmax"] == pytest.approx(f1_score(classes, scores.argmax(axis=1), average="macro"))
    assert result["accuracy"] == accuracy_score(classes, scores.argmax(axis=1))
    assert "macro_f1_at_0.5" not in result


def test_the_chosen_threshold_reaches_the_best_f1_on_the_validation_set():
    labels, scores = multilabel(60)
    thresholds, without = choose_thresholds(labels, scores, NAMES)
    assert without == {}
    for column, name in enumerate(NAMES):
        reached = f1_score(labels[:, column], scores[:, column] >= thresholds[name])
        assert reached == pytest.approx(best_f1_slowly(labels[:, column], scores[:, column]))


def test_the_chosen_threshold_lies_between_two_scores():
    thresholds, _ = choose_thresholds(np.array([[0], [0], [1], [1]]), np.array([[0.1], [0.3], [0.5], [0.9]]), ["MI"])
    assert thresholds["MI"] == pytest.approx(0.4)


def test_tuned_f1_uses_the_thresholds_of_the_validation_set():
    (labels, scores), (other_labels, other_scores) = multilabel(seed=0), multilabel(seed=1)
    result = classification_scores(labels, scores, NAMES, other_labels, other_scores)
    thresholds, _ = choose_thresholds(other_labels, other_scores, NAMES)
    tuned = scores >= [thresholds[name] for name in NAMES]
    assert result["macro_f1_tuned"] == pytest.approx(f1_score(labels, tuned, average="macro"))
    assert {name: row["threshold"] for name, row in result["per_class"].items()} == thresholds


def test_labels_with_too_few_positives_are_excluded_and_named():
    labels, scores = multilabel()
    labels[:, 2] = 0
    labels[:2, 2] = 1
    result = classification_scores(labels, scores, NAMES, min_positives=3)
    assert list(result["per_class"]) == ["NORM", "MI"]
    assert result["excluded"] == {"STTC": "2 positive of 150 records, at least 3 needed"}
    assert result["macro_auroc"] == pytest.approx(roc_auc_score(labels[:, :2], scores[:, :2]))


def test_a_label_without_positives_in_the_validation_set_has_no_tuned_f1():
    (labels, scores), (other_labels, other_scores) = multilabel(seed=0), multilabel(seed=1)
    other_labels[:, 1] = 0
    result = classification_scores(labels, scores, NAMES, other_labels, other_scores)
    assert "f1_tuned" not in result["per_class"]["MI"] and "auroc" in result["per_class"]["MI"]
    assert result["excluded_from_f1_tuned"] == {
        "MI": "no threshold: 0 positive of 150 records, at least 1 needed in the validation set"
    }
    assert result["macro_f1_tuned"] == pytest.approx(
        np.mean([result["per_class"][name]["f1_tuned"] for name in ("NORM", "STTC")])
    )


def test_logits_are_refused():
    labels, scores = multilabel()
    with pytest.raises(ValueError, match="Apply a sigmoid"):
        classification_scores(labels, np.log(scores / (1 - scores)), NAMES)
    classes, scores = singlelabel()
    with pytest.raises(ValueError, match="sum to 1"):
        classification_scores(classes, scores / 2, NAMES)


def test_half_a_validation_set_is_refused():
    labels, scores = multilabel()
    with pytest.raises(ValueError, match="one of them"):
        classification_scores(labels, scores, NAMES, validation_labels=labels)


def test_thresholds_for_a_single_label_are_refused():
    classes, scores = singlelabel()
    with pytest.raises(ValueError, match="multi-label"):
        classification_scores(classes, scores, NAMES, np.eye(3)[classes], scores)


def test_a_class_beyond_the_columns_is_refused():
    _, scores = singlelabel(3)
    with pytest.raises(ValueError, match="from 0 to 2"):
        classification_scores(np.array([0, 1, 3]), scores, NAMES)
