"""ISHNE Holter recordings (`.ecg`): a header of fixed size, then 16-bit samples of all leads, hours of them.

Format: Badilini F. The ISHNE Holter Standard Output File Format. Ann Noninvasive Electrocardiol 1998;3:263-266.
"""

import os
import struct
from typing import Any, Unpack

import numpy as np

from ..records import EcgRecord
from .channels import Channel, ChannelChoice, choose_channels
from .limits import check_num_values
from .patient import age_between

SIGNATURE = b"ISHNE1.0"
HEADER_BYTES, MAX_LEADS = 522, 12
# By the number that the header states. X, Y and Z are bipolar leads of the chest, not those of Frank.
_LEADS = ("", "bipolar", "X bipolar", "Y bipolar", "Z bipolar", "I", "II", "III", "aVR", "aVL", "aVF")
_LEADS += ("V1", "V2", "V3", "V4", "V5", "V6", "ES", "AS", "AI")
_SEXES = {1: "male", 2: "female"}


def read_ishne(path: str | os.PathLike, record_id: str, **choice: Unpack[ChannelChoice]) -> EcgRecord:
    """Reads an ISHNE Holter file.

    Args:
        choice ([`ChannelChoice`]): Channels to take.

    Returns:
        the record in µV, int16; samples that the recorder marked as faults are missing; patient, sex and age as
        stated.

    Raises:
        ValueError: for a header that is truncated or does not fit the file, or states no resolution of a lead.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            head, size = file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from None
    if len(head) < HEADER_BYTES or not head.startswith(SIGNATURE):
        raise ValueError(f"{path}: expected an ISHNE header of {HEADER_BYTES} bytes, got {len(head)}.")
    stated, start = (struct.unpack_from("<i", head, place)[0] for place in (14, 22))
    num_leads, rate = (struct.unpack_from("<h", head, place)[0] for place in (156, 272))
    if not 0 < num_leads <= MAX_LEADS or rate <= 0 or start < HEADER_BYTES:
        raise ValueError(
            f"{path}: expected 1 to {MAX_LEADS} leads, a rate > 0 Hz and samples after the header, got {num_leads}, "
            f"{rate} and {start}."
        )
    num_samples = max(size - start, 0) // (2 * num_leads)
    # Some recorders count a lead, some all leads.
    is_whole = num_samples >= stated or 2 * stated == size - start
    if num_samples == 0 or not is_whole:
        raise ValueError(
            f"{path} is truncated: its header declares {stated} samples, a lead or in all, and it holds {num_samples} "
            "a lead. Copy it from the recorder again."
        )
    check_num_values(path, (num_leads, num_samples))
    kinds = struct.unpack_from(f"<{num_leads}h", head, 158)
    resolution = struct.unpack_from(f"<{num_leads}h", head, 206)  # nV a step
    names = [_LEADS[kind] if 0 < kind < len(_LEADS) else "" for kind in kinds]
    units = ["uV" if step > 0 else "no resolution" for step in resolution]
    channels = [Channel(name, each, float(rate), each == "uV") for name, each in zip(names, units, strict=True)]
    chosen = choose_channels(path, channels, **choice)
    samples = np.memmap(path, "<i2", "r", start, (num_samples, num_leads))
    steps = np.ascontiguousarray(samples[:, list(chosen.positions)].T).astype(np.int16, copy=False)
    gain = [resolution[position] / 1000 for position in chosen.positions]
    # -32768 marks a fault of a lead here, and a missing sample in a record.
    return EcgRecord(record_id, steps, chosen.leads, float(rate), "uV", gain, notes=chosen.notes, **_patient(head))


def _patient(head: bytes) -> dict[str, Any]:
    sex = struct.unpack_from("<h", head, 128)[0]
    birth, recorded = (struct.unpack_from("<3h", head, place) for place in (132, 138))  # day, month, year
    dates = [f"{year:04d}{month:02d}{day:02d}" for day, month, year in (birth, recorded)]
    code = head[108:128].split(b"\0")[0].decode("latin-1").strip()
    return {"patient_id": code or None, "sex": _SEXES.get(sex), "age": age_between(*dates)}
