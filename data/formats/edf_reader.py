"""EDF, EDF+ and BDF recordings: a header of text, then records of 16-bit (BDF: 24-bit) samples, channel by channel.

A file is known by its version and the size of its header; what the format reserves is not looked at. Nothing is asked
of channels that are not taken but their number of samples.

Format: https://www.edfplus.info/specs (EDF: Kemp 1992, EDF+: Kemp 2003); BDF is EDF with 24-bit samples.
"""

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np

from ...modeling.leads import FRANK_LEADS, STANDARD_LEADS, canonical_lead
from ..records import EcgRecord, millivolts_per
from .channels import Channel, ChannelChoice, choose_channels, is_voltage
from .limits import check_num_values
from .patient import age_between, sex_of
from .steps import record_of_steps
from .wfdb_header import decode_text

ANNOTATION_LABELS = ("EDF Annotations", "BDF Annotations", "Status")
BIOSEMI = b"\xffBIOSEMI"
MAX_SIGNALS = 512
_PREFIXES = ("ECG", "EKG")
# Not every spelling of a lead: without "ECG" before them, "C3" is an electrode of the EEG and "1" is anything.
_BARE_LABELS = {lead.upper(): lead for lead in STANDARD_LEADS + FRANK_LEADS}
_FIELDS = (
    *(("label", 16), ("transducer", 80), ("unit", 8), ("physical_min", 8), ("physical_max", 8)),
    *(("digital_min", 8), ("digital_max", 8), ("prefilter", 80), ("samples", 8), ("reserved", 32)),
)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


class _Header(NamedTuple):
    """`columns` holds, by the name of a field, its bytes of each signal; `samples` are those of a data record."""

    columns: dict[str, list[bytes]]
    samples: list[int]
    num_records: int
    record_seconds: float
    bytes_per_sample: int
    patient: dict[str, Any]
    notes: tuple[str, ...]


def is_edf(head: bytes) -> bool:
    """Checks whether the first 256 bytes of a file are the header of an EDF or BDF."""
    if head.startswith(BIOSEMI):
        return True
    size, signals = (_text(field) for field in (head[184:192], head[252:256]))
    is_sized = size.isdigit() and signals.isdigit() and int(size) == 256 * (int(signals) + 1)
    return _text(head[:8]) == "0" and is_sized


def read_edf(path: str | os.PathLike, record_id: str, **choice: Unpack[ChannelChoice]) -> EcgRecord:
    """Reads the ECG channels of an EDF or BDF file.

    ECG channels are those whose label starts with `ECG` or `EKG`, is the standard name of a lead, or is renamed.

    Args:
        choice ([`ChannelChoice`]): Channels to take, and the unit of those that state no physical dimension.

    Returns:
        the record in mV (or in the one unit that all its channels have), int16 where 0 volts is a whole step of the
        scale; patient, sex and age as stated.

    Raises:
        ValueError: for a header that does not fit the file, a discontinuous file, no ECG channel, wanted channels at
            different rates, without a scale, or in a physical dimension that is no voltage.
    """
    path = os.fspath(path)
    header = _read_header(path)
    channels, scales = [], []
    for index, field in enumerate(header.columns["label"]):
        label, stated = _text(field), _text(header.columns["unit"][index])
        lead = None if label in ANNOTATION_LABELS else _lead_of_label(label)
        is_ecg = lead is not None
        if _scale(header, index) is None:
            is_ecg, stated = False, f"{stated} without a scale"  # a dummy, or damaged
        if is_ecg and stated and not is_voltage(stated):
            is_ecg = None if lead.upper() in _BARE_LABELS else False
        channels.append(Channel(label, stated, header.samples[index] / header.record_seconds, is_ecg, lead or ""))
    unit = choice.get("unit")
    chosen = choose_channels(path, channels, **choice)
    scales = {position: _scale(header, position) for position in chosen.positions}
    shape = (len(scales), header.num_records * header.samples[chosen.positions[0]])
    check_num_values(path, shape)
    units = {channels[position].unit or unit for position in scales}
    common = units.pop() if len(units) == 1 else "mV"
    factors = [1.0 if not units else millivolts_per(channels[position].unit or unit) for position in scales]
    return record_of_steps(
        record_id,
        _read_steps(path, header, chosen.positions),
        chosen.leads,
        channels[chosen.positions[0]].sampling_rate,
        common,
        [gain * factor for (gain, _), factor in zip(scales.values(), factors, strict=True)],
        [zero for _, zero in scales.values()],
        notes=(*header.notes, *chosen.notes),
        **header.patient,
    )


def _read_header(path: str) -> _Header:
    """The fields of the header, after a comparison with the size of the file."""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
            num_signals = _whole(head[252:256], "number of signals", path)
            if len(head) < 256 or not 0 < num_signals <= MAX_SIGNALS:
                raise ValueError(f"{path}: expected an EDF header with 1 to {MAX_SIGNALS} signals, got {num_signals}.")
            lines = file.read(256 * num_signals)
            file_size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from None
    if len(lines) < 256 * num_signals or _whole(head[184:192], "size of the header", path) != 256 * (num_signals + 1):
        raise ValueError(f"{path}: the header is truncated, or its size is not that of {num_signals} signals.")
    if head[192:197] in (b"EDF+D", b"BDF+D"):
        raise ValueError(
            f"{path} is discontinuous (EDF+D): its pieces are recordings of their own. Export it as EDF+C."
        )
    columns, position = {}, 0
    for name, width in _FIELDS:
        block = lines[position : position + width * num_signals]
        columns[name] = [block[start : start + width] for start in range(0, len(block), width)]
        position += width * num_signals
    samples = [_whole(field, "samples in a data record", path) for field in columns["samples"]]
    num_records = _whole(head[236:244], "number of data records", path)
    seconds = _number(head[244:252]) or 0.0
    if min(samples) < 0 or max(samples) == 0 or num_records == 0 or num_records < -1 or seconds <= 0:
        raise ValueError(
            f"{path}: expected samples, data records and their duration > 0, got {min(samples)}, {num_records} and "
            f"{_text(head[244:252])} s."
        )
    bytes_per_sample, notes = 3 if head[0] == 255 else 2, ()
    available = file_size - 256 * (num_signals + 1)
    if num_records == -1:
        num_records = available // (sum(samples) * bytes_per_sample)
        notes = (f"the recording was not closed; read the {num_records} whole data records that there are",)
    expected = num_records * sum(samples) * bytes_per_sample
    if available < expected or not expected:
        raise ValueError(
            f"{path} is truncated: its header declares {expected or '> 0'} bytes of samples, it has {available}."
        )
    return _Header(columns, samples, num_records, seconds, bytes_per_sample, _patient(head), notes)


def _read_steps(path: str, header: _Header, positions: Sequence[int]) -> np.ndarray:
    """Whole numbers `(num_channels, num_samples)` of channels of one rate."""
    size = header.bytes_per_sample
    shape = (header.num_records, sum(header.samples) * size)
    content = np.memmap(path, np.uint8, "r", 256 * (len(header.samples) + 1), shape)
    length = header.samples[positions[0]]
    steps = np.empty((len(positions), header.num_records * length), dtype=np.int16 if size == 2 else np.int32)
    for row, position in zip(steps, positions, strict=True):
        start = sum(header.samples[:position]) * size
        part = np.ascontiguousarray(content[:, start : start + length * size]).reshape(-1, size)
        if size == 2:
            row[:] = part.view("<i2").ravel()
        else:
            wide = np.zeros((len(part), 4), dtype=np.uint8)
            wide[:, 1:] = part
            row[:] = wide.view("<i4").ravel() >> 8
    return steps


def _text(field: bytes) -> str:
    return decode_text(field).strip(" \0\t")


def _whole(field: bytes, what: str, path: str) -> int:
    number = _number(field)
    if number is None or number != int(number):
        raise ValueError(f"{path}: expected a whole number as {what}, got {field!r}.")
    return int(number)


def _number(field: bytes) -> float | None:
    """The number in a field, whatever fills it up; `None` if there is none."""
    try:
        number = float(_text(field).replace(",", "."))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _scale(header: _Header, index: int) -> tuple[float, float] | None:
    """Unit per step and the step of 0 units; `None` of a channel without a scale, such as one that fills a place."""
    names = ("physical_min", "physical_max", "digital_min", "digital_max")
    low, high, least, most = (_number(header.columns[name][index]) for name in names)
    if None in (low, high, least, most) or high == low or most <= least or not header.samples[index]:
        return None
    gain = (high - low) / (most - least)
    return gain, most - high / gain


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


def _patient(head: bytes) -> dict[str, Any]:
    """Reads the fields of patient and recording, in the form of EDF+ (code, sex, birth date, name)."""
    code, sex, birth, *_ = [*_text(head[8:88]).split(), "", "", ""]
    if not (sex in ("M", "F", "X") and (birth == "X" or _date(birth))):
        return {}
    start = re.search(r"Startdate (\S+)", _text(head[88:168]))
    stated = re.fullmatch(r"(\d\d)\.(\d\d)\.(\d\d)", _text(head[168:176]))
    recorded = _date(start[1]) if start else ""
    if not recorded and stated:
        recorded = f"{'19' if int(stated[3]) >= 85 else '20'}{stated[3]}{stated[2]}{stated[1]}"
    return {
        "patient_id": None if code in ("", "X") else code,
        "sex": sex_of(sex),
        "age": age_between(_date(birth), recorded),
    }


def _date(text: str) -> str:
    """`YYYYMMDD` of `02-MAY-1951`; empty for anything else."""
    match = re.fullmatch(r"(\d\d)-([A-Za-z]{3})-(\d{4})", text)
    if match is None or match[2].upper() not in _MONTHS:
        return ""
    return f"{match[3]}{_MONTHS.index(match[2].upper()) + 1:02d}{match[1]}"
