"""The `datasets` feature that decodes stored recordings on access."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import Features
from datasets.features.features import List, Value, encode_nested_example, register_feature
from datasets.table import array_cast

from .records import EcgRecord, dequantise, quantise, stored_steps, stored_unit

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


def stored_table(records: Sequence[EcgRecord], features: Features, schema: pa.Schema) -> pa.Table:
    """The table whose rows are those of `EcgRecord.to_row`; samples are copied once, into its memory.

    Args:
        records (`Sequence[EcgRecord]`): Recordings of any layouts.
        features (`Features`): Columns of the table, `ecg` among them as [`ECG_STORAGE`].
        schema (`pyarrow.Schema`): That of the features, which takes milliseconds to make.
    """
    columns = []
    for column in schema:
        if column.name == "ecg":
            columns.append(_stored_recordings(records, column.type))
            continue
        values = [record.extra.get(column.name, vars(record).get(column.name)) for record in records]
        try:
            columns.append(pa.array(values, column.type))
        except (pa.ArrowException, TypeError, ValueError):  # numbers of numpy, or of another kind than the column's
            encoded = [encode_nested_example(features[column.name], value) for value in values]
            columns.append(pa.array(encoded, column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _stored_recordings(records: Sequence[EcgRecord], kind: pa.StructType) -> pa.StructArray:
    ends = np.cumsum([record.signal.size for record in records])
    if 2 * ends[-1] > MAX_BINARY_BYTES:
        raise ValueError(
            f"Record {records[-1].record_id} has {records[-1].signal.size} samples in all, and a row holds at most "
            f"{MAX_BINARY_BYTES} bytes. Cut it into shorter recordings."
        )
    signal = np.empty(ends[-1], dtype="<i2")
    gains, units = [], []
    for record, part in zip(records, np.split(signal, ends[:-1]), strict=True):
        steps, gain, unit = record.stored()
        part.reshape(steps.shape)[...] = steps
        gains.append(gain)
        units.append(unit)
    offsets = np.zeros(len(records) + 1, dtype=np.int32)
    offsets[1:] = 2 * ends
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(signal)]
    return pa.StructArray.from_arrays(
        [
            pa.Array.from_buffers(pa.binary(), len(records), buffers),
            pa.array(gains, kind.field("gain").type),
            pa.array([list(record.leads) for record in records], kind.field("leads").type),
            pa.array([float(record.sampling_rate) for record in records], pa.float64()),
            pa.array(units, pa.string()),
        ],
        fields=list(kind),
    )
