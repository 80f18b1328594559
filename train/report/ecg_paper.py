"""An ECG on ECG paper: 25 mm/s, 10 mm/mV, a grid of 1 and 5 mm, a calibration pulse, true to scale when printed.

Figures are plain [`matplotlib.figure.Figure`] objects, see `plots`.
"""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from PIL import Image

from .plots import GREY, figure_to_bytes

PAPER_FINE, PAPER_COARSE = "#f9dcdc", "#eeaeae"

MM_PER_SECOND = 25.0
MM_PER_MV = 10.0
MM_PER_INCH = 25.4
PULSE_MM = 5.0  # the calibration pulse: 1 mV for 200 ms
LEFT_MM, RIGHT_MM, FOOTER_MM = 20.0, 5.0, 10.0
ROW_GAP_MM = (15.0, 50.0)  # least and most distance between two baselines

LARGEST_OFFSET_MV, LARGEST_MV = 0.5, 5.0
LONGEST_NAME_AT_MARGIN = 5  # letters that fit between the calibration pulse and the trace

PREVIEW_PIXELS, PREVIEW_COLOURS = (480, 360), 16
"""Width and height within which a preview lies, and its colours: few, so that it is small."""

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


@dataclass(frozen=True)
class EcgPaper:
    """A drawn paper: its figure, the axes in mm, the stretches of leads, the edges between rows and its size."""

    figure: Figure
    axes: Axes
    strips: list[_Strip]
    edges_mm: np.ndarray
    width_mm: float
    height_mm: float  # of the figure, with title and margin
    below_mm: float  # of the empty margin
    sampling_rate: float

    def color(self, values: np.ndarray, column_seconds: float, colors: Colormap, limits: tuple[float, float]) -> None:
        """Fills the bands of the leads, below grid and traces, with a map `(num_leads or 1, num_columns)`; NaN has the
        colour for bad values."""
        for strip in self.strips:
            row = values[strip.channel if len(values) > 1 else 0]
            start, stop = strip.start / self.sampling_rate, strip.stop / self.sampling_rate
            first, last = int(start / column_seconds + 1e-6), min(int(np.ceil(stop / column_seconds - 1e-6)), len(row))
            edges = np.clip(np.arange(first, last + 1) * column_seconds, start, stop)
            self.axes.pcolormesh(
                strip.left_mm + (edges - start) * MM_PER_SECOND,
                (self.edges_mm[strip.row + 1] + 0.5, self.edges_mm[strip.row] - 0.5),
                np.ma.masked_invalid(row[None, first:last]),
                cmap=colors,
                vmin=limits[0],
                vmax=limits[1],
                zorder=-1,
                rasterized=True,
            )


def plot_ecg_paper(
    signal_mv: np.ndarray,
    leads: Sequence[str],
    sampling_rate: float,
    layout: str = "rows",
    title: str | None = None,
) -> Figure:
    """Draws one ECG at 25 mm/s and 10 mm/mV, true to scale when the figure is printed at its own size.

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): The recording in mV. NaN leaves a gap.
        leads (`Sequence[str]`): Names of the rows of the signal.
        sampling_rate (`float`): Samples per second, in Hz.
        layout (`str`, *optional*, defaults to `"rows"`):
            `"rows"` draws every lead over the whole time, one below the other (12x1, 8x1, ...); `"clinical"` is the
            usual print of twelve leads: four columns of three leads, each a quarter of the time, above lead II whole.
        title (`str`, *optional*): A line above the paper.
    """
    return draw_paper(signal_mv, leads, sampling_rate, layout, title).figure


def draw_paper(
    signal_mv: np.ndarray,
    leads: Sequence[str],
    sampling_rate: float,
    layout: str,
    title: str | None,
    below_mm: float = 0.0,
) -> EcgPaper:
    """The paper of [`plot_ecg_paper`] with its grid, traces, lead names and pulses and with an empty margin below it,
    for a figure that draws more."""
    signal_mv = _checked_signal(signal_mv, leads)
    strips = _lay_out(layout, list(leads), signal_mv.shape[1], sampling_rate)
    baselines, edges, height = _place_rows(strips, signal_mv)
    width = LEFT_MM + signal_mv.shape[1] / sampling_rate * MM_PER_SECOND + RIGHT_MM
    width, height = np.ceil(width / 5) * 5, np.ceil(height / 5) * 5
    top_mm = 8.0 if title else 0.0
    whole = below_mm + height + top_mm
    figure = Figure(figsize=(width / MM_PER_INCH, whole / MM_PER_INCH))
    axes = figure.add_axes((0, below_mm / whole, 1, height / whole), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    _draw_grid(axes, width, height)
    for strip in strips:
        _draw_strip(axes, strip, signal_mv[strip.channel], baselines[strip.row], sampling_rate)
    for baseline in baselines:
        pulse = np.array([[0, 0], [2, 0], [2, 10], [2 + PULSE_MM, 10], [2 + PULSE_MM, 0], [9, 0]])
        axes.plot(1 + pulse[:, 0], baseline + pulse[:, 1], color="black", linewidth=0.8)
    axes.text(2, 3, "25 mm/s   10 mm/mV", fontsize=8, va="center", bbox=_paper_box())
    if title:
        figure.text(2 / width, 1 - 0.5 * top_mm / whole, title, fontsize=10, va="center", parse_math=False)
    return EcgPaper(figure, axes, strips, edges, width, whole, below_mm, sampling_rate)


def plot_recording(
    signal_mv: np.ndarray, leads: Sequence[str], sampling_rate: float, title: str, seconds: float = 10.0
) -> Figure:
    """Draws the start of a recording as a doctor is used to see it.

    Twelve leads come as four columns of three above lead II, others one below the other. Leads whose median is more
    than 0.5 mV away from zero are moved there, because a converter's offset says nothing of the heart, and what then
    lies beyond 5 mV is cut off; the title says both.

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): The recording in mV. NaN leaves a gap.
        leads (`Sequence[str]`): Names of the rows of the signal.
        sampling_rate (`float`): Samples per second, in Hz.
        title (`str`): A line above the paper.
        seconds (`float`, *optional*, defaults to 10): Length of the part from its start, in s.

    Raises:
        ValueError: if signal and leads do not fit.
    """
    signal_mv = _checked_signal(signal_mv, leads)
    shown, note = fit_to_paper(signal_mv[:, : max(1, round(seconds * sampling_rate))], leads)
    return plot_ecg_paper(shown, leads, sampling_rate, layout=usual_layout(leads), title=title + note)


def usual_layout(leads: Sequence[str]) -> str:
    """`"clinical"` for twelve leads, as a doctor is used to see them; `"rows"`, one below the other, for others."""
    return "clinical" if {lead for column in CLINICAL_COLUMNS for lead in column} == set(leads) else "rows"


def draw_preview(ecg: Mapping[str, Any]) -> bytes | None:
    """Draws the first 10 s of a decoded `ecg` of [`load_ecg`] as a PNG of at most 480 x 360 pixels, some ten
    kilobytes; the same recording gives the same bytes. `None` for one without a unit, which has no place on paper."""
    if ecg["unit"] != "mV":
        return None
    figure = plot_recording(ecg["signal"], ecg["leads"], ecg["sampling_rate"], title="")
    for line in figure.axes[0].lines:
        line.set_linewidth(2 * line.get_linewidth())  # one pixel
    dpi = min(pixels / inches for pixels, inches in zip(PREVIEW_PIXELS, figure.get_size_inches(), strict=True))
    content = io.BytesIO()
    with Image.open(io.BytesIO(figure_to_bytes(figure, dpi=dpi))) as image:
        image.convert("RGB").quantize(PREVIEW_COLOURS, Image.Quantize.FASTOCTREE).save(content, "png", optimize=True)
    return content.getvalue()


def fit_to_paper(signal_mv: np.ndarray, leads: Sequence[str]) -> tuple[np.ndarray, str]:
    """A copy whose offsets beyond 0.5 mV are taken out and which is cut at 5 mV, and what of that to say, if any."""
    shown = _checked_signal(signal_mv, leads).copy()
    shown[~np.isfinite(shown)] = np.nan
    moved, cut = [], []
    for row, lead in zip(shown, leads, strict=True):
        median = np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0
        if abs(median) > LARGEST_OFFSET_MV:
            row -= median
            moved.append(lead)
        if (np.abs(row) > LARGEST_MV).any():
            cut.append(lead)
    note = ""
    for what, which in (("moved to zero", moved), (f"cut at {LARGEST_MV:g} mV", cut)):
        if which:
            note += f"   ({what}: {', '.join(which) if len(which) < len(leads) else 'all leads'})"
    return np.clip(shown, -LARGEST_MV, LARGEST_MV), note


def save_figure(figure: Figure, path: str | os.PathLike, dpi: int = 150) -> Path:
    """Writes a figure as PNG, SVG or PDF, by the ending of `path`. Printed at its own size, it is true to scale.

    Raises:
        ValueError: for another ending, or a folder that cannot be written to.
    """
    path = Path(path)
    image_format = path.suffix.lower().removeprefix(".")
    if image_format not in ("png", "svg", "pdf"):
        raise ValueError(f"Expected a file ending with .png, .svg or .pdf, got {str(path)!r}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(figure_to_bytes(figure, image_format, dpi))
    except OSError as error:
        raise ValueError(f"Cannot write to {str(path)!r}: {error.strerror}. Give another file.") from error
    return path


def _checked_signal(signal_mv: np.ndarray, leads: Sequence[str]) -> np.ndarray:
    signal_mv = np.asarray(signal_mv, dtype=float)
    if signal_mv.ndim != 2 or len(signal_mv) != len(leads) or not signal_mv.shape[1]:
        raise ValueError(f"Expected a signal of shape ({len(leads)}, num_samples > 0), got {signal_mv.shape}.")
    return signal_mv


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
    font |= {"parse_math": False}  # names of leads come from files
    if strip.left_mm == LEFT_MM and len(strip.lead) <= LONGEST_NAME_AT_MARGIN:
        axes.text(LEFT_MM - 1.5, baseline, strip.lead, ha="right", **font)
    else:
        start = trace_mm[times_mm < 10]
        top = np.nanmax(start) if np.isfinite(start).any() else 0.0
        if strip.left_mm > LEFT_MM:
            axes.plot((strip.left_mm,) * 2, (baseline - 2.5, baseline + 2.5), color="black", linewidth=0.8)
        axes.text(strip.left_mm + 1.5, baseline + max(6.0, top + 3.0), strip.lead, ha="left", **font)
    if not np.isfinite(trace_mm).any():
        axes.text(strip.left_mm + 20, baseline, "not recorded", fontsize=8, color=GREY, va="center")


def _paper_box() -> dict:
    return {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
