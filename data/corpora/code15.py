"""CODE-15%: 345,779 twelve-lead exams of 233,770 patients at 400 Hz, with six diagnoses, from Minas Gerais, Brazil.

Three layouts of a folder are known:

- as published: `exams.csv` and `exams_part0.hdf5` to `exams_part17.hdf5`; some of the parts will do,
- WFDB, as the PhysioNet Challenge 2025 converts it (see `chagas_wfdb.py`), anywhere below the folder,
- `meta.csv` and `org/*.mat`, as the preparation of ECG-FM writes it.

No label does not mean a normal ECG: half of the exams (173,347) have none of the six diagnoses and are not
`normal_ecg` either. `death` and `timey` are null where nobody followed up, which does not mean survival.

Amplitudes run about twice those of PTB-XL and are handed on as they are; `hdf5_exams.py` says what is known of their
unit, and that the zeros around an exam are cut off.

Split by a hash of the patient. A few exams were published twice under different patients, which no such split can see.

Chagas labels are self-reported. They stand in WFDB headers, or in `code15_chagas_labels.csv` of the challenge.
"""

import ast
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..formats.limits import LIBRARY_ERRORS, check_num_values
from ..formats.wfdb_comments import parse_comments
from ..formats.wfdb_header import read_header
from ..records import EcgRecord
from ..safe_paths import inside
from .chagas_wfdb import CHAGAS_LABELS, chagas_labels, extra_features, read_chagas_record
from .hdf5_exams import SAMPLING_RATE, exam_rows, read_exam
from .splits import split_by_hash
from .tables import (
    check_unique,
    file_names,
    fill_in,
    header_paths,
    index_rows,
    number,
    read_rows,
    truth,
    warn_if_partial,
)

logger = logging.getLogger(__name__)

DIAGNOSES = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")
TASKS = ("diagnosis", "chagas")
EXPECTED_COUNT = 345_779
CHAGAS_TABLE = "code15_chagas_labels.csv"
COLUMNS = ("exam_id", "age", "is_male", *DIAGNOSES, "patient_id")


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    num_listed = None
    if any(name.startswith("exams_part") for name in file_names(data_dir, ".hdf5")):
        entries, num_listed = _index_hdf5(data_dir, options["task"])
    elif (data_dir / "meta.csv").is_file():
        entries, num_listed = _index_mat(data_dir, options["task"])
    else:
        entries = _index_wfdb(data_dir, options["task"])
    warn_if_partial(CODE15, data_dir, len(entries), EXPECTED_COUNT, num_listed)
    return entries


def _columns(row: Mapping[str, str], task: str, chagas: Mapping[str, bool]) -> dict[str, Any]:
    exam = row["exam_id"].strip()
    diagnoses = [name for name in DIAGNOSES if truth(row[name])]
    return {
        "patient_id": row["patient_id"].strip(),
        "labels": diagnoses if task == "diagnosis" else chagas_labels(chagas.get(exam)),
        "age": number(row["age"]),
        "sex": {True: "male", False: "female"}.get(truth(row["is_male"])),
        "extra": {
            "chagas": chagas.get(exam),
            "normal_ecg": truth(row.get("normal_ecg", "")),
            "death": truth(row.get("death", "")),
            "timey": number(row.get("timey", "")),
        },
    }


def _read_chagas_table(data_dir: Path, task: str) -> dict[str, bool]:
    table = data_dir / CHAGAS_TABLE
    if not table.is_file() and task != "chagas":
        return {}
    rows = read_rows(table, CODE15, ("exam_id", "chagas"))
    return {row["exam_id"].strip(): truth(row["chagas"]) for row in rows}


def _index_hdf5(data_dir: Path, task: str) -> tuple[list[IndexEntry], int]:
    chagas, parts = _read_chagas_table(data_dir, task), {}

    def entry_of(row: Mapping[str, str]) -> IndexEntry | None:
        exam, name = row["exam_id"].strip(), row["trace_file"].strip()
        if name not in parts:
            path = inside(os.fspath(data_dir), name)
            parts[name] = (path, exam_rows(path) if os.path.isfile(path) else {})
        path, exams = parts[name]
        if int(exam) not in exams:
            return None
        columns = _columns(row, task, chagas)
        return IndexEntry(f"{path}#{exams[int(exam)]}", exam, split_by_hash(columns["patient_id"]), columns)

    entries, num_listed = index_rows(data_dir / "exams.csv", CODE15, (*COLUMNS, "trace_file"), entry_of)
    # In the order of the files, so that a reader goes through each of them once.
    entries.sort(key=lambda entry: (entry.path.rpartition("#")[0], int(entry.path.rpartition("#")[2])))
    return entries, num_listed


def _index_wfdb(data_dir: Path, task: str) -> list[IndexEntry]:
    paths = list(header_paths(data_dir))
    if not paths:
        raise ValueError(
            f"{data_dir} holds neither exams_part*.hdf5 nor WFDB headers (*.hea) nor a meta.csv with org/*.mat. "
            f"{CODE15.where_to_get()}"
        )
    check_unique((path.name for path in paths), data_dir)
    table, known = data_dir / "exams.csv", {}
    if table.is_file():
        wanted = {path.name for path in paths}
        rows = read_rows(table, CODE15, COLUMNS)
        known = {row["exam_id"]: _columns(row, "diagnosis", {}) for row in rows if row["exam_id"] in wanted}
        if task == "diagnosis" and len(known) < len(paths):
            logger.warning("%d exams of %s are not in its exams.csv and left out.", len(paths) - len(known), data_dir)
            paths = [path for path in paths if path.name in known]
    elif task == "diagnosis":
        raise ValueError(
            f"WFDB headers of CODE-15 state no diagnoses. Put the corpus's exams.csv into {data_dir}, or load it with "
            'task="chagas", whose labels the headers state.'
        )
    entries = []
    for path in paths:
        columns = known.get(path.name) or {"patient_id": _patient_of_header(path)}
        if task == "chagas":
            columns.pop("labels", None)
        split = split_by_hash(columns["patient_id"] or path.name)
        entries.append(IndexEntry(str(path), path.name, split, columns))
    return entries


def _patient_of_header(path: Path) -> str | None:
    """The patient that decides about the split. A header that cannot be read is reported when its record is."""
    try:
        return parse_comments(read_header(path).comments).get("patient_id")
    except ValueError:
        return None


def _index_mat(data_dir: Path, task: str) -> tuple[list[IndexEntry], int]:
    present, chagas = file_names(data_dir / "org", ".mat"), _read_chagas_table(data_dir, task)

    def entry_of(row: Mapping[str, str]) -> IndexEntry | None:
        if row["save_file"].removesuffix(".mat") not in present:
            return None
        path, columns = inside(os.fspath(data_dir / "org"), row["save_file"]), _columns(row, task, chagas)
        columns["leads"] = tuple(ast.literal_eval(row["lead_order"]))
        return IndexEntry(path, row["exam_id"].strip(), split_by_hash(columns["patient_id"]), columns)

    return index_rows(data_dir / "meta.csv", CODE15, (*COLUMNS, "save_file", "lead_order"), entry_of)


def _read_mat(entry: IndexEntry) -> EcgRecord:
    """`feats` (12, samples) of a MATLAB file, float32 in the units of the published HDF5 files."""
    import scipy.io

    try:
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(entry.path)}
        check_num_values(entry.path, shapes["feats"])
        arrays = scipy.io.loadmat(entry.path, variable_names=("feats", "curr_sample_rate"))
        signal, rate = arrays["feats"], float(arrays["curr_sample_rate"].item())
    except LIBRARY_ERRORS as error:
        raise ValueError(f"Cannot read {entry.path}: {type(error).__name__}: {error}") from error
    if rate != SAMPLING_RATE:
        raise ValueError(f"Expected {entry.path} at {SAMPLING_RATE:g} Hz, its curr_sample_rate is {rate:g}.")
    return EcgRecord(entry.record_id, signal, entry.columns["leads"], rate)


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    path, _, row = entry.path.rpartition("#")
    if path.endswith(".hdf5"):
        return fill_in(read_exam(path, int(row), entry.record_id), entry, CODE15.name)
    if entry.path.endswith(".mat"):
        known = {name: value for name, value in entry.columns.items() if name != "leads"}
        return fill_in(_read_mat(entry), IndexEntry(entry.path, entry.record_id, entry.split, known), CODE15.name)
    return read_chagas_record(entry, CODE15.name, options["task"])


CODE15 = Corpus(
    name="code-15",
    description="CODE-15% (345,779 exams of 233,770 patients, about 70 GB unpacked)",
    homepage="https://zenodo.org/records/4916206",
    licence="CC BY 4.0",
    citation=(
        "Ribeiro AH, Ribeiro MH, Paixão GMM, et al. Automatic diagnosis of the 12-lead ECG using a deep neural "
        "network. Nat Commun 2020;11:1760. doi:10.1038/s41467-020-15432-4; Ribeiro AH, Paixão GMM, Lima EM, et al. "
        "CODE-15%: a large scale annotated dataset of 12-lead ECGs. Zenodo 2021. doi:10.5281/zenodo.4916206"
    ),
    options={"task": TASKS},
    splits=("train", "validation", "test"),
    index=_index,
    read=_read,
    label_names=lambda options: DIAGNOSES if options["task"] == "diagnosis" else CHAGAS_LABELS,
    extra_features=extra_features,
)
