"""Report on what one recording holds and what is odd about it, before anyone trains on it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..modeling.leads import FRANK_LEADS, STANDARD_LEADS
from ..modeling.recording_input import DIMENSIONLESS
from ..modeling.signal_quality import LIMITS, LeadQuality, examine_signal
from .records import EcgRecord, dequantise, millivolts_per

EXAMINED_SECONDS = 600.0
"""What is looked at of a longer recording, from its start: a day at 250 Hz would fill the memory."""

MEANINGS = {
    "unit": "amplitudes that suggest another unit",
    "limb_swap": "limb electrodes that look interchanged",
    "einthoven": "limb leads that do not fit I and II",
    "duplicate_leads": "leads with the same samples",
    "equal_ranges": "leads that all span the same range",
    "unknown_leads": "channels that are no known lead",
} | {name: limit.meaning for name, limit in LIMITS.items()}
"""What the names of problems mean, for counts of recordings."""


@dataclass(frozen=True)
class RecordingReport:
    """Content of a recording.

    Args:
        record_id (`str`): Name.
        leads (`tuple[str, ...]`): Names of its rows, known leads in their standard spelling.
        unknown_leads (`tuple[str, ...]`): Those that are no known lead.
        sampling_rate (`float`): Rate in Hz.
        unit (`str`): Unit as stored: a voltage, of which the measures are in mV, or `"dimensionless"`.
        num_samples (`int`): Samples of each lead.
        examined_seconds (`float`): Length of the part that was looked at.
        quality (`tuple[LeadQuality, ...]`): Measures of every lead.
        problems (`dict`): Name of a problem (a key of `MEANINGS`) → sentence with the evidence.
        not_judged (`tuple[str, ...]`): Measures that could not be taken, with the reason.
        notes (`tuple[str, ...]`): Sentences on what its reader left out or decided.
    """

    record_id: str
    leads: tuple[str, ...]
    unknown_leads: tuple[str, ...]
    sampling_rate: float
    unit: str
    num_samples: int
    examined_seconds: float
    quality: tuple[LeadQuality, ...]
    problems: dict[str, str]
    not_judged: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sampling_rate

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what could not be measured is `None`."""
        content = asdict(self) | {"seconds": self.seconds}
        content["quality"] = [
            {name: None if value != value else value for name, value in asdict(lead).items()} for lead in self.quality
        ]
        return content


def examine_recording(record: EcgRecord) -> RecordingReport:
    """Looks at a recording. Nothing is changed and nothing is decided: every problem is a suspicion with its evidence.

    At most the first ten minutes are looked at.
    """
    num_samples = record.signal.shape[1]
    signal = examined_signal(record, EXAMINED_SECONDS)
    leads, rate = tuple(record.leads), record.sampling_rate
    found = examine_signal(signal, leads, rate, record.unit, is_voltage=record.unit != DIMENSIONLESS)
    unknown = tuple(lead for lead in leads if lead not in STANDARD_LEADS + FRANK_LEADS)
    problems = dict(found.problems)
    if unknown:
        problems["unknown_leads"] = (
            f"{', '.join(unknown)}: no lead that is known, so no model reads it; "
            f"rename_leads='{unknown[0]}:II' names one"
        )
    not_judged = []
    if not found.checked_limb_swap:
        not_judged.append("limb electrodes (needs I, II and V1-V6 without gaps, not flat, 2 s, 80 Hz)")
    for name, label in (("hum_50hz_mv", "50 Hz hum"), ("hum_60hz_mv", "60 Hz hum"), ("noise_mv", "noise")):
        if all(np.isnan(vars(lead)[name]) for lead in found.quality):
            not_judged.append(label)
    return RecordingReport(
        record.record_id,
        leads,
        unknown,
        rate,
        record.unit,
        num_samples,
        signal.shape[1] / rate,
        found.quality,
        problems,
        tuple(not_judged),
        tuple(record.notes),
    )


def examined_signal(record: EcgRecord, seconds: float) -> np.ndarray:
    """The first seconds of a recording as float32 `(num_leads, num_samples)`, in mV or dimensionless."""
    scale = np.float32(1.0 if record.unit == DIMENSIONLESS else millivolts_per(record.unit))
    signal = record.signal[:, : max(1, round(seconds * record.sampling_rate))]
    return signal * scale if record.gain is None else dequantise(signal, record.gain * scale)
