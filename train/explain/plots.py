"""Explanations on ECG paper: a map over leads and time in colour behind the traces, true to scale."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from ..report.ecg_paper import LEFT_MM, MM_PER_SECOND, RIGHT_MM, EcgPaper, draw_paper, fit_to_paper

BIN_SECONDS = 0.04  # a small box of the paper: finer columns of a map are added up
LOWERS, RAISES = "#4a9fd4", "#e8833a"  # blue and orange of equal lightness, for any colour vision
NOT_READ = "#dddddd"
SIGNED_COLORS = LinearSegmentedColormap.from_list("signed", [LOWERS, "white", RAISES])
SHARE_COLORS = LinearSegmentedColormap.from_list("share", ["white", RAISES])
FULL_COLOR_QUANTILE = 0.99
BAR_LEFT_MM, BAR_MM = 19.0, 24.0
BAR_STRIP_MM, LINE_MM, MM_PER_LETTER = 11.0, 3.6, 1.8


def plot_explanation(
    signal_mv: np.ndarray,
    leads: Sequence[str],
    sampling_rate: float,
    values: np.ndarray,
    signed: bool = True,
    title: str | None = None,
    caption: str | None = None,
    layout: str = "rows",
) -> Figure:
    """Draws a map behind the traces of an ECG at 25 mm/s and 10 mm/mV, with its colour bar and caption below.

    White is 0, and the strongest hundredth of the map has the full colour. Colours are even in lightness, blue and
    orange for any colour vision; a black and white print tells sizes but no signs. Columns finer than 40 ms, a small
    box, are added up.

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`):
            In mV. An offset beyond 0.5 mV is taken out, what lies beyond 5 mV is cut, and the title says so.
        leads (`Sequence[str]`): Names of the rows of the signal.
        sampling_rate (`float`): Samples per second, in Hz.
        values (`np.ndarray` of shape `(num_leads, num_columns)` or `(1, num_columns)`):
            The map over patches, samples or anything that divides the time of the signal evenly; one row for all
            leads. NaN is grey.
        signed (`bool`, *optional*, defaults to `True`):
            Draw values that raise and lower something; else shares of a whole, which are written in per cent.
        title (`str`, *optional*), caption (`str`, *optional*): Above and below the paper.
        layout (`str`, *optional*, defaults to `"rows"`): `"rows"` or `"clinical"`, see [`plot_ecg_paper`].

    Raises:
        ValueError: if signal, leads and map do not fit.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or len(values) not in (1, len(leads)) or not values.shape[1]:
        raise ValueError(f"Expected a map of shape ({len(leads)}, num_columns) or (1, ...), got {values.shape}.")
    if not signed and np.nanmin(values, initial=0.0) < 0:
        raise ValueError("Expected a map without negative values, got some. Pass signed=True.")
    shown, note = fit_to_paper(signal_mv, leads)
    duration = shown.shape[1] / sampling_rate
    values, column_seconds = _in_small_boxes(values, duration)
    known = np.abs(values[np.isfinite(values)])
    full = float(np.quantile(known, FULL_COLOR_QUANTILE, method="higher")) if known.size else 0.0
    full = full or float(known.max(initial=0.0)) or 1.0
    width_mm = LEFT_MM + duration * MM_PER_SECOND + RIGHT_MM
    legend = f"Colours: per {min(column_seconds, duration) * 1e3:.0f} ms. {caption or ''}"
    lines = textwrap.wrap(legend, max(30, int((width_mm - 4) / MM_PER_LETTER)))
    below_mm = BAR_STRIP_MM + LINE_MM * len(lines) + 2.0
    paper = draw_paper(shown, leads, sampling_rate, layout, (title or "") + note or None, below_mm)
    colors = SIGNED_COLORS if signed else SHARE_COLORS
    limits = (-full if signed else 0.0, full)
    words = ("lowers it", "raises it") if signed else ("none", "most")
    paper.color(values, column_seconds, colors.with_extremes(bad=NOT_READ), limits)
    _draw_bar(paper, colors, limits, words)
    for number, line in enumerate(lines):
        y = below_mm - BAR_STRIP_MM - LINE_MM * (number + 0.5)
        paper.figure.text(2 / paper.width_mm, y / paper.height_mm, line, fontsize=8, va="center", parse_math=False)
    return paper.figure


def _in_small_boxes(values: np.ndarray, duration: float) -> tuple[np.ndarray, float]:
    """The map with columns of at least 40 ms, and their length in seconds; a column of NaN alone stays NaN."""
    column_seconds = duration / values.shape[1]
    if column_seconds >= BIN_SECONDS:
        return values, column_seconds
    place = ((np.arange(values.shape[1]) + 0.5) * column_seconds / BIN_SECONDS).astype(int)
    boxes = np.zeros((len(values), place[-1] + 1))
    counts = np.zeros_like(boxes)
    for row, known, box, count in zip(values, np.isfinite(values), boxes, counts, strict=True):
        np.add.at(box, place[known], row[known])
        np.add.at(count, place[known], 1)
    return np.where(counts > 0, boxes, np.nan), BIN_SECONDS


def _draw_bar(paper: EcgPaper, colors: Colormap, limits: tuple[float, float], words: tuple[str, str]) -> None:
    """The colour bar with words at its ends and numbers below it."""
    figure, width, height = paper.figure, paper.width_mm, paper.height_mm
    box = (BAR_LEFT_MM / width, (paper.below_mm - 5.0) / height, BAR_MM / width, 3.0 / height)
    ticks = sorted({*limits, 0.0})
    bar = figure.colorbar(ScalarMappable(Normalize(*limits), colors), figure.add_axes(box), orientation="horizontal")
    texts = [f"{tick:+.2g}" if limits[0] < 0 else f"{tick:.2%}" for tick in ticks]
    texts = [
        "0" if tick == 0 else text.replace("-", "\N{MINUS SIGN}") for tick, text in zip(ticks, texts, strict=True)
    ]
    bar.set_ticks(ticks, labels=texts, fontsize=8)
    bar.ax.tick_params(length=0, pad=1)
    for place, side, word in ((-0.06, "right", words[0]), (1.06, "left", words[1])):
        bar.ax.text(place, 0.5, word, ha=side, va="center", fontsize=8, transform=bar.ax.transAxes)
