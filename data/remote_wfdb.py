"""WFDB records streamed from a URL that fsspec knows: the files of one record at a time, never kept.

The folder lists its records in a file `RECORDS`, one name a line, as the databases of PhysioNet do; a line that ends
with `/` is a folder with a `RECORDS` of its own.
"""

import logging
import os
import posixpath
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import datasets
from fsspec.core import url_to_fs

from .bad_record_report import append_report, summarise
from .builder import corpus_features, read_or_report, shards_of
from .corpora.wfdb_folder import WFDB_FOLDER
from .corpus import IndexEntry
from .formats.wfdb_header import WfdbHeader, parse_header
from .records import EcgRecord
from .safe_paths import inside

logger = logging.getLogger(__name__)

LISTING = "RECORDS"
# What a server sends must not decide how much is asked for.
MAX_TEXT_BYTES, MAX_SIGNAL_BYTES, MAX_DEPTH, MAX_LISTINGS = 64 << 20, 1 << 30, 5, 100_000
PAUSES_SECONDS = (1.0, 4.0, 16.0)
"""Waited before a file is asked for again that the server failed to give."""


def stream_wfdb(
    url: str, options: Mapping[str, Any], on_bad_record: str, report_path: str | os.PathLike | None
) -> datasets.IterableDataset:
    """Does what `load_ecg("wfdb", url, streaming=True)` says. Rows stay as stored.

    Raises:
        ValueError: if there is no list of records, or it names what is not inside the folder.
        RuntimeError: while it is read, if the server keeps failing: a fault of the server is no fault of a record.
    """
    url = url.rstrip("/")
    entries = [IndexEntry(name, name) for name in sorted(set(_list_records(url)))]
    if not entries:
        raise ValueError(f"{url}/{LISTING} lists no records.")
    return datasets.IterableDataset.from_generator(
        _rows,
        features=corpus_features(WFDB_FOLDER),
        gen_kwargs={
            "shards": shards_of(entries),
            "url": url,
            "options": dict(options),
            "on_bad_record": on_bad_record,
            "report_path": os.fspath(report_path) if report_path is not None else None,
        },
    )


def _list_records(url: str) -> list[str]:
    """Names of the records of a folder and those below it, relative to it."""
    names, pending, num_listings, num_bytes = [], [""], 0, 0
    while pending:
        folder = pending.pop()
        listing = posixpath.join(url, folder, LISTING)
        num_listings += 1
        if folder.count("/") > MAX_DEPTH or num_listings > MAX_LISTINGS or num_bytes > MAX_TEXT_BYTES:
            raise ValueError(
                f"Expected at most {MAX_LISTINGS} lists of {MAX_TEXT_BYTES} bytes together, {MAX_DEPTH} folders deep; "
                f"{listing} is beyond that."
            )
        try:
            content = _fetch(listing, MAX_TEXT_BYTES)
        except OSError as error:
            raise ValueError(
                f"Cannot read {listing} ({type(error).__name__}: {error}). A stream needs this list of records, one "
                "name a line without its ending."
            ) from error
        num_bytes += len(content)
        for line in filter(None, map(str.strip, content.decode("utf-8", errors="replace").splitlines())):
            name = folder + inside("", line.rstrip("/"))
            if line.endswith("/"):
                pending.append(f"{name}/")
            else:
                names.append(name)
    return names


def _fetch(url: str, max_bytes: int) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: if the server says that there is none.
        RuntimeError: if the server fails, also when it is asked again.
    """
    file_system, path = url_to_fs(url)
    for pause in (*PAUSES_SECONDS, None):
        try:
            with file_system.open(path, "rb") as file:
                content = file.read(max_bytes + 1)
            break
        except FileNotFoundError:
            raise
        except Exception as error:  # each file system has errors of its own: aiohttp's are no OSErrors
            fault = error
        if pause is None:
            raise RuntimeError(
                f"{url} could not be fetched in {len(PAUSES_SECONDS) + 1} tries ({type(fault).__name__}: {fault}). "
                "The stream stops, so that no record is lost; go on from its state_dict."
            ) from fault
        time.sleep(pause)
    if len(content) > max_bytes:
        raise ValueError(f"Expected at most {max_bytes} bytes at {url}.")
    return content


def _rows(
    shards: Sequence[Sequence[IndexEntry]],
    url: str,
    options: Mapping[str, Any],
    on_bad_record: str,
    report_path: str | None,
):
    corpus = replace(WFDB_FOLDER, read=partial(_read, url))
    for shard in shards:
        bad = []
        for entry in shard:
            record = read_or_report(corpus, entry, options, on_bad_record, bad)
            if record is not None:
                yield record.to_row()
        if bad and report_path is not None:
            append_report(report_path, bad)
        if bad:
            logger.warning("%s: %s", url, summarise(bad))


def _read(url: str, entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    """Reads a record from copies of its files that go away again."""
    folder, name = posixpath.split(f"{url}/{entry.path}")
    with tempfile.TemporaryDirectory() as copies:
        try:
            header = _copy_header(folder, name, copies)
            _copy_signals(folder, header, copies)
            for segment in dict.fromkeys(header.segment_names):
                if segment != "~":  # a gap
                    _copy_signals(folder, _copy_header(folder, segment, copies), copies)
            return WFDB_FOLDER.read(IndexEntry(os.path.join(copies, name), entry.record_id), options)
        except ValueError as error:
            raise ValueError(str(error).replace(copies, folder)) from None


def _copy_header(folder: str, name: str, copies: str) -> WfdbHeader:
    content = _copy(folder, f"{name}.hea", copies, MAX_TEXT_BYTES)
    return parse_header(content.decode("utf-8", errors="replace"))


def _copy_signals(folder: str, header: WfdbHeader, copies: str):
    for file_name in dict.fromkeys(signal.file_name for signal in header.signals):
        if file_name != "~":
            _copy(folder, file_name, copies, MAX_SIGNAL_BYTES, header.folder)


def _copy(folder: str, file_name: str, copies: str, max_bytes: int, own_folder: str = "") -> bytes:
    """Copies a file of a folder, by its name or, as `signal_path` does, without the folder of the record's name."""
    path, url = inside(copies, file_name), f"{folder}/{inside('', file_name)}"
    try:
        content = _fetch(url, max_bytes)
    except FileNotFoundError:
        if own_folder and file_name.startswith(f"{own_folder}/"):
            return _copy(folder, file_name.removeprefix(f"{own_folder}/"), copies, max_bytes)
        raise ValueError(f"Cannot read {url}: there is none.") from None
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return content
