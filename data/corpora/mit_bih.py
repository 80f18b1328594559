"""MIT-BIH Arrhythmia Database: 48 half-hour recordings of two leads at 360 Hz of 47 patients, with every beat marked.

Channels keep their names: `MLII` is a modified lead, not lead II (say `rename_leads={"MLII": "II"}` to take it for
one). A recording is one row of 650,000 samples; annotations are columns of equal length, one value each:
`annotation_sample`, `annotation_symbol`, `annotation_note` (a rhythm such as `"(AFIB"`) and `annotation_class`, the
AAMI class `N`, `S`, `V`, `F` or `Q` of a beat, empty for what is no beat.

Split: DS1 (train) and DS2 (test) of de Chazal et al. (2004), by recording. Published as inter-patient, with one
exception: 201 (DS1) and 202 (DS2) are the same man, and have the same `patient_id` here. The recommended practice of
the AAMI (EC57) leaves out the paced recordings 102, 104, 107 and 217; `paced="include"` puts them into train.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..formats.wfdb_annotations import read_annotations
from ..formats.wfdb_comments import parse_comments
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord
from .tables import file_names, warn_if_partial

EXPECTED_COUNT = 48
PACED = ("102", "104", "107", "217")
DS1 = tuple("101 106 108 109 112 114 115 116 118 119 122 124 201 203 205 207 208 209 215 220 223 230".split())
DS2 = tuple("100 103 105 111 113 117 121 123 200 202 210 212 213 214 219 221 222 228 231 232 233 234".split())
SAME_PATIENT = {"202": "201"}

AAMI_CLASSES = {
    **dict.fromkeys("NLRej", "N"),
    **dict.fromkeys("AaJS", "S"),
    **dict.fromkeys("VE", "V"),
    "F": "F",
    **dict.fromkeys("/fQ", "Q"),
}
"""Beat symbol → AAMI class: normal or bundle branch block, supraventricular, ventricular, fusion, paced/unknown."""


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    present = sorted(file_names(data_dir, ".hea") & {*DS1, *DS2, *PACED})
    warn_if_partial(MIT_BIH, data_dir, len(present), EXPECTED_COUNT)
    chosen = [name for name in present if name not in PACED or options["paced"] == "include"]
    return [
        IndexEntry(
            str(data_dir / name),
            name,
            "test" if name in DS2 else "train",
            {"patient_id": SAME_PATIENT.get(name, name)},
        )
        for name in chosen
    ]


def read_annotated(entry: IndexEntry, rename_leads: dict[str, str] | None, annotated: bool = True) -> EcgRecord:
    """A record with its `.atr` annotations as extra columns, empty where it is not `annotated`.

    Raises:
        ValueError: if the record or its annotations cannot be read, or lie beyond the end of the signal.
    """
    record, comments = read_record(entry.path, entry.record_id, rename_leads=rename_leads)
    samples, symbols, notes = [], [], []
    if annotated:
        marks = read_annotations(f"{entry.path}.atr")
        samples, symbols, notes = marks.samples.tolist(), marks.symbols, marks.notes
        if samples and not 0 <= min(samples) <= max(samples) < record.signal.shape[1]:
            raise ValueError(f"The annotations of {entry.path} lie outside its {record.signal.shape[1]} samples.")
    known = parse_comments(comments)
    record.age, record.sex = known.get("age"), known.get("sex")
    record.patient_id = entry.columns["patient_id"]
    record.extra = {
        "annotation_sample": samples,
        "annotation_symbol": symbols,
        "annotation_note": notes,
        "annotation_class": [AAMI_CLASSES.get(symbol, "") for symbol in symbols],
    }
    return record


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    record = read_annotated(entry, options["rename_leads"])
    record.source = MIT_BIH.name
    return record


def annotation_features() -> dict[str, Any]:
    """Columns beside the common ones: the annotations."""
    from datasets import List, Value

    texts = ("annotation_symbol", "annotation_note", "annotation_class")
    return {"annotation_sample": List(Value("int32"))} | {name: List(Value("string")) for name in texts}


MIT_BIH = Corpus(
    name="mit-bih",
    description="the MIT-BIH Arrhythmia Database (48 recordings, 100 MB)",
    homepage="https://physionet.org/content/mitdb",
    licence="ODC-BY 1.0",
    citation=(
        "Moody GB, Mark RG. The impact of the MIT-BIH Arrhythmia Database. IEEE Eng Med Biol 2001;20(3):45-50. "
        "PhysioNet doi:10.13026/C2F305. Split: de Chazal P, O'Dwyer M, Reilly RB. Automatic classification of "
        "heartbeats using ECG morphology and heartbeat interval features. IEEE Trans Biomed Eng 2004;51:1196-1206"
    ),
    options={"paced": ("exclude", "include"), "rename_leads": ()},
    splits=("train", "test"),
    index=_index,
    read=_read,
    extra_features=annotation_features,
)
