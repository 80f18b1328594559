"""What a validation split taught about the scores of a classifier, as its configuration keeps it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit, logit


def stored_calibration(judgement: Mapping[str, Any], label_names: Sequence[str]) -> dict[str, Any] | None:
    """`config.calibration` of a classifier, for `pipeline("ecg-classification")`.

    Args:
        judgement (`Mapping`):
            Of [`~ecg_transformers.train.predictions.judge`] with a validation split, where `temperature` and
            `thresholds` come from.
        label_names (`Sequence[str]`): All labels of the model, in their order.

    Returns:
        `dict`: `labels`, `temperature`, and `thresholds` where the judgement has some: those of probabilities before
        the temperature become those after it, which split the same records. `None` for a regression, or without a
        validation split.
    """
    if "temperature" not in judgement:
        return None
    calibration = {"labels": list(label_names), "temperature": float(judgement["temperature"])}
    if thresholds := judgement.get("thresholds"):
        scaled = expit(logit(np.array(list(thresholds.values()), dtype=float)) / calibration["temperature"])
        calibration["thresholds"] = dict(zip(thresholds, scaled.tolist(), strict=True))
    return calibration
