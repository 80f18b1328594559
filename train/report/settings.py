"""Sections and charts of the settings: few labels, fewer leads, noise, other rates, units and lengths. Baselines
stand beside the encoder."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecg_transformers.data.corpora.nstdb import NOISES

from ..results import PRETRAINED, kind_of
from .figures import CHART_INCHES
from .page import ReportFigure, Section
from .plots import BLUE, GREY, ORANGE, lighten
from .tables import scored_entries, setting_table

SETTING_WORDS = {
    "low_shot": (
        "Few labels",
        "The protocol linear, trained on a part of the training records. Validation and test split stay whole.",
    ),
    "leads": (
        "Fewer leads",
        "The protocol linear, trained, chosen and tested on recordings with these leads alone; the others are removed "
        "from the recording, not set to zero.",
    ),
    "noise": (
        "Noise",
        "The protocol linear, trained on clean records, on test records with recorded noise (MIT-BIH Noise Stress "
        "Test Database) added at fixed signal-to-noise ratios.",
    ),
    "sampling_rate": ("Other sampling rates", "The protocol linear, on test records at other sampling rates."),
    "unit": ("Other units", "The protocol linear, on test records whose values are written in other units."),
    "length": ("Other lengths", "The protocol linear, on test records of other lengths."),
}
DRAWN_SETTINGS = ("low_shot", "leads", "noise")
"""The others have a table alone."""
MOST_OPEN_ROWS = 8
ENCODER_STYLES = {
    "random_encoder": (GREY, "--o", "random encoder"),
    "random_kernels": (ORANGE, ":^", "1,200 random kernels"),
    "pretrained": (BLUE, "-s", "pretrained encoder"),
}
CLEAN = "clean"


def setting_sections(settings: Mapping[str, Sequence[Mapping]], with_figures: bool = True) -> list[Section]:
    """A section for each setting that was run."""
    sections = []
    for name, entries in settings.items():
        if not entries:
            continue
        title, intro = SETTING_WORDS.get(name, (name.replace("_", " ").capitalize(), ""))
        figures, scores = [], scored_entries(entries)
        if with_figures and name in DRAWN_SETTINGS and len(scores) > 1:
            figure, caption = _draw(name, scores)
            figures.append(ReportFigure.draw(figure, title, caption, f"{title}: {caption}", wide=name == "noise"))
        table = setting_table(entries, f"{title}.", NOISES if name == "noise" else {})
        is_long = len(entries) > MOST_OPEN_ROWS
        details = [Section(f"Table of {len(entries)} rows", tables=(table,))] if is_long else []
        tables = () if is_long else (table,)
        sections.append(Section(title, (intro,), tables, figures=figures, details=details))
    return sections


def _draw(name: str, entries: Sequence[Mapping]) -> tuple[Figure, str]:
    if name == "low_shot":
        return plot_low_shot(entries), "Mean over the draws with their standard deviation; short lines are the draws."
    if name == "noise":
        return plot_noise(entries, NOISES), (
            "The less signal, the further right. Bands are 95 % intervals; dotted lines are the scores without noise."
        )
    return plot_names(entries), "Score with its 95 % interval."


def styles_of(entries: Sequence[Mapping]) -> list[tuple[str, tuple[str, str, str], float]]:
    """Key, style and place (-1 to 1) of the encoders that every entry has."""
    found = [key for key in ENCODER_STYLES if all(key in entry for entry in entries)]
    return [(key, ENCODER_STYLES[key], 2 * place / (len(found) - 1 or 1) - 1) for place, key in enumerate(found)]


def plot_low_shot(entries: Sequence[Mapping]) -> Figure:
    """Score over the share of training records: mean and standard deviation of the draws, and each draw."""
    kind = kind_of(entries[0][PRETRAINED])
    score = kind.score
    figure = Figure(figsize=(CHART_INCHES, 3.9), layout="constrained")
    axes = figure.add_subplot()
    fractions = np.array([entry["value"] for entry in entries], dtype=float)
    for encoder, (color, style, name), side in styles_of(entries):
        places = fractions * 1.04**side
        for place, entry in zip(places, entries, strict=True):
            draws = entry[encoder].get("draws", [])
            axes.plot([place] * len(draws), draws, "_", color=color, markersize=8, alpha=0.7)
        means = [entry[encoder][score] for entry in entries]
        spread = [entry[encoder].get(f"{score}_sd", 0.0) for entry in entries]
        axes.errorbar(
            places, means, spread, fmt=style, color=color, markersize=5, capsize=3, linewidth=1.6, label=name
        )
    axes.set_xscale("log")
    axes.set_xticks(fractions, [f"{100 * fraction:g} %" for fraction in fractions])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="share of the training records", ylabel=kind.title)
    axes.margins(x=0.08)
    lighten(axes)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure


def plot_names(entries: Sequence[Mapping]) -> Figure:
    """Score of each setting that has a name (sets of leads), one below the other, with its 95 % interval."""
    kind = kind_of(entries[0][PRETRAINED])
    score = kind.score
    figure = Figure(figsize=(CHART_INCHES, 1.3 + 0.5 * len(entries)), layout="constrained")
    axes = figure.add_subplot()
    for encoder, (color, style, name), side in styles_of(entries):
        for row, entry in enumerate(entries):
            scores, place = entry[encoder], row + 0.15 * side
            axes.plot(scores[f"{score}_ci95"], (place, place), color=color, linewidth=1.8)
            marker = {"color": color, "markersize": 6, "linestyle": "none"}
            axes.plot(scores[score], place, style[-1], label=name if row == 0 else None, **marker)
    axes.set_yticks(range(len(entries)), [str(entry["value"]) for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_xlabel(f"{kind.title}, 95 % interval")
    lighten(axes)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure


def plot_noise(entries: Sequence[Mapping], kinds: Mapping[str, str]) -> Figure:
    """Score over the signal-to-noise ratio, a plot a kind of noise, which is the `group` of its entries; the flat line
    is the score without noise."""
    kind = kind_of(entries[0][PRETRAINED])
    clean = [entry for entry in entries if entry["value"] == CLEAN]
    groups = list(dict.fromkeys(entry["group"] for entry in entries if entry["value"] != CLEAN))
    figure = Figure(figsize=(max(5.0, 3.1 * len(groups)), 3.8), layout="constrained")
    for number, (axes, group) in enumerate(
        zip(figure.subplots(1, len(groups), sharey=True, squeeze=False)[0], groups, strict=True)
    ):
        _draw_noise(
            axes, [entry for entry in entries if entry["group"] == group], clean, kind.score, is_named=number == 0
        )
        axes.set_title(kinds.get(group, str(group)), fontsize=10)
        axes.set_xlabel("signal-to-noise ratio (dB)")
        if number == 0:
            axes.set_ylabel(kind.title)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure


def _draw_noise(axes: Axes, entries: Sequence[Mapping], clean: Sequence[Mapping], score: str, is_named: bool) -> None:
    entries = sorted(entries, key=lambda entry: -entry["value"])
    ratios = np.array([entry["value"] for entry in entries], dtype=float)
    for encoder, (color, style, name), _ in styles_of([*entries, *clean]):
        low, high = np.array([entry[encoder][f"{score}_ci95"] for entry in entries]).T
        axes.fill_between(ratios, low, high, color=color, alpha=0.15, linewidth=0)
        values = [entry[encoder][score] for entry in entries]
        axes.plot(ratios, values, style, color=color, markersize=4, linewidth=1.6, label=name if is_named else None)
        for entry in clean:
            axes.axhline(entry[encoder][score], color=color, linewidth=0.9, linestyle=":")
    axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axes.invert_xaxis()
    lighten(axes)
