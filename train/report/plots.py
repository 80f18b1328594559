"""Figures of a report: the course of a pretraining, and what a probe found. (ECGs are drawn by `ecg_paper`.)

All of them are plain [`matplotlib.figure.Figure`] objects: no pyplot, so no global state, no display and no leak in a
long run. Colours are those of Okabe and Ito (2008), which people with any colour vision can distinguish; brightness
and line style repeat what colour says, for prints in black and white.
"""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito (2008), without yellow, which white swallows; line styles repeat what colours say.
CURVE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
CURVE_STYLES = ("-", "--", "-.", ":")

BLUE, ORANGE, GREEN, GREY, LIGHT_GREY = "#0072B2", "#D55E00", "#009E73", "#666666", "#b0b0b0"


def plot_training_curve(log_history: Sequence[Mapping[str, float]]) -> Figure:
    """Draws the loss, the effective rank and the standard deviation of the features, one below the other, as far as
    `trainer.state.log_history` has them.

    A falling loss alone proves nothing in a joint-embedding method: rank and deviation show whether the features
    still differ between records (RankMe, Garrido et al., 2023).
    """
    monitored = any("effective_rank" in entry or "feature_std" in entry for entry in log_history)
    figure = Figure(figsize=(7, 6.0 if monitored else 2.6), layout="constrained")
    axes = figure.subplots(3 if monitored else 1, 1, sharex=True, squeeze=False)[:, 0]
    series = ("loss", "loss", BLUE, "-o"), ("effective_rank", "effective rank", GREEN, "-s")
    for each, style in zip(axes, (*series, ("feature_std", "feature std", ORANGE, "--^")), strict=False):
        _draw_series(each, log_history, *style)
        each.spines["right"].set_visible(False)
    axes[-1].set_xlabel("optimiser step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
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


def lighten(axes: Axes) -> None:
    """Leaves a frame of two sides and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)
