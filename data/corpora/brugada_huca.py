"""Brugada-HUCA: 363 twelve-lead recordings of 12 s at 100 Hz, one a patient, 69 of them with Brugada syndrome.

Layout: `metadata.csv` (patient_id, basal_pattern, sudden_death, brugada) and WFDB records `files/188981/188981`.

All were examined because Brugada syndrome was suspected, so its absence is no healthy population. The column `brugada`
becomes three classes: 0 `"no Brugada"` (287 patients), 1 `"Brugada"` (69), 2 `"atypical"` (7; "other or atypical
cases" by the release's own description). Split by a hash of the patient, not stratified: seven patients cannot be.

The licence is share-alike: what is derived from these recordings and passed on has to carry it too.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord
from ..safe_paths import inside
from .splits import split_by_hash
from .tables import fill_in, index_rows, truth, warn_if_partial

EXPECTED_COUNT = 363
CLASSES = ("no Brugada", "Brugada", "atypical")


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    def entry_of(row: Mapping[str, str]) -> IndexEntry | None:
        patient, diagnosis = row["patient_id"].strip(), row["brugada"].strip()
        if diagnosis not in ("0", "1", "2"):
            raise ValueError(f"expected brugada as 0, 1 or 2, got {diagnosis!r}")
        path = inside(os.fspath(data_dir), f"files/{patient}/{patient}")
        if not os.path.isfile(path + ".hea"):
            return None
        columns = {
            "patient_id": patient,
            "labels": [CLASSES[int(diagnosis)]],
            "extra": {name: truth(row[name]) for name in ("basal_pattern", "sudden_death")},
        }
        return IndexEntry(path, patient, split_by_hash(patient), columns)

    needed = ("patient_id", "basal_pattern", "sudden_death", "brugada")
    entries, num_listed = index_rows(data_dir / "metadata.csv", BRUGADA_HUCA, needed, entry_of)
    warn_if_partial(BRUGADA_HUCA, data_dir, len(entries), EXPECTED_COUNT, num_listed)
    return entries


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    record, _ = read_record(entry.path, entry.record_id)
    return fill_in(record, entry, BRUGADA_HUCA.name)


def _extra_features() -> dict[str, Any]:
    """Columns beside the common ones: whether the baseline ECG is pathological, and whether there was sudden death."""
    from datasets import Value

    return {"basal_pattern": Value("bool"), "sudden_death": Value("bool")}


BRUGADA_HUCA = Corpus(
    name="brugada-huca",
    description="Brugada-HUCA (363 recordings)",
    homepage="https://physionet.org/content/brugada-huca",
    licence="CC BY-SA 4.0",
    citation=(
        "Costa Cortez N, Garcia Iglesias D. Brugada-HUCA: 12-Lead ECG Recordings for the Study of Brugada Syndrome "
        "(version 1.0.0). PhysioNet 2026. doi:10.13026/0m2w-dy83"
    ),
    options={},
    splits=("train", "validation", "test"),
    index=_index,
    read=_read,
    label_names=lambda options: CLASSES,
    extra_features=_extra_features,
)
