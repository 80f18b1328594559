import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_transformers.modeling.leads import LIMB_LEADS, STANDARD_LEADS, limb_lead_matrix
from ecg_transformers.train.evaluation.changed_rows import NoiseRecordings, add_noise, noisy_row, white_noise_row
from ecg_transformers.train.evaluation.settings import Change, noise_scores
from ecg_transformers.train.features import decoded


@pytest.fixture(scope="module")
def nstdb(shared_data_dir):
    return NoiseRecordings(shared_data_dir / "nstdb")


@pytest.fixture(scope="module")
def noise():
    """Two channels of coloured noise far from zero."""
    steps = np.random.default_rng(0).normal(size=(2, 3000))
    return np.cumsum(steps, axis=1) * 0.1 + np.array([[5.0], [-3.0]])


def twelve_leads(num_samples=500, seed=0):
    independent = np.random.default_rng(seed).normal(size=(8, num_samples)) * np.arange(1, 9)[:, None]
    return (limb_lead_matrix() @ independent).astype(np.float32)


def decibels(signal, noisy):
    added = noisy.astype(np.float64) - signal
    return 10 * np.log10(signal.astype(np.float64).var(axis=1).sum() / added.var(axis=1).sum())


@settings(max_examples=15, deadline=None)
@given(st.floats(-10, 30), st.integers(0, 1000), st.sampled_from([1e-3, 1.0, 1e3]))
def test_the_ratio_of_powers_is_what_was_asked_for_in_any_unit(snr_db, seed, scale):
    channels = np.cumsum(np.random.default_rng(0).normal(size=(2, 3000)), axis=1)
    signal = twelve_leads() * np.float32(scale)
    noisy = add_noise(signal, STANDARD_LEADS, channels, snr_db, np.random.default_rng(seed))
    assert noisy.dtype == np.float32
    assert decibels(signal[:6], noisy[:6]) == pytest.approx(snr_db, abs=0.05)  # six limb leads together
    for row in range(6, 12):
        assert decibels(signal[[row]], noisy[[row]]) == pytest.approx(snr_db, abs=0.05)


def test_limb_leads_stay_consistent_by_einthoven_and_goldberger(noise):
    noisy = add_noise(twelve_leads(), STANDARD_LEADS, noise, 0, np.random.default_rng(0)).astype(np.float64)
    one, two, three, avr, avl, avf = noisy[:6]
    np.testing.assert_allclose(three, two - one, atol=1e-4)
    np.testing.assert_allclose(avr, -(one + two) / 2, atol=1e-4)
    np.testing.assert_allclose(avl, one - two / 2, atol=1e-4)
    np.testing.assert_allclose(avf, two - one / 2, atol=1e-4)
    assert np.abs(noisy - twelve_leads()).max(axis=1).min() > 0  # every lead has some


def test_noise_of_a_limb_lead_is_a_stretch_of_the_recorded_noise(noise):
    signal = twelve_leads()[:2]
    added = add_noise(signal, ["I", "II"], noise, 6, np.random.default_rng(3)) - signal
    start = np.random.default_rng(3).integers(3000 - 500 + 1)
    stretch = noise[:, start : start + 500]
    for got, expected in zip(added, stretch - stretch.mean(axis=1, keepdims=True), strict=True):
        assert np.corrcoef(got, expected)[0, 1] > 0.9999
    assert added.std(axis=1)[0] / added.std(axis=1)[1] == pytest.approx(
        stretch.std(1)[0] / stretch.std(1)[1], rel=1e-3
    )


def test_limb_leads_without_I_and_II_and_unknown_channels_have_noise_too(noise):
    leads = ["aVR", "III", "MLII", "V2"]
    signal = np.random.default_rng(0).normal(size=(4, 500)).astype(np.float32)
    noisy = add_noise(signal, leads, noise, 12, np.random.default_rng(0))
    assert decibels(signal[:2], noisy[:2]) == pytest.approx(12, abs=0.05)
    assert decibels(signal[2:3], noisy[2:3]) == pytest.approx(12, abs=0.05)
    on_torso = add_noise(signal[:2], ["aVR-ML", "III-ML"], noise, 12, np.random.default_rng(0))
    np.testing.assert_array_equal(noisy[:2], on_torso)


def test_precordial_leads_have_stretches_of_their_own(noise):
    signal = np.random.default_rng(0).normal(size=(6, 500)).astype(np.float32)
    added = add_noise(signal, STANDARD_LEADS[6:], noise, 0, np.random.default_rng(0)) - signal
    off_diagonal = np.corrcoef(added)[~np.eye(6, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.999


def test_missing_samples_stay_missing_and_flat_leads_flat(noise):
    signal = twelve_leads()
    signal[6, 10:20], signal[7], signal[8] = np.nan, 0.5, np.nan
    noisy = add_noise(signal, STANDARD_LEADS, noise, 0, np.random.default_rng(0))
    np.testing.assert_array_equal(np.isnan(noisy), np.isnan(signal))
    np.testing.assert_array_equal(noisy[7], signal[7])
    assert (noisy[6, :10] != signal[6, :10]).all()


def test_noise_is_never_repeated(noise):
    with pytest.raises(ValueError, match="3001 samples, the noise at its rate 3000"):
        add_noise(np.ones((1, 3001), dtype=np.float32), ["I"], noise, 0, np.random.default_rng(0))
    whole = np.random.default_rng(0).normal(size=(1, 3000)).astype(np.float32)
    assert np.isfinite(add_noise(whole, ["I"], noise, 0, np.random.default_rng(0))).all()


def test_noise_that_stands_still_is_refused():
    with pytest.raises(ValueError, match="stands still"):
        add_noise(np.eye(1, 10, dtype=np.float32), ["I"], np.ones((2, 20)), 0, np.random.default_rng(0))


def test_a_missing_folder_is_refused_with_where_to_get_it(tmp_path, tiny_pair):
    with pytest.raises(ValueError, match=r"no noise recordings \['bw', 'em', 'ma'\].*physionet.org/content/nstdb"):
        noise_scores(tiny_pair, tmp_path)
    with pytest.raises(ValueError, match=r"nstdb_dir.*physionet.org/content/nstdb"):
        NoiseRecordings(None)


def test_recorded_noise_keeps_its_power_and_time_at_another_rate(nstdb):
    for kind in ("bw", "em", "ma"):
        own = nstdb.at_rate(kind, 360.0)
        assert own.shape == (2, 650_000 // 2 - 2 * 360)
        for rate in (100.0, 500.0):
            other = nstdb.at_rate(kind, rate)
            assert other.shape[1] == pytest.approx(own.shape[1] * rate / 360, abs=2)
            if kind == "bw":  # all of it below 50 Hz
                np.testing.assert_allclose(other.std(axis=1), own.std(axis=1), rtol=0.01)
                times = np.arange(0, 1000) / 10
                at = [np.interp(times, np.arange(n.shape[1]) / r, n[0]) for n, r in ((own, 360), (other, rate))]
                assert np.corrcoef(*at)[0, 1] > 0.995


def test_noise_of_a_record_depends_on_seed_kind_and_id_alone(nstdb, few_splits):
    row = decoded(few_splits.test)[0]
    first = noisy_row(row, nstdb, "em", 0, seed=0)["ecg"]["signal"]
    np.testing.assert_array_equal(first, noisy_row(row, nstdb, "em", 0, seed=0)["ecg"]["signal"])
    for other in (noisy_row(row, nstdb, "em", 0, seed=1), noisy_row(row, nstdb, "ma", 0, seed=0)):
        assert not np.array_equal(first, other["ecg"]["signal"])
    assert not np.array_equal(first, noisy_row(row | {"record_id": "x"}, nstdb, "em", 0, seed=0)["ecg"]["signal"])
    louder = noisy_row(row, nstdb, "em", -6, seed=0)["ecg"]["signal"]
    added, more = (signal[0] - row["ecg"]["signal"][0] for signal in (first, louder))
    np.testing.assert_allclose(more, added * 10**0.3, rtol=1e-3, atol=1e-5)  # the same stretch
    assert len(row["ecg"]["leads"]) == 12 and set(LIMB_LEADS) <= set(row["ecg"]["leads"])


def write_noise(folder, kinds=("bw", "em", "ma"), seconds=40):
    """Noise recordings in the form of the database: WFDB, format 16, 360 Hz, two channels."""
    generator = np.random.default_rng(0)
    for kind in kinds:
        steps = (np.cumsum(generator.normal(size=(360 * seconds, 2)), axis=0) * 10).astype("<i2")
        lines = [f"{kind} 2 360 {len(steps)}"] + [f"{kind}.dat 16 200/mV 16 0 0 0 0 noise{n}" for n in (1, 2)]
        (folder / f"{kind}.hea").write_text("\n".join(lines) + "\n")
        (folder / f"{kind}.dat").write_bytes(steps.tobytes())
    return folder


def test_scores_are_of_test_records_with_noise_and_probes_of_clean_ones(tmp_path, tiny_pair):
    folder = write_noise(tmp_path)
    entries = noise_scores(tiny_pair, folder, kinds=("em", "bw"), snrs_db=(60, -6))
    assert [(entry["group"], entry["value"]) for entry in entries] == [
        (None, "clean"),
        ("em", 60),
        ("em", -6),
        ("bw", 60),
        ("bw", -6),
    ]
    clean, quiet, loud = entries[:3]
    assert quiet["pretrained"]["macro_auroc"] == pytest.approx(clean["pretrained"]["macro_auroc"], abs=0.02)
    assert loud["label"] == "electrode motion, -6 dB" and loud["pretrained"]["C"] == clean["pretrained"]["C"]
    recordings = NoiseRecordings(folder)
    change = Change(-6, loud["label"], "em", lambda row: noisy_row(row, recordings, "em", -6, tiny_pair.seed))
    (noisy,) = tiny_pair.on_changed_tests([change])
    scores = tiny_pair.clean["pretrained"].test.scores  # close together: few records get the strongest penalty
    assert np.abs(noisy["pretrained"].test.scores - scores).max() > scores.std()
    again = tiny_pair.entry("noise", *change[:3], noisy)
    assert again == loud


@pytest.mark.parametrize("snr_db", [0, 12])
def test_white_noise_is_as_strong_as_it_says_in_every_lead_and_follows_from_seed_and_record(snr_db):
    signal = np.stack([np.sin(np.arange(5000) / 20), 5 * np.cos(np.arange(5000) / 30), np.zeros(5000)])
    row = {"record_id": "r", "ecg": {"signal": signal.astype(np.float32), "leads": ["I", "II", "V1"]}}
    first, again, other = (white_noise_row(row, snr_db, seed)["ecg"]["signal"] for seed in (0, 0, 1))
    added = first - signal
    ratios = signal[:2].var(axis=1) / added[:2].var(axis=1)
    np.testing.assert_allclose(10 * np.log10(ratios), snr_db, atol=0.3)
    assert (added[2] == 0).all() and np.array_equal(first, again) and not np.array_equal(first, other)
    assert abs(np.corrcoef(added[0], added[1])[0, 1]) < 0.05
    assert np.array_equal(row["ecg"]["signal"], signal.astype(np.float32))
