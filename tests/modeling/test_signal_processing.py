"""Resampling, filters and gaps against SciPy, NumPy and the numbers of the published code."""

import numpy as np
import pytest
import scipy.signal
import torch

from ecg_transformers.modeling.signal_processing import butterworth_sos, filter_zero_phase, interpolate_gaps, resample


def random_walk(*shape: int, seed: int = 0) -> np.ndarray:
    """A wandering signal on an offset, the hard case for edges and for float32."""
    return np.random.RandomState(seed).randn(*shape).cumsum(-1) * 0.01 + 3


@pytest.mark.parametrize(
    ("num_source_samples", "num_samples"),
    [
        *((5000, 2500), (4096, 2500), (999, 500), (999, 501), (1000, 499), (500, 999), (501, 1000)),
        *((500, 1000), (501, 1003), (7, 3), (3, 7), (2, 1), (1, 5), (100, 100)),
    ],
)
def test_resampling_equals_scipy(num_source_samples, num_samples):
    signal = np.random.RandomState(0).uniform(-1, 1, size=(2, 3, num_source_samples))
    expected = scipy.signal.resample(signal, num_samples, axis=-1)
    kept = signal.copy()
    double = resample(torch.from_numpy(signal), num_samples)
    assert np.array_equal(signal, kept)
    single = resample(torch.from_numpy(signal).float(), num_samples)
    assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
    np.testing.assert_allclose(double.numpy(), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=1e-6)


def test_resampling_refuses_integers_and_nothing():
    with pytest.raises(ValueError, match="needs float32 or float64"):
        resample(torch.zeros(2, 10, dtype=torch.int16), 5)
    with pytest.raises(ValueError, match="at least 1"):
        resample(torch.zeros(2, 10), 0)
    with pytest.raises(ValueError, match="at least 1"):
        resample(torch.zeros(2, 0), 5)


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("sampling_rate", [100, 250, 257.0, 500, 1000])
def test_butterworth_design_equals_scipy(order, sampling_rate):
    for kind, cutoffs in (
        ("lowpass", (0.5, 15, 40, 49)),
        ("highpass", (0.05, 0.5, 0.67, 5)),
        ("bandpass", ((0.5, 40), (0.67, 45), (5, 15))),
    ):
        for cutoff in cutoffs:
            expected = scipy.signal.butter(order, cutoff, fs=sampling_rate, btype=kind, output="sos")
            np.testing.assert_allclose(butterworth_sos(order, cutoff, sampling_rate, kind), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("cutoff", "kind"), [(0, "lowpass"), (125, "highpass"), ((40, 0.5), "bandpass"), (5, "bandpass"), (5, "notch")]
)
def test_impossible_filters_are_refused(cutoff, kind):
    with pytest.raises(ValueError, match="increasing cutoff|Unknown kind"):
        butterworth_sos(4, cutoff, 250, kind)


@pytest.mark.parametrize(
    ("kind", "cutoff", "order"),
    [
        ("bandpass", (0.5, 40), 4),
        ("bandpass", (0.67, 40), 3),
        ("highpass", 0.5, 4),
        ("highpass", 0.67, 5),
        ("lowpass", 40, 5),
        ("lowpass", 40, 1),
    ],
)
@pytest.mark.parametrize("num_samples", [5000, 2500, 611, 60])
def test_zero_phase_filter_equals_scipy(kind, cutoff, order, num_samples):
    signal = random_walk(2, 3, num_samples)
    sos = butterworth_sos(order, cutoff, 250, kind)
    expected = scipy.signal.sosfiltfilt(sos.copy(), signal, axis=-1)  # SciPy wants to write to it
    double = filter_zero_phase(torch.from_numpy(signal), sos)
    single = filter_zero_phase(torch.from_numpy(signal).float(), sos)
    assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
    np.testing.assert_allclose(double.numpy(), expected, rtol=0, atol=1e-10)
    # The goal is 1e-3; the balanced coordinates of the states give this.
    np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=2e-5)


def test_filtering_takes_any_number_of_axes_and_any_strides():
    sos = butterworth_sos(5, 40, 250)
    signal = torch.randn(500, 3, dtype=torch.float64).T
    expected = filter_zero_phase(signal.contiguous(), sos)
    torch.testing.assert_close(filter_zero_phase(signal, sos), expected)
    torch.testing.assert_close(filter_zero_phase(signal[0], sos), expected[0])


def test_a_record_shorter_than_the_extension_is_refused():
    with pytest.raises(ValueError, match="too short for this filter"):
        filter_zero_phase(torch.zeros(2, 15), butterworth_sos(5, 40, 250))
    with pytest.raises(ValueError, match=r"second-order sections of shape \(sections, 6\)"):
        filter_zero_phase(torch.zeros(2, 100), np.ones((2, 5)))


def test_gaps_are_interpolated_as_numpy_does():
    random = np.random.RandomState(0)
    signal = random.randn(4, 3, 200)
    signal[random.rand(*signal.shape) < 0.3] = np.nan
    signal[0, 0, :20], signal[1, 2, -7:], signal[2, 1, 50:90], signal[3, 0, 10] = np.nan, np.nan, np.nan, np.inf
    signal[3, 2] = np.nan
    filled = interpolate_gaps(torch.from_numpy(signal)).numpy()
    for row, original in zip(filled.reshape(-1, 200), signal.reshape(-1, 200), strict=True):
        finite = np.isfinite(original)
        if finite.any():
            positions = np.arange(200)
            np.testing.assert_allclose(row, np.interp(positions, positions[finite], original[finite]), atol=1e-12)
        else:
            np.testing.assert_array_equal(row, original)


def test_numbers_of_the_published_ecg_jepa_preprocessing(golden):
    stored = golden("kim_data")
    resampled = resample(stored["raw"], 2500)
    highpassed = filter_zero_phase(resampled, butterworth_sos(5, 0.67, 250, "highpass"))
    both = filter_zero_phase(highpassed, butterworth_sos(5, 40, 250, "lowpass"))
    for name, ours in (
        ("resampled", resampled),
        ("highpassed", highpassed),
        ("highpass_lowpass", both),
        ("resampled_code15", resample(stored["raw_code15"], 2500)),
    ):
        torch.testing.assert_close(ours, stored[name], rtol=0, atol=1e-9)
