"""The recordings of a scoreboard: a labelled corpus with folds, people, marked waves, another hospital."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from datasets import Dataset

from ecg_transformers.data import Ecg, load_ecg
from ecg_transformers.data.corpora.npy_dump import read_declaration

from ..delineation.intervals import interval_targets
from ..features import EmbeddingTable, decoded
from ..results import MULTI_LABEL, REGRESSION
from ..tasks.labelled_splits import SPLITS
from ..tasks.targets import OLDEST_YEARS, SEXES
from .data import BadRecording, ComparisonData, DumpForm, ExtraSource

logger = logging.getLogger("ecg_transformers")

TEST_FOLDS = (9, 10)
LUDB_FOLDS = (1, 2, 3, 4, 5)
MIN_POSITIVES = 5
"""Least number for a class in another hospital; with fewer it is not tested."""

NORMAL_RHYTHMS = {"426783006", "426177001", "427084000", "427393009"}
"""Sinus rhythm, bradycardia, tachycardia, arrhythmia: a record that states nothing else is NORM."""
SUPERCLASS_CODES = {
    "MI": "164865005 57054005 54329005",
    "STTC": "55930002 428750005 164934002 59931005 429622005 164930006 111975006 425419005 425623009 426434006",
    "CD": "164909002 733534002 251120003 59118001 713427006 713426002 445118002 445211001 698252002 6374002 270492004 "
    "195042002 54016002 426183003 28189009 27885002 233917008 74390002",
    "HYP": "164873001 89792004 67741000119109 446813000 446358003 195126007 266249003",
}
"""SNOMED CT codes of the PhysioNet challenges by superclass of PTB-XL, where the statement alone gives the superclass
there too: infarction; changes of ST and T, ischaemia, long QT; blocks, delays and pre-excitation; hypertrophy and
overload. Statements of form (Q waves, high voltage, ST elevation, axis) and rhythm have no superclass in PTB-XL."""


def superclasses_of_codes(codes: Sequence[str]) -> list[str]:
    """Superclasses of a record of the challenges, by its SNOMED CT codes."""
    if codes and set(codes) <= NORMAL_RHYTHMS:
        return ["NORM"]
    return [name for name, listed in SUPERCLASS_CODES.items() if set(codes) & set(listed.split())]


@dataclass(frozen=True)
class Recordings:
    """Stored rows that are decoded for encoders; `form` brings those in mV to the form of the labelled ones."""

    name: str
    rows: Dataset
    form: DumpForm | None = None

    def __iter__(self) -> Iterator[dict]:
        return iter(decoded(self.rows) if self.form is None else self._formed)

    @cached_property
    def _formed(self) -> list[dict]:
        """Decoded rows in the form, made once."""
        formed = []
        for row in self.rows:
            try:
                formed.append(row | {"ecg": Ecg().decode_example(self.form(row["ecg"], row["record_id"]))})
            except BadRecording as error:
                logger.warning("Record %s is left out: %s", row["record_id"], error)
        return formed


@dataclass(frozen=True)
class Task:
    """A target of some recordings.

    Args:
        recordings (`Recordings`): Those that state the target, and perhaps others.
        truth (`dict[str, np.ndarray]`): Truth by record id: 0 or 1 for each label, or the values of a regression.
        label_names (`tuple[str, ...]`), problem_type (`str`): Names and type of the target.
        folds (`list[tuple[list[str], list[str]]]`):
            Record ids to learn from and to test on; with several folds every record is tested once.
    """

    recordings: Recordings
    truth: Mapping[str, np.ndarray]
    label_names: tuple[str, ...]
    problem_type: str
    folds: list[tuple[list[str], list[str]]]

    def truth_of(self, table: EmbeddingTable) -> np.ndarray:
        """Truth of the records of a table."""
        return np.stack([self.truth[record_id] for record_id in table.record_ids])


@dataclass(frozen=True)
class ScoreboardData:
    """Recordings of a scoreboard; sets that are not given make their terms not available.

    Args:
        labelled ([`ComparisonData`]): The labelled corpus: folds 1-8 teach, 9 and 10 test.
        people (`Dataset`, *optional*): Rows with folds, age and sex; by default those of the labelled corpus.
        ludb (`Dataset`, *optional*): All rows of LUDB.
        hospital (`Dataset`, *optional*): Rows of another hospital whose labels are SNOMED CT codes.
        form (`DumpForm`, *optional*): Form of the labelled corpus, where its recordings are not in mV.
    """

    labelled: ComparisonData
    people: Dataset | None = None
    ludb: Dataset | None = None
    hospital: Dataset | None = None
    form: DumpForm | None = None

    @cached_property
    def labels(self) -> Task:
        """The labels of the labelled corpus."""
        parts = [vars(self.labelled)[split] for split in SPLITS]
        names = tuple(self.labelled.label_names)
        rows = self.labelled.labelled
        truth = {
            record_id: np.array([name in labels for name in names], np.int8)
            for record_id, labels in zip(rows["record_id"], rows["labels"], strict=True)
        }
        train, *tested = (list(part["record_id"]) for part in parts)
        recordings = Recordings("labelled", rows)
        return Task(recordings, truth, names, MULTI_LABEL, [(train, sum(tested, []))])

    @cached_property
    def sex(self) -> Task | None:
        """Sex as one label, `male`, of people with folds."""
        return self._of_people("sex", lambda row: [row == SEXES[1]] if row in SEXES else None, ("male",), MULTI_LABEL)

    @cached_property
    def age(self) -> Task | None:
        def years(age):
            return [age] if age is not None and 0 <= age <= OLDEST_YEARS else None

        return self._of_people("age", years, ("age_years",), REGRESSION)

    def _of_people(self, column: str, value_of, names: tuple[str, ...], problem_type: str) -> Task | None:
        rows = self.labels.recordings.rows if self.people is None else self.people
        kind = np.int8 if problem_type == MULTI_LABEL else float
        truth, folds = {}, ([], [])
        for record_id, value, fold in zip(rows["record_id"], rows[column], rows["fold"], strict=True):
            known = value_of(value)
            if known is not None and fold is not None:
                truth[record_id] = np.array(known, dtype=kind)
                folds[fold in TEST_FOLDS].append(record_id)
        if not all(folds):
            return None
        return Task(self._people, truth, names, problem_type, [folds])

    @cached_property
    def _people(self) -> Recordings:
        return self.labels.recordings if self.people is None else Recordings("people", self.people, self.form)

    @cached_property
    def intervals(self) -> Task | None:
        """Heart rate and intervals of the marks of LUDB; each of its five folds is predicted by the four others."""
        if self.ludb is None:
            return None
        targets = interval_targets(self.ludb)
        table = np.column_stack(list(targets.values()))
        known = np.isfinite(table).all(axis=1)
        ids, of_row = self.ludb["record_id"][:], self.ludb["fold"][:]
        truth = {record_id: values for record_id, values, is_known in zip(ids, table, known, strict=True) if is_known}
        kept = [(record_id, fold) for record_id, fold in zip(ids, of_row, strict=True) if record_id in truth]
        folds = [
            tuple([r for r, fold in kept if (fold == n) == tested] for tested in (False, True)) for n in LUDB_FOLDS
        ]
        recordings = Recordings("ludb", self.ludb, self.form)
        return Task(recordings, truth, tuple(targets), REGRESSION, folds)

    @cached_property
    def other_hospital(self) -> Task | None:
        """Superclasses of another hospital, those with at least 5 records; the labelled corpus teaches them."""
        if self.hospital is None:
            return None
        rows, names = self.hospital, self.labels.label_names
        found = [superclasses_of_codes(codes) for codes in rows["labels"]]
        truth = {
            record_id: np.array([name in of_record for name in names], np.int8)
            for record_id, of_record in zip(rows["record_id"], found, strict=True)
        }
        counts = np.sum(list(truth.values()), axis=0)
        evaluated = tuple(name for name, count in zip(names, counts, strict=True) if count >= MIN_POSITIVES)
        if not evaluated:
            return None
        columns = [names.index(name) for name in evaluated]
        truth = {record_id: values[columns] for record_id, values in truth.items()}
        folds = [(self.labels.folds[0][0], list(truth))]
        return Task(Recordings("hospital", rows, self.form), truth, evaluated, MULTI_LABEL, folds)


def load_scoreboard_data(
    labelled: ComparisonData,
    data_dir: str | None,
    people: ExtraSource | None = None,
    ludb: str | None = None,
    hospital: ExtraSource | None = None,
) -> ScoreboardData:
    """Loads the recordings beside the labelled corpus; `data_dir` is where that one lies."""
    form = DumpForm(read_declaration(data_dir)) if labelled.name == "npy" else None
    if form is not None and form.dump.unit == "mV":
        form = None
    found = {}
    for name, source in (("people", people), ("hospital", hospital)):
        if source is not None:
            found[name] = source.load()
    if ludb is not None:
        found["ludb"] = load_ecg("ludb", ludb, split="all", decode=False)
    return ScoreboardData(labelled, form=form, **found)
