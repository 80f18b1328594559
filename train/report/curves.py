"""Points of curves, from predictions: ROC and precision-recall curves of each label, their means, and reliability.

The areas under the drawn curves are the numbers of the tables: labels and records are left out by the rule of
[`~ecg_transformers.train.predictions.evaluate_predictions`], and means over labels keep the jumps of their curves.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit, logit
from sklearn.metrics import precision_recall_curve, roc_curve

from ..evaluate_metrics.calibration_scores import reliability_curve
from ..metrics import excluded_labels
from ..predictions import CLOSEST_PROBABILITY, ProtocolResult
from ..results import SINGLE_LABEL


def evaluated_test(result: ProtocolResult) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, labels (0 or 1) and scores `(num_records, num_labels)` of the test split, of the labels that both
    training and test split have examples of."""
    names = list(result.label_names)
    left_out = {*excluded_labels(result.train_labels, names), *excluded_labels(result.test.labels, names)}
    columns = [column for column, name in enumerate(names) if name not in left_out]
    return [names[column] for column in columns], result.test.labels[:, columns], result.test.scores[:, columns]


def roc_points(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates of one label; the area under straight lines is its AUROC."""
    return roc_curve(labels, scores)[:2]


def precision_recall_points(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall, rising, and the precision where each is first reached; the steps enclose the average precision."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    recalls, first = np.unique(recall[::-1], return_index=True)  # of one recall, that of the highest threshold
    return recalls[1:], precision[::-1][first][1:]


def mean_roc(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean true positive rate over the labels at each false positive rate, with its jumps: its area is the macro
    AUROC."""
    grid = np.unique(np.concatenate([rates for rates, _ in curves]))
    limits = np.mean([_limits(*curve, grid) for curve in curves], axis=0)  # (below or above a jump, grid)
    return np.repeat(grid, 2), limits.T.ravel()


def mean_precision_recall(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean precision over the labels at each recall: the area of its steps is the macro average precision."""
    grid = np.unique(np.concatenate([recall for recall, _ in curves]))
    means = np.mean([precision[np.searchsorted(recall, grid)] for recall, precision in curves], axis=0)
    return grid, means


def reliability_points(result: ProtocolResult, temperature: float | None = None) -> dict[str, np.ndarray]:
    """Observed frequency against predicted probability, in bins of [`reliability_curve`].

    Multi-label: all evaluated labels together. Single-label: the most probable class.

    Args:
        temperature (`float`, *optional*): Divisor of the logits.
    """
    if result.problem_type == SINGLE_LABEL:
        scores = result.test.scores
        logits = np.log(np.maximum(scores, CLOSEST_PROBABILITY)) / (1.0 if temperature is None else temperature)
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        correct = result.test.labels.argmax(axis=1) == scores.argmax(axis=1)
        return reliability_curve(correct.astype(float), scores.max(axis=1))
    _, labels, scores = evaluated_test(result)
    if temperature is not None:
        scores = expit(logit(np.clip(scores, CLOSEST_PROBABILITY, 1 - CLOSEST_PROBABILITY)) / temperature)
    return reliability_curve(labels.ravel(), scores.ravel())


def positives_of(results: Mapping[tuple[str, str], ProtocolResult]) -> dict[str, int] | None:
    """Test records with each label, of any classification among the results."""
    for result in results.values():
        if np.issubdtype(result.test.labels.dtype, np.integer):
            return dict(zip(result.label_names, result.test.labels.sum(axis=0).tolist(), strict=True))
    return None


def _limits(rates: np.ndarray, heights: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights of a rising curve of straight lines at each rate of a grid, before and after a jump there."""
    unique, first = np.unique(rates, return_index=True)
    low, high = np.minimum.reduceat(heights, first), np.maximum.reduceat(heights, first)
    before = np.searchsorted(unique, grid, side="right") - 1
    after = np.minimum(before + 1, len(unique) - 1)
    is_point = unique[before] == grid
    share = np.where(is_point, 0, grid - unique[before]) / np.where(is_point, 1, unique[after] - unique[before])
    between = high[before] + share * (low[after] - high[before])
    return np.where(is_point, low[before], between), np.where(is_point, high[before], between)
