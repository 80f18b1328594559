"""Recordings that a protocol got right and wrong, on ECG paper: where scores become patients again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from ..features import decoded
from ..predictions import ProtocolResult
from ..results import SINGLE_LABEL, format_score
from .ecg_paper import plot_recording
from .labels import spelled_out
from .page import ReportFigure

KINDS = ("false positive", "false negative", "true positive")
PAPER_DPI = 110
MOST_SCORES = 5
"""Named in a caption: the highest ones."""


@dataclass(frozen=True)
class Example:
    """A recording, its labels and its scores, as an example for a label; the most probable class has no threshold."""

    kind: str
    label: str
    record_id: str
    threshold: float | None
    truth: tuple[str, ...]
    scores: dict[str, float]


def choose_examples(result: ProtocolResult, found: Mapping) -> list[Example]:
    """The most confident false positive, false negative and true positive of the labels predicted best and worst: by
    the scores `per_class`; positive is what reaches the label's threshold, else 0.5."""
    by_area = sorted(found["per_class"], key=lambda name: -found["per_class"][name])
    labels = list(dict.fromkeys([by_area[0], by_area[-1]]))
    examples, shown = [], np.zeros(len(result.test.record_ids), dtype=bool)
    for label in labels:
        column = result.label_names.index(label)
        truth, scores = result.test.labels[:, column].astype(bool), result.test.scores[:, column]
        if result.problem_type == SINGLE_LABEL:
            threshold, said = None, result.test.scores.argmax(axis=1) == column
        else:
            threshold = found.get("thresholds", {}).get(label, 0.5)
            said = scores >= threshold
        for kind, members, confidence in zip(
            KINDS, (said & ~truth, ~said & truth, said & truth), (scores, -scores, scores), strict=True
        ):
            members = members & ~shown  # no recording twice
            if members.any():
                row = int(np.argmax(np.where(members, confidence, -np.inf)))
                shown[row] = True
                examples.append(_example(result, row, kind, label, threshold))
    return examples


def draw_examples(examples: Sequence[Example], rows: Dataset, task: str) -> tuple[list[ReportFigure], list[str]]:
    """The recordings on ECG paper, out of rows of [`load_ecg`], and sentences on those that cannot be drawn: without a
    unit they have no place on paper. Codes are spelled out by the task."""
    places = {record_id: place for place, record_id in enumerate(rows["record_id"])}
    unknown = [example.record_id for example in examples if example.record_id not in places]
    if unknown:
        raise ValueError(f"The rows lack the records {unknown}. Pass the test split that was evaluated.")
    figures, notes = [], []
    for example, row in zip(
        examples, decoded(rows.select([places[example.record_id] for example in examples])), strict=True
    ):
        ecg = row["ecg"]
        if ecg["unit"] != "mV":
            notes.append(f"Record {example.record_id} has no unit and is not drawn on paper. {describe(example)}")
            continue
        signal, leads, rate = np.asarray(ecg["signal"]), ecg["leads"], ecg["sampling_rate"]
        title = f"{example.kind.capitalize()}: {spelled_out(example.label, task)}"
        figure = plot_recording(signal, leads, rate, f"Record {example.record_id}")
        alt = f"Electrocardiogram of record {example.record_id} on paper, {len(leads)} leads. {describe(example)}"
        figures.append(ReportFigure.draw(figure, title, describe(example), alt, "png", wide=True, dpi=PAPER_DPI))
    return figures, notes


def describe(example: Example) -> str:
    """Truth and scores in a line or two."""
    truth = ", ".join(example.truth) or "none of the labels"
    said = format_score(example.scores[example.label])
    limit = "" if example.threshold is None else f" (threshold {format_score(example.threshold)})"
    others = sorted((name for name in example.scores if name != example.label), key=lambda n: -example.scores[n])
    listed = ", ".join(f"{name} {format_score(example.scores[name])}" for name in others[: MOST_SCORES - 1])
    return f"Truth: {truth}. Score of {example.label}: {said}{limit}." + (f" Others: {listed}." if listed else "")


def _example(result: ProtocolResult, row: int, kind: str, label: str, threshold: float | None) -> Example:
    names = result.label_names
    truth = tuple(name for name, is_so in zip(names, result.test.labels[row], strict=True) if is_so)
    scores = dict(zip(names, result.test.scores[row].tolist(), strict=True))
    return Example(kind, label, result.test.record_ids[row], threshold, truth, scores)
