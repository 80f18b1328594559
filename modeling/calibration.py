"""What `config.calibration` of a classifier may hold, and when it no longer holds."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .whole_encoder import check_encoder_is_whole

logger = logging.get_logger(__name__)


def check_calibration(calibration: Mapping[str, Any] | None) -> None:
    """
    Args:
        calibration (`Mapping`, *optional*): `labels`, `temperature` and `thresholds`; see [`EcgViTConfig`].

    Raises:
        ValueError: unless it has labels, a temperature above 0 and, if any, thresholds of these labels.
    """
    if calibration is None:
        return
    temperature, thresholds = calibration.get("temperature"), calibration.get("thresholds") or {}
    unknown = sorted(set(calibration) - {"labels", "temperature", "thresholds"})
    strangers = sorted(set(thresholds) - set(calibration.get("labels", ())))
    is_positive = isinstance(temperature, int | float) and temperature > 0
    if not is_positive or unknown or strangers or not calibration.get("labels"):
        raise ValueError(
            "Expected calibration with labels, a temperature above 0 and thresholds of these labels, got "
            f"{dict(calibration)}."
        )


def calibration_of(config: PreTrainedConfig) -> Mapping[str, Any] | None:
    """The calibration of a classifier, `None` where it has none, or one for other labels."""
    labels, calibration = [config.id2label[number] for number in range(config.num_labels)], config.calibration
    if calibration is not None and list(calibration["labels"]) != labels:
        logger.warning_once(
            f"The stored calibration is for the labels {list(calibration['labels'])}, the model has {labels}: "
            "scores are not calibrated."
        )
        return None
    return calibration


class CalibratedModelMixin:
    """Of a [`PreTrainedModel`]: lets go of a calibration that was measured on other weights or for other labels.

    That is, when weights begin anew in `from_pretrained` (the head of another task, or of an encoder), when the labels
    given there are others, and when a classifier is trained. `finetune` measures another afterwards.
    """

    @classmethod
    def from_pretrained(cls, *args, output_loading_info: bool = False, **kwargs):
        """As of [`~transformers.PreTrainedModel`]."""
        model, loading = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        check_encoder_is_whole(model, loading)
        if model.config.calibration is not None and names_classifier(type(model).__name__):
            if loading["missing_keys"] or loading["mismatched_keys"]:
                forget_calibration(model, "some of its weights begin anew")
            elif calibration_of(model.config) is None:
                forget_calibration(model, "it is for other labels")
        return (model, loading) if output_loading_info else model

    def forget_calibration_in_training(self) -> None:
        """For the forward pass of a classifier: a step that changes the weights follows."""
        if self.training and torch.is_grad_enabled() and self.config.calibration is not None:
            forget_calibration(self, "the classifier is trained")


def forget_calibration(model: PreTrainedModel, reason: str) -> None:
    """Drops the temperature and the thresholds of a configuration, with a word."""
    if not torch.compiler.is_compiling():
        logger.warning(f"The stored calibration of {type(model).__name__} is dropped: {reason}.")
    model.config.calibration = None


def names_classifier(class_name: str) -> bool:
    """Whether a class of models, by its name in `config.architectures`, classifies whole recordings."""
    return "ForSequenceClassification" in class_name
