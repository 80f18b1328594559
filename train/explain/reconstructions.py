"""Pictures of hidden patches and their reconstruction by a masked autoencoder, for a report."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_st_mem import MaskedAutoencoderForPreTraining

from ..inference import in_evaluation
from ..report.page import ReportFigure
from ..report.plots import BLUE, GREY, ORANGE

INCHES_PER_SECOND = 1.1
LEFT_INCHES, RIGHT_INCHES, TOP_INCHES, BOTTOM_INCHES = 0.6, 0.5, 0.35, 0.5
ROW_INCHES = (0.42, 1.3)  # least and most height of a lead
ROW_GAP = 0.12  # between two leads, as a share of the tallest
SHADE = 0.13

UNITS = {"record": "standard deviations of the recording", "lead": "standard deviations of the lead", "fixed": "units"}


def reconstruction_figures(
    model: MaskedAutoencoderForPreTraining,
    feature_extractor: EcgFeatureExtractor,
    recordings: Any,
    image_format: str = "svg",
) -> list[ReportFigure]:
    """A figure for a report of each of a few recordings, with the mask that its place gives.

    Where the feature extractor cuts several windows, the first is drawn; `image_format` is `"svg"` or `"png"`.
    """
    features = feature_extractor(recordings).to(model.device)
    input_values, lead_mask = features["input_values"], features.get("lead_mask")
    if "window_record" in features:
        first = [int((features["window_record"] == r).nonzero()[0]) for r in features["window_record"].unique()]
        input_values = input_values[first]
        lead_mask = None if lead_mask is None else lead_mask[first]
    keys = DrawKeys(seed=0, step=0, epoch=0, sample_ids=tuple(range(len(input_values))))
    with in_evaluation(model), torch.no_grad():
        drawn = model.draw_inputs(input_values, keys)
        signals, hidden = model.reconstruct(input_values, lead_mask=lead_mask, **drawn)
    figures = []
    for number, of_recording in enumerate(zip(input_values, signals, hidden, strict=True)):
        signal, reconstruction, mask = (values.cpu().numpy() for values in of_recording)
        present = np.ones(len(signal), dtype=bool) if lead_mask is None else lead_mask[number].cpu().numpy()
        share = explained_share(signal[present], reconstruction[present], mask[present])
        figure = plot_reconstruction(
            np.where(present[:, None], signal, np.nan),
            reconstruction,
            mask,
            model.config.leads,
            model.config.sampling_rate,
            UNITS.get(feature_extractor.normalization, feature_extractor.unit),
        )
        caption = (
            f"Shaded patches ({mask[present].mean():.0%}) were hidden from the encoder. Orange: what the decoder "
            f"makes of them; it explains {share:.0%} of what varies within the hidden patches (a flat line: 0 %)."
        )
        if model.config.norm_pix_loss:
            caption += " Level and size of a hidden patch are those of the recording; only its shape is predicted."
        alt = "Leads of an electrocardiogram below each other, with hidden patches shaded and their reconstruction"
        title = "Reconstruction" if len(input_values) == 1 else f"Reconstruction {number + 1}"
        figures.append(ReportFigure.draw(figure, title, caption, alt, image_format, wide=True))
    return figures


def explained_share(signal: np.ndarray, reconstruction: np.ndarray, hidden: np.ndarray) -> float:
    """Share of the variance within the hidden patches that a reconstruction explains, all of them taken together: 1
    for the signal itself, 0 for the mean of each patch, below 0 for worse; shapes as in [`plot_reconstruction`]."""
    patches = signal.reshape(*hidden.shape, -1)[hidden].astype(np.float64)
    errors = patches - reconstruction.reshape(*hidden.shape, -1)[hidden]
    varying = patches - patches.mean(axis=-1, keepdims=True)
    return float(1.0 - np.square(errors).sum() / max(np.square(varying).sum(), 1e-12))


def plot_reconstruction(
    signal: np.ndarray,
    reconstruction: np.ndarray,
    hidden: np.ndarray,
    leads: Sequence[str],
    sampling_rate: float,
    unit: str,
) -> Figure:
    """Draws the leads of a recording below each other, all at one scale: black where the encoder saw them; where it
    did not, the patch is shaded, the signal grey and the reconstruction orange.

    Signal and reconstruction `(num_leads, num_samples)` are in the unit of the model's input, which the scale at the
    right names; a lead of NaN is left empty. Patches `(num_leads, columns)` are `True` where they were hidden.
    """
    patch_size = signal.shape[1] // hidden.shape[1]
    hidden_samples = hidden.repeat(patch_size, axis=1)
    shown = np.where(hidden_samples & np.isfinite(signal), reconstruction, np.nan)
    lows, highs = _extents(signal, shown)
    gap = ROW_GAP * (highs - lows).max()
    tops = -np.concatenate([[0.0], np.cumsum(highs - lows + gap)])
    baselines = tops[:-1] - highs - gap / 2

    seconds = signal.shape[1] / sampling_rate
    rows_inches = np.clip((tops[0] - tops[-1]) / (highs - lows).mean() * 0.6, *(len(leads) * x for x in ROW_INCHES))
    width = LEFT_INCHES + max(seconds * INCHES_PER_SECOND, 5.0) + RIGHT_INCHES
    height = BOTTOM_INCHES + rows_inches + TOP_INCHES
    figure = Figure(figsize=(width, height))
    box = (LEFT_INCHES / width, BOTTOM_INCHES / height, 1 - (LEFT_INCHES + RIGHT_INCHES) / width, rows_inches / height)
    axes = figure.add_axes(box, xlim=(0, seconds), ylim=(tops[-1], tops[0]))
    times = np.arange(signal.shape[1]) / sampling_rate
    for row, lead in enumerate(leads):
        _shade(axes, hidden[row], tops[row + 1] + gap / 4, tops[row] - gap / 4, patch_size / sampling_rate)
        trace = baselines[row] + signal[row]
        # A sample on each side joins what is seen to what is hidden.
        seen = ~hidden_samples[row]
        edges = seen | np.roll(seen, 1) & (np.arange(len(seen)) > 0)
        axes.plot(times, np.where(seen, np.nan, trace), color=GREY, linewidth=0.8, alpha=0.8, zorder=2)
        axes.plot(times, np.where(edges, trace, np.nan), color="black", linewidth=0.9, zorder=3)
        _plot_by_patch(axes, times, baselines[row] + shown[row], patch_size)
        axes.text(-0.02 * min(seconds, 5), baselines[row], lead, ha="right", va="center", weight="bold", fontsize=9)
        if not np.isfinite(signal[row]).any():
            axes.text(0.3, baselines[row], "not recorded", fontsize=8, color=GREY, va="center")
    _draw_scale(axes, tops, (highs - lows).max(), seconds, unit)
    axes.set_yticks([])
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.set_xlabel("time (s)", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    handles = [
        Line2D([], [], color="black", linewidth=1.2, label="seen by the encoder"),
        Patch(facecolor=BLUE, alpha=2 * SHADE, label="hidden patch"),
        Line2D([], [], color=GREY, linewidth=1.2, label="the signal there"),
        Line2D([], [], color=ORANGE, linewidth=1.4, label="its reconstruction"),
    ]
    anchor = (LEFT_INCHES / width, (BOTTOM_INCHES + rows_inches) / height)
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=anchor, ncols=4, frameon=False, fontsize=8.5)
    return figure


def _extents(*signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of each lead around 0; a few samples may stick out of it."""
    joined = np.concatenate(signals, axis=1)
    joined = np.where(np.isfinite(joined), joined, 0.0)
    low, high = np.quantile(joined, (0.001, 0.999), axis=1)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    least = 0.25 * max((high - low).max(), 1e-6)  # a flat lead needs a place too
    missing = np.maximum(least - (high - low), 0.0) / 2
    return low - missing, high + missing


def _shade(axes: Axes, hidden: np.ndarray, bottom: float, top: float, patch_seconds: float) -> None:
    for column in np.flatnonzero(hidden):
        corner = (column * patch_seconds, bottom)
        size = (patch_seconds, top - bottom)
        axes.add_patch(
            Rectangle(corner, *size, facecolor=BLUE, alpha=SHADE, edgecolor="white", linewidth=0.6, zorder=1)
        )


def _plot_by_patch(axes: Axes, times: np.ndarray, values: np.ndarray, patch_size: int) -> None:
    """One line for all patches, broken between them: nothing joins the reconstructions of two patches."""
    gaps = np.full((len(values) // patch_size, 1), np.nan)
    times, values = (np.concatenate([x.reshape(-1, patch_size), gaps], axis=1).ravel() for x in (times, values))
    axes.plot(times, values, color=ORANGE, linewidth=1.1, solid_joinstyle="round", zorder=4)


def _draw_scale(axes: Axes, tops: np.ndarray, largest: float, seconds: float, unit: str) -> None:
    """A bar of a round length right of the leads, with its unit."""
    rounds = (step * 10.0**power for power in range(-3, 4) for step in (1, 2, 5))
    length = max((size for size in rounds if size <= largest), default=1e-3)
    middle = (tops[0] + tops[-1]) / 2
    x = seconds + 0.12 / INCHES_PER_SECOND
    ends = (middle - length / 2, middle + length / 2)
    axes.plot((x, x), ends, color="black", linewidth=2.5, solid_capstyle="butt", clip_on=False)
    font = {"fontsize": 8, "rotation": 90, "ha": "left", "va": "center"}
    axes.text(x + 0.06 / INCHES_PER_SECOND, middle, f"{length:g} {unit}", **font)
