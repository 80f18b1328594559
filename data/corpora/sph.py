"""SPH: 25,770 twelve-lead recordings of 10 to 56 s at 500 Hz of 24,666 patients, with AHA/ACC/HRS statements.

Layout: `metadata.csv` (ECG_ID, AHA_Code, Patient_ID, Age, Sex, N, Date) and `records/A00001.h5`, or the `.h5` files
beside the table; each holds `ecg` (12, N) as float16 in mV, leads I, II, III, aVR, aVL, aVF, V1-V6.

A cell of `AHA_Code` such as `60+310;22` holds statements, each a primary statement and modifiers. Labels are the
primary statements by name (44 of them); `aha_codes` keeps the statements whole. Split by a hash of the patient. Some
300 recordings hold artefacts beyond 10 mV, up to 1590 mV.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...modeling.leads import STANDARD_LEADS
from ..corpus import Corpus, IndexEntry
from ..formats.hdf5_file import open_dataset
from ..formats.limits import LIBRARY_ERRORS
from ..formats.wfdb_comments import SEXES
from ..records import EcgRecord
from ..safe_paths import inside
from .splits import split_by_hash
from .tables import file_names, fill_in, index_rows, number, warn_if_partial

EXPECTED_COUNT = 25_770
SAMPLING_RATE = 500.0

PRIMARY_STATEMENTS = {
    1: "Normal ECG",
    21: "Sinus tachycardia",
    22: "Sinus bradycardia",
    23: "Sinus arrhythmia",
    30: "Atrial premature complex(es)",
    31: "Atrial premature complexes, nonconducted",
    36: "Junctional premature complex(es)",
    37: "Junctional escape complex(es)",
    50: "Atrial fibrillation",
    51: "Atrial flutter",
    54: "Junctional tachycardia",
    60: "Ventricular premature complex(es)",
    80: "Short PR interval",
    81: "AV conduction ratio N:D",
    82: "Prolonged PR interval",
    83: "Second-degree AV block, Mobitz type I (Wenckebach)",
    84: "Second-degree AV block, Mobitz type II",
    85: "2:1 AV block",
    86: "AV block, varying conduction",
    87: "AV block, advanced (high-grade)",
    88: "AV block, complete (third-degree)",
    101: "Left anterior fascicular block",
    102: "Left posterior fascicular block",
    104: "Left bundle-branch block",
    105: "Incomplete right bundle-branch block",
    106: "Right bundle-branch block",
    108: "Ventricular preexcitation",
    120: "Right-axis deviation",
    121: "Left-axis deviation",
    125: "Low voltage",
    140: "Left atrial enlargement",
    142: "Left ventricular hypertrophy",
    143: "Right ventricular hypertrophy",
    145: "ST deviation",
    146: "ST deviation with T-wave change",
    147: "T-wave abnormality",
    148: "Prolonged QT interval",
    152: "TU fusion",
    153: "ST-T change due to ventricular hypertrophy",
    155: "Early repolarization",
    160: "Anterior MI",
    161: "Inferior MI",
    165: "Anteroseptal MI",
    166: "Extensive anterior MI",
}
"""The primary statements of the corpus by code, named as in its own `code.csv`."""


def sph_labels(aha_code: str) -> list[str]:
    """Names of the primary statements of a cell of `AHA_Code`, each once, in order.

    Raises:
        ValueError: for a code that is no primary statement of the corpus.
    """
    codes = [statement.split("+")[0].strip() for statement in aha_code.split(";")]
    unknown = [code for code in codes if not code.isdecimal() or int(code) not in PRIMARY_STATEMENTS]
    if unknown:
        raise ValueError(f"AHA codes {unknown} are no primary statements of SPH: {sorted(PRIMARY_STATEMENTS)}")
    return list(dict.fromkeys(PRIMARY_STATEMENTS[int(code)] for code in codes))


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    folder = data_dir / "records" if (data_dir / "records").is_dir() else data_dir
    present = file_names(folder, ".h5")

    def entry_of(row: Mapping[str, str]) -> IndexEntry | None:
        name, patient = row["ECG_ID"].strip().removesuffix(".h5"), row["Patient_ID"].strip()
        if name not in present:
            return None
        columns = {
            "patient_id": patient,
            "labels": sph_labels(row["AHA_Code"]),
            "age": number(row["Age"]),
            "sex": SEXES.get(row["Sex"].strip().lower()),
            "extra": {"aha_codes": [statement.strip() for statement in row["AHA_Code"].split(";")]},
        }
        return IndexEntry(inside(os.fspath(folder), f"{name}.h5"), name, split_by_hash(patient), columns)

    needed = ("ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex")
    entries, num_listed = index_rows(data_dir / "metadata.csv", SPH, needed, entry_of)
    warn_if_partial(SPH, data_dir, len(entries), EXPECTED_COUNT, num_listed)
    return entries


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    dataset = open_dataset(entry.path, "ecg")
    if dataset.ndim != 2 or dataset.shape[0] != len(STANDARD_LEADS) or dataset.dtype.kind != "f":
        raise ValueError(f"Expected `ecg` of {entry.path} as floats (12, N), got {dataset.dtype} {dataset.shape}.")
    try:
        signal = dataset[:]
    except LIBRARY_ERRORS as error:
        raise ValueError(f"Cannot read {entry.path}: {error}.") from error
    return fill_in(EcgRecord(entry.record_id, signal, STANDARD_LEADS, SAMPLING_RATE), entry, SPH.name)


def _extra_features() -> dict[str, Any]:
    """A column beside the common ones: `aha_codes`, the statements with their modifiers."""
    from datasets import List, Value

    return {"aha_codes": List(Value("string"))}


SPH = Corpus(
    name="sph",
    description="SPH of Shandong Provincial Hospital (25,770 recordings)",
    homepage="https://doi.org/10.6084/m9.figshare.c.5779802",
    licence="CC BY 4.0",
    citation=(
        "Liu H, Chen D, Chen D, Zhang X, Li H, Bian L, Shu M, Wang Y. A large-scale multi-label 12-lead "
        "electrocardiogram database with standardized diagnostic statements. Sci Data 2022;9:272. "
        "doi:10.1038/s41597-022-01403-5"
    ),
    options={},
    splits=("train", "validation", "test"),
    index=_index,
    read=_read,
    label_names=lambda options: tuple(PRIMARY_STATEMENTS.values()),
    extra_features=_extra_features,
)
