"""Heart rate and intervals from marked or predicted waves: targets of a regression, or a reading of a recording.

Method, the same for every interval: measured beat by beat in each lead, the median over the beats of a lead, then the
median over the leads that could be measured. Intervals of machines are often global instead, from the earliest onset
in any lead to the latest offset in any, and hence longer: the two are not the same target.

* heart rate: 60 s by the median RR, between peaks of consecutive QRS complexes. It is the rate of the ventricles; a
  median hears neither single extrasystoles nor single missed beats.
* QRS: from onset to offset.
* PR: from the onset of the last P between the previous QRS and this one, at most 400 ms away, to the onset of QRS.
  With complete block there is a P and yet no conduction: the number then means nothing.
* QT: from the onset of QRS to the offset of the first T before the next QRS, at most 700 ms away.
* QTc: QT, corrected by the median RR in seconds. By default QT / RR^(1/3) (Fridericia, Acta Med Scand 1920;53:469);
  QT / RR^(1/2) (Bazett, Heart 1920;7:353) corrects too much at high rates.

An interval that cannot be measured is NaN, with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .masks import RecordWaves, Wave, annotated_waves

LONGEST_PR_MS, LONGEST_QT_MS = 400.0, 700.0
INTERVAL_NAMES = (
    "heart_rate_bpm",
    "qrs_duration_ms",
    "pr_interval_ms",
    "qt_interval_ms",
    "qtc_fridericia_ms",
    "qtc_bazett_ms",
)
TARGETS = INTERVAL_NAMES[:5]
"""One QTc is enough for a model: Fridericia's."""


@dataclass(frozen=True)
class Intervals:
    """Measured `values` of one recording for each of `INTERVAL_NAMES`, NaN where one cannot be measured, with the
    reason in `reasons`."""

    values: dict[str, float]
    reasons: dict[str, str]


def measure_intervals(record: RecordWaves) -> Intervals:
    """Heart rate and intervals of one recording, by the method of this module."""
    measured: dict[str, list[float]] = {name: [] for name in ("rr", "qrs", "pr", "qt")}
    for lead in record.leads:
        for name, of_beats in _measure_lead(record, lead).items():
            if of_beats:
                measured[name].append(float(np.median(of_beats)))
    milliseconds = {
        name: float(np.median(of_leads)) * 1000 / record.sampling_rate if of_leads else np.nan
        for name, of_leads in measured.items()
    }
    rr_seconds, qt = milliseconds["rr"] / 1000, milliseconds["qt"]
    values = {
        "heart_rate_bpm": 60 / rr_seconds,
        "qrs_duration_ms": milliseconds["qrs"],
        "pr_interval_ms": milliseconds["pr"],
        "qt_interval_ms": qt,
        "qtc_fridericia_ms": qt / rr_seconds ** (1 / 3),
        "qtc_bazett_ms": qt / rr_seconds ** (1 / 2),
    }
    return Intervals(values, {name: _reason(name, milliseconds) for name in values if np.isnan(values[name])})


def interval_targets(
    recordings: Sequence[RecordWaves] | Sequence[Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """Targets of a regression, `TARGETS`: name with unit → float64 `(num_recordings,)`, NaN where unknown.

    `recordings` are rows of LUDB, measured by their marks, or the waves of any recordings, as [`delineate`] predicts
    them.
    """
    waves = (record if isinstance(record, RecordWaves) else annotated_waves(record) for record in recordings)
    measured = [measure_intervals(record).values for record in waves]
    return {name: np.array([values[name] for values in measured], dtype=float) for name in TARGETS}


def _measure_lead(record: RecordWaves, lead: str) -> dict[str, list[float]]:
    """Every RR, QRS, PR and QT of one lead, in samples."""
    complexes = [wave for wave in record.of_lead(lead, "QRS") if wave.peak is not None]
    atrial, repolarisations = record.of_lead(lead, "P"), record.of_lead(lead, "T")
    longest_pr, longest_qt = (limit * record.sampling_rate / 1000 for limit in (LONGEST_PR_MS, LONGEST_QT_MS))
    peaks = [wave.peak for wave in complexes]
    found: dict[str, list[float]] = {"rr": np.diff(peaks).tolist(), "qrs": [], "pr": [], "qt": []}
    for number, qrs in enumerate(complexes):
        previous = peaks[number - 1] if number else -np.inf
        following = peaks[number + 1] if number + 1 < len(peaks) else np.inf
        if qrs.onset is None:
            continue
        if qrs.offset is not None:
            found["qrs"].append(qrs.offset - qrs.onset)
        before = [wave.onset for wave in atrial if _lies_between(wave, previous, qrs.peak)]
        if before and before[-1] is not None and 0 < qrs.onset - before[-1] <= longest_pr:
            found["pr"].append(qrs.onset - before[-1])
        after = [wave.offset for wave in repolarisations if _lies_between(wave, qrs.peak, following)]
        if after and after[0] is not None and after[0] - qrs.onset <= longest_qt:
            found["qt"].append(after[0] - qrs.onset)
    return found


def _lies_between(wave: Wave, start: float, end: float) -> bool:
    return wave.peak is not None and start < wave.peak < end


def _reason(name: str, milliseconds: Mapping[str, float]) -> str:
    if name == "heart_rate_bpm":
        return "fewer than two QRS complexes in every lead"
    if name == "qrs_duration_ms":
        return "no QRS complex with onset and offset in any lead"
    if name == "pr_interval_ms":
        return f"no P at most {LONGEST_PR_MS:g} ms before a QRS complex in any lead"
    if np.isnan(milliseconds["qt"]):
        return f"no T that ends at most {LONGEST_QT_MS:g} ms after the onset of its QRS complex in any lead"
    return "fewer than two QRS complexes in every lead"
