"""Any folder of WFDB records, with the header comments that the challenges and databases of PhysioNet use."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord

_COMMENT = re.compile(r"<?([^:>]+)>?\s*:\s*(.*)$")
_MIT_BIH_COMMENT = re.compile(r"(\d+)\s+([MF])\b")  # "69 M 1085 1629 x1"
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}


def parse_comments(comments: Sequence[str]) -> dict[str, Any]:
    """Age in years, sex, patient and diagnosis codes from the comment lines of a header, as far as they are there.

    Knows `#Age: 47`, `#<age>: 71`, `# 69 M ...`, `#Sex: Female`, `#Patient ID: 507884` and `#Dx: 426783006,59118001`
    (SNOMED CT codes). Unknown values (`NaN`, `Unknown`, `-1`) are left out.
    """
    fields = {}
    for comment in comments:
        match = _COMMENT.match(comment)
        if match:
            fields.setdefault(match[1].strip().lower(), match[2].strip())
    known = {}
    mit_bih = _MIT_BIH_COMMENT.match(comments[0]) if comments else None
    if mit_bih:
        fields.setdefault("age", mit_bih[1])
        fields.setdefault("sex", mit_bih[2])
    if re.fullmatch(r"\d+(\.\d+)?", fields.get("age", "")):
        known["age"] = float(fields["age"])
    if fields.get("sex", "").lower() in _SEXES:
        known["sex"] = _SEXES[fields["sex"].lower()]
    if fields.get("patient id"):
        known["patient_id"] = fields["patient id"]
    codes = [code.strip() for code in fields.get("dx", "").split(",")]
    known["labels"] = [code for code in codes if code and code.lower() != "unknown"]
    return known


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    entries = []
    for folder, subfolders, files in os.walk(data_dir):
        subfolders.sort()
        for name in files:
            if name.endswith(".hea"):
                path = Path(folder, name.removesuffix(".hea"))
                entries.append(IndexEntry(str(path), path.relative_to(data_dir).as_posix()))
    if not entries:
        raise ValueError(f"There are no WFDB headers (*.hea) in {data_dir} or below it.")
    return sorted(entries, key=lambda entry: entry.record_id)


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    record, comments = read_record(entry.path, entry.record_id, rename_leads=options["rename_leads"])
    for name, value in parse_comments(comments).items():
        setattr(record, name, value)
    record.source = "wfdb"
    return record


WFDB_FOLDER = Corpus(
    name="wfdb",
    description="a folder of WFDB records (*.hea and their signal files)",
    homepage="https://physionet.org/about/database",
    licence="that of the recordings",
    citation="",
    options={"rename_leads": ()},
    splits=("train",),
    index=_index,
    read=_read,
)
