"""The figure of a comparison: scores with intervals, and learning curves. Plain figures, as in `report/plots.py`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from ..report.plots import BLUE, CURVE_COLORS, CURVE_STYLES, GREEN, GREY, ORANGE, lighten
from .scores import ROWS

ROW_STYLES = {
    "kernels": ("#000000", "o"),
    "random": (GREY, "o"),
    "pretrained": (BLUE, "o"),
    "supervised": (ORANGE, "D"),
    "finetuned": (GREEN, "s"),
}
ROW_INCHES, LABEL_WIDTH = 0.27, 34


def plot_comparison(comparison: Mapping) -> Figure:
    """Draws every row of [`~.scores.compare_rows`] with its 95 % interval and its seeds; on the right, where there are
    any, the learning `curves`."""
    rows, curves = comparison["rows"], [curve for curve in comparison["curves"] if curve["points"]]
    groups: dict[tuple[str, float], list[Mapping]] = {}  # a training from scratch: with the first of its methods
    for row in rows:
        groups.setdefault((row["method"].split(", ")[0], row["labelled_fraction"]), []).append(row)
    height = max(2.6, 1.5 + ROW_INCHES * (len(rows) + 1.5 * len(groups)))
    figure = Figure(figsize=(12.5 if curves else 7.5, height), layout="constrained")
    axes, *others = figure.subplots(
        1, 2 if curves else 1, width_ratios=(1.25, 1)[: 2 if curves else 1], squeeze=False
    )[0]
    _draw_rows(axes, groups)
    if curves:
        _draw_curves(others[0], curves, rows)
    handles = [
        Line2D([], [], color=color, marker=marker, linewidth=2, label=ROWS[kind])
        for kind, (color, marker) in ROW_STYLES.items()
        if any(row["row"] == kind for row in rows)
    ]
    handles.append(Line2D([], [], color=GREY, marker="|", linestyle="none", markersize=8, label="one seed"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw_rows(axes: Axes, groups: Mapping[tuple[str, float], Sequence[Mapping]]) -> None:
    position, ticks = 0.0, {}
    for (method, fraction), rows in groups.items():
        name = _wrapped(method) + ("" if fraction == 1 else f"\n({fraction:.0%} of the labels)")
        ticks[position + (len(rows) - 1) / 2] = name
        for row in rows:
            (color, marker), interval = ROW_STYLES[row["row"]], row["macro_auroc_ci95"]
            axes.plot(interval, (position, position), color=color, linewidth=2.2, solid_capstyle="butt")
            if len(row["seeds"]) > 1:
                seeds = [of_seed["macro_auroc"] for of_seed in row["seeds"].values()]
                axes.plot(seeds, [position] * len(seeds), "|", color=color, markersize=9, markeredgewidth=1.1)
            axes.plot(row["macro_auroc"], position, marker, color=color, markersize=6, markeredgecolor="white")
            text = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": color}
            axes.annotate(f"{row['macro_auroc']:.3f}", (interval[1], position), **text)
            position += 1
        axes.axhline(position, color="#e5e5e5", linewidth=0.7)
        position += 1
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.margins(x=0.12)
    axes.set_ylim(position - 0.6, -0.8)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("macro AUROC, 95 % bootstrap interval (0.5 is chance)")
    lighten(axes)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _wrapped(method: str) -> str:
    """A method with its changes, on lines that leave room for the picture."""
    lines = [""]
    for part in method.split(":"):
        joined = f"{lines[-1]}:{part}" if lines[-1] else part
        if len(joined) > LABEL_WIDTH and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(lines)


def _draw_curves(axes: Axes, curves: Sequence[Mapping], rows: Sequence[Mapping]) -> None:
    """Macro AUROC over the records seen: seeds thin, their mean thick; at 0 the random encoder."""
    random = {row["method"]: row["seeds"] for row in rows if row["row"] == "random" and row["labelled_fraction"] == 1}
    for number, method in enumerate(dict.fromkeys(curve["method"] for curve in curves)):
        color, style = CURVE_COLORS[number % len(CURVE_COLORS)], CURVE_STYLES[number % len(CURVE_STYLES)]
        scores: dict[int, list[float]] = {}
        of_method = [curve for curve in curves if curve["method"] == method]
        for curve in of_method:
            points = {0: random[method][str(curve["seed"])]["macro_auroc"]}
            points |= {point["records_seen"]: point["test"] for point in curve["points"]}
            for budget, score in points.items():
                scores.setdefault(budget, []).append(score)
            if len(of_method) > 1:
                axes.plot(list(points), list(points.values()), style, color=color, linewidth=0.7, alpha=0.45)
        budgets = sorted(scores)
        means = [np.mean(scores[budget]) for budget in budgets]
        axes.plot(budgets, means, style, color=color, linewidth=2, marker="o", markersize=3.5, label=_wrapped(method))
    axes.set(xlabel="records seen in pretraining", ylabel="macro AUROC of the frozen features, folds 9 and 10")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    lighten(axes)
    axes.legend(frameon=False, fontsize=8, loc="best")
