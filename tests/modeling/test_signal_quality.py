from collections import Counter

import numpy as np
import pytest

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling.signal_quality import (
    LIMITS,
    band_pass,
    clipped_samples,
    line_amplitude,
    longest_flat_stretch,
    measure_leads,
    suspect_unit,
)

RATE = 500  # Hz
TIME = np.arange(10 * RATE) / RATE


def beats_mv(rate=RATE, seconds=10):
    """A beat a second: a QRS of 1 mV and a T wave of 0.3 mV."""
    phase = np.arange(seconds * rate) / rate % 1
    return np.exp(-(((phase - 0.3) / 0.012) ** 2)) + 0.3 * np.exp(-(((phase - 0.6) / 0.05) ** 2))


def problems(row, rate=RATE, is_voltage=True):
    return measure_leads(np.asarray(row)[None], ["II"], rate, is_voltage)[0].problems


def tone(frequency, amplitude):
    return amplitude * np.sin(2 * np.pi * frequency * TIME)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (beats_mv(), ()),
        (np.where(TIME < 0.01, np.nan, beats_mv()), ("missing_samples",)),
        (np.where(TIME < 0.01, np.inf, beats_mv()), ("missing_samples",)),
        (np.full_like(TIME, np.nan), ("missing_samples", "range_mv")),
        (np.zeros_like(TIME), ("range_mv",)),
        (0.04 * beats_mv(), ("range_mv",)),
        (np.where(TIME > 8, 0.5, beats_mv() + tone(1, 0.01)), ("flat_seconds",)),
        (np.minimum(beats_mv() + tone(0.3, 0.02), 0.3), ("clipped_seconds",)),
        (np.maximum(-beats_mv() + tone(0.3, 0.02), -0.3), ("clipped_seconds",)),
        (beats_mv() + np.random.default_rng(0).normal(scale=0.1, size=TIME.size), ("noise_mv",)),
        (beats_mv() + tone(0.2, 2.0), ("wander_mv",)),
        (beats_mv() + tone(50.2, 0.08), ("hum_50hz_mv",)),
        (beats_mv() + tone(60, 0.08), ("hum_60hz_mv",)),
    ],
)
def test_each_fault_is_named_and_no_other(row, expected):
    assert problems(row) == expected


def test_measures_have_the_size_of_what_was_put_in():
    noise = np.random.default_rng(0).normal(scale=0.1, size=TIME.size)
    row = tone(0.2, 2.0) + tone(50, 0.1) + tone(60, 0.2) + noise
    measured = measure_leads(row[None], ["II"], RATE)[0]
    assert measured.wander_mv == pytest.approx(4.0, rel=0.03)
    assert measured.hum_50hz_mv == pytest.approx(0.1 / np.sqrt(2), rel=0.05)
    assert measured.hum_60hz_mv == pytest.approx(0.2 / np.sqrt(2), rel=0.05)
    assert measured.noise_mv == pytest.approx(0.1 * np.sqrt((250 - 35 - 4) / 250), rel=0.05)  # white, up to 250 Hz
    assert (measured.lowest_mv, measured.highest_mv) == (row.min(), row.max())


def test_hum_and_noise_that_a_rate_cannot_show_are_not_evaluated():
    measured = measure_leads(beats_mv(100)[None], ["II"], 100)[0]
    assert np.isnan(measured.hum_50hz_mv) and np.isnan(measured.hum_60hz_mv) and measured.noise_mv < 0.05
    assert np.isnan(measure_leads(beats_mv(80)[None], ["II"], 80)[0].noise_mv)


def test_values_that_are_no_voltage_have_no_limits_in_millivolts():
    assert problems(100 * beats_mv() + tone(0.2, 500) + tone(50, 90), is_voltage=False) == ()
    assert problems(np.ones_like(TIME), is_voltage=False) == ("range_mv",)


@pytest.mark.parametrize("length", [1, 2, 60])
def test_very_short_recordings_are_measured_without_failing(length):
    assert measure_leads(np.ones((2, length)), ["I", "II"], RATE)[0].problems == ("range_mv",)


def test_runs_are_counted_at_edges_and_through_gaps():
    row = np.array([1, 1, 1, np.nan, np.nan, np.nan, np.nan, 0, 2, 2])
    assert longest_flat_stretch(row) == 3
    assert clipped_samples(row, 2) == 2 and clipped_samples(row, 3) == 0
    assert clipped_samples(np.full(5, np.nan), 2) == 0 == longest_flat_stretch(np.full(5, np.nan))


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1000, "1000 times too large: microvolts read as millivolts"),
        (0.001, "1000 times too small"),
        (50, "check unit and gain"),
        (1, None),
    ],
)
def test_amplitudes_that_suggest_another_unit_are_said(factor, message):
    sentence = suspect_unit(np.stack([beats_mv(), beats_mv()]) * factor, "mV")
    assert sentence is None if message is None else message in sentence
    assert suspect_unit(np.stack([np.zeros_like(TIME), np.full_like(TIME, np.nan)]), "mV") is None


def test_signal_and_leads_of_different_number_are_refused():
    with pytest.raises(ValueError, match=r"Expected a signal of shape \(1, num_samples\), got \(2, 10\)"):
        measure_leads(np.zeros((2, 10)), ["I"], RATE)


def test_bands_add_up_to_the_signal():
    row = beats_mv() + tone(7, 0.2)
    parts = [band_pass(row, RATE, band) for band in ((0, 5), (5.01, 40), (40.01, 250))]
    np.testing.assert_allclose(sum(parts), row, atol=1e-9)
    np.testing.assert_allclose(band_pass(row, RATE, (0, 5), (40.01, 250)), parts[0] + parts[2], atol=1e-9)


def test_a_tone_close_to_half_the_rate_cannot_be_told():
    assert line_amplitude(beats_mv(100), 100, 50) is None
    assert line_amplitude(beats_mv(120), 120, 50) is not None


def flagged_shares(records):
    """Share of recordings with each problem, of rows of 12 leads."""
    found = Counter()
    for row in records:
        ecg = row["ecg"]
        found.update({name for lead in measure_leads(ecg["signal"], ecg["leads"], 100) for name in lead.problems})
        found["unit"] += suspect_unit(ecg["signal"], "mV") is not None
    return {name: count / len(records) for name, count in found.items()}


def test_few_real_recordings_are_flagged():
    rows = load_ecg("ptb-xl-sample", split="all")
    shares = flagged_shares(rows.select(range(0, len(rows), 5)))
    assert set(shares) <= {*LIMITS, "unit"} and max(shares.values()) <= 0.05 and shares["unit"] == 0


@pytest.mark.slow
def test_few_of_all_carried_recordings_are_flagged():
    shares = flagged_shares(load_ecg("ptb-xl-sample", split="all"))
    assert shares["wander_mv"] <= 0.04 and shares["noise_mv"] <= 0.01
    assert set(shares) <= {"wander_mv", "noise_mv", "unit"}
