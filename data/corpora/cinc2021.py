"""CinC2021: all 88,253 training recordings of the PhysioNet/CinC Challenge 2021, eight corpora under one root.

The Challenge 2020 is the first six of them (43,101 recordings); a folder of it is complete too. The column `source`
names the corpus of each recording, and each is split as its own corpus splits it, so that `load_ecg("georgia")` and
this one agree. In particular:

- CPSC2018, CPSC-Extra, Georgia, Chapman-Shaoxing and Ningbo state no patients: each recording by its own name.
- INCART: by patient. PTB: by age and sex, so that a patient's recordings stay together.
- PTB-XL (HR00001 is its `ecg_id` 1) has several recordings of some patients and copies of 38 recordings, and the
  headers tell neither. With `ptb_xl_table`, the path of its `ptbxl_database.csv`, patients and folds come from there,
  and recordings that the table does not list (version 1.0.3 withdrew the copies) are left out. Without the table each
  is split by its own name, and patients lie on both sides.

The sources are published corpora of their own: what is trained on these recordings must not be tested on those.
"""

import csv
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..corpus import SPLITS, Corpus, IndexEntry
from .chapman_shaoxing import CHAPMAN_SHAOXING_SOURCE
from .cinc_snomed import SNOMED_TASKS, snomed_label_names
from .cinc_source import (
    CHALLENGE_CITATION,
    CHALLENGE_HOMEPAGE,
    CincSource,
    find_records,
    read_cinc_record,
    snomed_features,
)
from .cpsc2018 import CPSC2018_SOURCE
from .cpsc_extra import CPSC_EXTRA_SOURCE
from .georgia import GEORGIA_SOURCE
from .incart import INCART_SOURCE
from .ningbo import NINGBO_SOURCE
from .ptb import PTB_SOURCE
from .ptb_xl import split_of_fold

logger = logging.getLogger(__name__)

PTB_XL_SOURCE = CincSource("ptb-xl", "PTB-XL", "HR", 5, count=21837)
SOURCES_2020 = (CPSC2018_SOURCE, CPSC_EXTRA_SOURCE, INCART_SOURCE, PTB_SOURCE, PTB_XL_SOURCE, GEORGIA_SOURCE)
SOURCES = (*SOURCES_2020, CHAPMAN_SHAOXING_SOURCE, NINGBO_SOURCE)


def source_of(record_id: str) -> CincSource | None:
    """The source whose records are named so; `None` if there is none."""
    return next((source for source in SOURCES if source.holds(record_id)), None)


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    records = find_records(data_dir, lambda record_id: source_of(record_id) is not None)
    if not records:
        examples = ", ".join(f"{source.example}.hea" for source in SOURCES)
        raise ValueError(
            f"There are no records such as {examples} in {data_dir} or below it. {CINC2021.where_to_get()}"
        )
    folds = _read_folds(options["ptb_xl_table"])
    entries, found, unlisted = [], dict.fromkeys((source.name for source in SOURCES), 0), 0
    for record_id, path in records.items():
        source = source_of(record_id)
        found[source.name] += 1
        entry = source.entry(path, record_id)
        if source is PTB_XL_SOURCE and folds is not None:
            if int(record_id.removeprefix(source.prefix)) not in folds:
                unlisted += 1
                continue
            patient_id, fold = folds[int(record_id.removeprefix(source.prefix))]
            columns = {"source": source.name, "patient_id": patient_id, "fold": fold}
            entry = IndexEntry(path, record_id, split_of_fold(fold), columns)
        entries.append(entry)
    _say_what_is_absent(data_dir, found)
    if unlisted:
        logger.warning(
            "%d recordings of PTB-XL are left out: %s does not list them. (Version 1.0.3 withdrew 38 copies.)",
            *(unlisted, options["ptb_xl_table"]),
        )
    elif found["ptb-xl"] and folds is None:
        logger.warning(
            "The headers of PTB-XL's recordings do not tell its patients, who lie in several splits. Give "
            "ptb_xl_table, the path of ptbxl_database.csv, to split by patient."
        )
    return entries


def _say_what_is_absent(data_dir: Path, found: Mapping[str, int]):
    complete = {source.name: source.count for source in SOURCES}
    of_2020 = {source.name: source.count if source in SOURCES_2020 else 0 for source in SOURCES}
    if found not in (complete, of_2020):
        parts = ", ".join(f"{name} {found[name]} of {count}" for name, count in complete.items())
        total = sum(complete.values())
        logger.warning(
            "%s is a partial copy of CinC2021: it holds %d records, the corpus has %d (%s).",
            *(data_dir, sum(found.values()), total, parts),
        )


def _read_folds(table: str | os.PathLike | None) -> dict[int, tuple[str, int]] | None:
    """`ecg_id` → patient and fold of a `ptbxl_database.csv`; `None` if no table is given."""
    if table is None:
        return None
    folds = {}
    with open(table, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                fold = int(row["strat_fold"])
                split_of_fold(fold)
                folds[int(row["ecg_id"])] = (str(int(float(row["patient_id"]))), fold)
            except (KeyError, ValueError, TypeError, OverflowError) as error:
                raise ValueError(f"{table}, line {number}, cannot be read: {type(error).__name__}: {error}") from error
    return folds


def _locate(data_dir: Path, options: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The options with the full path of the table, so that other processes find it."""
    table = options["ptb_xl_table"]
    if table is None:
        return data_dir, dict(options)
    table = Path(table).expanduser().absolute()
    if not table.is_file():
        raise ValueError(f"There is no table {table}. ptb_xl_table is the path of PTB-XL's ptbxl_database.csv.")
    return data_dir, dict(options) | {"ptb_xl_table": str(table)}


CINC2021 = Corpus(
    name="cinc2021",
    description="the training data of the PhysioNet/CinC Challenge 2021 (88,253 recordings)",
    homepage=CHALLENGE_HOMEPAGE,
    licence="CC BY 4.0",
    citation=CHALLENGE_CITATION,
    options={"task": SNOMED_TASKS, "ptb_xl_table": ()},
    splits=SPLITS,
    index=_index,
    read=read_cinc_record,
    label_names=lambda options: snomed_label_names(options["task"]),
    extra_features=snomed_features,
    locate=_locate,
    file_options=("ptb_xl_table",),
)
