"""The folder that `ecg-transformers prepare` writes, and how `load_ecg("prepared", ...)` reads it.

A prepared corpus is a folder, on disk or at any URL that fsspec knows, of Parquet shards with plain columns, and of a
`manifest.json` that is written last: without it the folder is unfinished and refused. Shards, and within them records,
are in the order of the corpus.
"""

import dataclasses
import hashlib
import io
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.exceptions import DatasetGenerationError
from fsspec.core import url_to_fs

from .bad_record_report import BadRecordError
from .corpus import SPLITS
from .formats.limits import check_expansion
from .safe_paths import inside

logger = logging.getLogger(__name__)

PREPARED = "prepared"
MANIFEST_NAME = "manifest.json"
FORMAT = "ecg-transformers prepared corpus"
FORMAT_VERSION = 1

MAX_MANIFEST_BYTES = 64 << 20
READ_BYTES = 8 << 20
CURE = "Run the same `ecg-transformers prepare` again: what is there is kept."


def shard_name(split: str, number: int, num_shards: int) -> str:
    return f"{split}-{number:05d}-of-{num_shards:05d}.parquet"


@dataclass(frozen=True)
class Shard:
    """A Parquet file of a prepared corpus, as its manifest states it."""

    file: str
    num_records: int
    num_bytes: int
    sha256: str

    def __post_init__(self):
        if not isinstance(self.file, str) or not isinstance(self.num_records, int):
            raise ValueError(f"expected the name and the number of records of a shard, got {self}")


@dataclass(frozen=True)
class Manifest:
    """Statement of a prepared corpus on itself.

    Args:
        corpus (`str`), options (`dict`): Arguments of [`load_ecg`] by which it was prepared.
        description, homepage, licence, citation (`str`): Those of the corpus.
        label_names (`list[str]`, *optional*): Classes in order, where it declares them.
        splits (`dict[str, list[Shard]]`): The shards of each split, in order.
        num_bad_records (`int`): Records that could not be read, or only in part; `bad_records.jsonl` names them.
        plan (`str`): Hash of corpus, options, storage version and list of records; every shard carries it too.
        storage_version (`int`): Version of readers and columns.
        package_version (`str`): Version of this package that finished the folder.
    """

    corpus: str
    options: dict[str, Any]
    description: str
    homepage: str
    licence: str
    citation: str
    label_names: list[str] | None
    splits: dict[str, list[Shard]]
    num_bad_records: int
    plan: str
    storage_version: int
    package_version: str

    def to_json(self) -> str:
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        content["num_records"] = {
            split: sum(shard.num_records for shard in shards) for split, shards in self.splits.items()
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """Raises `ValueError` for what is no manifest, or one of a later version."""
        try:
            content = json.loads(text)
            if content["format"] != FORMAT or content["format_version"] > FORMAT_VERSION:
                raise ValueError(f"it has the format {content['format']!r}, version {content['format_version']}")
            known = {item.name: content[item.name] for item in dataclasses.fields(cls)}
            known["splits"] = {
                split: [Shard(**shard) for shard in shards] for split, shards in known["splits"].items()
            }
            if unknown := sorted(set(known["splits"]) - set(SPLITS)):  # they become names of files
                raise ValueError(f"it has the splits {unknown}")
            # what comes with the data goes to the cache and to models as it is
            texts = [known[name] for name in ("corpus", "description", "homepage", "licence", "citation", "plan")]
            if not all(isinstance(text, str) for text in (*texts, *(known["label_names"] or ()))):
                raise ValueError(f"expected texts, got {texts} and {known['label_names']}")
            if not isinstance(known["label_names"], list | None):
                raise ValueError(f"expected a list of label_names, got {known['label_names']!r}")
            if not any(known["splits"].values()):
                raise ValueError("it lists no shard")
            files = [shard.file for shards in known["splits"].values() for shard in shards]
            if twice := sorted({file for file in files if files.count(file) > 1}):
                raise ValueError(f"it lists shards twice: {twice[:3]}")
            return cls(**known)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{where} is no manifest of a prepared corpus of version {FORMAT_VERSION} "
                f"({type(error).__name__}: {error}). A later version of this package may have written it."
            ) from error


def read_manifest(location: str | os.PathLike) -> Manifest:
    """The manifest of a prepared corpus.

    Args:
        location: A folder, or its URL: `"hf://datasets/owner/name"`, `"s3://..."`, `"https://..."`.

    Raises:
        ValueError: if there is no such folder, or an unfinished one (says how to finish it), or no prepared corpus.
    """
    file_system, folder = _open_location(location)
    path = f"{folder}/{MANIFEST_NAME}"
    try:
        with file_system.open(path, "rb") as file:
            content = file.read(MAX_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(_why_no_manifest(file_system, folder, location)) from None
    return Manifest.from_json(content.decode("utf-8", errors="replace"), f"{location}/{MANIFEST_NAME}")


def absolute_location(location: str | os.PathLike) -> str:
    """A folder as a full path, so that workers find it too; a URL as it is."""
    location = os.fspath(location)
    return location if "://" in location else os.path.abspath(os.path.expanduser(location))


def _open_location(location: str | os.PathLike) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        file_system, folder = url_to_fs(absolute_location(location))
    except (ValueError, ImportError) as error:  # an unknown scheme, or one whose package is not installed
        raise ValueError(f"Cannot open {location}: {error}. Expected a folder or a URL that fsspec knows.") from error
    return file_system, folder.rstrip("/")


def _why_no_manifest(file_system, folder: str, location) -> str:
    try:
        names = [os.path.basename(path) for path in file_system.ls(folder, detail=False)]
    except FileNotFoundError:
        return f"There is no folder {location}. Give the --output_dir of `ecg-transformers prepare`, or its URL."
    except (OSError, NotImplementedError):  # a server that lists nothing
        return f"There is no prepared corpus at {location}: no {MANIFEST_NAME} could be read there. Check the URL."
    if any(name.endswith((".parquet", ".part")) for name in names):
        return f"The prepared corpus at {location} is unfinished: it has no {MANIFEST_NAME}. {CURE}"
    return (
        f"{location} holds no prepared corpus: it has no {MANIFEST_NAME}. `ecg-transformers prepare --output_dir` "
        "makes one; other data load under the name of their corpus."
    )


@contextmanager
def _open_shard(url: str):
    """A shard as a file that can be read at any place; from servers that cannot do that, as a whole."""
    if "://" not in url:  # not mapped into memory: there a disk that fails kills the process without a word
        with pa.OSFile(url) as file:
            yield file
        return
    file_system, path = url_to_fs(url)
    with file_system.open(path, "rb") as file:
        yield file if file.seekable() else io.BytesIO(file.read())


def read_tables(url: str, num_records: int, verify: bool = True, left_out: Collection[str] = ()) -> Iterator[pa.Table]:
    """The row groups of a shard, one at a time.

    Args:
        url (`str`): Where it lies.
        num_records (`int`): Number of its records by the manifest.
        verify (`bool`, *optional*, defaults to `True`): Whether the checksum of every page is compared.
        left_out (`Collection[str]`, *optional*): Columns of which no byte is read.

    Raises:
        ValueError: if it is missing, damaged, or holds another number of records than the manifest states.
    """
    found, unreadable = (
        0,
        (OSError, pa.ArrowException),
    )  # bound here: at exit, Python empties modules before generators
    try:
        with _open_shard(url) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=verify)
            num_bytes = file.seek(0, os.SEEK_END)
            columns = [name for name in parquet.schema_arrow.names if name not in left_out]
            for number in range(parquet.num_row_groups):
                check_expansion(url, parquet.metadata.row_group(number).total_byte_size, num_bytes)
                table = parquet.read_row_group(number, columns, use_threads=False)
                found += len(table)
                yield table
    except unreadable as error:
        raise ValueError(f"Cannot read shard {url}: {type(error).__name__}: {error}. {CURE}") from error
    if found != num_records:
        raise ValueError(f"Expected {num_records} records in shard {url}, got {found}. {CURE}")


def hash_file(file) -> str:
    """SHA-256 of an open file, in hexadecimal digits."""
    digest = hashlib.sha256()
    while block := file.read(READ_BYTES):
        digest.update(block)
    return digest.hexdigest()


def verify_shards(location: str | os.PathLike, manifest: Manifest, splits: tuple[str, ...]):
    """Compares the checksum of every shard with the manifest.

    Raises:
        ValueError: names the first shard that is missing or differs.
    """
    for split in splits:
        for shard in manifest.splits[split]:
            url = shard_url(location, shard)
            try:
                file_system, path = url_to_fs(url)
                with file_system.open(path, "rb") as file:
                    found = hash_file(file)
            except OSError as error:
                raise ValueError(f"Cannot read shard {url}: {type(error).__name__}: {error}. {CURE}") from error
            if found != shard.sha256:
                raise ValueError(
                    f"Shard {url} is damaged: its SHA-256 is {found}, the manifest says {shard.sha256}. {CURE}"
                )


def shard_url(location: str | os.PathLike, shard: Shard) -> str:
    """Address of a shard. A manifest comes with the data: a name that leads out of the folder is refused."""
    location = absolute_location(location).rstrip("/")
    return inside(location, shard.file) if "://" not in location else f"{location}/{inside('', shard.file)}"


@dataclass
class PreparedConfig(datasets.BuilderConfig):
    """Place of a prepared corpus, and its manifest, whose content names the cache."""

    location: str = ""
    manifest: Manifest | None = None

    def create_config_id(self, config_kwargs, custom_features=None):
        digest = hashlib.sha256(self.manifest.to_json().encode()).hexdigest()
        return super().create_config_id({"manifest": digest}, custom_features)


class PreparedDatasetBuilder(datasets.ArrowBasedBuilder):
    """Serves the shards of a prepared corpus; each is one shard of the stream too."""

    BUILDER_CONFIG_CLASS = PreparedConfig
    DEFAULT_WRITER_BATCH_SIZE = 100

    def __init__(self, *args, **kwargs):
        self._verified: set[str] = set()
        super().__init__(*args, **kwargs)

    def _info(self):
        """Columns of the first shard, pictures (see [`prepare_corpus`]) left out."""
        manifest = self.config.manifest
        first = next(shard for shards in manifest.splits.values() for shard in shards)
        url = shard_url(self.config.location, first)
        try:
            with _open_shard(url) as file:
                schema = pq.read_schema(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise ValueError(f"Cannot read shard {url}: {type(error).__name__}: {error}. {CURE}") from error
        known = datasets.Features.from_arrow_schema(schema)
        self._pictures = {name for name, feature in known.items() if isinstance(feature, datasets.Image)}
        return datasets.DatasetInfo(
            description=manifest.description,
            citation=manifest.citation,
            homepage=manifest.homepage,
            license=manifest.licence,
            features=datasets.Features({name: known[name] for name in known if name not in self._pictures}),
        )

    @cached_property
    def _schema(self) -> pa.Schema:
        return self.info.features.arrow_schema  # takes milliseconds to make

    def _split_generators(self, dl_manager):
        return [
            datasets.SplitGenerator(
                name=split,
                gen_kwargs={
                    "shards": [(shard_url(self.config.location, shard), shard.num_records) for shard in shards]
                },
            )
            for split, shards in self.config.manifest.splits.items()
            if shards
        ]

    def _generate_tables(self, shards):
        for number, (url, num_records) in enumerate(shards):
            # Once in each process: what a first epoch has found whole is whole in the second.
            tables = read_tables(url, num_records, verify=url not in self._verified, left_out=self._pictures)
            for group, table in enumerate(tables):
                try:
                    is_plain = table.schema.equals(self._schema)  # but for what is said beside it
                    table = pa.table(table.columns, self._schema) if is_plain else table.cast(self._schema)
                except (pa.ArrowException, ValueError) as error:
                    raise ValueError(f"Shard {url} has other columns than the first one: {error}. {CURE}") from error
                yield f"{number}-{group}", table
            self._verified.add(url)


def prepared_label_names(location: str | os.PathLike | None) -> tuple[str, ...]:
    """The classes that the prepared corpus had when it was prepared, in order."""
    manifest = _read_given_manifest(location)
    if manifest.label_names is None:
        raise ValueError(
            f"Corpus {manifest.corpus!r} declares no classes. Collect them from the `labels` of its rows."
        )
    return tuple(manifest.label_names)


def _read_given_manifest(location: str | os.PathLike | None) -> Manifest:
    if location is None:
        raise ValueError("Corpus 'prepared' needs data_dir, the folder or URL that `ecg-transformers prepare` wrote.")
    return read_manifest(location)


def load_prepared(
    location: str | os.PathLike | None,
    split: str,
    streaming: bool,
    on_bad_record: str,
    report_path: str | os.PathLike | None,
    num_proc: int | None,
    cache_dir: str | os.PathLike | None,
    options: Mapping[str, Any],
) -> datasets.Dataset | datasets.IterableDataset:
    """Does what `load_ecg("prepared", ...)` says. Rows stay as stored."""
    if unknown := sorted(set(options) - {"verify"}):
        raise ValueError(
            f"Unknown options {unknown} for corpus 'prepared': task, rate and the like were chosen when it was "
            "prepared. Its one option is 'verify'."
        )
    if report_path is not None:
        raise ValueError(
            f"Leave out report_path={os.fspath(report_path)!r}: bad_records.jsonl of the folder is there."
        )
    manifest = _read_given_manifest(location)
    splits = tuple(name for name, shards in manifest.splits.items() if shards)
    if split not in (*splits, "all"):
        raise ValueError(
            f"Unknown split {split!r} of the prepared corpus at {location}. Choose from {[*splits, 'all']}."
        )
    if manifest.num_bad_records:
        reported = f"bad_records.jsonl of {location} names {manifest.num_bad_records} records with faults"
        if on_bad_record == "raise":
            raise BadRecordError(f"{reported}; on_bad_record='report' loads those that could be read.")
        logger.info("%s.", reported)
    if options.get("verify"):
        verify_shards(location, manifest, splits if split == "all" else (split,))
    builder = PreparedDatasetBuilder(
        cache_dir=os.fspath(cache_dir) if cache_dir is not None else None,
        dataset_name=PREPARED,
        config_name=PREPARED,
        location=absolute_location(location),
        manifest=manifest,
    )
    if streaming:
        return builder.as_streaming_dataset(split)
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):  # our sentence, not that of the library around it
            raise error.__cause__ from None
        raise
    return builder.as_dataset(split)
