"""The median beat of a recording: what its beats have in common, in all leads."""

import numpy as np

from .beat_channels import find_peaks

BEFORE_SECONDS = 0.3
AFTER_SECONDS = 0.5
"""Stretch of a beat around its largest slopes."""
LAG_SECONDS = 0.01
"""A slope is a difference over so much time, at every rate."""
SLOPE_SECONDS = 0.07
"""Over so much time slopes are averaged to find a beat; about the length of a QRS complex."""
REFRACTORY_SECONDS = 0.28
SHIFT_SECONDS = 0.04
"""By how much beats are moved at most to lie on each other."""
ALIGNMENT_SHIFT_SECONDS = 0.08
"""The same for median beats of different recordings."""
ROUNDS = 2


def find_beats(values: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Places of the beats of a recording `(num_leads, num_samples)`, in samples: bursts of slope over all leads."""
    lag = max(1, round(LAG_SECONDS * sampling_rate))
    slopes = np.square(values[:, lag:] - values[:, :-lag]).sum(axis=0)
    width = max(1, round(SLOPE_SECONDS * sampling_rate))
    slopes = np.convolve(slopes, np.full(width, 1 / width), mode="same")
    return find_peaks(slopes, 0.25 * np.quantile(slopes, 0.985), REFRACTORY_SECONDS * sampling_rate) + lag // 2


def median_beat(values: np.ndarray, sampling_rate: float) -> np.ndarray:
    """The median of the beats of a recording, each moved to where it fits the others best.

    Args:
        values (`np.ndarray` of shape `(num_leads, num_samples)`): The signal, in any unit.
        sampling_rate (`float`): Samples per second, in Hz.

    Returns:
        `np.ndarray` of shape `(num_leads, beat_length(sampling_rate))`; zeros where fewer than two beats are whole.
    """
    before, reach = round(BEFORE_SECONDS * sampling_rate), round(SHIFT_SECONDS * sampling_rate)
    length = beat_length(sampling_rate)
    first, last = before + reach, values.shape[1] - (length - before) - reach
    beats = find_beats(values, sampling_rate)
    beats = beats[(beats >= first) & (beats < last)]
    if len(beats) < 2:
        return np.zeros((len(values), length), dtype=values.dtype)
    around = np.arange(-before, length - before)
    shifts = np.arange(-reach, reach + 1)
    for _ in range(ROUNDS):
        median = np.median(values[:, beats[:, None] + around], axis=1)
        fits = [
            np.tensordot(values[:, beats[:, None] + around + shift], median, axes=([0, 2], [0, 1])) for shift in shifts
        ]
        beats = np.clip(beats + shifts[np.argmax(fits, axis=0)], first, last)
    return np.median(values[:, beats[:, None] + around], axis=1).astype(values.dtype)


def beat_length(sampling_rate: float) -> int:
    """Length of a median beat, in samples."""
    return round(BEFORE_SECONDS * sampling_rate) + round(AFTER_SECONDS * sampling_rate)


def align_beats(beats: np.ndarray, reference: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Median beats `(records, num_leads, length)`, turned, end to beginning, to where they fit `reference`."""
    reach = round(ALIGNMENT_SHIFT_SECONDS * sampling_rate)
    shifts = np.arange(-reach, reach + 1)
    fits = np.stack([np.tensordot(np.roll(beats, -shift, axis=-1), reference, axes=2) for shift in shifts])
    best = shifts[np.argmax(fits, axis=0)]
    return np.stack([np.roll(beat, -shift, axis=-1) for beat, shift in zip(beats, best, strict=True)])


def reference_beat(beats: np.ndarray, sampling_rate: float, rounds: int = 3) -> np.ndarray:
    """The mean of the median beats `(records, num_leads, length)` after they were moved onto each other."""
    reference = beats.mean(axis=0)
    for _ in range(rounds - 1):
        reference = align_beats(beats, reference, sampling_rate).mean(axis=0)
    return reference
