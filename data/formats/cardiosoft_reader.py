"""GE CardioSoft XML (`CardiologyXML`, the form of UK Biobank): samples as text, lead by lead.

A file holds a rhythm strip (`StripData`) and, of a resting ECG, the median beats (`MedianSamples`): two recordings,
which are never mixed.
"""

import os
from typing import Any, Unpack
from xml.etree.ElementTree import Element

import numpy as np

from ..records import EcgRecord
from .channels import Channel, ChannelChoice
from .limits import check_num_values
from .patient import age_between, sex_of
from .safe_xml import number_of, read_xml, text_of
from .steps import record_of_channels

RHYTHM, MEDIANS = "StripData", "MedianSamples"
_UNITS = {"UVPERLSB": "uV", "MVPERLSB": "mV", "NVPERLSB": "nV"}


def read_cardiosoft(
    path: str | os.PathLike,
    record_id: str,
    part: str | None = None,
    **choice: Unpack[ChannelChoice],
) -> EcgRecord:
    """Reads the rhythm strip of a CardioSoft file, or its median beats.

    Args:
        choice ([`ChannelChoice`]): Channels to take.
        part (`str`, *optional*): `"StripData"` (the default) or `"MedianSamples"`.

    Returns:
        the record in the unit of the file, int16; patient, sex and age as stated.

    Raises:
        ValueError: for XML that is refused, no or several such parts, leads of another length than stated, or a
            resolution in no voltage.
    """
    path = os.fspath(path)
    if part not in (None, RHYTHM, MEDIANS):
        raise ValueError(f"{path}: expected dataset={RHYTHM!r} or {MEDIANS!r}, got {part!r}.")
    root = read_xml(path, "CardiologyXML")
    parts = root.findall(f".//{part or RHYTHM}")
    if len(parts) != 1:
        raise ValueError(
            f"{path}: expected one <{part or RHYTHM}>, got {len(parts)}. "
            + (f"It has median beats: dataset={MEDIANS!r}." if root.find(f".//{MEDIANS}") is not None else "")
        )
    strip = parts[0]
    rate = number_of(text_of(strip, "SampleRate", path), "SampleRate", path)
    resolution = number_of(text_of(strip, "Resolution", path), "Resolution", path)
    stated = (strip.find("Resolution").get("units") or "").upper()
    if stated not in _UNITS:
        raise ValueError(f"{path}: expected the units of Resolution as one of {sorted(_UNITS)}, got {stated!r}.")
    names, rows = [], []
    for lead in strip.findall("WaveformData"):
        names.append(lead.get("lead") or "")
        rows.append(_samples(lead, names[-1], path))
    count = (strip.findtext("ChannelSampleCountTotal") or "").strip()
    lengths = {name: len(row) for name, row in zip(names, rows, strict=True)}
    if not rows or len(set(lengths.values())) > 1 or (count and count != str(len(rows[0]))):
        raise ValueError(f"{path}: expected leads of {count or 'one'} samples, got {lengths}.")
    check_num_values(path, (len(rows), len(rows[0])))
    channels = [Channel(name, _UNITS[stated], rate, True) for name in names]
    gain, zero = [resolution] * len(names), [0.0] * len(names)
    return record_of_channels(path, record_id, channels, np.stack(rows), gain, zero, choice, **_patient(root))


def _samples(lead: Element, name: str, path: str) -> np.ndarray:
    words = (lead.text or "").replace(",", " ").split()
    try:
        steps = np.array(words, dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: expected whole numbers as samples of lead {name!r} ({error}).") from None
    if np.abs(steps).max(initial=0) >= 2**31:
        raise ValueError(f"{path}: expected 32-bit whole numbers as samples of lead {name!r}.")
    return steps


def _patient(root: Element) -> dict[str, Any]:
    person = root.find("PatientInfo")
    if person is None:
        return {}
    years = (person.findtext("Age") or "").strip()
    is_years = years.isascii() and years.isdigit() and len(years) < 4
    age = float(years) if is_years else None
    if age is None:
        age = age_between(_date(person.find("BirthDateTime")), _date(root.find("ObservationDateTime")))
    return {
        "patient_id": (person.findtext("PID") or "").strip() or None,
        "sex": sex_of(person.findtext("Gender")),
        "age": age,
    }


def _date(element: Element | None) -> str:
    """`YYYYMMDD` of the children Day, Month and Year; empty if one is missing."""
    if element is None:
        return ""
    year, month, day = ((element.findtext(name) or "").strip() for name in ("Year", "Month", "Day"))
    return f"{year:0>4}{month:0>2}{day:0>2}"
