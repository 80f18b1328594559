"""Sections of the settings: few labels, fewer leads, noise, other rates, units and lengths."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ecg_transformers.data.corpora.nstdb import NOISES

from .page import ReportFigure, Section
from .setting_figures import plot_low_shot, plot_names, plot_noise
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
        table = setting_table(entries, f"{title}.", NOISES if name == "noise" else None)
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
