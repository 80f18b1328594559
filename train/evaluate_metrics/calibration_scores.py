"""Calibration of probabilities: calibration error, Brier score, and temperature scaling."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from ecg_transformers.train.evaluate_metrics.classification_scores import one_hot
from ecg_transformers.train.metrics import excluded_labels

TEMPERATURE_RANGE = (0.05, 20.0)


def calibration_scores(
    labels: np.ndarray,
    logits: np.ndarray,
    label_names: Sequence[str] | None = None,
    validation_labels: np.ndarray | None = None,
    validation_logits: np.ndarray | None = None,
    num_bins: int = 15,
    min_positives: int = 1,
    may_lie_in_unit_interval: bool = False,
) -> dict:
    """Calibration before and, with a validation set, after temperature scaling.

    Args:
        labels (`np.ndarray`):
            Multi-label: shape `(num_records, num_labels)`, 0 or 1. Single-label: shape `(num_records,)`, the index of
            the class.
        logits (`np.ndarray` of shape `(num_records, num_labels)`): Before the sigmoid or softmax.
        label_names (`Sequence[str]`, *optional*): Names of the columns; their numbers by default.
        validation_labels, validation_logits (`np.ndarray`, *optional*):
            The set (fold 9 of PTB-XL) on which the temperature is fitted, in the same form.
        num_bins (`int`, *optional*, defaults to 15): Bins of [`reliability_curve`].
        min_positives (`int`, *optional*, defaults to 1):
            Multi-label: labels with fewer positives are excluded from the means and named.
        may_lie_in_unit_interval (`bool`, *optional*, defaults to `False`):
            Whether logits that all lie in [0, 1] are right. By default they are refused: most often they are
            probabilities by mistake.

    Returns:
        `dict`: `ece`, `brier`, `nll` and `num_bins`; with a validation set also `temperature`, `ece_scaled`,
        `brier_scaled` and `nll_scaled`. Multi-label: means over labels, with `per_class` (name → `ece`, `brier`) and
        `excluded`. Single-label: the calibration error of the most probable class (Guo et al. 2017), and Brier's sum
        over classes (0 to 2).
    """
    labels, logits = np.asarray(labels), _logits(logits, may_lie_in_unit_interval)
    _check_shapes(labels, logits)
    names = [str(i) for i in range(logits.shape[1])] if label_names is None else list(label_names)
    if (validation_labels is None) != (validation_logits is None):
        raise ValueError("A temperature needs both validation_labels and validation_logits, got one of them.")
    result = {"num_bins": num_bins, "num_records": len(labels)}
    result |= _scores(labels, logits, names, num_bins, min_positives)
    if validation_labels is not None:
        temperature = fit_temperature(validation_labels, validation_logits, may_lie_in_unit_interval)
        scaled = _scores(labels, logits / temperature, names, num_bins, min_positives)
        result["temperature"] = temperature
        result |= {f"{name}_scaled": scaled[name] for name in ("ece", "brier", "nll")}
    return result


def fit_temperature(labels: np.ndarray, logits: np.ndarray, may_lie_in_unit_interval: bool = False) -> float:
    """The one number by which logits are divided so that their negative log-likelihood is least (Guo et al. 2017).

    It changes no ranking within a label, so neither AUROC nor, for a single label, the most probable class. Searched
    within `TEMPERATURE_RANGE`, whose end is returned for separable or useless logits. Fit it on a validation set.

    Arguments are those of [`calibration_scores`].
    """
    labels, logits = np.asarray(labels), _logits(logits, may_lie_in_unit_interval)
    _check_shapes(labels, logits)
    found = minimize_scalar(
        lambda log_temperature: negative_log_likelihood(labels, logits / np.exp(log_temperature)),
        bounds=np.log(TEMPERATURE_RANGE),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def negative_log_likelihood(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean over records, and over labels where a record may have several. Arguments as in [`calibration_scores`]."""
    labels, logits = np.asarray(labels), np.asarray(logits, dtype=float)
    if labels.ndim == 2:
        return float(np.mean(np.logaddexp(0, logits) - labels * logits))
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]))


def reliability_curve(correct: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> dict[str, np.ndarray]:
    """Observed frequency against predicted probability in `num_bins` bins of equal width in [0, 1].

    Bin `b` holds probabilities in `(b / num_bins, (b + 1) / num_bins]`, the first also 0.

    Args:
        correct (`np.ndarray` of shape `(num_records,)`): 1 where it was so (positive, or the class right), else 0.
        probabilities (`np.ndarray` of shape `(num_records,)`): Predicted probability of that.

    Returns:
        `dict[str, np.ndarray]` of arrays of shape `(num_bins,)`: `count`, `probability` and `frequency`, the means of
        each bin (NaN where it is empty).
    """
    if num_bins < 1:
        raise ValueError(f"Expected at least one bin, got num_bins={num_bins}.")
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, probabilities, side="left") - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    divisor = np.where(count > 0, count, np.nan)
    return {
        "count": count,
        "probability": np.bincount(bins, weights=probabilities, minlength=num_bins) / divisor,
        "frequency": np.bincount(bins, weights=correct, minlength=num_bins) / divisor,
    }


def expected_calibration_error(correct: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> float:
    """Mean distance of frequency and probability over the bins of [`reliability_curve`], weighted by their counts."""
    curve = reliability_curve(correct, probabilities, num_bins)
    distance = np.abs(curve["frequency"] - curve["probability"])
    return float(np.nansum(curve["count"] * distance) / curve["count"].sum())


def _scores(labels, logits, names, num_bins, min_positives) -> dict:
    nll = negative_log_likelihood(labels, logits)
    if labels.ndim == 1:
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        correct = (probabilities.argmax(axis=1) == labels).astype(float)
        ece = expected_calibration_error(correct, probabilities.max(axis=1), num_bins)
        squares = (probabilities - one_hot(labels, logits.shape[1])) ** 2
        return {"ece": ece, "brier": float(squares.sum(axis=1).mean()), "nll": nll}
    probabilities = np.exp(-np.logaddexp(0, -logits))
    excluded = excluded_labels(labels, names, min_positives)
    if len(excluded) == len(names):
        raise ValueError(f"No label can be evaluated: {excluded}. Test on more records.")
    per_class = {
        name: {
            "ece": expected_calibration_error(labels[:, column], probabilities[:, column], num_bins),
            "brier": float(np.mean((probabilities[:, column] - labels[:, column]) ** 2)),
        }
        for column, name in enumerate(names)
        if name not in excluded
    }
    means = {score: float(np.mean([row[score] for row in per_class.values()])) for score in ("ece", "brier")}
    return {**means, "nll": nll, "per_class": per_class, "excluded": excluded}


def _logits(values, may_lie_in_unit_interval: bool) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"Expected finite logits of shape (num_records, num_labels), got shape {values.shape}.")
    in_unit_interval = values.size and values.min() >= 0 and 0 < values.max() <= 1
    if in_unit_interval and not may_lie_in_unit_interval:
        raise ValueError(
            "Expected logits, got values that all lie in [0, 1], as probabilities do. Pass what the model gave before "
            "its sigmoid or softmax, or log(p / (1 - p))."
        )
    return values


def _check_shapes(labels: np.ndarray, logits: np.ndarray):
    if labels.ndim == 1:
        if len(labels) != len(logits):
            raise ValueError(f"Expected one class for each of {len(logits)} records, got {len(labels)}.")
        one_hot(labels, logits.shape[1])
    elif labels.shape != logits.shape or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"Expected labels of 0 and 1 in the shape of the logits {logits.shape}, got {labels.shape}.")
