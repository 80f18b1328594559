"""Reads whatever a caller hands to `EcgFeatureExtractor` as recordings whose leads, rate and unit are known.

Nothing is guessed here: an array comes with its declaration, a row or a record declares itself, anything else is a
`ValueError` that says what was expected, what came and what to do.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from .leads import canonical_lead, placed_leads

MILLIVOLTS_PER_UNIT = {
    "v": 1e3,
    "mv": 1.0,
    "uv": 1e-3,
    "\N{MICRO SIGN}v": 1e-3,
    "\N{GREEK SMALL LETTER MU}v": 1e-3,
    "nv": 1e-6,
}
# Bounds of what recorders do, far beyond them: a declared rate must not decide how much memory is asked for.
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 1.0, 1e6  # Hz
DIMENSIONLESS = "dimensionless"
"""Declared "unit" of values that are no voltage any more, such as z-scores. Models of volts refuse them."""


@runtime_checkable
class DeclaredRecording(Protocol):
    """Anything that carries a signal and what is needed to read it, such as `ecg_transformers.data.EcgRecord`."""

    signal: Any
    leads: Sequence[str]
    sampling_rate: float
    unit: str
    gain: Any


class Recording(NamedTuple):
    signal: np.ndarray  # (num_leads, num_samples), int16 or int32 with gain, or float32
    gain: np.ndarray | None  # (num_leads,), float32, mV per step; None: the signal is in mV
    leads: tuple[str, ...]
    sampling_rate: float
    unit: str  # as it came

    @property
    def layout(self) -> tuple:
        return self.leads, self.sampling_rate, self.signal.shape, self.signal.dtype, self.gain is None


def read_recordings(
    signals: Any,
    sampling_rate: Any = None,
    leads: Any = None,
    unit: Any = None,
    gain: Any = None,
    offset: Any = None,
    electrode_placement: str | None = None,
) -> list[Recording]:
    """Brings every accepted form of input to a list of recordings; see `EcgFeatureExtractor.__call__`."""
    if isinstance(signals, Mapping) and isinstance(signals.get("ecg"), list):
        signals = signals["ecg"]  # a slice of a dataset
    declared = [signals] if isinstance(signals, Mapping | DeclaredRecording) else signals
    if isinstance(declared, list | tuple) and declared and isinstance(declared[0], Mapping | DeclaredRecording):
        given = {"sampling_rate": sampling_rate, "leads": leads, "unit": unit, "gain": gain, "offset": offset}
        given["electrode_placement"] = electrode_placement
        given = [name for name, value in given.items() if value is not None]
        if given:
            raise ValueError(f"These recordings declare {given} themselves. Pass {given} for bare arrays only.")
        return [_read_declared(recording, f"Record {number}") for number, recording in enumerate(declared)]

    reasons = {
        "sampling_rate": (sampling_rate, "in Hz: at a wrong rate every interval is silently scaled"),
        "leads": (leads, "the name of each row: databases differ in the order of leads"),
        "unit": (unit, "'mV', 'uV', 'V' or 'adc': amplitudes carry the diagnosis"),
    }
    absent = [f"{name} ({reason})" for name, (value, reason) in reasons.items() if value is None]
    if absent:
        raise ValueError(f"Arrays do not say what they hold. Pass {', '.join(absent)}. None of these has a default.")
    if not isinstance(leads, list | tuple | np.ndarray):
        raise ValueError(
            f"Expected a sequence of lead names (list or tuple), in the order of the rows, got {leads!r}. "
            + (f"Write [{leads!r}]." if isinstance(leads, str) else "")
        )
    is_list = isinstance(signals, list | tuple) and len(signals) > 0
    if is_list and (isinstance(signals[0], np.ndarray) or _is_tensor(signals[0])):
        arrays = [_as_array(signal, f"Record {number}") for number, signal in enumerate(signals)]
    else:
        array = _as_array(signals, "The input")
        arrays = list(array) if array.ndim == 3 else [array]
    if not arrays:
        raise ValueError("Expected at least one recording, got none.")
    leads = placed_leads(recorded_leads(tuple(leads)), electrode_placement or "standard")
    gains = _for_each_recording(gain, "gain", len(arrays))
    offsets = _for_each_recording(offset, "offset", len(arrays))
    return [
        _check_recording(array, gains[number], leads, sampling_rate, unit, f"Record {number}", offsets[number])
        for number, array in enumerate(arrays)
    ]


def _for_each_recording(values: Any, name: str, num_recordings: int) -> list[np.ndarray | None]:
    """Gains or offsets of each recording, from those of all or of each."""
    array = None if values is None else _as_array(values, name)
    if array is None or array.ndim != 2:
        return [array] * num_recordings
    if len(array) != num_recordings:
        raise ValueError(f"Got {name}s for {len(array)} recordings, but {num_recordings} recordings.")
    return list(array)


def _read_declared(recording: Mapping | DeclaredRecording, name: str) -> Recording:
    if isinstance(recording, Recording):
        return recording
    if not isinstance(recording, Mapping):
        signal, gain = recording.signal, recording.gain
        leads, sampling_rate, unit = recording.leads, recording.sampling_rate, recording.unit
    else:
        ecg = recording.get("ecg", recording)
        absent = [key for key in ("signal", "leads", "sampling_rate", "unit") if ecg.get(key) is None]
        if absent:
            raise ValueError(f"{name} lacks {absent}. Expected the keys signal, leads, sampling_rate and unit.")
        signal, gain = ecg["signal"], ecg.get("gain")
        leads, sampling_rate, unit = ecg["leads"], ecg["sampling_rate"], ecg["unit"]
        if isinstance(signal, bytes | memoryview):
            if len(leads) == 0 or len(signal) % (2 * len(leads)):
                raise ValueError(
                    f"{name}: {len(signal)} bytes are no int16 samples of {len(leads)} equally long leads."
                )
            signal = np.frombuffer(signal, dtype="<i2").reshape(len(leads), -1)
    array = _as_array(signal, name)
    if array.dtype == np.float32:
        gain = None  # decoded: what is left of the stored gain was applied
    gain = None if gain is None else _as_array(gain, f"{name}: gain")
    return _check_recording(array, gain, leads, sampling_rate, unit, name)


def _is_tensor(values: Any) -> bool:
    """Recognises a tensor of torch, which exists only where somebody has imported torch."""
    return "torch" in sys.modules and isinstance(values, sys.modules["torch"].Tensor)


def _as_array(values: Any, name: str) -> np.ndarray:
    """A native int16, int32 or float32 array of what came."""
    if _is_tensor(values):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array. Fill it with NaN where it is masked: array.filled(np.nan).")
    try:
        array = np.asarray(values)
    except ValueError as error:  # nested lists of different lengths
        raise ValueError(
            f"{name} is no rectangular array. Pass a list of arrays for recordings that differ."
        ) from error
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32) if array.ndim else array.astype(np.float32)
    if array.dtype.kind in "iu":
        if array.dtype.itemsize > 2 and array.size and np.abs(array.astype(np.float64)).max() >= 2**31:
            raise ValueError(f"{name} holds integers beyond 32 bits, which no converter writes. Check the reader.")
        # Steps of a 16-bit converter in a wider type (wfdb's d_signal) are int16 again, so that -32768 is "missing".
        is_16_bit = array.dtype.newbyteorder("=") == np.int16 or (
            array.size > 0 and array.min() >= -(2**15) and array.max() < 2**15
        )
        return array.astype(np.int16 if is_16_bit else np.int32, copy=False)
    raise ValueError(f"{name} has the type {array.dtype}. Expected floats, or integers with a gain.")


def _check_recording(
    signal: np.ndarray,
    gain: np.ndarray | None,
    leads: Sequence[str],
    sampling_rate: float,
    unit: str,
    name: str,
    offset: np.ndarray | None = None,
) -> Recording:
    leads = recorded_leads(tuple(leads))
    shape = tuple(signal.shape)
    if signal.ndim != 2 or shape[0] != len(leads):
        cure = "One row is one lead."
        if signal.ndim == 2 and shape[1] == len(leads):
            cure = "It seems to be (num_samples, num_leads): transpose it."
        elif signal.ndim == 1:
            cure = "A single lead has the shape (1, num_samples): pass signal[None]."
        raise ValueError(
            f"{name}: expected ({len(leads)}, num_samples) for the leads {list(leads)}, got {shape}. {cure}"
        )
    if shape[1] == 0:
        raise ValueError(f"{name} has no samples: its shape is {shape}. Leave it out.")
    check_sampling_rate(sampling_rate)
    is_digital = unit.strip().lower() == "adc"
    factor = 1.0 if is_digital else scale_of(unit)
    if signal.dtype != np.float32 or is_digital:
        if gain is None:
            raise ValueError(
                f"{name}: {signal.dtype} samples in {unit!r} need `gain`, the {'mV' if is_digital else unit} per "
                "step (the header of the file has it). If the numbers are no converter's steps, pass floats."
            )
        gain = np.broadcast_to(gain, (len(leads),)) if gain.size in (1, len(leads)) else gain
        if gain.shape != (len(leads),) or not (np.isfinite(gain) & (gain != 0)).all():
            raise ValueError(f"{name}: expected one finite gain other than 0, or {len(leads)} of them, got {gain}.")
        gain = (gain * factor).astype(np.float32)
        if offset is not None:
            return Recording(_without_offset(signal, gain, offset, name), None, leads, float(sampling_rate), unit)
        return Recording(signal, gain, leads, float(sampling_rate), unit)
    if gain is not None or offset is not None:
        raise ValueError(f"{name}: floats in {unit!r} need no gain and no offset. Drop them, or declare unit='adc'.")
    return Recording(signal * np.float32(factor) if factor != 1 else signal, None, leads, float(sampling_rate), unit)


def _without_offset(signal: np.ndarray, gain: np.ndarray, offset: np.ndarray, name: str) -> np.ndarray:
    """Float32 mV of steps of which `offset` stand for zero; computed wide, so that nothing wraps around."""
    if offset.size not in (1, len(gain)) or not np.isfinite(offset).all():
        raise ValueError(f"{name}: expected one finite offset, or {len(gain)} of them, got {offset}.")
    values = (signal - np.broadcast_to(offset.astype(np.float64), gain.shape)[:, None]) * gain[:, None]
    if signal.dtype == np.int16:
        values[signal == -32768] = np.nan  # not recorded
    return values.astype(np.float32)


def cut(sentence: str, most: int = 2000) -> str:
    """A sentence of at most so many characters: what a file says may be as long as the file."""
    return sentence if len(sentence) <= most else f"{sentence[: most // 2]} … {sentence[-most // 2 + 3 :]}"


def check_sampling_rate(sampling_rate: float) -> None:
    is_number = isinstance(sampling_rate, int | float | np.number) and not isinstance(sampling_rate, bool)
    if not (is_number and MIN_SAMPLING_RATE <= sampling_rate <= MAX_SAMPLING_RATE):
        raise ValueError(
            f"Expected a sampling rate in Hz, above 0 ({MIN_SAMPLING_RATE:g} to {MAX_SAMPLING_RATE:g}), got "
            f"{sampling_rate!r}."
        )


def millivolts_per(unit: str) -> float:
    if unit.strip().lower() not in MILLIVOLTS_PER_UNIT:
        raise ValueError(
            f"Unknown unit {unit!r}. Expected 'mV', 'uV' (or the micro sign) or 'V'; of arrays also 'adc'; "
            f"{DIMENSIONLESS!r} for values that are no voltage, such as z-scores."
        )
    return MILLIVOLTS_PER_UNIT[unit.strip().lower()]


def scale_of(unit: str) -> float:
    """Millivolts in one `unit`; 1 for `DIMENSIONLESS` values, which are taken as they are."""
    return 1.0 if unit == DIMENSIONLESS else millivolts_per(unit)


def is_known_lead(name: str) -> bool:
    try:
        canonical_lead(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=256)
def recorded_leads(names: tuple[str, ...]) -> tuple[str, ...]:
    """Standard spelling of the channels of a recording; other channels (`"MLII"`, `"RESP"`) keep their names."""
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"Expected the names of leads, such as 'II', got {name!r} in {list(names)}.")
    leads = tuple(canonical_lead(name) if is_known_lead(name) else name.strip() for name in names)
    repeated = sorted({lead for lead in leads if leads.count(lead) > 1})
    if repeated:
        raise ValueError(f"Leads {repeated} come more than once in {list(names)}. Keep one channel for each lead.")
    return leads
