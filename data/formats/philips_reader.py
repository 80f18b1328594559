"""Philips XML recordings (Sierra ECG 1.03, 1.04, 1.04.01, 1.04.02): 16-bit samples as Base64, XLI-compressed or plain.

Format: the published schemas SierraECGSchema_1_03.xsd and SierraECGSchema_1_04_01.xsd.
"""

import binascii
import os
from base64 import b64decode
from typing import Any, Unpack
from xml.etree.ElementTree import Element

import numpy as np

from ...modeling.leads import STANDARD_LEADS
from ..records import EcgRecord
from .channels import Channel, ChannelChoice
from .limits import check_num_values
from .patient import age_between, sex_of
from .safe_xml import number_of, read_xml, text_of
from .steps import record_of_channels
from .xli import decompress_leads

VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")
TWELVE_LEAD_TYPES = ("STD-12", "10-WIRE")
COMPUTED_LEAD_SETS = ("EASI", "MIDA", "NEHB")
MAX_EINTHOVEN_STEPS = 2
MIN_CONSISTENT = 0.8  # the last of eleven seconds can be a calibration pulse, equal in all leads
ECG_SECONDS = 10
MAX_PULSE_SPREAD_STEPS, MIN_PULSE_UV = 2, 500
_LIMB_LEADS = STANDARD_LEADS[:6]


def read_philips(path: str | os.PathLike, record_id: str, **choice: Unpack[ChannelChoice]) -> EcgRecord:
    """Reads the `parsedwaveforms` of a Philips XML file (not its averaged beats).

    Args:
        choice ([`ChannelChoice`]): Channels to take.

    Returns:
        the record in µV, int16; patient, sex, age and electrode placement as stated. A calibration pulse, the same in
        all leads after the ten seconds of the ECG, is cut off, with what follows the last whole second before it.

    Raises:
        ValueError: for XML that is refused, another version of the schema, an encoding or compression that is none of
            Base64, XLI and none, sizes that do not fit, or uncompressed limb leads that contradict each other.
    """
    path = os.fspath(path)
    root = read_xml(path, "restingecgdata")
    version = text_of(root, "documentinfo/documentversion", path)
    if version not in VERSIONS:
        raise ValueError(f"{path} has version {version!r} of the Philips schema. Expected one of {list(VERSIONS)}.")
    waveforms, signal = root.findall(".//parsedwaveforms"), root.find("dataacquisition/signalcharacteristics")
    if len(waveforms) != 1 or signal is None:
        raise ValueError(f"{path}: expected one <parsedwaveforms> and <signalcharacteristics>, got {len(waveforms)}.")
    statement = _statement(waveforms[0], signal, path)
    labels, num_samples = statement["leads"], statement["num_samples"]
    check_num_values(path, (len(labels), num_samples))
    content = _decode(waveforms[0], path)
    if statement["compression"] == "XLI":
        try:
            steps = decompress_leads(content, len(labels), num_samples)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        steps = _restore_limb_leads(steps, labels, path)
    else:
        if len(content) != 2 * len(labels) * num_samples:
            raise ValueError(
                f"{path}: expected {len(labels)} leads x {num_samples} samples of 2 bytes, got {len(content)} bytes."
            )
        dtype = "<i2" if statement["signed"] else "<u2"
        steps = np.frombuffer(content, dtype=dtype).reshape(len(labels), num_samples)
        _check_limb_leads(steps - statement["offset"], labels, path)
    steps, notes = _cut_calibration_pulse(steps, statement["rate"], statement["resolution"])
    gain, zero = [statement["resolution"]] * len(labels), [statement["offset"]] * len(labels)
    channels = [Channel(label, "uV", statement["rate"], True) for label in labels]
    columns = _patient(root) | {"electrode_placement": statement["placement"], "notes": notes}
    return record_of_channels(path, record_id, channels, steps, gain, zero, choice, **columns)


def _cut_calibration_pulse(steps: np.ndarray, rate: float, resolution: float) -> tuple[np.ndarray, list[str]]:
    """The samples before a pulse that all leads share, and a note on what was cut off.

    No heart gives all leads the same voltage: aVR is against I and II.
    """
    differing = np.flatnonzero(np.ptp(steps.astype(np.int32), axis=0) > MAX_PULSE_SPREAD_STEPS)
    start = int(differing[-1]) + 1 if len(differing) else 0
    seconds = start / rate
    pulse = steps[0, start:]
    if len(steps) < 2 or seconds < ECG_SECONDS or not pulse.size or np.ptp(pulse) * resolution < MIN_PULSE_UV:
        return steps, []
    kept = int(seconds) * rate
    cut = steps.shape[1] / rate - int(seconds)
    return steps[:, : round(kept)], [f"cut off the last {cut:.3g} s, which hold a calibration pulse and no ECG"]


def _statement(waveform: Element, signal: Element, path: str) -> dict[str, Any]:
    """Reads what attributes (1.04) or the signal characteristics (1.03) say of the samples."""

    def stated(attribute: str, *elements: str) -> str | None:
        found = waveform.get(attribute) or next(
            (signal.findtext(name) for name in elements if signal.find(name) is not None), None
        )
        return found.strip() if found else None

    bits = stated("bitspersample") or waveform.get("nbitspersample") or stated("", "bitspersample")
    if bits != "16":
        raise ValueError(f"{path}: expected 16 bits a sample, got {bits!r}.")
    placement = " ".join(
        (stated("", name) or "").upper() for name in ("electrodeplacement", "leadset", "acquisitiontype")
    )
    if any(name in placement for name in COMPUTED_LEAD_SETS):
        raise ValueError(f"{path}: its leads are computed from other electrodes ({placement}), not the standard ones.")
    compression = waveform.get("compression") or waveform.get("compressmethod") or "Uncompressed"
    if waveform.get("compressflag", "True").lower() == "false":
        compression = "Uncompressed"
    if compression not in ("XLI", "Uncompressed"):
        raise ValueError(f"{path}: expected the compression 'XLI' or 'Uncompressed', got {compression!r}.")
    labels = (waveform.get("leadlabels") or "").split()
    if not labels:
        count, kind = stated("", "numberchannelsallocated"), stated("", "acquisitiontype")
        if kind not in TWELVE_LEAD_TYPES or count != "12":
            raise ValueError(
                f"{path} names no leads, and {count} channels of the type {kind!r} are not the standard twelve."
            )
        labels = list(STANDARD_LEADS)
    elif waveform.get("numberofleads") is not None:
        count = int(number_of(waveform.get("numberofleads"), "numberofleads", path))
        if not 0 < count <= len(labels):
            raise ValueError(f"{path} says {count} leads and labels {labels}.")
        labels = labels[:count]
    rate = number_of(stated("samplespersecond", "samplingrate"), "the sampling rate", path)
    seconds = number_of(waveform.get("durationperchannel"), "durationperchannel", path) / 1000
    return {
        "leads": labels,
        "compression": compression,
        "placement": "mason_likar" if "MASON" in placement else "standard",
        "rate": rate,
        "num_samples": round(seconds * rate),
        "resolution": number_of(stated("resolution", "resolution", "signalresolution"), "the resolution", path),
        "offset": number_of(stated("signaloffset", "signaloffset") or "0", "the signal offset", path),
        "signed": (stated("signalsigned", "signalsigned") or "True").lower() == "true",
    }


def _decode(waveform: Element, path: str) -> bytes:
    if waveform.get("dataencoding") != "Base64":
        raise ValueError(f"{path}: expected the encoding 'Base64', got {waveform.get('dataencoding')!r}.")
    try:
        return b64decode("".join((waveform.text or "").split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{path}: the samples are no Base64: {error}.") from error


def _restore_limb_leads(steps: np.ndarray, leads: list[str], path: str) -> np.ndarray:
    """Adds to III, aVR, aVL and aVF what I and II give; whole numbers, rounded down."""
    derived = [lead for lead in _LIMB_LEADS[2:] if lead in leads]
    if not derived:
        return steps
    if tuple(leads[:6]) != _LIMB_LEADS:
        raise ValueError(f"{path}: expected the limb leads {list(_LIMB_LEADS)} first, got {leads}.")
    i, ii, iii, avr, avl, avf = steps[:6]
    iii = ii - i - iii
    return np.stack([i, ii, iii, -avr - (i + ii) // 2, (i - iii) // 2 - avl, (ii + iii) // 2 - avf, *steps[6:]])


def _check_limb_leads(steps: np.ndarray, leads: list[str], path: str):
    """Uncompressed files are rare, and whether they hold III itself or its difference is not published: measure."""
    if {"I", "II", "III"} <= set(leads):
        i, ii, iii = (steps[leads.index(lead)] for lead in ("I", "II", "III"))
        consistent = float(np.mean(np.abs(ii - i - iii) <= MAX_EINTHOVEN_STEPS))
        if consistent < MIN_CONSISTENT:
            raise ValueError(
                f"{path}: the uncompressed leads obey III = II - I in {consistent:.0%} of the samples, so what they "
                "hold is not certain. Export the recording as HL7 aECG or DICOM."
            )


def _patient(root: Element) -> dict[str, Any]:
    general = root.find("patient/generalpatientdata")
    if general is None:
        return {}
    years = (general.findtext("age/years") or "").strip()
    recorded = root.find("reportinfo")
    if years.isascii() and years.isdigit():
        age = float(years)
    else:
        birth = (general.findtext("age/dateofbirth") or "").strip()
        age = age_between(birth, "" if recorded is None else recorded.get("date", ""))
    return {
        "patient_id": (general.findtext("patientid") or "").strip() or None,
        "sex": sex_of(general.findtext("sex")),
        "age": age,
    }
