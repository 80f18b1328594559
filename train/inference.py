"""Runs models over sets of recordings: batches of input, evaluation mode and back, predictions."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import length_hint
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.data import EcgDataCollator
from ecg_transformers.modeling.feature_extraction_ecg import EcgFeatureExtractor, average_windows

from .predictions import Predictions
from .results import REGRESSION, SINGLE_LABEL

logger = logging.getLogger("ecg_transformers")

MOST_VALUES = 2**25
"""Samples of all leads after which a batch takes no further record: a day of ECG is a batch of its own."""


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Sets a model to evaluation, and each of its modules back to what it was."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training


@dataclass(frozen=True)
class InputBatch:
    """Rows of a dataset that became input: `input_values` and, where there is one, `lead_mask`, and the number in
    `rows` of each window, `(num_windows,)`."""

    inputs: dict[str, torch.Tensor]
    rows: list[dict]
    window_record: torch.Tensor


def input_batches(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    dataset: Iterable[dict],
    batch_size: int,
    description: str,
    progress: bool = False,
    left_out: dict[str, str] | None = None,
    needs_all: bool = False,
) -> Iterator[InputBatch]:
    """Every record of a dataset, rows of [`load_ecg`] as in [`~.features.embed`], as input on the device and in the
    precision of the model, in batches of at most `batch_size` records.

    A record that cannot become input is left out, named with the reason in the log and in `left_out`, and counted at
    the end; no record at all is a `ValueError` then, and any one where the caller `needs_all` and gives no `left_out`.
    """
    collator, needs_all = EcgDataCollator(feature_extractor), needs_all and left_out is None
    if left_out is not None:
        collator.bad_records = left_out
    iterator, num_records = iter(dataset), 0
    with tqdm(total=length_hint(dataset) or None, desc=description, unit="rec", disable=not progress) as bar:
        while rows := _next_rows(iterator, batch_size):
            batch = _collated(model, collator, rows)
            if needs_all and collator.bad_records:
                raise ValueError("Record {}: {}".format(*next(iter(collator.bad_records.items()))))
            if batch is not None:
                num_records += len(batch.rows)
                yield batch
            bar.update(len(rows))
    names = list(collator.bad_records)
    if names:
        logger.warning("%d records were left out: %s.", len(names), names[:10])
    if not num_records:
        why = f", the first because: {collator.bad_records[names[0]]}" if names else ""
        raise ValueError(f"The dataset holds no records to encode ({len(names)} were left out{why})")


def _next_rows(iterator: Iterator[dict], most: int) -> list[dict]:
    rows, num_values = [], 0
    for row in iterator:
        rows.append(row)
        num_values += _num_values(row["ecg"])
        if len(rows) == most or num_values >= MOST_VALUES:
            break
    return rows


def _num_values(ecg: Any) -> int:
    signal = ecg["signal"] if isinstance(ecg, Mapping) else ecg.signal
    return len(signal) // 2 if isinstance(signal, bytes) else int(np.size(signal))


def outputs_of(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], name: str, windows_per_pass: int
) -> torch.Tensor:
    """An output of the model, `"logits"` or `"pooler_output"`, for all windows: float32 on the CPU."""
    parts = []
    for start in range(0, len(inputs["input_values"]), windows_per_pass):
        part = {key: values[start : start + windows_per_pass] for key, values in inputs.items()}
        parts.append(model(**part)[name].float().cpu())
    return torch.cat(parts)


def _collated(model: PreTrainedModel, collator: EcgDataCollator, rows: list[dict]) -> InputBatch | None:
    """`None` where no row could become input."""
    numbered = [{"record_id": row["record_id"], "ecg": row["ecg"], "label": number} for number, row in enumerate(rows)]
    try:
        batch = collator(numbered)
    except ValueError:
        if all(row["record_id"] in collator.bad_records for row in rows):
            return None
        raise
    inputs = {name: batch[name].to(model.device) for name in ("input_values", "lead_mask") if name in batch}
    inputs["input_values"] = inputs["input_values"].to(model.dtype)
    kept, window_record = torch.unique(batch["labels"], return_inverse=True)
    return InputBatch(inputs, [rows[number] for number in kept.tolist()], window_record)


@torch.inference_mode()
def predict(
    model: PreTrainedModel,
    feature_extractor: EcgFeatureExtractor,
    dataset: Iterable[dict],
    label_names: Sequence[str],
    batch_size: int = 64,
    left_out: dict[str, str] | None = None,
) -> Predictions:
    """Probabilities of every record, by the softmax for `problem_type="single_label_classification"` and by the
    sigmoid for several labels; for `"regression"` the values themselves, and as truth the column `targets`. Logits of
    several windows are averaged first.

    A record that cannot become input is an error, because its absence would make two models be evaluated on different
    records; unless there is a dictionary `left_out`, which then gets its id and the reason.
    """
    problem_type, scores, rows = model.config.problem_type, [], []
    with in_evaluation(model):
        for batch in input_batches(model, feature_extractor, dataset, batch_size, "Predicting", False, left_out, True):
            logits = average_windows(outputs_of(model, batch.inputs, "logits", batch_size), batch.window_record)
            if problem_type != REGRESSION:
                logits = logits.softmax(dim=-1) if problem_type == SINGLE_LABEL else logits.sigmoid()
            scores.append(logits.numpy())
            truth = "targets" if problem_type == REGRESSION else "labels"
            rows += [(row["record_id"], row["patient_id"], row[truth]) for row in batch.rows]
    record_ids, patient_ids, labels = zip(*rows, strict=True)
    if problem_type == REGRESSION:
        truth = np.array(labels, dtype=float)
    else:
        truth = np.array([[name in of_record for name in label_names] for of_record in labels], dtype=np.int8)
    return Predictions(np.concatenate(scores).astype(float), truth, list(record_ids), list(patient_ids))


def find_quality(dataset: Iterable[dict], feature_extractor: EcgFeatureExtractor) -> dict[str, list[str]]:
    """Names of what is odd about the records of a dataset, by record id, without those that cannot become input."""
    found = {}
    for row in dataset:
        try:
            checks = feature_extractor.check([row["ecg"]])[0]
        except ValueError:
            continue
        found[row["record_id"]] = [finding["name"] for finding in checks["findings"]]
    return found


def records_by_finding(quality: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Ids of the records with each finding, the most frequent first."""
    records: dict[str, list[str]] = {}
    for record_id, names in quality.items():
        for name in names:
            records.setdefault(name, []).append(record_id)
    return dict(sorted(records.items(), key=lambda item: -len(item[1])))


def log_quality(quality: Mapping[str, Sequence[str]]) -> None:
    """Says how many of the records have which finding."""
    for name, records in records_by_finding(quality).items():
        logger.warning("%d of %d recordings: %s (%s)", len(records), len(quality), name, ", ".join(records[:5]))


def readable_dataset(dataset: Dataset, feature_extractor: EcgFeatureExtractor) -> Dataset:
    """The rows that can become input; the others are named in the log, with the reason. Reads every record once.

    Raises:
        ValueError: if no row can.
    """
    kept, left_out = [], {}
    batch_size = 1 if feature_extractor.long_records == "all" else 64  # a day of ECG is thousands of windows
    for start in range(0, len(dataset), batch_size):
        numbers = range(start, min(start + batch_size, len(dataset)))
        rows = [dataset[number] for number in numbers]
        found = {id(row) for row in readable(rows, feature_extractor, left_out)}
        kept += [number for number, row in zip(numbers, rows, strict=True) if id(row) in found]
    if not kept:
        raise ValueError(
            f"No record can become input: {dict(list(left_out.items())[:3])}. Change the feature extractor's "
            "settings, or give other records."
        )
    for record_id, reason in left_out.items():
        logger.warning("Record %s cannot become input and is left out: %s", record_id, reason)
    return dataset.select(kept) if left_out else dataset


def readable(rows: list[dict], feature_extractor: EcgFeatureExtractor, left_out: dict[str, str]) -> list[dict]:
    """The rows that can become input; the others go into `left_out`, with the reason."""
    try:
        feature_extractor([row["ecg"] for row in rows])
    except ValueError as error:
        if len(rows) == 1:
            left_out[rows[0]["record_id"]] = str(error)
            return []
        return [row for single in rows for row in readable([single], feature_extractor, left_out)]
    return rows
