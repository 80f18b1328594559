"""A scoreboard of frozen encoders: many terms, one protocol (`linear`), untrained encoders in every row.

Features are computed once an encoder and set of recordings, and kept in the folder; leads, noise and length are
changed before the feature extractor reads a recording. Fold 9 and fold 10 of the labelled corpus are both test folds:
`linear` chooses its penalty inside the folds 1-8.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ecg_transformers.modeling import EcgFeatureExtractor

from ..delineation.evaluation import linear_wave_counts
from ..delineation.training import DelineationSettings
from ..evaluate_metrics.delineation_scores import WAVES
from ..evaluation.changed_rows import first_seconds, white_noise_row
from ..evaluation.identity import SCORES, match_identities
from ..evaluation.low_shot import draw_low_shot
from ..evaluation.protocols import FrozenTables, linear_scores
from ..features import EmbeddingTable
from ..predictions import Predictions, ProtocolResult
from ..tasks.duplicates import find_duplicates
from ..tasks.lead_subsets import keep_leads
from .runs import kept_json, of_records
from .scoreboard_data import (
    MIN_POSITIVES,
    Recordings,
    ScoreboardData,
    Task,
    hospital_task,
    interval_task,
    label_task,
    people_task,
)
from .scoreboard_encoders import Features, digest

NUM_DRAWS = 5
SHORT_SECONDS = 2.5
NOISE_DB = 0.0
WAVE_STEPS = 100
Tables = Mapping[str, Sequence[EmbeddingTable]]
"""Row → seed."""
Results = dict[str, list[list[ProtocolResult]]]
"""Row → seed → draw."""


@dataclass(frozen=True)
class TermResult:
    """Predictions of a term of the scoreboard, by row, seed and draw of the training records; `refused` names rows
    that are not available, with the reason. `metric` is `"auroc"` (macro), `"error"` or `"z_error"` (mean absolute,
    in the unit or in standard deviations), `"share"` (of the searches) or `"overlap"` (mean intersection over union).
    """

    key: str
    title: str
    metric: str
    results: Results = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Scoreboard:
    """The terms of a scoreboard, from the features of all rows; `seed` is that of draws and noise."""

    def __init__(self, features: Features, data: ScoreboardData, seed: int = 0):
        self.features, self.data, self.seed = features, data, seed
        self.labels = label_task(data.labelled)
        self.clean, self.refused = features.tables(self.labels.recordings)

    def terms(self) -> list[TermResult]:
        """Every term, in the order of the table; one without recordings has no results and a reason."""
        people, data = self.labels.recordings, self.data
        if data.people is not None:
            people = Recordings("people", data.people, data.form)
        names = "heart rate, QRS, PR, QT, QTc (mean error in standard deviations)"
        intervals = None if data.ludb is None else interval_task(Recordings("ludb", data.ludb, data.form))
        return [
            self._of_labels("labels_100", "all labels", self.clean, self.refused, self.labels.folds),
            self.fewer_labels(0.1),
            self.fewer_labels(0.01),
            self.leads("lead_II", ("II",)),
            self.leads("leads_I_II", ("I", "II")),
            self.noise(),
            self.short(),
            self.target("sex", people_task(people, "sex"), "sex (AUROC)", "auroc", "--people"),
            self.target("age", people_task(people, "age"), "age (mean error in years)", "error", "--people"),
            self.target("intervals", intervals, names, "z_error", "--ludb"),
            *self.identity(),
            self.waves(),
            self.hospital(),
        ]

    def fewer_labels(self, fraction: float) -> TermResult:
        """A part of the training patients, by draws that are the same for all rows."""
        train, tested = self.labels.folds[0]
        known = of_records(next(iter(self.clean.values()))[0], train)
        truth = self.labels.truth_of(known)
        drawn = draw_low_shot(truth, known.patients(), fraction, NUM_DRAWS, self.seed)
        draws = [draw for draw in drawn if np.ptp(truth[draw], axis=0).any()]  # a label with both answers
        key, title = f"labels_{100 * fraction:g}", f"{100 * fraction:g} % of the labels, {len(draws)} draws"
        if not draws:
            return self._missing(key, title, "auroc", f"No draw of {len(drawn[0])} records can teach a label.")
        folds = [([known.record_ids[row] for row in draw], tested) for draw in draws]
        return self._of_labels(key, title, self.clean, self.refused, folds)

    def leads(self, key: str, leads: Sequence[str]) -> TermResult:
        """Training and test records with these leads alone."""
        found = self._changed(key, partial(keep_leads, leads=leads), missing_leads="mask")
        title = f"{'lead' if len(leads) == 1 else 'leads'} {' and '.join(leads)} alone"
        return self._of_labels(key, title, *found, self.labels.folds)

    def short(self) -> TermResult:
        """Training and test records cut to their first seconds, then zeros."""
        cut = partial(first_seconds, seconds=SHORT_SECONDS)
        found = self._changed(f"first_{SHORT_SECONDS:g}_s", cut, short_records="zero_pad")
        return self._of_labels("seconds_2.5", f"first {SHORT_SECONDS:g} s", *found, self.labels.folds)

    def _changed(self, change: str, changed, **reads) -> tuple[Tables, Mapping[str, str]]:
        return self.features.tables(self.labels.recordings, change, changed, reads)

    def noise(self) -> TermResult:
        """Test records with white noise; clean ones teach."""
        add = partial(white_noise_row, snr_db=NOISE_DB, seed=self.seed)
        tested = set(self.labels.folds[0][1])
        noisy, refused = self.features.tables(self.labels.recordings, f"noise_{NOISE_DB:g}_dB", add, only=tested)
        title = f"white noise at {NOISE_DB:g} dB in the test records"
        return TermResult("noise_0_dB", title, "auroc", self._by_the_clean_fit(noisy, self.labels), refused)

    def hospital(self) -> TermResult:
        """Superclasses of another hospital by the model of the labelled corpus."""
        key, title = "other_hospital", "another hospital"
        if self.data.hospital is None:
            return self._missing(key, title, "auroc", "--hospital")
        task = hospital_task(Recordings("hospital", self.data.hospital, self.data.form), self.labels)
        if not task.label_names:
            return self._missing(key, title, "auroc", f"No class has {MIN_POSITIVES} records there.")
        tables, refused = self.features.tables(task.recordings)
        title = f"{title} ({', '.join(task.label_names)})"
        return TermResult(key, title, "auroc", self._by_the_clean_fit(tables, task), refused)

    def target(self, key: str, task: Task | None, title: str, metric: str, flag: str) -> TermResult:
        """A target of other recordings, fitted on these; with several folds, each by the model of the others."""
        if task is None:
            return self._missing(key, title, metric, flag)
        tables, refused = self.features.tables(task.recordings)
        results: Results = {}
        for name, of_seeds in self._fitted(task, tables, task.folds).items():
            results[name] = [[_joined(folds)] for folds in of_seeds]
        return TermResult(key, title, metric, results, refused)

    def identity(self) -> list[TermResult]:
        """Searches for the other record of a patient, first and among ten; nothing is fitted."""
        copies = find_duplicates(self.labels.recordings.rows)
        known, ranks = set(self.labels.folds[0][0]), {1: "first", 10: "among ten"}
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
                    result = ProtocolResult("identity", (f"found_{rank}",), "share", scores, None, said)
                    results[rank].setdefault(name, []).append([result])
        return [
            TermResult(f"identity_at_{rank}", f"other record of a patient, {place}", "share", results[rank])
            for rank, place in ranks.items()
        ]

    def waves(self) -> TermResult:
        """P, QRS and T of LUDB from frozen tokens; of each subject the samples in both masks and in either."""
        title = "P, QRS and T, mean overlap of masks"
        if self.data.ludb is None:
            return self._missing("waves", title, "overlap", "--ludb")
        results, refused = {}, {}
        for row in self.features.rows:
            try:
                results[row.name] = [[self._overlaps(*encoder)] for encoder in row.encoders]
            except ValueError as error:
                refused[row.name] = str(error)
        return TermResult("waves", title, "overlap", results, refused)

    def _overlaps(self, model, extractor: EcgFeatureExtractor) -> ProtocolResult:
        if self.data.form is not None:  # of processed recordings: makes the same of LUDB in mV
            processing = dict(self.data.form.dump.processing)
            frame = {name: getattr(extractor, name) for name in ("sampling_rate", "num_samples")}
            extractor = EcgFeatureExtractor(**(extractor.to_dict() | processing | frame | {"unit": "mV"}))
        name = hashlib.blake2b(repr((WAVE_STEPS, self.data.ludb["record_id"][:])).encode(), digest_size=6).hexdigest()

        def count() -> list:
            settings = DelineationSettings(max_steps=WAVE_STEPS, seed=self.seed)
            counts = linear_wave_counts(model, extractor, self.data.ludb, settings)
            return [list(counts.subjects), counts.overlaps.tolist()]

        path = self.features.folder / digest(model, extractor) / f"waves-{name}.json"
        subjects, overlaps = kept_json(path, count)
        both, either = np.moveaxis(np.array(overlaps)[:, 1:], -1, 0)  # without background
        return ProtocolResult(
            "waves", WAVES, "overlap", either, None, Predictions(both, either, subjects, list(subjects))
        )

    def _missing(self, key: str, title: str, metric: str, cure: str) -> TermResult:
        reason = f"No recordings for it: give {cure}." if cure.startswith("--") else cure
        return TermResult(key, title, metric, refused={row.name: reason for row in self.features.rows})

    # --- The protocol `linear` ------------------------------------------------------------------------------------

    def _of_labels(self, key: str, title: str, tables: Tables, refused: Mapping[str, str], draws) -> TermResult:
        """The labels of the labelled corpus by these tables; each of `draws` has record ids to learn from and to test
        on."""
        return TermResult(key, title, "auroc", self._fitted(self.labels, tables, draws), refused)

    def _fitted(self, task: Task, tables: Tables, folds) -> Results:
        return {
            name: [
                [self._fit(task, *(of_records(table, ids) for ids in fold)) for fold in folds] for table in of_seeds
            ]
            for name, of_seeds in tables.items()
        }

    def _by_the_clean_fit(self, tables: Tables, task: Task) -> Results:
        """Predictions of other recordings by the model of all unchanged training records."""
        taught = self.labels.only(task.label_names)
        results: Results = {}
        for name in (name for name in tables if name in self.clean):
            for clean, table in zip(self.clean[name], tables[name], strict=True):
                train, test = (of_records(clean, ids) for ids in self.labels.folds[0])
                C = self._fit(self.labels, train, test).details["C"]
                results.setdefault(name, []).append([self._fit(taught, train, table, C, task)])
        return results

    def _fit(
        self,
        task: Task,
        train: EmbeddingTable,
        test: EmbeddingTable,
        C: float | None = None,
        tested: Task | None = None,
    ) -> ProtocolResult:
        """Scores of a test table, whose truth may be that of another task. Fits are kept by a hash of all that they
        follow from."""
        truth = {"train": task.truth_of(train), "test": (tested or task).truth_of(test)}
        frozen = FrozenTables({"train": train, "test": test}, truth, task.label_names, task.problem_type)
        key = hashlib.blake2b(repr((C, train.patients(), task.problem_type)).encode(), digest_size=10)
        for array in (train.features, truth["train"], test.features):
            key.update(np.ascontiguousarray(array).tobytes())

        def fit() -> dict:
            scores, penalty = linear_scores(frozen, C)
            return {"C": penalty, "scores": scores["test"].tolist()}

        kept = kept_json(self.features.folder / "linear" / f"{key.hexdigest()}.json", fit)
        said, about = frozen.predictions("test", np.array(kept["scores"])), (task.label_names, task.problem_type)
        return ProtocolResult("linear", *about, truth["train"], None, said, {"C": kept["C"]})


def _joined(folds: Sequence[ProtocolResult]) -> ProtocolResult:
    """The records of all folds, each predicted by the model of its training records."""
    if len(folds) == 1:
        return folds[0]
    found = Predictions.joined([fold.test for fold in folds])
    about = (folds[0].label_names, folds[0].problem_type)
    return ProtocolResult("linear", *about, found.labels, None, found, {"C": [fold.details["C"] for fold in folds]})
