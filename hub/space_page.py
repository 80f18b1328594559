"""The page of a Space without gradio: from the choice of a recording to pieces of HTML, all escaped.

Errors of the library are sentences, and are shown; of anything else the page says that it failed, and only the kind
and the place go to the log, because messages may quote the recording.
"""

import logging
import os
import re
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ecg_transformers.data import EcgRecord
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.pipeline_ecg import MULTI_LABEL, REGRESSION
from ecg_transformers.train.features import EmbeddingTable
from ecg_transformers.train.report.ecg_paper import fit_to_paper, plot_ecg_paper, plot_recording
from ecg_transformers.train.report.labels import SUPERCLASSES
from ecg_transformers.train.report.plots import figure_to_data_uri

from .space_model import NeighbourIndex, SpaceModel, sample_rows
from .space_uploads import Declaration, read_upload

logger = logging.getLogger("ecg_transformers.space")

METHODS = {"Integrated gradients": "integrated_gradients", "Attention rollout": "attention_rollout"}
SHOWN_SECONDS = 10.0
FAILED = "Something went wrong here. It has been noted, without your recording; please try another one."
LONGEST_SENTENCE, LONGEST_NAME = 500, 120
NEIGHBOUR_LEADS, NEIGHBOUR_SECONDS = ("II", "V2"), 5.0

CSS = """
.gradio-container {max-width: 1180px !important; margin: 0 auto !important;}
footer {display: none !important;}
.ecg-banner, .ecg-error {border-radius: 8px; padding: 10px 14px; font-size: 15px; line-height: 1.45;}
.ecg-banner {background: #fff4de; color: #5b3b00; border: 1px solid #efcf8f;}
.ecg-error {background: #fdecea; color: #7a1410; border: 1px solid #f0b3ae;}
.ecg-quality {margin: 4px 0 10px;}
.ecg-quality ul {margin: 4px 0 0; padding-left: 20px;}
.ecg-notes {color: var(--body-text-color); opacity: 0.75; font-size: 14px; margin: 2px 0 8px;}
.ecg-paper {overflow-x: auto; background: white; border: 1px solid var(--border-color-primary); border-radius: 8px;
    contain: inline-size; max-width: calc(100vw - 40px);}
.ecg-paper img {display: block; width: 100%; min-width: var(--least); height: auto; margin: 0;}
.ecg-hint {display: none;}
@media (max-width: 700px) {.ecg-hint {display: block;}}
.ecg-scores {width: 100%; border-collapse: collapse; font-size: 15px;}
.ecg-scores, .ecg-scores tr, .ecg-scores td {border: none !important;}
.ecg-scores td {padding: 5px 8px 5px 0; vertical-align: middle;}
.ecg-scores .label {font-weight: 600; width: 1%; white-space: nowrap; max-width: 45vw; overflow: hidden;
    text-overflow: ellipsis;}
.ecg-scores .label small {font-weight: 400; opacity: 0.75; margin-left: 6px;}
.ecg-scores .number {text-align: right; width: 1%; white-space: nowrap; padding-right: 0;
    font-variant-numeric: tabular-nums;}
.ecg-bar {position: relative; height: 14px; border-radius: 4px; background: var(--border-color-primary);}
.ecg-bar b {position: absolute; left: 0; top: 0; bottom: 0; border-radius: 4px; background: #9bb8cc;}
.ecg-bar b.above {background: #1f6f9f;}
.ecg-bar i {position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--body-text-color);}
.ecg-neighbours {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); gap: 14px;}
.ecg-neighbours figure {margin: 0;}
.ecg-neighbours figcaption {display: flex; justify-content: space-between; gap: 10px; font-size: 14px;
    margin-top: 4px;}
@media (max-width: 700px) {.ecg-scores .label small {display: block; margin-left: 0; white-space: normal;}}
"""


@dataclass(frozen=True)
class Shown:
    """The recording of a visitor, and whether missing leads are masked."""

    record: EcgRecord
    mask_missing_leads: bool
    name: str


class SpacePage:
    """Actions of the page, as functions from inputs to HTML; nothing here needs gradio. `read` reads uploads."""

    def __init__(self, model: SpaceModel, neighbours: NeighbourIndex, read: Callable[..., EcgRecord] = read_upload):
        self.model, self.neighbours, self.read = model, neighbours, read
        self.samples = {self._sample_name(row): row for row in sample_rows()}
        self.lock = threading.Lock()  # one recording at a time: models take all cores that there are

    @staticmethod
    def _sample_name(row: dict) -> str:
        return f"{row['record_id']} · {describe_labels(row['labels'])}"

    def open_sample(self, name: str) -> Shown:
        row = self.samples[name]
        record = EcgRecord.from_row({"record_id": row["record_id"], "ecg": row["ecg"]})
        return Shown(record, False, f"PTB-XL {name}")

    def open_upload(self, paths: list[str] | None, mask_missing_leads: bool, declared: Declaration) -> Shown:
        return Shown(self.read(paths, declared), mask_missing_leads, "Your recording")

    def trace(self, shown: Shown) -> str:
        """Notes on the recording, and its start on ECG paper; for an encoder also oddities of the recording."""
        notes = self.model.check(shown.record, shown.mask_missing_leads)
        seconds = shown.record.signal.shape[1] / shown.record.sampling_rate
        if seconds > SHOWN_SECONDS:
            notes.append(f"Drawn: the first {SHOWN_SECONDS:g} s.")
        signal_mv, leads = _in_usual_order(shown.record)
        figure = plot_recording(signal_mv, leads, shown.record.sampling_rate, shown.name, SHOWN_SECONDS)
        picture = picture_html(figure, f"{shown.name} on ECG paper")
        if self.model.is_classifier:
            return notes_html(notes) + picture
        checks = self.model.checks(shown.record, shown.mask_missing_leads)
        return notes_html(notes) + picture + quality_html(checks["findings"])

    def scores(self, shown: Shown) -> tuple[str, str | None]:
        """Oddities of the recording, the bars, and the class with the highest score."""
        if not self.model.is_classifier:
            return "", None
        scores = self.model.scores(shown.record, shown.mask_missing_leads)
        problem_type = self.model.model.config.problem_type
        calibration = self.model.calibration_of(shown.record, shown.mask_missing_leads)
        return scores_html(scores, problem_type, calibration, shown.name), scores[0]["label"]

    def explanation(self, shown: Shown, method: str, target: str | None) -> str:
        """The map of what the output depends on, over all leads."""
        found = self.model.explain(shown.record, METHODS[method], target, shown.mask_missing_leads)
        what = f"{method} of {found.target}" if found.target else method
        return picture_html(found.plot(seconds=SHOWN_SECONDS), f"{what}, {shown.name}", 800)

    def nearest(self, shown: Shown) -> str:
        features = self.model.features(shown.record, shown.mask_missing_leads)
        return neighbours_html(self.neighbours.nearest(features), shown.name)

    def piece(self, work: Callable[..., str], shown: Shown | None, *given) -> str:
        """A piece of HTML, or the sentence that says why there is none; nothing without a recording."""
        return "" if shown is None else "".join(filter(None, self.alone(work, shown, *given)))

    def alone(self, work: Callable, *given) -> tuple[Any, str]:
        """[`guarded`], while nothing else is done: for what asks the model."""
        with self.lock:
            return self.guarded(work, *given)

    def guarded(self, work: Callable, *given) -> tuple[Any, str]:
        """The result of some work and an empty message, or `None` and one sentence."""
        try:
            return work(*given), ""
        except ValueError as error:
            return None, message_html(" ".join(str(error).split()))
        except Exception as error:  # the one place where a trace-back becomes a sentence
            place = traceback.extract_tb(error.__traceback__)[-1]
            logger.error("%s in %s, line %d", type(error).__name__, place.filename, place.lineno)
            return None, message_html(FAILED)


def load_page(
    model: str | os.PathLike, neighbours: str | os.PathLike, revision: str | None = None, **given
) -> SpacePage:
    """The model and the index that `ecg-transformers space` wrote; `given` as in [`SpacePage`]."""
    index = NeighbourIndex(EmbeddingTable.load(Path(neighbours)))
    return SpacePage(SpaceModel.load(model, revision), index, **given)


def _in_usual_order(record: EcgRecord) -> tuple[np.ndarray, list[str]]:
    """Signal in mV and leads; standard leads first and as doctors order them."""
    places = {lead: place for place, lead in enumerate(STANDARD_LEADS)}
    order = sorted(range(len(record.leads)), key=lambda n: places.get(record.leads[n], len(places)))
    return record.to_millivolts()[order], [record.leads[n] for n in order]


# --- HTML ---------------------------------------------------------------------------------------------------------


def markdown_text(text: str) -> str:
    """A name for a Markdown page, as it is and on one line: no link, tag or heading is in it; a long one is cut."""
    line = _cut(" ".join(str(text).split()), LONGEST_NAME)
    return re.sub(r"[^\w .,/+-]", lambda sign: f"&#{ord(sign[0])};", line).replace("_", "&#95;")


def message_html(sentence: str) -> str:
    """The place of an error. Names in a file may be as long as the file: it is cut."""
    return f'<div class="ecg-error" role="alert">{escape(_cut(sentence))}</div>'


def _cut(sentence: str, most: int = LONGEST_SENTENCE) -> str:
    return sentence if len(sentence) <= most else sentence[: most - 1] + "…"


def notes_html(sentences: Sequence[str]) -> str:
    return f'<p class="ecg-notes">{escape(" ".join(sentences))}</p>'


def picture_html(figure: Figure, alt: str, least_pixels: int = 700) -> str:
    """A figure in a frame that scrolls where the screen is narrower than `least_pixels`."""
    return (
        f'<div class="ecg-paper" tabindex="0">{_image(figure, alt, 110, least_pixels)}</div>'
        '<p class="ecg-notes ecg-hint">Swipe sideways to see all of it.</p>'
    )


def scores_html(
    scores: Sequence[Mapping[str, Any]], problem_type: str, calibration: Mapping[str, Any] | None, name: str
) -> str:
    """The output of `pipeline("ecg-classification")` as bars, with what it is and what it is not."""
    box = quality_html(scores[0].get("quality", []))
    if problem_type == REGRESSION:
        rows = "".join(f"<tr>{_label(row)}{_number(format(row['score'], '.3g'))}</tr>" for row in scores)
        return box + _table(rows, name) + notes_html(["In the units that the names state."])
    is_off = all(row.get("above_threshold", False) is None for row in scores)
    thresholds = {} if is_off else (calibration or {}).get("thresholds") or {}
    rows = ""
    for row in scores:
        kind = "below" if is_off or row.get("above_threshold", True) is False else "above"
        mark = f'<i style="left: {thresholds[row["label"]]:.2%}"></i>' if row["label"] in thresholds else ""
        bar = f'<div class="ecg-bar"><b class="{kind}" style="width: {row["score"]:.2%}"></b>{mark}</div>'
        rows += f"<tr>{_label(row)}<td>{bar}</td>{_number(format(row['score'], '.1%'))}</tr>"
    notes = ["Each class is predicted by itself; they need not sum to 100 %."] if problem_type == MULTI_LABEL else []
    if is_off:
        notes.append("No class is above a threshold: see what was found in the recording.")
    if calibration is None:
        notes.append("Not calibrated: they rank recordings, but are no probabilities.")
    elif not is_off:
        notes.append(f"Calibrated by temperature {calibration['temperature']:.2f}, found on the validation split.")
    if thresholds:
        notes.append("The upright mark is the threshold that was best there; dark bars are above it.")
    return box + _table(rows, name) + notes_html(notes)


def quality_html(quality: Sequence[Mapping[str, Any]]) -> str:
    """The red box of findings in a recording, by `quality` of a row; empty for a clean one."""
    if not quality:
        return ""
    is_lost = any(finding["name"] == "no_signal" for finding in quality)
    head = "There is no signal, so that the model can say nothing." if is_lost else "Look at the recording first."
    sentences = "".join(f"<li>{escape(_cut(finding['sentence']))}</li>" for finding in quality)
    return f'<div class="ecg-error ecg-quality" role="alert"><strong>{head}</strong><ul>{sentences}</ul></div>'


def neighbours_html(neighbours: Sequence[tuple[Mapping[str, Any], float]], name: str) -> str:
    """Cards of small traces, with labels and distance."""
    cards = ""
    for row, distance in neighbours:
        labels = describe_labels(row["labels"])
        alt = f"Leads {' and '.join(NEIGHBOUR_LEADS)} of record {row['record_id']}"
        cards += (
            f'<figure><div class="ecg-paper">{_image(_small_trace(row["ecg"]), alt, 100, 0)}</div><figcaption>'
            f"<span><strong>{escape(labels)}</strong><br>PTB-XL {escape(row['record_id'])}</span>"
            f"<span>distance {distance:.2f}</span></figcaption></figure>"
        )
    return f'<div class="ecg-neighbours" role="group" aria-label="Near to {escape(name)}">{cards}</div>'


def describe_labels(labels: Sequence[str]) -> str:
    """`"CD, HYP"`, or in words where there is one."""
    words = SUPERCLASSES.get(labels[0]) if len(labels) == 1 else None
    return f"{labels[0]}: {words}" if words else ", ".join(labels) or "no diagnostic label"


def _small_trace(ecg: Mapping[str, Any]) -> Figure:
    signal = np.asarray(ecg["signal"])[:, : round(NEIGHBOUR_SECONDS * ecg["sampling_rate"])]
    chosen = [list(ecg["leads"]).index(lead) for lead in NEIGHBOUR_LEADS]
    shown, _ = fit_to_paper(signal[chosen], NEIGHBOUR_LEADS)
    return plot_ecg_paper(shown, NEIGHBOUR_LEADS, ecg["sampling_rate"])


def _image(figure: Figure, alt: str, dpi: int, least_pixels: int) -> str:
    return (
        f'<img style="--least: {least_pixels}px" alt="{escape(alt)}" src="{figure_to_data_uri(figure, "png", dpi)}">'
    )


def _table(rows: str, name: str) -> str:
    return f'<table class="ecg-scores" aria-label="Scores of {escape(name)}">{rows}</table>'


def _label(row: Mapping[str, Any]) -> str:
    words = SUPERCLASSES.get(row["label"])
    more = f"<small>{escape(words)}</small>" if words else ""
    return f'<td class="label">{escape(_cut(str(row["label"]), LONGEST_NAME))}{more}</td>'


def _number(text: str) -> str:
    return f'<td class="number">{text}</td>'
