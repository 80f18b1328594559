"""The recordings of a scoreboard and what is asked of them: labels, sex, age, intervals, another hospital's labels."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from datasets import Dataset

from ecg_transformers.data import Ecg, load_ecg
from ecg_transformers.data.corpora.npy_dump import read_declaration

from ..delineation.intervals import interval_targets
from ..features import EmbeddingTable, decoded
from ..results import MULTI_LABEL, REGRESSION
from ..tasks.targets import OLDEST_YEARS, SEXES
from .data import BadRecording, ComparisonData, DumpForm, ExtraSource

logger = logging.getLogger("ecg_transformers")

TEST_FOLDS = (9, 10)
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

    @classmethod
    def load(
        cls,
        labelled: ComparisonData,
        data_dir: str | None,
        people: ExtraSource | None = None,
        ludb: str | None = None,
        hospital: ExtraSource | None = None,
    ) -> "ScoreboardData":
        """Loads the recordings beside the labelled corpus; `data_dir` is where that one lies."""
        form = DumpForm(read_declaration(data_dir)) if labelled.name == "npy" else None
        others = [None if source is None else source.load() for source in (people, hospital)]
        of_ludb = None if ludb is None else load_ecg("ludb", ludb, split="all", decode=False)
        return cls(labelled, others[0], of_ludb, others[1], None if form and form.dump.unit == "mV" else form)


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

    def only(self, label_names: Sequence[str]) -> "Task":
        """The task with some of its labels."""
        columns = [self.label_names.index(name) for name in label_names]
        truth = {record_id: values[columns] for record_id, values in self.truth.items()}
        return replace(self, truth=truth, label_names=tuple(label_names))


def label_task(data: ComparisonData) -> Task:
    """The labels of the labelled corpus."""
    train, *tested = (list(part["record_id"]) for part in (data.train, data.validation, data.test))
    return _multi_label(
        Recordings("labelled", data.labelled), data.labelled["labels"], data.label_names, train, tested
    )


def _multi_label(recordings: Recordings, labels, names: Sequence[str], train, tested) -> Task:
    known = zip(recordings.rows["record_id"], labels, strict=True)
    truth = {record_id: np.array([name in found for name in names], np.int8) for record_id, found in known}
    return Task(recordings, truth, tuple(names), MULTI_LABEL, [(train, sum(tested, []))])


def people_task(recordings: Recordings, target: str) -> Task | None:
    """The `"sex"` (one label, `male`) or `"age"` of people with folds; `None` where no such person is in the folds
    that teach or in those that test."""
    rows, truth, folds = recordings.rows, {}, ([], [])
    for record_id, value, fold in zip(rows["record_id"], rows[target], rows["fold"], strict=True):
        is_known = value in SEXES if target == "sex" else value is not None and 0 <= value <= OLDEST_YEARS
        if is_known and fold is not None:
            is_male = np.array([value == SEXES[1]], np.int8)
            truth[record_id] = is_male if target == "sex" else np.array([value], float)
            folds[fold in TEST_FOLDS].append(record_id)
    about = (("male",), MULTI_LABEL) if target == "sex" else (("age_years",), REGRESSION)
    return Task(recordings, truth, *about, [folds]) if all(folds) else None


def interval_task(recordings: Recordings) -> Task:
    """Heart rate and intervals of the marks of LUDB; each of its folds is predicted by the others."""
    targets = interval_targets(recordings.rows)
    rows = zip(recordings.rows["record_id"], recordings.rows["fold"], zip(*targets.values(), strict=True), strict=True)
    known = [(record_id, fold, np.array(values)) for record_id, fold, values in rows if np.isfinite(values).all()]
    folds = [
        tuple([record_id for record_id, fold, _ in known if (fold == number) == tested] for tested in (False, True))
        for number in sorted({fold for _, fold, _ in known})
    ]
    truth = {record_id: values for record_id, _, values in known}
    return Task(recordings, truth, tuple(targets), REGRESSION, folds)


def hospital_task(recordings: Recordings, labels: Task) -> Task:
    """Superclasses of another hospital, those with at least 5 records; the labelled corpus teaches them."""
    found = [superclasses_of_codes(codes) for codes in recordings.rows["labels"]]
    names = [name for name in labels.label_names if sum(name in of_record for of_record in found) >= MIN_POSITIVES]
    return _multi_label(recordings, found, names, labels.folds[0][0], [list(recordings.rows["record_id"])])


def superclasses_of_codes(codes: Sequence[str]) -> list[str]:
    """Superclasses of a record of the challenges, by its SNOMED CT codes."""
    if codes and set(codes) <= NORMAL_RHYTHMS:
        return ["NORM"]
    return [name for name, listed in SUPERCLASS_CODES.items() if set(codes) & set(listed.split())]
