"""Quality of a recording, by numbers alone: each lead by itself, the leads against each other, the unit.

Of each lead: gaps, flat stretches, clipping, noise, wander, mains hum, amplitude. Of the leads together: limb leads
against Einthoven's law and against the chest leads, copies, equal ranges. Measures come with thresholds (`LIMITS`)
above which a lead is named. They are suspicions for a person to look at, with their evidence: rare axes and rare
hearts look like swapped electrodes too, and nothing is changed. Where a measure cannot be taken (too short, too low a
rate, values that are no voltage), it is NaN and never flagged. `docs/your_own_data.md` has the measured sensitivity
and specificity.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .leads import DERIVED_LIMB_LEADS, derivation_weights

MAINS_HZ = (50, 60)
_NOISE_LOWEST_HZ, WANDER_HIGHEST_HZ = 35.0, 0.5
_SHORTEST_CLIP_SECONDS, _FEWEST_CLIPPED_SAMPLES = 0.02, 3
SHORTEST_SECONDS = 4.0
CHEST_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6")

CHEST_TO_LIMB = np.array([[-0.395, 0.146, 0.074, -0.085, 0.124, 0.291], [-0.049, -0.054, 0.098, 0.074, 0.147, 0.313]])
"""Lead I and lead II as weighted sums of V1 to V6: least squares over folds 1-8 of the carried PTB-XL recordings,
0.7-35 Hz, each weighted by one over the root mean square of its I and II. (The idea, to reconstruct leads from others
and to compare, is that of Kors & van Herpen, J Electrocardiol 2001;34:215; the coefficients are ours.)"""

SWAP_MARGIN = 0.3
"""By how much the correlation with the reconstruction has to rise when a swap is undone. Ours: 0.2 to 0.4 were tried
on the carried PTB-XL recordings; at 0.3, one of 495 is suspected."""

EINTHOVEN_TOLERANCE = 0.15
"""Largest difference (root mean square) between a limb lead and what I and II give for it, as a share of the largest
limb lead. Ours: rounding stays below 0.01; a lead of another name or sign, or one recorded at another time, above."""

SWAP_BAND_HZ = (0.7, 35.0)
SHORTEST_SWAP_SECONDS, LOWEST_SWAP_RATE_HZ = 2.0, 80.0

LIMB_SWAPS = {
    "as recorded": ((1, 0), (0, 1)),
    "LA/RA": ((-1, 0), (-1, 1)),
    "RA/LL": ((1, -1), (0, -1)),
    "LA/LL": ((0, 1), (1, 0)),
}
"""Weights of the recorded I and II in lead I and lead II with each swap undone."""

EQUAL_RANGES_RATIO = 1.01


@dataclass(frozen=True)
class Limit:
    """A measure above `most` (or, with `least`, below it) is worth a look.

    Args:
        unit (`str`): `"mV"`, `"s"` or `"samples"`.
        name (`str`): Name of the finding.
        meaning (`str`): Fault of the lead then.
        most, least (`float`, *optional*): Limit in the unit of the measure; exactly on the limit is still good.
    """

    unit: str
    name: str
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
    "missing_samples": Limit("samples", "missing_samples", "missing or infinite samples", most=0),
    "range_mv": Limit("mV", "flat_leads", "flat lead", least=0.05),
    "flat_seconds": Limit("s", "flat_stretch", "stands still for a stretch", most=1.0),
    "clipped_seconds": Limit("s", "clipped", "clipped: rests at its highest or lowest value", most=0.15),
    "noise_mv": Limit("mV", "noise", "high-frequency noise", most=0.05),
    "wander_mv": Limit("mV", "baseline_wander", "baseline wander", most=2.5),
    "hum_50hz_mv": Limit("mV", "hum_50hz", "50 Hz mains hum", most=0.03),
    "hum_60hz_mv": Limit("mV", "hum_60hz", "60 Hz mains hum", most=0.03),
}

FLAT_SHARE = 0.5
"""A lead that stands still for more than this share of what a model reads counts as not recorded."""

USUAL_RANGE_MV = (0.2, 20.0)
"""Median over the leads of the range without its outermost samples, which nearly every clinical recording has in mV.
Ours; those of the carried PTB-XL recordings lie between 0.54 and 4.4 mV."""


@dataclass(frozen=True)
class LeadQuality:
    """The measures of one lead, in the order of `LIMITS`, NaN where a measure cannot be taken.

    Args:
        lead (`str`): Name.
        missing_samples (`float`): Samples that are NaN or infinite.
        range_mv (`float`): Largest less smallest value.
        lowest_mv, highest_mv (`float`): Smallest and largest value.
        flat_seconds (`float`): Longest stretch of equal values.
        clipped_seconds (`float`): Time in stretches of at least 3 samples and 20 ms at the largest or smallest value.
        noise_mv (`float`):
            Noise above 35 Hz without hum at 50 and 60 Hz: the median over 0.2 s stretches of the root mean square, so
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

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """The names of the measures beyond their limit. A flat lead is that and nothing else, gaps apart."""
        found = [name for name, limit in LIMITS.items() if limit.is_exceeded(vars(self)[name])]
        return tuple(name for name in found if "range_mv" not in found or name in ("range_mv", "missing_samples"))


@dataclass(frozen=True)
class SignalReport:
    """Findings of [`examine_signal`].

    Args:
        quality (`tuple[LeadQuality, ...]`): Measures of every lead that was examined.
        problems (`dict[str, str]`):
            Key of a problem (of `LIMITS`, or `"unit"`, `"limb_swap"`, `"einthoven"`, `"duplicate_leads"`,
            `"equal_ranges"`) → sentence with the evidence.
        checked_limb_swap (`bool`): Whether the limb electrodes could be checked.
    """

    quality: tuple[LeadQuality, ...]
    problems: dict[str, str]
    checked_limb_swap: bool


@dataclass(frozen=True)
class LimbSwapCheck:
    """Verdict on whether the limb electrodes look interchanged.

    Args:
        suspected (`str`, *optional*): `"LA/RA"` (the arms) or `"RA/LL"` (right arm and left leg); `None`: neither.
        correlations (`dict`):
            Correlation of I, II and III with their reconstruction from V1 to V6, as recorded (`"as recorded"`) and
            with each swap undone.
        evidence (`str`): A sentence; empty if nothing is suspected.
    """

    suspected: str | None
    correlations: Mapping[str, float]
    evidence: str


@dataclass(frozen=True)
class LimbMisfit:
    """A limb lead that is not what I and II give for it.

    Args:
        difference (`float`): Root mean square, in the unit of the signal.
        looks_like (`str`, *optional*): The lead that it is by I and II, with a minus if upside down: `"-aVR"`.
    """

    difference: float
    looks_like: str | None


class Suspects(NamedTuple):
    """Checks of a recording that may find something, by [`screen_signals`]; all others certainly find nothing.

    Args:
        leads (bool `np.ndarray` of shape `(num_leads,)`): Leads that may have a problem by themselves.
        unit, limb_swap, einthoven, duplicate_leads, equal_ranges (`bool`): Checks of the leads together.
    """

    leads: np.ndarray
    unit: bool = True
    limb_swap: bool = True
    einthoven: bool = True
    duplicate_leads: bool = True
    equal_ranges: bool = True

    @property
    def is_any(self) -> bool:
        return any(self[1:]) or bool(self.leads.any())


def examine_signal(
    signal: np.ndarray,
    leads: Sequence[str],
    sampling_rate: float,
    unit: str,
    is_voltage: bool = True,
    suspects: Suspects | None = None,
) -> SignalReport:
    """All checks of a recording. Nothing is changed, nothing decided: every problem is a suspicion with its evidence.

    Args:
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): Signal in mV; not finite samples are missing.
        leads (`Sequence[str]`): Standard names of the rows.
        sampling_rate (`float`): Rate in Hz.
        unit (`str`): The declared one, for the sentence.
        is_voltage (`bool`, *optional*, defaults to `True`): See [`measure_leads`].
        suspects ([`Suspects`], *optional*): Checks and leads that are worth the time; by default all.
    """
    suspects = suspects or Suspects(np.ones(len(leads), dtype=bool))
    rows = np.flatnonzero(suspects.leads)
    quality = measure_leads(np.asarray(signal)[rows], [leads[row] for row in rows], sampling_rate, is_voltage)
    problems = dict(lead_problems(quality))
    if is_voltage and suspects.unit and (sentence := suspect_unit(signal, unit)):
        problems["unit"] = sentence[0].upper() + sentence[1:]
    swap = check_limb_swap(signal, leads, sampling_rate) if suspects.limb_swap else None
    if swap is not None and swap.suspected:
        electrodes = {"LA/RA": "left and right arm", "RA/LL": "right arm and left leg"}[swap.suspected]
        problems["limb_swap"] = f"The electrodes of {electrodes} ({swap.suspected}) look interchanged: {swap.evidence}"
    if suspects.einthoven and (broken := check_einthoven(signal, leads)):
        problems["einthoven"] = _limb_sentence(broken)
    if suspects.duplicate_leads and (pairs := duplicate_leads(signal, leads)):
        problems["duplicate_leads"] = "; ".join(f"{first} and {second} are the same" for first, second in pairs)
    if suspects.equal_ranges and leads_of_equal_range(signal):
        problems["equal_ranges"] = "All leads span the same range: each was probably scaled by itself"
    return SignalReport(tuple(quality), problems, swap is not None)


def measure_leads(
    signal: np.ndarray, leads: Sequence[str], sampling_rate: float, is_voltage: bool = True
) -> list[LeadQuality]:
    """The quality of every lead.

    Args:
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): Signal in mV; not finite samples are missing.
        leads (`Sequence[str]`): Names of the rows.
        sampling_rate (`float`): Rate in Hz.
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
    if is_voltage and whole and signal.shape[1] >= SHORTEST_SECONDS * sampling_rate:
        spectral = _measure_bands(signal[whole], sampling_rate)
        for position, row in enumerate(whole):
            found[row] |= {name: float(values[position]) for name, values in spectral.items()}
    return [LeadQuality(**measures) for measures in found]


def lead_problems(quality: Sequence[LeadQuality]) -> Iterator[tuple[str, str]]:
    """Pairs of a measure and a sentence on the leads beyond its limit, with the worst value."""
    for name, limit in LIMITS.items():
        values = {lead.lead: vars(lead)[name] for lead in quality if name in lead.problems}
        if values:
            worst = max(values.values()) if limit.least is None else min(values.values())
            size = f"{worst:.3g} {limit.unit}" if len(values) == 1 else f"{worst:.3g} {limit.unit} at worst"
            yield name, f"{limit.meaning[0].upper()}{limit.meaning[1:]}: {', '.join(values)} ({size}; good: {limit})"


def suspect_unit(signal_mv: np.ndarray, declared: str) -> str | None:
    """A sentence if the amplitudes suggest another unit than the declared one; `None` if they do not.

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): Signal in mV, by the declared unit.
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


def check_limb_swap(signal_mv: np.ndarray, leads: Sequence[str], sampling_rate: float) -> LimbSwapCheck | None:
    """Compares lead I, II and III with their reconstruction from V1 to V6, as recorded and with each swap undone.

    A swap of the left arm and the left leg is tried, because it must not be taken for another one, but never
    suspected: it exchanges I and II, which a turn of the heart's axis does as well.

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): Signal in any one unit; mV by convention.
        leads (`Sequence[str]`): Standard names of the rows.
        sampling_rate (`float`): Rate in Hz.

    Returns:
        `None` where it cannot be checked: without I, II and all chest leads, with missing samples in them, for less
        than 2 s, below 80 Hz, or where one side is flat.
    """
    wanted = ("I", "II", *CHEST_LEADS)
    leads = list(leads)
    if not set(wanted) <= set(leads) or sampling_rate < LOWEST_SWAP_RATE_HZ:
        return None
    signal = np.asarray(signal_mv, dtype=np.float64)[[leads.index(lead) for lead in wanted]]
    if signal.shape[1] < SHORTEST_SWAP_SECONDS * sampling_rate or not np.isfinite(signal).all():
        return None
    signal = band_pass(signal, sampling_rate, SWAP_BAND_HZ)
    expected = with_third(CHEST_TO_LIMB @ signal[2:])
    limb = {name: with_third(np.array(weights) @ signal[:2]) for name, weights in LIMB_SWAPS.items()}
    if not expected.any() or not all(leads.any() for leads in limb.values()):
        return None
    correlations = {name: _correlation(leads, expected) for name, leads in limb.items()}
    best = max(("LA/RA", "RA/LL"), key=correlations.get)
    if correlations[best] - max(correlations["as recorded"], correlations["LA/LL"]) <= SWAP_MARGIN:
        return LimbSwapCheck(None, correlations, "")
    lead, row = {"LA/RA": ("I", 0), "RA/LL": ("II", 1)}[best]
    alone, avr = _correlation(signal[row], expected[row]), -(signal[0] + signal[1])
    evidence = (
        f"against V1-V6 the limb leads correlate {correlations['as recorded']:.2f} as recorded and "
        f"{correlations[best]:.2f} with the swap undone; lead {lead} alone {alone:.2f}; "
        f"aVR points {'up' if avr.max() > -avr.min() else 'down'}"
    )
    return LimbSwapCheck(best, correlations, evidence)


def check_einthoven(signal_mv: np.ndarray, leads: Sequence[str]) -> dict[str, LimbMisfit]:
    """Limb leads that are not what I and II give for them (III = II - I, aVR = -(I + II) / 2, ...).

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): Signal in any one unit; NaN is left out.
        leads (`Sequence[str]`): Standard names of the rows.

    Returns:
        name of the lead → its misfit. Constants are left out of the comparison: they are baselines.
    """
    leads = list(leads)
    recorded = [lead for lead in DERIVED_LIMB_LEADS if lead in leads]
    if not {"I", "II"} <= set(leads) or not recorded:
        return {}
    rows = np.asarray(signal_mv, dtype=np.float64)[[leads.index(lead) for lead in ("I", "II", *recorded)]]
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    if not rows.shape[1]:
        return {}
    rows = rows - rows.mean(axis=1, keepdims=True)
    weights = {lead: derivation_weights(lead) for lead in DERIVED_LIMB_LEADS}
    given = {"I": rows[0], "II": rows[1]}
    given |= {lead: weight["I"] * rows[0] + weight["II"] * rows[1] for lead, weight in weights.items()}
    tolerance = EINTHOVEN_TOLERANCE * max(_rms(row) for row in rows)
    found = {}
    for lead, row in zip(recorded, rows[2:], strict=True):
        if _rms(row - given[lead]) <= tolerance:
            continue
        candidates = [(name, sign) for name in given for sign in (1, -1) if (name, sign) != (lead, 1)]
        name, sign = min(candidates, key=lambda candidate: _rms(row - candidate[1] * given[candidate[0]]))
        is_found = _rms(row - sign * given[name]) <= tolerance / 3
        looks_like = ("-" if sign < 0 else "") + name if is_found else None
        found[lead] = LimbMisfit(_rms(row - given[lead]), looks_like)
    return found


def leads_of_equal_range(signal: np.ndarray) -> bool:
    """Finds whether at least three leads span the same range within 1 %, as they do when each was scaled by itself.

    Amplitudes then cannot be compared between leads. (The limb leads of such recordings break Einthoven's law too.)

    Args:
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): Signal in any unit; flat leads are left out.
    """
    finite = [row[np.isfinite(row)] for row in np.asarray(signal, dtype=np.float64)]
    ranges = [float(np.ptp(row)) for row in finite if row.size and np.ptp(row) > 0]
    return len(ranges) >= 3 and max(ranges) <= EQUAL_RANGES_RATIO * min(ranges)


def duplicate_leads(signal: np.ndarray, leads: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of leads with equal samples, apart from flat ones.

    Args:
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): Signal in any unit; NaN equals NaN.
        leads (`Sequence[str]`): Names of the rows.
    """
    signal = np.asarray(signal)
    finite = [row[np.isfinite(row)] for row in signal]
    moving = [number for number, row in enumerate(finite) if row.size and np.ptp(row) > 0]
    return [
        (leads[first], leads[second])
        for position, first in enumerate(moving)
        for second in moving[position + 1 :]
        if all(np.array_equal(signal[first, :end], signal[second, :end], equal_nan=True) for end in (64, None))
    ]


def band_pass(signal: np.ndarray, sampling_rate: float, *bands_hz: tuple[float, float]) -> np.ndarray:
    """The parts of a signal within bands of frequency, zero phase, with sharp edges.

    The signal is continued by its mirror image at both ends, so that a drift makes no step where they meet.

    Args:
        signal (`np.ndarray` of shape `(..., num_samples)`): Finite.
        sampling_rate (`float`): Rate in Hz.
        bands_hz (`tuple[float, float]`): Lowest and highest frequency of each band, which belong to it; 0 is the mean.

    Returns:
        float64 of the same shape.
    """
    signal = np.asarray(signal, dtype=np.float64)
    num_samples = signal.shape[-1]
    mirrored = np.concatenate([signal, signal[..., ::-1]], axis=-1)
    spectrum = np.fft.rfft(mirrored)
    spectrum[..., ~in_bands(np.fft.rfftfreq(2 * num_samples, 1 / sampling_rate), bands_hz)] = 0
    return np.fft.irfft(spectrum, 2 * num_samples)[..., :num_samples]


def in_bands(frequencies_hz: np.ndarray, bands_hz: Sequence[tuple[float, float]]) -> np.ndarray:
    """Finds the frequencies that lie in one of the bands, edges among them."""
    return np.any([(frequencies_hz >= low) & (frequencies_hz <= high) for low, high in bands_hz], axis=0)


def line_amplitude(signal: np.ndarray, sampling_rate: float, frequency_hz: float) -> np.ndarray | None:
    """Root mean square of a steady tone above what the neighbouring frequencies hold.

    Args:
        signal (`np.ndarray` of shape `(..., num_samples)`): Finite, in any unit.
        sampling_rate (`float`): Rate in Hz.
        frequency_hz (`float`): Frequency of the tone; it may be off by 0.5 Hz.

    Returns:
        of shape `(...)`, in the unit of the signal; `None` where it is not available: less than 4 s, or a tone within
        5 Hz of half the rate.
    """
    num_samples = signal.shape[-1]
    if not can_measure_tone(num_samples, sampling_rate, frequency_hz):
        return None
    power = spectral_power(np.asarray(signal, dtype=np.float64))
    distance = np.abs(np.fft.rfftfreq(num_samples, 1 / sampling_rate) - frequency_hz)
    line, around = distance <= 1.0, (distance > 1.5) & (distance <= 5.0)
    background = np.median(power[..., around], axis=-1) / np.log(2) * line.sum()  # mean of an exponential law
    return np.sqrt(np.maximum(power[..., line].sum(axis=-1) - background, 0.0))


def spectral_power(signal: np.ndarray) -> np.ndarray:
    """Power of a signal without its mean at each frequency of its Fourier transform, in a Hann window: that of a
    steady tone sums to its mean square. Computes in the precision of the signal."""
    num_samples = signal.shape[-1]
    window = np.hanning(num_samples).astype(signal.dtype)
    spectrum = np.fft.rfft((signal - signal.mean(axis=-1, keepdims=True)) * window)
    return 2 * np.abs(spectrum) ** 2 / (num_samples * (window**2).sum())


def can_measure_tone(num_samples: int, sampling_rate: float, frequency_hz: float) -> bool:
    return num_samples >= SHORTEST_SECONDS * sampling_rate and frequency_hz + 5 <= sampling_rate / 2


def shortest_clip(sampling_rate: float) -> int:
    """Samples of the shortest run at the largest or smallest value that counts as clipped."""
    return max(_FEWEST_CLIPPED_SAMPLES, round(_SHORTEST_CLIP_SECONDS * sampling_rate))


def noise_bands(sampling_rate: float) -> tuple[tuple[float, float], ...]:
    """Bands of noise without mains hum, in Hz; none where the rate is too low for them."""
    if sampling_rate / 2 < _NOISE_LOWEST_HZ + 10:
        return ()
    edges = [_NOISE_LOWEST_HZ, *(edge for hz in MAINS_HZ for edge in (hz - 1.0, hz + 1.0)), sampling_rate / 2]
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def noise_level(signal: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Median over stretches of 0.2 s of the root mean square within [`noise_bands`], of finite rows
    `(num_leads, num_samples)`: `(num_leads,)`."""
    noise = band_pass(signal, sampling_rate, *noise_bands(sampling_rate))
    length = max(1, round(0.2 * sampling_rate))
    pieces = noise[:, : noise.shape[1] // length * length].reshape(len(noise), -1, length)
    return np.median(np.sqrt((pieces**2).mean(axis=2)), axis=1)


def _measure_values(row: np.ndarray, lead: str, sampling_rate: float, is_voltage: bool) -> dict[str, float | str]:
    """Measures what can be told from the values of one lead, sample by sample; the rest is NaN."""
    finite = np.isfinite(row)
    kept = row[finite]
    lowest, highest = (float(kept.min()), float(kept.max())) if kept.size else (np.nan, np.nan)
    range_mv = highest - lowest if kept.size else 0.0
    return dict.fromkeys(("noise_mv", "wander_mv", "hum_50hz_mv", "hum_60hz_mv"), np.nan) | {
        "lead": lead,
        "missing_samples": float((~finite).sum()),
        "range_mv": range_mv if is_voltage or range_mv == 0 else np.nan,
        "lowest_mv": lowest,
        "highest_mv": highest,
        "flat_seconds": longest_flat_stretch(row) / sampling_rate,
        "clipped_seconds": clipped_samples(row, shortest_clip(sampling_rate)) / sampling_rate,
    }


def _measure_bands(signal: np.ndarray, sampling_rate: float) -> dict[str, np.ndarray]:
    """Measures the frequencies of finite leads `(num_leads, num_samples)`, each `(num_leads,)`."""
    low, high = np.percentile(band_pass(signal, sampling_rate, (0.0, WANDER_HIGHEST_HZ)), (2, 98), axis=1)
    measures = {"wander_mv": high - low}
    for frequency in MAINS_HZ:
        tone = line_amplitude(signal, sampling_rate, frequency)
        if tone is not None:
            measures[f"hum_{frequency}hz_mv"] = tone
    if noise_bands(sampling_rate):
        measures["noise_mv"] = noise_level(signal, sampling_rate)
    return measures


def _runs(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and lengths of the runs of equal values."""
    starts = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
    return row[starts], np.diff(np.append(starts, row.size))


def with_third(limb: np.ndarray) -> np.ndarray:
    """Rows I, II and III = II - I, of I and II."""
    return np.stack([limb[0], limb[1], limb[1] - limb[0]])


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Correlates signals without mean over all rows at once, so that a small lead counts as little as it shows."""
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def _rms(row: np.ndarray) -> float:
    return float(np.sqrt(np.mean(row**2)))


def _limb_sentence(broken: Mapping[str, LimbMisfit]) -> str:
    parts = [
        f"{lead} is what I and II give for {misfit.looks_like}" for lead, misfit in broken.items() if misfit.looks_like
    ]
    rest = [lead for lead, misfit in broken.items() if not misfit.looks_like]
    if rest:
        largest = max(broken[lead].difference for lead in rest)
        parts.append(f"{', '.join(rest)} differ from what I and II give (root mean square up to {largest:.2g})")
    return f"Limb leads do not fit together: {'; '.join(parts)}"
