"""A scoreboard of frozen encoders: many terms, one protocol (`linear`), untrained encoders in every row.

Features are computed once an encoder and set of recordings, and kept in the folder; leads, noise and length are
changed before the feature extractor reads a recording. Fold 9 and fold 10 of the labelled corpus are both test folds:
`linear` chooses its penalty inside the folds 1-8.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from ecg_transformers.modeling import EcgFeatureExtractor

from ..checkpoints import UNTRAINED_ENCODERS, check_checkpoint, load_encoder
from ..evaluation.identity import match_identities
from ..evaluation.lead_subsets import keep_leads, masking_missing_leads
from ..evaluation.low_shot import draw_low_shot
from ..evaluation.noise import white_noise_row
from ..evaluation.protocols import FrozenTables, linear_scores
from ..evaluation.robustness import first_seconds, padding_short_records
from ..features import EmbeddingTable, embed, random_encoder_like
from ..predictions import Predictions, ProtocolResult
from ..settings import extractor_field_names
from ..tasks.duplicates import find_duplicates
from .runs import write_atomically
from .scoreboard_data import Recordings, ScoreboardData, Task

logger = logging.getLogger("ecg_transformers")

NUM_DRAWS = 5
SHORT_SECONDS = 2.5
NOISE_DB = 0.0
Results = dict[str, list[list[ProtocolResult]]]
"""Row → seed → draw."""


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder with its feature extractor, and a hash of both."""

    model: PreTrainedModel
    extractor: EcgFeatureExtractor

    def digest(self, extractor: EcgFeatureExtractor) -> str:
        """Hash of weights, configuration and input, which features depend on."""
        found = hashlib.blake2b(digest_size=10)
        config = {name: value for name, value in self.model.config.to_dict().items() if name != "_name_or_path"}
        found.update(json.dumps([type(self.model).__name__, config, extractor.to_dict()], default=str).encode())
        for name, value in sorted(self.model.state_dict().items()):
            found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class BoardRow:
    """A row of the scoreboard: the encoders of one name, one a seed.

    Args:
        name (`str`): As given, or that of an untrained encoder, or `NAME, random weights`.
        kind (`str`): `"untrained"`, `"random"` or `"model"`.
        encoders (`list[FrozenEncoder]`): One a seed.
        places (`list[str]`): Where the weights come from.
    """

    name: str
    kind: str
    encoders: list[FrozenEncoder]
    places: list[str]


def parse_models(words: Sequence[str]) -> dict[str, list[str]]:
    """`NAME=DIR[,DIR...]` words as folders (seeds) by name."""
    models = {}
    for word in words:
        name, equals, folders = word.partition("=")
        if not (name and equals and all(folders.split(","))) or name in models or name in UNTRAINED_ENCODERS:
            raise ValueError(
                f"Expected --scoreboard NAME=DIR[,DIR...] with a name of its own for each encoder, got {word!r}."
            )
        models[name] = folders.split(",")
    return models


def load_rows(models: Mapping[str, Sequence[str]], treatment: Mapping[str, Any]) -> list[BoardRow]:
    """The untrained encoders, then each model after its random encoder.

    Args:
        models (`Mapping[str, Sequence[str]]`): Folders (seeds) by name.
        treatment (`Mapping`):
            Settings of the feature extractor that make one treatment of the input for all encoders: what an encoder
            stores of unit, filter and normalisation is then left out. Empty: each encoder reads as it is stored.
    """
    for folders in models.values():
        for folder in folders:
            check_checkpoint(folder)

    def load(checkpoint: str) -> FrozenEncoder:
        return FrozenEncoder(*load_encoder(checkpoint, treatment))

    rows = [BoardRow(name, "untrained", [load(name)], [name]) for name in UNTRAINED_ENCODERS]
    for name, folders in models.items():
        trained = [load(folder) for folder in folders]
        fresh = [
            FrozenEncoder(random_encoder_like(encoder.model, seed), encoder.extractor)
            for seed, encoder in enumerate(trained)
        ]
        rows.append(BoardRow(random_name(name), "random", fresh, [f"seed {seed}" for seed in range(len(fresh))]))
        rows.append(BoardRow(name, "model", trained, list(folders)))
    return rows


def random_name(model: str) -> str:
    """The row of the random encoder of a model."""
    return f"{model}, random weights"


def treatment_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as settings of the feature extractor.

    Raises:
        ValueError: for a flag that is none of them.
    """
    unknown = sorted(set(settings) - extractor_field_names())
    if unknown:
        raise ValueError(f"A scoreboard trains nothing: --{unknown[0]} is no setting of the feature extractor.")
    return dict(settings)


@dataclass(frozen=True)
class Features:
    """The features of the encoders, computed once and kept in a folder.

    Args:
        rows (`Sequence[BoardRow]`): Whose features.
        folder (`Path`): Where they are kept, in a folder an encoder.
        batch_size (`int`): Of embedding.
    """

    rows: Sequence[BoardRow]
    folder: Path
    batch_size: int = 64

    def tables(
        self,
        recordings: Recordings,
        change: str = "",
        changed: Callable[[dict], dict] | None = None,
        reads: Callable[[EcgFeatureExtractor], EcgFeatureExtractor] | None = None,
        only: set[str] | None = None,
    ) -> tuple[dict[str, list[EmbeddingTable]], dict[str, str]]:
        """Tables of every row, one a seed, all of the same records; and why rows have none.

        Args:
            recordings ([`Recordings`]): What is embedded.
            change (`str`): Name of a change of the recordings.
            changed (`Callable`, *optional*): From a decoded row to the changed one.
            reads (`Callable`, *optional*): From the feature extractor of an encoder to the one that reads the change.
            only (`set[str]`, *optional*): Record ids, if not all.
        """
        ids = [record_id for record_id in recordings.rows["record_id"] if only is None or record_id in only]
        records = hashlib.blake2b(repr((recordings.name, ids)).encode(), digest_size=6).hexdigest()
        name = "-".join(filter(None, (recordings.name, change, records)))
        found, refused = {}, {}
        for row in self.rows:
            try:
                found[row.name] = [
                    self._table(row, encoder, name, recordings, changed, reads, set(ids)) for encoder in row.encoders
                ]
            except ValueError as error:  # the other rows are worth keeping
                logger.warning("%s, %s: not available. %s", row.name, name, error)
                refused[row.name] = str(error)
        every = [table for tables in found.values() for table in tables]
        common = set.intersection(*(set(table.record_ids) for table in every)) if every else set()
        return {name: [_of_records(table, common) for table in tables] for name, tables in found.items()}, refused

    def _table(self, row, encoder, name, recordings, changed, reads, ids) -> EmbeddingTable:
        extractor = encoder.extractor if reads is None else reads(encoder.extractor)
        path = self.folder / encoder.digest(extractor) / f"{name}.parquet"
        if path.is_file():
            return EmbeddingTable.load(path)
        logger.info("%s: %s", row.name, name)
        rows = (record for record in recordings if record["record_id"] in ids)
        if changed is not None:
            rows = map(changed, rows)
        table = embed(encoder.model, extractor, rows, self.batch_size, progress=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_name(f".{path.name}")
        table.save(partial_path.with_suffix(".parquet")).replace(path)
        return table


def _of_records(table: EmbeddingTable, record_ids) -> EmbeddingTable:
    kept = set(record_ids)
    return table.take([row for row, record_id in enumerate(table.record_ids) if record_id in kept])


@dataclass(frozen=True)
class TermResult:
    """What a term of the scoreboard found.

    Args:
        key (`str`), title (`str`): Name of the term, and in words.
        metric (`str`): Key of `METRICS`.
        results (`Results`): Predictions of each row, seed and draw of the training records.
        refused (`dict[str, str]`): Rows that are not available, and why.
    """

    key: str
    title: str
    metric: str
    results: Results
    refused: Mapping[str, str]


class Scoreboard:
    """The terms of a scoreboard.

    Args:
        features ([`Features`]): Of all rows.
        data ([`ScoreboardData`]): The recordings.
        seed (`int`, *optional*, defaults to 0): Of draws and noise.
    """

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
            self.hospital(),
        ]

    def all_labels(self) -> TermResult:
        task = self.data.labels
        results = {
            name: [[self._fit(task, table, task.folds[0])] for table in tables] for name, tables in self.clean.items()
        }
        for name, seeds in results.items():
            for seed, (result,) in enumerate(seeds):
                self.penalties[name, seed] = result.details["C"]
        return TermResult("labels_100", "all labels", "auroc", results, self.clean_refused)

    def fewer_labels(self, fraction: float) -> TermResult:
        """A part of the training patients, by draws that are the same for all rows."""
        task = self.data.labels
        learnt, tested = task.folds[0]
        some = next(iter(self.clean.values()))[0]
        known = [record_id for record_id in learnt if record_id in set(some.record_ids)]
        truth = np.stack([task.truth[record_id] for record_id in known])
        patients = [task.patients[record_id] for record_id in known]
        draws = draw_low_shot(truth, patients, fraction, NUM_DRAWS, self.seed)
        results = {
            name: [
                [self._fit(task, table, ([known[row] for row in draw], tested)) for draw in draws] for table in tables
            ]
            for name, tables in self.clean.items()
        }
        title = f"{100 * fraction:g} % of the labels, {NUM_DRAWS} draws"
        return TermResult(f"labels_{100 * fraction:g}", title, "auroc", results, self.clean_refused)

    def leads(self, key: str, leads: Sequence[str]) -> TermResult:
        """Training and test records with these leads alone."""
        change = partial(keep_leads, leads=leads)
        tables, refused = self.features.tables(self.data.labels.recordings, key, change, masking_missing_leads)
        title = f"{'lead' if len(leads) == 1 else 'leads'} {' and '.join(leads)} alone"
        return self._whole(key, title, tables, refused)

    def short(self) -> TermResult:
        """Training and test records cut to their first seconds, then zeros."""
        change = partial(first_seconds, seconds=SHORT_SECONDS)
        recordings = self.data.labels.recordings
        tables, refused = self.features.tables(recordings, "first_2.5_s", change, padding_short_records)
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
            results[name] = []
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
                results[name].append(
                    [ProtocolResult("linear", task.label_names, task.problem_type, train, None, found, fitted.details)]
                )
        title = f"another hospital ({', '.join(task.label_names)})"
        return TermResult("other_hospital", title, "auroc", results, refused)

    def target(self, key: str, task: Task | None, title: str, unit: str, metric: str, flag: str) -> TermResult:
        """A target of other recordings, learnt from these."""
        if task is None:
            return self._missing(key, title, metric, flag)
        tables, refused = self.features.tables(task.recordings, only=set(task.truth))
        results = {name: [[self._cross_fit(task, table)] for table in of_seeds] for name, of_seeds in tables.items()}
        return TermResult(key, f"{title} ({unit})", metric, results, refused)

    def identity(self) -> list[TermResult]:
        """Whether the other record of a patient is found, first and among ten; nothing is learnt."""
        task = self.data.labels
        copies = find_duplicates(task.recordings.rows)
        learnt = set(task.folds[0][0])
        ranks = {1: "first", 10: "among ten"}
        results: dict[int, Results] = {rank: {} for rank in ranks}
        for name, tables in self.clean.items():
            for rank in ranks:
                results[rank][name] = []
            for table in tables:
                train = table.features[[record_id in learnt for record_id in table.record_ids]]
                try:
                    found = match_identities(
                        *(table.features, table.patient_ids, table.record_ids),
                        train_features=train,
                        duplicates=copies,
                    )
                except ValueError as error:
                    return [self._missing(f"identity_at_{rank}", "identity", "share", str(error)) for rank in ranks]
                for rank in ranks:
                    scores = found.values[:, [(1, 5, 10).index(rank)]]
                    said = Predictions(scores, np.ones_like(scores), found.queries, found.patients)
                    result = ProtocolResult("identity", (f"found_{rank}",), "share", scores, None, said, {})
                    results[rank][name].append([result])
        return [
            TermResult(f"identity_at_{rank}", f"other record of a patient, {place}", "share", results[rank], {})
            for rank, place in ranks.items()
        ]

    def _missing(self, key: str, title: str, metric: str, cure: str) -> TermResult:
        reason = f"No recordings for it: give {cure}." if cure.startswith("--") else cure
        return TermResult(key, title, metric, {}, {row.name: reason for row in self.features.rows})

    def _whole(self, key: str, title: str, tables, refused) -> TermResult:
        task = self.data.labels
        results = {
            name: [[self._fit(task, table, task.folds[0])] for table in found] for name, found in tables.items()
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
        train = _of_records(table, fold[0])
        test = _of_records(table, fold[1]) if test is None else test
        truth = {
            split: np.stack([task.truth[record_id] for record_id in of_split.record_ids])
            for split, of_split in (("train", train), ("test", test))
            if split == "train" or test_truth is None
        }
        truth.setdefault("test", test_truth)
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
        path = self.features.folder / "linear" / f"{key.hexdigest()}.json"
        if not path.is_file():
            scores, C = linear_scores(frozen, C)
            write_atomically(path, json.dumps({"C": C, "scores": scores["test"].tolist()}))
        kept = json.loads(path.read_text(encoding="utf-8"))
        return np.array(kept["scores"]), kept["C"]

    def _cross_fit(self, task: Task, table: EmbeddingTable) -> ProtocolResult:
        """All folds of a task together, each told by the model of its training records."""
        parts = [self._fit(task, table, fold) for fold in task.folds]
        if len(parts) == 1:
            return parts[0]
        names = ("scores", "labels")
        arrays = {name: np.concatenate([vars(part.test)[name] for part in parts]) for name in names}
        ids = [record_id for part in parts for record_id in part.test.record_ids]
        patients = [patient for part in parts for patient in part.test.patient_ids]
        found = Predictions(arrays["scores"], arrays["labels"], ids, patients)
        details = {"C": [part.details["C"] for part in parts]}
        return ProtocolResult("linear", task.label_names, task.problem_type, found.labels, None, found, details)
