"""`EcgRecord`: one recording in memory, and the row in which it is stored.

The stored form is 16-bit integers and one scale for each lead, because that is what the devices wrote: half the size
of float32 and exact. `INVALID_SAMPLE` marks samples that a file declares as missing; they decode to NaN.
"""

import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ..modeling.leads import canonical_lead, electrode_placement_of, placed_leads
from ..modeling.recording_input import DIMENSIONLESS, check_sampling_rate

INVALID_SAMPLE = -32768
"""Stored value of a sample that was not recorded; decodes to NaN. (The mark of WFDB format 16 as well.)"""

MAX_STEP = 32767
MILLIVOLTS_PER_UNIT = {"mv": 1.0, "v": 1e3, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}


LENT_MEMORY: ContextVar[Callable[[tuple[int, ...]], np.ndarray] | None] = ContextVar("lent_memory", default=None)
"""Source of the memory of [`new_steps`]: the table into which a recording goes, while it is read."""


def new_steps(shape: tuple[int, ...]) -> np.ndarray:
    """Int16 memory of a shape for the samples of a recording: that of the table into which it goes, or new."""
    lend = LENT_MEMORY.get()
    return np.empty(shape, dtype=np.int16) if lend is None else lend(shape)


def millivolts_per(unit: str) -> float:
    """Millivolts of one `unit` (`"mV"`, `"uV"`, `"µV"`, `"V"`, `"nV"`, any case).

    Raises:
        ValueError: if the unit is no voltage.
    """
    if unit.strip().lower() not in MILLIVOLTS_PER_UNIT:
        raise ValueError(f"Unknown unit {unit!r}. Expected a voltage: 'mV', 'uV', 'V' or 'nV'.")
    return MILLIVOLTS_PER_UNIT[unit.strip().lower()]


@lru_cache(maxsize=64)  # a corpus has a handful
def stored_unit(unit: str) -> tuple[str, float]:
    """The unit in which signals of a unit are stored, and how many of it one `unit` is: voltages become mV, and what
    is `"dimensionless"` (z-scores) stays so.

    Raises:
        ValueError: if the unit is neither.
    """
    if unit == DIMENSIONLESS:
        return DIMENSIONLESS, 1.0
    try:
        return "mV", millivolts_per(unit)
    except ValueError as error:
        raise ValueError(f"{error} Or {DIMENSIONLESS!r}, if the values are no voltage, such as z-scores.") from error


@lru_cache(maxsize=256)  # a corpus has a handful of layouts and many records
def known_lead_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Lead names in their standard spelling; channels that are no known lead (`"MLII"`) keep the name they came with.

    Raises:
        ValueError: if a name is empty or comes twice.
    """
    leads = []
    for name in names:
        try:
            leads.append(canonical_lead(name))
        except ValueError:
            leads.append(name.strip())
    repeated = sorted({lead for lead in leads if leads.count(lead) > 1})
    if repeated or "" in leads:
        raise ValueError(f"Expected a different name for every channel, got {list(names)}. Rename or drop {repeated}.")
    return tuple(leads)


@lru_cache(maxsize=256)
def _place(names: tuple[str, ...], electrode_placement: str) -> tuple[tuple[str, ...], str | None]:
    """Names of the leads of a record that say where the electrodes lay, and where that was."""
    leads = placed_leads(known_lead_names(names), electrode_placement)
    return leads, electrode_placement_of(leads)


def quantise(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a float signal to 16-bit steps, each lead on a scale of its own.

    Args:
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): Floats in any unit. NaN marks missing samples.

    Returns:
        `steps` int16 `(num_leads, num_samples)`, NaN as `INVALID_SAMPLE`, and `gain` float32 `(num_leads,)`, unit per
        step. `steps * gain` differs from `signal` by at most `max(abs(lead)) / 65534`.

    Raises:
        ValueError: if a sample is infinite, or too large for float32.
    """
    signal = np.asarray(signal, dtype=np.float64)
    missing = np.isnan(signal)
    values = np.where(missing, 0.0, signal)
    if not np.isfinite(values).all():
        raise ValueError(f"Found {int(np.isinf(values).sum())} infinite samples. Mark missing samples by NaN.")
    largest = np.abs(values).max(axis=1, initial=0.0)
    if (largest > np.finfo(np.float32).max).any():
        raise ValueError(f"Found the value {largest.max():g}, which is beyond 32 bits. Check unit and reader.")
    gain = (largest / MAX_STEP).astype(np.float32)
    gain[gain == 0] = 1e-3  # a lead of zeros, or of values too small for any float
    steps = np.clip(np.rint(values / gain[:, None].astype(np.float64)), -MAX_STEP, MAX_STEP).astype(np.int16)
    steps[missing] = INVALID_SAMPLE
    return steps, gain


def dequantise(steps: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Float32 `steps * gain` of shape `(num_leads, num_samples)`; `INVALID_SAMPLE` becomes NaN."""
    signal = steps.astype(np.float32)
    signal *= np.asarray(gain, dtype=np.float32)[:, None]
    if steps.size and steps.min() == INVALID_SAMPLE:
        signal[steps == INVALID_SAMPLE] = np.nan
    return signal


@dataclass(eq=False)
class EcgRecord:
    """One electrocardiogram with what is needed to read it rightly.

    Args:
        record_id (`str`): Unique in its corpus; names the record in every report.
        signal (`np.ndarray` of shape `(num_leads, num_samples)`):
            int16 steps (then `gain` is needed) or floats in `unit`. NaN, or `INVALID_SAMPLE`, marks missing samples.
        leads (`Sequence[str]`): Name of every row. Usual spellings become the standard ones (`"AVR"` → `"aVR"`).
        sampling_rate (`float`): Rate in Hz.
        unit (`str`):
            Unit of the float signal, or of `gain` per step: a voltage, or `"dimensionless"` for what is none any more.
        gain (`np.ndarray` of shape `(num_leads,)`, *optional*): `unit` per step of an int16 signal.
        offset (`np.ndarray` of shape `(num_leads,)`, *optional*):
            Steps that stand for zero volts. Subtracted on construction: int16 stays int16 where the result fits, and
            becomes float32 where it does not. The attribute is `None` afterwards.
        patient_id, labels, fold, age (years), sex (`"male"` or `"female"`), source (name of the corpus): Known facts.
        extra (`dict`): Further columns of the stored row.
        electrode_placement (`str`, *optional*, defaults to what the names of the leads say):
            `"mason_likar"` if the limb leads were recorded from the torso (exercise, Holter): they are then named
            `"I-ML"` and so on, in the record and its row, and no model takes them for the standard ones unless told.
            Otherwise `"standard"`; `None` for a record without limb leads.
        notes (`Sequence[str]`):
            Sentences on what the reader left out or decided; not part of the stored row.

    Raises:
        ValueError: says what was expected and what came, for wrong shapes, types, rates, gains, names or units.
    """

    record_id: str
    signal: np.ndarray
    leads: Sequence[str]
    sampling_rate: float
    unit: str = "mV"
    gain: np.ndarray | None = None
    offset: np.ndarray | None = None
    patient_id: str | None = None
    labels: Sequence[str] = ()
    fold: int | None = None
    age: float | None = None
    sex: str | None = None
    source: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    electrode_placement: str | None = None
    notes: Sequence[str] = ()

    def __post_init__(self):
        self.leads, self.electrode_placement = _place(tuple(self.leads), self.electrode_placement or "standard")
        self.signal = np.asarray(self.signal)
        if self.signal.ndim != 2 or self.signal.shape[0] != len(self.leads) or self.signal.shape[1] == 0:
            raise ValueError(
                f"Record {self.record_id}: expected a signal of shape (num_leads={len(self.leads)}, num_samples > 0), "
                f"got {self.signal.shape}. Rows are leads: transpose it if it is (num_samples, num_leads)."
            )
        try:
            check_sampling_rate(self.sampling_rate)
        except ValueError as error:
            raise ValueError(f"Record {self.record_id} needs a sampling rate > 0 Hz. {error}") from None
        stored_unit(self.unit)
        if self.signal.dtype == np.int16:
            self._check_steps()
        elif np.issubdtype(self.signal.dtype, np.floating):
            if self.gain is not None or self.offset is not None:
                raise ValueError(f"Record {self.record_id}: gain and offset belong to int16 signals, not to floats.")
            self.signal = self.signal.astype(np.float32, copy=False)
        else:
            raise ValueError(f"Record {self.record_id}: expected an int16 or float signal, got {self.signal.dtype}.")

    def _check_steps(self):
        if self.gain is None:
            raise ValueError(f"Record {self.record_id}: an int16 signal needs `gain`, the {self.unit} per step.")
        self.gain = np.asarray(self.gain, dtype=np.float32)
        gains = self.gain.ravel().tolist()
        if self.gain.shape != (len(self.leads),) or not (all(gains) and math.isfinite(sum(gains))):
            raise ValueError(
                f"Record {self.record_id}: expected {len(self.leads)} finite gains other than 0, got {self.gain}."
            )
        if self.offset is not None:
            offset = np.asarray(self.offset)
            if offset.shape != (len(self.leads),):
                raise ValueError(f"Record {self.record_id}: expected {len(self.leads)} offsets, got {offset}.")
            self.offset = None
            if offset.any():
                self._subtract_offset(offset)

    def _subtract_offset(self, offset: np.ndarray):
        missing = self.signal == INVALID_SAMPLE
        shifted = self.signal.astype(np.float64) - offset[:, None]
        integral = not np.mod(offset, 1).any()
        shifted[missing] = 0
        if integral and np.abs(shifted).max() <= MAX_STEP:
            self.signal = shifted.astype(np.int16)
            self.signal[missing] = INVALID_SAMPLE
        else:
            shifted *= self.gain[:, None].astype(np.float64)
            shifted[missing] = np.nan
            self.signal, self.gain = shifted.astype(np.float32), None

    def with_steps(self, record_id: str, steps: np.ndarray, offset: np.ndarray | None = None) -> "EcgRecord":
        """A record of other int16 steps of the same leads, whose facts are those of this one and not checked again.

        Args:
            record_id (`str`), steps (`np.ndarray` of shape `(num_leads, num_samples)`), offset: See the class.
        """
        record = object.__new__(EcgRecord)
        vars(record).update(vars(self), record_id=record_id, signal=steps, gain=self.gain.copy(), extra={})
        if offset is not None:
            record._subtract_offset(offset)
        return record

    @property
    def num_missing_samples(self) -> int:
        """Number of samples, over all leads, that are marked as not recorded."""
        if self.gain is None:
            return int(np.isnan(self.signal).sum())
        is_complete = np.minimum.reduce(self.signal, axis=None) != INVALID_SAMPLE
        return 0 if is_complete else int((self.signal == INVALID_SAMPLE).sum())

    def to_millivolts(self) -> np.ndarray:
        """The signal as float32 of shape `(num_leads, num_samples)`, in mV; missing samples are NaN."""
        scale = np.float32(millivolts_per(self.unit))
        return self.signal * scale if self.gain is None else dequantise(self.signal, self.gain * scale)

    def stored(self) -> tuple[np.ndarray, np.ndarray, str]:
        """Steps `(num_leads, num_samples)`, what a step of each lead is worth (float32), and the unit of that."""
        steps, gain = (self.signal, self.gain) if self.gain is not None else quantise(self.signal)
        unit, scale = stored_unit(self.unit)
        return steps, gain if scale == 1 else gain * np.float32(scale), unit

    def to_row(self) -> dict[str, Any]:
        """The row in which the record is stored: plain types only, `ecg` as `{signal, gain, leads, ...}`.

        `signal` holds the bytes of little-endian int16 in C order `(num_leads, num_samples)`, `gain` the mV per step
        (or, of dimensionless values, what one step is worth).
        int16 signals are stored bit by bit, floats are rounded by [`quantise`].
        """
        steps, gain, unit = self.stored()
        return {
            "record_id": self.record_id,
            "patient_id": self.patient_id,
            "ecg": {
                "signal": np.ascontiguousarray(steps, dtype="<i2").tobytes(),
                "gain": gain.tolist(),
                "leads": list(self.leads),
                "sampling_rate": float(self.sampling_rate),
                "unit": unit,
            },
            "labels": list(self.labels),
            "fold": self.fold,
            "age": self.age,
            "sex": self.sex,
            "source": self.source,
            **self.extra,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "EcgRecord":
        """The record that a row holds, be its `ecg` stored (bytes) or decoded (float32 mV)."""
        columns = ("patient_id", "labels", "fold", "age", "sex", "source")
        ecg = row["ecg"]
        if isinstance(ecg["signal"], bytes):
            signal, gain = stored_steps(ecg), np.asarray(ecg["gain"], dtype=np.float32)
        else:
            signal, gain = np.asarray(ecg["signal"], dtype=np.float32), None
        return cls(
            record_id=row["record_id"],
            signal=signal,
            leads=ecg["leads"],
            sampling_rate=ecg["sampling_rate"],
            unit=ecg["unit"],
            gain=gain,
            **{name: row[name] for name in columns if row.get(name) is not None},
            extra={name: value for name, value in row.items() if name not in (*columns, "record_id", "ecg")},
        )


def stored_steps(ecg: dict[str, Any]) -> np.ndarray:
    """A read-only int16 view of shape `(num_leads, num_samples)` on the bytes of a stored `ecg`.

    Raises:
        ValueError: if the number of bytes is no multiple of the number of leads.
    """
    num_leads, num_bytes = len(ecg["leads"]), len(ecg["signal"])
    if not num_leads or len(ecg["gain"]) != num_leads or num_bytes == 0 or num_bytes % (2 * num_leads):
        raise ValueError(
            f"Expected {num_leads} leads to have {num_leads} gains and equally many int16 samples, "
            f"got {len(ecg['gain'])} gains and {num_bytes} bytes."
        )
    return np.frombuffer(ecg["signal"], dtype="<i2").reshape(num_leads, -1)
