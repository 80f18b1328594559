"""PTB-XL: 21,799 clinical 12-lead recordings of 10 s with SCP-ECG statements, in ten folds by patient."""

import ast
import csv
import logging
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..safe_paths import inside
from .wfdb_folder import wfdb_readers

logger = logging.getLogger(__name__)

SINGLE_LABEL_TASK = "superdiagnostic_single"
TASKS = ("superdiagnostic", "all", "diagnostic", "subdiagnostic", "form", "rhythm", SINGLE_LABEL_TASK)
EXPECTED_COUNTS = (21799, 21837)  # versions 1.0.3 and 1.0.1
SAMPLE_FOLDER = Path(__file__).parents[1] / "ptb_xl_sample"
CITATION = (
    "Wagner P, Strodthoff N, Bousseljot R-D, Kreiseler D, Lunze FI, Samek W, Schaeffter T. PTB-XL, a large publicly "
    "available electrocardiography dataset. Sci Data 2020;7:154. doi:10.1038/s41597-020-0495-6; "
    "PhysioNet doi:10.13026/kfzx-aw45"
)


@lru_cache(maxsize=1)
def _statements() -> dict[str, dict[str, str]]:
    """The rows of the corpus's own `scp_statements.csv`, which the package carries, by SCP code."""
    with open(SAMPLE_FOLDER / "scp_statements.csv", newline="", encoding="utf-8") as file:
        return {row[""]: row for row in csv.DictReader(file)}


def statement_descriptions() -> dict[str, str]:
    """Description of each SCP code in words, as `scp_statements.csv` has it."""
    return {code: row["description"] for code, row in _statements().items()}


@lru_cache(maxsize=len(TASKS))
def _classes_by_code(task: str) -> dict[str, str]:
    """SCP code → class of the task, for the codes that belong to it."""
    task = "superdiagnostic" if task == SINGLE_LABEL_TASK else task
    column = {
        "superdiagnostic": "diagnostic_class",
        "subdiagnostic": "diagnostic_subclass",
        "all": "",
        "diagnostic": "",
        "form": "",
        "rhythm": "",
    }[task]
    flag = "diagnostic" if task.endswith("diagnostic") else task
    rows = _statements().items()
    return {code: row[column] for code, row in rows if (task == "all" or row[flag] == "1.0") and row[column]}


def ptb_xl_label_names(task: str = "superdiagnostic") -> tuple[str, ...]:
    """The classes of a task, in alphabetical order: 71, 44, 23, 5, 19 and 12 of `all`, `diagnostic`, `subdiagnostic`,
    `superdiagnostic`, `form` and `rhythm`. `superdiagnostic_single` has the five superclasses, but only the records
    that belong to exactly one of them (16,244 of version 1.0.3; 411 belong to none and 5,144 to several)."""
    return tuple(sorted(set(_classes_by_code(task).values())))


def ptb_xl_labels(scp_codes: Iterable[str], task: str = "superdiagnostic") -> list[str]:
    """The classes of a record, sorted. Any code that is listed counts, whatever its likelihood (as in the benchmark of
    Strodthoff et al., 2021); 0 there means "not stated"."""
    classes = _classes_by_code(task)
    return sorted({classes[code] for code in scp_codes if code in classes})


def split_of_fold(fold: int) -> str:
    """Folds 1-8 train, 9 validates, 10 tests, as the authors recommend."""
    if not 1 <= fold <= 10:
        raise ValueError(f"Expected a fold from 1 to 10, got {fold}.")
    return {9: "validation", 10: "test"}.get(fold, "train")


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    table = data_dir / "ptbxl_database.csv"
    if not table.is_file():
        raise ValueError(f"There is no ptbxl_database.csv in {data_dir}. {PTB_XL.where_to_get()}")
    file_column = {100: "filename_lr", 500: "filename_hr"}[options["sampling_rate"]]
    entries = []
    with open(table, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                path = inside(os.fspath(data_dir), row[file_column])  # a table comes with the data, as headers do
                entries.append(_entry(row, Path(path), options["task"]))
            except (KeyError, ValueError, SyntaxError, TypeError, AttributeError, OverflowError) as error:
                line = f"row {len(entries) + 1} (ecg_id {row.get('ecg_id')})"
                raise ValueError(f"{table}: {line} cannot be read: {type(error).__name__}: {error}") from error
    if len(entries) not in EXPECTED_COUNTS:
        logger.warning(
            "%s is a partial copy of PTB-XL: it lists %d records, the corpus has %d.",
            *(data_dir, len(entries), EXPECTED_COUNTS[0]),
        )
    if options["task"] == SINGLE_LABEL_TASK:
        listed, entries = entries, [entry for entry in entries if len(entry.columns["labels"]) == 1]
        logger.info("%d of %d records belong to exactly one superclass and are kept.", len(entries), len(listed))
    return entries


def _entry(row: Mapping[str, str], path: Path, task: str) -> IndexEntry:
    codes = ast.literal_eval(row["scp_codes"])
    fold = int(row["strat_fold"])
    columns = {
        "patient_id": str(int(float(row["patient_id"]))),
        "labels": ptb_xl_labels(codes, task),
        "fold": fold,
        "age": float(row["age"]) if row["age"] else None,
        "sex": {"0": "male", "1": "female"}.get(row["sex"]),
        "extra": {"scp_codes": list(codes), "scp_likelihoods": [float(value) for value in codes.values()]},
    }
    return IndexEntry(str(path), f"{int(row['ecg_id']):05d}", split_of_fold(fold), columns)


def _sample_rows(split: str, options: Mapping[str, Any]):
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.parquet.read_table(SAMPLE_FOLDER / "ptb_xl_sample.parquet")
    if split != "all":
        table = table.filter(pa.array([split_of_fold(fold) == split for fold in table["fold"].to_pylist()]))
    labels = [ptb_xl_labels(codes, options["task"]) for codes in table["scp_codes"].to_pylist()]
    if options["task"] == SINGLE_LABEL_TASK:
        table = table.filter(pa.array([len(classes) == 1 for classes in labels]))
        labels = [classes for classes in labels if len(classes) == 1]
    column = table.column_names.index("labels")
    return table.set_column(column, "labels", pa.array(labels, pa.list_(pa.string())))


def ptb_xl_features() -> dict[str, Any]:
    """Columns beside the common ones: `scp_codes` and their `scp_likelihoods` (percent, 0 = not stated)."""
    from datasets import List, Value

    return {"scp_codes": List(Value("string")), "scp_likelihoods": List(Value("float32"))}


# Ages are as published: 300 stands for older than 89 years. Version 1.0.1 lists 38 records more than 1.0.3, among them
# exact duplicates; every row of the folder's own table is served.
PTB_XL = Corpus(
    name="ptb-xl",
    description="PTB-XL (21,799 recordings, 1.7 GB)",
    homepage="https://physionet.org/content/ptb-xl",
    licence="CC BY 4.0",
    citation=CITATION,
    options={"task": TASKS, "sampling_rate": (100, 500)},
    splits=("train", "validation", "test"),
    index=_index,
    **wfdb_readers(lambda entry, comments: entry.columns | {"source": "ptb-xl"}),
    label_names=lambda options: ptb_xl_label_names(options["task"]),
    extra_features=ptb_xl_features,
)

PTB_XL_SAMPLE = Corpus(
    name="ptb-xl-sample",
    description="PTB-XL, its first 500 recordings at 100 Hz without five duplicates",
    homepage=PTB_XL.homepage,
    licence=PTB_XL.licence,
    citation=CITATION,
    options={"task": TASKS, "sampling_rate": (100,)},
    splits=PTB_XL.splits,
    label_names=PTB_XL.label_names,
    extra_features=ptb_xl_features,
    stored_rows=_sample_rows,
)
