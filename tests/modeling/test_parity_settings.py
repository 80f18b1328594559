"""Settings of the feature extractor that only other authors' models need, against SciPy and by hand."""

import numpy as np
import pytest
import scipy.signal
import torch

from ecg_transformers.modeling.feature_extraction_ecg import EcgFeatureExtractor
from ecg_transformers.modeling.signal_processing import notch_sos, running_median

LEADS = ("I", "II", "V1")
RATE = 100


def recording(num_samples: int = 1000, seed: int = 0) -> np.ndarray:
    walk = np.random.default_rng(seed).normal(size=(len(LEADS), num_samples)).cumsum(-1)
    return walk / np.abs(walk).max() * np.array([[1.0], [2.0], [0.5]])


def values_of(signal, unit="mV", **settings):
    extractor = EcgFeatureExtractor(**{"leads": LEADS, "sampling_rate": RATE, "num_samples": 400} | settings)
    return extractor(signal, sampling_rate=RATE, leads=LEADS, unit=unit)["input_values"].numpy()


def test_the_range_of_every_lead_becomes_minus_one_to_one():
    signal = recording()[:, :400]
    lowest, highest = signal.min(1, keepdims=True), signal.max(1, keepdims=True)
    values = values_of(signal, normalization="lead_range")[0]
    np.testing.assert_allclose(values, 2 * (signal - lowest) / (highest - lowest) - 1, atol=1e-5)
    np.testing.assert_allclose(values_of(signal * 1e3, "uV", normalization="lead_range")[0], values, atol=1e-5)
    signal[1] = 0.7  # a flat lead has no range
    values = values_of(signal, normalization="lead_range")[0]
    assert not values[1].any() and values[0].max() == 1


@pytest.mark.parametrize(("normalization", "axis"), [("lead", 1), ("record", (0, 1))])
@pytest.mark.parametrize("unit", ["mV", "uV"])
def test_recordings_are_normalised_before_they_are_cut(normalization, axis, unit):
    signal = recording()
    scores = (signal - signal.mean(axis, keepdims=True)) / signal.std(axis, keepdims=True)
    settings = {"normalization": normalization, "long_records": "all", "unit": unit}
    windows = values_of(signal, normalize_recordings=True, **settings)
    expected = np.stack([scores[:, :400], scores[:, 400:800], scores[:, 600:]])
    np.testing.assert_allclose(windows, expected, atol=2e-5)
    assert np.abs(values_of(signal, **settings) - expected).max() > 0.1


WHOLE = {"normalization": "lead", "normalize_recordings": True}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *[
            (WHOLE | other, "normalize_recordings needs")
            for other in ({"normalization": None}, {"filter_windows": True}, {"beat_channels": True})
        ],
        ({"sampling_rate": 100, "notch_hz": 50}, "between 0 and 50"),
        ({"median_baseline_seconds": 0}, "median_baseline_seconds is a width"),
        ({"median_baseline_seconds": 0.4, "filter_windows": True}, "median_baseline_seconds is a width"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EcgFeatureExtractor(**settings)


@pytest.mark.parametrize(("frequency", "rate"), [(50.0, 500.0), (60.0, 500.0), (50.0, 250.0)])
def test_the_notch_is_scipys(frequency, rate):
    b, a = scipy.signal.iirnotch(frequency, 30, rate)
    np.testing.assert_allclose(notch_sos(frequency, rate), [[*b, *a]], atol=1e-12)


@pytest.mark.parametrize("num_taps", [1, 3, 41])
def test_the_running_median_is_scipys(num_taps):
    signal = recording(300)
    expected = np.stack([scipy.signal.medfilt(row, num_taps) for row in signal])
    np.testing.assert_array_equal(running_median(torch.from_numpy(signal), num_taps).numpy(), expected)
    with pytest.raises(ValueError, match="odd number of taps"):
        running_median(torch.zeros(10), 4)


def test_the_baseline_is_that_of_each_lead_after_derivation():
    two = recording()[:2]
    extractor = EcgFeatureExtractor(
        leads=["III"], sampling_rate=RATE, num_samples=1000, notch_hz=40, median_baseline_seconds=0.4
    )
    output = extractor(two, sampling_rate=RATE, leads=["I", "II"], unit="mV", return_report=True)
    third = scipy.signal.filtfilt(*scipy.signal.iirnotch(40, 30, RATE), two[1] - two[0])
    expected = third - scipy.signal.medfilt(third, 41)
    np.testing.assert_allclose(output["input_values"][0, 0].numpy(), expected, atol=1e-5)
    report = " ".join(output["report"][0])
    assert "Took out 40 Hz with a notch." in report and "Subtracted the running median of 0.4 s." in report
