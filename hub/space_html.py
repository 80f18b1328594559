"""The pieces of a Space's page: pictures on ECG paper, bars of scores, neighbours, messages; HTML, all escaped."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ecg_transformers.modeling.pipeline_ecg import MULTI_LABEL, REGRESSION
from ecg_transformers.train.report.ecg_paper import fit_to_paper, plot_ecg_paper
from ecg_transformers.train.report.plots import figure_to_bytes

from .space_model import Neighbour

LONGEST_SENTENCE, LONGEST_NAME = 500, 120
NEIGHBOUR_LEADS, NEIGHBOUR_SECONDS = ("II", "V2"), 5.0
SUPERCLASSES = {
    "NORM": "normal ECG",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
}
"""Of PTB-XL's labels, in words."""

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


def markdown_text(text: str) -> str:
    """A name for a Markdown page, as it is and on one line: no link, tag or heading is in it; a long one is cut."""
    line = _cut(" ".join(str(text).split()), LONGEST_NAME)
    return re.sub(r"[^\w .,/+-]", lambda sign: f"&#{ord(sign[0])};", line).replace("_", "&#95;")


def message_html(sentence: str | None) -> str:
    """The place where errors are told; empty without one. Names in a file may be as long as the file: it is cut."""
    if not sentence:
        return ""
    return f'<div class="ecg-error" role="alert">{escape(_cut(sentence))}</div>'


def _cut(sentence: str, most: int = LONGEST_SENTENCE) -> str:
    return sentence if len(sentence) <= most else sentence[: most - 1] + "…"


def notes_html(sentences: Sequence[str]) -> str:
    return f'<p class="ecg-notes">{escape(" ".join(sentences))}</p>'


def picture_html(figure: Figure, alt: str, least_pixels: int = 700, dpi: int = 110) -> str:
    """A figure in a frame that scrolls where the screen is narrower than `least_pixels`."""
    return (
        f'<div class="ecg-paper" tabindex="0">{_image(figure, alt, dpi, least_pixels)}</div>'
        '<p class="ecg-notes ecg-hint">Swipe sideways to see all of it.</p>'
    )


def scores_html(
    scores: Sequence[Mapping[str, Any]], problem_type: str, calibration: Mapping[str, Any] | None, name: str
) -> str:
    """The output of `pipeline("ecg-classification")` as bars, with what it is and what it is not."""
    quality = scores[0].get("quality", [])
    box = quality_html(quality)
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
    notes = ["Each class is judged by itself; they need not sum to 100 %."] if problem_type == MULTI_LABEL else []
    if is_off:
        notes.append("No class is above a threshold: see what was found in the recording.")
    if calibration is None:
        notes.append("Not calibrated: they rank recordings, but do not take them at their word as probabilities.")
    elif not is_off:
        notes.append(f"Calibrated by temperature {calibration['temperature']:.2f}, found on the validation split.")
    if thresholds:
        notes.append("The upright mark is the threshold that was best there; dark bars are above it.")
    return box + _table(rows, name) + notes_html(notes)


def quality_html(quality: Sequence[Mapping[str, Any]]) -> str:
    """The red box of what was found in a recording, by `quality` of a row; empty for a clean one."""
    if not quality:
        return ""
    is_lost = any(finding["name"] == "no_signal" for finding in quality)
    head = "There is no signal, so that the model can say nothing." if is_lost else "Look at the recording first."
    sentences = "".join(f"<li>{escape(_cut(finding['sentence']))}</li>" for finding in quality)
    return f'<div class="ecg-error ecg-quality" role="alert"><strong>{head}</strong><ul>{sentences}</ul></div>'


def neighbours_html(neighbours: Sequence[Neighbour], name: str) -> str:
    """Cards of small traces, with labels and distance."""
    cards = ""
    for neighbour in neighbours:
        row, labels = neighbour.row, describe_labels(neighbour.row["labels"])
        alt = f"Leads {' and '.join(NEIGHBOUR_LEADS)} of record {row['record_id']}"
        cards += (
            f'<figure><div class="ecg-paper">{_image(_small_trace(row["ecg"]), alt, 100, 0)}</div><figcaption>'
            f"<span><strong>{escape(labels)}</strong><br>PTB-XL {escape(row['record_id'])}</span>"
            f"<span>distance {neighbour.distance:.2f}</span></figcaption></figure>"
        )
    return f'<div class="ecg-neighbours" role="group" aria-label="Near to {escape(name)}">{cards}</div>'


def describe_labels(labels: Sequence[str]) -> str:
    """`"CD, HYP"`, or in words where there is one."""
    if not labels:
        return "no diagnostic label"
    return (
        f"{labels[0]}: {SUPERCLASSES[labels[0]]}"
        if len(labels) == 1 and labels[0] in SUPERCLASSES
        else ", ".join(labels)
    )


def _small_trace(ecg: Mapping[str, Any]) -> Figure:
    signal = np.asarray(ecg["signal"])[:, : round(NEIGHBOUR_SECONDS * ecg["sampling_rate"])]
    chosen = [list(ecg["leads"]).index(lead) for lead in NEIGHBOUR_LEADS]
    shown, _ = fit_to_paper(signal[chosen], NEIGHBOUR_LEADS)
    return plot_ecg_paper(shown, NEIGHBOUR_LEADS, ecg["sampling_rate"])


def _image(figure: Figure, alt: str, dpi: int, least_pixels: int) -> str:
    content = base64.b64encode(figure_to_bytes(figure, "png", dpi)).decode()
    return f'<img style="--least: {least_pixels}px" alt="{escape(alt)}" src="data:image/png;base64,{content}">'


def _table(rows: str, name: str) -> str:
    return f'<table class="ecg-scores" aria-label="Scores of {escape(name)}">{rows}</table>'


def _label(row: Mapping[str, Any]) -> str:
    words = SUPERCLASSES.get(row["label"])
    more = f"<small>{escape(words)}</small>" if words else ""
    return f'<td class="label">{escape(_cut(str(row["label"]), LONGEST_NAME))}{more}</td>'


def _number(text: str) -> str:
    return f'<td class="number">{text}</td>'
