"""Linear models of frozen features, and their penalty: everything that is called `linear` is fitted here.

The penalty is chosen by cross-validation by patient inside the training split, so that neither validation nor test
records take part in any choice.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge

from ..finetune_objective import HeadTask
from ..metrics import excluded_labels, macro_auroc
from ..results import REGRESSION, SINGLE_LABEL

C_GRID = (0.0001, 0.001, 0.01, 0.1, 1.0)
NUM_FOLDS = 5
MAX_ITERATIONS = 2000
TOLERANCE, TOLERANCE_OF_CHOICE = 1e-9, 1e-5
"""Largest entry of the gradient at the end, of the mean loss of a record and scaled coefficients: of a fit, and of
those that only rank records to choose a penalty."""


def cross_validated_C(
    features: np.ndarray,
    truth: np.ndarray,
    patients: Sequence[str],
    task: HeadTask,
    C_grid: Sequence[float] = C_GRID,
) -> float:
    """Chooses the penalty of a linear model from its own training records.

    A model of the other folds predicts each fold of patients. The quality of a candidate is the mean over labels of
    the mean area under the ROC curve over folds (for a regression the smallest mean absolute error, in deviations);
    a fold that has no positive or no negative of a label, or whose model cannot learn it, is left out for that label.
    With few records that may be every fold of every label: then, as between equals, the strongest penalty is taken.

    `features` `(num_records, hidden_size)` are standardised, `task` is made from `truth` `(num_records, num_labels)`;
    there are fewer folds where there are fewer patients.
    """
    candidates = sorted(C_grid)
    folds = folds_of_patients(patients)
    qualities = np.full((len(candidates), folds.max() + 1, truth.shape[1]), np.nan)
    for fold in range(folds.max() + 1):
        evaluated, trained = folds == fold, folds != fold
        columns = _columns_to_evaluate(truth[trained], truth[evaluated], task)
        if not columns:
            continue
        start = None
        for number, C in enumerate(candidates):
            start = fit_linear(features[trained], truth[trained], task, C, start, TOLERANCE_OF_CHOICE)
            qualities[number, fold, columns] = _qualities(start(features[evaluated]), truth[evaluated], task, columns)
    known = ~np.isnan(qualities[0]).all(axis=0)
    if not known.any():
        return candidates[0]
    means = np.nanmean(qualities[:, :, known], axis=1).mean(axis=1)
    return candidates[int(np.argmax(means))]


def folds_of_patients(patients: Sequence[str], num_folds: int = NUM_FOLDS) -> np.ndarray:
    """A fold of each record, `(num_records,)`, all records of a patient in one.

    Patients are dealt out in an order that depends on their names alone, so that the order of records does not count.
    """
    names, person = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    dealt = np.empty(len(names), dtype=int)
    dealt[np.random.default_rng(0).permutation(len(names))] = np.arange(len(names)) % min(num_folds, len(names))
    return dealt[person]


def _columns_to_evaluate(trained: np.ndarray, evaluated: np.ndarray, task: HeadTask) -> list[int]:
    """Labels that the records of the other folds teach and those of the fold can evaluate."""
    if not len(trained):
        return []
    if task.problem_type == REGRESSION:
        return list(range(trained.shape[1]))
    names = list(range(trained.shape[1]))
    lost = excluded_labels(trained, names).keys() | excluded_labels(evaluated, names).keys()
    if task.problem_type == SINGLE_LABEL and trained.any(axis=0).sum() < 2:
        return []
    return [column for column in names if column not in lost]


def _qualities(scores: np.ndarray, truth: np.ndarray, task: HeadTask, columns: list[int]) -> np.ndarray:
    """Quality of each column, higher is better."""
    if task.problem_type == REGRESSION:
        return -(np.abs(scores - truth) / task.scale).mean(axis=0)
    areas = macro_auroc(truth[:, columns], scores[:, columns], columns).per_class
    return np.array([areas[column] for column in columns])


class LinearFit:
    """A fitted linear model: features `(num_records, hidden_size)` to scores `(num_records, num_labels)`.

    Logistic regressions have `coefficients`, intercepts last, from which a next fit may start.
    """

    def __init__(self, scores: Callable[[np.ndarray], np.ndarray], coefficients: np.ndarray | None = None):
        self._scores, self.coefficients = scores, coefficients

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return self._scores(features)


def fit_linear(
    features: np.ndarray,
    truth: np.ndarray,
    task: HeadTask,
    C: float,
    start: LinearFit | None = None,
    tolerance: float = TOLERANCE,
) -> LinearFit:
    """Fits logistic regressions (one of all classes where a record has one), for a regression ridge, with `alpha = 1 /
    C` on standardised targets. Labels that cannot be learned score 0.

    `start` is a fit of the same records with another penalty, to begin with, `tolerance` that of logistic regressions
    of several labels, see `TOLERANCE`.
    """
    if task.problem_type == REGRESSION:
        ridge = Ridge(alpha=1 / C).fit(features, (truth - task.centre) / task.scale)
        return LinearFit(lambda other: ridge.predict(other).reshape(len(other), -1) * task.scale + task.centre)
    if task.problem_type == SINGLE_LABEL:
        model = LogisticRegression(C=C, max_iter=MAX_ITERATIONS).fit(features, truth.argmax(axis=1))

        def of_classes(other: np.ndarray) -> np.ndarray:
            scores = np.zeros((len(other), truth.shape[1]))
            scores[:, model.classes_] = model.predict_proba(other)
            return scores

        return LinearFit(of_classes)
    return fit_logistic(features, truth, C, None if start is None else start.coefficients, tolerance)


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, C: float, start: np.ndarray | None = None, tolerance: float = TOLERANCE
) -> LinearFit:
    """Fits logistic regressions with an L2 penalty, one a label, all at once.

    The minimum of scikit-learn's `LogisticRegression`: the sum of the losses of the records plus half the squared
    coefficients (without the intercept) over `C`. L-BFGS searches it in coordinates in which the curvature of
    the loss is about the same along all axes, which for rotated features ([`fit_probe`]) takes some
    tens of steps where plain coordinates take hundreds.

    Returns:
        [`LinearFit`]: to probabilities, 0 for labels without a positive or a negative, which cannot be learned.
    """
    trained = [column for column in range(labels.shape[1]) if 0 < labels[:, column].sum() < len(labels)]
    features = np.asarray(features, dtype=np.float64)
    with_ones = np.column_stack([features, np.ones(len(features))])
    truth = labels[:, trained].astype(np.float64)
    penalty = np.append(np.full(features.shape[1], 1 / C), 0.0)[:, None]
    share = truth.mean(axis=0)
    curvature = np.square(with_ones).sum(axis=0)[:, None] * share * (1 - share) + penalty
    scale = 1 / np.sqrt(curvature / len(features))
    scale[curvature == 0] = 0.0  # a feature without variance under no penalty

    def loss(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        weights = scaled.reshape(scale.shape) * scale
        logits = with_ones @ weights
        value = np.logaddexp(0, logits).sum() - (truth * logits).sum() + 0.5 * (penalty * weights * weights).sum()
        gradient = with_ones.T @ (expit(logits) - truth) + penalty * weights
        return value / len(features), (gradient * scale).ravel() / len(features)

    coefficients = np.zeros((with_ones.shape[1], labels.shape[1]))
    if trained:
        begin = np.zeros(scale.shape) if start is None else start[:, trained] / np.where(scale > 0, scale, 1)
        options = {"maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "ftol": 0.0, "gtol": tolerance}
        found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options=options | {"maxcor": 20})
        coefficients[:, trained] = found.x.reshape(scale.shape) * scale

    def probabilities(other: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(other), labels.shape[1]))
        scores[:, trained] = expit(other @ coefficients[:-1, trained] + coefficients[-1, trained])
        return scores

    return LinearFit(probabilities, coefficients)
