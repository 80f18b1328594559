"""The challenge metric of PhysioNet/CinC 2021, with the official table of weights.

`cinc2021_weights.csv` is the challenge's own (its licence lies beside it): the credit for each class that is put out
where another is true, 1 on the diagonal. Classes that count as one bear both names, as in
`ecg_transformers.data.corpora.cinc_snomed`.
"""

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

WEIGHT_TABLE = Path(__file__).parent / "cinc2021_weights.csv"
INACTIVE_CLASS = "NSR"


@lru_cache(maxsize=1)
def challenge_weights() -> tuple[tuple[str, ...], np.ndarray]:
    """The 26 scored classes and their weights, `np.ndarray` of shape `(26, 26)`: row true, column put out."""
    with open(WEIGHT_TABLE, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    if header[1:] != [row[0] for row in rows]:
        raise ValueError(f"{WEIGHT_TABLE} has other names in its rows than in its columns. Reinstall the package.")
    weights = np.array([row[1:] for row in rows], dtype=float)
    weights.setflags(write=False)
    return tuple(header[1:]), weights


def challenge_scores(labels: np.ndarray, outputs: np.ndarray, label_names: Sequence[str] | None = None) -> dict:
    """The challenge metric: 1 for the perfect classifier, 0 for the one that always says sinus rhythm, or below.

    Each record spreads one unit of credit: over the pairs of a true class and a class put out, each with its weight,
    divided by the number of classes that are true or put out (at least 1).

    Args:
        labels (`np.ndarray` of shape `(num_records, 26)`): 1 where a class is true, else 0.
        outputs (`np.ndarray` of shape `(num_records, 26)`):
            1 where the classifier puts a class out, else 0. Threshold probabilities first, by thresholds chosen on a
            validation set.
        label_names (`Sequence[str]`, *optional*):
            Names of the columns, the 26 classes in any order; by default that of the challenge's table.

    Returns:
        `dict`: `challenge_metric`, and the sums before normalization `observed`, `perfect` and `inactive`.

    Raises:
        `ValueError`: For other classes, for values beside 0 and 1, and where the perfect and the inactive classifier
            earn the same (no record has another scored class than sinus rhythm; the challenge's code gives 0).
    """
    classes, weights = challenge_weights()
    names = classes if label_names is None else tuple(label_names)
    if sorted(names) != sorted(classes):
        raise ValueError(
            f"Expected the 26 scored classes {list(classes)} as columns, got {list(names)}. Give a class that your "
            "model does not know a column of zeros."
        )
    columns = [names.index(name) for name in classes]
    labels, outputs = (_binary(array, what)[:, columns] for array, what in ((labels, "labels"), (outputs, "outputs")))
    if len(labels) != len(outputs):
        raise ValueError(f"Expected outputs of as many records as labels, got {len(outputs)} for {len(labels)}.")
    inactive = np.zeros_like(labels)
    inactive[:, classes.index(INACTIVE_CLASS)] = 1
    sums = {
        name: _credit(labels, choice, weights)
        for name, choice in (("observed", outputs), ("perfect", labels), ("inactive", inactive))
    }
    if sums["perfect"] == sums["inactive"]:
        raise ValueError("No record has a scored class other than sinus rhythm: the metric is not defined here.")
    metric = (sums["observed"] - sums["inactive"]) / (sums["perfect"] - sums["inactive"])
    return {"challenge_metric": metric, **sums}


def _credit(labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> float:
    num_classes = np.maximum(((labels + outputs) > 0).sum(axis=1, keepdims=True), 1)
    return float((weights * ((labels / num_classes).T @ outputs)).sum())


def _binary(array, what: str) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != 2 or array.shape[1] != len(challenge_weights()[0]) or not np.isin(array, (0, 1)).all():
        raise ValueError(f"Expected {what} of 0 and 1 and shape (num_records, 26), got shape {array.shape} or others.")
    return array.astype(float)
