"""The checks of a recording on its way into a model, on what was declared, before anything is done to it.

[`check_inputs`] says what is wrong with it and what decides whether a calibration holds for it; [`describe_input`]
says in sentences what a feature extractor does with it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .lead_plan import LeadPlan
from .leads import electrode_placement_of, without_placement
from .quality_screen import screen_signals
from .recording_input import DIMENSIONLESS, Recording, is_known_lead
from .signal_quality import FLAT_SHARE, LIMITS, SignalReport, examine_signal, lead_problems

INVALID_SAMPLE = -32768
"""The int16 value that stands for "not recorded" (as in WFDB format 16); it is read as NaN."""

EXAMINED_SECONDS = 600.0
"""What is looked at of a longer recording, from the start of what the model reads."""
_SCREENED_VALUES = 2**20
"""Samples of the recordings that are looked at together, 4 MB."""
NOT_FOR_AMPLITUDES = ("record", "lead", "lead_range")
"""Normalisations after which a wrong unit changes nothing."""

PLAUSIBLE_PEAK_MV = (0.02, 50.0)
"""Peaks outside of this range do not come from an electrocardiogram in the declared unit."""
FLAT_STD_MV = 1e-4
"""Below 0.1 uV there is only rounding: a lead (or record) this quiet is flat and normalises to zeros."""
_NOTHING_FOUND = SignalReport((), {}, False)
# A lead that is at its bounds this often was cut off by its amplifier or converter.
_CLIPPED_SAMPLES, _CLIPPED_SHARE = 10, 0.01


def check_inputs(extractor: Any, recordings: Sequence[Recording]) -> list[dict[str, Any]]:
    """Checks of each recording the part that a model reads; those of one layout together, which is much faster.

    Args:
        extractor ([`EcgFeatureExtractor`]): Extractor of the model.
        recordings (`Sequence[Recording]`): Recordings as declared.

    Returns:
        for each a `dict` of plain values: `findings`, for each a `dict` of `name`, `leads` and `sentence`;
        `is_meaningless`, whether the output of a model says nothing then (no signal, or a wrong unit where amplitudes
        count); and, of what the model gets, `leads` (of the model, recorded and not flat), `electrode_placement` of
        the limb leads among them, `windows` (`"whole"`, or which are taken of a longer recording), `window_seconds`
        (their starts) and `is_padded`.
    """
    layouts: dict[tuple, list[int]] = {}
    for number, recording in enumerate(recordings):
        layouts.setdefault((*recording.layout, recording.unit), []).append(number)
    checks: list[dict[str, Any]] = [{}] * len(recordings)
    for numbers in layouts.values():
        step = max(1, _SCREENED_VALUES // recordings[numbers[0]].signal.size)
        for start in range(0, len(numbers), step):
            part = numbers[start : start + step]
            for number, found in zip(part, _check(extractor, [recordings[place] for place in part]), strict=True):
                checks[number] = found
    return checks


def _check(extractor: Any, recordings: Sequence[Recording]) -> Iterator[dict[str, Any]]:
    """Checks recordings of one layout and unit."""
    recording = recordings[0]
    plan = extractor.lead_plan(recording.leads)
    values = _stretches_in_millivolts(extractor, recordings)
    num_samples, rate, is_voltage = values.shape[2], recording.sampling_rate, recording.unit != DIMENSIONLESS
    read = [without_placement(recording.leads[row]) for row in plan.sources]
    names = [without_placement(lead) for lead in recording.leads]
    known = [row for row, name in enumerate(names) if is_known_lead(name)]
    if known != list(range(len(names))):
        values, names = values[:, known], [names[row] for row in known]
    length = extractor.resampled_length(recording.signal.shape[1], rate)
    common = {
        "electrode_placement": electrode_placement_of([recording.leads[row] for row in plan.sources]),
        "windows": extractor.long_records if length > extractor.num_samples else "whole",
        "is_padded": length < extractor.num_samples,
    }
    for signal, suspects in zip(values, screen_signals(values, names, rate, is_voltage), strict=True):
        found = _NOTHING_FOUND
        if suspects.is_any:
            found = examine_signal(signal, names, rate, recording.unit, is_voltage, suspects)
        meant = _meaning(extractor, plan, read, found, num_samples, rate)
        yield meant | common | {"window_seconds": window_seconds(extractor, recording)}


def _meaning(
    extractor: Any, plan: LeadPlan, read: list[str], found: SignalReport, num_samples: int, sampling_rate: float
) -> dict[str, Any]:
    """Meaning of the report on a recording for a model that reads the leads `read`."""
    of_lead = {quality.lead: quality for quality in found.quality}  # all others are good
    absent = [lead for lead in read if lead in of_lead and of_lead[lead].missing_samples == num_samples]
    recorded = [of_lead[lead] for lead in read if lead in of_lead and lead not in absent]
    longest_seconds = FLAT_SHARE * num_samples / sampling_rate
    flat = [of.lead for of in recorded if "range_mv" in of.problems or of.flat_seconds > longest_seconds]
    lost = {read.index(lead) for lead in absent + flat}
    findings = []
    if len(lost) == len(read):
        findings.append(_finding("no_signal", read, f"There is no signal in {', '.join(read)}: flat or not recorded"))
    if gone := [*plan.missing, *absent]:
        unknown = f" (the recording's {', '.join(plan.unknown)}: no lead that is known)" if plan.unknown else ""
        sentence = f"Not recorded, the model does without: {', '.join(gone)}{unknown}"
        findings.append(_finding("missing_leads", gone, sentence))
    for key, sentence in lead_problems(recorded):
        leads = [quality.lead for quality in recorded if key in quality.problems]
        findings.append(_finding(LIMITS[key].name, leads, sentence))
    findings += [_finding(key, [], sentence) for key, sentence in found.problems.items() if key not in LIMITS]
    if plan.has_torso_electrodes and extractor.electrode_placement == "any":
        sentence = "The limb leads are from electrodes on the torso (Mason-Likar), taken for those on the limbs"
        findings.append(_finding("electrode_placement", [], sentence))
    is_unit_wrong = "unit" in found.problems and extractor.normalization not in NOT_FOR_AMPLITUDES
    return {
        "findings": findings,
        "is_meaningless": len(lost) == len(read) or is_unit_wrong,
        "leads": [lead for lead, of in zip(extractor.leads, plan.weights, strict=True) if of and not lost & set(of)],
    }


def window_seconds(extractor: Any, recording: Recording) -> list[float]:
    """Start of each window that a feature extractor cuts from a recording, in seconds."""
    num_samples = recording.signal.shape[1]
    length = extractor.resampled_length(num_samples, recording.sampling_rate)
    scale = num_samples / recording.sampling_rate / length
    return [start * scale for start in extractor.window_starts(length)]


def _finding(name: str, leads: list[str], sentence: str) -> dict[str, Any]:
    return {"name": name, "leads": leads, "sentence": f"{sentence}."}


def _stretches_in_millivolts(extractor: Any, recordings: Sequence[Recording]) -> np.ndarray:
    """Float32 mV `(batch, num_leads, num_samples)` of all channels from the first window that is read to the last, of
    recordings of one layout."""
    num_samples, rate = recordings[0].signal.shape[1], recordings[0].sampling_rate
    length = extractor.resampled_length(num_samples, rate)
    starts, per_sample = extractor.window_starts(length), num_samples / length
    first, end = round(starts[0] * per_sample), round((starts[-1] + extractor.num_samples) * per_sample)
    end = min(end, first + round(EXAMINED_SECONDS * rate))
    return np.stack([millivolts(each._replace(signal=each.signal[:, first:end])) for each in recordings])


def millivolts(recording: Recording) -> np.ndarray:
    """Float32 mV `(num_leads, num_samples)` of a recording, NaN where a sample is missing."""
    signal = recording.signal.astype(np.float32)
    if recording.gain is not None:
        signal *= recording.gain[:, None]
    if recording.signal.dtype == np.int16:
        signal[recording.signal == INVALID_SAMPLE] = np.nan
    return signal


def describe_input(extractor: Any, recording: Recording) -> list[str]:
    """Says in sentences what happens to a recording, and what is odd about it."""
    plan, leads = extractor.lead_plan(recording.leads), recording.leads
    values = millivolts(recording)[list(plan.sources)]
    used = [leads[index] for index in plan.sources]
    derived = [lead for lead, weights in zip(extractor.leads, plan.weights, strict=True) if len(weights) > 1]
    num_samples = recording.signal.shape[1]
    length = extractor.resampled_length(num_samples, recording.sampling_rate)
    num_windows = len(extractor.window_starts(length))
    report = []
    if recording.unit != extractor.unit:
        report.append(f"Converted from {recording.unit} to {extractor.unit}.")
    if leads != extractor.leads:
        report.append(f"Took the leads {used} from {list(leads)} by name.")
    if plan.has_torso_electrodes:
        report.append("The limb leads are from electrodes on the torso (Mason-Likar).")
    if derived:
        report.append(f"Derived {derived} from I and II.")
    if plan.missing:
        report.append(f"Masked the missing leads {list(plan.missing)}.")
    for lead, row in zip(used, values, strict=True):
        kept = row[np.isfinite(row)]
        num_gaps = num_samples - len(kept)
        if num_gaps == num_samples:
            report.append(f"Masked lead {lead}, which has no finite sample.")
        elif num_gaps:
            report.append(f"Interpolated {num_gaps} of {num_samples} samples of lead {lead}.")
        if len(kept) and kept.max() - kept.min() < FLAT_STD_MV:
            report.append(f"Lead {lead} is flat.")
        elif len(kept):
            at_bounds = int(((kept == kept.max()) | (kept == kept.min())).sum())
            if at_bounds > max(_CLIPPED_SAMPLES, _CLIPPED_SHARE * len(kept)):
                report.append(
                    f"Lead {lead} is at its largest or smallest value in {at_bounds} of {num_samples} samples: it "
                    "may be clipped."
                )
    peak = float(np.abs(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)).max())
    if not PLAUSIBLE_PEAK_MV[0] <= peak <= PLAUSIBLE_PEAK_MV[1]:
        report.append(f"The largest amplitude, {peak:g} mV, is no ECG's: check the unit ({recording.unit}) and gain.")
    if length != num_samples:
        report.append(
            f"Resampled {num_samples} samples at {recording.sampling_rate:g} Hz to {length} at "
            f"{length / num_samples * recording.sampling_rate:g} Hz."
        )
    if extractor.notch_hz is not None:
        report.append(f"Took out {extractor.notch_hz:g} Hz with a notch.")
    for kind, cutoff in (("High", extractor.highpass_hz), ("Low", extractor.lowpass_hz)):
        if cutoff is not None:
            report.append(f"{kind}-passed at {cutoff:g} Hz, zero phase, order {extractor.filter_order}.")
    if extractor.median_baseline_seconds is not None:
        report.append(f"Subtracted the running median of {extractor.median_baseline_seconds:g} s.")
    if num_windows > 1:
        report.append(f"Cut {length} samples into {num_windows} windows of {extractor.num_samples}.")
    elif length > extractor.num_samples and extractor.long_records != "all":
        report.append(f"Kept the {extractor.long_records} {extractor.num_samples} of {length} samples.")
    elif length < extractor.num_samples:
        report.append(f"Appended {extractor.num_samples - length} zeros to {length} samples.")
    return report
