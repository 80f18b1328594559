"""Scores of multi-label and single-label ECG classification, macro and for each class.

Everything is a mean over labels that count the same. Labels that a set cannot evaluate are left out and named.
Thresholds come from a validation set, never from the records that are scored.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, precision_recall_curve

from ecg_transformers.train.metrics import excluded_labels, macro_auprc, macro_auroc, macro_f1


def classification_scores(
    labels: np.ndarray,
    probabilities: np.ndarray,
    label_names: Sequence[str] | None = None,
    validation_labels: np.ndarray | None = None,
    validation_probabilities: np.ndarray | None = None,
    min_positives: int = 1,
) -> dict:
    """AUROC, average precision and F1 of each class and their means.

    Args:
        labels (`np.ndarray`):
            Multi-label: shape `(num_records, num_labels)`, 0 or 1. Single-label: shape `(num_records,)`, the index of
            the class.
        probabilities (`np.ndarray` of shape `(num_records, num_labels)`):
            After a sigmoid (multi-label), or a softmax (single-label, rows sum to 1).
        label_names (`Sequence[str]`, *optional*): Names of the columns; their numbers by default.
        validation_labels (`np.ndarray` of shape `(num_validation_records, num_labels)`, *optional*):
            Labels of the set (fold 9 of PTB-XL) on which thresholds are chosen. Multi-label only.
        validation_probabilities (`np.ndarray` of shape `(num_validation_records, num_labels)`, *optional*):
            Probabilities of the same set by the same model.
        min_positives (`int`, *optional*, defaults to 1): Labels with fewer positives are excluded and named.

    Returns:
        `dict`: `macro_auroc`, `macro_auprc`, `per_class` (name → scores), `excluded` (name → reason), `num_records`.
        Multi-label adds `macro_f1_at_0.5` (`f1_at_0.5` for each class) and, with a validation set,
        `macro_f1_tuned` (`f1_tuned`, `threshold`) and `excluded_from_f1_tuned`. Single-label (one against the rest)
        adds `macro_f1_argmax` (`f1_argmax`), which scores the most probable class, and `accuracy`.

    Raises:
        `ValueError`: For scores that are no probabilities, for one half of a validation set, and for thresholds where
            a record has one class.
    """
    labels, probabilities = np.asarray(labels), _probabilities(probabilities)
    names = [str(i) for i in range(probabilities.shape[1])] if label_names is None else list(label_names)
    if (validation_labels is None) != (validation_probabilities is None):
        raise ValueError("Thresholds need both validation_labels and validation_probabilities, got one of them.")
    single_label = labels.ndim == 1
    if single_label:
        classes = labels
        labels = one_hot(labels, len(names))
        if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
            raise ValueError("Expected rows of single-label probabilities to sum to 1. Apply a softmax to the logits.")
    auroc = macro_auroc(labels, probabilities, names, min_positives)
    columns = {"auroc": auroc, "auprc": macro_auprc(labels, probabilities, names, min_positives)}
    extra = {}
    if single_label:
        if validation_labels is not None:
            raise ValueError("Thresholds belong to multi-label tasks; single-label F1 scores the most probable class.")
        predicted = probabilities.argmax(axis=1)
        columns["f1_argmax"] = macro_f1(labels, one_hot(predicted, len(names)), names, min_positives=min_positives)
        extra["accuracy"] = float(accuracy_score(classes, predicted))
    else:
        columns["f1_at_0.5"] = macro_f1(labels, probabilities, names, min_positives=min_positives)
    scores = {f"macro_{column}": metric.value for column, metric in columns.items()}
    per_class = {
        name: {column: metric.per_class[name] for column, metric in columns.items()} for name in auroc.per_class
    }
    if validation_labels is not None:
        thresholds, without = choose_thresholds(validation_labels, validation_probabilities, names, min_positives)
        tuned = _f1_at(thresholds, labels, probabilities, names, min_positives)
        scores["macro_f1_tuned"] = float(np.mean(list(tuned.values()))) if tuned else None
        for name, f1 in tuned.items():
            per_class[name] |= {"f1_tuned": f1, "threshold": thresholds[name]}
        extra["excluded_from_f1_tuned"] = auroc.excluded | {
            name: f"no threshold: {reason} in the validation set" for name, reason in without.items()
        }
    return {**scores, **extra, "per_class": per_class, "excluded": auroc.excluded, "num_records": len(labels)}


def choose_thresholds(
    labels: np.ndarray, probabilities: np.ndarray, label_names: Sequence[str], min_positives: int = 1
) -> tuple[dict[str, float], dict[str, str]]:
    """The threshold of each label that gives the largest F1 on a validation set.

    Candidates lie half-way between neighbouring probabilities (positive means at least the threshold), since the best
    threshold on few records should not sit on one of them; of equal ones, the lowest is taken.

    Returns:
        `tuple[dict[str, float], dict[str, str]]`: Thresholds by name, and the labels without one with the reason.
    """
    labels, probabilities = np.asarray(labels), _probabilities(probabilities)
    if labels.shape != probabilities.shape or labels.shape[1] != len(label_names):
        raise ValueError(
            f"Expected validation labels and probabilities of shape (num_records, {len(label_names)}), got "
            f"{labels.shape} and {probabilities.shape}."
        )
    without = excluded_labels(labels, label_names, min_positives)
    thresholds = {}
    for column, name in enumerate(label_names):
        if name in without:
            continue
        precision, recall, candidates = precision_recall_curve(labels[:, column], probabilities[:, column])
        precision, recall = precision[:-1], recall[:-1]  # the last point is no threshold's
        total = precision + recall
        best = int(np.argmax(np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0)))
        threshold = candidates[best]
        if best > 0:
            middle = (candidates[best - 1] + threshold) / 2
            threshold = middle if middle > candidates[best - 1] else threshold  # neighbouring floats have no middle
        thresholds[name] = float(threshold)
    return thresholds, without


def one_hot(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Class indices of shape `(num_records,)` as 0 and 1 of shape `(num_records, num_classes)`."""
    classes = np.asarray(classes)
    if not np.issubdtype(classes.dtype, np.integer) or ((classes < 0) | (classes >= num_classes)).any():
        raise ValueError(f"Expected classes as whole numbers from 0 to {num_classes - 1}, got {np.unique(classes)}.")
    return np.eye(num_classes, dtype=int)[classes]


def _f1_at(thresholds, labels, probabilities, names, min_positives) -> dict[str, float]:
    """F1 of the labels that have a threshold and that these records can evaluate."""
    excluded = excluded_labels(labels, names, min_positives)
    evaluated = [name for name in names if name in thresholds and name not in excluded]
    if not evaluated:
        return {}
    columns = [names.index(name) for name in evaluated]
    positive = probabilities[:, columns] >= np.array([thresholds[name] for name in evaluated])
    return macro_f1(labels[:, columns], positive, evaluated, min_positives=min_positives).per_class


def _probabilities(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"Expected probabilities of shape (num_records, num_labels), got {values.shape}.")
    if (values < 0).any() or (values > 1).any():
        raise ValueError(
            f"Expected probabilities in [0, 1], got values from {np.nanmin(values):.3g} to {np.nanmax(values):.3g}. "
            "Apply a sigmoid (multi-label) or a softmax (single-label) to the logits."
        )
    return values
