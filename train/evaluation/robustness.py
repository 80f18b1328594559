"""Settings of another device: test records of other sampling rates, in other units, and shorter ones.

The probe is fitted and chosen on the unchanged records. Rates and units are declared with each record, so the input
contract should bring them to what the model reads: units to rounding, rates as far as the rate holds the band that the
model reads. Entries of the group `misuse` break the contract on purpose (a unit that is not the declared one, leads
under each other's names) and show what that costs; no encoder is ranked by them.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from ecg_transformers.modeling.recording_input import DIMENSIONLESS

from ..features import decoded
from ..tasks.lead_subsets import with_ecg
from .encoder_pair import EncoderPair, refused

LARGEST_DENOMINATOR = 10_000

RATES_HZ = (100, 125, 250, 360, 500, 1000)
UNITS = {"uV": 1e3, "V": 1e-3}
"""Declared unit → how many of it are a millivolt."""
WRONG_NAMES = {
    "aVL and aVF under each other's name": {"aVL": "aVF", "aVF": "aVL"},
    "V1 to V6 named in reverse": {f"V{number}": f"V{7 - number}" for number in range(1, 7)},
}
"""Orders of leads taken for another one. MIMIC-IV-ECG stores aVL and aVF the other way round than most corpora do."""
SECONDS = (5.0, 2.5)
DECLARED, MISUSE = "declared", "misuse"


def rate_scores(pair: EncoderPair, rates_hz: Sequence[float] = RATES_HZ) -> list[dict[str, Any]]:
    """Test records resampled to other rates and declared so.

    Returns:
        `list[dict]`: an entry of setting `sampling_rate` a rate (`value`, in Hz), in their order, with `recorded_at`,
        the rates of the test records themselves: above these, nothing is gained by a higher rate.
    """
    recorded_at = sorted({row["ecg"]["sampling_rate"] for row in pair.splits.test})
    results = pair.on_changed_tests({rate: lambda row, rate=rate: at_rate(row, rate) for rate in rates_hz})
    facts = {"recorded_at": recorded_at, "model_reads": float(pair.feature_extractor.sampling_rate)}
    return [pair.entry("sampling_rate", rate, f"{rate:g} Hz", results[rate], **facts) for rate in rates_hz]


def unit_scores(pair: EncoderPair) -> list[dict[str, Any]]:
    """Test records in other units, declared so; and two kinds of misuse: values that are not in the declared
    unit, leads under wrong names (no change where the model does not read these).

    Returns:
        `list[dict]`: entries of setting `unit` with `group` `"declared"` or `"misuse"` and `largest_score_change`, by
        encoder the largest difference of any score from that of the unchanged record: rounding where the contract
        holds. Dimensionless records have no unit to declare: theirs are `refused`.
    """
    first = decoded(pair.splits.test)[0]["ecg"]
    if first["unit"] == DIMENSIONLESS:
        reason = "The recordings are dimensionless: they have no unit that could be declared in another way."
        return [refused("unit", unit, f"declared in {unit}", reason, DECLARED) for unit in ("mV", *UNITS)]
    changes = {
        (unit, f"declared in {unit}", DECLARED): lambda row, unit=unit: in_unit(row, unit) for unit in ("mV", *UNITS)
    }
    changes["mV x 1000", "MISUSE: uV taken for mV", MISUSE] = lambda row: scaled_without_saying(row, 1e3)
    changes["mV / 1000", "MISUSE: V taken for mV", MISUSE] = lambda row: scaled_without_saying(row, 1e-3)
    for mistake, names in WRONG_NAMES.items():
        if set(names) <= set(first["leads"]):
            changes[mistake, f"MISUSE: {mistake}", MISUSE] = lambda row, names=names: renamed(row, names)
    entries = []
    for (value, label, group), results in pair.on_changed_tests(changes).items():
        moved = {encoder: _largest_change(pair.clean[encoder], results[encoder]) for encoder in pair.models}
        entries.append(pair.entry("unit", value, label, results, group, largest_score_change=moved))
    return entries


def length_scores(pair: EncoderPair, seconds: Sequence[float] = SECONDS) -> list[dict[str, Any]]:
    """Test records cut to their first seconds; what the model misses is zeros after normalisation, which encoders read
    as a flat signal.

    Returns:
        `list[dict]`: an entry of setting `length` for whole records (`value` `"whole"`), then one a length (in s).
    """
    padding = pair.feature_extractor.changed(short_records="zero_pad")
    changes = {value: lambda row, value=value: first_seconds(row, value) for value in seconds}
    entries = [pair.entry("length", "whole", "whole recordings", pair.clean)]
    for value, results in pair.on_changed_tests(changes, padding).items():
        entries.append(pair.entry("length", value, f"first {value:g} s", results))
    return entries


def in_unit(row: dict, unit: str) -> dict:
    """A decoded row whose values are in another unit, and say so."""
    if row["ecg"]["unit"] in (unit, DIMENSIONLESS):  # a dimensionless record of a mixed corpus has none
        return row
    return with_ecg(row, signal=row["ecg"]["signal"] * np.float32(UNITS[unit]), unit=unit)


def scaled_without_saying(row: dict, factor: float) -> dict:
    """A decoded row whose values are not in the unit that it declares."""
    return with_ecg(row, signal=row["ecg"]["signal"] * np.float32(factor))


def renamed(row: dict, names: Mapping[str, str]) -> dict:
    """A decoded row with some leads under other names."""
    return with_ecg(row, leads=[names.get(lead, lead) for lead in row["ecg"]["leads"]])


def first_seconds(row: dict, seconds: float) -> dict:
    """A decoded row cut to its first seconds."""
    ecg = row["ecg"]
    return with_ecg(row, signal=ecg["signal"][:, : round(seconds * ecg["sampling_rate"])])


def _largest_change(clean, changed) -> float:
    positions = {record_id: position for position, record_id in enumerate(clean.test.record_ids)}
    before = clean.test.scores[[positions[record_id] for record_id in changed.test.record_ids]]
    return float(np.abs(changed.test.scores - before).max())


def rate_ratio(old_rate: float, new_rate: float) -> tuple[int, int]:
    """The ratio of two rates (Hz) in whole numbers, `up` and `down`."""
    ratio = (Fraction(new_rate) / Fraction(old_rate)).limit_denominator(LARGEST_DENOMINATOR)
    return ratio.numerator, ratio.denominator


def at_rate(row: dict, sampling_rate: float) -> dict:
    """A decoded row at another rate, declared as such; a row at this rate is itself.

    A finite filter against aliasing (`scipy.signal.resample_poly`), edges continued by their last sample: not the
    Fourier method of the feature extractor, which would undo itself. Missing samples (NaN) widen by the filter.
    """
    ecg = row["ecg"]
    if ecg["sampling_rate"] == sampling_rate:
        return row
    up, down = rate_ratio(ecg["sampling_rate"], sampling_rate)
    signal = resample_poly(np.asarray(ecg["signal"], dtype=np.float64), up, down, axis=1, padtype="edge")
    return with_ecg(row, signal=signal.astype(np.float32), sampling_rate=float(sampling_rate))
