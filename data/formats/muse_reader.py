"""GE MUSE XML (`RestingECG`): 16-bit samples as Base64, lead by lead.

The files hold eight leads (I, II, V1 to V6); the other four follow from I and II (`EcgFeatureExtractor` with
`derive_limb_leads`) and are not made up here. Format: the elements of GE's MUSE XML export (`restecg.dtd`).
"""

import binascii
import os
from base64 import b64decode
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from ..records import EcgRecord, known_lead_names
from .limits import check_num_values
from .safe_xml import number_of, read_xml, text_of
from .steps import record_of_steps

_UNITS = {"MICROVOLTS": "uV", "MILLIVOLTS": "mV"}
_YEARS = {"YEARS": 1.0, "MONTHS": 1 / 12, "WEEKS": 7 / 365.25, "DAYS": 1 / 365.25, "HOURS": 1 / 8766}
_SEXES = {"MALE": "male", "FEMALE": "female"}


def read_muse(path: str | os.PathLike, record_id: str, rename_leads: Mapping[str, str] | None = None) -> EcgRecord:
    """Reads the rhythm waveform of a MUSE XML file (the median beats are left out).

    Args:
        rename_leads (`dict`, *optional*): `LeadID` as stored → lead names.

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
    leads, steps, gain, units, starts = [], [], [], [], []
    for lead in waveforms[0].findall("LeadData"):
        name = text_of(lead, "LeadID", path)
        leads.append(name)
        steps.append(_samples(lead, name, path))
        gain.append(number_of(text_of(lead, "LeadAmplitudeUnitsPerBit", path), "LeadAmplitudeUnitsPerBit", path))
        units.append(text_of(lead, "LeadAmplitudeUnits", path).upper())
        starts.append((lead.findtext("LeadTimeOffset") or "0").strip())
    if not leads:
        raise ValueError(f"{path}: the rhythm waveform has no <LeadData>.")
    if len(set(units)) > 1 or units[0] not in _UNITS:
        raise ValueError(f"{path}: expected LeadAmplitudeUnits as one of {list(_UNITS)}, got {sorted(set(units))}.")
    lengths = [len(row) for row in steps]
    if len(set(lengths)) > 1 or len({number_of(start, "LeadTimeOffset", path) for start in starts}) > 1:
        raise ValueError(
            f"{path}: expected leads of one length that start together, got {dict(zip(leads, lengths, strict=True))} "
            f"samples from {starts}. Export the recording with simultaneous leads."
        )
    check_num_values(path, (len(steps), lengths[0]))
    names = known_lead_names(tuple((rename_leads or {}).get(lead, lead) for lead in leads))
    return record_of_steps(
        record_id, np.stack(steps), names, rate * 10.0**exponent, _UNITS[units[0]], gain, **_patient(root)
    )


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
    age, years = (person.findtext("PatientAge") or "").strip(), _YEARS.get(_upper(person, "AgeUnits"))
    return {
        "patient_id": (person.findtext("PatientID") or "").strip() or None,
        "sex": _SEXES.get(_upper(person, "Gender")),
        "age": float(age) * years if age.isascii() and age.isdigit() and years is not None else None,
    }
