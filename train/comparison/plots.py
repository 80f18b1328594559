"""The figure of a comparison: scores with intervals, and learning curves. Plain figures, as in `plots.py`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from ..report.plots import BLUE, CURVE_COLORS, CURVE_STYLES, GREEN, GREY, ORANGE

ROW_STYLES = {
    "kernels": ("#000000", "o", "random kernels, linear"),
    "random": (GREY, "o", "random encoder, linear"),
    "pretrained": (BLUE, "o", "pretrained, linear"),
    "supervised": (ORANGE, "D", "same encoder from scratch on the labels"),
    "finetuned": (GREEN, "s", "pretrained, fine-tuned on the labels"),
}
ROW_INCHES, LABEL_WIDTH = 0.27, 34


def plot_comparison(comparison: Mapping) -> Figure:
    """Draws every row of [`~.scores.compare_rows`] with its 95 % interval and its seeds; on the right, where there are
    any, the learning `curves`."""
    rows = comparison["rows"]
    groups = _groups(rows)
    curves = [curve for curve in comparison["curves"] if curve["points"]]
    height = max(2.6, 1.5 + ROW_INCHES * (len(rows) + 1.5 * len(groups)))
    figure = Figure(figsize=(12.5 if curves else 7.5, height), layout="constrained")
    if curves:
        axes, curve_axes = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _draw_curves(curve_axes, curves, rows)
    else:
        axes = figure.subplots()
    _draw_rows(axes, groups)
    kinds = [kind for kind in ROW_STYLES if any(row["row"] == kind for row in rows)]
    handles = [
        Line2D([], [], color=ROW_STYLES[kind][0], marker=ROW_STYLES[kind][1], linewidth=2, label=ROW_STYLES[kind][2])
        for kind in kinds
    ]
    handles.append(Line2D([], [], color=GREY, marker="|", linestyle="none", markersize=8, label="one seed"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _groups(rows: Sequence[Mapping]) -> dict[tuple[str, float], list[Mapping]]:
    """Rows by method and share of known labels. A training from scratch stands once, with the first of the methods
    that share its encoder."""
    groups: dict[tuple[str, float], list[Mapping]] = {}
    for row in rows:
        groups.setdefault((row["method"].split(", ")[0], row["labelled_fraction"]), []).append(row)
    order = list(ROW_STYLES)
    return {key: sorted(group, key=lambda row: order.index(row["row"])) for key, group in groups.items()}


def _draw_rows(axes: Axes, groups: Mapping[tuple[str, float], Sequence[Mapping]]) -> None:
    position, ticks, labels = 0.0, [], []
    for (method, fraction), rows in groups.items():
        start = position
        for row in rows:
            color, marker, _ = ROW_STYLES[row["row"]]
            axes.plot(row["macro_auroc_ci95"], (position, position), color=color, linewidth=2.2, solid_capstyle="butt")
            seeds = [of_seed["macro_auroc"] for of_seed in row["seeds"].values()]
            if len(seeds) > 1:
                axes.plot(seeds, [position] * len(seeds), "|", color=color, markersize=9, markeredgewidth=1.1)
            axes.plot(row["macro_auroc"], position, marker, color=color, markersize=6, markeredgecolor="white")
            axes.annotate(
                f"{row['macro_auroc']:.3f}",
                (row["macro_auroc_ci95"][1], position),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=color,
            )
            position += 1
        ticks.append((start + position - 1) / 2)
        labels.append(_wrapped(method) + ("" if fraction == 1 else f"\n({fraction:.0%} of the labels)"))
        axes.axhline(position, color="#e5e5e5", linewidth=0.7)
        position += 1
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    low = min(row["macro_auroc_ci95"][0] for rows in groups.values() for row in rows)
    high = max(row["macro_auroc_ci95"][1] for rows in groups.values() for row in rows)
    axes.set_xlim(min(0.5, low) - 0.01, high + 0.12 * (high - min(0.5, low)))
    axes.set_ylim(position - 0.6, -0.8)
    axes.set_yticks(ticks, labels, fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("macro AUROC, 95 % bootstrap interval (0.5 is chance)")
    axes.grid(axis="x", color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


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
    at_start = {
        (row["method"], int(seed)): of_seed["macro_auroc"]
        for row in rows
        if row["row"] == "random" and row["labelled_fraction"] == 1
        for seed, of_seed in row["seeds"].items()
    }
    methods = list(dict.fromkeys(curve["method"] for curve in curves))
    for number, method in enumerate(methods):
        color, style = CURVE_COLORS[number % len(CURVE_COLORS)], CURVE_STYLES[number % len(CURVE_STYLES)]
        by_budget: dict[int, list[float]] = {}
        of_method = [curve for curve in curves if curve["method"] == method]
        for curve in of_method:
            points = [(0, at_start[method, curve["seed"]])]
            points += [(point["records_seen"], point["test"]) for point in curve["points"]]
            for budget, score in points:
                by_budget.setdefault(budget, []).append(score)
            if len(of_method) > 1:
                axes.plot(*np.array(points).T, style, color=color, linewidth=0.7, alpha=0.45)
        means = np.array([(budget, np.mean(scores)) for budget, scores in sorted(by_budget.items())])
        axes.plot(*means.T, style, color=color, linewidth=2, marker="o", markersize=3.5, label=_wrapped(method))
    axes.set_xlabel("records seen in pretraining")
    axes.set_ylabel("macro AUROC of the frozen features, folds 9 and 10")
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda count, _: f"{count / 1000:g}k" if count >= 1000 else f"{count:g}")
    )
    axes.set_xlim(left=0)
    axes.grid(color="#eeeeee", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
