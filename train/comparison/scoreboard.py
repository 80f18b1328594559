"""A scoreboard of frozen encoders: many terms, one protocol (`linear`), untrained encoders in every row.

Features are computed once an encoder and set of recordings, and kept in the folder; leads, noise and length are
changed before the feature extractor reads a recording. Fold 9 and fold 10 of the labelled corpus are both test folds:
`linear` chooses its penalty inside the folds 1-8.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ecg_transformers.modeling import EcgFeatureExtractor

from ..delineation.evaluation import linear_wave_counts
from ..delineation.training import DelineationSettings
from ..evaluate_metrics.delineation_scores import WAVES
from ..evaluation.identity import SCORES, match_identities
from ..evaluation.low_shot import draw_low_shot
from ..evaluation.noise import white_noise_row
from ..evaluation.protocols import FrozenTables, linear_scores
from ..evaluation.robustness import first_seconds
from ..features import EmbeddingTable
from ..predictions import Predictions, ProtocolResult
from ..tasks.duplicates import find_duplicates
from ..tasks.lead_subsets import keep_leads
from .runs import kept_json, of_records
from .scoreboard_data import ScoreboardData, Task
from .scoreboard_encoders import Features, FrozenEncoder

logger = logging.getLogger("ecg_transformers")

NUM_DRAWS = 5
SHORT_SECONDS = 2.5
NOISE_DB = 0.0
WAVE_STEPS = 100
Results = dict[str, list[list[ProtocolResult]]]
"""Row → seed → draw."""


def reading_millivolts(extractor: EcgFeatureExtractor, processing: Mapping[str, Any]) -> EcgFeatureExtractor:
    """A feature extractor of processed recordings that makes the same of recordings in mV, at its own rate and
    length."""
    treated = {name: value for name, value in processing.items() if name not in ("sampling_rate", "num_samples")}
    return EcgFeatureExtractor(**(extractor.to_dict() | treated | {"unit": "mV"}))


@dataclass(frozen=True)
class TermResult:
    """Predictions of a term of the scoreboard, by row, seed and draw of the training records; `metric` is a key of
    `METRICS`, `refused` names rows that are not available, with the reason."""

    key: str
    title: str
    metric: str
    results: Results
    refused: Mapping[str, str]


class Scoreboard:
    """The terms of a scoreboard, from the features of all rows; `seed` is that of draws and noise."""

    def __init__(self, features: Features, data: ScoreboardData, seed: int = 0):
        self.features, self.data, self.seed = features, data, seed
        self.clean, self.clean_refused = features.tables(data.labels.recordings)
        self.penalties: dict[tuple[str, int], float] = {}

    def terms(self) -> list[TermResult]:
        """Every term, in the order of the table; one without recordings has no results and a reason."""
        return [
            self.all_labels(),
            self.fewer_labels(0.1),
            self.fewer_labels(0.01),
            self.leads("lead_II", ("II",)),
            self.leads("leads_I_II", ("I", "II")),
            self.noise(),
            self.short(),
            self.target("sex", self.data.sex, "sex", "AUROC", "auroc", "--people"),
            self.target("age", self.data.age, "age", "mean error in years", "error", "--people"),
            self.target(
                *("intervals", self.data.intervals, "heart rate, QRS, PR, QT, QTc"),
                *("mean error in standard deviations", "z_error", "--ludb"),
            ),
            *self.identity(),
            self.waves(),
            self.hospital(),
        ]

    def all_labels(self) -> TermResult:
        term = self._whole("labels_100", "all labels", self.clean, self.clean_refused)
        for name, seeds in term.results.items():
            for seed, (result,) in enumerate(seeds):
                self.penalties[name, seed] = result.details["C"]
        return term

    def fewer_labels(self, fraction: float) -> TermResult:
        """A part of the training patients, by draws that are the same for all rows."""
        task = self.data.labels
        train, tested = task.folds[0]
        some = next(iter(self.clean.values()))[0]
        patient_of = dict(zip(some.record_ids, some.patients(), strict=True))
        known = [record_id for record_id in train if record_id in patient_of]
        truth = np.stack([task.truth[record_id] for record_id in known])
        patients = [patient_of[record_id] for record_id in known]
        drawn = draw_low_shot(truth, patients, fraction, NUM_DRAWS, self.seed)
        draws = [draw for draw in drawn if _can_teach(truth[draw])]
        key, title = f"labels_{100 * fraction:g}", f"{100 * fraction:g} % of the labels, {len(draws)} draws"
        if not draws:
            size = len(drawn[0])
            return self._missing(key, title, "auroc", f"No draw of {size} training records can teach a label.")
        folds = [([known[row] for row in draw], tested) for draw in draws]
        return self._whole(key, title, self.clean, self.clean_refused, folds)

    def leads(self, key: str, leads: Sequence[str]) -> TermResult:
        """Training and test records with these leads alone."""
        change = partial(keep_leads, leads=leads)
        tables, refused = self.features.tables(self.data.labels.recordings, key, change, {"missing_leads": "mask"})
        title = f"{'lead' if len(leads) == 1 else 'leads'} {' and '.join(leads)} alone"
        return self._whole(key, title, tables, refused)

    def short(self) -> TermResult:
        """Training and test records cut to their first seconds, then zeros."""
        change = partial(first_seconds, seconds=SHORT_SECONDS)
        recordings = self.data.labels.recordings
        tables, refused = self.features.tables(recordings, "first_2.5_s", change, {"short_records": "zero_pad"})
        return self._whole("seconds_2.5", f"first {SHORT_SECONDS:g} s", tables, refused)

    def noise(self) -> TermResult:
        """Test records with white noise; clean ones teach."""
        task = self.data.labels
        change = partial(white_noise_row, snr_db=NOISE_DB, seed=self.seed)
        tested = set(task.folds[0][1])
        noisy, refused = self.features.tables(task.recordings, f"noise_{NOISE_DB:g}_dB", change, only=tested)
        results = {
            name: [
                [self._fit(task, self.clean[name][seed], task.folds[0], table, self.penalties[name, seed])]
                for seed, table in enumerate(tables)
            ]
            for name, tables in noisy.items()
            if name in self.clean
        }
        title = f"white noise at {NOISE_DB:g} dB in the test records"
        return TermResult("noise_0_dB", title, "auroc", results, refused)

    def hospital(self) -> TermResult:
        """Superclasses of another hospital by the model of the labelled corpus."""
        task, labels = self.data.other_hospital, self.data.labels
        if task is None:
            return self._missing("other_hospital", "another hospital", "auroc", "--hospital")
        tables, refused = self.features.tables(task.recordings)
        columns = [labels.label_names.index(name) for name in task.label_names]
        results = {}
        for name, of_seeds in tables.items():
            if name not in self.clean:
                continue
            for seed, table in enumerate(of_seeds):
                truth = np.zeros((len(table), len(labels.label_names)), np.int8)
                truth[:, columns] = [task.truth[record_id] for record_id in table.record_ids]
                fitted = self._fit(
                    *(labels, self.clean[name][seed], labels.folds[0], table, self.penalties[name, seed], truth)
                )
                found = Predictions(
                    fitted.test.scores[:, columns], truth[:, columns], table.record_ids, table.patient_ids
                )
                train = fitted.train_labels[:, columns]
                about = (task.label_names, task.problem_type, train, None, found, fitted.details)
                results.setdefault(name, []).append([ProtocolResult("linear", *about)])
        title = f"another hospital ({', '.join(task.label_names)})"
        return TermResult("other_hospital", title, "auroc", results, refused)

    def target(self, key: str, task: Task | None, title: str, unit: str, metric: str, flag: str) -> TermResult:
        """A target of other recordings, fitted on these."""
        if task is None:
            return self._missing(key, title, metric, flag)
        tables, refused = self.features.tables(task.recordings)
        results = {name: [[self._cross_fit(task, table)] for table in of_seeds] for name, of_seeds in tables.items()}
        return TermResult(key, f"{title} ({unit})", metric, results, refused)

    def identity(self) -> list[TermResult]:
        """Searches for the other record of a patient, first and among ten; nothing is fitted."""
        task = self.data.labels
        copies = find_duplicates(task.recordings.rows)
        known = set(task.folds[0][0])
        ranks = {1: "first", 10: "among ten"}
        results: dict[int, Results] = {rank: {} for rank in ranks}
        for name, tables in self.clean.items():
            for table in tables:
                train = table.features[[record_id in known for record_id in table.record_ids]]
                try:
                    about = (table.features, table.patient_ids, table.record_ids)
                    found = match_identities(*about, train_features=train, duplicates=copies)
                except ValueError as error:
                    return [self._missing(f"identity_at_{rank}", "identity", "share", str(error)) for rank in ranks]
                for rank in ranks:
                    scores = found.values[:, [SCORES.index(f"recall_at_{rank}")]]
                    said = Predictions(scores, np.ones_like(scores), found.queries, found.patients)
                    result = ProtocolResult("identity", (f"found_{rank}",), "share", scores, None, said, {})
                    results[rank].setdefault(name, []).append([result])
        return [
            TermResult(f"identity_at_{rank}", f"other record of a patient, {place}", "share", results[rank], {})
            for rank, place in ranks.items()
        ]

    def waves(self) -> TermResult:
        """P, QRS and T of LUDB from frozen tokens; of each subject the samples in both masks and in either."""
        data, title = self.data, "P, QRS and T, mean overlap of masks"
        if data.ludb is None:
            return self._missing("waves", title, "overlap", "--ludb")
        results, refused = {}, {}
        for row in self.features.rows:
            try:
                counted = [self._overlaps(encoder) for encoder in row.encoders]
            except ValueError as error:
                refused[row.name] = str(error)
                continue
            results[row.name] = []
            for subjects, overlaps in counted:
                both, either = np.moveaxis(np.array(overlaps)[:, 1:], -1, 0)  # without background
                said = Predictions(both, either, subjects, list(subjects))
                results[row.name].append([ProtocolResult("waves", WAVES, "overlap", either, None, said, {})])
        return TermResult("waves", title, "overlap", results, refused)

    def _overlaps(self, encoder: FrozenEncoder) -> tuple[list[str], list]:
        extractor = encoder.extractor
        if self.data.form is not None:
            extractor = reading_millivolts(extractor, self.data.form.dump.processing)
        name = hashlib.blake2b(repr((WAVE_STEPS, self.data.ludb["record_id"][:])).encode(), digest_size=6).hexdigest()
        path = self.features.folder / encoder.digest(extractor) / f"waves-{name}.json"

        def count() -> list:
            settings = DelineationSettings(max_steps=WAVE_STEPS, seed=self.seed)
            counts = linear_wave_counts(encoder.model, extractor, self.data.ludb, settings)
            return [list(counts.subjects), counts.overlaps.tolist()]

        return kept_json(path, count)

    def _missing(self, key: str, title: str, metric: str, cure: str) -> TermResult:
        reason = f"No recordings for it: give {cure}." if cure.startswith("--") else cure
        return TermResult(key, title, metric, {}, {row.name: reason for row in self.features.rows})

    def _whole(self, key: str, title: str, tables, refused, folds=None) -> TermResult:
        """The labels of the labelled corpus by these tables; each of `folds` is a draw, by default all records."""
        task = self.data.labels
        results = {
            name: [[self._fit(task, table, fold) for fold in folds or task.folds] for table in of_seeds]
            for name, of_seeds in tables.items()
        }
        return TermResult(key, title, "auroc", results, refused)

    def _fit(
        self,
        task: Task,
        table: EmbeddingTable,
        fold: tuple[Sequence[str], Sequence[str]],
        test: EmbeddingTable | None = None,
        C: float | None = None,
        test_truth: np.ndarray | None = None,
    ) -> ProtocolResult:
        """The protocol `linear` of one fold; `test` is another table than the one that teaches."""
        train = of_records(table, fold[0])
        test = of_records(table, fold[1]) if test is None else test
        truth = {"train": task.truth_of(train), "test": task.truth_of(test) if test_truth is None else test_truth}
        frozen = FrozenTables({"train": train, "test": test}, truth, task.label_names, task.problem_type)
        scores, C = self._scores(frozen, C)
        found = frozen.predictions("test", scores)
        return ProtocolResult("linear", task.label_names, task.problem_type, truth["train"], None, found, {"C": C})

    def _scores(self, frozen: FrozenTables, C: float | None) -> tuple[np.ndarray, float]:
        """Test scores and penalty; kept by a hash of all that they follow from."""
        train, test = frozen.tables["train"], frozen.tables["test"]
        key = hashlib.blake2b(repr((C, train.patients(), frozen.problem_type)).encode(), digest_size=10)
        for array in (train.features, frozen.truth["train"], test.features):
            key.update(np.ascontiguousarray(array).tobytes())

        def fit() -> dict:
            scores, penalty = linear_scores(frozen, C)
            return {"C": penalty, "scores": scores["test"].tolist()}

        kept = kept_json(self.features.folder / "linear" / f"{key.hexdigest()}.json", fit)
        return np.array(kept["scores"]), kept["C"]

    def _cross_fit(self, task: Task, table: EmbeddingTable) -> ProtocolResult:
        """All folds of a task together, each predicted by the model of its training records."""
        parts = [self._fit(task, table, fold) for fold in task.folds]
        if len(parts) == 1:
            return parts[0]
        found = Predictions.joined([part.test for part in parts])
        details = {"C": [part.details["C"] for part in parts]}
        return ProtocolResult("linear", task.label_names, task.problem_type, found.labels, None, found, details)


def _can_teach(truth: np.ndarray) -> bool:
    """Looks for a label with a positive and a negative."""
    return bool(((truth.sum(axis=0) > 0) & (truth.sum(axis=0) < len(truth))).any())
