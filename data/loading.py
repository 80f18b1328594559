"""`load_ecg`: one call for every corpus, in memory-mapped form or as a stream."""

import logging
import os
import shutil
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from .bad_record_report import (
    REPORT_NAME,
    BadRecordError,
    CorpusGoneError,
    append_report,
    check_is_there,
    read_report,
    summarise,
)
from .builder import EcgDatasetBuilder, corpus_info, num_shards_of
from .corpora import CORPORA
from .corpus import Corpus
from .features import Ecg
from .prepared import MANIFEST_NAME, PREPARED, load_prepared, prepared_label_names
from .remote_wfdb import stream_wfdb

logger = logging.getLogger(__name__)

LOADING_OPTIONS = ("decode", "on_bad_record", "report_path", "num_proc", "cache_dir")


def load_ecg(
    name: str,
    data_dir: str | os.PathLike | None = None,
    split: str = "train",
    streaming: bool = False,
    *,
    decode: bool = True,
    on_bad_record: str = "report",
    report_path: str | os.PathLike | None = None,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    **options,
) -> datasets.Dataset | datasets.IterableDataset:
    """Loads a corpus of electrocardiograms.

    Args:
        name (`str`):
            A published corpus (`docs/corpora.md` lists them: `"ptb-xl"`, `"mimic-iv-ecg"`, `"code-15"`, `"cinc2021"`,
            ...); `"ptb-xl-sample"`, which the package carries; `"wfdb"` (any folder of WFDB records), `"npy"` (an
            array of recordings and a table beside it), `"ecgfolder"` (recordings of any format and a table of them)
            or `"prepared"` (what `ecg-transformers prepare` wrote).
        data_dir (`str`):
            Folder of the corpus; of `"npy"` also its declaration or array; of `"prepared"`, and of streams of
            `"wfdb"`, also a URL that fsspec knows (`"hf://..."`, `"s3://..."`, `"https://..."`). Not for carried
            corpora.
        split (`str`):
            `"train"`, `"validation"`, `"test"` or `"all"`; where a corpus has no folds, all records are `"train"`.
        streaming (`bool`): Read the files as they are asked for, instead of converting them once to Arrow.
        decode (`bool`): `False` leaves `ecg` as stored (int16 bytes and gains), the fast path of the collators.
        on_bad_record (`str`):
            `"report"` goes on without records that cannot be read, `"raise"` stops at the first. Reported records are
            named in the log; `bad_records(dataset)` lists them, for streams `report_path`. Records in which some
            samples are marked as missing are reported too, but stay, with NaN there.
        report_path (`str`, *optional*): File to which bad records are written, one JSON line each.
        num_proc (`int`, *optional*): Processes that convert.
        cache_dir (`str`, *optional*): Folder of the Arrow files; defaults to the cache of `datasets`.
        options: Those of the corpus, such as `task` (the set of labels), `sampling_rate=100 | 500` of PTB-XL, what
            files do not say of themselves for `"npy"` and `"ecgfolder"`, `verify=True` of `"prepared"`, which compares
            the checksums of its files first.

    Returns:
        rows `{"record_id", "patient_id", "ecg": {"signal": float32 (num_leads, num_samples), "leads",
        "sampling_rate", "unit": "mV"}, "labels": [str], "fold", "age" (years), "sex", "source", ...}`.

    Raises:
        ValueError: for an unknown name, split or option (says which exist), a missing folder (says where to get the
            corpus), or a folder in which no record can be read.

    Example:

    ```python
    >>> from ecg_transformers.data import load_ecg
    >>> dataset = load_ecg("ptb-xl-sample", split="test")
    >>> dataset[0]["ecg"]["signal"].shape
    (12, 1000)
    ```
    """
    if on_bad_record not in ("report", "raise"):
        raise ValueError(f"Unknown on_bad_record={on_bad_record!r}. Choose 'report' or 'raise'.")
    if name == PREPARED:
        dataset = load_prepared(data_dir, split, streaming, on_bad_record, report_path, num_proc, cache_dir, options)
        return dataset.cast_column("ecg", Ecg()) if decode else dataset
    corpus = find_corpus(name)
    unknown = sorted(set(options) - set(corpus.options))
    if unknown:
        choices = sorted((*corpus.options, *LOADING_OPTIONS))
        raise ValueError(f"Unknown options {unknown} for corpus {name!r}. Choose from {choices}.")
    options = corpus.complete_options(options)
    splits = (*corpus.splits, "all")
    if split not in splits:
        raise ValueError(f"Unknown split {split!r} of corpus {name!r}. Choose from {list(splits)}.")

    if corpus.stored_rows is not None:
        if data_dir is not None:
            raise ValueError(f"Corpus {name!r} is carried by the package: leave out data_dir={str(data_dir)!r}.")
        dataset = _load_stored(corpus, split, streaming, options)
    elif name == "wfdb" and data_dir is not None and "://" in os.fspath(data_dir):
        if not streaming:
            raise ValueError(f"Load {data_dir} with streaming=True, or download it and give the folder.")
        dataset = stream_wfdb(os.fspath(data_dir), options, on_bad_record, report_path)
    else:
        folder, options = locate(corpus, data_dir, options)
        builder = EcgDatasetBuilder(
            cache_dir=os.fspath(cache_dir) if cache_dir is not None else None,
            dataset_name=name.replace("-", "_"),
            config_name=name,
            data_dir=str(folder),
            options=options,
            on_bad_record=on_bad_record,
            report_path=os.fspath(report_path) if report_path is not None else None,
        )
        if streaming:
            dataset = builder.as_streaming_dataset(split)
        else:
            _prepare(builder, num_proc)
            dataset = builder.as_dataset(split)
    return dataset.cast_column("ecg", Ecg()) if decode else dataset


def label_names(name: str, data_dir: str | os.PathLike | None = None, **options) -> tuple[str, ...]:
    """All classes of a corpus's task, in the order that a classifier's outputs should have.

    `data_dir` is the folder (or URL) of a corpus that says itself which classes it has: `"prepared"`, `"ecgfolder"`,
    `"npy"`.

    ```python
    >>> label_names("ptb-xl", task="superdiagnostic")
    ('CD', 'HYP', 'MI', 'NORM', 'STTC')
    >>> label2id = {label: index for index, label in enumerate(label_names("ptb-xl"))}
    ```

    Raises:
        ValueError: for an unknown corpus or task, or a corpus that declares no classes.
    """
    if name == PREPARED:
        return prepared_label_names(data_dir)
    corpus = find_corpus(name)
    options = corpus.complete_options(options)
    folder = None
    if corpus.folder_label_names is not None:
        folder, options = locate(corpus, data_dir, options)
    classes = corpus.classes(folder, options)
    if not classes and folder is not None:
        raise ValueError(
            f"{folder} declares no classes: its table has no column `labels`, or an empty one. Say by the option "
            "labels=... which column holds them."
        )
    if not classes:
        raise ValueError(f"Corpus {name!r} declares no classes. Collect them from the `labels` of its rows.")
    return classes


def find_corpus(name: str) -> Corpus:
    if name not in CORPORA:
        names = sorted([*CORPORA, PREPARED])
        close = get_close_matches(str(name).lower().replace("_", "-"), names, n=1, cutoff=0.7)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown corpus {name!r}.{hint} Choose from {names}.")
    return CORPORA[name]


def locate(corpus: Corpus, data_dir: str | os.PathLike | None, options: dict[str, Any]) -> tuple[Path, dict]:
    """The folder of a corpus and its options, with those that the folder itself declares."""
    if data_dir is None:
        raise ValueError(f"Corpus {corpus.name!r} needs data_dir, the folder that holds it. {corpus.where_to_get()}")
    folder = Path(data_dir).expanduser()
    if corpus.locate is not None:
        folder, options = corpus.locate(folder, options)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}. {corpus.where_to_get()}")
    if (folder / MANIFEST_NAME).is_file():
        call = f'load_ecg("prepared", {str(folder)!r})'
        raise ValueError(f"{folder} holds a corpus that was prepared. Load it by {call}.")
    return folder.resolve(), options


def _load_stored(corpus: Corpus, split: str, streaming: bool, options: dict[str, Any]):
    info = corpus_info(corpus)
    table = corpus.stored_rows(split, options).cast(info.features.arrow_schema)
    dataset = datasets.Dataset(datasets.table.InMemoryTable(table), info=info, split=datasets.NamedSplit(split))
    if not streaming:
        return dataset
    stream = dataset.to_iterable_dataset(num_shards=num_shards_of(len(dataset)))
    for name in ("description", "citation", "homepage", "license"):  # which `datasets` leaves behind
        setattr(stream.info, name, getattr(info, name))
    return stream


def _prepare(builder: EcgDatasetBuilder, num_proc: int | None):
    """Writes the Arrow files, unless they are there, and reports the bad records found when they were written."""
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        if builder.config.on_bad_record == "raise":  # another process hit the record, and its reason was lost
            for _ in builder.as_streaming_dataset("+".join(builder.corpus.splits)):
                pass
        raise
    found = read_report(Path(builder.cache_dir, REPORT_NAME))
    num_records = sum(split.num_examples for split in builder.info.splits.values())
    if not num_records:
        shutil.rmtree(builder.cache_dir)  # so that the folder is looked at again next time
        raise ValueError(f"No record of {builder.config.data_dir} can be read. {summarise(found)}")
    try:
        check_is_there(builder.config.data_dir, found, num_records + sum(not record.kept for record in found))
    except CorpusGoneError:
        shutil.rmtree(builder.cache_dir)  # so that the folder is looked at again next time
        raise
    if found and builder.config.on_bad_record == "raise":
        raise BadRecordError(f"Record {found[0]} on_bad_record='report' goes on without it.")
    if found:
        logger.warning("%s in %s: %s", builder.corpus.name, builder.config.data_dir, summarise(found))
        if builder.config.report_path is not None:
            append_report(builder.config.report_path, found)
