"""LUDB: 200 twelve-lead recordings of 10 s at 500 Hz, one a subject, with P, QRS and T marked in every lead.

Layout: `ludb.csv`, and WFDB records `data/1` to `data/200` with an annotation file for each lead (`1.i` ... `1.v6`).

Waves come as columns of equal length, one value a wave, lead by lead: `wave_lead`, `wave_kind` (`"P"`, `"QRS"` or
`"T"`) and the samples `wave_onset`, `wave_peak`, `wave_offset`, null where a limit was not marked. The first and the
last beat of a recording are mostly not marked: mask the edges.

Labels are the rhythms; the other statements of `ludb.csv` are columns (lists of text). The age `>89` of
one subject becomes null. Subjects come in five folds, by turns (1 + (subject - 1) mod 5): folds 1-3 train, 4
validates, 5 tests.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...modeling.leads import STANDARD_LEADS
from ..corpus import Corpus, IndexEntry
from ..formats.wfdb_annotations import WfdbAnnotations, read_annotations
from ..formats.wfdb_comments import SEXES
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord
from .tables import file_names, fill_in, index_rows, warn_if_partial

EXPECTED_COUNT = 200
RHYTHMS = (
    "Aberrant conduction",
    "Atrial fibrillation",
    "Atrial flutter, typical",
    "Irregular sinus rhythm",
    "Sinus arrhythmia",
    "Sinus bradycardia",
    "Sinus rhythm",
    "Sinus tachycardia",
    "Wandering atrial pacemaker",
)
STATEMENT_COLUMNS = {
    "electric_axis": "Electric axis of the heart",
    "conduction": "Conduction abnormalities",
    "extrasystoles": "Extrasystolies",
    "hypertrophy": "Hypertrophies",
    "pacing": "Cardiac pacing",
    "ischemia": "Ischemia",
    "repolarization": "Non-specific repolarization abnormalities",
    "other_states": "Other states",
}
WAVE_COLUMNS = ("wave_lead", "wave_kind", "wave_onset", "wave_peak", "wave_offset")
MAX_SLIP = 3  # samples, 6 ms
_KINDS = {"p": "P", "N": "QRS", "t": "T"}


def _statements(cell: str) -> list[str]:
    return [line.strip() for line in cell.splitlines() if line.strip()]


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    present = file_names(data_dir / "data", ".hea")

    def entry_of(row: Mapping[str, str]) -> IndexEntry | None:
        subject = int(row["ID"])
        if str(subject) not in present:
            return None
        fold, age = 1 + (subject - 1) % 5, row["Age"].strip()
        rhythms = _statements(row["Rhythms"])
        if not set(rhythms) <= set(RHYTHMS):
            raise ValueError(f"expected rhythms among {list(RHYTHMS)}, got {rhythms}")
        columns = {
            "patient_id": str(subject),
            "labels": rhythms,
            "fold": fold,
            "age": None if age.startswith(">") else float(age),
            "sex": SEXES.get(row["Sex"].strip().lower()),
            "extra": {name: _statements(row[column]) for name, column in STATEMENT_COLUMNS.items()},
        }
        split = {4: "validation", 5: "test"}.get(fold, "train")
        return IndexEntry(str(data_dir / "data" / str(subject)), str(subject), split, columns)

    needed = ("ID", "Sex", "Age", "Rhythms", *STATEMENT_COLUMNS.values())
    entries, num_listed = index_rows(data_dir / "ludb.csv", LUDB, needed, entry_of)
    warn_if_partial(LUDB, data_dir, len(entries), EXPECTED_COUNT, num_listed)
    return entries


def waves_of(annotations: WfdbAnnotations) -> list[tuple[str, int | None, int, int | None]]:
    """`(kind, onset, peak, offset)` of each wave that is marked in one lead; limits that are not marked are `None`.

    Limits are the marks beside a peak. A few peaks were marked up to `MAX_SLIP` samples outside their own limits; they
    keep them. Pairs of limits without a peak do not say which wave they belong to and are left out.
    """
    waves = []
    samples, symbols = annotations.samples.tolist(), annotations.symbols
    marks = dict(enumerate(symbols))
    for i, symbol in marks.items():
        if symbol not in _KINDS:
            continue
        before, after = marks.get(i - 1), marks.get(i + 1)
        if after == "(" and marks.get(i + 2) == ")" and before != "(" and samples[i + 1] - samples[i] <= MAX_SLIP:
            limits = samples[i + 1], samples[i + 2]
        elif before == ")" and marks.get(i - 2) == "(" and after != ")" and samples[i] - samples[i - 1] <= MAX_SLIP:
            limits = samples[i - 2], samples[i - 1]
        else:
            limits = (samples[i - 1] if before == "(" else None), (samples[i + 1] if after == ")" else None)
        waves.append((_KINDS[symbol], limits[0], samples[i], limits[1]))
    return waves


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    record, _ = read_record(entry.path, entry.record_id)
    waves = [
        (lead, *wave) for lead in STANDARD_LEADS for wave in waves_of(read_annotations(f"{entry.path}.{lead.lower()}"))
    ]
    fill_in(record, entry, LUDB.name)
    record.extra = record.extra | {name: [wave[i] for wave in waves] for i, name in enumerate(WAVE_COLUMNS)}
    return record


def _extra_features() -> dict[str, Any]:
    """Columns beside the common ones: the waves, and the statements of `ludb.csv` that are no rhythms."""
    from datasets import List, Value

    waves = {name: List(Value("string" if i < 2 else "int32")) for i, name in enumerate(WAVE_COLUMNS)}
    return waves | {name: List(Value("string")) for name in STATEMENT_COLUMNS}


LUDB = Corpus(
    name="ludb",
    description="the Lobachevsky University Electrocardiography Database (200 recordings)",
    homepage="https://physionet.org/content/ludb",
    licence="ODC-BY 1.0",
    citation=(
        "Kalyakulina AI, Yusipov II, Moskalenko VA, Nikolskiy AV, Kosonogov KA, Osipov GV, Zolotykh NY, Ivanchenko "
        "MV. LUDB: A New Open-Access Validation Tool for Electrocardiogram Delineation Algorithms. IEEE Access "
        "2020;8:186181. doi:10.1109/ACCESS.2020.3029211; PhysioNet doi:10.13026/eegm-h675"
    ),
    options={},
    splits=("train", "validation", "test"),
    index=_index,
    read=_read,
    label_names=lambda options: RHYTHMS,
    extra_features=_extra_features,
)
