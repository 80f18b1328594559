"""What the page of a Space does, without the page: from the choice of a recording to pieces of HTML.

Errors of the library are sentences, and are shown; of anything else the page says that it failed, and only the kind
and the place go to the log, because messages may quote the recording.
"""

import logging
import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecg_transformers.data import EcgRecord
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.train.features import EmbeddingTable
from ecg_transformers.train.report.ecg_paper import plot_recording

from . import space_html
from .space_model import NeighbourIndex, SpaceModel, sample_rows
from .space_recording import Declaration, read_upload

logger = logging.getLogger("ecg_transformers.space")

METHODS = {"Integrated gradients": "integrated_gradients", "Attention rollout": "attention_rollout"}
SHOWN_SECONDS = 10.0
FAILED = "Something went wrong here. It has been noted, without your recording; please try another one."


@dataclass(frozen=True)
class Shown:
    """The recording of a visitor, and whether missing leads are masked."""

    record: EcgRecord
    mask_missing_leads: bool
    name: str


class SpacePage:
    """What the page does, as functions from inputs to HTML; nothing here needs gradio.

    Args:
        model ([`SpaceModel`]): The model.
        neighbours ([`NeighbourIndex`]): The index that belongs to it.
        read (`Callable`, *optional*): Reads uploads, as [`read_upload`] does, which is taken without.
    """

    def __init__(self, model: SpaceModel, neighbours: NeighbourIndex, read: Callable[..., EcgRecord] = read_upload):
        self.model, self.neighbours, self.read = model, neighbours, read
        self.samples = {self._sample_name(row): row for row in sample_rows()}
        self.lock = threading.Lock()  # one recording at a time: models take all cores that there are

    @staticmethod
    def _sample_name(row: dict) -> str:
        return f"{row['record_id']} · {space_html.describe_labels(row['labels'])}"

    def open_sample(self, name: str) -> Shown:
        row = self.samples[name]
        record = EcgRecord.from_row({"record_id": row["record_id"], "ecg": row["ecg"]})
        return Shown(record, False, f"PTB-XL {name}")

    def open_upload(self, paths: list[str] | None, mask_missing_leads: bool, declared: Declaration) -> Shown:
        return Shown(self.read(paths, declared), mask_missing_leads, "Your recording")

    def trace(self, shown: Shown) -> str:
        """What is to be known of the recording, and its start on ECG paper; for an encoder what is odd about it."""
        notes = self.model.check(shown.record, shown.mask_missing_leads)
        seconds = shown.record.signal.shape[1] / shown.record.sampling_rate
        if seconds > SHOWN_SECONDS:
            notes.append(f"Drawn: the first {SHOWN_SECONDS:g} s.")
        signal_mv, leads = _in_usual_order(shown.record)
        figure = plot_recording(signal_mv, leads, shown.record.sampling_rate, shown.name, SHOWN_SECONDS)
        picture = space_html.picture_html(figure, f"{shown.name} on ECG paper")
        found = [] if self.model.is_classifier else self.model.findings(shown.record, shown.mask_missing_leads)
        return space_html.notes_html(notes) + picture + space_html.quality_html(found)

    def scores(self, shown: Shown) -> tuple[str, str | None]:
        """What is odd about the recording, the bars, and the class with the highest score."""
        if not self.model.is_classifier:
            return "", None
        scores = self.model.scores(shown.record, shown.mask_missing_leads)
        problem_type = self.model.model.config.problem_type
        calibration = self.model.calibration_of(shown.record, shown.mask_missing_leads)
        return space_html.scores_html(scores, problem_type, calibration, shown.name), scores[0]["label"]

    def explanation(self, shown: Shown, method: str, target: str | None) -> str:
        """The map of what the output depends on, over all leads."""
        found = self.model.explain(shown.record, METHODS[method], target, shown.mask_missing_leads)
        what = f"{method} of {found.target}" if found.target else method
        return space_html.picture_html(found.plot(seconds=SHOWN_SECONDS), f"{what}, {shown.name}", 800)

    def nearest(self, shown: Shown) -> str:
        features = self.model.features(shown.record, shown.mask_missing_leads)
        return space_html.neighbours_html(self.neighbours.nearest(features), shown.name)

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
            return None, space_html.message_html(" ".join(str(error).split()))
        except Exception as error:  # the one place where a trace-back becomes a sentence
            place = traceback.extract_tb(error.__traceback__)[-1]
            logger.error("%s in %s, line %d", type(error).__name__, place.filename, place.lineno)
            return None, space_html.message_html(FAILED)


def load_page(
    model: str | os.PathLike,
    neighbours: str | os.PathLike,
    revision: str | None = None,
    read: Callable[..., EcgRecord] = read_upload,
) -> SpacePage:
    """The model and the index that `ecg-transformers space` wrote; `read` as in [`SpacePage`]."""
    return SpacePage(SpaceModel.load(model, revision), NeighbourIndex(EmbeddingTable.load(Path(neighbours))), read)


def _in_usual_order(record: EcgRecord) -> tuple[np.ndarray, list[str]]:
    """Signal in mV and leads; standard leads first and as doctors order them."""
    places = {lead: place for place, lead in enumerate(STANDARD_LEADS)}
    order = sorted(range(len(record.leads)), key=lambda n: places.get(record.leads[n], len(places)))
    return record.to_millivolts()[order], [record.leads[n] for n in order]
