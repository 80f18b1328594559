"""Recordings at another sampling rate, as if another device had written them."""

from fractions import Fraction

import numpy as np
from scipy.signal import resample_poly

LARGEST_DENOMINATOR = 10_000


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
    return row | {"ecg": ecg | {"signal": signal.astype(np.float32), "sampling_rate": float(sampling_rate)}}
