"""Collators: rows of `load_ecg` in, batches for the stock `Trainer` or for `EcgSslTrainer` out.

Both leave a record that cannot become input (missing samples, wrong leads, too short) out of its batch, name it with
the reason in the log, and keep it in `bad_records`. They draw no random numbers.
"""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..modeling.feature_extraction_ecg import LARGEST_VALUE, EcgFeatureExtractor
from ..modeling.recording_input import cut
from .features import ECG_STORAGE
from .records import INVALID_SAMPLE, MAX_STEP, known_lead_names, quantise, stored_steps

logger = logging.getLogger(__name__)

MODEL_INPUTS = ("input_values", "lead_mask")


def sample_id(record_id: str) -> int:
    """A number from 0 to 2**63 - 1 for a record, the same in every process, run and machine."""
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "little") >> 1


class _EcgCollator:
    def __init__(self, feature_extractor: EcgFeatureExtractor):
        self.feature_extractor = feature_extractor
        self.bad_records: dict[str, str] = {}

    def _check_columns(self, row: Mapping[str, Any]):
        if "ecg" not in row:
            raise ValueError(
                f"Rows without the column ecg: they have {sorted(row)}. The Trainer drops columns that the model does "
                "not read, unless TrainingArguments(remove_unused_columns=False); our own arguments set it."
            )

    def _report(self, row: Mapping[str, Any], error: ValueError):
        """Records a bad row, and says so in the log the first time. (Each `DataLoader` worker has its own list.)"""
        if row["record_id"] not in self.bad_records:
            reason = cut(re.sub(r"^Record \d+:? ", "", str(error)))
            self.bad_records[row["record_id"]] = reason
            logger.warning("Record %s is left out of its batch: %s", row["record_id"], reason)

    def _extract(self, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, torch.Tensor], list[Mapping[str, Any]]]:
        """The model's inputs and, for each of their rows, the record that it came from."""
        features, kept = None, list(rows)
        try:
            features = self.feature_extractor([row["ecg"] for row in rows])
        except ValueError:  # find the culprits one by one
            kept = []
            for row in rows:
                try:
                    self.feature_extractor([row["ecg"]])
                    kept.append(row)
                except ValueError as error:
                    self._report(row, error)
            self._check_not_empty(kept, rows)
            features = self.feature_extractor([row["ecg"] for row in kept])
        if "window_record" in features:
            kept = [kept[number] for number in features["window_record"].tolist()]
        return {name: features[name] for name in MODEL_INPUTS if name in features}, kept

    def _layout(self, ecg: Mapping[str, Any]) -> tuple[tuple[str, ...], float, int, str]:
        signal, num_leads = ecg["signal"], max(len(ecg["leads"]), 1)
        num_samples = len(signal) / 2 / num_leads if isinstance(signal, bytes | memoryview) else np.shape(signal)[-1]
        return tuple(ecg["leads"]), ecg["sampling_rate"], num_samples, ecg["unit"]

    def _steps(self, ecg: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(ecg["signal"], bytes | memoryview):
            return stored_steps(ecg), np.asarray(ecg["gain"], dtype=np.float32)
        return quantise(ecg["signal"])

    def _check_not_empty(self, kept: Sequence, rows: Sequence[Mapping[str, Any]]):
        if not kept:
            reasons = [f"{row['record_id']} ({self.bad_records[row['record_id']]})" for row in rows[:5]]
            raise ValueError(
                f"No record of this batch can become input: {'; '.join(reasons)}. Change the feature extractor's "
                "settings, or filter these records."
            )


class EcgDataCollator(_EcgCollator):
    """Turns rows into `{input_values, labels[, lead_mask]}`, for supervised training, evaluation and embedding.

    `labels` are multi-hot floats `(batch, len(label2id))` if `label2id` is given. Otherwise rows with a number in a
    column `label` give `(batch,)`, integers for classes and floats for regression; rows with a list of floats in a
    column `targets` give `(batch, num_targets)`; and rows without labels, or `label2id={}`, give no `labels`.
    Where the feature extractor cuts a record into several windows, its labels are repeated for each. Rows with a
    `window_start`, in samples at the model's rate, give the one window there instead.

    Args:
        feature_extractor ([`EcgFeatureExtractor`]): The input contract of the model.
        label2id (`dict[str, int]`, *optional*): Position of every class, as in `model.config.label2id`.
        return_sample_id (`bool`, *optional*, defaults to `False`):
            Whether to add `sample_id`, the same number for all windows of a record; see [`sample_id`].

    Raises:
        ValueError: for a label that `label2id` lacks, for rows with `labels` but no `label2id`, for rows without the
            column `ecg`, or if no record of the batch can become input.

    The stock Trainer drops the column `ecg` before it collates: use `TrainingArguments(remove_unused_columns=False)`.

    Example:

    ```python
    >>> label2id = {label: index for index, label in enumerate(label_names("ptb-xl"))}
    >>> collator = EcgDataCollator(feature_extractor, label2id=label2id)
    >>> batch = collator([dataset[0], dataset[1]])
    ```
    """

    def __init__(
        self,
        feature_extractor: EcgFeatureExtractor,
        label2id: Mapping[str, int] | None = None,
        return_sample_id: bool = False,
    ):
        super().__init__(feature_extractor)
        self.label2id = dict(label2id) if label2id is not None else None
        self.return_sample_id = return_sample_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        self._check_columns(rows[0])
        has_windows = rows[0].get("window_start") is not None
        batch, kept = self._extract_windows(rows) if has_windows else self._extract(rows)
        if self.return_sample_id:
            batch["sample_id"] = torch.tensor([sample_id(row["record_id"]) for row in kept])
        if self.label2id:
            batch["labels"] = self._multi_hot(kept)
        elif kept[0].get("label") is not None:
            batch["labels"] = torch.tensor([row["label"] for row in kept])
        elif kept[0].get("targets") is not None:
            batch["labels"] = torch.tensor([row["targets"] for row in kept], dtype=torch.float32)
        elif self.label2id is None and any(row.get("labels") for row in kept):
            raise ValueError(
                "The rows have labels, and without label2id a batch has none, so that a classifier gives no loss: "
                "pass label2id=model.config.label2id to EcgDataCollator, or label2id={} where labels are not wanted."
            )
        return batch

    def _extract_windows(
        self, rows: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, torch.Tensor], list[Mapping[str, Any]]]:
        """Extracts one window of each row, in order."""
        layouts: dict[tuple, list[int]] = {}
        for number, row in enumerate(rows):
            layouts.setdefault(self._layout(row["ecg"]), []).append(number)
        found: dict[int, dict[str, torch.Tensor]] = {}
        for numbers in layouts.values():
            try:
                windows = self._windows([rows[number] for number in numbers])
                found |= {number: {k: v[i] for k, v in windows.items()} for i, number in enumerate(numbers)}
            except ValueError:  # find the culprits one by one
                for number in numbers:
                    try:
                        found[number] = {k: v[0] for k, v in self._windows([rows[number]]).items()}
                    except ValueError as error:
                        self._report(rows[number], error)
        order = sorted(found)
        self._check_not_empty(order, rows)
        batch = {name: torch.stack([found[number][name] for number in order]) for name in found[order[0]]}
        return batch, [rows[number] for number in order]

    def _windows(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """The window of each row of one layout."""
        extractor = self.feature_extractor
        leads, sampling_rate, num_samples, unit = self._layout(rows[0]["ecg"])
        extractor.check_unit(unit)
        steps, gains = zip(*(self._steps(row["ecg"]) for row in rows), strict=True)
        starts = None
        if extractor.resampled_length(int(num_samples), sampling_rate) > extractor.num_samples:
            starts = torch.tensor([row["window_start"] for row in rows])
        input_values, lead_mask = extractor.process_batch(
            torch.from_numpy(np.stack(steps)),
            torch.from_numpy(np.stack(gains)),
            leads=known_lead_names(leads),
            sampling_rate=sampling_rate,
            window_starts=starts,
        )
        windows = {"input_values": input_values, "lead_mask": lead_mask}
        return {name: value for name, value in windows.items() if value is not None}

    def _multi_hot(self, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        labels = torch.zeros(len(rows), len(self.label2id))
        for number, row in enumerate(rows):
            unknown = [label for label in row["labels"] if label not in self.label2id]
            if unknown:
                raise ValueError(
                    f"Record {row['record_id']} has labels {unknown}, which label2id lacks. Expected some of "
                    f"{list(self.label2id)}: load the dataset with the model's task, or give another label2id."
                )
            labels[number, [self.label2id[label] for label in row["labels"]]] = 1.0
        return labels


class EcgPretrainingCollator(_EcgCollator):
    """Turns rows into small batches of integers, which the Trainer makes into float input on the device.

    Gives `{"signal": int16 (batch, num_leads, num_samples), "gain": float32 (batch, num_leads) in mV per step,
    "sampling_rate": float, "is_complete": bool, "sample_id": (batch,), "record_id": (batch,)}` with the leads of the
    feature extractor, in its order; missing samples are `INVALID_SAMPLE`, and `is_complete` where there are none.
    Numbers and names of the records are arrays of numpy, which stay on the host. Batches whose records differ in
    layout, or need a lead to be derived or masked, come out of the feature extractor instead: `{"input_values",
    "lead_mask" if it has one, "sample_id", "record_id"}`.

    Stored rows (`load_ecg(..., decode=False)`) are the fast path, and tables of them the fastest: those of a stream in
    the format `"arrow"` are copied into the batch as they lie. Decoded rows are rounded to int16 again.

    Args:
        feature_extractor ([`EcgFeatureExtractor`]): The input contract of the model.
        return_input_values (`bool`, *optional*, defaults to `False`):
            Whether every batch comes out of the feature extractor, for models on the CPU.

    Raises:
        ValueError: if no record of the batch can become input.

    Example:

    ```python
    >>> stream = load_ecg("prepared", "prepared/ptb-xl", streaming=True, decode=False).with_format("arrow")
    >>> batches = map(EcgPretrainingCollator(feature_extractor), stream.iter(batch_size=64))
    ```
    """

    def __init__(self, feature_extractor: EcgFeatureExtractor, return_input_values: bool = False):
        super().__init__(feature_extractor)
        self.return_input_values = return_input_values

    def __call__(self, rows: Sequence[Mapping[str, Any]] | pa.Table) -> dict[str, torch.Tensor | float]:
        if not isinstance(rows, pa.Table) and isinstance(rows[0], pa.Table):  # of a `DataLoader`: one record each
            rows = pa.concat_tables(rows)
        if isinstance(rows, pa.Table):
            self._check_columns(dict.fromkeys(rows.column_names))
            batch = self._copy(rows)
            if batch is not None:
                return batch
            rows = _stored_rows(rows)
        self._check_columns(rows[0])
        layouts = {self._layout(row["ecg"]) for row in rows}
        batch = None if self.return_input_values or len(layouts) > 1 else self._stack(rows, layouts.pop())
        if batch is None:
            batch, kept = self._extract(rows)
            batch |= _names([row["record_id"] for row in kept])
        return batch

    def _order(self, layout: tuple) -> list[int] | None:
        """Rows of a recording of a layout that are the leads of the model, or `None` if the feature extractor has to
        make them."""
        extractor = self.feature_extractor
        leads, sampling_rate, num_samples, unit = known_lead_names(layout[0]), *layout[1:]
        extractor.check_unit(unit)
        is_short = round(num_samples * extractor.sampling_rate / sampling_rate) < extractor.num_samples
        is_torso_model = extractor.electrode_placement == "mason_likar"  # its leads have other names in recordings
        if is_short or is_torso_model or num_samples % 1 or not set(extractor.leads) <= set(leads):
            return None
        return [leads.index(lead) for lead in extractor.leads]

    def _copy(self, table: pa.Table) -> dict[str, torch.Tensor | float] | None:
        """The batch of a table whose recordings all have one layout and no gaps, or `None`: then row by row."""
        stored = _stored_columns([chunk for chunk in table["ecg"].chunks if len(chunk)])
        order = None if stored is None else self._order(stored[0])
        if order is None:
            return None
        (leads, sampling_rate, num_samples, _), parts, gain = stored
        is_float, gain, names = self.return_input_values, gain[:, order], table["record_id"].to_pylist()
        if is_float and not _is_finite(gain):
            return None
        signal = np.empty((len(table), len(order), num_samples), dtype=np.float32 if is_float else np.int16)
        start, in_order = 0, order == list(range(len(leads)))
        for steps in [part[at : at + 4] for part in parts for at in range(0, len(part), 4)]:  # as caches hold
            steps = steps if in_order else steps[:, order]
            copy = signal[start : start + len(steps)]
            copy[...] = steps
            if np.minimum.reduce(steps, axis=None) == INVALID_SAMPLE:
                return None
            if is_float:
                copy *= gain[start : start + len(steps), :, None]
            start += len(steps)
        if not is_float:
            return self._batch(signal, gain, sampling_rate, True, names)
        signal, rate = torch.from_numpy(signal), float(sampling_rate)
        made = self.feature_extractor.process_batch(signal, sampling_rate=rate, is_complete=True)
        inputs = {name: of for name, of in zip(MODEL_INPUTS, made, strict=True) if of is not None}
        return inputs | _names([name for name in names for _ in range(len(made[0]) // len(names))])

    def _batch(
        self, signal: np.ndarray, gain: np.ndarray, sampling_rate: float, is_complete: bool, names: Sequence[str]
    ) -> dict[str, torch.Tensor | float]:
        return {
            "signal": torch.from_numpy(signal),
            "gain": torch.from_numpy(gain),
            "sampling_rate": float(sampling_rate),
            "is_complete": is_complete and _is_finite(gain),
        } | _names(names)

    def _stack(self, rows: Sequence[Mapping[str, Any]], layout: tuple) -> dict[str, torch.Tensor | float] | None:
        """The batch of rows of one layout, or `None` if the feature extractor has to bring them to one."""
        extractor, (_, sampling_rate, num_samples, _) = self.feature_extractor, layout
        order = self._order(layout)
        if order is None:
            return None
        signal = np.empty((len(rows), len(order), int(num_samples)), dtype=np.int16)
        gain = np.empty((len(rows), len(order)), dtype=np.float32)
        kept, is_complete = [], True
        for row in rows:
            try:
                steps, gains = self._steps(row["ecg"])
                if order != list(range(len(steps))):  # picking rows copies
                    steps, gains = steps[order], gains[order]
                signal[len(kept)], gain[len(kept)] = steps, gains
                has_gaps = signal[len(kept)].min() == INVALID_SAMPLE
                if extractor.nan_policy == "raise" and has_gaps:
                    count = int((signal[len(kept)] == INVALID_SAMPLE).sum())
                    raise ValueError(
                        f"{count} samples are missing. Leave it out, or set nan_policy='interpolate' in the feature "
                        "extractor."
                    )
                kept.append(row)
                is_complete = is_complete and not has_gaps
            except ValueError as error:
                self._report(row, error)
        self._check_not_empty(kept, rows)
        signal, gain, names = signal[: len(kept)], gain[: len(kept)], [row["record_id"] for row in kept]
        return self._batch(signal, gain, sampling_rate, is_complete, names)


def _is_finite(gain: np.ndarray) -> bool:
    """Checks that no step can be worth more than what counts as finite."""
    return float(np.abs(gain).max()) * MAX_STEP <= LARGEST_VALUE


def _stored_columns(chunks: Sequence[pa.StructArray]) -> tuple[tuple, list[np.ndarray], np.ndarray] | None:
    """Layout, int16 steps `(records, leads, samples)` of each chunk, as views, and gains `(records, leads)` of all
    stored recordings; or `None` where they differ in layout or are not whole."""
    if not chunks:
        return None
    columns = [chunk.flatten() for chunk in chunks]
    places = [chunks[0].type.get_field_index(name) for name in ECG_STORAGE]
    signals, *others = ([column[place] for column in columns] for place in places)
    gain, *facts = map(pa.concat_arrays, others)
    if any([column.null_count for column in (*signals, gain, gain.values, *facts)]):
        return None
    leads, sampling_rate, unit = (column[0].as_py() for column in facts)
    counts, ends = _offsets(gain), [_offsets(signal) for signal in signals]
    num_bytes = int(ends[0][1] - ends[0][0])
    if (
        not leads
        or None in leads
        or not num_bytes
        or num_bytes % (2 * len(leads))
        or (counts[1:] - counts[:-1] != len(leads)).any()
        or any([(of[1:] - of[:-1] != num_bytes).any() for of in ends])
        or not all([column[1:].equals(column[:-1]) for column in facts])
    ):
        return None
    parts = [
        np.frombuffer(signal.buffers()[2], "<i2", len(signal) * num_bytes // 2, int(of[0]))
        for signal, of in zip(signals, ends, strict=True)
    ]
    layout = tuple(leads), sampling_rate, num_bytes // (2 * len(leads)), unit
    gains = gain.values.to_numpy()[counts[0] : counts[-1]].reshape(-1, len(leads))
    return layout, [steps.reshape(-1, len(leads), layout[2]) for steps in parts], gains


def _offsets(column: pa.Array) -> np.ndarray:
    """Ends of the values of a column of lists or bytes, that before the first one as well."""
    return np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, 4 * column.offset)


def _stored_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows with their stored `ecg`, whose signals are views of the table's memory."""
    names, rows = iter(table["record_id"].to_pylist()), []
    for chunk in table["ecg"].chunks:
        columns = {name: chunk.field(name).to_pylist() for name in ECG_STORAGE if name != "signal"}
        for signal, *values in zip(chunk.field("signal"), *columns.values(), strict=True):
            ecg = dict(zip(columns, values, strict=True), signal=memoryview(signal.as_buffer()))
            rows.append({"record_id": next(names), "ecg": ecg})
    return rows


def _names(names: Sequence[str]) -> dict[str, np.ndarray]:
    """Numbers and names of records, on the host: tensors would be moved to the device and have to be fetched again."""
    return {
        "sample_id": np.array([sample_id(name) for name in names], dtype=np.int64),
        "record_id": np.array(names, dtype=object),
    }
