"""The `datasets` feature that decodes stored recordings on access."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import Features
from datasets.features.features import List, Value, encode_nested_example, register_feature
from datasets.table import array_cast

from .records import LENT_MEMORY, EcgRecord, dequantise, quantise, stored_steps, stored_unit

ECG_STORAGE = {
    "signal": Value("binary"),
    "gain": List(Value("float32")),
    "leads": List(Value("string")),
    "sampling_rate": Value("float64"),
    "unit": Value("string"),
}
"""The plain columns of a stored `ecg`, readable without this package. `dataset.cast_column("ecg", ECG_STORAGE)` puts a
dataset back into this form before it is published: whoever loads a dataset whose features name `Ecg` needs this
package."""

MAX_BINARY_BYTES = 2**31 - 1
"""Bytes that the offsets of a binary column of Arrow reach."""


@dataclass
class Ecg:
    """Feature of a recording stored as int16 bytes; decodes to float32 in mV.

    Stored: `{"signal": bytes of little-endian int16 (num_leads, num_samples), "gain": [mV per step], "leads": [str],
    "sampling_rate": Hz, "unit": "mV"}`. Decoded: `{"signal": float32 (num_leads, num_samples) in mV, "leads",
    "sampling_rate", "unit": "mV"}`, with NaN where a sample was marked as not recorded. Values that are no voltage
    have the unit `"dimensionless"` instead, and gains without unit.

    `dataset.map` with a function that touches the column rewrites it as nested lists; use `with_transform`, or give
    `map` the `input_columns` that it needs.

    Args:
        decode (`bool`, defaults to `True`): `False` leaves the stored form as it is.

    Example:

    ```python
    >>> dataset = load_dataset("parquet", data_files="ptb_xl_sample.parquet", split="train")
    >>> dataset = dataset.cast_column("ecg", Ecg())
    >>> dataset[0]["ecg"]["signal"].shape
    (12, 1000)
    ```
    """

    decode: bool = True
    id: str | None = field(default=None, repr=False)

    dtype: ClassVar[str] = "dict"
    pa_type: ClassVar[Any] = pa.struct(
        {
            "signal": pa.binary(),
            "gain": pa.list_(pa.float32()),
            "leads": pa.list_(pa.string()),
            "sampling_rate": pa.float64(),
            "unit": pa.string(),
        }
    )
    _type: str = field(default="Ecg", init=False, repr=False)

    def __call__(self):
        return self.pa_type

    def encode_example(self, value: dict[str, Any]) -> dict[str, Any]:
        """The stored form of a stored or decoded recording. Floats are rounded to int16, see [`quantise`]."""
        if isinstance(value["signal"], bytes):
            return value
        unit, scale = stored_unit(value["unit"])
        steps, gain = quantise(np.asarray(value["signal"], dtype=np.float64) * scale)
        return {
            "signal": np.ascontiguousarray(steps, dtype="<i2").tobytes(),
            "gain": gain.tolist(),
            "leads": list(value["leads"]),
            "sampling_rate": float(value["sampling_rate"]),
            "unit": unit,
        }

    def decode_example(self, value: dict[str, Any], token_per_repo_id=None) -> dict[str, Any]:
        """Decodes one stored recording.

        Raises:
            ValueError: if the bytes do not divide into the leads.
        """
        if not self.decode:
            raise RuntimeError("Decoding is disabled for this feature. Use Ecg(decode=True) instead.")
        return {
            "signal": dequantise(stored_steps(value), np.asarray(value["gain"], dtype=np.float32)),
            "leads": value["leads"],
            "sampling_rate": value["sampling_rate"],
            "unit": value["unit"],
        }

    def cast_storage(self, storage: pa.StructArray) -> pa.StructArray:
        return array_cast(storage, self.pa_type)

    def flatten(self):
        """Answers to `Dataset.flatten`: decoded recordings stay whole, stored ones become columns."""
        return self if self.decode else dict(ECG_STORAGE)


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="'register_feature' is experimental")
    register_feature(Ecg, "Ecg")


class RecordTable:
    """A table under construction whose rows are those of `EcgRecord.to_row`.

    Recordings that are read while the table is entered (`with table:`) are read into its memory, if their reader asks
    for it by [`new_steps`]; the samples of all others are copied into it.

    Args:
        features (`Features`): Columns of the table, `ecg` among them as [`ECG_STORAGE`].
        schema (`pyarrow.Schema`): That of the features, which takes milliseconds to make.
        num_bytes (`int`, *optional*, defaults to 0): Memory for samples that is reserved; it grows where it has to.
    """

    def __init__(self, features: Features, schema: pa.Schema, num_bytes: int = 0):
        self.features, self.schema = features, schema
        self.rows: list[dict[str, Any]] = []  # without `ecg`
        self._lent: np.ndarray | None = None
        self._layouts: list[tuple[bytes, tuple[str, ...], float, str]] = []
        self._ends = [0]  # in samples
        self._reserve(num_bytes // 2)

    @property
    def num_bytes(self) -> int:
        """Bytes of the samples so far."""
        return 2 * self._ends[-1]

    def _reserve(self, num_samples: int):
        self._memory = pa.allocate_buffer(2 * num_samples)  # of Arrow's pool, whose pages are used again
        self._samples = np.frombuffer(self._memory, dtype="<i2")

    def __enter__(self):
        self._lent = None
        self._before = LENT_MEMORY.set(self._lend)

    def __exit__(self, *error):
        LENT_MEMORY.reset(self._before)

    def _lend(self, shape: tuple[int, ...]) -> np.ndarray:
        """The memory after the last recording: to one array of the next one, and only where there is enough."""
        start, size = self._ends[-1], math.prod(shape)
        if self._lent is not None or start + size > len(self._samples):
            return np.empty(shape, dtype=np.int16)
        self._lent = self._samples[start : start + size].reshape(shape)
        return self._lent

    def add(self, record: EcgRecord):
        """Adds a recording of any layout."""
        steps, gain, unit = record.stored()
        if 2 * (self._ends[-1] + steps.size) > MAX_BINARY_BYTES:
            raise ValueError(
                f"Record {record.record_id} has {steps.size} samples in all, and a row holds at most "
                f"{MAX_BINARY_BYTES} bytes. Cut it into shorter recordings."
            )
        self._add(steps, [vars(record) | record.extra], gain, record, unit)

    def add_group(self, record: EcgRecord, steps: np.ndarray, columns: Sequence[dict[str, Any]]):
        """Adds recordings that `read_group` of a corpus gave."""
        _, gain, unit = record.stored()
        self._add(steps, [row | row.get("extra", {}) for row in columns], gain, record, unit)

    def _add(self, steps: np.ndarray, rows: list[dict[str, Any]], gain: np.ndarray, record: EcgRecord, unit: str):
        """Adds rows of the layout of a record, of as many steps each."""
        start, end = self._ends[-1], self._ends[-1] + steps.size
        if end > len(self._samples):
            before = self._samples
            self._reserve(max(end, min(2 * start, MAX_BINARY_BYTES // 2)))
            self._samples[:start] = before[:start]
        if steps is not self._lent:
            self._samples[start:end].reshape(steps.shape)[...] = steps
        self._lent = None
        self.rows += rows
        self._layouts += [(gain.tobytes(), record.leads, float(record.sampling_rate), unit)] * len(rows)
        size = steps.size // len(rows)
        self._ends += range(start + size, end + 1, size)

    def finish(self) -> pa.Table:
        """The table, which takes the memory with it."""
        columns = [None if column.name == "ecg" else self._encoded(column) for column in self.schema]
        place = self.schema.get_field_index("ecg")
        kind, ends = self.schema.types[place], pa.py_buffer(2 * np.array(self._ends, dtype=np.int32))
        buffers = [None, ends, self._memory.slice(0, self.num_bytes)]
        signal = pa.Array.from_buffers(pa.binary(), len(self.rows), buffers)
        columns[place] = pa.StructArray.from_arrays(
            [signal, *_layout_columns(tuple(self._layouts))], fields=list(kind)
        )
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _encoded(self, column: pa.Field) -> pa.Array:
        values = [row.get(column.name) for row in self.rows]
        first = values[0]
        try:
            if (first is None or type(first) is str) and all([value is first for value in values]):
                return _repeated(first, len(values), column.type)
            return pa.array(values, column.type)
        except (pa.ArrowException, TypeError, ValueError):
            encoded = [encode_nested_example(self.features[column.name], value) for value in values]
            return pa.array(encoded, column.type)


@lru_cache(maxsize=64)  # such as what a corpus does not say, and its name
def _repeated(value: str | None, count: int, kind: pa.DataType) -> pa.Array:
    return pa.array([value] * count, kind)


@lru_cache(maxsize=16)  # most tables of a corpus have the same
def _layout_columns(layouts: tuple[tuple[bytes, tuple[str, ...], float, str], ...]) -> list[pa.Array]:
    """Gains, leads, sampling rates and units of recordings."""
    columns = [column for column in Ecg.pa_type if column.name != "signal"]
    rows = [(np.frombuffer(gain, np.float32), *others) for gain, *others in layouts]
    return [pa.array(values, column.type) for values, column in zip(zip(*rows, strict=True), columns, strict=True)]
