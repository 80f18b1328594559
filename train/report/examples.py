"""Recordings that a protocol got right and wrong, on ECG paper: where scores become patients again."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from ..features import decoded
from ..predictions import ProtocolResult
from ..results import SINGLE_LABEL, Result, format_score
from .ecg_paper import plot_recording
from .labels import spelled_out
from .page import ReportFigure, Section

KINDS = ("false positive", "false negative", "true positive")
PAPER_DPI = 110
MOST_SCORES = 5
"""Named in a caption: the highest ones."""


class Example(NamedTuple):
    """A recording as an example for a label, and truth and scores in words."""

    kind: str
    label: str
    record_id: str
    words: str


def examples_sections(
    result: Result, predictions: Mapping[tuple[str, str], ProtocolResult], rows: Dataset
) -> list[Section]:
    """Recordings on ECG paper that the model got right and wrong, out of rows of [`load_ecg`]; those without a unit
    have no place on paper."""
    protocol, examples = examples_of(result, predictions)
    if protocol is None:
        return []
    places = {record_id: place for place, record_id in enumerate(rows["record_id"])}
    if unknown := [example.record_id for example in examples if example.record_id not in places]:
        raise ValueError(f"The rows lack the records {unknown}. Pass the test split that was evaluated.")
    chosen, figures, notes = decoded(rows.select([places[example.record_id] for example in examples])), [], []
    for example, row in zip(examples, chosen, strict=True):
        ecg, name = row["ecg"], f"Record {example.record_id}"
        if ecg["unit"] != "mV":
            notes.append(f"{name} has no unit and is not drawn on paper. {example.words}")
            continue
        title = f"{example.kind.capitalize()}: {spelled_out(example.label, result.task)}"
        figure = plot_recording(np.asarray(ecg["signal"]), ecg["leads"], ecg["sampling_rate"], name)
        alt = f"Electrocardiogram of record {example.record_id} on paper, {len(ecg['leads'])} leads. {example.words}"
        figures.append(ReportFigure(figure, title, example.words, alt, "png", wide=True, dpi=PAPER_DPI))
    intro = (
        f"Protocol {protocol}. Of the label predicted best and of the one predicted worst: the false positive and the "
        "false negative with the most confident score, and the most confident true positive. Positive is what reaches "
        "the threshold of the validation split. Some errors are those of the labels."
    )
    return [Section("Recordings, right and wrong", (intro,), notes=notes, figures=figures, folded=True)]


def examples_of(
    result: Result, predictions: Mapping[tuple[str, str], ProtocolResult]
) -> tuple[str | None, list[Example]]:
    """The classification whose records are drawn, `linear` where there is one, and its examples."""
    found = [
        outcome
        for outcome in result.outcomes
        if outcome.kind.name == "classification" and ("pretrained", outcome.protocol) in predictions
    ]
    if not found:
        return None, []
    outcome = next((outcome for outcome in found if outcome.protocol == "linear"), found[0])
    return outcome.protocol, choose_examples(predictions["pretrained", outcome.protocol], outcome.scores)


def choose_examples(result: ProtocolResult, found: Mapping) -> list[Example]:
    """The most confident false positive, false negative and true positive of the labels predicted best and worst: by
    the scores `per_class`; positive is what reaches the label's threshold, else 0.5, or the most probable class."""
    by_area = sorted(found["per_class"], key=lambda name: -found["per_class"][name])
    examples, shown = [], np.zeros(len(result.test.record_ids), dtype=bool)
    for label in dict.fromkeys([by_area[0], by_area[-1]]):
        column = result.label_names.index(label)
        truth, scores = result.test.labels[:, column].astype(bool), result.test.scores[:, column]
        threshold, said = None, result.test.scores.argmax(axis=1) == column
        if result.problem_type != SINGLE_LABEL:
            threshold = found.get("thresholds", {}).get(label, 0.5)
            said = scores >= threshold
        confidences = (said & ~truth, scores), (~said & truth, -scores), (said & truth, scores)
        for kind, (members, confidence) in zip(KINDS, confidences, strict=True):
            members = members & ~shown  # no recording twice
            if members.any():
                row = int(np.argmax(np.where(members, confidence, -np.inf)))
                shown[row] = True
                words = _words(result, row, label, threshold)
                examples.append(Example(kind, label, result.test.record_ids[row], words))
    return examples


def _words(result: ProtocolResult, row: int, label: str, threshold: float | None) -> str:
    """Truth and scores in a line or two."""
    scores = dict(zip(result.label_names, result.test.scores[row].tolist(), strict=True))
    stated = [name for name, is_so in zip(scores, result.test.labels[row], strict=True) if is_so]
    truth = ", ".join(stated) or "none of the labels"
    limit = "" if threshold is None else f" (threshold {format_score(threshold)})"
    others: Sequence[str] = sorted((name for name in scores if name != label), key=lambda name: -scores[name])
    listed = ", ".join(f"{name} {format_score(scores[name])}" for name in others[: MOST_SCORES - 1])
    said = f"Truth: {truth}. Score of {label}: {format_score(scores[label])}{limit}."
    return said + (f" Others: {listed}." if listed else "")
