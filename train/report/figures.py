"""Charts of results: bars of each label, ROC and precision-recall curves, reliability, errors of a regression.

Plain [`matplotlib.figure.Figure`] objects in the colours of [`~ecg_transformers.train.report.plots`]; line styles and
markers repeat what colours say. The areas under the drawn curves are the numbers of the tables: labels and records are
left out by the rule of [`~ecg_transformers.train.predictions.evaluate_predictions`], and means over labels keep the
jumps of their curves.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expit, logit, softmax
from sklearn.metrics import precision_recall_curve, roc_curve

from ..evaluate_metrics.calibration_scores import reliability_curve
from ..metrics import excluded_labels
from ..predictions import CLOSEST_PROBABILITY, ProtocolResult
from ..results import SINGLE_LABEL, Side, decapitalized
from .plots import BLUE, CURVE_COLORS, CURVE_STYLES, GREY, LIGHT_GREY, ORANGE, lighten

Curve = tuple[np.ndarray, np.ndarray]
BASELINE_COLORS = (LIGHT_GREY, CURVE_COLORS[5], ORANGE)
MOST_NAMED_CURVES = 12
"""More labels than that are drawn as thin grey lines: nobody reads a legend of 71 names."""
ROW_INCHES, NARROW_ROW_INCHES = 0.42, 0.26  # of a label, and of one among many
CHART_INCHES = 4.9
"""Width of a chart: two of them side by side on a desk, one at nearly its own size on a phone."""


def plot_label_bars(sides: Sequence[Side]) -> Figure:
    """AUROC of each label and the macro mean, one below the other, with 95 % intervals; bars start at 0.5, chance. The
    encoder is the last of the sides."""
    names = list(sides[-1].scores["per_class"])
    is_crowded = len(names) >= 2 * MOST_NAMED_CURVES
    row_inches, font_size = (NARROW_ROW_INCHES, 6) if is_crowded else (ROW_INCHES, 8)
    row_inches *= max(1, len(sides) / 2)  # of two bars
    figure = Figure(figsize=(CHART_INCHES, 1.2 + row_inches * (1 + len(names))), layout="constrained")
    axes = figure.add_subplot()
    thickness, lowest = 0.8 / len(sides), 0.5
    for number, (side, color) in enumerate(zip(sides, [*BASELINE_COLORS[: len(sides) - 1], BLUE], strict=True)):
        scores, intervals = side.scores["per_class"], side.scores["per_class_ci95"]
        drawn = [(side.scores["macro_auroc"], side.scores["macro_auroc_ci95"])]
        drawn += [(scores.get(name), intervals.get(name)) for name in names]
        for row, (value, bounds) in enumerate(drawn):
            if value is None or bounds is None:
                continue
            place = row + (number - (len(sides) - 1) / 2) * thickness
            label = decapitalized(side.name) if row == 0 else None
            axes.barh(place, value - 0.5, 0.92 * thickness, left=0.5, color=color, label=label)
            axes.plot(bounds, (place, place), color="white", linewidth=3.2, solid_capstyle="butt")
            axes.plot(bounds, (place, place), color="black", linewidth=1.2, solid_capstyle="butt")
            axes.text(max(value, bounds[1]) + 0.006, place, f"{value:.3f}", va="center", fontsize=font_size)
            lowest = min(lowest, value, bounds[0])
    axes.axvline(0.5, color="black", linewidth=0.8)
    axes.set_yticks(range(1 + len(names)), ["macro", *names], fontsize=font_size + 1.5)
    axes.set(xlim=(np.floor((lowest - 0.01) * 20) / 20, 1.09), ylim=(len(names) + 0.5, -0.5))
    axes.set_xticks(np.arange(np.ceil(axes.get_xlim()[0] * 10 - 1e-9) / 10, 1.01, 0.1))
    axes.set_xlabel("AUROC (0.5 is chance)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure


def evaluated_test(result: ProtocolResult) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, labels (0 or 1) and scores `(num_records, num_labels)` of the test split, of the labels that both
    training and test split have examples of."""
    names = list(result.label_names)
    left_out = {*excluded_labels(result.train_labels, names), *excluded_labels(result.test.labels, names)}
    columns = [column for column, name in enumerate(names) if name not in left_out]
    return [names[column] for column in columns], result.test.labels[:, columns], result.test.scores[:, columns]


def plot_roc(result: ProtocolResult) -> Figure:
    """ROC curves of each label of the test split, and their mean: the areas are the AUROCs of the tables."""
    names, labels, scores = evaluated_test(result)
    curves = [roc_curve(*of_label)[:2] for of_label in zip(labels.T, scores.T, strict=True)]
    figure, axes = _draw_curves(names, curves, mean_roc(curves))
    axes.plot((0, 1), (0, 1), ":", color=GREY, linewidth=1)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    return figure


def mean_roc(curves: Sequence[Curve]) -> Curve:
    """The mean true positive rate over the labels at each false positive rate, before and after its jump: the area is
    the macro AUROC."""
    rates = np.repeat(np.unique(np.concatenate([rates for rates, _ in curves])), 2)
    around = np.nextafter(rates, np.tile((-1.0, 2.0), len(rates) // 2))
    return rates, np.mean([np.interp(around, *curve) for curve in curves], axis=0)


def plot_precision_recall(result: ProtocolResult) -> Figure:
    """Precision over recall of each label of the test split, and their mean: the areas of the steps are the AUPRCs of
    the tables. Chance is the mean share of positives."""
    names, labels, scores = evaluated_test(result)
    points = [precision_recall_points(*of_label) for of_label in zip(labels.T, scores.T, strict=True)]
    figure, axes = _draw_curves(names, [_steps(*curve) for curve in points], _steps(*mean_precision_recall(points)))
    share = labels.mean()
    axes.axhline(share, linestyle=":", color=GREY, linewidth=1)
    axes.annotate("chance", (1, share), xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=8)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)")
    return figure


def precision_recall_points(labels: np.ndarray, scores: np.ndarray) -> Curve:
    """Recall, rising, and the precision where each is first reached; the steps enclose the average precision."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    recalls, first = np.unique(recall[::-1], return_index=True)  # of one recall, that of the highest threshold
    return recalls[1:], precision[::-1][first][1:]


def mean_precision_recall(curves: Sequence[Curve]) -> Curve:
    """The mean precision over the labels at each recall: the area of its steps is the macro average precision."""
    grid = np.unique(np.concatenate([recall for recall, _ in curves]))
    return grid, np.mean([precision[np.searchsorted(recall, grid)] for recall, precision in curves], axis=0)


def _steps(recall: np.ndarray, precision: np.ndarray) -> Curve:
    """Corners of the steps whose area is the average precision: each precision reaches back to the recall before."""
    return np.repeat(np.concatenate([[0.0], recall]), 2)[1:-1], np.repeat(precision, 2)


def _draw_curves(names: Sequence[str], curves: Sequence[Curve], mean: Curve) -> tuple[Figure, Axes]:
    """A line a label, named where there are few of them, and the mean in black."""
    is_named = len(names) <= MOST_NAMED_CURVES
    legend = 0.2 * np.ceil((len(names) + 1) / 3) if is_named else 0.2
    figure = Figure(figsize=(CHART_INCHES, CHART_INCHES + legend), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    lighten(axes)
    for number, (name, curve) in enumerate(zip(names, curves, strict=True)):
        color, style = CURVE_COLORS[number % len(CURVE_COLORS)], CURVE_STYLES[number % len(CURVE_STYLES)]
        if is_named:
            axes.plot(*curve, style, color=color, linewidth=1.5, label=name)
        else:
            label = "one label" if number == 0 else None
            axes.plot(*curve, color=LIGHT_GREY, linewidth=0.6, alpha=0.7, label=label)
    axes.plot(*mean, color="black", linewidth=2.4, label="macro mean")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure, axes


def plot_reliability(result: ProtocolResult, temperature: float | None) -> Figure:
    """Observed frequency against predicted probability, before and after temperature scaling; below, the counts."""
    figure = Figure(figsize=(CHART_INCHES, 5.4), layout="constrained")
    axes, count_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    axes.plot((0, 1), (0, 1), ":", color=GREY, linewidth=1, label="perfectly calibrated")
    shown = [("before scaling", None, ORANGE, "--o")]
    if temperature is not None:
        shown.append((f"after scaling (T = {temperature:.3g})", temperature, BLUE, "-s"))
    for number, (label, divisor, color, style) in enumerate(shown):
        points = reliability_points(result, divisor)
        counts, filled = points["count"], points["count"] > 0
        line = points["probability"][filled], points["frequency"][filled]
        axes.plot(*line, style, color=color, markersize=5, label=label)
        edges = (np.arange(len(counts)) + 0.1 + 0.4 * number) / len(counts)
        count_axes.bar(edges, counts, 0.4 / len(counts), align="edge", color=color)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), ylabel="how often it was so")
    count_axes.set(xlabel="predicted probability", ylabel="predictions")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    for each in (axes, count_axes):
        lighten(each)
    return figure


def reliability_points(result: ProtocolResult, temperature: float | None = None) -> dict[str, np.ndarray]:
    """Observed frequency against predicted probability, in bins of [`reliability_curve`], for all evaluated labels
    together, or with one label a record for its most probable class. The logits are divided by `temperature`."""
    if result.problem_type == SINGLE_LABEL:
        logits = np.log(np.maximum(result.test.scores, CLOSEST_PROBABILITY))
        scores = softmax(logits / (temperature or 1.0), axis=1)
        correct = result.test.labels.argmax(axis=1) == scores.argmax(axis=1)
        return reliability_curve(correct.astype(float), scores.max(axis=1))
    _, labels, scores = evaluated_test(result)
    if temperature is not None:
        scores = expit(logit(np.clip(scores, CLOSEST_PROBABILITY, 1 - CLOSEST_PROBABILITY)) / temperature)
    return reliability_curve(labels.ravel(), scores.ravel())


def plot_errors(result: ProtocolResult, column: int) -> Figure:
    """A target of a regression: prediction against truth, and their difference against their mean (Bland-Altman)."""
    truth, predicted = result.test.labels[:, column], result.test.scores[:, column]
    difference, mean = predicted - truth, (predicted + truth) / 2
    bias, deviation = difference.mean(), difference.std(ddof=1) if len(difference) > 1 else 0.0
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes, bland_altman = figure.subplots(1, 2)
    ends = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
    axes.plot(ends, ends, ":", color=GREY, linewidth=1)
    dots = {"markersize": 3.5, "alpha": 0.6, "color": BLUE, "markeredgewidth": 0}
    axes.plot(truth, predicted, "o", **dots)
    axes.set(xlabel=f"truth: {result.label_names[column]}", ylabel="prediction", aspect="equal")
    bland_altman.plot(mean, difference, "o", **dots)
    note = {"xycoords": ("axes fraction", "data"), "xytext": (-2, 3), "textcoords": "offset points"}
    for value, style, name in (
        (bias, "-", "bias"),
        (bias + 1.96 * deviation, "--", "+1.96 SD"),
        (bias - 1.96 * deviation, "--", "-1.96 SD"),
    ):
        bland_altman.axhline(value, linestyle=style, color=ORANGE, linewidth=1.2)
        bland_altman.annotate(f"{name} {value:+.3g}", (1, value), ha="right", fontsize=8, color="#9a4300", **note)
    bland_altman.set(xlabel="mean of prediction and truth", ylabel="prediction minus truth")
    bland_altman.margins(y=0.15)
    for each in (axes, bland_altman):
        lighten(each)
    return figure
