"""Pictures of hidden patches and their reconstruction by a masked autoencoder, for a report."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_st_mem import MaskedAutoencoderForPreTraining

from ..inference import in_evaluation
from ..report.page import ReportFigure
from ..report.plots import BLUE, GREY, ORANGE

INCHES_PER_SECOND, LEAD_INCHES = 1.1, 0.7
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
    unit = UNITS.get(feature_extractor.normalization, feature_extractor.unit)
    figures = []
    for number, of_recording in enumerate(zip(input_values, signals, hidden, strict=True)):
        signal, reconstruction, mask = (values.cpu().numpy() for values in of_recording)
        present = np.ones(len(signal), dtype=bool) if lead_mask is None else lead_mask[number].cpu().numpy()
        share = explained_share(signal[present], reconstruction[present], mask[present])
        shown = np.where(present[:, None], signal, np.nan)
        figure = plot_reconstruction(shown, reconstruction, mask, model.config.leads, model.config.sampling_rate, unit)
        caption = (
            f"Shaded patches ({mask[present].mean():.0%}) were hidden from the encoder. Orange: what the decoder "
            f"makes of them; it explains {share:.0%} of what varies within the hidden patches (a flat line: 0 %)."
        )
        if model.config.norm_pix_loss:
            caption += " Level and size of a hidden patch are those of the recording; only its shape is predicted."
        alt = "Leads of an electrocardiogram below each other, with hidden patches shaded and their reconstruction"
        title = "Reconstruction" if len(input_values) == 1 else f"Reconstruction {number + 1}"
        figures.append(ReportFigure(figure, title, caption, alt, image_format, wide=True))
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
    left names; a lead of NaN is left empty. Patches `(num_leads, columns)` are `True` where they were hidden.
    """
    (num_leads, num_samples), num_columns = signal.shape, hidden.shape[1]
    patch_size, seconds = num_samples // num_columns, num_samples / sampling_rate
    times = np.arange(num_samples) / sampling_rate
    is_hidden = hidden.repeat(patch_size, axis=1)
    # A sample on each side joins what is seen to what is hidden.
    is_seen = ~is_hidden | np.roll(~is_hidden, 1, axis=1) & (np.arange(num_samples) > 0)
    size = (2.0 + INCHES_PER_SECOND * max(seconds, 5.0), 1.2 + LEAD_INCHES * num_leads)
    figure = Figure(figsize=size, layout="constrained")
    plots = figure.subplots(num_leads, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for row, (axes, lead) in enumerate(zip(plots, leads, strict=True)):
        for column in np.flatnonzero(hidden[row]):
            edges = column * patch_size / sampling_rate, (column + 1) * patch_size / sampling_rate
            axes.axvspan(*edges, facecolor=BLUE, alpha=SHADE, edgecolor="white", label="hidden patch")
        axes.plot(
            times, np.where(is_hidden[row], signal[row], np.nan), color=GREY, linewidth=0.8, label="signal there"
        )
        seen = np.where(is_seen[row], signal[row], np.nan)
        axes.plot(times, seen, color="black", linewidth=0.9, label="seen by the encoder")
        shown = np.where(is_hidden[row] & np.isfinite(signal[row]), reconstruction[row], np.nan)
        patches = (
            np.column_stack([values.reshape(-1, patch_size), np.full(num_columns, np.nan)])
            for values in (times, shown)
        )
        axes.plot(*map(np.ravel, patches), color=ORANGE, linewidth=1.1, label="its reconstruction")
        axes.set_ylabel(lead, rotation=0, ha="right", va="center", weight="bold")
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
        if not np.isfinite(signal[row]).any():
            axes.text(0.02, 0.5, "not recorded", fontsize=8, color=GREY, transform=axes.transAxes)
    shown = np.concatenate([signal, np.where(is_hidden, reconstruction, np.nan)], axis=1)
    plots[0].set(xlim=(0, seconds), ylim=np.nanquantile(shown, (0.0005, 0.9995)) + (-0.1, 0.1))  # a few stick out
    plots[-1].set_xlabel("time (s)")
    figure.supylabel(unit, fontsize=9)
    handles = {}
    for axes in plots:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)
    return figure
