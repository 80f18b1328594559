"""Parts that the files of corpora share: reads an index table, says that a copy is partial, fills in a record."""

import csv
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..corpus import Corpus, IndexEntry
from ..formats.limits import MAX_TEXT_BYTES, check_file
from ..records import EcgRecord

logger = logging.getLogger(__name__)

ROW_ERRORS = (KeyError, ValueError, SyntaxError, TypeError, AttributeError, OverflowError, IndexError)
_TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_MISSING = ("", "nan", "na", "<na>", "null", "none")


def is_missing(text: str) -> bool:
    """Checks whether a cell holds nothing, as programs write it: empty, `nan`, `NA`, `<NA>`, `null` or `None`."""
    return text.strip().lower() in _MISSING


def read_rows(table: Path, corpus: Corpus, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a CSV table that a corpus brings, as they come.

    Raises:
        ValueError: if there is no such table (says where to get the corpus) or it lacks one of `columns`.
    """
    if not table.is_file():
        raise ValueError(f"There is no {table.name} in {table.parent}. {corpus.where_to_get()}")
    check_file(table, MAX_TEXT_BYTES)
    with open(table, newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file)
            absent = [name for name in columns if name not in (reader.fieldnames or ())]
            if absent:
                raise ValueError(f"{table} has no columns {absent}. It has {reader.fieldnames}.")
            yield from reader
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{table} is no CSV table in UTF-8: {error}") from error


def index_rows(
    table: Path,
    corpus: Corpus,
    columns: Sequence[str],
    entry_of: Callable[[Mapping[str, str]], IndexEntry | None],
) -> tuple[list[IndexEntry], int]:
    """One entry for each row of a table but those for which `entry_of` returns `None`, and how many rows there are.

    Raises:
        ValueError: as `read_rows`; for a row that `entry_of` cannot read (names it); for a record that comes twice.
    """
    entries, known, number = [], set(), 0
    for number, row in enumerate(read_rows(table, corpus, columns), start=1):
        try:
            entry = entry_of(row)
            if entry is not None and entry.record_id in known:
                raise ValueError(f"the record {entry.record_id!r} comes twice")
        except ROW_ERRORS as error:
            line = f"row {number} ({columns[0]} {row.get(columns[0])})"
            raise ValueError(f"{table}: {line} cannot be read: {type(error).__name__}: {error}") from error
        if entry is not None:
            known.add(entry.record_id)
            entries.append(entry)
    return entries, number


def warn_if_partial(corpus: Corpus, data_dir: Path, num_records: int, expected: int, num_listed: int | None = None):
    """Says so in the log where a folder does not hold the number of records that the full corpus has.

    Args:
        num_records (`int`): Found in the folder.
        expected (`int`): Number in the published corpus.
        num_listed (`int`, *optional*): Number in the folder's own table; those without a file were left out.

    Raises:
        ValueError: if there is no record at all.
    """
    listed = "" if num_listed in (None, num_records) else f" of the {num_listed} in its table"
    if not num_records:
        raise ValueError(f"{data_dir} holds no recording{listed}. {corpus.where_to_get()}")
    if num_records != expected:
        logger.warning(
            "%s is a partial copy of %s, or another version: it holds %d records%s, the corpus has %d.",
            *(data_dir, corpus.name, num_records, listed, expected),
        )


def file_names(folder: Path, ending: str) -> set[str]:
    """Names, without ending, of the files of a folder (not below it) that end so; empty if there is no folder."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as found:
        return {entry.name.removesuffix(ending) for entry in found if entry.name.endswith(ending)}


def walk(folder: str | os.PathLike) -> Iterator[tuple[str, list[str]]]:
    """`(folder, names of its files)` of a folder and all below it, in order; those behind links come last, and each
    once, so that links in a circle end."""
    pending, known = [os.fspath(folder)], set()
    while pending:
        for directory, subfolders, names in os.walk(pending.pop(0)):
            real = os.path.realpath(directory)
            if real in known:
                subfolders.clear()
                continue
            known.add(real)
            subfolders.sort()
            paths = [os.path.join(directory, name) for name in subfolders]
            pending += [path for path in paths if os.path.islink(path)]
            yield directory, sorted(names)


def header_paths(folder: Path) -> Iterator[Path]:
    """Paths without `.hea` of all WFDB headers in and below a folder, in order."""
    for directory, names in walk(folder):
        for name in names:
            if name.endswith(".hea"):
                yield Path(directory, name.removesuffix(".hea"))


def fill_in(record: EcgRecord, entry: IndexEntry, source: str) -> EcgRecord:
    """Gives the record what the index knows of it."""
    for name, value in entry.columns.items():
        setattr(record, name, value)
    record.source = source
    return record


def truth(text: str) -> bool | None:
    """`True` or `False` of a table's cell; `None` where it is empty.

    Raises:
        ValueError: for anything else.
    """
    if is_missing(text):
        return None
    if text.strip().lower() not in _TRUTHS:
        raise ValueError(f"expected True, False, 1, 0 or nothing, got {text!r}")
    return _TRUTHS[text.strip().lower()]


def number(text: str) -> float | None:
    """The number in a table's cell; `None` where it is empty.

    Raises:
        ValueError: if it is no number.
    """
    return None if is_missing(text) else float(text)


def check_unique(record_ids: Iterable[str], folder: Path):
    """Raises `ValueError` if a record id comes twice, as it does where a folder holds two copies of a corpus."""
    known = set()
    for record_id in record_ids:
        if record_id in known:
            raise ValueError(
                f"{folder} holds the record {record_id!r} twice. Point data_dir at one copy of the corpus."
            )
        known.add(record_id)
