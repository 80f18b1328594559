"""Any folder of WFDB records, with the header comments that the challenges and databases of PhysioNet use."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..corpus import Corpus, IndexEntry
from ..formats.limits import check_file
from ..formats.wfdb_comments import parse_comments
from ..formats.wfdb_header import read_header
from ..formats.wfdb_reader import read_group, read_record
from ..records import INVALID_SAMPLE, EcgRecord
from .tables import walk

_READER_OPTIONS = ("rename_leads", "leads", "step", "unit")
_HEAD_BYTES = 1024  # enough to see whether a header has segments


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    """All records but those that are segments of another one, whose samples would come twice."""
    entries = []
    for folder, names in walk(data_dir):
        records = {name.removesuffix(".hea"): Path(folder, name) for name in names if name.endswith(".hea")}
        segments = {segment for path in records.values() for segment in _segments(path)}
        for path in (path.with_suffix("") for name, path in records.items() if name not in segments):
            entries.append(IndexEntry(str(path), path.relative_to(data_dir).as_posix()))
    if not entries:
        raise ValueError(f"There are no WFDB headers (*.hea) in {data_dir} or below it.")
    return sorted(entries, key=lambda entry: entry.record_id)


def _segments(header: Path) -> Sequence[str]:
    """Names of the segments that a header lists. One that cannot be read is reported when its record is."""
    try:
        check_file(header)
        with open(header, "rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
        lines = [line.split() for line in head.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
        return read_header(header).segment_names if lines and b"/" in lines[0][0] else ()
    except (OSError, ValueError):
        return ()


def wfdb_readers(columns: Callable[[IndexEntry, Sequence[str]], dict[str, Any]]) -> dict[str, Callable]:
    """Makes `read` and `read_group` of WFDB records, of which `columns` gives fields by entry and comment lines."""

    def read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
        choice = {name: options[name] for name in _READER_OPTIONS if name in options}
        record, comments = read_record(entry.path, entry.record_id, **choice)
        for name, value in columns(entry, comments).items():
            setattr(record, name, value)
        return record

    def read_together(entries: Sequence[IndexEntry], num_bytes: int, options: Mapping[str, Any]) -> tuple | None:
        leads, step, renaming = map(options.get, ("leads", "step", "rename_leads"))
        is_usual = leads is None and step is None and isinstance(renaming, str | None)
        if not is_usual or not "".join([entry.record_id for entry in entries]).isprintable():  # or no UTF-8
            return None
        group = read_group([entry.path for entry in entries], num_bytes, renaming, options.get("unit"))
        if group is None or np.minimum.reduce(group.steps, axis=None) == INVALID_SAMPLE:
            return None
        known = [
            {"record_id": entry.record_id, "labels": (), **columns(entry, comments)}
            for entry, comments in zip(entries[: len(group.comments)], group.comments, strict=True)
        ]
        return group.record, group.steps, known

    return {"read": read, "read_group": read_together}


WFDB_FOLDER = Corpus(
    name="wfdb",
    description="a folder of WFDB records (*.hea and their signal files)",
    homepage="https://physionet.org/about/database",
    licence="that of the recordings",
    citation="",
    options=dict.fromkeys(_READER_OPTIONS, ()),
    splits=("train",),
    index=_index,
    **wfdb_readers(lambda entry, comments: parse_comments(comments) | {"source": "wfdb"}),
)
