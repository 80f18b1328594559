"""How good a recording is, lead by lead: gaps, flat stretches, clipping, noise, wander, mains hum, amplitude.

Measures come with thresholds (`LIMITS`) above which a lead is named. They are suspicions for a person to look at, not
reasons to throw a recording away, and nothing is changed. Where a measure cannot be taken (too short, too low a rate,
values that are no voltage), it is NaN and never flagged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .spectrum import band_pass, line_amplitude

MAINS_HZ = (50, 60)
_NOISE_LOWEST_HZ, _WANDER_HIGHEST_HZ = 35.0, 0.5
_SHORTEST_CLIP_SECONDS, _FEWEST_CLIPPED_SAMPLES = 0.02, 3
_SHORTEST_SECONDS = 4.0


@dataclass(frozen=True)
class Limit:
    """A measure above `most` (or, with `least`, below it) is worth a look.

    Args:
        most, least (`float`, *optional*): In the unit of the measure; exactly on the limit is still good.
        unit (`str`): `"mV"`, `"s"` or `"samples"`.
        meaning (`str`): What is wrong with the lead then.
    """

    unit: str
    meaning: str
    most: float | None = None
    least: float | None = None

    def is_exceeded(self, value: float) -> bool:
        """NaN is not."""
        return bool((self.most is not None and value > self.most) or (self.least is not None and value < self.least))

    def __str__(self):
        return f"at least {self.least:g} {self.unit}" if self.most is None else f"at most {self.most:g} {self.unit}"


# All ours, set so that what is obviously wrong is named and few of the 495 carried PTB-XL recordings (100 Hz) are; the
# shares stand in docs/your_own_data.md. The bands: 0.5 Hz is where the AHA/ACC/HRS put the low cut-off against wander
# (Kligfield et al., Circulation 2007;115:1306), 35 Hz leaves something below half of a rate of 100 Hz.
LIMITS = {
    "missing_samples": Limit("samples", "missing or infinite samples", most=0),
    "range_mv": Limit("mV", "flat lead", least=0.05),
    "flat_seconds": Limit("s", "stands still for a stretch", most=1.0),
    "clipped_seconds": Limit("s", "clipped: rests at its highest or lowest value", most=0.15),
    "noise_mv": Limit("mV", "high-frequency noise", most=0.05),
    "wander_mv": Limit("mV", "baseline wander", most=2.5),
    "hum_50hz_mv": Limit("mV", "50 Hz mains hum", most=0.03),
    "hum_60hz_mv": Limit("mV", "60 Hz mains hum", most=0.03),
}

USUAL_RANGE_MV = (0.2, 20.0)
"""Median over the leads of the range without its outermost samples, which nearly every clinical recording has in mV.
Ours; those of the carried PTB-XL recordings lie between 0.54 and 4.4 mV."""


@dataclass(frozen=True)
class LeadQuality:
    """The measures of one lead, in the order of `LIMITS`, NaN where a measure cannot be taken.

    Args:
        lead (`str`): Its name.
        missing_samples (`float`): Samples that are NaN or infinite.
        range_mv (`float`): Largest less smallest value.
        lowest_mv, highest_mv (`float`): The two.
        flat_seconds (`float`): Longest stretch of equal values.
        clipped_seconds (`float`): Time in stretches of at least 3 samples and 20 ms at the largest or smallest value.
        noise_mv (`float`):
            Above 35 Hz, with no hum at 50 and 60 Hz: the median over stretches of 0.2 s of the root mean square, so
            that the slopes of the QRS complexes count little.
        wander_mv (`float`): Range of what lies below 0.5 Hz, from its 2nd to its 98th percentile.
        hum_50hz_mv, hum_60hz_mv (`float`): Root mean square of the tone.
    """

    lead: str
    missing_samples: float
    range_mv: float
    lowest_mv: float
    highest_mv: float
    flat_seconds: float
    clipped_seconds: float
    noise_mv: float
    wander_mv: float
    hum_50hz_mv: float
    hum_60hz_mv: float

    @property
    def problems(self) -> tuple[str, ...]:
        """The names of the measures beyond their limit. A flat lead is that and nothing else, gaps apart."""
        found = [name for name, limit in LIMITS.items() if limit.is_exceeded(vars(self)[name])]
        return tuple(name for name in found if "range_mv" not in found or name in ("range_mv", "missing_samples"))


def measure_leads(
    signal: np.ndarray, leads: Sequence[str], sampling_rate: float, is_voltage: bool = True
) -> list[LeadQuality]:
    """The quality of every lead.

    Args:
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): In mV; samples that are not finite are missing.
        leads (`Sequence[str]`): Names of the rows.
        sampling_rate (`float`): In Hz.
        is_voltage (`bool`, *optional*, defaults to `True`):
            `False` for values that are no voltage (z-scores): they get no limit in mV; a lead is flat only if it is
            constant.

    Raises:
        ValueError: if signal and leads do not fit.
    """
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim != 2 or len(signal) != len(leads):
        raise ValueError(f"Expected a signal of shape ({len(leads)}, num_samples), got {signal.shape}.")
    found = [_measure_values(row, lead, sampling_rate, is_voltage) for row, lead in zip(signal, leads, strict=True)]
    whole = [row for row in range(len(found)) if found[row]["missing_samples"] == 0]
    if is_voltage and whole and signal.shape[1] >= _SHORTEST_SECONDS * sampling_rate:
        spectral = _measure_bands(signal[whole], sampling_rate)
        for position, row in enumerate(whole):
            found[row] |= {name: float(values[position]) for name, values in spectral.items()}
    return [LeadQuality(**measures) for measures in found]


def suspect_unit(signal_mv: np.ndarray, declared: str) -> str | None:
    """A sentence if the amplitudes suggest another unit than the declared one; `None` if they do not.

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): In mV, by the declared unit.
        declared (`str`): The declared unit, for the sentence.
    """
    ranges = [robust_range(row[np.isfinite(row)]) for row in np.asarray(signal_mv, dtype=np.float64)]
    ranges = [value for value in ranges if value > 0]
    if not ranges:
        return None
    typical = float(np.median(ranges))
    least, most = USUAL_RANGE_MV
    if least <= typical <= most:
        return None
    size = f"read as {declared}, a lead typically spans {typical:.3g} mV (usual: {least:g} to {most:g})"
    factors = {1e-3: "1000 times too large: microvolts read as millivolts, or millivolts as volts"}
    factors[1e3] = "1000 times too small: volts read as millivolts, or millivolts as microvolts"
    for factor, guess in factors.items():
        if least <= typical * factor <= most:
            return f"{size}; the amplitudes look {guess}"
    return f"{size}; check unit and gain, the values may be steps of the converter"


def robust_range(values: np.ndarray) -> float:
    """The range without the outermost 0.1 % at both ends, so that single spikes do not count; 0 for no values."""
    return float(np.subtract(*np.percentile(values, (99.9, 0.1)))) if values.size else 0.0


def longest_flat_stretch(row: np.ndarray) -> int:
    """Length of the longest run of equal finite values, in samples, of `row` of shape `(num_samples,)`."""
    values, lengths = _runs(row)
    return int(lengths[np.isfinite(values)].max(initial=0))


def clipped_samples(row: np.ndarray, shortest_run: int) -> int:
    """Samples in runs of at least `shortest_run` at the largest or the smallest value of `row`, `(num_samples,)`."""
    values, lengths = _runs(row)
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() == finite.max():
        return 0
    at_end = (values == finite.min()) | (values == finite.max())
    return int(lengths[at_end & (lengths >= shortest_run)].sum())


def _measure_values(row: np.ndarray, lead: str, sampling_rate: float, is_voltage: bool) -> dict[str, float | str]:
    """What can be told from the values of one lead, sample by sample; the rest is NaN."""
    finite = np.isfinite(row)
    kept = row[finite]
    lowest, highest = (float(kept.min()), float(kept.max())) if kept.size else (np.nan, np.nan)
    range_mv = highest - lowest if kept.size else 0.0
    shortest_run = max(_FEWEST_CLIPPED_SAMPLES, round(_SHORTEST_CLIP_SECONDS * sampling_rate))
    return dict.fromkeys(("noise_mv", "wander_mv", "hum_50hz_mv", "hum_60hz_mv"), np.nan) | {
        "lead": lead,
        "missing_samples": float((~finite).sum()),
        "range_mv": range_mv if is_voltage or range_mv == 0 else np.nan,
        "lowest_mv": lowest,
        "highest_mv": highest,
        "flat_seconds": longest_flat_stretch(row) / sampling_rate,
        "clipped_seconds": clipped_samples(row, shortest_run) / sampling_rate,
    }


def _measure_bands(signal: np.ndarray, sampling_rate: float) -> dict[str, np.ndarray]:
    """What can be told from the frequencies of finite leads `(num_leads, num_samples)`, each `(num_leads,)`."""
    low, high = np.percentile(band_pass(signal, sampling_rate, (0.0, _WANDER_HIGHEST_HZ)), (2, 98), axis=1)
    measures = {"wander_mv": high - low}
    for frequency in MAINS_HZ:
        tone = line_amplitude(signal, sampling_rate, frequency)
        if tone is not None:
            measures[f"hum_{frequency}hz_mv"] = tone
    if sampling_rate / 2 >= _NOISE_LOWEST_HZ + 10:
        edges = [_NOISE_LOWEST_HZ, *(edge for hz in MAINS_HZ for edge in (hz - 1.0, hz + 1.0)), sampling_rate / 2]
        noise = band_pass(signal, sampling_rate, *zip(edges[::2], edges[1::2], strict=True))
        length = max(1, round(0.2 * sampling_rate))
        pieces = noise[:, : noise.shape[1] // length * length].reshape(len(noise), -1, length)
        measures["noise_mv"] = np.median(np.sqrt((pieces**2).mean(axis=2)), axis=1)
    return measures


def _runs(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and lengths of the runs of equal values."""
    starts = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
    return row[starts], np.diff(np.append(starts, row.size))
