"""SaMi-Trop: 1,631 twelve-lead exams at 400 Hz of patients with chronic Chagas cardiomyopathy, with their mortality.

Layouts: `exams.csv` and `exams.hdf5` as published (row by row in the same order, see `hdf5_exams.py`), or WFDB as the
PhysioNet Challenge 2025 converts it (see `chagas_wfdb.py`).

All are Chagas-positive by serology, so the label teaches nothing without another corpus beside it, and `normal_ecg` is
a normal tracing of a patient, no healthy control. Patients are not stated (the release is the first exam of each):
split by a hash of the exam.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..records import EcgRecord
from .chagas_wfdb import CHAGAS_LABELS, chagas_labels, extra_features, read_chagas_record
from .hdf5_exams import count_exams, read_exam
from .splits import split_by_hash
from .tables import check_unique, fill_in, header_paths, index_rows, number, truth, warn_if_partial

EXPECTED_COUNT = 1631


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    tracings = data_dir / "exams.hdf5"
    entries = _index_hdf5(data_dir, tracings) if tracings.is_file() else _index_wfdb(data_dir)
    warn_if_partial(SAMI_TROP, data_dir, len(entries), EXPECTED_COUNT)
    return entries


def _index_hdf5(data_dir: Path, tracings: Path) -> list[IndexEntry]:
    rows = iter(range(count_exams(str(tracings))))

    def entry_of(row: Mapping[str, str]) -> IndexEntry:
        exam, position = row["exam_id"].strip(), next(rows, None)
        columns = {
            "labels": chagas_labels(True),
            "age": number(row["age"]),
            "sex": {True: "male", False: "female"}.get(truth(row["is_male"])),
            "extra": {
                "chagas": True,
                "normal_ecg": truth(row["normal_ecg"]),
                "death": truth(row["death"]),
                "timey": number(row["timey"]),
            },
        }
        return IndexEntry(f"{tracings}#{position}", exam, split_by_hash(exam), columns)

    needed = ("exam_id", "age", "is_male", "normal_ecg", "death", "timey")
    entries, num_listed = index_rows(data_dir / "exams.csv", SAMI_TROP, needed, entry_of)
    if num_listed != count_exams(str(tracings)):
        raise ValueError(
            f"{data_dir / 'exams.csv'} lists {num_listed} exams, {tracings} holds {count_exams(str(tracings))}. They "
            "belong together row by row, so a table that is not of this file would give every exam another's columns."
        )
    return entries


def _index_wfdb(data_dir: Path) -> list[IndexEntry]:
    paths = list(header_paths(data_dir))
    check_unique((path.name for path in paths), data_dir)
    return [IndexEntry(str(path), path.name, split_by_hash(path.name)) for path in paths]


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    path, _, row = entry.path.rpartition("#")
    if path.endswith(".hdf5"):
        return fill_in(read_exam(path, int(row), entry.record_id), entry, SAMI_TROP.name)
    return read_chagas_record(entry, SAMI_TROP.name, "chagas")


SAMI_TROP = Corpus(
    name="sami-trop",
    description="SaMi-Trop (1,631 exams)",
    homepage="https://zenodo.org/records/4905618",
    licence="CC BY 4.0",
    citation=(
        "Lima EM, Ribeiro AH, Paixão GMM, et al. Deep neural network-estimated electrocardiographic age as a "
        "mortality predictor. Nat Commun 2021;12:5117. doi:10.1038/s41467-021-25351-7; Cardoso CS, Sabino EC, "
        "Oliveira CDL, et al. Longitudinal study of patients with chronic Chagas cardiomyopathy in Brazil (SaMi-Trop "
        "project): a cohort profile. BMJ Open 2016;6:e011181; Zenodo doi:10.5281/zenodo.4905618"
    ),
    options={"task": ("chagas",)},
    splits=("train", "validation", "test"),
    index=_index,
    read=_read,
    label_names=lambda options: CHAGAS_LABELS,
    extra_features=extra_features,
)
