"""Explanation of a model on one recording: a map over the recording's own leads and time, with its caption."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from transformers import BatchFeature, PreTrainedModel
from transformers.utils import logging

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.feature_extraction_ecg import INVALID_SAMPLE
from ecg_transformers.modeling.lead_plan import plan_leads
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.recording_input import DIMENSIONLESS, Recording, read_recordings

from ..inference import in_evaluation
from ..report.ecg_paper import save_figure
from .explanations import NORM, attention_rollout, class_number, explained_output, integrated_gradients
from .plots import plot_explanation

logger = logging.get_logger(__name__)

METHODS = ("integrated_gradients", "attention_rollout")
LARGE_ERROR, ROUNDING = 0.05, 1e-4  # of the difference of outputs; of the sum of absolute attributions
LIMITS = (
    "It shows what this model's output depends on, not why a heart does what it does; not for diagnosis.",
    "It shows where this model's attention goes, which need not be what its output depends on; not for diagnosis.",
)


@dataclass(frozen=True)
class Explanation:
    """A map over the leads and the time of one recording.

    Args:
        values (`np.ndarray` of shape `(num_leads or 1, num_columns)`):
            Columns divide the recording evenly. Integrated gradients: contribution of a column to the output, in its
            units, all of them together `output - baseline`. Attention rollout: its share, 1 in sum. One row: for all
            leads together. NaN: not read by the model (other leads, or outside of its windows).
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): The recording in mV, as it came.
        leads (`tuple[str, ...]`): Leads of the recording, and behind them those that were derived from it.
        sampling_rate (`float`): Rate of `signal_mv`, in Hz.
        method (`str`): `"integrated_gradients"` or `"attention_rollout"`.
        target (`str`, *optional*): The explained output, in words.
        completeness_error (`float`, *optional*): See [`~explanations.IntegratedGradients`].
        caption (`str`): Meaning and limits of the map.
    """

    values: np.ndarray
    signal_mv: np.ndarray
    leads: tuple[str, ...]
    sampling_rate: float
    method: str
    target: str | None
    completeness_error: float | None
    caption: str

    def plot(
        self, start_seconds: float = 0.0, seconds: float = 10.0, layout: str = "rows", title: str | None = None
    ) -> Figure:
        """Draws a stretch of it, see [`plot_explanation`].

        Raises:
            ValueError: if the stretch does not begin within the recording.
        """
        duration = self.signal_mv.shape[1] / self.sampling_rate
        if not 0 <= start_seconds < duration or not seconds > 0:
            raise ValueError(
                f"Expected a stretch that begins within the {duration:g} s of the recording, got {seconds:g} s from "
                f"{start_seconds:g} s."
            )
        # Cut at columns of the map, so that map and trace stay together.
        per_second = self.values.shape[1] / duration
        first = int(start_seconds * per_second)
        last = min(max(first + 1, round((start_seconds + seconds) * per_second)), self.values.shape[1])
        samples = slice(*(round(c / per_second * self.sampling_rate) for c in (first, last)))
        signed = self.method == "integrated_gradients"
        title = title or self.method.replace("_", " ").capitalize() + (f" of {self.target}" if self.target else "")
        return plot_explanation(
            self.signal_mv[:, samples],
            self.leads,
            self.sampling_rate,
            self.values[:, first:last],
            signed,
            title,
            self.caption,
            layout,
        )

    def save(self, path: str | os.PathLike, dpi: int = 150, **drawing) -> Path:
        """Writes the picture as `.png`, `.svg` or `.pdf`, true to scale; `drawing` is passed to `plot`."""
        return save_figure(self.plot(**drawing), path, dpi)


def explain_recording(
    model: PreTrainedModel,
    feature_extractor: EcgFeatureExtractor,
    ecg: Any,
    method: str = "integrated_gradients",
    target: Any = None,
    num_steps: int = 64,
) -> Explanation:
    """Explains the output of a classifier or an encoder on one recording, on the recording's own leads and time.

    All windows that the feature extractor cuts count. The output that is explained is their mean, as in prediction;
    maps of overlapping windows are added.

    Args:
        ecg: A row of [`load_ecg`], its `ecg` column or an `EcgRecord`.
        method (`str`, *optional*): `"integrated_gradients"`, from a flat recording, or `"attention_rollout"`.
        target (*optional*):
            See [`~explanations.integrated_gradients`]. By default the class with the highest logit, or the norm of an
            encoder's feature. Attention rollout knows no target.
        num_steps (`int`, *optional*, defaults to 64):
            Steps of integrated gradients; four times as many where these miss the difference of outputs by 5 %.

    Raises:
        ValueError: for several recordings, a recording that cannot be drawn in mV, or a method without the target.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}. Choose from {list(METHODS)}.")
    read = _one_recording(ecg)
    if read.unit == DIMENSIONLESS:
        raise ValueError("A dimensionless recording has no place on ECG paper. Give one in volts.")
    inputs = feature_extractor(ecg).to(model.device)
    name, error = None, None
    if method == "integrated_gradients":
        maps, name, error, caption = _by_gradients(model, feature_extractor, inputs, target, num_steps)
    elif target is not None:
        raise ValueError(f"Attention rollout knows no target, got {target!r}. Use integrated_gradients.")
    else:
        maps = attention_rollout(model, inputs["input_values"], lead_mask=inputs.get("lead_mask"))
        patch_size = model.config.patch_size
        maps = maps.repeat_interleave(patch_size, dim=-1) / patch_size
        caption = f"Attention rollout (Abnar and Zuidema, 2020): the share of a patch in what is pooled. {LIMITS[1]}"
    values = _joined_windows(maps.double().cpu().numpy(), feature_extractor, read)
    num_leads = len(feature_extractor.leads)
    leads, signal_mv, of_leads = _on_own_leads(values[:num_leads], feature_extractor, read)
    if len(of_leads) == 1 < num_leads:
        caption += " A patch of this model holds all leads: the map is one over time."
    if len(values) > num_leads:
        of_extra = float(np.nansum(values[num_leads:]))
        caption += f" The channels of beats and intervals, which are not drawn, have {of_extra:.2g} of it."
    if np.isnan(of_leads).any():
        caption += " Grey: not read by the model."
    return Explanation(of_leads, signal_mv, leads, read.sampling_rate, method, name, error, caption)


def flat_recording(feature_extractor: EcgFeatureExtractor, input_values: torch.Tensor) -> torch.Tensor:
    """A recording of 0 mV in every lead as input of a model: a baseline `(1, num_leads, 1)` for
    [`integrated_gradients`], with zeros for the channels of beats."""
    flat = input_values.new_zeros(1, input_values.shape[1], 1)
    if feature_extractor.normalization == "fixed":
        means, stds = (flat.new_tensor(c) for c in (feature_extractor.lead_means, feature_extractor.lead_stds))
        flat[0, : len(means), 0] = -means / stds
    return flat if feature_extractor.clip is None else flat.clamp(-feature_extractor.clip, feature_extractor.clip)


def _one_recording(ecg: Any) -> Recording:
    """A recording in mV (or dimensionless), NaN where nothing was recorded."""
    (recording, *others) = read_recordings(ecg, None, None, None, None)
    if others:
        raise ValueError(f"Expected one recording, got {1 + len(others)}. Explain them one by one.")
    signal = recording.signal.astype(np.float32)
    if recording.signal.dtype == np.int16:
        signal[recording.signal == INVALID_SAMPLE] = np.nan
    if recording.gain is not None:
        signal = signal * recording.gain[:, None]
    return recording._replace(signal=signal, gain=None)


def _by_gradients(
    model: PreTrainedModel, feature_extractor: EcgFeatureExtractor, inputs: BatchFeature, target: Any, num_steps: int
) -> tuple[torch.Tensor, str, float, str]:
    """Attributions of each window, the name of the target, the completeness error and a caption."""
    input_values, lead_mask = inputs["input_values"], inputs.get("lead_mask")
    target, name = _resolved_target(model, input_values, lead_mask, target)
    flat = flat_recording(feature_extractor, input_values)
    if "sample_mask" in inputs:
        flat = flat.masked_fill(~inputs["sample_mask"][:, None], 0.0)  # padding is no part of the recording
    for steps in (num_steps, 4 * num_steps):
        found = integrated_gradients(model, input_values, target, flat, steps, lead_mask=lead_mask)
        error, output, before = (
            float(part.mean()) for part in (found.completeness_error, found.output, found.baseline_output)
        )
        parts = (found.attributions.clamp(min=0), found.attributions.clamp(max=0))
        up, down = (float(part.sum()) / len(input_values) for part in parts)
        if abs(error) <= max(LARGE_ERROR * abs(output - before), ROUNDING * (up - down)):
            break
    else:
        logger.warning(f"The attributions miss the difference of outputs by {error:.3g}; take more steps.")
    caption = (
        f"Integrated gradients (Sundararajan et al., 2017) of {name}, {before:.2f} for a flat recording and "
        f"{output:.2f} here: orange raises it (in all by {up:.2f}), blue lowers it (by {-down:.2f}), completeness "
        f"error {error:.1g}. {LIMITS[0]}"
    )
    return found.attributions, name, error, caption


@torch.no_grad()
def _resolved_target(model: PreTrainedModel, input_values: torch.Tensor, lead_mask, target: Any) -> tuple[Any, str]:
    """The target as [`integrated_gradients`] takes it, and its name."""
    with in_evaluation(model):
        given = {} if lead_mask is None else {"lead_mask": lead_mask}
        output, features = explained_output(model(input_values=input_values, **given))
    if output != "logits":
        target = NORM if target is None and output == "pooler_output" else target
        return target, "the length of the feature" if isinstance(target, str) else "the feature along a direction"
    target = int(features.mean(dim=0).argmax()) if target is None else class_number(model, target)
    return target, f"the output {model.config.id2label.get(target, target)}"


def _joined_windows(maps: np.ndarray, feature_extractor: EcgFeatureExtractor, recording: Recording) -> np.ndarray:
    """The mean of maps `(windows, rows, num_samples)` over the whole recording at the model's rate,
    `(rows, resampled length)`; NaN where no window was, without padding."""
    length = feature_extractor.resampled_length(recording.signal.shape[1], recording.sampling_rate)
    starts = feature_extractor.window_starts(length)
    values = np.full((maps.shape[1], max(length, starts[-1] + maps.shape[2])), np.nan)
    for start, window in zip(starts, maps / len(maps), strict=True):
        place = values[:, start : start + window.shape[1]]
        place[:] = np.where(np.isnan(place), 0.0, place) + window
    return values[:, :length]


def _on_own_leads(
    values: np.ndarray, feature_extractor: EcgFeatureExtractor, recording: Recording
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Leads, signal in mV and map for the picture: the leads of the recording, then those derived from it."""
    given = feature_extractor.derive_limb_leads, feature_extractor.electrode_placement
    plan = plan_leads(feature_extractor.leads, recording.leads, *given)
    leads, signals, rows = list(recording.leads), list(recording.signal), {}
    for number, (lead, weights) in enumerate(zip(feature_extractor.leads, plan.weights, strict=True)):
        names = {recording.leads[plan.sources[source]]: factor for source, factor in weights.items()}
        if len(names) == 1:
            rows[next(iter(names))] = number
        elif names:
            rows[lead] = number
            if lead not in leads:
                signals.append(sum(factor * signals[leads.index(name)] for name, factor in names.items()))
                leads.append(lead)
    if set(leads) <= set(STANDARD_LEADS):
        order = [leads.index(lead) for lead in STANDARD_LEADS if lead in leads]
        leads, signals = [leads[number] for number in order], [signals[number] for number in order]
    if len(values) > 1 or len(feature_extractor.leads) == 1:
        not_read = np.full(values.shape[1], np.nan)
        values = np.stack([values[rows[lead]] if lead in rows else not_read for lead in leads])
    return tuple(leads), np.stack(signals), values
