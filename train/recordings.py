"""`encode` and `predict`: recordings in, a table out. The commands `embed` and `classify` are the same on files."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from transformers import pipeline

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpora.declarations import parse_options
from ecg_transformers.data.formats.file_format import wfdb_path
from ecg_transformers.data.recording_file import READ_ERRORS, list_files, read_recordings, recording_format
from ecg_transformers.data.records import EcgRecord
from ecg_transformers.modeling.calibration import calibration_for, calibration_of
from ecg_transformers.modeling.feature_extraction_ecg import CALL_SETTINGS
from ecg_transformers.modeling.pipeline_ecg import (
    ARRAY_KEYS,
    FILE_KEYS,
    EcgClassificationPipeline,
    is_recording,
    read_input,
    rows_of_columns,
)
from ecg_transformers.modeling.recording_input import Recording, cut
from ecg_transformers.modeling.recording_input import read_recordings as read_declared

from .checkpoints import check_checkpoint, find_checkpoint
from .features import embed, load_encoder
from .flags import in_flags
from .inference import in_evaluation, input_batches, log_quality, outputs_of
from .run_folder import claim_output_dir
from .settings import extractor_changes, pooled_changes

logger = logging.getLogger("ecg_transformers")

WRITTEN = re.compile(r"embeddings\.(parquet|npz)")
"""Names of what `embed` leaves in its folder."""


def encode(
    recordings: Any,
    model: str | os.PathLike = "ecg-small",
    *,
    as_frame: bool = False,
    windows: bool = False,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = True,
    **stated,
) -> "np.ndarray | pd.DataFrame":
    """The features of recordings, by a pretrained encoder.

    Args:
        recordings:
            A file, a folder (with all below it), or several of them; an array `(num_leads, num_samples)` or `(batch,
            num_leads, num_samples)`, or `{"array": ..., "sampling_rate": ..., "leads": ..., "unit": ...}`, or a list;
            an `EcgRecord`; rows of [`load_ecg`], stored or streaming.
        model (`str`, *optional*, defaults to `"ecg-small"`): A carried model, a folder, or an id of the Hub.
        as_frame (`bool`, *optional*, defaults to `False`): Whether to return a `pandas.DataFrame`.
        windows (`bool`, *optional*, defaults to `False`):
            Whether each window of a long recording is a row. Otherwise the features of its windows are averaged.
        batch_size (`int`, *optional*, defaults to 64): Windows in a forward pass, and most recordings read at a time.
        device (`torch.device` or `str`, *optional*): Where the model runs; by default an accelerator, if any.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.
        stated:
            Facts that arrays or files do not state (`sampling_rate`, `leads`, `unit`, ..., as in
            [`read_recording`]), and settings of the feature extractor for this call (`missing_leads="mask"`, ...).

    Returns:
        float32 of shape `(num_recordings, pooled_size)` (with `windows`, of all windows), in the order in which they
        came. Or a frame with `feature_0`, ..., `quality` (names of what is odd, between commas) and, of windows,
        `start_seconds`; its index `record_id` is the path as given (in a folder, the path below it), the id of a row,
        or the number of an array. A recording that cannot be read or become input has NaN in its row; the log and
        `quality` say why.

    Raises:
        ValueError: for a file or model that is not there, an unknown argument, or if no recording can become input.

    Example:

    ```python
    >>> from ecg_transformers import encode, load_ecg
    >>> encode(load_ecg("ptb-xl-sample", split="test"), progress=False).shape
    (66, 448)

    ```
    """
    settings, declared = _split(stated)
    source = Recordings(recordings, declared)
    encoder, extractor = load_encoder(_checkpoint(model), **settings)
    if windows:
        extractor.long_records = "all"
    table = embed(
        *(encoder, extractor, source, batch_size, _device(device), progress),
        check_quality=as_frame,
        windows=windows,
        left_out=source.left_out,
    )
    frame = pd.DataFrame(table.features, index=table.record_ids).add_prefix("feature_")
    if as_frame and windows:
        frame.insert(0, "start_seconds", table.start_seconds)
    if as_frame:
        frame["quality"] = [", ".join(findings) for findings in table.quality]
    frame = pd.DataFrame(index=source.record_ids).join(frame)  # with a row of NaN for each that is left out
    if not as_frame:
        return np.array(frame, order="C")  # that of pandas cannot be written to
    reasons = {name: f"Not read: {source.left_out[name]}" for name in source.left_out}
    frame["quality"] = frame["quality"].fillna(pd.Series(reasons))
    return frame.rename_axis("record_id")


def predict(
    recordings: Any,
    model: str | os.PathLike = "ecg-small-superdiagnostic",
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = True,
    **stated,
) -> pd.DataFrame:
    """The scores of recordings, by a classifier; those of `pipeline("ecg-classification")`, as a table.

    Args:
        recordings, batch_size, device, progress, stated: Those of [`encode`].
        model (`str`, *optional*, defaults to `"ecg-small-superdiagnostic"`):
            A carried model (research software, not a medical device), a folder that `finetune` wrote, or an id of the
            Hub.

    Returns:
        a `pandas.DataFrame` with a row for each recording, in their order, and the index `record_id` of [`encode`]:

        - a column for each label: the score, of several windows that of their mean logits (of a regression the value);
        - where the classifier has thresholds, `above_threshold` (the labels that are, between commas) and, for each
          label, `threshold_...`; missing where they do not hold for the recording (other leads, no signal, ...);
        - `warnings`: what is odd about the recording, in sentences, or why it could not be read (then without scores).

    Raises:
        ValueError: as of [`encode`], and for a model without a trained classifier.

    Example:

    ```python
    >>> from ecg_transformers import load_ecg, predict
    >>> scores = predict(load_ecg("ptb-xl-sample", split="test"), progress=False)
    >>> scores[["MI", "NORM", "above_threshold"]].shape
    (66, 3)

    ```
    """
    settings, declared = _split(stated)
    source = Recordings(recordings, declared)
    classify = pipeline("ecg-classification", model=_checkpoint(model), device=_device(device))
    extractor = classify.feature_extractor.changed(**settings)
    found = {}
    with in_evaluation(classify.model), torch.inference_mode():
        for batch in input_batches(
            classify.model, extractor, source, batch_size, "Classifying", progress, source.left_out
        ):
            logits = outputs_of(classify.model, batch.inputs, "logits", batch_size)
            checks = extractor.check([row["ecg"] for row in batch.rows])
            for number, row in enumerate(batch.rows):
                of_windows = logits[batch.window_record == number]
                found[row["record_id"]] = _scores(classify, of_windows, checks[number])
    rows = [found.get(name) or {"warnings": f"Not read: {source.left_out[name]}"} for name in source.record_ids]
    columns = next(iter(found.values()))
    return pd.DataFrame(rows, index=source.record_ids, columns=list(columns)).rename_axis("record_id")


class Recordings:
    """Recordings that a caller names, see [`encode`], read one after the other into rows; `declared` is what arrays
    and files do not state. `record_ids` names, once each, what was read so far and what could not be; `left_out` says
    why it could not."""

    def __init__(self, source: Any, declared: Mapping[str, Any]):
        self.declared, self.record_ids, self.left_out = declared, [], {}
        self._known: set[str] = set()
        source = rows_of_columns(source)
        if isinstance(source, str | os.PathLike):
            self._items = _files(source, inside_folder=True)
        elif is_recording(source):
            self._items = [source]
        elif isinstance(source, list | tuple):
            if not source:
                raise ValueError("Expected at least one recording, got an empty list.")
            self._items = []
            for item in source:
                self._items += _files(item) if isinstance(item, str | os.PathLike) else [item]
        elif isinstance(source, Iterable):
            self._items = source
        else:
            raise ValueError(f"Expected recordings, files or a folder, got {type(source).__name__}.")

    def __length_hint__(self) -> int:
        return len(self._items) if isinstance(self._items, Sized) else NotImplemented

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for item in self._items:
            name, rows = self._rows(item)
            try:
                for row in rows:
                    row["record_id"] = self._new_id(row["record_id"])
                    yield row
            except READ_ERRORS as error:
                name = self._new_id(name)
                self.left_out[name] = cut(re.sub(r"^Record \d+:? ", "", str(error) or type(error).__name__))
                logger.warning("Recording %s is left out: %s", name, self.left_out[name])

    def _rows(self, item: Any) -> tuple[str, Iterator[dict[str, Any]]]:
        """The name of an item, and the rows that it will be read into."""
        if isinstance(item, NamedFile):
            return item.name, _rows_of_file(item, self.declared)
        known = vars(item) if isinstance(item, EcgRecord) else item if isinstance(item, Mapping) else {}
        name = str(known.get("record_id") or len(self.record_ids))
        return name, _rows_of_item(item, name, known, self.declared)

    def _new_id(self, name: str) -> str:
        """The name, or, where it was given before, one with a number."""
        new, number = name, 1
        while new in self._known:
            number += 1
            new = f"{name} ({number})"
        self._known.add(new)
        self.record_ids.append(new)
        return new


class NamedFile(NamedTuple):
    name: str
    path: str


def _files(path: str | os.PathLike, inside_folder: bool = False) -> list[NamedFile]:
    """A file, or all recordings in and below a folder, named by their paths (`inside_folder`: below the folder)."""
    path = os.path.expanduser(os.fspath(path))
    if os.path.isdir(path):
        paths = {name: os.path.join(path, name) for name in list_files(Path(path))[0]}
        found = {name: of for name, of in paths.items() if recording_format(of)}
        files = [NamedFile(name if inside_folder else of, of) for name, of in found.items()]
        if not files:
            raise ValueError(f"{path} holds no recordings; `ecg-transformers info {path}` says what it holds.")
        return files
    if not os.path.lexists(path) and (path.endswith(".hea") or wfdb_path(path) is None):
        raise ValueError(f"There is no file or folder {path}.")
    return [NamedFile(path, path)]


def _rows_of_file(file: NamedFile, declared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    only_of_arrays = sorted(set(declared) - set(FILE_KEYS))
    if only_of_arrays:
        raise ValueError(f"{only_of_arrays} are for arrays, this is a file. Leave them out.")
    stem = Path(file.path).stem
    for record in read_recordings(file.path, **declared):
        # Of an array of several, `stem-0`; the rows of a Parquet file have names of their own.
        is_of_file = record.record_id == stem or record.record_id.startswith(f"{stem}-")
        name = file.name + record.record_id.removeprefix(stem) if is_of_file else record.record_id
        yield _row(name, read_declared([record])[0], vars(record))


def _rows_of_item(
    item: Any, name: str, known: Mapping[str, Any], declared: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    item = {"array": item} if isinstance(item, np.ndarray | torch.Tensor) else item
    recording, stated = read_input(item, declared)
    recordings = read_declared(recording, **stated)
    for number, one in enumerate(recordings):  # several of an array (batch, num_leads, num_samples)
        yield _row(f"{name}-{number}" if len(recordings) > 1 else name, one, known)


def _row(record_id: str, recording: Recording, known: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: known.get(name) for name in ("patient_id", "labels", "fold")}
    return {"record_id": record_id, "ecg": recording, **facts}


def _scores(classify: EcgClassificationPipeline, logits: torch.Tensor, checks: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of one recording."""
    config = classify.model.config
    found = classify.postprocess({"values": logits, "checks": checks})
    of_label = {row["label"]: row for row in found}
    labels = [config.id2label[number] for number in range(config.num_labels)]
    columns = {label: of_label[label]["score"] for label in labels}
    if (calibration_of(config) or {}).get("thresholds"):
        thresholds = (calibration_for(config, classify.feature_extractor, checks)[0] or {}).get("thresholds") or {}
        above = {label: of_label[label].get("above_threshold") for label in labels}
        is_evaluated = any(value is not None for value in above.values())
        columns["above_threshold"] = ", ".join(label for label in labels if above[label]) if is_evaluated else None
        for label in labels:
            columns[f"threshold_{label}"] = None if above[label] is None else thresholds[label]
    columns["warnings"] = " ".join(finding["sentence"] for finding in found[0].get("quality", ()))
    return columns


def _split(stated: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the feature extractor for a call, and what recordings do not say themselves."""
    declarable = (*ARRAY_KEYS[1:], *FILE_KEYS)
    unknown = sorted(set(stated) - {*CALL_SETTINGS, *declarable})
    if unknown:
        raise ValueError(f"Unknown arguments {unknown}. Expected some of {sorted({*CALL_SETTINGS, *declarable})}.")
    given = {name: value for name, value in stated.items() if value is not None}
    settings = {name: given.pop(name) for name in CALL_SETTINGS if name in given}
    return settings, given


def _checkpoint(model: str | os.PathLike) -> str:
    checkpoint = find_checkpoint(os.fspath(model))
    check_checkpoint(checkpoint)
    return checkpoint


def _device(device: torch.device | str | None) -> torch.device | str:
    if device is not None:
        return device
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"


def run(args: argparse.Namespace):
    """The commands `embed` and `classify`."""
    if args.command == "embed":
        claim_output_dir(args.output_dir, args.overwrite_output_dir, written=WRITTEN, reads=args.model)
    if args.files:
        source, declared = args.files[0] if len(args.files) == 1 else args.files, args.declared
    else:
        source = load_ecg(args.dataset, data_dir=args.data_dir, split=args.split, **parse_options(args.options))
        declared = {}
    if args.command == "classify":
        settings = {name: value for name, value in vars(args).items() if name in CALL_SETTINGS}
        scores = predict(source, args.model, batch_size=args.batch_size, **declared, **settings)
        scores["warnings"] = [in_flags(sentence, args) for sentence in scores["warnings"]]
        _write_scores(scores, args.output)
        return
    model, feature_extractor = load_encoder(args.model, pooled=pooled_changes(args), **extractor_changes(args))
    if args.windows:
        feature_extractor.long_records = "all"
    recordings = Recordings(source, declared) if args.files else source
    options = {"check_quality": True, "windows": args.windows, "device": _device(None)}
    table = embed(model, feature_extractor, recordings, args.batch_size, **options)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = table.save(folder / f"embeddings.{args.format}")
    log_quality(dict(zip(table.record_ids, table.quality, strict=True)))
    logger.info("Wrote %d features of %d numbers to %s", len(table), table.features.shape[1], path)


def _write_scores(scores: pd.DataFrame, path: str | None):
    if path is None:
        sys.stdout.write(scores.to_csv(float_format="%.4f"))
    elif path.endswith(".parquet"):
        scores.to_parquet(path)
    else:
        scores.to_csv(path, float_format="%.4f")
    num_warned = int((scores["warnings"] != "").sum())
    logger.info("%d recordings, %d with warnings%s", len(scores), num_warned, f": {path}" if path else "")
