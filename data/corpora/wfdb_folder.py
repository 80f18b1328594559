"""Any folder of WFDB records, with the header comments that the challenges and databases of PhysioNet use."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..formats.wfdb_comments import parse_comments
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord


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
