"""Points of curves, from predictions: ROC and precision-recall curves of each label, their means, and reliability.

The areas under the drawn curves are the numbers of the tables: labels and records are left out by the rule of
[`~ecg_transformers.train.predictions.evaluate_predictions`], and means over labels keep the jumps of their curves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from sklearn.metrics import precision_recall_curve, roc_curve

from ..evaluate_metrics.calibration_scores import reliability_curve
from ..metrics import excluded_labels
from ..predictions import CLOSEST_PROBABILITY, ProtocolResult
from ..results import SINGLE_LABEL


@dataclass(frozen=True)
class EvaluatedTest:
    """Labels and scores of a test split that are evaluated.

    Args:
        names (`tuple[str, ...]`): Labels with training examples; in [`evaluated_test`] those with test examples too.
        labels (`np.ndarray` of shape `(num_records, num_labels)`): 0 or 1.
        scores (`np.ndarray` of shape `(num_records, num_labels)`): Probabilities.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray

    def select(self, columns: Sequence[int]) -> "EvaluatedTest":
        """The same of some labels alone."""
        return EvaluatedTest(tuple(self.names[n] for n in columns), self.labels[:, columns], self.scores[:, columns])

    def curves(self, points: Callable) -> list[tuple[np.ndarray, np.ndarray]]:
        """A curve of each label, by a function of its labels and scores."""
        return [points(labels, scores) for labels, scores in zip(self.labels.T, self.scores.T, strict=True)]


def evaluated_test(result: ProtocolResult) -> EvaluatedTest:
    """The labels and records of a result that count, with their scores."""
    trained = trained_test(result)
    left_out = excluded_labels(trained.labels, trained.names)
    return trained.select([column for column, name in enumerate(trained.names) if name not in left_out])


def trained_test(result: ProtocolResult) -> EvaluatedTest:
    """The labels with training examples, also those that the test split cannot evaluate."""
    names = tuple(result.label_names)
    untrained = excluded_labels(result.train_labels, names)
    whole = EvaluatedTest(names, result.test.labels, result.test.scores)
    return whole.select([column for column, name in enumerate(names) if name not in untrained])


def roc_points(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates of one label, by scikit-learn; the area under straight lines is its AUROC."""
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    return false_positive_rate, true_positive_rate


def precision_recall_points(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall, rising, and the precision where each is first reached; the area of the steps is its average precision.

    By scikit-learn."""
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


def reliability_points(
    result: ProtocolResult, temperature: float | None = None, num_bins: int = 15
) -> dict[str, np.ndarray]:
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
        return reliability_curve(correct.astype(float), scores.max(axis=1), num_bins)
    evaluated = evaluated_test(result)
    scores = evaluated.scores
    if temperature is not None:
        scores = expit(logit(np.clip(scores, CLOSEST_PROBABILITY, 1 - CLOSEST_PROBABILITY)) / temperature)
    return reliability_curve(evaluated.labels.ravel(), scores.ravel(), num_bins)


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
