"""DICOM waveforms of the ECG classes (12-lead, general, ambulatory), by `pydicom` (extra `dicom`).

Format: DICOM PS3.3, C.10.9 (Waveform Module); lead codes: PS3.16, CID 3001 "ECG Lead", in the coding schemes MDC
(ISO/IEEE 11073-10101) and SCPECG (EN 1064).
"""

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from ..records import EcgRecord, known_lead_names, millivolts_per
from .limits import LIBRARY_ERRORS, check_num_values, missing_library, read_bytes
from .steps import record_of_steps

ECG_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.9.1.1": "12-lead ECG",
    "1.2.840.10008.5.1.4.1.1.9.1.2": "general ECG",
    "1.2.840.10008.5.1.4.1.1.9.1.3": "ambulatory ECG",
}
MAX_BYTES = 2**31
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# Both schemes number the leads alike: "2:3" and "5.6.3-9-3" are V1.
_LEADS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 16: "VX", 17: "VY", 18: "VZ"}
_LEADS |= {number + 2: f"V{number}" for number in range(1, 7)}
_CODE_PREFIXES = {"MDC": "2:", "SCPECG": "5.6.3-9-"}
_TYPES = {("SB", 8): "i1", ("UB", 8): "u1", ("SS", 16): "i2", ("US", 16): "u2", ("SL", 32): "i4", ("UL", 32): "u4"}
_SEXES = {"M": "male", "F": "female"}
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def read_dicom(
    path: str | os.PathLike,
    record_id: str,
    rename_leads: Mapping[str, str] | None = None,
    group: str | None = None,
) -> EcgRecord:
    """Reads one waveform group of a DICOM ECG: the original rhythm, not the median beats.

    Args:
        rename_leads (`dict`, *optional*): Meaning of a channel's code, as stored → lead name.
        group (`str`, *optional*):
            Label of the multiplex group, or its position from 0; needed where several groups hold original rhythm.

    Returns:
        the record in the unit of its channels (in mV if they differ), int16 where baselines are whole steps; padding
        values are missing samples; patient, sex and age as stated.

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
        if data.get("SOPClassUID") not in ECG_CLASSES:
            raise ValueError(f"its class {data.get('SOPClassUID')} is none of {ECG_CLASSES}")
        groups = list(data.get("WaveformSequence") or [])
        record = _read_group(groups[_choose(groups, group)], record_id, rename_leads or {}, syntax, _patient(data))
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
    group, record_id: str, rename_leads: Mapping[str, str], syntax: str, patient: dict[str, Any]
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
    channels = list(group.ChannelDefinitionSequence)
    if len(channels) != shape[0]:
        raise ValueError(f"it defines {len(channels)} channels and stores {shape[0]}")
    skews = {(float(c.get("ChannelTimeSkew") or 0), float(c.get("ChannelSampleSkew") or 0)) for c in channels}
    if len(skews) > 1:
        raise ValueError("its channels start at different times (skew), which an array cannot express")
    leads = known_lead_names(tuple(_lead_name(channel, rename_leads) for channel in channels))
    scales = [_scale(channel, lead) for channel, lead in zip(channels, leads, strict=True)]
    units = {unit for _, _, unit in scales}
    unit = units.pop() if len(units) == 1 else "mV"
    factor = [millivolts_per(stored) / millivolts_per(unit) for _, _, stored in scales]
    gain = [sensitivity * scale for (sensitivity, _, _), scale in zip(scales, factor, strict=True)]
    zero = [-baseline / sensitivity for sensitivity, baseline, _ in scales]
    record = record_of_steps(record_id, steps, leads, float(group.SamplingFrequency), unit, gain, zero, **patient)
    return _mark_padding(record, steps, group.get("WaveformPaddingValue"), dtype)


def _lead_name(channel, rename_leads: Mapping[str, str]) -> str:
    source = channel.ChannelSourceSequence[0]
    meaning = str(source.get("CodeMeaning") or "").strip()
    if meaning in rename_leads:
        return rename_leads[meaning]
    prefix = _CODE_PREFIXES.get(str(source.get("CodingSchemeDesignator") or ""))
    number = str(source.get("CodeValue") or "").removeprefix(prefix) if prefix else ""
    if number.isdigit() and int(number) in _LEADS:
        return _LEADS[int(number)]
    return meaning.removeprefix("Lead ") or f"channel {number}"


def _scale(channel, lead: str) -> tuple[float, float, str]:
    """Unit per step, value of step 0, and the unit."""
    if channel.get("ChannelSensitivity") is None or not channel.get("ChannelSensitivityUnitsSequence"):
        raise ValueError(f"channel {lead} has no sensitivity, so its values are no voltages")
    unit = str(channel.ChannelSensitivityUnitsSequence[0].CodeValue)
    millivolts_per(unit)
    correction = channel.get("ChannelSensitivityCorrectionFactor")
    sensitivity = float(channel.ChannelSensitivity) * (1.0 if correction is None else float(correction))
    if not np.isfinite(sensitivity) or sensitivity == 0:
        raise ValueError(f"channel {lead} has the sensitivity {sensitivity}")
    return sensitivity, float(channel.get("ChannelBaseline") or 0), unit


def _mark_padding(record: EcgRecord, steps: np.ndarray, padding: Any, dtype: np.dtype) -> EcgRecord:
    """NaN where the file says that nothing was recorded."""
    if padding is None:
        return record
    value = np.frombuffer(padding, dtype=dtype)[0] if isinstance(padding, bytes) else padding
    missing = steps == int(value)
    if missing.any():
        unit_scale = 1.0 if record.gain is None else record.gain[:, None]
        record.signal, record.gain = (record.signal * unit_scale).astype(np.float32), None
        record.signal[missing] = np.nan
    return record


def _patient(data) -> dict[str, Any]:
    age, text = None, str(data.get("PatientAge") or "")
    if len(text) == 4 and text[:3].isdigit() and text[3] in _YEARS:
        age = int(text[:3]) * _YEARS[text[3]]
    return {
        "patient_id": str(data.get("PatientID") or "").strip() or None,
        "sex": _SEXES.get(str(data.get("PatientSex") or "")),
        "age": age,
    }
