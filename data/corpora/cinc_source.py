"""Base of the corpora of the PhysioNet/CinC challenges 2020 and 2021.

Every source is a folder of WFDB records (`.hea` and MATLAB-4 `.mat`, 12 leads) whose headers state age, sex and SNOMED
CT codes (`#Dx: 164889003,59118001`). The sources differ in the names of their records, which are unique over all of
them. So a source is found by name in any folder that holds it, at any depth: the folders of the challenges
(`training/georgia/g1`), the flat ones of earlier releases, and the folders of PhysioNet (`WFDBRecords/01/010`).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..corpus import SPLITS, Corpus, IndexEntry
from ..formats.wfdb_comments import parse_comments
from ..formats.wfdb_header import read_header
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord
from .cinc_snomed import SNOMED_TASKS, snomed_label_names, snomed_labels
from .splits import split_by_hash
from .tables import walk, warn_if_partial

CHALLENGE_HOMEPAGE = "https://physionet.org/content/challenge-2021"
CHALLENGE_CITATION = (
    "Reyna MA, Sadr N, Perez Alday EA, et al. Will two do? Varying dimensions in electrocardiography: the "
    "PhysioNet/Computing in Cardiology Challenge 2021. CinC 2021;48. doi:10.23919/CinC53138.2021.9662687; "
    "Perez Alday EA, et al. Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge 2020. "
    "Physiol Meas 2020;41:124003. doi:10.1088/1361-6579/abc960"
)


@dataclass(frozen=True)
class CincSource:
    """One source of the challenges.

    Args:
        name (`str`): Name of the corpus, and in the column `source`.
        title (`str`): Title for people.
        prefix (`str`): The records are named by it and a number of ...
        digits (`int`): ... so many digits ...
        numbers (`range`): ... out of these.
        count (`int`): Number of records of the source.
        renamed (`dict`):
            Record under another name → its name elsewhere, by which it is split.
        patients (`dict`): Record id → patient, where known; a patient's recordings share a split.
        by_age_and_sex (`bool`):
            Split so, because patients have several recordings and it is not known which: recordings of equal age and
            sex, which may be of one patient, go to one split.
    """

    name: str
    title: str
    prefix: str
    digits: int
    count: int
    numbers: range = range(1, 10**6)
    renamed: Mapping[str, str] = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)
    by_age_and_sex: bool = False

    @property
    def example(self) -> str:
        """The name of the first record."""
        return f"{self.prefix}{self.numbers.start:0{self.digits}d}"

    def holds(self, record_id: str) -> bool:
        """Checks whether a record of this name belongs to the source."""
        number = record_id.removeprefix(self.prefix)
        is_number = len(number) == self.digits and number.isascii() and number.isdigit()
        regular = record_id.startswith(self.prefix) and is_number and int(number) in self.numbers
        return regular or record_id in self.renamed

    def entry(self, path: str, record_id: str) -> IndexEntry:
        """The record as the index lists it, with its split and, where known, its patient."""
        patient_id = self.patients.get(record_id)
        if patient_id is not None:
            key = f"{self.name}/patient{patient_id}"
        elif self.by_age_and_sex:
            key = self.age_and_sex(path)
        else:
            key = self.renamed.get(record_id, record_id)
        columns = {"source": self.name, "patient_id": patient_id}
        return IndexEntry(path, record_id, split_by_hash(key), columns)

    def age_and_sex(self, path: str) -> str:
        """The text by which recordings of equal age and sex are split, whatever the form of the headers. A header that
        cannot be read is reported when the record is."""
        try:
            stated = parse_comments(read_header(path).comments)
        except ValueError:
            stated = {}
        age, sex = stated.get("age"), stated.get("sex")
        return f"{self.name} {'' if age is None else format(age, 'g')} {sex or ''}"


def find_records(data_dir: Path, belongs: Callable[[str], bool], ending: str = ".hea") -> dict[str, str]:
    """Record id → path without ending of all records that belong, sorted by id.

    Raises:
        ValueError: if two files have the same record id.
    """
    found = {}
    for folder, files in walk(data_dir):
        for name in files:
            record_id = name.removesuffix(ending)
            if record_id == name or not belongs(record_id):
                continue
            path = os.path.join(folder, record_id)
            if record_id in found:
                raise ValueError(
                    f"Record {record_id} lies twice in {data_dir}: {found[record_id]} and {path}. Keep one."
                )
            found[record_id] = path
    return dict(sorted(found.items()))


def one_form(data_dir: Path, original: Mapping[str, str], of_challenge: Mapping[str, str]) -> bool:
    """Finds whether a folder holds a corpus in its original form, rather than in that of the challenges.

    Raises:
        ValueError: if it holds both, which are the same recordings.
    """
    if original and of_challenge:
        raise ValueError(
            f"{data_dir} holds the same recordings in two forms, for instance {next(iter(original.values()))} and "
            f"{next(iter(of_challenge.values()))}. Name the folder of one of them."
        )
    return bool(original)


def read_with_codes(entry: IndexEntry) -> EcgRecord:
    """Reads a record without deciding on its labels: the codes of its header are in the extra column `snomed_codes`.
    `entry.columns` count before what the header states."""
    record, comments = read_record(entry.path, entry.record_id)
    stated = parse_comments(comments)
    record.extra = {"snomed_codes": list(dict.fromkeys(stated.pop("labels")))}
    for name, value in (stated | dict(entry.columns)).items():
        setattr(record, name, value)
    return record


def read_cinc_record(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    """Reads a record. `labels` are the classes of `options["task"]`; `snomed_codes` has all codes, also those that are
    in no table."""
    record = read_with_codes(entry)
    record.labels = snomed_labels(record.extra["snomed_codes"], options["task"])
    return record


def snomed_features() -> dict[str, Any]:
    """The column beside the common ones: `snomed_codes`, the codes of the header as they are."""
    from datasets import List, Value

    return {"snomed_codes": List(Value("string"))}


def cinc_corpus(
    source: CincSource,
    homepage: str = CHALLENGE_HOMEPAGE,
    citation: str = CHALLENGE_CITATION,
    other_names: Sequence[str] = (),
) -> Corpus:
    """The corpus of one source, with the option `task`, one of `SNOMED_TASKS`. `other_names`: examples of records in a
    form that the caller reads."""

    def index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
        records = find_records(data_dir, source.holds)
        if not records:
            names = " or ".join((source.example, *other_names))
            raise ValueError(f"There are no records such as {names} in {data_dir} or below. {corpus.where_to_get()}")
        warn_if_partial(corpus, data_dir, len(records), source.count)
        return [source.entry(path, record_id) for record_id, path in records.items()]

    corpus = Corpus(
        name=source.name,
        description=f"{source.title} ({source.count:,} recordings)",
        homepage=homepage,
        licence="CC BY 4.0",
        citation=citation,
        options={"task": SNOMED_TASKS},
        splits=SPLITS,
        index=index,
        read=read_cinc_record,
        label_names=lambda options: snomed_label_names(options["task"]),
        extra_features=snomed_features,
    )
    return corpus
