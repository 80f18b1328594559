"""Beat and interval channels: right by default, the published numbers where they are asked for."""

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling.beat_channels import (
    BEAT_CHANNELS,
    compute_beat_channels,
    daubechies_filters,
    find_peaks,
    find_published_r_peaks,
    find_r_peaks,
    stationary_wavelets,
)
from ecg_transformers.modeling.feature_extraction_ecg import EcgFeatureExtractor
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS


def beat_train(rate_per_minute, sampling_rate=250, seconds=10.0, sign=1.0, amplitude_mv=1.0):
    """Narrow beats with a lower, broad T wave after each, and a little noise; and where the beats are."""
    time = np.arange(int(seconds * sampling_rate)) / sampling_rate
    moments = np.arange(0.4, seconds - 0.1, 60.0 / rate_per_minute)
    signal = np.random.RandomState(0).randn(len(time)) * 0.005
    for moment in moments:
        signal += sign * amplitude_mv * np.exp(-(((time - moment) / 0.015) ** 2))
        signal += 0.25 * amplitude_mv * np.exp(-(((time - moment - 0.25) / 0.04) ** 2))
    return signal, np.round(moments * sampling_rate).astype(int)


def channel(signal, name, sampling_rate=250, **options):
    values = compute_beat_channels(torch.from_numpy(signal)[None], sampling_rate, [name], **options)
    return values[0, 0].numpy()


@pytest.mark.parametrize("name", [name for name in BEAT_CHANNELS if name != "rolling_heart_rate"])
def test_published_channels_with_the_published_wrong_rate(golden, name):
    stored = golden("smiles_features")
    values = compute_beat_channels(stored["input"][:, 1], sampling_rate=500, published=True)  # at 250 Hz
    row = BEAT_CHANNELS.index(name)
    torch.testing.assert_close(values[:, row], stored["augmented"][:, row], atol=1e-5, rtol=1e-5)


def test_the_published_rolling_rate_is_no_heart_rate_and_is_not_repeated(golden):
    stored = golden("smiles_features")
    assert stored["augmented"][:, 2].min() > 6000  # "beats per minute"
    values = compute_beat_channels(stored["input"][:, 1], 250, ["rolling_heart_rate"], published=True)
    assert 40 < values.min() and values.max() < 100


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(-6, 6), min_size=0, max_size=14),  # plateaus and ties
    height=st.integers(-3, 4),
    distance=st.integers(1, 5),
    prominence=st.none() | st.integers(0, 6),
)
def test_peaks_are_those_of_scipy(values, height, distance, prominence):
    signal = np.array(values, dtype=float)
    expected, _ = scipy.signal.find_peaks(signal, height=height, distance=distance, prominence=prominence)
    assert find_peaks(signal, height, distance, prominence).tolist() == expected.tolist()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), distance=st.floats(1, 40), prominence=st.floats(0, 2))
def test_peaks_of_long_signals_are_those_of_scipy(seed, distance, prominence):
    signal = np.cumsum(np.random.RandomState(seed % 2**32).randn(400)) * 0.2
    expected, _ = scipy.signal.find_peaks(signal, height=0.1, distance=distance, prominence=prominence)
    assert find_peaks(signal, 0.1, distance, prominence).tolist() == expected.tolist()


def test_the_wavelet_is_daubechies_with_four_vanishing_moments():
    low_pass, high_pass = daubechies_filters()
    for shift in range(0, 8, 2):  # orthonormal to its even shifts, and to the high-pass
        products = [np.dot(a[shift:], b[: 8 - shift]) for a, b in ((low_pass, low_pass), (low_pass, high_pass))]
        np.testing.assert_allclose(products, [shift == 0, 0], atol=1e-12)
    for power in range(4):
        assert abs(np.sum(high_pass * np.arange(8.0) ** power)) < 1e-8
    assert low_pass[-1] == pytest.approx(0.2303778133, abs=1e-10)  # largest taps last: the decomposition filter


def test_wavelets_of_any_length_keep_the_energy():
    signal = np.random.RandomState(0).randn(3, 501)
    approximation, details = stationary_wavelets(signal, 3)
    parts = [(approximation, 3), *zip(details, (3, 2, 1), strict=True)]
    energy = sum(np.square(part).sum() / 2**level for part, level in parts)
    assert energy == pytest.approx(np.square(signal).sum())


@pytest.mark.parametrize("sampling_rate", [100, 250, 500])
@pytest.mark.parametrize("rate", [45, 60, 75, 100, 140, 180])
def test_beats_and_rates_are_found_at_any_sampling_rate(rate, sampling_rate):
    signal, beats = beat_train(rate, sampling_rate)
    found = find_r_peaks(signal, sampling_rate)
    assert len(found) == len(beats) and np.abs(found - beats).max() <= 1
    for name in ("heart_rate", "rolling_heart_rate"):
        per_minute = 70 + 15 * channel(signal, name, sampling_rate)
        np.testing.assert_allclose(per_minute, rate, rtol=0.03)


def test_the_published_detection_skips_fast_beats_and_misses_small_and_inverted_beats():
    fast, small, inverted = (beat_train(120)[0], beat_train(60, amplitude_mv=0.3)[0], beat_train(60, sign=-1.0)[0])
    assert channel(fast, "heart_rate", published=True)[0] < 65
    for signal in (small, inverted):
        assert len(find_published_r_peaks(signal, 250)) != 10
        assert len(find_r_peaks(signal, 250)) == 10


def test_the_rolling_rate_follows_a_change():
    slow, fast = beat_train(50)[0], beat_train(100)[0]
    per_minute = 70 + 15 * channel(np.concatenate((slow, fast)), "rolling_heart_rate")
    assert per_minute[1000] == pytest.approx(50, rel=0.03)
    assert per_minute[4000] == pytest.approx(100, rel=0.03)


def test_the_st_segment_is_measured_after_every_beat():
    signal, beats = beat_train(60)
    for beat in beats:
        signal[beat + 15 : beat + 50] += 0.2
    deviation = channel(signal, "st_deviation") * 0.1
    for beat in beats:
        segment = deviation[beat + 25 : beat + 30]  # 100 to 120 ms, before the T wave
        np.testing.assert_allclose(segment, 0.2, atol=0.03)
        assert not deviation[beat - 20 : beat + 20].any()


def test_variability_is_that_of_the_intervals():
    moments = np.cumsum([100, 200, 240, 200, 220, 250, 190, 230, 210])
    signal = np.zeros(2500)
    for moment in moments:
        signal += np.exp(-(((np.arange(2500) - moment) / 4.0) ** 2))
    intervals = np.diff(moments) * 4.0  # ms
    for name, expected in (("sdnn", intervals.std()), ("rmssd", np.sqrt(np.square(np.diff(intervals)).mean()))):
        assert np.expm1(channel(signal, name)[0] + 3.5) == pytest.approx(expected, rel=0.05)


def test_each_record_is_measured_alone_and_by_name():
    signals = torch.from_numpy(np.stack([beat_train(rate)[0] for rate in (50, 90)]))
    together = compute_beat_channels(signals, 250)
    for number in range(2):
        alone = compute_beat_channels(signals[number : number + 1], 250, BEAT_CHANNELS[::-1])
        assert torch.equal(alone.flip(1)[0], together[number])


def test_an_unknown_channel_is_refused():
    with pytest.raises(ValueError, match="Expected beat channels, each once"):
        compute_beat_channels(torch.zeros(1, 500), 100, ["qt_interval"])


def test_rates_of_real_recordings_agree_with_all_leads():
    disagreements = {True: 0, False: 0}
    recordings = load_ecg("ptb-xl-sample", split="test")
    for row in recordings:
        leads = np.asarray(row["ecg"]["signal"], dtype=float)
        energy = np.square(np.diff(leads, axis=-1)).sum(axis=0)
        energy = np.convolve(energy, np.ones(10) / 10, "same")
        reference, _ = scipy.signal.find_peaks(energy, height=0.25 * np.percentile(energy, 98), distance=30)
        rate = 60 / np.median(np.diff(reference) / 100)
        lead_ii = leads[row["ecg"]["leads"].index("II")]
        for published, find in ((True, find_published_r_peaks), (False, find_r_peaks)):
            beats = find(lead_ii, 100)
            agrees = len(beats) > 1 and abs(60 / np.median(np.diff(beats) / 100) - rate) < 5
            disagreements[published] += not agrees
    assert disagreements[False] <= 0.03 * len(recordings) < disagreements[True]


def test_the_feature_extractor_appends_them_after_the_leads():
    lead_ii, _ = beat_train(75, 500)
    signal = np.zeros((8, len(lead_ii)), dtype=np.float32)
    signal[1] = lead_ii
    declared = {"sampling_rate": 500, "leads": INDEPENDENT_LEADS, "unit": "mV"}
    plain = EcgFeatureExtractor(normalization="record")(signal, **declared)["input_values"]
    hybrid = EcgFeatureExtractor(normalization="record", beat_channels=True)(signal, **declared)["input_values"]
    assert hybrid.shape == (1, 19, 2500)
    assert torch.equal(hybrid[:, :8], plain)
    assert hybrid[0, 9, 0] * 15 + 70 == pytest.approx(75, rel=0.02)  # measured at 250 Hz, before normalisation
    some = EcgFeatureExtractor(beat_channels=["heart_rate", "r_peaks"])(signal * 1000, **declared | {"unit": "uV"})
    torch.testing.assert_close(some["input_values"][:, 8:], hybrid[:, [9, 8]])


def test_a_record_without_lead_ii_or_with_a_flat_one_has_no_beats():
    extractor = EcgFeatureExtractor(leads=["II", "V1"], beat_channels=True, missing_leads="mask", num_samples=500)
    inputs = extractor(beat_train(60)[0][None], sampling_rate=250, leads=["V1"], unit="mV")
    assert inputs["input_values"][:, 1].any() and not inputs["input_values"][:, 2:].any()
    assert not compute_beat_channels(torch.zeros(2, 500), 100).any()
    assert not compute_beat_channels(torch.zeros(1, 5), 100).any()


@pytest.mark.parametrize("options", [{"leads": ["I", "V1"]}, {"unit": "dimensionless"}])
def test_they_need_lead_ii_in_volts(options):
    with pytest.raises(ValueError, match="measured in lead II"):
        EcgFeatureExtractor(beat_channels=True, **options)
