"""Waves and masks: P, QRS and T of a recording as a list of waves, or as one class for every sample of every lead.

Waves count samples of the recording, masks those of a model, whose rate is mostly lower: 100 Hz puts one class on
10 ms. Onset and offset are the first and the last sample of a wave, both inclusive, on either side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..evaluate_metrics.delineation_scores import BACKGROUND, NOT_ANNOTATED, WAVES
from ..patients import patient_of

LABEL_NAMES = ("background", *WAVES)
SHORTEST_MS = {"P": 30.0, "QRS": 40.0, "T": 60.0}
"""Shorter runs are no waves. Of LUDB's marked waves 1 in 1000 lies below."""


class Wave(NamedTuple):
    """One wave in one lead; limits are samples of the recording, `None` where nobody marked them."""

    lead: str
    kind: str
    onset: int | None
    peak: int | None
    offset: int | None


@dataclass(frozen=True)
class RecordWaves:
    """The waves of a recording, marked or predicted.

    Args:
        record_id (`str`), subject (`str`): The recording and its subject.
        sampling_rate (`float`): Samples per second that the waves count.
        num_samples (`int`): Length of the recording.
        leads (`tuple[str, ...]`): Leads in which waves were looked for.
        waves (`tuple[Wave, ...]`): In any order.
    """

    record_id: str
    subject: str
    sampling_rate: float
    num_samples: int
    leads: tuple[str, ...]
    waves: tuple[Wave, ...]

    def of_lead(self, lead: str, kind: str | None = None) -> list[Wave]:
        """The waves of a lead (of a kind), from left to right."""
        found = [wave for wave in self.waves if wave.lead == lead and kind in (None, wave.kind)]
        return sorted(found, key=_first_sample)


def annotated_waves(row: Mapping[str, Any], leads: Sequence[str] | None = None) -> RecordWaves:
    """The marked waves of a row of LUDB, in all of its leads or in some."""
    ecg = row["ecg"]
    if "wave_kind" not in row:
        raise ValueError(
            f"Record {row['record_id']} has no columns wave_lead, wave_kind, ...: no waves are marked in this corpus. "
            "LUDB has them; for others, `delineate` predicts them."
        )
    leads = tuple(ecg["leads"] if leads is None else leads)
    names = ("wave_lead", "wave_kind", "wave_onset", "wave_peak", "wave_offset")
    waves = (Wave(*values) for values in zip(*(row[name] for name in names), strict=True))
    return RecordWaves(
        record_id=row["record_id"],
        subject=subject_of(row),
        sampling_rate=float(ecg["sampling_rate"]),
        num_samples=num_samples_of(ecg),
        leads=leads,
        waves=tuple(wave for wave in waves if wave.lead in leads),
    )


def subject_of(row: Mapping[str, Any]) -> str:
    """The subject of a recording; one without a patient is a subject of its own."""
    return patient_of(row["record_id"], row.get("patient_id"))


def num_samples_of(ecg: Mapping[str, Any]) -> int:
    """Length of a recording, stored or decoded."""
    signal = ecg["signal"]
    return len(signal) // 2 // len(ecg["leads"]) if isinstance(signal, bytes) else np.shape(signal)[-1]


def mask_of_waves(record: RecordWaves, num_samples: int | None = None) -> np.ndarray:
    """A class for every sample: 0 background, 1 P, 2 QRS, 3 T, -1 not annotated.

    Not annotated are the samples before the first and after the last mark of a lead (annotators mostly skip the first
    and the last beat), a lead without marks, and, beside a peak whose onset or offset was not marked, everything up to
    the neighbouring mark.

    Args:
        record ([`RecordWaves`]): Marked waves.
        num_samples (`int`, *optional*): Length of the mask, by default that of the recording; marks go to the nearest
            sample.

    Returns:
        `np.ndarray` of shape `(len(record.leads), num_samples)`, int8.
    """
    num_samples = record.num_samples if num_samples is None else num_samples
    ratio = num_samples / record.num_samples
    mask = np.full((len(record.leads), num_samples), NOT_ANNOTATED, dtype=np.int8)

    def place(sample: int) -> int:
        return min(int(np.rint(sample * ratio)), num_samples - 1)

    for row, lead in zip(mask, record.leads, strict=True):
        waves = record.of_lead(lead)
        marks = sorted({mark for wave in waves for mark in wave[2:] if mark is not None})
        if not marks:
            continue
        row[place(marks[0]) : place(marks[-1]) + 1] = BACKGROUND
        for wave in waves:  # what is not known comes first, so that it never covers a neighbour
            anchor = _first_known(wave.peak, wave.onset, wave.offset)
            before = max((mark for mark in marks if mark < anchor), default=-1)
            after = min((mark for mark in marks if mark > anchor), default=record.num_samples)
            if wave.onset is None and before >= 0:
                row[place(before) + 1 : place(anchor)] = NOT_ANNOTATED
            if wave.offset is None and after < record.num_samples:
                row[place(anchor) + 1 : place(after)] = NOT_ANNOTATED
        for wave in waves:
            onset = _first_known(wave.onset, wave.peak, wave.offset)
            offset = _first_known(wave.offset, wave.peak, wave.onset)
            row[place(onset) : place(offset) + 1] = LABEL_NAMES.index(wave.kind)
    return mask


def waves_of_mask(
    mask: np.ndarray, signal: np.ndarray, leads: Sequence[str], sampling_rate: float
) -> tuple[Wave, ...]:
    """The waves that a mask holds: unbroken runs of one class, those that are too short left out.

    Peaks come from the recording: of P and T the largest deflection, up or down, from the straight line between onset
    and offset; of QRS the highest point above that line, as LUDB marks it (R; 94 % of its marks lie within 10 ms).

    Args:
        mask (`np.ndarray` of shape `(num_leads, num_mask_samples)`): 0 to 3; at any rate.
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): The recording, in any unit.
        leads (`Sequence[str]`): Names of the rows of both.
        sampling_rate (`float`): Samples per second of the recording, in Hz.

    Returns:
        `tuple[Wave, ...]`: In samples of the recording, lead by lead.
    """
    if mask.shape[0] != len(leads) or signal.shape[0] != len(leads):
        raise ValueError(f"Expected a row for each of {list(leads)}, got {mask.shape} and {signal.shape}.")
    num_samples = signal.shape[1]
    step = num_samples / mask.shape[1]
    waves = []
    for lead, row, values in zip(leads, mask, signal, strict=True):
        edges = np.flatnonzero(np.diff(row)) + 1
        for start, end in zip((0, *edges), (*edges, len(row)), strict=True):
            kind = LABEL_NAMES[row[start]]
            if kind == LABEL_NAMES[BACKGROUND] or (end - start) * step * 1000 / sampling_rate < SHORTEST_MS[kind]:
                continue
            onset, offset = (min(round(sample * step), num_samples - 1) for sample in (start, end - 1))
            peak = _peak(values[onset : offset + 1], kind)
            waves.append(Wave(lead, kind, onset, None if peak is None else onset + peak, offset))
    return tuple(waves)


def _peak(values: np.ndarray, kind: str) -> int | None:
    """`None` where a limit was not recorded."""
    above = values - np.linspace(values[0], values[-1], len(values))
    if not np.isfinite(above).any():
        return None
    return int(np.nanargmax(above if kind == "QRS" else np.abs(above)))


def _first_known(*samples: int | None) -> int:
    return next(sample for sample in samples if sample is not None)


def _first_sample(wave: Wave) -> int:
    return _first_known(*wave[2:])
