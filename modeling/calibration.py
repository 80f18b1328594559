"""Checks of `config.calibration` of a classifier: its entries, and when they no longer hold."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .whole_encoder import check_encoder_is_whole

logger = logging.get_logger(__name__)


MEASURED = ("temperature", "thresholds")
INPUT_FACTS = ("leads", "electrode_placement", "long_records")


def check_calibration(calibration: Mapping[str, Any] | None) -> None:
    """
    Args:
        calibration (`Mapping`, *optional*):
            `labels`, `temperature`, `thresholds`, and `input` and `subsets`, see [`EcgViTConfig`].

    Raises:
        ValueError: unless it has labels, a temperature above 0 and, if any, thresholds of these labels; and each of
            its subsets the same, with its leads.
    """
    if calibration is None:
        return
    labels, subsets = calibration.get("labels", ()), calibration.get("subsets") or ()
    unknown = set(calibration) - {"labels", *MEASURED, "input", "subsets"}
    unknown |= set(calibration.get("input") or ()) - set(INPUT_FACTS)
    unknown |= {name for subset in subsets for name in subset} - {"leads", *MEASURED}
    is_whole = all(subset.get("leads") for subset in subsets)
    for measured in (calibration, *subsets):
        temperature, thresholds = measured.get("temperature"), measured.get("thresholds") or {}
        is_whole &= isinstance(temperature, int | float) and temperature > 0 and set(thresholds) <= set(labels)
    if not is_whole or unknown or not labels:
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


def calibration_for(
    config: PreTrainedConfig, feature_extractor: Any, checks: Mapping[str, Any]
) -> tuple[Mapping[str, Any] | None, str | None]:
    """The temperature and the thresholds that were measured on input such as that of a recording.

    Args:
        config ([`~transformers.PreTrainedConfig`]): Configuration of the classifier.
        feature_extractor ([`EcgFeatureExtractor`]): Extractor as saved with the classifier, without changes of a call.
        checks (`Mapping`): Findings on the recording, by [`EcgFeatureExtractor.check`].

    Returns:
        `dict` of `temperature` and perhaps `thresholds`, or `None`; and, where the classifier has a calibration that
        does not hold for this recording, the reason as a sentence.
    """
    calibration = calibration_of(config)
    if calibration is None:
        return None, None
    measured = {
        "leads": list(feature_extractor.leads),
        "electrode_placement": "mason_likar" if feature_extractor.electrode_placement == "mason_likar" else "standard",
        "long_records": feature_extractor.long_records,
    }
    measured |= calibration.get("input") or {}
    off = "The scores are not calibrated and the thresholds are off: they were measured on "
    placement = checks["electrode_placement"]
    if placement not in (None, measured["electrode_placement"]):
        return None, f"{off}the {measured['electrode_placement']} electrode placement, this is the {placement} one."
    if checks["windows"] not in ("whole", measured["long_records"]):
        return None, (
            f"{off}long_records={measured['long_records']!r} of longer recordings, not on {checks['windows']!r}."
        )
    if checks["is_padded"] and feature_extractor.short_records != "zero_pad":
        return None, f"{off}whole recordings, this one is too short and was padded."
    by_leads = {frozenset(subset["leads"]): subset for subset in calibration.get("subsets") or ()}
    by_leads[frozenset(measured["leads"])] = calibration
    found = by_leads.get(frozenset(checks["leads"]))
    if found is None:
        return None, f"{off}{_list(measured['leads'])}, here the model gets {_list(checks['leads'])}."
    return {name: found[name] for name in MEASURED if found.get(name)}, None


def _list(leads: Iterable[str]) -> str:
    return ", ".join(leads) or "no lead"


class CalibratedModelMixin:
    """Base of a [`PreTrainedModel`] that forgets a calibration that was measured on other weights or labels.

    That is, when weights begin anew in `from_pretrained` (the head of another task, or of an encoder), when the labels
    given there are others, and when a classifier is trained. `finetune` measures another afterwards.
    """

    @classmethod
    def from_pretrained(cls, *args, output_loading_info: bool = False, **kwargs):
        """Loads as [`~transformers.PreTrainedModel`] does."""
        model, loading = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if kwargs.get("state_dict") is None:  # of weights in memory the caller knows what they lack
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
    """Tells by a name in `config.architectures` whether the class classifies whole recordings."""
    return "ForSequenceClassification" in class_name
