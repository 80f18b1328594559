"""Lead names and the algebra of the limb leads."""

import numpy as np
import pytest

from ecg_transformers.modeling.leads import (
    DERIVED_LIMB_LEADS,
    INDEPENDENT_LEADS,
    STANDARD_LEADS,
    canonical_lead,
    canonical_leads,
    derivation_weights,
    lead_indices,
    limb_lead_matrix,
)


@pytest.mark.parametrize(
    ("spelling", "lead"),
    [
        *(("AVR", "aVR"), ("avl", "aVL"), ("aVF.", "aVF"), (" v1 ", "V1"), ("MDC_ECG_LEAD_aVR", "aVR")),
        *(("MDC_ECG_LEAD_II", "II"), ("Lead II", "II"), ("lead-3", "III"), ("DI", "I"), ("D2", "II")),
        *(("C4", "V4"), ("vx", "VX")),
    ],
)
def test_usual_spellings_are_known(spelling, lead):
    assert canonical_lead(spelling) == lead


@pytest.mark.parametrize("name", ["MLII", "ML5", "V7", "RESP", "", "ABP"])
def test_other_channels_are_not_taken_for_leads(name):
    with pytest.raises(ValueError, match="Unknown lead"):
        canonical_lead(name)


def test_two_spellings_of_one_lead_and_a_single_string_are_refused():
    assert canonical_leads(STANDARD_LEADS) == STANDARD_LEADS
    with pytest.raises(ValueError, match="come more than once"):
        canonical_leads(["aVR", "AVR"])
    with pytest.raises(ValueError, match="sequence of lead names"):
        canonical_leads("II")


def test_indices_follow_names_not_positions():
    mimic_order = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
    assert lead_indices(["aVL", "aVF"], mimic_order) == [5, 4]


def test_a_missing_lead_is_named_with_its_cure():
    with pytest.raises(ValueError, match=r"\['aVR'\] are not among .*derive_limb_leads=True"):
        lead_indices(["aVR"], ["I", "II"])
    with pytest.raises(ValueError, match=r"\['V1'\] are not among .*\.$"):
        lead_indices(["V1"], ["I", "II"])


def test_derived_leads_obey_einthoven_and_goldberger():
    right_arm, left_arm, foot = np.random.default_rng(0).normal(size=(3, 50))
    lead_i, lead_ii = left_arm - right_arm, foot - right_arm
    expected = {
        "III": foot - left_arm,
        "aVR": right_arm - (left_arm + foot) / 2,
        "aVL": left_arm - (right_arm + foot) / 2,
        "aVF": foot - (right_arm + left_arm) / 2,
    }
    for lead in DERIVED_LIMB_LEADS:
        weights = derivation_weights(lead)
        np.testing.assert_allclose(weights["I"] * lead_i + weights["II"] * lead_ii, expected[lead], atol=1e-12)


def test_matrix_gives_twelve_leads_from_eight():
    matrix = limb_lead_matrix()
    assert matrix.shape == (12, 8)
    independent = np.random.default_rng(0).normal(size=(8, 5))
    twelve = matrix @ independent
    np.testing.assert_array_equal(twelve[[STANDARD_LEADS.index(lead) for lead in INDEPENDENT_LEADS]], independent)
    np.testing.assert_allclose(twelve[:6].sum(0) - twelve[[0, 1, 2]].sum(0), 0, atol=1e-12)  # aVR + aVL + aVF = 0
    np.testing.assert_array_equal(limb_lead_matrix(["aVF", "V6"]), matrix[[5, 11]])


def test_frank_and_precordial_leads_cannot_be_derived():
    with pytest.raises(ValueError, match="no linear combination"):
        limb_lead_matrix(["VX"])
    with pytest.raises(ValueError, match="cannot be derived"):
        derivation_weights("V1")
