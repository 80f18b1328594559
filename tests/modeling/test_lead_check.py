import numpy as np
import pytest

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling.leads import STANDARD_LEADS, derivation_weights
from ecg_transformers.modeling.signal_quality import (
    CHEST_LEADS,
    CHEST_TO_LIMB,
    SWAP_MARGIN,
    band_pass,
    check_einthoven,
    check_limb_swap,
    duplicate_leads,
    leads_of_equal_range,
)

LEADS = list(STANDARD_LEADS)
# What I and II become: the electrodes are exchanged, the names of the leads stay.
SWAPS = {
    "none": lambda first, second: (first, second),
    "LA/RA": lambda first, second: (-first, second - first),
    "RA/LL": lambda first, second: (first - second, -second),
    "LA/LL": lambda first, second: (second, first),
}


def limb_leads(first, second):
    rows = {"I": first, "II": second}
    for lead in ("III", "aVR", "aVL", "aVF"):
        weights = derivation_weights(lead)
        rows[lead] = weights["I"] * first + weights["II"] * second
    return np.stack([rows[lead] for lead in LEADS[:6]])


def swapped(signal, swap):
    return np.concatenate([limb_leads(*SWAPS[swap](signal[0], signal[1])), signal[6:]])


@pytest.fixture(scope="module")
def signals():
    """All carried recordings, `(495, 12, 1000)` in mV at 100 Hz, and their folds."""
    rows = load_ecg("ptb-xl-sample", split="all")
    assert rows[0]["ecg"]["leads"] == LEADS
    return np.stack([row["ecg"]["signal"] for row in rows]), np.array(rows["fold"])


def suspected(signals, swap):
    return [check_limb_swap(swapped(signal, swap), LEADS, 100).suspected for signal in signals]


def test_swaps_on_recordings_of_folds_that_the_coefficients_did_not_see(signals):
    signals = signals[0][signals[1] > 8]
    assert len(signals) > 100
    found = {swap: suspected(signals, swap) for swap in SWAPS}
    assert len([name for name in found["none"] if name]) <= 2
    assert found["LA/RA"].count("LA/RA") / len(signals) > 0.88
    assert found["RA/LL"].count("RA/LL") / len(signals) > 0.9
    assert len([name for name in found["LA/LL"] if name]) <= 2  # never suspected, never taken for another


def test_the_coefficients_are_the_least_squares_fit_of_folds_1_to_8(signals):
    leads = band_pass(signals[0][signals[1] <= 8], 100, (0.7, 35))
    leads = leads / np.sqrt((leads[:, :2] ** 2).mean(axis=(1, 2), keepdims=True) + 1e-6)
    limb, chest = leads[:, :2], leads[:, 6:]
    fit = np.linalg.solve(np.einsum("nit,njt->ij", chest, chest), np.einsum("nit,njt->ij", chest, limb)).T
    np.testing.assert_allclose(CHEST_TO_LIMB, fit, atol=0.001)


def test_a_suspicion_gives_its_evidence(signals):
    signal = next(signal for signal in signals[0] if check_limb_swap(swapped(signal, "LA/RA"), LEADS, 100).suspected)
    check = check_limb_swap(swapped(signal, "LA/RA"), LEADS, 100)
    assert check.suspected == "LA/RA" and "lead I alone -0." in check.evidence and "aVR points" in check.evidence
    assert check.correlations["LA/RA"] - check.correlations["as recorded"] > SWAP_MARGIN
    assert check_limb_swap(signal, LEADS, 100).evidence == ""


def test_the_order_of_the_leads_and_the_unit_do_not_matter(signals):
    signal = swapped(signals[0][0], "RA/LL")
    expected = check_limb_swap(signal, LEADS, 100).correlations
    found = check_limb_swap(1000 * signal[::-1], LEADS[::-1], 100).correlations
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda signal: (signal[:11], LEADS[:11], 100),
        lambda signal: (signal[:, :199], LEADS, 100),
        lambda signal: (signal, LEADS, 50),
        lambda signal: (np.where(np.arange(1000) == 3, np.nan, signal), LEADS, 100),
        lambda signal: (np.zeros_like(signal), LEADS, 100),
        lambda signal: (np.concatenate([signal[:6], np.zeros_like(signal[6:])]), LEADS, 100),
    ],
    ids=["no V6", "short", "slow", "gap", "flat", "flat chest leads"],
)
def test_what_cannot_be_evaluated_is_not(signals, change):
    assert check_limb_swap(*change(signals[0][0])) is None


def test_limb_leads_of_real_recordings_fit_together(signals):
    assert not any(check_einthoven(signal, LEADS) for signal in signals[0][::5])
    assert check_einthoven(signals[0][0] + np.arange(12)[:, None], LEADS) == {}  # whatever their offsets


def test_leads_under_each_others_names_are_recognised(signals):
    names = ["I", "II", "III", "aVR", "aVF", "aVL", *CHEST_LEADS]  # the order of MIMIC-IV-ECG, taken for the usual one
    for signal in signals[0][::25]:
        misfits = {lead: misfit.looks_like for lead, misfit in check_einthoven(signal, names).items()}
        assert misfits in ({"aVF": "aVL", "aVL": "aVF"}, {})
    assert check_einthoven(signals[0][0], names)


def test_a_lead_upside_down_is_recognised(signals):
    signal = signals[0][0].copy()
    signal[3] *= -1  # the Cabrera sequence has -aVR
    assert {lead: misfit.looks_like for lead, misfit in check_einthoven(signal, LEADS).items()} == {"aVR": "-aVR"}


def test_a_lead_of_its_own_is_a_misfit_without_a_name(signals):
    signal = signals[0][0].copy()
    signal[2] = signals[0][1][6]
    (misfit,) = check_einthoven(signal, LEADS).values()
    assert misfit.looks_like is None and misfit.difference > 0.01


def test_equal_leads_are_named_and_flat_ones_are_not():
    row = np.sin(np.arange(50.0))
    gap = np.where(np.arange(50) == 4, np.nan, row)
    signal = np.stack([row, gap, row, np.zeros(50), np.zeros(50), gap, np.full(50, np.nan)])
    assert duplicate_leads(signal, list("abcdefg")) == [("a", "c"), ("b", "f")]


def test_leads_scaled_one_by_one_are_recognised(signals):
    signal = signals[0][0]
    assert not leads_of_equal_range(signal)
    assert leads_of_equal_range(signal / np.ptp(signal, axis=1, keepdims=True))
    assert not leads_of_equal_range(np.ones((12, 5)))


def test_ludb_is_seen_to_be_scaled_lead_by_lead(shared_data_dir):
    from ecg_transformers.data import read_record

    record, _ = read_record(str(shared_data_dir / "ludb" / "data" / "1"), "1")
    assert leads_of_equal_range(record.to_millivolts()) and check_einthoven(record.to_millivolts(), record.leads)


@pytest.mark.slow
def test_swaps_on_all_carried_recordings(signals):
    found = {swap: suspected(signals[0], swap) for swap in SWAPS}
    assert len([name for name in found["none"] if name]) <= 1
    assert found["LA/RA"].count("LA/RA") >= 0.92 * 495 and found["RA/LL"].count("RA/LL") >= 0.94 * 495
    assert len([name for name in found["LA/LL"] if name]) <= 1
