"""The `datasets` builder underneath `load_ecg`: from an index of records to plain columns, in shards."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.features.features import List, Value

from .bad_record_report import REPORT_NAME, BadRecord, BadRecordError, MissingFiles, append_report, summarise
from .corpora import CORPORA
from .corpus import Corpus, IndexEntry
from .features import ECG_STORAGE, RecordTable
from .records import EcgRecord

logger = logging.getLogger(__name__)

STORAGE_VERSION = 2
"""Raised whenever the readers or the stored columns change, so that older caches are not served."""

# Highly composite, so that 1, 2, 3, 4, 6, 8, 12 ... ranks x workers get equal numbers of shards.
SHARD_COUNTS = (96, 48, 24, 12, 6, 4, 2, 1)
LARGE_CORPUS, NUM_SHARDS_OF_LARGE_CORPUS = 100_000, 960
# Records of a shard of a corpus of millions, which has a power of two times as many: 512 loaders share 10 million.
MOST_SHARD_RECORDS = 2048
GROUP_RECORDS = 4  # that are read together, where they can be
STREAMED_BYTES, MOST_TABLE_RECORDS = 2 << 20, 1000
"""Signal of a table of a stream, of which a worker holds one; and records of any table."""


def corpus_features(corpus: Corpus) -> datasets.Features:
    """Columns of a corpus as they are stored: plain types, readable without this package."""
    extra = corpus.extra_features() if corpus.extra_features else {}
    return datasets.Features(
        {
            "record_id": Value("string"),
            "patient_id": Value("string"),
            "ecg": ECG_STORAGE,
            "labels": List(Value("string")),
            "fold": Value("int64"),
            "age": Value("float64"),
            "sex": Value("string"),
            "source": Value("string"),
            **extra,
        }
    )


def corpus_info(corpus: Corpus) -> datasets.DatasetInfo:
    return datasets.DatasetInfo(
        description=corpus.description,
        citation=corpus.citation,
        homepage=corpus.homepage,
        license=corpus.licence,
        features=corpus_features(corpus),
    )


def folder_fingerprint(folder: str | os.PathLike) -> str:
    """Hash of the paths, sizes and times of all files in and below a folder, links followed; a changed folder hashes
    otherwise."""
    digest = hashlib.blake2b(digest_size=16)
    pending, known = [os.fspath(folder)], set()
    while pending:
        directory = pending.pop()
        status = os.stat(directory)
        if (status.st_dev, status.st_ino) in known:  # behind a link, which may lead in a circle
            continue
        known.add((status.st_dev, status.st_ino))
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            try:
                if entry.is_dir():
                    pending.append(entry.path)
                    continue
                status = entry.stat()
            except OSError:  # a broken link, or one to itself: its reader will say so
                digest.update(f"{entry.path}\0broken\0".encode("utf-8", "surrogateescape"))
                continue
            line = f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\0"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@dataclass
class EcgBuilderConfig(datasets.BuilderConfig):
    """Origin of a dataset: the corpus (its name is the configuration's), its folder and its options.

    `on_bad_record` and `report_path` do not change what is stored and are left out of the cache's name.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    on_bad_record: str = "report"
    report_path: str | None = None

    def create_config_id(self, config_kwargs, custom_features=None):
        what = {key: config_kwargs[key] for key in ("data_dir", "options") if key in config_kwargs}
        if "options" in what:  # with the content of files that they name, so that no cache of other files is served
            what["options"] = CORPORA[self.name].stored_options(what["options"])
        what.update(corpus=self.name, storage_version=STORAGE_VERSION, files=folder_fingerprint(self.data_dir))
        return super().create_config_id(what, custom_features)


class EcgDatasetBuilder(datasets.ArrowBasedBuilder):
    """Builds a corpus from its folder, to Arrow files or as a stream.

    `gen_kwargs["shards"]` is a list, so `num_proc`, `DataLoader` workers and `split_dataset_by_node` share it without
    overlap.
    """

    BUILDER_CONFIG_CLASS = EcgBuilderConfig
    DEFAULT_WRITER_BATCH_SIZE = 100  # of 0.12 MB each at 12 leads x 10 s x 500 Hz

    @property
    def corpus(self) -> Corpus:
        return CORPORA[self.config.name]

    def _info(self):
        return corpus_info(self.corpus)

    @cached_property
    def _schema(self) -> pa.Schema:
        return self.info.features.arrow_schema

    def _split_generators(self, dl_manager):
        entries = self.corpus.index(Path(self.config.data_dir), self.config.options)
        self._missing = MissingFiles(self.config.data_dir, len(entries))  # over the shards of a stream
        # While a dataset is written, the builder's output folder is one that replaces the final folder at the end.
        report_path = (
            self.config.report_path if dl_manager.is_streaming else os.path.join(self._output_dir, REPORT_NAME)
        )
        return [
            datasets.SplitGenerator(
                name=split,
                gen_kwargs={
                    "shards": shards_of([entry for entry in entries if entry.split == split]),
                    "report_path": report_path,
                    "log": dl_manager.is_streaming,
                },
            )
            for split in self.corpus.splits
        ]

    def _generate_tables(self, shards, report_path, log):
        config, missing, features = self.config, self._missing if log else None, self.info.features
        for number, shard in enumerate(shards):
            bad = []
            reading = (config.options, config.on_bad_record, bad, missing)
            tables = tables_of(self.corpus, shard, *reading, features, self._schema)
            for part, table in enumerate(tables):
                yield f"{number}-{part}", table
            if bad and report_path is not None:
                append_report(report_path, bad)
            if bad and log:
                logger.warning("%s: %s", self.corpus.name, summarise(bad))


def read_or_report(
    corpus: Corpus,
    entry: IndexEntry,
    options: Mapping[str, Any],
    on_bad_record: str,
    bad: list[BadRecord],
    missing: MissingFiles | None = None,
) -> EcgRecord | None:
    """Reads one record; what is wrong with it is added to `bad`, or raised under `on_bad_record="raise"`.

    Raises:
        CorpusGoneError: where `missing` finds that it is no matter of single records.
    """
    record, kept, fault = None, False, None
    name = entry.record_id.encode(errors="backslashreplace").decode()
    try:
        if name != entry.record_id:
            raise ValueError("Its name is not UTF-8, so that no table can hold it. Rename the file.")
        record = corpus.read(entry, options)
        num_missing = record.num_missing_samples
        if not num_missing:
            if missing is not None:
                missing.add()
            return record
        reason, kept = f"{num_missing} of {record.signal.size} samples are missing", True
    except (ValueError, OSError, MemoryError, OverflowError) as error:
        # Without the folder: reasons are stored with the recordings, and published with them.
        fault = error
        reason, folder = str(error) or type(error).__name__, os.path.dirname(entry.path)
        if os.path.isabs(folder):
            reason = reason.replace(folder + os.sep, "")
    if missing is not None:
        missing.add(fault)
    if on_bad_record == "raise":
        raise BadRecordError(f"Record {name}: {reason} (on_bad_record='report' goes on without it.)")
    bad.append(BadRecord(name, reason, kept))
    return record


def tables_of(
    corpus: Corpus,
    entries: Sequence[IndexEntry],
    options: Mapping[str, Any],
    on_bad_record: str,
    bad: list[BadRecord],
    missing: MissingFiles | None,
    features: datasets.Features,
    schema: pa.Schema,
    num_bytes: int = STREAMED_BYTES,
) -> Iterator[pa.Table]:
    """Records as tables, by `read_group` of the corpus or else by [`read_or_report`]; `num_bytes` of signal complete
    one."""
    start, alone, fault = 0, 0, None  # the next record, and how many are to be read one by one
    while start < len(entries) and fault is None:
        table = RecordTable(features, schema, num_bytes + num_bytes // 8)  # for the last one too
        try:
            with table:
                while start < len(entries) and table.num_bytes < num_bytes and len(table.rows) < MOST_TABLE_RECORDS:
                    some = entries[start : start + min(GROUP_RECORDS, MOST_TABLE_RECORDS - len(table.rows))]
                    group = None
                    if corpus.read_group is not None and not alone:
                        group = corpus.read_group(some, num_bytes - table.num_bytes, options)
                    if group is not None:
                        table.add_group(*group)
                        start += len(group[1])
                        if missing is not None:
                            missing.num_tried += len(group[1])
                        continue
                    record = read_or_report(corpus, some[0], options, on_bad_record, bad, missing)
                    start, alone = start + 1, (alone or len(some)) - 1
                    if record is not None:
                        table.add(record)
        except Exception as error:  # what was read before comes first
            fault = error
        if table.rows:
            yield table.finish()
    if fault is not None:
        raise fault


def num_shards_of(num_records: int, fewest: int = 1) -> int:
    """Number of shards for so many records, of at least `fewest` each."""
    if num_records >= LARGE_CORPUS:
        num_shards = NUM_SHARDS_OF_LARGE_CORPUS
        while num_records > num_shards * MOST_SHARD_RECORDS:
            num_shards *= 2
        return num_shards
    return next((count for count in SHARD_COUNTS if count * fewest <= num_records), min(num_records, 1))


def shards_of(entries: Sequence[IndexEntry], fewest: int = 1) -> list[tuple[IndexEntry, ...]]:
    """Divides entries, in order, into parts of nearly equal length."""
    num_shards = num_shards_of(len(entries), fewest)
    bounds = [len(entries) * number // num_shards for number in range(num_shards + 1)] if num_shards else []
    return [tuple(entries[start:stop]) for start, stop in pairwise(bounds)]
