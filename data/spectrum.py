"""Parts of a signal by frequency, with numpy alone: for looking at recordings, not for making model input."""

import numpy as np


def band_pass(signal: np.ndarray, sampling_rate: float, *bands_hz: tuple[float, float]) -> np.ndarray:
    """The parts of a signal within bands of frequency, zero phase, with sharp edges.

    The signal is continued by its mirror image at both ends, so that a drift makes no step where they meet.

    Args:
        signal (`np.ndarray` of shape `(..., num_samples)`): Finite.
        sampling_rate (`float`): In Hz.
        bands_hz (`tuple[float, float]`): Lowest and highest frequency of each band, which belong to it; 0 is the mean.

    Returns:
        float64 of the same shape.
    """
    signal = np.asarray(signal, dtype=np.float64)
    num_samples = signal.shape[-1]
    mirrored = np.concatenate([signal, signal[..., ::-1]], axis=-1)
    spectrum = np.fft.rfft(mirrored)
    frequencies = np.fft.rfftfreq(2 * num_samples, 1 / sampling_rate)
    kept = np.any([(frequencies >= low) & (frequencies <= high) for low, high in bands_hz], axis=0)
    spectrum[..., ~kept] = 0
    return np.fft.irfft(spectrum, 2 * num_samples)[..., :num_samples]


def line_amplitude(signal: np.ndarray, sampling_rate: float, frequency_hz: float) -> np.ndarray | None:
    """Root mean square of a steady tone above what the neighbouring frequencies hold.

    Args:
        signal (`np.ndarray` of shape `(..., num_samples)`): Finite, in any unit.
        sampling_rate (`float`): In Hz.
        frequency_hz (`float`): Of the tone; it may be off by 0.5 Hz.

    Returns:
        of shape `(...)`, in the unit of the signal; `None` where it cannot be told: less than 4 s, or a tone within
        5 Hz of half the rate.
    """
    num_samples = signal.shape[-1]
    if num_samples < 4 * sampling_rate or frequency_hz + 5 > sampling_rate / 2:
        return None
    window = np.hanning(num_samples)
    signal = np.asarray(signal, dtype=np.float64)
    signal = (signal - signal.mean(axis=-1, keepdims=True)) * window
    power = 2 * np.abs(np.fft.rfft(signal)) ** 2 / (num_samples * (window**2).sum())
    distance = np.abs(np.fft.rfftfreq(num_samples, 1 / sampling_rate) - frequency_hz)
    line, around = distance <= 1.0, (distance > 1.5) & (distance <= 5.0)
    background = np.median(power[..., around], axis=-1) / np.log(2) * line.sum()  # mean of an exponential law
    return np.sqrt(np.maximum(power[..., line].sum(axis=-1) - background, 0.0))
