"""SCP-ECG recordings (`.scp`, EN 1064): sections of bytes, of which those of patient, leads and rhythm are read.

The rhythm may be stored as 16-bit numbers or by the Huffman table that the standard gives, as values or first or
second differences. Other tables, subtracted reference beats, and rhythm that is thinned out between the beats are
refused: there are no public recordings to test a reader of them against.

Format: EN 1064 / ISO 11073-91064, Standard communications protocol for computer-assisted electrocardiography.
"""

import os
import struct
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np

from ..records import EcgRecord
from .channels import Channel, ChannelChoice
from .dicom_reader import LEAD_NUMBERS
from .limits import MAX_TEXT_BYTES, check_num_values, read_bytes
from .patient import age_between
from .steps import record_of_channels

SIGNATURE = b"SCPECG"  # from byte 16
_HEAD = 16  # bytes at the start of every section
_STANDARD_TABLE = 19999
_SEXES = {1: "male", 2: "female"}
_YEARS = {1: 1.0, 2: 1 / 12, 3: 7 / 365.25, 4: 1 / 365.25, 5: 1 / 8766}


def read_scp(path: str | os.PathLike, record_id: str, **choice: Unpack[ChannelChoice]) -> EcgRecord:
    """Reads the rhythm of an SCP-ECG file.

    Args:
        choice ([`ChannelChoice`]): Channels to take.

    Returns:
        the record in µV; patient, sex and age as stated.

    Raises:
        ValueError: for a file that is truncated, has no rhythm, leads that do not run together, or a compression that
            is not read.
    """
    path = os.fspath(path)
    content = read_bytes(path, MAX_TEXT_BYTES, "SCP-ECG file")
    try:
        sections = _sections(content)
        names = _leads(sections)
        step, interval, rows, notes = _rhythm(sections, len(names))
        patient = _patient(sections.get(1, b""))
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"{path} is truncated or damaged: a part of its sections is missing ({error}).") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as SCP-ECG: {error}") from error
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(f"{path}: expected leads of one length, got {lengths} samples.")
    check_num_values(path, (len(rows), lengths[0]))
    channels = [Channel(name, "uV", 1e6 / interval, True) for name in names]
    gain, zero = [step / 1000] * len(rows), [0.0] * len(rows)
    return record_of_channels(path, record_id, channels, np.stack(rows), gain, zero, choice, **patient, notes=notes)


def _sections(content: bytes) -> dict[int, bytes]:
    """Content of each section behind its head, by its number."""
    (length,) = struct.unpack_from("<I", content, 6 + 4)
    sections = {}
    for place in range(6 + _HEAD, min(6 + length, len(content) - 9), 10):
        number, size, start = struct.unpack_from("<HII", content, place)
        if size > _HEAD:
            if start < 7 or start - 1 + size > len(content):
                raise ValueError(f"section {number} of {size} bytes lies outside the file of {len(content)}")
            sections[number] = content[start - 1 + _HEAD : start - 1 + size]
    if not {3, 6} <= set(sections):
        raise ValueError(f"it has no rhythm: sections {sorted(sections)}, and 3 and 6 are needed")
    return sections


def _leads(sections: Mapping[int, bytes]) -> list[str]:
    count, flags = sections[3][0], sections[3][1]
    if flags & 1:
        raise ValueError("a reference beat was subtracted from its rhythm, which is not read")
    spans = [struct.unpack_from("<IIB", sections[3], 2 + 9 * number) for number in range(count)]
    if not count or len({(start, end) for start, end, _ in spans}) > 1:
        raise ValueError(f"its leads do not run together: {[(start, end) for start, end, _ in spans]}")
    return [LEAD_NUMBERS.get(number, f"lead {number}") for *_, number in spans]


def _rhythm(sections: Mapping[int, bytes], num_leads: int) -> tuple[int, int, list[np.ndarray], list[str]]:
    """Nanovolts a step, microseconds a sample, the steps of each lead, and notes."""
    rhythm = sections[6]
    step, interval, differences, bimodal = struct.unpack_from("<HHBB", rhythm, 0)
    zones = struct.unpack_from("<H", sections[4], 4)[0] if 4 in sections else 0
    if bimodal and zones:
        raise ValueError("its rhythm is thinned out between the beats (bimodal compression), which is not read")
    if not step or not interval or differences > 2:
        raise ValueError(f"expected a step and an interval > 0 and at most second differences, got {step}, {interval}")
    sizes = struct.unpack_from(f"<{num_leads}H", rhythm, 6)
    start, end = struct.unpack_from("<II", sections[3], 2)
    stated = end - start + 1
    place, rows = 6 + 2 * num_leads, []
    for size in sizes:
        part = rhythm[place : place + size]
        place += size
        if len(part) < size:
            raise ValueError(f"a lead of {size} bytes has only {len(part)}")
        values = _decode_huffman(part, stated) if 2 in sections else np.frombuffer(part[: size // 2 * 2], "<i2")
        rows.append(_sum_up(values.astype(np.int64), differences))
    if 2 in sections and struct.unpack_from("<H", sections[2], 0)[0] != _STANDARD_TABLE:
        raise ValueError("its Huffman table is one of its own, which is not read")
    short = {len(row) for row in rows} - {stated}
    return step, interval, rows, [f"the file states {stated} samples a lead and holds {sorted(short)}"] * bool(short)


def _sum_up(values: np.ndarray, differences: int) -> np.ndarray:
    """Values from their first or second differences, whose first one or two are values themselves."""
    if differences == 0:
        return values
    if differences == 1:
        return np.cumsum(values)
    slopes = np.concatenate([values[:1], values[1:2] - values[:1], values[2:]])
    slopes[1:] = np.cumsum(slopes[1:])
    return np.cumsum(slopes)


def _decode_huffman(part: bytes, count: int) -> np.ndarray:
    """At most `count` numbers of the standard's table: n ones, a zero and a sign for n up to 8, 0 alone for 0; nine
    ones and a zero before 8 bits, ten ones before 16."""
    bits = np.unpackbits(np.frombuffer(part, np.uint8))
    zeros = np.append(np.flatnonzero(bits == 0), len(bits))
    text, values, place = bits.tolist(), [], 0
    following = np.searchsorted(zeros, np.arange(len(bits) + 1)).tolist()
    zeros = zeros.tolist()
    while place < len(text) and len(values) < count:
        ones = min(zeros[following[place]] - place, 10)
        width = 0 if ones == 0 else 1 if ones < 9 else 8 if ones == 9 else 16
        place += ones + (ones < 10)
        if place + width > len(text):
            break  # what fills up the last byte
        number = 0
        for bit in text[place : place + width]:
            number = 2 * number + bit
        place += width
        values.append(ones * (1 - 2 * number) if width <= 1 else number - (number >> (width - 1) << width))
    return np.array(values, dtype=np.int64)


def _digits(date: bytes) -> str:
    """`YYYYMMDD` of a date; empty if it is none."""
    if len(date) != 4:
        return ""
    year, month, day = struct.unpack("<HBB", date)
    return f"{year:04d}{month:02d}{day:02d}"


def _patient(section: bytes) -> dict[str, Any]:
    fields, place = {}, 0
    while place + 3 <= len(section) and section[place] != 255:
        tag, size = struct.unpack_from("<BH", section, place)
        fields.setdefault(tag, section[place + 3 : place + 3 + size])
        place += 3 + size
    age, years = None, fields.get(4, b"")
    if len(years) == 3:
        number, kind = struct.unpack("<HB", years)
        age = number * _YEARS[kind] if kind in _YEARS and number else None
    if age is None:
        dates = [fields.get(tag, b"") for tag in (5, 25)]
        age = age_between(*(_digits(date) for date in dates))
    code = fields.get(2, b"").split(b"\0")[0].decode("latin-1").strip()
    return {"patient_id": code or None, "sex": _SEXES.get((fields.get(8) or b"\0")[0]), "age": age}
