"""WFDB records as the PhysioNet Challenge 2025 made them of CODE-15 and SaMi-Trop, and the Chagas task of both.

A header says `# Exam ID`, `# Patient ID` (CODE-15 alone), `# Age`, `# Sex`, `# Chagas label` and sometimes `# Source`.
The challenge cut the zeros off that fill the published HDF5 files up.
"""

from collections.abc import Sequence
from typing import Any

from ..corpus import IndexEntry
from ..formats.wfdb_comments import parse_comments
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord

CHAGAS_LABELS = ("chagas-negative", "chagas-positive")
"""Two classes rather than one, so that an exam whose label is unknown (none of them) is no negative one."""

EXTRA_COLUMNS = ("chagas", "normal_ecg", "death", "timey")
_SOURCES = {"code-15%": "code-15", "code-15": "code-15", "sami-trop": "sami-trop", "samitrop": "sami-trop"}


def chagas_labels(chagas: bool | None) -> list[str]:
    return [] if chagas is None else [CHAGAS_LABELS[chagas]]


def chagas_of_comments(comments: Sequence[str]) -> bool | None:
    """Reads what `# Chagas label: True` says; `None` where there is no such line, or nothing known."""
    return {"true": True, "false": False}.get(_comment(comments, "chagas label").lower())


def source_of_comments(comments: Sequence[str], default: str) -> str:
    """The corpus that `# Source` names: CODE-15's converted folders hold exams of SaMi-Trop as well."""
    named = _comment(comments, "source").lower()
    return _SOURCES.get(named, named) if named else default


def _comment(comments: Sequence[str], field: str) -> str:
    for comment in comments:
        name, _, value = comment.partition(":")
        if name.strip().lower() == field:
            return value.strip()
    return ""


def read_chagas_record(entry: IndexEntry, corpus: str, task: str) -> EcgRecord:
    """Reads a converted exam. What the index took from a table counts before the header's comments.

    Args:
        corpus (`str`): Name of the corpus, for headers without `# Source`.
        task (`str`): Under `"chagas"` the header's label becomes the record's.

    Raises:
        ValueError: as `read_record`.
    """
    record, comments = read_record(entry.path, entry.record_id)
    chagas = chagas_of_comments(comments)
    known = parse_comments(comments) | {"labels": chagas_labels(chagas) if task == "chagas" else []}
    known |= {name: value for name, value in entry.columns.items() if value is not None}
    known["extra"] = dict.fromkeys(EXTRA_COLUMNS) | known.get("extra", {}) | {"chagas": chagas}
    for name, value in known.items():
        setattr(record, name, value)
    record.source = source_of_comments(comments, corpus)
    return record


def extra_features() -> dict[str, Any]:
    """Columns beside the common ones, null where unknown: `chagas`, `normal_ecg`, and of the first exam of a patient
    `death` in the time of follow-up and `timey`, the years to death or to its end."""
    from datasets import Value

    return {"chagas": Value("bool"), "normal_ecg": Value("bool"), "death": Value("bool"), "timey": Value("float32")}
