"""Median beats on made-up recordings whose beats are known."""

import numpy as np

from ecg_transformers.modeling.median_beat import align_beats, beat_length, find_beats, median_beat, reference_beat


def recording(places, num_samples=1000, rate=100, noise=0.0, seed=0):
    """Two leads with a narrow wave at each place, and a wider one after it."""
    time = np.arange(num_samples) / rate
    signal = np.zeros((2, num_samples))
    for place in np.asarray(places) / rate:
        signal += np.array([[1.0], [-0.6]]) * np.exp(-(((time - place) / 0.015) ** 2))
        signal += np.array([[0.2], [0.3]]) * np.exp(-(((time - place - 0.25) / 0.05) ** 2))
    return signal + noise * np.random.default_rng(seed).standard_normal(signal.shape)


def test_beats_are_found_where_they_are():
    places = np.array([80, 170, 255, 350, 460, 540, 640, 720, 800, 890])
    found = find_beats(recording(places, noise=0.03), 100)
    assert len(found) == 10 and np.abs(found - places).max() <= 3
    at_500 = find_beats(recording(places * 5, 5000, 500, noise=0.03), 500)
    assert len(at_500) == 10 and np.abs(at_500 - 5 * places).max() <= 15


def test_the_median_beat_is_the_beat_without_its_noise():
    places = np.arange(80, 950, 85)
    beat = median_beat(recording(places, noise=0.1), 100)
    assert beat.shape == (2, beat_length(100)) == (2, 80)
    template = recording([500])[:, 400:600]
    error = min(np.abs(beat - template[:, start : start + 80]).mean() for start in range(120))
    assert error < 0.05


def test_one_ectopic_beat_leaves_no_trace():
    places = np.arange(80, 950, 85)
    signal = recording(places)
    with_ectopic = signal.copy()
    with_ectopic[:, places[4] - 20 : places[4] + 20] *= -2
    np.testing.assert_allclose(median_beat(with_ectopic, 100), median_beat(signal, 100), atol=0.02)


def test_recordings_without_two_whole_beats_give_zeros():
    assert not median_beat(np.zeros((2, 1000)), 100).any()
    assert not median_beat(recording([500], 560), 100).any()
    assert median_beat(recording([20, 40], 60), 100).shape == (2, 80)


def test_beats_are_moved_onto_each_other():
    beat = median_beat(recording(np.arange(80, 950, 85)), 100)
    shifted = np.stack([np.roll(beat, shift, axis=-1) for shift in (-3, 0, 2, 3)])
    aligned = align_beats(shifted, beat, 100)
    for one in aligned:
        np.testing.assert_array_equal(one, beat)
    reference = reference_beat(shifted, 100)
    again = align_beats(shifted, reference, 100)
    assert np.abs(again - again[0]).max() == 0
