"""GE MUSE XML (`RestingECG`): 16-bit samples as Base64, lead by lead.

The files hold eight leads (I, II, V1 to V6); the other four follow from I and II (`EcgFeatureExtractor` with
`derive_limb_leads`) and are not made up here. Format: the elements of GE's MUSE XML export (`restecg.dtd`).
"""

import binascii
import os
import re
from base64 import b64decode
from typing import Any, Unpack
from xml.etree.ElementTree import Element

import numpy as np

from ..records import EcgRecord
from .channels import Channel, ChannelChoice
from .limits import check_num_values
from .patient import age_between, sex_of
from .safe_xml import number_of, read_xml, text_of
from .steps import record_of_channels

_UNITS = {"MICROVOLTS": "uV", "MILLIVOLTS": "mV"}
_YEARS = {"YEARS": 1.0, "MONTHS": 1 / 12, "WEEKS": 7 / 365.25, "DAYS": 1 / 365.25, "HOURS": 1 / 8766}


def read_muse(path: str | os.PathLike, record_id: str, **choice: Unpack[ChannelChoice]) -> EcgRecord:
    """Reads the rhythm waveform of a MUSE XML file (the median beats are left out).

    Args:
        choice ([`ChannelChoice`]): Channels to take.

    Returns:
        the record in the unit of the file, int16, with the leads that are stored; patient, sex and age as stated.

    Raises:
        ValueError: for XML that is refused, no or several rhythm waveforms, leads that start at different times or
            differ in length, wrong Base64, a sample size other than 2 bytes, or a unit that is no voltage.
    """
    path = os.fspath(path)
    root = read_xml(path, "RestingECG")
    waveforms = [item for item in root.findall("Waveform") if _upper(item, "WaveformType") == "RHYTHM"]
    if len(waveforms) != 1:
        raise ValueError(f"{path}: expected one <Waveform> of the type Rhythm, got {len(waveforms)}.")
    rate = number_of(text_of(waveforms[0], "SampleBase", path), "SampleBase", path)
    exponent = number_of((waveforms[0].findtext("SampleExponent") or "0").strip(), "SampleExponent", path)
    if not -9 <= exponent <= 9:
        raise ValueError(f"{path}: expected SampleExponent from -9 to 9, got {exponent}.")
    names, steps, gain, units, starts = [], [], [], [], []
    for lead in waveforms[0].findall("LeadData"):
        name = text_of(lead, "LeadID", path)
        names.append(name)
        steps.append(_samples(lead, name, path))
        gain.append(number_of(text_of(lead, "LeadAmplitudeUnitsPerBit", path), "LeadAmplitudeUnitsPerBit", path))
        units.append(text_of(lead, "LeadAmplitudeUnits", path).upper())
        starts.append((lead.findtext("LeadTimeOffset") or "0").strip())
    if not names:
        raise ValueError(f"{path}: the rhythm waveform has no <LeadData>.")
    if len(set(units)) > 1 or units[0] not in _UNITS:
        raise ValueError(f"{path}: expected LeadAmplitudeUnits as one of {list(_UNITS)}, got {sorted(set(units))}.")
    lengths = [len(row) for row in steps]
    if len(set(lengths)) > 1 or len({number_of(start, "LeadTimeOffset", path) for start in starts}) > 1:
        raise ValueError(
            f"{path}: expected leads of one length that start together, got {dict(zip(names, lengths, strict=True))} "
            f"samples from {starts}. Export the recording with simultaneous leads."
        )
    check_num_values(path, (len(steps), lengths[0]))
    channels = [Channel(name, _UNITS[units[0]], rate * 10.0**exponent, True) for name in names]
    zero = [0.0] * len(gain)
    return record_of_channels(path, record_id, channels, np.stack(steps), gain, zero, choice, **_patient(root))


def _upper(element: Element, name: str) -> str:
    return (element.findtext(name) or "").strip().upper()


def _samples(lead: Element, name: str, path: str) -> np.ndarray:
    size = (lead.findtext("LeadSampleSize") or "2").strip()
    if size != "2":
        raise ValueError(f"{path}: expected 2 bytes a sample, lead {name!r} has {size!r}.")
    try:
        content = b64decode("".join((lead.findtext("WaveFormData") or "").split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{path}: the samples of lead {name!r} are no Base64: {error}.") from error
    count = number_of(text_of(lead, "LeadSampleCountTotal", path), "LeadSampleCountTotal", path)
    if len(content) != 2 * count:
        raise ValueError(f"{path}: lead {name!r} declares {count:g} samples and holds {len(content)} bytes.")
    return np.frombuffer(content, dtype="<i2")


def _patient(root: Element) -> dict[str, Any]:
    person = root.find("PatientDemographics")
    if person is None:
        return {}
    age, years = (person.findtext("PatientAge") or "").strip(), _YEARS.get(_upper(person, "AgeUnits") or "YEARS")
    test = root.find("TestDemographics")
    recorded = "" if test is None else _iso_date(test.findtext("AcquisitionDate"))
    is_number = re.fullmatch(r"\d{1,5}(\.\d+)?", age) is not None and years is not None
    return {
        "patient_id": (person.findtext("PatientID") or "").strip() or None,
        "sex": sex_of(person.findtext("Gender")),
        "age": float(age) * years if is_number else age_between(_iso_date(person.findtext("DateofBirth")), recorded),
    }


def _iso_date(text: str | None) -> str:
    """`YYYYMMDD` of MUSE's `MM-DD-YYYY`; other texts as they are."""
    match = re.fullmatch(r"(\d\d)-(\d\d)-(\d{4})", (text or "").strip())
    return f"{match[3]}{match[1]}{match[2]}" if match else (text or "").strip()
