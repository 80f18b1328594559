"""Figures of a report: an ECG on ECG paper, the course of a pretraining, and what a probe found.

All of them are plain [`matplotlib.figure.Figure`] objects: no pyplot, so no global state, no display and no leak in a
long run. Colours are those of Okabe and Ito (2008), which people with any colour vision can tell apart; brightness and
line style repeat what colour says, for prints in black and white.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, GREY, LIGHT_GREY = "#0072B2", "#D55E00", "#009E73", "#666666", "#b0b0b0"
PAPER_FINE, PAPER_COARSE = "#f9dcdc", "#eeaeae"

MM_PER_SECOND = 25.0
MM_PER_MV = 10.0
MM_PER_INCH = 25.4
PULSE_MM = 5.0  # the calibration pulse: 1 mV for 200 ms
LEFT_MM, RIGHT_MM, FOOTER_MM = 20.0, 5.0, 10.0
ROW_GAP_MM = (15.0, 50.0)  # least and most distance between two baselines

CLINICAL_COLUMNS = (("I", "II", "III"), ("aVR", "aVL", "aVF"), ("V1", "V2", "V3"), ("V4", "V5", "V6"))


@dataclass(frozen=True)
class _Strip:
    """One stretch of one lead on the paper: its row, where it starts (mm), and its samples."""

    lead: str
    channel: int
    row: int
    left_mm: float
    start: int
    stop: int


def plot_ecg_paper(
    signal_mv: np.ndarray,
    leads: Sequence[str],
    sampling_rate: float,
    hidden: np.ndarray | None = None,
    patch_size: int | None = None,
    layout: str = "rows",
    title: str | None = None,
) -> Figure:
    """Draws one ECG at 25 mm/s and 10 mm/mV, true to scale when the figure is printed at its own size.

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): The recording in mV. NaN leaves a gap.
        leads (`Sequence[str]`): Names of the rows of the signal.
        sampling_rate (`float`): Samples per second, in Hz.
        hidden (`np.ndarray`, *optional*):
            Bool of shape `(num_columns,)`, for all leads, or `(num_leads, num_columns)`: `True` where a patch was
            hidden from the encoder. Hidden patches are shaded and their share is written below.
        patch_size (`int`, *optional*): Length of a patch in samples; needed with `hidden`.
        layout (`str`, *optional*, defaults to `"rows"`):
            `"rows"` draws every lead over the whole time, one below the other (12x1, 8x1, ...); `"clinical"` is the
            usual print of twelve leads: four columns of three leads, each a quarter of the time, above lead II whole.
        title (`str`, *optional*): A line above the paper.
    """
    signal_mv = np.asarray(signal_mv, dtype=float)
    if signal_mv.ndim != 2 or len(signal_mv) != len(leads):
        raise ValueError(f"Expected a signal of shape ({len(leads)}, num_samples), got {signal_mv.shape}.")
    hidden = _hidden_per_lead(hidden, patch_size, signal_mv.shape)
    strips = _lay_out(layout, list(leads), signal_mv.shape[1], sampling_rate)
    baselines, edges, height = _place_rows(strips, signal_mv)
    width = LEFT_MM + signal_mv.shape[1] / sampling_rate * MM_PER_SECOND + RIGHT_MM
    width, height = np.ceil(width / 5) * 5, np.ceil(height / 5) * 5
    top_mm = 8.0 if title else 0.0
    figure = Figure(figsize=(width / MM_PER_INCH, (height + top_mm) / MM_PER_INCH))
    axes = figure.add_axes((0, 0, 1, height / (height + top_mm)), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    _draw_grid(axes, width, height)
    for strip in strips:
        baseline = baselines[strip.row]
        if hidden is not None:
            band = (edges[strip.row + 1] + 0.5, edges[strip.row] - 0.5)
            _shade_hidden(axes, strip, hidden[strip.channel], patch_size, sampling_rate, band)
        _draw_strip(axes, strip, signal_mv[strip.channel], baseline, sampling_rate)
    for baseline in baselines:
        pulse = np.array([[0, 0], [2, 0], [2, 10], [2 + PULSE_MM, 10], [2 + PULSE_MM, 0], [9, 0]])
        axes.plot(1 + pulse[:, 0], baseline + pulse[:, 1], color="black", linewidth=0.8)
    axes.text(2, 3, "25 mm/s   10 mm/mV", fontsize=8, va="center", bbox=_paper_box())
    if hidden is not None:
        note = f"shaded: hidden from the encoder ({hidden.mean():.0%} of the patches)"
        axes.text(width - 2, 3, note, fontsize=8, va="center", ha="right", color="#004c78", bbox=_paper_box())
    if title:
        figure.text(2 / width, 1 - 0.5 * top_mm / (height + top_mm), title, fontsize=10, va="center")
    return figure


def plot_training_curve(
    log_history: Sequence[Mapping[str, float]],
    loss_key: str = "loss",
    rank_key: str = "effective_rank",
    std_key: str = "feature_std",
) -> Figure:
    """Draws the loss, the effective rank and the standard deviation of the features, one below the other.

    A falling loss alone proves nothing in a joint-embedding method: rank and deviation show whether the features
    still tell records apart (RankMe, Garrido et al., 2023).

    Args:
        log_history (`Sequence[Mapping]`): `trainer.state.log_history`; entries without a key are skipped.
        loss_key, rank_key, std_key (`str`, *optional*): Names of the three series.
    """
    monitored = any(rank_key in entry or std_key in entry for entry in log_history)
    figure = Figure(figsize=(7, 6.0 if monitored else 2.6), layout="constrained")
    if monitored:
        loss_axes, rank_axes, lower_axes = figure.subplots(3, 1, sharex=True)
        _draw_series(rank_axes, log_history, rank_key, "effective rank", GREEN, "-s")
        _draw_series(lower_axes, log_history, std_key, "feature std", ORANGE, "--^")
        for axes in (rank_axes, lower_axes):
            axes.spines["right"].set_visible(False)
    else:
        loss_axes = lower_axes = figure.subplots()
    _draw_series(loss_axes, log_history, loss_key, "loss", BLUE, "-o")
    loss_axes.spines["right"].set_visible(False)
    lower_axes.set_xlabel("optimiser step")
    lower_axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


def plot_auroc_bars(comparison: Mapping, protocol: str = "linear") -> Figure:
    """Draws the AUROC of a random and of the pretrained encoder, each label and the macro mean, with 95 % intervals.

    Bars start at 0.5, which is chance.

    Args:
        comparison (`Mapping`): As [`~ecg_transformers.train.probes.compare_with_random`] writes it.
        protocol (`str`, *optional*, defaults to `"linear"`): Which protocol of the comparison to draw.
    """
    pretrained = comparison["pretrained"][protocol]
    names = ["macro", *pretrained["per_class"]]
    figure = Figure(figsize=(max(5.0, 1.6 + 1.1 * len(names)), 3.9), layout="constrained")
    axes = figure.add_subplot()
    series = (("random_encoder", "random encoder", LIGHT_GREY, -0.2), ("pretrained", "pretrained", BLUE, 0.2))
    lowest = 0.5
    for key, label, color, shift in series:
        result = comparison[key][protocol]
        values = np.array([result["macro_auroc"], *(result["per_class"][name] for name in names[1:])])
        intervals = [result["macro_auroc_ci95"], *(result["per_class_ci95"][name] for name in names[1:])]
        low, high = np.array(intervals).T
        positions = np.arange(len(names)) + shift
        axes.bar(positions, values - 0.5, 0.38, bottom=0.5, label=label, color=color)
        for position, value, bottom, top in zip(positions, values, low, high, strict=True):
            axes.plot((position, position), (bottom, top), color="white", linewidth=3.5)
            axes.plot((position, position), (bottom, top), color="black", linewidth=1.3)
            axes.text(position, max(top, value) + 0.008, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
        lowest = min(lowest, low.min(), values.min())
    axes.axhline(0.5, color="black", linewidth=0.8)
    axes.axvline(0.5, color="#bbbbbb", linewidth=0.8, linestyle=":")
    axes.set_xticks(np.arange(len(names)), names)
    axes.get_xticklabels()[0].set_fontweight("bold")
    axes.set_ylim(np.floor((lowest - 0.01) * 20) / 20, 1.04)
    axes.set_yticks(np.arange(np.ceil(axes.get_ylim()[0] * 10 - 1e-9) / 10, 1.01, 0.1))
    axes.set_ylabel("AUROC (0.5 is chance)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure


def figure_to_bytes(figure: Figure, image_format: str = "png", dpi: int = 150) -> bytes:
    """Renders a figure as `"png"`, `"svg"` or `"pdf"`; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if image_format == "svg" else {"CreationDate": None} if image_format == "pdf" else None
    with rc_context({"svg.hashsalt": "ecg-transformers"}):
        figure.savefig(buffer, format=image_format, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def figure_to_data_uri(figure: Figure, image_format: str = "png", dpi: int = 150) -> str:
    """Renders a figure as a `data:` URI, for a page that needs no other file."""
    mime = {"png": "image/png", "svg": "image/svg+xml"}[image_format]
    return f"data:{mime};base64,{base64.b64encode(figure_to_bytes(figure, image_format, dpi)).decode()}"


def _draw_series(axes: Axes, log_history, key: str, name: str, color: str, style: str) -> None:
    """One series over the steps, on a logarithmic axis where it spans more than a factor of 20."""
    points = [(entry["step"], entry[key]) for entry in log_history if key in entry and "step" in entry]
    if not points:
        axes.set_ylabel(f"{name}\n(not logged)", color=GREY)
        axes.set_yticks([])
        return
    steps, values = np.array(points, dtype=float).T
    axes.plot(steps, values, style if len(points) <= 30 else style[:-1], color=color, markersize=4, linewidth=1.6)
    axes.set_ylabel(name, color=color)
    axes.tick_params(axis="y", colors=color)
    axes.spines["top"].set_visible(False)
    axes.margins(y=0.15)
    if values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
    if style.startswith("-") and not style.startswith("--"):
        axes.grid(color="#e5e5e5", linewidth=0.6)


def _hidden_per_lead(hidden, patch_size: int | None, shape: tuple[int, int]) -> np.ndarray | None:
    """The mask as bool `(num_leads, num_columns)`."""
    if hidden is None:
        return None
    hidden, num_columns = np.asarray(hidden, dtype=bool), shape[1] // patch_size if patch_size else None
    if patch_size is None:
        raise ValueError("Expected patch_size (in samples) together with hidden patches, got None.")
    if hidden.ndim == 1:
        hidden = np.broadcast_to(hidden, (shape[0], len(hidden)))
    if hidden.shape != (shape[0], num_columns):
        raise ValueError(
            f"Expected hidden patches of shape ({num_columns},) or ({shape[0]}, {num_columns}) for patches of "
            f"{patch_size} samples, got {hidden.shape}."
        )
    return hidden


def _lay_out(layout: str, leads: list[str], num_samples: int, sampling_rate: float) -> list[_Strip]:
    if layout == "rows":
        return [_Strip(lead, row, row, LEFT_MM, 0, num_samples) for row, lead in enumerate(leads)]
    if layout != "clinical":
        raise ValueError(f'Unknown layout {layout!r}. Choose "rows" or "clinical".')
    missing = [lead for column in CLINICAL_COLUMNS for lead in column if lead not in leads]
    if missing:
        raise ValueError(f'The clinical layout needs twelve leads, {missing} are missing. Use layout="rows".')
    strips = [_Strip("II", leads.index("II"), 3, LEFT_MM, 0, num_samples)]
    quarter = num_samples // 4
    for column, column_leads in enumerate(CLINICAL_COLUMNS):
        start = column * quarter
        left_mm = LEFT_MM + start / sampling_rate * MM_PER_SECOND
        for row, lead in enumerate(column_leads):
            strips.append(_Strip(lead, leads.index(lead), row, left_mm, start, start + quarter))
    return sorted(strips, key=lambda strip: (strip.row, strip.left_mm))


def _place_rows(strips: list[_Strip], signal_mv: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Baselines of the rows from top to bottom, the edges between their bands, and the height of the paper, in mm.

    Rows move apart where a trace is tall; baselines lie on the 5 mm lines.
    """
    num_rows = strips[-1].row + 1
    above, below = np.full(num_rows, 10.0), np.zeros(num_rows)  # the calibration pulse rises by 10 mm
    for strip in strips:
        trace = signal_mv[strip.channel, strip.start : strip.stop] * MM_PER_MV
        trace = trace[np.isfinite(trace)]
        if trace.size:
            above[strip.row] = max(above[strip.row], trace.max())
            below[strip.row] = max(below[strip.row], -trace.min())
    above, below = np.minimum(above, ROW_GAP_MM[1]), np.minimum(below, ROW_GAP_MM[1])
    gaps = np.clip(np.ceil((below[:-1] + above[1:] + 2) / 5) * 5, *ROW_GAP_MM)
    lowest = FOOTER_MM + np.ceil(below[-1] / 5) * 5
    baselines = lowest + np.concatenate([np.cumsum(gaps[::-1])[::-1], [0.0]])
    height = baselines[0] + above[0] + 3
    between = (baselines[:-1] - below[:-1] + baselines[1:] + above[1:]) / 2
    return baselines, np.concatenate([[height - 1], between, [FOOTER_MM - 3]]), height


def _draw_grid(axes: Axes, width: float, height: float) -> None:
    for step, color, linewidth in ((1, PAPER_FINE, 0.4), (5, PAPER_COARSE, 0.7)):
        lines = [((x, 0), (x, height)) for x in np.arange(0, width + step / 2, step)]
        lines += [((0, y), (width, y)) for y in np.arange(0, height + step / 2, step)]
        axes.add_collection(LineCollection(lines, colors=color, linewidths=linewidth, zorder=0))


def _draw_strip(axes: Axes, strip: _Strip, trace_mv: np.ndarray, baseline: float, sampling_rate: float) -> None:
    """Draws a trace with its lead name: left of it at the margin, above its start elsewhere."""
    times_mm = np.arange(strip.stop - strip.start) / sampling_rate * MM_PER_SECOND
    trace_mm = trace_mv[strip.start : strip.stop] * MM_PER_MV
    axes.plot(strip.left_mm + times_mm, baseline + trace_mm, color="black", linewidth=0.8, solid_joinstyle="round")
    font = {"fontsize": 9, "fontweight": "bold", "va": "center", "bbox": _paper_box(), "zorder": 4}
    if strip.left_mm == LEFT_MM:
        axes.text(LEFT_MM - 1.5, baseline, strip.lead, ha="right", **font)
    else:
        start = trace_mm[times_mm < 10]
        top = np.nanmax(start) if np.isfinite(start).any() else 0.0
        axes.plot((strip.left_mm,) * 2, (baseline - 2.5, baseline + 2.5), color="black", linewidth=0.8)
        axes.text(strip.left_mm + 1.5, baseline + max(6.0, top + 3.0), strip.lead, ha="left", **font)
    if not np.isfinite(trace_mm).any():
        axes.text(strip.left_mm + 20, baseline, "not recorded", fontsize=8, color=GREY, va="center")


def _shade_hidden(
    axes: Axes, strip: _Strip, hidden: np.ndarray, patch_size: int, sampling_rate: float, band: tuple[float, float]
) -> None:
    mm_per_sample = MM_PER_SECOND / sampling_rate
    for column in np.flatnonzero(hidden):
        start, stop = max(column * patch_size, strip.start), min((column + 1) * patch_size, strip.stop)
        if start < stop:
            corner = (strip.left_mm + (start - strip.start) * mm_per_sample, band[0])
            size = ((stop - start) * mm_per_sample, band[1] - band[0])
            axes.add_patch(Rectangle(corner, *size, facecolor=BLUE, alpha=0.22, linewidth=0, zorder=1))


def _paper_box() -> dict:
    return {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
