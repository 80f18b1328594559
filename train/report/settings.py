"""Sections and charts of the settings: few labels, fewer leads, noise, other rates, units and lengths. Baselines
stand beside the encoder."""

from collections.abc import Mapping, Sequence

import numpy as np
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
DRAWN_SETTINGS = {
    "low_shot": ("share of the training records", "Means over the draws with 95 % intervals; short lines are draws."),
    "leads": ("leads", "Scores with 95 % intervals."),
    "noise": ("signal-to-noise ratio (dB)", "Scores with 95 % intervals; dotted lines are the scores without noise."),
}
"""Name of the axis, and caption. The others have a table alone."""
MOST_OPEN_ROWS = 8
ENCODER_STYLES = {
    "random_encoder": (GREY, "--o", "random encoder"),
    "random_kernels": (ORANGE, ":^", "1,200 random kernels"),
    "pretrained": (BLUE, "-s", "pretrained encoder"),
}
CLEAN = "clean"


def setting_sections(settings: Mapping[str, Sequence[Mapping]]) -> list[Section]:
    """A section for each setting that was run."""
    sections = []
    for name, entries in settings.items():
        if not entries:
            continue
        title, intro = SETTING_WORDS.get(name, (name.replace("_", " ").capitalize(), ""))
        figures, scores = [], scored_entries(entries)
        if name in DRAWN_SETTINGS and len(scores) > 1:
            caption = DRAWN_SETTINGS[name][1]
            figure = plot_setting(name, scores)
            figures.append(ReportFigure(figure, title, caption, f"{title}: {caption}", wide=name == "noise"))
        table = setting_table(entries, f"{title}.", NOISES if name == "noise" else {})
        is_long = len(entries) > MOST_OPEN_ROWS
        details = [Section(f"Table of {len(entries)} rows", tables=(table,))] if is_long else []
        sections.append(Section(title, (intro,), () if is_long else (table,), figures=figures, details=details))
    return sections


def plot_setting(setting: str, entries: Sequence[Mapping]) -> Figure:
    """Score over the values of a setting, with 95 % intervals and the draws, a plot for each `group` of entries (kinds
    of noise); the score of the unchanged records is a flat line."""
    kind, clean = kind_of(entries[0][PRETRAINED]), [entry for entry in entries if entry["value"] == CLEAN]
    groups: dict[str | None, list[Mapping]] = {}
    for entry in (entry for entry in entries if entry not in clean):
        groups.setdefault(entry.get("group"), []).append(entry)
    encoders = [key for key in ENCODER_STYLES if all(key in entry for entry in entries)]
    figure = Figure(figsize=(max(CHART_INCHES, 3.1 * len(groups)), 3.9), layout="constrained")
    plots = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (group, of_group) in zip(plots, groups.items(), strict=True):
        has_names = setting == "leads"
        of_group = of_group if has_names else sorted(of_group, key=lambda entry: entry["value"])
        values = [entry["value"] for entry in of_group]
        places = np.arange(len(values)) if has_names else np.array(values, dtype=float)
        for number, key in enumerate(encoders):
            color, style, name = ENCODER_STYLES[key]
            side = number - (len(encoders) - 1) / 2  # so that intervals lie side by side
            beside = {"low_shot": places * 1.05**side, "leads": places + 0.14 * side}.get(setting, places)
            scores = [entry[key] for entry in of_group]
            low, high = np.array([of_entry[f"{kind.score}_ci95"] for of_entry in scores]).T
            axes.vlines(beside, low, high, color=color, linewidth=1.6, alpha=0.6)
            for place, of_entry in zip(beside, scores, strict=True):
                draws = of_entry.get("draws", [])
                axes.plot([place] * len(draws), draws, "_", color=color, markersize=7, alpha=0.7)
            line = style[-1] if has_names else style
            means, label = [of_entry[kind.score] for of_entry in scores], name if axes is plots[0] else None
            axes.plot(beside, means, line, color=color, markersize=4.5, linewidth=1.6, label=label)
            for entry in clean:
                axes.axhline(entry[key][kind.score], color=color, linewidth=0.9, linestyle=":")
        if setting == "low_shot":
            axes.set_xscale("log")
            axes.set_xticks([], minor=True)
        if setting == "noise":
            axes.invert_xaxis()
            axes.set_title(NOISES.get(group, str(group)), fontsize=10)
        axes.set_xticks(places, [f"{100 * value:g} %" if setting == "low_shot" else str(value) for value in values])
        axes.set_xlabel(DRAWN_SETTINGS[setting][0])
        axes.margins(x=0.08)
        lighten(axes)
    plots[0].set_ylabel(kind.title)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure
