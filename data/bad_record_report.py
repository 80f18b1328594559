"""The report of records that could not be read, or only in part: one JSON line each.

A dataset on disk keeps it beside its Arrow files, whoever of several processes wrote it; a stream appends to the file
that the caller names, from every rank and worker.
"""

import errno
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..modeling.recording_input import cut

if TYPE_CHECKING:
    from datasets import Dataset

REPORT_NAME = "bad_records.jsonl"
MANY_MISSING = 100


MAX_REASON = 1000
"""Characters of a reason: a damaged file may name a million leads."""


class BadRecordError(ValueError):
    """Raised for the first record that cannot be read, under `on_bad_record="raise"`."""


class CorpusGoneError(RuntimeError):
    """Raised where it is not records that cannot be read but the corpus: its folder or most of its files are gone."""


class MissingFiles:
    """Counts the records of a stream whose files are not there any more.

    Args:
        folder (`str`): Folder of the corpus.
        num_records (`int`): Records of the stream, of all processes together.
    """

    def __init__(self, folder: str | os.PathLike, num_records: int):
        self.folder, self.num_records = folder, num_records
        self.num_tried, self.num_missing = 0, 0

    def add(self, error: BaseException | None = None):
        """Counts a record that was read, or the `error` that it gave.

        Raises:
            CorpusGoneError: where the folder is gone; where more than half of all records are missing, or of the first
                hundreds that this process has tried.
        """
        self.num_tried += 1
        while error is not None and not isinstance(error, FileNotFoundError | NotADirectoryError):
            error = error.__cause__ or error.__context__
        if error is None:
            return
        self.num_missing += 1
        if not os.path.isdir(self.folder):
            raise CorpusGoneError(f"The folder of the corpus, {self.folder}, is gone.")
        if 2 * self.num_missing > (self.num_tried if self.num_missing >= MANY_MISSING else self.num_records):
            raise CorpusGoneError(_most_are_missing(self.folder, self.num_missing, self.num_tried))


def check_is_there(folder: str | os.PathLike, records: Iterable["BadRecord"], num_records: int) -> None:
    """Raises `CorpusGoneError` where the files of more than half of `num_records` records were not there."""
    num_missing = sum(not record.kept and os.strerror(errno.ENOENT) in record.reason for record in records)
    if 2 * num_missing > num_records:
        raise CorpusGoneError(_most_are_missing(folder, num_missing, num_records))


def _most_are_missing(folder: str | os.PathLike, num_missing: int, num_records: int) -> str:
    return (
        f"The files of {num_missing} of {num_records} records are not there: {folder} is not whole. Bring the files "
        "back, or take the records that are not there out of its list."
    )


class BadRecord(NamedTuple):
    """`kept` tells whether the record is in the dataset all the same (with NaN where samples are missing)."""

    record_id: str
    reason: str
    kept: bool

    def __str__(self):
        return f"{self.record_id} ({self.reason})"


def append_report(path: str | os.PathLike, records: Iterable[BadRecord]):
    """Appends to the report at `path`. Lines of concurrent writers do not mix: each is one short appending write."""
    with open(path, "ab", buffering=0) as file:
        for record in records:
            record = record._replace(reason=cut(record.reason, MAX_REASON))
            file.write((json.dumps(record._asdict(), ensure_ascii=False) + "\n").encode())


def read_report(path: str | os.PathLike) -> list[BadRecord]:
    """The distinct bad records of the report at `path`, by record id; empty where there is no such file."""
    path = Path(path)
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return sorted({BadRecord(**json.loads(line)) for line in lines})


def bad_records(dataset: "Dataset") -> list[BadRecord]:
    """The bad records found when a dataset of `load_ecg(..., streaming=False)` was prepared, in all its splits.

    A stream has no such list; give `load_ecg` a `report_path` and read it with [`read_report`].
    """
    folders = sorted({str(Path(file["filename"]).parent) for file in dataset.cache_files})
    return [record for folder in folders for record in read_report(Path(folder, REPORT_NAME))]


def summarise(records: Sequence[BadRecord], num_named: int = 5) -> str:
    """One sentence for the log: how many records are left out, how many kept with gaps, the first few with reasons."""
    sentences = []
    for kept, what in ((False, "could not be read and are left out"), (True, "are kept with missing samples as NaN")):
        chosen = [record for record in records if record.kept is kept]
        if chosen:
            more = f" and {len(chosen) - num_named} more" if len(chosen) > num_named else ""
            sentences.append(f"{len(chosen)} records {what}: {'; '.join(map(str, chosen[:num_named]))}{more}.")
    return " ".join(sentences)
