"""EDF, EDF+ and BDF recordings, by `pyedflib` (extra `edf`). The header is checked before the library allocates by it.

Format: https://www.edfplus.info/specs (EDF: Kemp 1992, EDF+: Kemp 2003); BDF is EDF with 24-bit samples.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ...modeling.leads import FRANK_LEADS, STANDARD_LEADS, canonical_lead
from ..records import EcgRecord, known_lead_names, millivolts_per
from .limits import LIBRARY_ERRORS, check_num_values, missing_library
from .steps import record_of_steps

ANNOTATION_LABELS = ("EDF Annotations", "BDF Annotations", "Status")
_PREFIXES = ("ECG", "EKG")
# Not every spelling of a lead: without "ECG" before them, "C3" is an electrode of the EEG and "1" is anything.
_BARE_LABELS = {lead.upper(): lead for lead in STANDARD_LEADS + FRANK_LEADS}
_SEXES = {"male": "male", "female": "female"}


class _Channel(NamedTuple):
    index: int
    lead: str
    unit: str
    gain: float
    zero: float
    samples_per_record: int


def read_edf(path: str | os.PathLike, record_id: str, rename_leads: Mapping[str, str] | None = None) -> EcgRecord:
    """Reads the ECG channels of an EDF or BDF file.

    ECG channels are those whose label starts with `ECG` or `EKG`, is the standard name of a lead, or is in
    `rename_leads`.

    Args:
        rename_leads (`dict`, *optional*): Labels as stored → lead names.

    Returns:
        the record in mV (or in the one unit that all its channels have), int16 where 0 volts is a whole step of the
        scale; patient, sex and age as stated.

    Raises:
        ValueError: if `pyedflib` is missing; for a header that does not fit the file, a discontinuous file, no ECG
            channel, ECG channels at different rates, or a physical dimension that is no voltage.
    """
    try:
        import pyedflib
    except ImportError:
        raise missing_library("pyedflib", "edf") from None
    path = os.fspath(path)
    header = _check_header(path)
    channels = _ecg_channels(path, header, rename_leads or {})
    rates = {channel.lead: channel.samples_per_record / header["record_seconds"] for channel in channels}
    if len(set(rates.values())) > 1:
        raise ValueError(
            f"{path}: expected ECG channels of one sampling rate, got {rates} Hz. Write the channels of each rate to "
            "a file of their own, or bring them to one rate and pass the array to EcgRecord."
        )
    shape = (len(channels), header["num_records"] * channels[0].samples_per_record)
    check_num_values(path, shape)
    units = {channel.unit for channel in channels}
    unit = units.pop() if len(units) == 1 else "mV"
    scale = [millivolts_per(channel.unit) / millivolts_per(unit) for channel in channels]
    try:
        with pyedflib.EdfReader(path) as reader:
            steps = np.empty(shape, dtype=np.int32)
            for row, channel in enumerate(channels):
                steps[row] = reader.readSignal(channel.index, digital=True)
            patient = _patient(reader)
    except LIBRARY_ERRORS as error:
        raise ValueError(f"`pyedflib` cannot read {path}: {error}") from error
    return record_of_steps(
        record_id,
        steps,
        known_lead_names(tuple(channel.lead for channel in channels)),
        rates[channels[0].lead],
        unit,
        [channel.gain * factor for channel, factor in zip(channels, scale, strict=True)],
        [channel.zero for channel in channels],
        **patient,
    )


def _check_header(path: str) -> dict[str, Any]:
    """The fields of the header as text and numbers, after a comparison with the size of the file."""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
            num_signals = _whole(head[252:256], "number of signals", path)
            if len(head) < 256 or not 0 < num_signals <= 512:
                raise ValueError(f"{path}: expected an EDF header with 1 to 512 signals, got {num_signals}.")
            lines = file.read(256 * num_signals)
            file_size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from None
    if len(lines) < 256 * num_signals or _whole(head[184:192], "size of the header", path) != 256 * (num_signals + 1):
        raise ValueError(f"{path}: the header is truncated, or its size is not that of {num_signals} signals.")
    columns, position = {}, 0
    for name, width in (
        ("label", 16),
        ("transducer", 80),
        ("unit", 8),
        ("physical_min", 8),
        ("physical_max", 8),
        ("digital_min", 8),
        ("digital_max", 8),
        ("prefilter", 80),
        ("samples", 8),
        ("reserved", 32),
    ):
        block = lines[position : position + width * num_signals]
        columns[name] = [block[start : start + width] for start in range(0, len(block), width)]
        position += width * num_signals
    samples = [_whole(field, "samples in a data record", path) for field in columns["samples"]]
    num_records = _whole(head[236:244], "number of data records", path)
    seconds = _number(head[244:252], "duration of a data record", path)
    if min(samples) <= 0 or num_records <= 0 or seconds <= 0:
        raise ValueError(
            f"{path}: expected samples, data records and their duration > 0, got {min(samples)}, {num_records} and "
            f"{seconds} s. A recording that was not closed has -1 data records."
        )
    bytes_per_sample = 3 if head[0] == 255 else 2
    expected = 256 * (num_signals + 1) + num_records * sum(samples) * bytes_per_sample
    if file_size < expected:
        raise ValueError(f"{path} is truncated: its header declares {expected} bytes, it has {file_size}.")
    return columns | {"samples": samples, "num_records": num_records, "record_seconds": seconds}


def _whole(field: bytes, what: str, path: str) -> int:
    try:
        return int(field.decode("ascii"))
    except ValueError:
        raise ValueError(f"{path}: expected a whole number as {what}, got {field!r}.") from None


def _number(field: bytes, what: str, path: str) -> float:
    try:
        number = float(field.decode("ascii"))
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(f"{path}: expected a number as {what}, got {field!r}.")
    return number


def _ecg_channels(path: str, header: Mapping[str, Any], rename_leads: Mapping[str, str]) -> list[_Channel]:
    channels, labels = [], [label.decode("latin-1").strip() for label in header["label"]]
    for index, label in enumerate(labels):
        if label in ANNOTATION_LABELS:
            continue
        lead = rename_leads.get(label) or _lead_of_label(label)
        unit = header["unit"][index].decode("latin-1").strip()
        if lead is None:
            continue
        if not _is_voltage(unit):
            raise ValueError(f"{path}: expected a voltage as physical dimension of {label!r}, got {unit!r}.")
        low, high = (
            _number(header[name][index], f"{name} of {label!r}", path) for name in ("physical_min", "physical_max")
        )
        least, most = (
            _whole(header[name][index], f"{name} of {label!r}", path) for name in ("digital_min", "digital_max")
        )
        if high == low or most <= least:
            raise ValueError(
                f"{path}: the scale of {label!r} from {least}..{most} to {low:g}..{high:g} {unit} is none."
            )
        gain = (high - low) / (most - least)
        channels.append(_Channel(index, lead, unit, gain, most - high / gain, header["samples"][index]))
    if not channels:
        raise ValueError(f"{path}: none of the channels {labels} is an ECG lead. Say which are, by rename_leads=.")
    return channels


def _lead_of_label(label: str) -> str | None:
    """The lead that a label names: `"ECG V1"`, `"EKG II"`, `"aVR"`. Or the label itself, `"ECG"`, `"ECG1"`."""
    if not label.upper().startswith(_PREFIXES):
        return _BARE_LABELS.get(label.upper())
    name = label[len(_PREFIXES[0]) :].strip(" -_:")
    if name.isdigit():  # "ECG1" is a first channel, not lead I
        return label
    try:
        return canonical_lead(name)
    except ValueError:
        return name or label


def _is_voltage(unit: str) -> bool:
    try:
        millivolts_per(unit)
    except ValueError:
        return False
    return True


def _patient(reader) -> dict[str, Any]:
    birth = reader.getBirthdate(string=False) if reader.getBirthdate() else None
    start = reader.getStartdatetime()
    age = None
    if birth and 0 <= start.year - birth.year <= 130:
        age = float(start.year - birth.year - ((start.month, start.day) < (birth.month, birth.day)))
    code = (reader.getPatientCode() or reader.getPatientAdditional() or "").strip()
    return {"patient_id": code or None, "sex": _SEXES.get(str(reader.getSex()).strip().lower()), "age": age}
