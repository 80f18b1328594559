"""HL7 annotated ECGs (aECG, `urn:hl7-org:v3`): XML with the samples as text.

A series holds sequence sets, a set one sequence of time and one for each lead: `GLIST_TS` or `GLIST_PQ` with the
increment, `SLIST_PQ` with origin, scale and digits. What is read is the rhythm series; derived series (averaged beats)
and annotations are left out.

Format: HL7 aECG Implementation Guide, Final, 21 March 2005 (Brown, Badilini).
"""

import os
from typing import Any, Unpack
from xml.etree.ElementTree import Element

import numpy as np

from ..records import EcgRecord, millivolts_per
from .channels import Channel, ChannelChoice
from .limits import check_num_values
from .patient import age_between, sex_of
from .safe_xml import number_of, read_xml
from .steps import record_of_channels

LEAD_CODE = "MDC_ECG_LEAD_"
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def read_aecg(path: str | os.PathLike, record_id: str, **choice: Unpack[ChannelChoice]) -> EcgRecord:
    """Reads the rhythm series of an aECG file.

    Args:
        choice ([`ChannelChoice`]): Channels to take; leads are named by their codes without `MDC_ECG_LEAD_`.

    Returns:
        the record in the unit of the file, int16 where origin and scale allow it; patient, sex and age as stated.

    Raises:
        ValueError: for XML that is refused, several rhythm series or sequence sets, leads of different length, digits
            that are no whole numbers, units that are no voltage, or a missing increment.
    """
    path = os.fspath(path)
    root = read_xml(path, "AnnotatedECG")
    sequences = _sequences(root, path)
    rate, values = None, {}
    for sequence in sequences:
        code, value = sequence.find("code"), sequence.find("value")
        name = "" if code is None else code.get("code", "")
        if value is None:
            continue
        if name.startswith("TIME_"):
            found = _sampling_rate(value, path)
            if rate not in (None, found):
                raise ValueError(f"{path}: its time sequences have the rates {rate} and {found} Hz.")
            rate = found
        elif name.startswith(LEAD_CODE):
            lead = name.removeprefix(LEAD_CODE)
            if lead in values:
                raise ValueError(f"{path}: lead {lead!r} comes twice in one sequence set.")
            values[lead] = value
    if rate is None or not values:
        raise ValueError(
            f"{path}: expected a time sequence with an increment and sequences of {LEAD_CODE}..., got none."
        )
    steps, gain, zero = [], [], []
    for lead, value in values.items():
        digits, scale, origin = _lead(value, lead, path)
        steps.append(digits)
        gain.append(scale)
        zero.append(-origin / scale)
    lengths = {lead: len(row) for lead, row in zip(values, steps, strict=True)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: expected leads of equal length, got {lengths}.")
    check_num_values(path, (len(steps), len(steps[0])))
    channels = [Channel(lead, "mV", rate, True) for lead in values]
    return record_of_channels(path, record_id, channels, np.stack(steps), gain, zero, choice, **_patient(root))


def _sequences(root: Element, path: str) -> list[Element]:
    series = [item for item in root.findall("component/series") if item.find("code") is not None]
    rhythm = [item for item in series if item.find("code").get("code") == "RHYTHM"]
    sets = [item for one in rhythm for item in one.findall("component/sequenceSet")]
    if len(sets) != 1:
        codes = [item.find("code").get("code") for item in series]
        raise ValueError(
            f"{path}: expected one rhythm series with one sequence set, got {len(sets)} sets in series of {codes}. "
            "Export one recording to a file."
        )
    return sets[0].findall("component/sequence")


def _sampling_rate(value: Element, path: str) -> float:
    increment = value.find("increment")
    unit = "" if increment is None else increment.get("unit", "")
    if unit not in _SECONDS:
        raise ValueError(f"{path}: expected a time increment in {list(_SECONDS)}, got the unit {unit!r}.")
    seconds = number_of(increment.get("value"), "the time increment", path) * _SECONDS[unit]
    if seconds <= 0:
        raise ValueError(f"{path}: expected a time increment > 0 s, got {seconds} s.")
    return round(1 / seconds, 6)


def _lead(value: Element, lead: str, path: str) -> tuple[np.ndarray, float, float]:
    """Steps, and scale and origin in mV."""
    numbers = {}
    for name in ("scale", "origin"):
        quantity = value.find(name)
        if quantity is None:
            raise ValueError(f"{path}: lead {lead!r} has no <{name}>.")
        number = number_of(quantity.get("value"), f"<{name}> of lead {lead!r}", path)
        try:
            numbers[name] = number * millivolts_per(quantity.get("unit", ""))
        except ValueError as error:
            raise ValueError(f"{path}: <{name}> of lead {lead!r}: {error}") from error
    if numbers["scale"] == 0:
        raise ValueError(f"{path}: lead {lead!r} has the scale 0.")
    try:
        digits = np.array((value.findtext("digits") or "").split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: expected whole numbers as digits of lead {lead!r} ({error}).") from None
    if np.abs(digits).max(initial=0) >= 2**31:
        raise ValueError(f"{path}: expected 32-bit whole numbers as digits of lead {lead!r}.")
    return digits, numbers["scale"], numbers["origin"]


def _patient(root: Element) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    subject = root.find("componentOf/timepointEvent/componentOf/subjectAssignment/subject/trialSubject")
    if subject is None:
        return columns
    identity, person = subject.find("id"), subject.find("subjectDemographicPerson")
    if identity is not None:
        columns["patient_id"] = identity.get("extension") or None
    if person is not None:
        gender, birth = person.find("administrativeGenderCode"), person.find("birthTime")
        recorded = next((low for low in root.findall("effectiveTime/*") if low.tag in ("low", "center")), None)
        columns["sex"] = None if gender is None else sex_of(gender.get("code"))
        if birth is not None and recorded is not None:
            columns["age"] = age_between(birth.get("value", ""), recorded.get("value", ""))
    return columns
