"""DICOM waveforms of the ECG classes (12-lead, general, ambulatory), and ECG leads in others, by `pydicom`.

Format: DICOM PS3.3, C.10.9 (Waveform Module); lead codes: PS3.16, CID 3001 "ECG Lead", in the coding schemes MDC
(ISO/IEEE 11073-10101) and SCPECG (EN 1064).
"""

import os
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Unpack

import numpy as np

from ..records import EcgRecord
from .channels import Channel, ChannelChoice, choose_channels, is_voltage
from .limits import LIBRARY_ERRORS, check_num_values, missing_library, read_bytes
from .patient import age_between, sex_of
from .steps import record_of_channels

ECG_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.9.1.1": "12-lead ECG",
    "1.2.840.10008.5.1.4.1.1.9.1.2": "general ECG",
    "1.2.840.10008.5.1.4.1.1.9.1.3": "ambulatory ECG",
}
WAVEFORM_CLASSES = "1.2.840.10008.5.1.4.1.1.9."
MAX_BYTES = 2**31
PADDING_EDGE_SECONDS, PADDING_GAP_SECONDS = 1.0, 0.1
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# Both schemes number the leads alike: "2:3" and "5.6.3-9-3" are V1.
LEAD_NUMBERS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 16: "VX", 17: "VY", 18: "VZ"}
LEAD_NUMBERS |= {number + 2: f"V{number}" for number in range(1, 7)}
_CODE_PREFIXES = {"MDC": "2:", "SCPECG": "5.6.3-9-"}
_TYPES = {("SB", 8): "i1", ("UB", 8): "u1", ("SS", 16): "i2", ("US", 16): "u2", ("SL", 32): "i4", ("UL", 32): "u4"}
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def read_dicom(
    path: str | os.PathLike,
    record_id: str,
    group: str | None = None,
    **choice: Unpack[ChannelChoice],
) -> EcgRecord:
    """Reads one waveform group of a DICOM waveform object: the original rhythm, not the median beats.

    Of objects that are no ECG (hemodynamic, electrophysiology) those channels whose codes are of ECG leads.

    Args:
        group (`str`, *optional*):
            Label of the multiplex group, or its position from 0; needed where several groups hold original rhythm.
        choice ([`ChannelChoice`]): Channels to take; one is named by the lead of its code, or else by its meaning.

    Returns:
        the record in the unit of its channels (in mV if they differ), int16 where baselines are whole steps; padding
        is missing samples; patient, sex and age as stated, or by birth and acquisition dates.

    Raises:
        ValueError: if `pydicom` is missing; for another class, a deflated file, no or several groups that could be
            meant, channels that start at different times, sizes that do not fit, or units that are no voltage.
    """
    try:
        import pydicom
    except ImportError:
        raise missing_library("pydicom", "dicom") from None
    path = os.fspath(path)
    content = read_bytes(path, MAX_BYTES, "DICOM file")
    try:
        if _DEFLATED in content:  # the library would inflate it without a bound
            raise ValueError("it is deflated; write it as Explicit VR Little Endian")
        data = pydicom.dcmread(BytesIO(content))  # of a file on disk it would ask for as many bytes as an element says
        syntax = data.file_meta.get("TransferSyntaxUID")
        kind, groups = str(data.get("SOPClassUID") or ""), list(data.get("WaveformSequence") or [])
        if not kind.startswith(WAVEFORM_CLASSES) or not groups:
            raise ValueError(f"its class {kind} is no waveform, such as {ECG_CLASSES}")
        chosen = groups[_choose(groups, group)]
        record = _read_group(chosen, path, record_id, choice, syntax, kind in ECG_CLASSES, _patient(data))
    except LIBRARY_ERRORS + (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        raise ValueError(f"{path} cannot be read as a DICOM ECG: {error}") from error
    return record


def _choose(groups: Sequence[Any], wanted: str | None) -> int:
    labels = [str(group.get("MultiplexGroupLabel") or "") for group in groups]
    if wanted is not None:
        chosen = [i for i, label in enumerate(labels) if wanted in (label, str(i))]
    else:
        chosen = [
            index
            for index, (group, label) in enumerate(zip(groups, labels, strict=True))
            if group.get("WaveformOriginality") == "ORIGINAL" and "MEDIAN" not in label.upper()
        ]
    if len(chosen) != 1:
        raise ValueError(
            f"{len(chosen)} of its waveform groups {labels} are {'named ' + wanted if wanted else 'original rhythm'}. "
            "Name one by dataset=, its label or position."
        )
    return chosen[0]


def _read_group(
    group, path: str, record_id: str, choice: dict, syntax: str, is_ecg: bool, patient: dict[str, Any]
) -> EcgRecord:
    shape = (int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples))
    check_num_values("the waveform", shape)
    kind = (str(group.WaveformSampleInterpretation), int(group.WaveformBitsAllocated))
    if kind not in _TYPES:
        raise ValueError(f"its samples are {kind[1]} bits of {kind[0]}; expected one of {sorted(_TYPES)}")
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    dtype = np.dtype(order + _TYPES[kind])
    content, expected = group.WaveformData, shape[0] * shape[1] * dtype.itemsize
    if not expected <= len(content) <= expected + 1:  # one byte fills up an odd number
        raise ValueError(f"{shape[0]} channels x {shape[1]} samples need {expected} bytes, it has {len(content)}")
    steps = np.frombuffer(content, dtype=dtype, count=shape[0] * shape[1]).reshape(shape[1], shape[0]).T
    items = list(group.ChannelDefinitionSequence)
    if len(items) != shape[0]:
        raise ValueError(f"it defines {len(items)} channels and stores {shape[0]}")
    rate, channels, gain, zero = float(group.SamplingFrequency), [], [], []
    for item in items:
        name, lead = _name_and_lead(item)
        unit = _unit(item)
        is_taken = bool(lead) or (is_ecg and is_voltage(unit))
        channels.append(Channel(name, unit, rate, is_taken, lead or name.removeprefix("Lead ")))
        scale = _scale(item)
        gain.append(scale[0])
        zero.append(scale[1])
    taken = choose_channels(path, channels, **choice).positions
    skews = {
        (float(items[p].get("ChannelTimeSkew") or 0), float(items[p].get("ChannelSampleSkew") or 0)) for p in taken
    }
    if len(skews) > 1:
        raise ValueError("its channels start at different times (skew), which an array cannot express")
    for position in taken:
        if not np.isfinite(gain[position]) or gain[position] == 0:
            raise ValueError(f"channel {channels[position].name} has the sensitivity {gain[position]}")
    gain = [value if np.isfinite(value) and value else 1.0 for value in gain]  # of channels that are not taken
    missing, notes = _find_padding(steps, group.get("WaveformPaddingValue"), dtype, rate)
    record = record_of_channels(path, record_id, channels, steps, gain, zero, choice, **patient, notes=notes)
    if missing is not None and missing[list(taken)].any():
        scale = 1.0 if record.gain is None else record.gain[:, None]
        record.signal, record.gain = (record.signal * scale).astype(np.float32), None
        record.signal[missing[list(taken)]] = np.nan
    return record


def _name_and_lead(channel) -> tuple[str, str]:
    """Meaning of a channel's code, and the ECG lead that the code stands for, or `""`."""
    source = channel.ChannelSourceSequence[0]
    prefix = _CODE_PREFIXES.get(str(source.get("CodingSchemeDesignator") or ""))
    number = str(source.get("CodeValue") or "").removeprefix(prefix) if prefix else ""
    lead = LEAD_NUMBERS.get(int(number), "") if number.isascii() and number.isdigit() else ""
    return str(source.get("CodeMeaning") or "").strip(), lead


def _unit(channel) -> str:
    units = channel.get("ChannelSensitivityUnitsSequence")
    return str(units[0].CodeValue) if units and channel.get("ChannelSensitivity") is not None else "no sensitivity"


def _scale(channel) -> tuple[float, float]:
    """Unit per step (0 where none is stated), and the step of 0 units."""
    correction = channel.get("ChannelSensitivityCorrectionFactor")
    stated = channel.get("ChannelSensitivity")
    sensitivity = float(0 if stated is None else stated) * (1.0 if correction is None else float(correction))
    return sensitivity, -float(channel.get("ChannelBaseline") or 0) / sensitivity if sensitivity else 0.0


def _find_padding(
    steps: np.ndarray, padding: Any, dtype: np.dtype, rate: float
) -> tuple[np.ndarray | None, list[str]]:
    """Finds where nothing was recorded, as bool of the shape of `steps`, and a note on what was kept.

    A padding value beyond all samples, or the least of its type, marks nothing else. One among the samples, such as
    0, is also a voltage that a heart gives: it is padding where it fills the start or the end of a channel for
    `PADDING_EDGE_SECONDS`, or all channels at once for `PADDING_GAP_SECONDS`, and a sample elsewhere.
    """
    if padding is None:
        return None, []
    value = int(np.frombuffer(padding, dtype=dtype)[0] if isinstance(padding, bytes) else padding)
    missing = steps == value
    others = steps[~missing]
    if not missing.any() or not others.size or not others.min() < value < others.max():
        return missing, []
    real = np.zeros_like(missing)
    gap = _runs_of(missing.all(axis=0), PADDING_GAP_SECONDS * rate)
    for row, marked in zip(real, missing, strict=True):
        row |= gap
        for flags, target in ((marked, row), (marked[::-1], row[::-1])):
            length = len(flags) if flags.all() else int(np.argmin(flags))
            if length >= PADDING_EDGE_SECONDS * rate:
                target[:length] = True
    kept = int(missing.sum() - real.sum())
    note = f"kept {kept} samples of the padding value {value}, which lies among the samples and is scattered over them"
    return real, [note] if kept else []


def _runs_of(flags: np.ndarray, least: float) -> np.ndarray:
    """The flags that stand in runs of at least `least`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    kept = np.zeros_like(flags)
    for start, end in edges.reshape(-1, 2):
        kept[start:end] = end - start >= least
    return kept


def _patient(data) -> dict[str, Any]:
    age, text = None, str(data.get("PatientAge") or "")
    if len(text) == 4 and text[:3].isdigit() and text[3] in _YEARS:
        age = int(text[:3]) * _YEARS[text[3]]
    if age is None:
        dates = [str(data.get(name) or "") for name in ("AcquisitionDateTime", "AcquisitionDate", "StudyDate")]
        age = age_between(str(data.get("PatientBirthDate") or ""), next(filter(None, dates), ""))
    return {
        "patient_id": str(data.get("PatientID") or "").strip() or None,
        "sex": sex_of(str(data.get("PatientSex") or "")),
        "age": age,
    }
