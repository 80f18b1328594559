"""The screen beside its oracle: what it excludes, the full examination of every recording and lead does not find."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.input_checks import check_inputs
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.quality_screen import screen_signals
from ecg_transformers.modeling.recording_input import read_recordings
from ecg_transformers.modeling.signal_quality import LIMITS, examine_signal

LEADS = list(STANDARD_LEADS)


@pytest.fixture(scope="module")
def signals():
    """All carried recordings, `(495, 12, 1000)` in mV at 100 Hz."""
    return np.stack([row["ecg"]["signal"] for row in load_ecg("ptb-xl-sample", split="all")])


def assert_equal_to_the_full_examination(signals, rate, leads=LEADS, is_voltage=True):
    """The problems and sentences of the screened examination are those of the full one; the suspected leads."""
    signals = np.asarray(signals, dtype=np.float32)
    num_suspected = 0
    for signal, suspects in zip(signals, screen_signals(signals, leads, rate, is_voltage), strict=True):
        full = examine_signal(signal, leads, rate, "mV", is_voltage)
        screened = examine_signal(signal, leads, rate, "mV", is_voltage, suspects)
        assert screened.problems == full.problems
        chosen = [quality for quality, is_suspect in zip(full.quality, suspects.leads, strict=True) if is_suspect]
        assert [of.lead for of in screened.quality] == [of.lead for of in chosen]
        values = [[[vars(of)[name] for name in LIMITS] for of in each] for each in (screened.quality, chosen)]
        np.testing.assert_allclose(*values, rtol=1e-9, atol=1e-12)
        half = 0.5 * signal.shape[1] / rate
        for quality, is_suspect in zip(full.quality, suspects.leads, strict=True):
            assert is_suspect or (not quality.problems and quality.flat_seconds <= half)
        num_suspected += int(suspects.leads.sum())
    return num_suspected


def test_carried_recordings_are_judged_as_by_the_full_examination_and_most_leads_are_not_measured(signals):
    assert assert_equal_to_the_full_examination(signals[::6], 100) < 0.1 * signals[::6, :, 0].size


def beats(num_samples, rate, num_leads, generator):
    """Beats of a size of its own in every lead, with noise."""
    time = np.arange(num_samples) / rate
    beat = sum(np.exp(-(((time - start) / 0.02) ** 2)) for start in np.arange(0.4, time[-1] + 1, 0.8))
    sizes = generator.normal(0.3, 1.0, (num_leads, 1))
    return beat * sizes + generator.normal(0, 0.01, (num_leads, num_samples))


def scale(factor):
    return lambda signal, row, rate, rng: signal * factor


def add(wave):
    def change(signal, row, rate, rng):
        signal[row] += wave(np.arange(signal.shape[1]) / rate, rng)
        return signal

    return change


def hold(seconds):
    def change(signal, row, rate, rng):
        start = int(rng.integers(signal.shape[1]))
        signal[row, start : start + round(seconds * rate)] = signal[row, start]
        return signal

    return change


def put(value):
    def change(signal, row, rate, rng):
        signal[row, :: int(rng.integers(1, 400))] = value
        return signal

    return change


def exchange(signal, row, rate, rng):
    signal[[0, 1, row]] = signal[[1, 0, row]] * rng.choice([-1.0, 1.0], (3, 1))
    return signal


def copy(signal, row, rate, rng):
    signal[row] = signal[int(rng.integers(len(signal)))]
    return signal


def equalise(signal, row, rate, rng):
    spans = np.ptp(signal, axis=1, keepdims=True)
    return signal / np.where(spans > 0, spans, 1.0) * rng.uniform(1.0, 1.006, spans.shape)


def clip(signal, row, rate, rng):
    return signal.clip(*np.sort(rng.normal(0, 0.5, 2)))


def swap_arms(signal, row, rate, rng):
    signal[0], signal[1] = -signal[0], signal[1] - signal[0]
    return signal


CHANGES = [scale(f) for f in (1e-30, 1e-22, 1e-3, 0.01, 0.1, 0.5, 3.0, 20.0, 1e3, 1e30)]
CHANGES += [
    add(lambda t, rng, size=size, hz=hz: size * np.sin(2 * np.pi * hz * t))
    for size, hz in (
        (1.2, 0.3),
        (1.3, 0.1),
        (0.6, 0.45),
        (0.042, 50.0),
        (0.043, 60.3),
        (0.06, 50.5),
        (3.0, 0.6),
        (0.07, 40.0),
    )
]
CHANGES += [add(lambda t, rng, size=size: rng.normal(0, size, t.shape)) for size in (0.03, 0.09, 0.1, 0.3)]
CHANGES += [add(lambda t, rng: 1e5), hold(0.3), hold(0.99), hold(1.0), hold(1.01), hold(1.02), hold(3.0), hold(9.0)]
CHANGES += [put(value) for value in (0.0, 5.0, np.nan, np.inf, -np.inf)]
CHANGES += [exchange, copy, equalise, clip, swap_arms]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    changes=st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 11)), max_size=4),
    rate=st.sampled_from([50.0, 80.0, 100.0, 125.0, 257.0, 500.0]),
    num_samples=st.sampled_from([1, 2, 3, 50, 399, 400, 1000, 1001]),
    source=st.sampled_from(["real", "made", "flat", "steps"]),
    is_voltage=st.booleans(),
)
def test_damaged_recordings_are_judged_as_by_the_full_examination(
    signals, seed, changes, rate, num_samples, source, is_voltage
):
    rng = np.random.default_rng(seed)
    if source == "real":
        rate, signal = 100.0, signals[seed % len(signals), :, :num_samples].astype(float)
    elif source == "flat":
        signal = np.full((12, num_samples), rng.normal())
    else:
        signal = beats(num_samples, rate, 12, rng)
        signal = signal if source == "made" else np.round(signal, 1)
    whole = signal.copy()
    for change, row in changes:
        with np.errstate(all="ignore"):
            signal = change(signal.copy(), row, rate, rng)
    with np.errstate(over="ignore"):
        assert_equal_to_the_full_examination([signal, whole], rate, LEADS, is_voltage)
        assert_equal_to_the_full_examination([signal[:5]], rate, LEADS[1:6], is_voltage)


def test_a_batch_of_recordings_is_checked_as_one_after_the_other(signals):
    extractor = EcgFeatureExtractor(STANDARD_LEADS, sampling_rate=100, num_samples=1000, missing_leads="mask")
    damaged = signals[:4].copy()
    damaged[0, 3], damaged[1, 2, 5], damaged[2], damaged[3, 4, 200:900] = np.nan, np.nan, 0.0, 0.1
    recordings = [
        recording
        for batch, rate in ((signals[:20], 100), (damaged, 100), (signals[:3], 90))
        for recording in read_recordings(batch, sampling_rate=rate, leads=LEADS, unit="mV")
    ]
    together = check_inputs(extractor.changed(short_records="zero_pad"), recordings)
    alone = [check_inputs(extractor.changed(short_records="zero_pad"), [recording])[0] for recording in recordings]
    assert together == alone
    assert [len(of["leads"]) for of in together[20:24]] == [11, 12, 0, 11]
    assert together[0]["findings"] is not together[1]["findings"]


def test_hum_of_a_long_recording_is_screened_in_memory_of_its_own_size():
    rate, rng = 250.0, np.random.default_rng(1)
    signals = beats(60_000, rate, 2, rng)[None].repeat(2, axis=0)
    signals[0, 1] += 0.05 * np.sin(2 * np.pi * 50.2 * np.arange(60_000) / rate)
    tracemalloc.start()
    suspects = screen_signals(signals.astype(np.float32), LEADS[:2], rate)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [of.leads.tolist() for of in suspects] == [[False, True], [False, False]]
    assert peak < 10 * signals.nbytes
    assert assert_equal_to_the_full_examination(signals, rate, LEADS[:2]) == 1


@pytest.mark.parametrize("factor", [1e-8, 1e-12, 1e-20, 1e-22, 1e-30, 1e-40])
def test_recordings_whose_squares_float32_does_not_hold_are_judged_as_by_the_full_examination(signals, factor):
    swapped = signals[:4].astype(np.float64)
    swapped[:, [0, 1]] = swapped[:, [1, 0]] * [[-1], [1]]
    small_limbs = swapped.copy()
    small_limbs[:, :6] *= factor
    assert_equal_to_the_full_examination(swapped * factor, 100)
    assert_equal_to_the_full_examination(small_limbs, 100)
