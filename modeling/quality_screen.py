"""Bounds that exclude most problems of most recordings, for a batch at once.

[`examine_signal`] takes milliseconds a recording, and nearly all recordings are good. What a bound leaves open here,
and that alone, it examines: no bound decides that something is wrong.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .leads import DERIVED_LIMB_LEADS, derivation_weights
from .signal_quality import (
    CHEST_LEADS,
    CHEST_TO_LIMB,
    EINTHOVEN_TOLERANCE,
    EQUAL_RANGES_RATIO,
    FLAT_SHARE,
    LIMB_SWAPS,
    LIMITS,
    LOWEST_SWAP_RATE_HZ,
    MAINS_HZ,
    SHORTEST_SECONDS,
    SHORTEST_SWAP_SECONDS,
    SWAP_BAND_HZ,
    SWAP_MARGIN,
    USUAL_RANGE_MV,
    WANDER_HIGHEST_HZ,
    Suspects,
    can_measure_tone,
    in_bands,
    noise_bands,
    noise_level,
    shortest_clip,
    spectral_power,
    with_third,
)

# Beyond them, float32 is too coarse for the bounds: squares of smaller values are 0.
_SMALLEST_RANGE, _LARGEST_RANGE = 1e-9, 100.0
_SLACK = 0.99  # of a limit, for the rounding of float32
_MOST_WAVE_VALUES = 2**19  # of waves to compare with, 4 MB; they grow with the square of the seconds


def screen_signals(
    signals: np.ndarray, leads: Sequence[str], sampling_rate: float, is_voltage: bool = True
) -> list[Suspects]:
    """Finds, for each recording, what has to be examined.

    Args:
        signals (float32 `np.ndarray` of shape `(batch, num_leads, num_samples)`): Recordings, as [`examine_signal`]
            takes one.
        leads (`Sequence[str]`): Standard names of the rows.
        sampling_rate (`float`): Rate in Hz.
        is_voltage (`bool`, *optional*, defaults to `True`): See [`measure_leads`].
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lowest, highest = signals.min(axis=-1), signals.max(axis=-1)
        ranges = highest.astype(np.float64) - lowest
        is_covered = (ranges == 0) | (ranges >= _SMALLEST_RANGE) & (ranges <= _LARGEST_RANGE)
        is_open = ~is_covered.all(axis=-1)  # what is not finite too
    found = Suspects(*(np.repeat(is_open[:, None], len(leads), axis=1), *(is_open.copy() for _ in range(5))))
    if not is_open.all():
        screened = ~is_open
        if not screened.all():
            signals, lowest, highest, ranges = (of[screened] for of in (signals, lowest, highest, ranges))
        cosines = _cosines(signals)
        found.leads[screened] = _leads(signals, lowest, highest, ranges, cosines, sampling_rate, is_voltage)
        if is_voltage:
            found.unit[screened] = _unit(signals, ranges)
        found.limb_swap[screened] = _limb_swap(cosines, leads, sampling_rate)
        found.einthoven[screened] = _einthoven(cosines, leads)
        found.duplicate_leads[screened] = _duplicates(signals, lowest, highest, ranges)
        found.equal_ranges[screened] = _equal_ranges(ranges)
    return [Suspects(*of) for of in zip(*found, strict=True)]


def _leads(
    signals: np.ndarray,
    lowest: np.ndarray,
    highest: np.ndarray,
    ranges: np.ndarray,
    cosines: np.ndarray,
    sampling_rate: float,
    is_voltage: bool,
) -> np.ndarray:
    """Leads that may have a problem by themselves, `(batch, num_leads)`."""
    num_samples = signals.shape[-1]
    # Besides, a lead that stands still for long counts as not recorded.
    shortest_seconds = min(LIMITS["flat_seconds"].most, FLAT_SHARE * num_samples / sampling_rate)
    suspected = (ranges == 0) | _may_stand_still(signals, int(shortest_seconds * sampling_rate) + 1)
    # Of a run of r and more samples, every r-th sees as many as length // r, at least length / (2 r - 1).
    run = shortest_clip(sampling_rate)
    seen = signals[..., ::run]
    num_seen = ((seen == lowest[..., None]) | (seen == highest[..., None])).sum(axis=-1)
    suspected |= num_seen * (2 * run - 1) / sampling_rate > LIMITS["clipped_seconds"].most
    if not is_voltage:
        return suspected
    suspected |= ranges < LIMITS["range_mv"].least
    if num_samples < SHORTEST_SECONDS * sampling_rate:
        return suspected
    # A sum of cosines spans at most twice the sum of their amplitudes.
    num_slow = np.count_nonzero(_in_bands(num_samples, sampling_rate, ((0.0, WANDER_HIGHEST_HZ),)))
    amplitudes = np.abs(cosines[..., 1:num_slow]).sum(axis=-1) * np.sqrt(2 / num_samples)
    suspected |= ~(2 * amplitudes <= _SLACK * LIMITS["wander_mv"].most)
    for frequency in MAINS_HZ:
        if can_measure_tone(num_samples, sampling_rate, frequency):
            limit = _SLACK * LIMITS[f"hum_{frequency}hz_mv"].most
            suspected |= ~(_tone_power(signals, sampling_rate, frequency) <= limit**2)
    bands = noise_bands(sampling_rate)
    if bands:
        # A median above the limit needs half of the stretches above it.
        length, limit = max(1, round(0.2 * sampling_rate)), _SLACK * LIMITS["noise_mv"].most
        least = -(-(num_samples // length) // 2) * length * limit**2
        energy = np.square(cosines) @ _in_bands(num_samples, sampling_rate, bands).astype(np.float32)
        may_be_noisy = ~(energy <= least) & ~suspected
        if may_be_noisy.any():
            suspected[may_be_noisy] = ~(noise_level(signals[may_be_noisy], sampling_rate) <= limit)
    return suspected


def _may_stand_still(signals: np.ndarray, shortest: int) -> np.ndarray:
    """Rows that may hold a run of at least `shortest` equal samples: the run shows in every n-th sample too."""
    step = max(1, shortest // 8)
    seen = signals[..., ::step]
    is_equal = seen[..., 1:] == seen[..., :-1]
    run = np.ones_like(is_equal)
    for _ in range(shortest // step - 1):
        run = run[..., : is_equal.shape[-1]] & is_equal
        is_equal = is_equal[..., 1:]
    return run.any(axis=-1)


def _unit(signals: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Recordings whose typical range, without the outermost samples, may be unusual, `(batch,)`.

    The largest values of stretches are values of the lead: the n-th of them is at most the n-th of all.
    """
    num_samples = signals.shape[-1]
    num_left_out = -(-(num_samples - 1) // 1000)
    length = num_samples // max(24, 4 * num_left_out)
    if not length:
        return np.ones(len(signals), dtype=bool)
    stretches = signals[..., : num_samples // length * length]
    stretches = stretches.reshape(*ranges.shape, -1, length)
    highest, lowest = stretches.max(axis=-1), stretches.min(axis=-1)
    highest = np.partition(highest, -1 - num_left_out, axis=-1)[..., -1 - num_left_out]
    lowest = np.partition(lowest, num_left_out, axis=-1)[..., num_left_out]
    least = highest.astype(np.float64) - lowest
    is_usual = np.median(least, axis=-1) * _SLACK >= USUAL_RANGE_MV[0]
    is_usual &= np.median(ranges, axis=-1) <= _SLACK * USUAL_RANGE_MV[1]
    return ~is_usual | (least <= 0).any(axis=-1)  # a lead that may be flat may not count


def _limb_swap(cosines: np.ndarray, leads: Sequence[str], sampling_rate: float) -> np.ndarray:
    """Recordings whose limb leads may fit their reconstruction better with a swap undone, `(batch,)`.

    Correlations are ratios of sums of products, which are those of the cosines within the band.
    """
    wanted, num_samples = ("I", "II", *CHEST_LEADS), cosines.shape[-1]
    is_open = np.zeros(len(cosines), dtype=bool)
    is_too_short = num_samples < SHORTEST_SWAP_SECONDS * sampling_rate
    if not set(wanted) <= set(leads) or sampling_rate < LOWEST_SWAP_RATE_HZ or is_too_short:
        return is_open
    in_band = _in_bands(num_samples, sampling_rate, (SWAP_BAND_HZ,))
    products = _products(cosines[:, [leads.index(lead) for lead in wanted]] * in_band)
    expected = with_third(np.concatenate([np.zeros((2, 2)), CHEST_TO_LIMB], axis=1))
    expected_square = _sum_of_products(products, expected, expected)
    correlations = {}
    for name, undone in LIMB_SWAPS.items():
        limb = with_third(np.concatenate([undone, np.zeros((2, len(CHEST_LEADS)))], axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):  # of flat leads
            scale = np.sqrt(expected_square * _sum_of_products(products, limb, limb))
            correlations[name] = _sum_of_products(products, limb, expected) / scale
    rise = np.maximum(correlations["LA/RA"], correlations["RA/LL"])
    rise = rise - np.maximum(correlations["as recorded"], correlations["LA/LL"])
    return ~(rise <= _SLACK * SWAP_MARGIN)


def _einthoven(cosines: np.ndarray, leads: Sequence[str]) -> np.ndarray:
    """Recordings of which a limb lead may be another than what I and II give for it, `(batch,)`."""
    recorded = [lead for lead in DERIVED_LIMB_LEADS if lead in leads]
    if not {"I", "II"} <= set(leads) or not recorded:
        return np.zeros(len(cosines), dtype=bool)
    moving = cosines[:, [leads.index(lead) for lead in ("I", "II", *recorded)], 1:]  # without the means
    products = _products(moving)
    largest = np.diagonal(products, axis1=1, axis2=2).max(axis=1)
    difference = np.eye(len(recorded), len(recorded) + 2, 2)
    difference[:, :2] = [[-derivation_weights(lead)[of] for of in ("I", "II")] for lead in recorded]
    squares = np.stack([_sum_of_products(products, row[None], row[None]) for row in difference])
    return ~(squares <= _SLACK * EINTHOVEN_TOLERANCE**2 * largest).all(axis=0)


def _duplicates(signals: np.ndarray, lowest: np.ndarray, highest: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Recordings with leads that begin alike and have the same bounds, `(batch,)`."""
    marks = np.stack([lowest, highest, signals[..., 0], signals[..., signals.shape[-1] // 2]])
    first, second = np.triu_indices(ranges.shape[1], k=1)
    return ((marks[..., first] == marks[..., second]).all(axis=0) & (ranges[:, first] > 0)).any(axis=-1)


def _equal_ranges(ranges: np.ndarray) -> np.ndarray:
    """Recordings whose leads all span the same range, `(batch,)`."""
    moving = ranges > 0
    smallest = np.where(moving, ranges, np.inf).min(axis=-1)
    return (moving.sum(axis=-1) >= 3) & (ranges.max(axis=-1) <= EQUAL_RANGES_RATIO * smallest)


def _products(rows: np.ndarray) -> np.ndarray:
    """Sums of the products of all pairs of rows, float64 `(batch, rows, rows)` of `(batch, rows, values)`."""
    return (rows @ rows.transpose(0, 2, 1)).astype(np.float64)


def _sum_of_products(products: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum of the products of two signals `(signals, rows)`, combinations of rows whose `products` are known."""
    return products.reshape(len(products), -1) @ (first.T @ second).ravel()


def _cosines(signals: np.ndarray) -> np.ndarray:
    """Orthonormal cosine transform of each row without its first value, which is half of the spectrum of the row and
    its mirror image; by a Fourier transform of the even samples and then, backwards, of the odd ones.

    Source: Makhoul, IEEE Trans. Acoust. 1980;28:27.
    """
    import torch  # here, as `ecg-transformers info` looks at recordings without it

    num_samples = signals.shape[-1]
    half = (num_samples + 1) // 2
    ordered, first = np.empty_like(signals), signals[..., :1]
    np.subtract(signals[..., ::2], first, out=ordered[..., :half])
    np.subtract(signals[..., 1::2][..., ::-1], first, out=ordered[..., half:])
    spectrum = torch.fft.rfft(torch.from_numpy(ordered)).numpy()  # in a quarter of the time of numpy
    spectrum *= _rotation(num_samples)
    cosines, num_real = ordered, spectrum.shape[-1]
    cosines[..., :num_real] = spectrum.real
    cosines[..., num_real:] = -spectrum.imag[..., 1 : num_samples - num_real + 1][..., ::-1]
    return cosines


@lru_cache(maxsize=16)
def _rotation(num_samples: int) -> np.ndarray:
    rotation = np.sqrt(2 / num_samples) * np.exp(-0.5j * np.pi / num_samples * np.arange(num_samples // 2 + 1))
    rotation[0] /= np.sqrt(2)
    return rotation.astype(np.complex64)


@lru_cache(maxsize=64)
def _in_bands(num_samples: int, sampling_rate: float, bands_hz: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Cosines whose frequencies [`band_pass`] keeps, bool `(num_samples,)`."""
    return in_bands(np.fft.rfftfreq(2 * num_samples, 1 / sampling_rate)[:num_samples], bands_hz)


def _tone_power(signals: np.ndarray, sampling_rate: float, frequency_hz: float) -> np.ndarray:
    """Power that [`line_amplitude`] finds within 1 Hz of a tone, `(batch, num_leads)`."""
    num_samples, moving = signals.shape[-1], signals - signals[..., :1]
    near = _near(num_samples, sampling_rate, frequency_hz)
    if num_samples * len(near) <= _MOST_WAVE_VALUES:
        parts = moving @ _tone_parts(num_samples, sampling_rate, frequency_hz)
        return np.einsum("blk,blk->bl", parts, parts)
    return spectral_power(moving)[..., near].sum(axis=-1)


def _near(num_samples: int, sampling_rate: float, frequency_hz: float) -> np.ndarray:
    return np.flatnonzero(np.abs(np.fft.rfftfreq(num_samples, 1 / sampling_rate) - frequency_hz) <= 1.0)


@lru_cache(maxsize=8)
def _tone_parts(num_samples: int, sampling_rate: float, frequency_hz: float) -> np.ndarray:
    """Float32 `(num_samples, parts)`: sum of squares of the products with a signal is the power that
    [`line_amplitude`] finds within 1 Hz of the tone."""
    window = np.hanning(num_samples)
    near = _near(num_samples, sampling_rate, frequency_hz)
    waves = np.exp(-2j * np.pi / num_samples * np.outer(np.arange(num_samples), near)) * window[:, None]
    waves -= waves.mean(axis=0)  # of a signal without its mean
    scale = np.sqrt(2 / (num_samples * (window**2).sum()))
    return (np.concatenate([waves.real, waves.imag], axis=1) * scale).astype(np.float32)
