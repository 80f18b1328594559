"""MIMIC-IV-ECG: 800,035 twelve-lead recordings of 10 s at 500 Hz of 161,352 patients, without labels.

Layout: `record_list.csv` (subject_id, study_id, file_name, ecg_time, path), `machine_measurements.csv`, and WFDB
records `files/p1000/p10000032/s40689238/40689238`. Rows whose files are absent are left out.

The leads lie in the order I, II, III, aVR, **aVF, aVL**, V1-V6; they are read by name from each header. Some
recordings have missing samples, which stay NaN. Split by a hash of subject_id. Age and sex stand only in MIMIC-IV
itself, whose access is restricted. The machine's `report` lines are its guess, not a label, and become a column.

Licence: reports differ between ODbL 1.0 and the agreement for credentialed users. Verify the terms of your version.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..safe_paths import inside
from .splits import split_by_hash
from .tables import index_rows, read_rows, warn_if_partial
from .wfdb_folder import wfdb_readers

EXPECTED_COUNT = 800_035
REPORT_COLUMNS = tuple(f"report_{line}" for line in range(18))
_NO_MEASUREMENTS = ((), None, None)


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    measured = _read_measurements(data_dir / "machine_measurements.csv")

    def entry_of(row: Mapping[str, str]) -> IndexEntry | None:
        path = inside(os.fspath(data_dir), row["path"])
        if not os.path.isfile(path + ".hea"):
            return None
        subject, study = sys.intern(row["subject_id"].strip()), row["study_id"].strip()
        columns = {"patient_id": subject, "measured": measured.pop(study, _NO_MEASUREMENTS)}
        return IndexEntry(path, study, split_by_hash(subject), columns)

    needed = ("study_id", "subject_id", "path")
    entries, num_listed = index_rows(data_dir / "record_list.csv", MIMIC_IV_ECG, needed, entry_of)
    warn_if_partial(MIMIC_IV_ECG, data_dir, len(entries), EXPECTED_COUNT, num_listed)
    return entries


def _read_measurements(table: Path) -> dict[str, tuple]:
    """study_id → (report lines, bandwidth, filtering); empty if the folder has no such table.

    The table repeats few texts and many whole reports, so each is kept once.
    """
    if not table.is_file():
        return {}
    measured, known = {}, {}
    for row in read_rows(table, MIMIC_IV_ECG, ("study_id", *REPORT_COLUMNS, "bandwidth", "filtering")):
        report = tuple(sys.intern(row[name].strip()) for name in REPORT_COLUMNS if row[name])
        bandwidth, filtering = row["bandwidth"], row["filtering"]
        stated = (report, sys.intern(bandwidth) if bandwidth else None, sys.intern(filtering) if filtering else None)
        measured[row["study_id"].strip()] = known.setdefault(stated, stated)
    return measured


def _columns(entry: IndexEntry, comments: Sequence[str]) -> dict[str, Any]:
    report, bandwidth, filtering = entry.columns["measured"]
    extra = {"report": list(report), "bandwidth": bandwidth, "filtering": filtering}
    return {"patient_id": entry.columns["patient_id"], "source": MIMIC_IV_ECG.name, "extra": extra}


def _extra_features() -> dict[str, Any]:
    """Columns beside the common ones: the machine's `report` lines, and the `bandwidth` and `filtering` it states."""
    from datasets import List, Value

    return {"report": List(Value("string")), "bandwidth": Value("string"), "filtering": Value("string")}


MIMIC_IV_ECG = Corpus(
    name="mimic-iv-ecg",
    description="MIMIC-IV-ECG (800,035 recordings, 90 GB)",
    homepage="https://physionet.org/content/mimic-iv-ecg",
    licence="ODbL 1.0 or the PhysioNet credentialed agreement: verify on its page",
    citation=(
        "Gow B, Pollard T, Nathanson LA, Johnson A, Moody B, Fernandes C, Greenbaum N, Waks JW, Eslami P, Carbonati "
        "T, Chaudhari A, Herbst E, Moukheiber D, Berkowitz S, Mark R, Horng S. MIMIC-IV-ECG: Diagnostic "
        "Electrocardiogram Matched Subset (version 1.0). PhysioNet 2023. doi:10.13026/4nqg-sb35"
    ),
    options={},
    splits=("train", "validation", "test"),
    index=_index,
    **wfdb_readers(_columns),
    extra_features=_extra_features,
)
