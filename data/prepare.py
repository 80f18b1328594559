"""`prepare_corpus`: converts a corpus once to Parquet shards with plain columns, read by `load_ecg("prepared", ...)`.

Which record goes into which shard, and every byte of a shard, follow from the corpus alone, not from the number of
processes, the engine, or what was interrupted before. A shard is written under a temporary name and renamed when it is
complete and on the disk; what is known of it (the plan it belongs to, its bad records) lies in its own footer. So an
interrupted conversion leaves whole shards and temporary files, and no list of what is done can be wrong.
"""

import hashlib
import io
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.utils import tqdm
from huggingface_hub.constants import REPOCARD_NAME

from .bad_record_report import REPORT_NAME, BadRecord, check_is_there, summarise
from .builder import STORAGE_VERSION, corpus_features, read_or_report, shards_of, tables_of
from .corpora import CORPORA
from .corpus import Corpus, IndexEntry
from .dataset_card import dataset_card
from .engines import run_jobs
from .features import Ecg
from .loading import find_corpus, locate
from .prepared import MANIFEST_NAME, Manifest, Shard, hash_file, read_manifest, shard_name

logger = logging.getLogger(__name__)

ROW_GROUP_BYTES = 8 << 20
"""Signal of a row group, the unit in which shards are read."""
FEWEST_SHARD_RECORDS = 32
"""Opening a shard takes as long as reading ten records of 10 s."""
# Real recordings of 120 kB at 500 Hz, read with and without a check of their checksums: no compression 82 and 47
# microseconds of CPU; lz4, 74 kB, 114 and 105; snappy, 74 kB, 215 and 194; zstd at level 1, 55 kB, 201 and 184.
COMPRESSION = "none"
FOOTER_KEY, BAD_RECORDS_KEY = b"ecg_transformers", b"ecg_transformers_bad_records"
TEMPORARY_ENDING = ".part"
PREVIEW = "preview"
"""Column of pictures, which `load_ecg` leaves out."""


@dataclass(frozen=True)
class ShardJob:
    """All that a process needs to write one shard. `identity` says what is prepared, `plan` is its hash."""

    folder: str
    name: str
    identity: str
    plan: str
    options: Mapping[str, Any]
    entries: tuple[IndexEntry, ...]
    on_bad_record: str
    draw_preview: Callable[[Mapping[str, Any]], bytes | None] | None

    @property
    def path(self) -> Path:
        return Path(self.folder, self.name)

    @property
    def corpus(self) -> Corpus:
        return CORPORA[json.loads(self.identity)["corpus"]]

    @property
    def features(self) -> datasets.Features:
        pictures = {} if self.draw_preview is None else {PREVIEW: datasets.Image()}
        return datasets.Features(pictures | corpus_features(self.corpus))  # seen without scrolling


@dataclass(frozen=True)
class WrittenShard:
    shard: Shard
    bad_records: tuple[BadRecord, ...]


def prepare_corpus(
    name: str,
    data_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    split: str = "all",
    num_proc: int = 1,
    shard_index: int | None = None,
    num_shards: int | None = None,
    engine: str = "processes",
    scheduler: str | None = None,
    on_bad_record: str = "report",
    draw_preview: Callable[[Mapping[str, Any]], bytes | None] | None = None,
    **options,
) -> Manifest | None:
    """Converts a corpus to a folder of Parquet shards; goes on where an interrupted conversion stopped.

    Args:
        name, data_dir, options: The corpus, as for [`load_ecg`].
        output_dir (`str`): Folder to write to: new, empty, or of the same conversion.
        split (`str`): `"all"`, or the one split to convert.
        num_proc (`int`): Processes that read and write.
        shard_index, num_shards (`int`, *optional*):
            Task `shard_index` (from 0) of `num_shards` that share the work, in any order and on any machine that sees
            the folder. It writes its shards and no manifest: a last call without both checks all and writes it.
        engine (`str`): `"processes"` of this machine, or `"dask"`, see [`run_jobs`].
        scheduler (`str`, *optional*): Address of a running Dask scheduler.
        on_bad_record (`str`): See [`load_ecg`]; `bad_records.jsonl` in `output_dir` names the reported ones.
        draw_preview (`Callable`, *optional*):
            Function of a module that draws a decoded `ecg`, or returns `None`, such as
            [`~ecg_transformers.train.report.ecg_paper.draw_preview`]. The pictures (PNG) become the column `preview`,
            which the dataset viewer of the Hub shows and [`load_ecg`] does not read.

    Returns:
        the manifest, or `None` for a task of several.

    Raises:
        ValueError: for what [`load_ecg`] refuses, and for an `output_dir` that holds anything else.
    """
    if (shard_index is None) != (num_shards is None) or (num_shards and not 0 <= shard_index < num_shards):
        raise ValueError(
            f"Expected shard_index from 0 to num_shards - 1 or neither, got {shard_index} of {num_shards}."
        )
    corpus = find_corpus(name)
    if corpus.stored_rows is not None:
        raise ValueError(f"Corpus {name!r} is carried by the package, in prepared form already: load it as it is.")
    if on_bad_record not in ("report", "raise"):
        raise ValueError(f"Unknown on_bad_record={on_bad_record!r}. Choose 'report' or 'raise'.")
    if split not in (*corpus.splits, "all"):
        raise ValueError(f"Unknown split {split!r} of corpus {name!r}. Choose from {[*corpus.splits, 'all']}.")
    folder, complete = locate(corpus, data_dir, corpus.complete_options(options))
    splits = corpus.splits if split == "all" else (split,)
    output = Path(output_dir).expanduser().resolve()
    output.mkdir(parents=True, exist_ok=True)
    jobs = _plan(corpus, folder, complete, splits, output, on_bad_record, draw_preview)
    everything = [job for of_split in jobs.values() for job in of_split]
    if not everything:
        raise ValueError(f"{folder} lists no record of the split {split!r} of corpus {name!r}.")
    _check_output(output, everything)
    chosen = everything if num_shards is None else everything[shard_index::num_shards]
    written = _write(chosen, num_proc, engine, scheduler)
    bad = [record for job in chosen for record in written[job.name].bad_records]
    check_is_there(folder, bad, sum(len(job.entries) for job in chosen))
    if num_shards is not None:
        logger.info("%d shards of this task are there. A call without shard_index writes the manifest.", len(chosen))
        return None
    return _finish(corpus, folder, complete, jobs, written, output)


def _plan(
    corpus: Corpus,
    folder: Path,
    options: dict[str, Any],
    splits: Sequence[str],
    output: Path,
    on_bad_record: str,
    draw_preview: Callable[[Mapping[str, Any]], bytes | None] | None,
) -> dict[str, list[ShardJob]]:
    """The shards of each split, in order."""
    entries = corpus.index(folder, options)
    identity = json.dumps(
        {
            "corpus": corpus.name,
            "options": corpus.stored_options(options),
            "splits": splits,
            "storage_version": STORAGE_VERSION,
            "records_sha256": _hash_entries(entries, folder),
            **({} if draw_preview is None else {PREVIEW: True}),
        },
        sort_keys=True,
        default=_plain,
    )
    shared = identity, hashlib.sha256(identity.encode()).hexdigest(), options
    jobs = {}
    for split in splits:
        parts = shards_of([entry for entry in entries if entry.split == split], FEWEST_SHARD_RECORDS)
        jobs[split] = [
            ShardJob(str(output), shard_name(split, number, len(parts)), *shared, part, on_bad_record, draw_preview)
            for number, part in enumerate(parts)
        ]
    return jobs


def _hash_entries(entries: Sequence[IndexEntry], folder: Path) -> str:
    """Hash of all that the corpus lists. The folder itself may lie elsewhere on the next machine."""
    digest = hashlib.sha256()
    for entry in entries:
        path = os.path.relpath(entry.path, folder)
        line = json.dumps([path, entry.record_id, entry.split, entry.columns], sort_keys=True, default=_plain)
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _plain(value):
    """Converts what JSON has no form for: tables may come with numbers of numpy, options with paths and tuples."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return list(value)


def _check_output(output: Path, jobs: Sequence[ShardJob]):
    """The folder is empty, or of this very conversion."""
    expected, identity = {job.name for job in jobs}, jobs[0].identity
    if (output / MANIFEST_NAME).is_file() and (there := read_manifest(output)).plan != jobs[0].plan:
        raise ValueError(
            f"{output} holds another conversion: {there.corpus!r} with {there.options} (storage version "
            f"{there.storage_version}), or other records. Expected {identity}. Give another output_dir or empty this "
            "one."
        )
    for path in sorted(output.glob("*.parquet")):
        footer = _read_footer(path)
        if footer is None and path.name in expected:
            continue  # damaged: it is written again
        if path.name not in expected or footer != identity:
            raise ValueError(
                f"{path} belongs to another conversion: {footer or 'it has no footer of this package'}. Expected "
                f"{identity}. Give another output_dir or empty this one."
            )


def _read_footer(path: Path) -> str | None:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return metadata[FOOTER_KEY].decode() if FOOTER_KEY in metadata else None


def _write(jobs: Sequence[ShardJob], num_proc: int, engine: str, scheduler: str | None) -> dict[str, WrittenShard]:
    sizes = {job.name: len(job.entries) for job in jobs}
    written = {}
    with tqdm(total=sum(sizes.values()), unit=" records", desc="Preparing") as bar:
        for result in run_jobs(write_shard, jobs, num_proc=num_proc, engine=engine, scheduler=scheduler):
            written[result.shard.file] = result
            bar.update(sizes[result.shard.file])
    return written


def write_shard(job: ShardJob) -> WrittenShard:
    """Writes one shard, unless it is there and whole, and what could not be read then cannot be read now either.

    Raises:
        BadRecordError: under `on_bad_record="raise"`.
    """
    there = _read_shard(job)
    if there is not None and not (there.bad_records and job.on_bad_record == "raise") and not _is_mended(job, there):
        return there
    temporary = Path(job.folder, f".{job.name}.{uuid.uuid4().hex}{TEMPORARY_ENDING}")
    try:
        with open(temporary, "xb") as file:
            _write_rows(job, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, job.path)
        _sync_folder(job.folder)
    finally:
        temporary.unlink(missing_ok=True)
    written = _read_shard(job)
    if written is None:
        raise ValueError(f"{job.path} cannot be read back as it was written. Check the disk and run again.")
    return written


def _is_mended(job: ShardJob, there: WrittenShard) -> bool:
    """Checks whether a record that the shard lacks can be read by now, as after a damaged file was fetched again."""
    lacking = {record.record_id for record in there.bad_records if not record.kept}
    chosen = [entry for entry in job.entries if entry.record_id in lacking]
    return any(read_or_report(job.corpus, entry, job.options, "report", []) is not None for entry in chosen)


def _write_rows(job: ShardJob, file: io.BufferedWriter):
    features = corpus_features(job.corpus)
    schema = job.features.arrow_schema
    schema = schema.with_metadata({**schema.metadata, FOOTER_KEY: job.identity.encode()})
    plain = [name for name in schema.names if name not in ("ecg", PREVIEW)]
    writer = pq.ParquetWriter(
        *(file, schema),
        compression=COMPRESSION,
        use_dictionary=[name for name in plain if name != "record_id"],
        write_statistics=plain,
        write_page_checksum=True,
    )
    bad = []
    reading = (job.options, job.on_bad_record, bad, None)
    tables = tables_of(job.corpus, job.entries, *reading, features, features.arrow_schema, ROW_GROUP_BYTES)
    with writer:
        for table in tables:
            pictures = [] if job.draw_preview is None else [_pictures(table, job.draw_preview)]
            writer.write_table(pa.Table.from_arrays([*pictures, *table.columns], schema=schema))
        writer.add_key_value_metadata({BAD_RECORDS_KEY: json.dumps(bad)})


def _pictures(table: pa.Table, draw_preview: Callable[[Mapping[str, Any]], bytes | None]) -> pa.StructArray:
    """The column of [`datasets.Image`] that shows the recordings of a table; nothing where none is drawn."""
    decode = Ecg().decode_example
    drawn = [draw_preview(decode(stored)) for stored in table["ecg"].to_pylist()]
    return pa.array([content and {"bytes": content, "path": None} for content in drawn], datasets.Image.pa_type)


def _read_shard(job: ShardJob) -> WrittenShard | None:
    """Reads what lies under the shard's name, if it is of this plan and every page of it is as it was written."""
    try:
        with open(job.path, "rb") as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            metadata = parquet.metadata.metadata or {}
            if metadata.get(FOOTER_KEY) != job.identity.encode():
                return None
            for number in range(parquet.num_row_groups):
                parquet.read_row_group(number, use_threads=False)
            file.seek(0)
            shard = Shard(job.name, parquet.metadata.num_rows, os.fstat(file.fileno()).st_size, hash_file(file))
        return WrittenShard(shard, tuple(BadRecord(*fields) for fields in json.loads(metadata[BAD_RECORDS_KEY])))
    except (OSError, ValueError, KeyError, TypeError):  # Arrow's errors are ValueErrors
        return None


def _sync_folder(folder: str | os.PathLike):
    """Puts a rename on the disk. Only POSIX can open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_text(path: Path, text: str):
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_ENDING}")
    with open(temporary, "x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _finish(
    corpus: Corpus,
    folder: Path,
    options: Mapping[str, Any],
    jobs: Mapping[str, Sequence[ShardJob]],
    written: Mapping[str, WrittenShard],
    output: Path,
) -> Manifest:
    """Report and card, then the manifest, then what interrupted runs left is cleared away."""
    everything = [job for of_split in jobs.values() for job in of_split]
    bad = [record for job in everything for record in written[job.name].bad_records]
    splits = {split: [written[job.name].shard for job in of_split] for split, of_split in jobs.items()}
    if not any(shard.num_records for shards in splits.values() for shard in shards):
        raise ValueError(f"No record of {folder} can be read. {summarise(bad)}")
    manifest = Manifest(
        corpus=corpus.name,
        options=json.loads(everything[0].identity)["options"],
        description=corpus.description,
        homepage=corpus.homepage,
        licence=corpus.licence,
        citation=corpus.citation,
        label_names=list(corpus.classes(folder, options)) or None,
        splits=splits,
        num_bad_records=len(bad),
        plan=everything[0].plan,
        storage_version=STORAGE_VERSION,
        package_version=version("ecg-transformers"),
    )
    lines = [json.dumps(record._asdict(), ensure_ascii=False) + "\n" for record in bad]
    _write_text(output / REPORT_NAME, "".join(lines))
    _write_text(output / REPOCARD_NAME, dataset_card(manifest, everything[0].features))
    _write_text(output / MANIFEST_NAME, manifest.to_json())
    for left in output.glob(f".*{TEMPORARY_ENDING}"):
        left.unlink(missing_ok=True)
    if bad:
        logger.warning("%s in %s: %s", corpus.name, folder, summarise(bad))
    return manifest
