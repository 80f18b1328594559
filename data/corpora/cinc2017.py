"""CinC 2017: 8,528 recordings of 9 to 61 s of one lead at 300 Hz from a hand-held device, in four classes of rhythm.

Layout: a `REFERENCE.csv` (record, class; no header) and its WFDB records, beside it or in subfolders (`A00/A00001`);
the table is looked for in the folder and in its `training` or `training2017`. Point `data_dir` at the `validation`
folder for the 300 recordings there: they are copies of training recordings, so never mix the two.

The training labels were revised: N 5154, A 771, O 2557, ~ 46 became N 5050, A 738, O 2456, ~ 284, and later versions
differ again. `reference="REFERENCE-v1.csv"` names another table; say in a result which one it was.

The channel is called `ECG` and stays so: the device is held in both hands, which makes it close to lead I, and
`rename_leads={"ECG": "I"}` takes it for that. Patients are not published: split by a hash of the recording.
"""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord
from ..safe_paths import inside
from .splits import split_by_hash
from .tables import fill_in, warn_if_partial

EXPECTED_COUNT = 8528
CLASSES = {"N": "normal rhythm", "A": "atrial fibrillation", "O": "other rhythm", "~": "too noisy"}
FOLDERS = (".", "training", "training2017")


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    name = options["reference"] or "REFERENCE.csv"
    tables = [Path(inside(os.fspath(data_dir / folder), name)) for folder in FOLDERS]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        raise ValueError(
            f"There is no {name} in {data_dir}, nor in its {' or '.join(FOLDERS[1:])}. {CINC2017.where_to_get()}"
        )
    entries, known = [], set()
    with open(table, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or row[1].strip() not in CLASSES or row[0] in known:
            raise ValueError(
                f"{table}, line {number}: expected a record that comes once and one of {list(CLASSES)}, got {row}."
            )
        known.add(row[0])
        record, label = row[0].strip(), CLASSES[row[1].strip()]
        paths = (inside(os.fspath(table.parent), place) for place in (record, f"{record[:3]}/{record}"))
        path = next((path for path in paths if os.path.isfile(path + ".hea")), None)
        if path is not None:
            entries.append(IndexEntry(path, record, split_by_hash(record), {"labels": [label]}))
    warn_if_partial(CINC2017, data_dir, len(entries), EXPECTED_COUNT, len(rows))
    return entries


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    record, _ = read_record(entry.path, entry.record_id, rename_leads=options["rename_leads"])
    return fill_in(record, entry, CINC2017.name)


CINC2017 = Corpus(
    name="cinc2017",
    description="the PhysioNet/CinC Challenge 2017 (8,528 recordings)",
    homepage="https://physionet.org/content/challenge-2017",
    licence="ODC-BY 1.0",
    citation=(
        "Clifford GD, Liu C, Moody B, Lehman LH, Silva I, Li Q, Johnson AE, Mark RG. AF Classification from a Short "
        "Single Lead ECG Recording: the PhysioNet/Computing in Cardiology Challenge 2017. CinC 2017. "
        "doi:10.22489/CinC.2017.065-469"
    ),
    options={"reference": (), "rename_leads": ()},
    splits=("train", "validation", "test"),
    index=_index,
    read=_read,
    label_names=lambda options: tuple(CLASSES.values()),
)
