"""Metrics of multi-label ECG classification, with the uncertainty that belongs to them.

The point estimates are scikit-learn's. The intervals are percentile bootstraps over records, or over patients where a
patient has several records. A bootstrap of the area under the ROC curve would call scikit-learn thousands of times;
here every resample is a vector of multiplicities, the scores are ranked once, and all resamples are evaluated by
cumulative sums (equal to scikit-learn to rounding, `tests/train/test_metrics.py`).

Two rules hold everywhere: a label that a test set cannot evaluate is left out *and named* with the reason, never
counted as 0.5; and two models are compared on the same resamples, since their errors on one record go together.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit, softmax
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from transformers import EvalPrediction

COUNTS_AT_ONCE = 2**18
"""Resamples x records of a bootstrap that are in memory, some 2 MB an array, so that they stay in a cache."""


@dataclass(frozen=True)
class MacroMetric:
    """A metric of each label that the test set can evaluate, their unweighted mean `value`, and the labels that are
    left out, each with the reason."""

    value: float
    per_class: dict[str, float]
    excluded: dict[str, str]


@dataclass(frozen=True)
class AurocInterval:
    """95 % bootstrap intervals, as `(low, high)`, of a macro AUROC and of the labels it averages."""

    macro: tuple[float, float]
    per_class: dict[str, tuple[float, float]]


class ResampledScore(NamedTuple):
    """A score of some records, the scores of its labels (or targets) by name, and that of each resample,
    `(num_resamples,)`."""

    value: float
    by_name: dict[str, float]
    resampled: np.ndarray


def excluded_labels(labels: np.ndarray, label_names: Sequence[str], min_positives: int = 1) -> dict[str, str]:
    """Labels that a set cannot evaluate, with the reason: fewer than `min_positives` positives, or no negative."""
    positives = np.asarray(labels).sum(axis=0)
    reasons = {}
    for name, count in zip(label_names, positives, strict=True):
        if count < max(min_positives, 1):
            reasons[name] = f"{int(count)} positive of {len(labels)} records, at least {max(min_positives, 1)} needed"
        elif count == len(labels):
            reasons[name] = f"all {len(labels)} records are positive, a negative is needed"
    return reasons


def macro_auroc(
    labels: np.ndarray, scores: np.ndarray, label_names: Sequence[str], min_positives: int = 1
) -> MacroMetric:
    """Macro-averaged area under the ROC curve of a multi-label task, by scikit-learn.

    Args:
        labels, scores (`np.ndarray` of shape `(num_records, num_labels)`): 0 or 1, and any monotone scale.
        label_names (`Sequence[str]`): Names of the columns.
        min_positives (`int`, *optional*, defaults to 1):
            Labels with fewer positives are excluded and named. 13 of PTB-XL's 71 labels have fewer than 10 in fold 10.
    """
    return _macro(roc_auc_score, labels, scores, label_names, min_positives)


def macro_auprc(
    labels: np.ndarray, scores: np.ndarray, label_names: Sequence[str], min_positives: int = 1
) -> MacroMetric:
    """Macro-averaged average precision (area under the precision-recall curve). Arguments as in [`macro_auroc`]."""
    return _macro(average_precision_score, labels, scores, label_names, min_positives)


def macro_f1(
    labels: np.ndarray, scores: np.ndarray, label_names: Sequence[str], threshold: float = 0.5, min_positives: int = 1
) -> MacroMetric:
    """Macro-averaged F1 score at a fixed threshold on probabilities. Other arguments as in [`macro_auroc`]."""

    def f1(truth, score):
        return f1_score(truth, score >= threshold, zero_division=0.0)

    return _macro(f1, labels, scores, label_names, min_positives)


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Macro AUROC, average precision and F1 of a classifier, for `Trainer(compute_metrics=compute_metrics)`.

    Several labels a record (multi-hot labels) count by the sigmoid of their logits and F1 at 0.5, one label a record
    (class numbers) by the softmax and F1 of the most probable class. Labels that the set cannot evaluate are left out
    of all means.

    Args:
        prediction ([`~transformers.EvalPrediction`]):
            `predictions`: logits `(num_records, num_labels)`, alone or the first of a tuple; `label_ids`:
            `(num_records, num_labels)` of 0 and 1, or `(num_records,)` of class numbers.

    Returns:
        `dict`: `macro_auroc`, `macro_auprc`, `macro_f1`, and `num_labels`, the number of labels in these means.

    Raises:
        ValueError: for labels of another form (a regression's), and where no label can be evaluated.

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from ecg_transformers import compute_metrics

    >>> logits, labels = np.array([[2.0, -1.0], [-1.5, 0.5], [0.3, -0.2]]), np.array([[1, 0], [0, 1], [1, 0]])
    >>> compute_metrics(EvalPrediction(predictions=logits, label_ids=labels))["macro_auroc"]
    1.0

    ```
    """
    predictions, labels = prediction.predictions, prediction.label_ids
    logits = np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions, dtype=float)
    labels = np.asarray(labels)
    names = [str(column) for column in range(logits.shape[-1])]
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        labels = np.eye(len(names), dtype=int)[labels]
        probabilities = softmax(logits, axis=-1)
        chosen = np.eye(len(names))[logits.argmax(axis=-1)]
    else:
        probabilities = chosen = expit(logits)
    if not (excluded := excluded_labels(labels, names)).keys() < set(names):
        raise ValueError(f"No label can be evaluated: {excluded}. Evaluate on records with and without them.")
    auroc = macro_auroc(labels, probabilities, names)
    return {
        "macro_auroc": auroc.value,
        "macro_auprc": macro_auprc(labels, probabilities, names).value,
        "macro_f1": macro_f1(labels, chosen, names).value,
        "num_labels": len(auroc.per_class),
    }


def resample_counts(
    num_records: int, num_resamples: int = 1000, seed: int = 0, groups: Sequence | None = None
) -> np.ndarray:
    """Counts of each record in each bootstrap resample, from a generator of their own.

    Args:
        groups (`Sequence`, *optional*):
            One hashable value for each record, e.g. its patient. Whole groups are then drawn (as many as there are),
            because records of one patient are not independent. Without groups, records are drawn.

    Returns:
        `np.ndarray` of int32 and shape `(num_resamples, num_records)`.
    """
    return np.concatenate(list(chunks_of_counts(num_records, num_resamples, seed, groups)))


def chunks_of_counts(
    num_records: int, num_resamples: int = 1000, seed: int = 0, groups: Sequence | None = None
) -> Iterator[np.ndarray]:
    """The rows of [`resample_counts`], a few at a time: all of them would take gigabytes for a million records."""
    if groups is None:
        members, num_units = np.arange(num_records), num_records
    else:
        if len(groups) != num_records:
            raise ValueError(f"Expected one group for each of {num_records} records, got {len(groups)}.")
        units, members = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        num_units = len(units)
    generator, at_once = np.random.default_rng(seed), max(1, COUNTS_AT_ONCE // max(num_records, 1))
    for start in range(0, num_resamples, at_once):
        counts = np.empty((min(at_once, num_resamples - start), num_records), dtype=np.int32)
        for row in counts:
            row[:] = np.bincount(generator.integers(num_units, size=num_units), minlength=num_units)[members]
        yield counts


def auroc_interval(
    labels: np.ndarray,
    scores: np.ndarray,
    label_names: Sequence[str],
    num_resamples: int = 1000,
    seed: int = 0,
    groups: Sequence | None = None,
) -> AurocInterval:
    """95 % bootstrap intervals of the macro AUROC and of every label. Labels and scores as in [`macro_auroc`].

    A label that loses all its positives (or negatives) in a resample is left out of the mean of that resample; a
    resample that loses every label is left out of the interval. Labels excluded from the point estimate stay out.
    """
    labels, scores, kept = _evaluable(labels, scores, label_names)
    areas = resampled_auroc(labels, scores, chunks_of_counts(len(labels), num_resamples, seed, groups))
    return AurocInterval(
        macro=percentile_interval(mean_over_labels(areas)),
        per_class={name: percentile_interval(areas[:, column]) for column, name in enumerate(kept)},
    )


def paired_facts(differences: np.ndarray) -> dict[str, list[float] | float]:
    """Interval and p-value of a difference between two models by a paired bootstrap, ready for JSON.

    The p-value is two-sided and inverts the percentile interval: twice the smaller of the fractions of resamples in
    which the difference is at most, or at least, zero, with one added to count and number (so that it is never zero,
    and at least `2 / (num_resamples + 1)`), and at most 1.

    Args:
        differences (`np.ndarray` of shape `(num_resamples,)`):
            The difference in each resample, the same for both models; NaN where it could not be computed.
    """
    known = differences[~np.isnan(differences)]
    tail = min((known <= 0).sum(), (known >= 0).sum())
    return {"ci95": list(percentile_interval(known)), "p_value": float(min(1.0, 2 * (tail + 1) / (len(known) + 1)))}


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of resampled values `(num_resamples,)`; NaN, a resample without the score, is left
    out. All of them NaN is a `ValueError`."""
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("No bootstrap resample could be evaluated. Test on more records.")
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def resampled_auroc(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray | Iterable[np.ndarray]) -> np.ndarray:
    """Area under the ROC curve of every label in every resample, ties counting one half.

    Args:
        labels (`np.ndarray` of shape `(num_records, num_labels)`): 0 or 1.
        scores (`np.ndarray` of shape `(num_records, num_labels)`): Any monotone scale.
        counts (`np.ndarray` of shape `(num_resamples, num_records)`, or its rows a few at a time):
            See [`resample_counts`] and [`chunks_of_counts`].

    Returns:
        `np.ndarray` of shape `(num_resamples, num_labels)`, NaN where a resample lost all positives or all negatives.
    """
    ranked = [_ranked(labels[:, column], scores[:, column]) for column in range(labels.shape[1])]
    chunks = counts
    if isinstance(counts, np.ndarray):
        at_once = max(1, COUNTS_AT_ONCE // max(len(labels), 1))
        chunks = (counts[start : start + at_once] for start in range(0, len(counts), at_once))
    return np.concatenate([np.stack([_areas(chunk, *of_label) for of_label in ranked], axis=1) for chunk in chunks])


def resampled_macro_auroc(
    labels: np.ndarray,
    scores: np.ndarray,
    label_names: Sequence[str],
    counts: np.ndarray | Iterable[np.ndarray],
) -> ResampledScore:
    """The macro AUROC, and that of every resample, over the labels that it kept. Arguments as in [`macro_auroc`] and
    [`resampled_auroc`]."""
    area = macro_auroc(labels, scores, label_names)
    labels, scores, _ = _evaluable(labels, scores, label_names)
    return ResampledScore(area.value, area.per_class, mean_over_labels(resampled_auroc(labels, scores, counts)))


def _ranked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """Ranks one label: order of the scores, positives in that order, and where the ties of each begin and end."""
    order = np.argsort(scores, kind="stable")
    in_order = scores[order]
    ties = (np.searchsorted(in_order, in_order, side=side) for side in ("left", "right"))
    return order, labels[order].astype(bool), *ties


def _areas(
    counts: np.ndarray, order: np.ndarray, positive: np.ndarray, tie_start: np.ndarray, tie_end: np.ndarray
) -> np.ndarray:
    """Areas `(resamples,)` of one label by the sums of negatives below each positive."""
    weights = counts[:, order].astype(float)
    negatives_below = np.zeros((len(weights), len(order) + 1))
    np.cumsum(np.where(positive, 0.0, weights), axis=1, out=negatives_below[:, 1:])
    of_positives = weights[:, positive]
    below = negatives_below[:, tie_start[positive]] + negatives_below[:, tie_end[positive]]
    won = (of_positives * below / 2).sum(axis=1)
    pairs = of_positives.sum(axis=1) * negatives_below[:, -1]
    return np.where(pairs > 0, won / np.maximum(pairs, 1), np.nan)


def _macro(metric, labels, scores, label_names, min_positives) -> MacroMetric:
    label_names = list(label_names)
    evaluable_labels, evaluable_scores, kept = _evaluable(labels, scores, label_names, min_positives)
    per_class = {
        name: float(metric(evaluable_labels[:, column], evaluable_scores[:, column]))
        for column, name in enumerate(kept)
    }
    return MacroMetric(
        value=float(np.mean(list(per_class.values()))),
        per_class=per_class,
        excluded=excluded_labels(labels, label_names, min_positives),
    )


def _evaluable(labels, scores, label_names, min_positives=1) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Checks shapes and values, and keeps the columns that the set can evaluate."""
    labels, scores, label_names = np.asarray(labels), np.asarray(scores, dtype=float), list(label_names)
    if labels.ndim != 2 or labels.shape != scores.shape or labels.shape[1] != len(label_names):
        raise ValueError(
            f"Expected labels and scores of shape (num_records, {len(label_names)}) for the labels {label_names}, "
            f"got {labels.shape} and {scores.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("Expected labels of 0 and 1 (multi-hot), got other values.")
    if not np.isfinite(scores).all():
        rows = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        raise ValueError(f"{len(rows)} records have scores that are NaN or infinite, the first at row {rows[0]}.")
    excluded = excluded_labels(labels, label_names, min_positives)
    if len(excluded) == len(label_names):
        raise ValueError(f"No label can be evaluated: {excluded}. Test on more records.")
    columns = [column for column, name in enumerate(label_names) if name not in excluded]
    return labels[:, columns], scores[:, columns], [label_names[column] for column in columns]


def mean_over_labels(areas: np.ndarray) -> np.ndarray:
    """Mean of `(num_resamples, num_labels)` over the labels that the resample kept; NaN where it kept none."""
    kept = ~np.isnan(areas)
    return np.where(kept.any(axis=1), np.nansum(areas, axis=1) / np.maximum(kept.sum(axis=1), 1), np.nan)
