"""CPSC2018: 6,877 recordings (6 to 144 s, 500 Hz) of the China Physiological Signal Challenge 2018, in two forms.

- The original: a MATLAB 5 struct `ECG` a recording (`sex`, `age`, `data`; 12 leads in mV) and the labels 1 to 9 in
  `REFERENCE.csv`, in one folder or several (`TrainingSet1` to `TrainingSet3`).
- That of the PhysioNet/CinC challenges, WFDB with SNOMED CT codes, under the same names.

`task="cpsc2018"` gives the nine classes of the challenge of 2018, of which a recording has one to three. The codes of
the later challenges stand for the same nine, so all tasks are offered in both forms. Patients are not stated: each
recording is split by its own name.
"""

import csv
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...modeling.leads import STANDARD_LEADS
from ..corpus import IndexEntry
from ..formats.matlab5_struct import read_struct
from ..formats.wfdb_comments import SEXES
from ..records import EcgRecord
from .cinc_snomed import SNOMED_TASKS, snomed_label_names, snomed_labels
from .cinc_source import CincSource, cinc_corpus, find_records, one_form, read_with_codes
from .splits import split_by_hash
from .tables import walk, warn_if_partial

CPSC2018_SOURCE = CincSource("cpsc2018", "CPSC2018", "A", 4, count=6877)

# Class → SNOMED CT code, in the order of the numbers 1 to 9 of REFERENCE.csv.
_CODES = {
    "NORM": "426783006",
    "AF": "164889003",
    "I-AVB": "270492004",
    "LBBB": "164909002",
    "RBBB": "59118001",
    "PAC": "284470004",
    "PVC": "164884008",  # ventricular ectopics, which the later challenges do not score
    "STD": "429622005",
    "STE": "164931005",
}


def cpsc2018_label_names(task: str = "cpsc2018") -> tuple[str, ...]:
    """The classes of a task; of `"cpsc2018"` the nine of the challenge, in its order."""
    return tuple(_CODES) if task == "cpsc2018" else snomed_label_names(task)


def _labels(codes: list[str], task: str) -> list[str]:
    return [name for name in _CODES if _CODES[name] in codes] if task == "cpsc2018" else snomed_labels(codes, task)


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    of_challenge = find_records(data_dir, CPSC2018_SOURCE.holds)
    original = {} if of_challenge else find_records(data_dir, CPSC2018_SOURCE.holds, ".mat")
    if not one_form(data_dir, original, of_challenge):
        return CHALLENGE_FORM.index(data_dir, options)
    codes = _read_references(data_dir)
    absent = [record_id for record_id in original if record_id not in codes]
    if absent:
        raise ValueError(
            f"{len(absent)} recordings of {data_dir}, such as {absent[0]}, are in no REFERENCE.csv in it or below it. "
            "Put the REFERENCE.csv of the training sets there."
        )
    warn_if_partial(CPSC2018, data_dir, len(original), CPSC2018_SOURCE.count)
    return [
        IndexEntry(
            path + ".mat",
            record_id,
            split_by_hash(record_id),
            {"source": "cpsc2018", "extra": {"snomed_codes": codes[record_id]}},
        )
        for record_id, path in original.items()
    ]


def _read_references(data_dir: Path) -> dict[str, list[str]]:
    """Record id → SNOMED CT codes, from every `REFERENCE.csv` in and below a folder."""
    known, codes = {}, tuple(_CODES.values())
    for folder, files in walk(data_dir):
        for name in files:
            if name.upper() != "REFERENCE.CSV":
                continue
            table = os.path.join(folder, name)
            with open(table, newline="", encoding="utf-8-sig") as file:
                for number, row in enumerate(csv.reader(file), start=1):
                    if number == 1 and row[:1] == ["Recording"] or not row:
                        continue
                    classes = [cell.strip() for cell in row[1:] if cell.strip()]
                    if not classes or not set(classes) <= set("123456789"):
                        raise ValueError(f"{table}, line {number}: expected a record and numbers 1 to 9, got {row}.")
                    stated = [codes[int(cell) - 1] for cell in dict.fromkeys(classes)]
                    if known.setdefault(row[0].strip(), stated) != stated:
                        raise ValueError(f"{table}, line {number}: {row[0]} has other labels than before.")
    return known


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    record = _read_original(entry) if entry.path.endswith(".mat") else read_with_codes(entry)
    record.labels = _labels(record.extra["snomed_codes"], options["task"])
    return record


def _read_original(entry: IndexEntry) -> EcgRecord:
    fields = read_struct(entry.path, "ECG")
    signal, age, sex = fields.get("data"), fields.get("age"), fields.get("sex")
    if not isinstance(signal, np.ndarray):
        raise ValueError(f"Expected numbers in mV in the field 'data' of {entry.path}, got the fields {list(fields)}.")
    record = EcgRecord(entry.record_id, signal.astype(np.float32), STANDARD_LEADS, 500.0, "mV", **entry.columns)
    if isinstance(age, np.ndarray) and age.size == 1 and age.item() >= 0:
        record.age = float(age.item())
    record.sex = SEXES.get(sex.strip().lower()) if isinstance(sex, str) else None
    return record


CHALLENGE_FORM = cinc_corpus(CPSC2018_SOURCE, other_names=("A0001.mat beside REFERENCE.csv",))
CPSC2018 = replace(
    CHALLENGE_FORM,
    homepage="http://2018.icbeb.org/Challenge.html",
    citation=(
        "Liu F, Liu C, Zhao L, et al. An open access database for evaluating the algorithms of electrocardiogram "
        "rhythm and morphology abnormality detection. J Med Imaging Health Inform 2018;8:1368-1373. "
        "doi:10.1166/jmihi.2018.2442"
    ),
    options={"task": ("cpsc2018", *SNOMED_TASKS)},
    index=_index,
    read=_read,
    label_names=lambda options: cpsc2018_label_names(options["task"]),
)
