from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_transformers.train.evaluation.changed_rows import (
    at_rate,
    first_seconds,
    rate_ratio,
    renamed,
    scaled,
)
from ecg_transformers.train.evaluation.settings import length_scores, rate_scores, unit_scores
from ecg_transformers.train.features import decoded


def sine_row(sampling_rate, frequency_hz, seconds=10, leads=("I", "II")):
    times = np.arange(round(seconds * sampling_rate)) / sampling_rate
    signal = np.stack([np.sin(2 * np.pi * frequency_hz * times), np.cos(2 * np.pi * frequency_hz * times)])
    ecg = {"signal": signal.astype(np.float32), "leads": list(leads), "sampling_rate": sampling_rate, "unit": "mV"}
    return {"record_id": "a", "ecg": ecg}


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([100.0, 250.0, 257.0, 360.0, 400.0, 500.0]), st.sampled_from([100, 125, 250, 360, 500, 1000]))
def test_a_slow_wave_is_the_same_at_every_rate(old_rate, new_rate):
    changed = at_rate(sine_row(old_rate, 3.0), new_rate)["ecg"]
    expected = sine_row(float(new_rate), 3.0)["ecg"]["signal"]
    assert changed["sampling_rate"] == new_rate and changed["signal"].dtype == np.float32
    assert expected.shape[1] <= changed["signal"].shape[1] <= expected.shape[1] + 1  # never shorter than it was
    inside = slice(round(0.5 * new_rate), round(9.5 * new_rate))
    np.testing.assert_allclose(changed["signal"][:, inside], expected[:, inside], atol=0.01)


def test_a_wave_above_half_of_the_new_rate_does_not_come_back_as_another():
    changed = at_rate(sine_row(500.0, 80.0), 100)["ecg"]["signal"]
    assert np.abs(changed[:, 20:-20]).max() < 0.01


def test_a_record_at_the_rate_is_itself_and_missing_samples_stay_missing():
    row = sine_row(100.0, 1.0)
    assert at_rate(row, 100) is row
    row["ecg"]["signal"][0, 500] = np.nan
    changed = at_rate(row, 250)["ecg"]["signal"]
    assert np.isnan(changed[0, 1250]) and np.isnan(changed[0]).sum() < 100 and np.isfinite(changed[1]).all()


def test_rates_are_whole_ratios():
    assert (
        rate_ratio(360, 100) == (5, 18) and rate_ratio(500.0, 500.0) == (1, 1) and rate_ratio(257, 250) == (250, 257)
    )


def test_rates_above_what_was_recorded_change_scores_little(tiny_pair):
    own, lower, higher = rate_scores(tiny_pair, (100, 50, 500))
    clean = tiny_pair.clean["pretrained"].evaluate(num_resamples=tiny_pair.num_resamples)
    assert own["pretrained"]["macro_auroc"] == clean["macro_auroc"]
    assert own["pretrained"]["macro_auroc_ci95"] == pytest.approx(clean["macro_auroc_ci95"])
    assert own["recorded_at"] == [100.0] and own["model_reads"] == 100.0 and own["label"] == "100 Hz"
    assert higher["pretrained"]["macro_auroc"] == pytest.approx(clean["macro_auroc"], abs=0.05)
    assert [lower["value"], higher["value"]] == [50, 500]


def test_declared_units_change_nothing_and_misuse_does(tiny_pair):
    entries = {entry["value"]: entry for entry in unit_scores(tiny_pair)}
    changes = {name: entry["largest_score_change"]["pretrained"] for name, entry in entries.items()}
    assert changes["mV"] == 0 and changes["uV"] < 1e-4 and changes["V"] < 1e-4
    rounding = max(changes["uV"], changes["V"])  # the strongest penalty, as few records choose it, leaves small scores
    assert min(changes["mV x 1000"], changes["mV / 1000"], changes["V1 to V6 named in reverse"]) > 50 * rounding
    assert changes["aVL and aVF under each other's name"] == 0  # a model of eight leads does not read them
    for entry in entries.values():
        is_misuse = entry["value"] not in ("mV", "uV", "V")
        assert (entry["group"] == "misuse") == is_misuse == entry["label"].startswith("MISUSE")
        if not is_misuse:
            assert entry["pretrained"]["macro_auroc"] == pytest.approx(entries["mV"]["pretrained"]["macro_auroc"])


def test_changes_leave_the_row_that_they_came_from(few_splits):
    row = decoded(few_splits.test)[0]
    signal = row["ecg"]["signal"].copy()
    louder = scaled(row, 1e3)["ecg"]
    np.testing.assert_allclose(louder["signal"], signal * 1e3, rtol=1e-6)
    assert louder["unit"] == "mV"
    assert renamed(row, {"V1": "V6", "V6": "V1"})["ecg"]["leads"][6:] == ["V6", "V2", "V3", "V4", "V5", "V1"]
    assert first_seconds(row, 2.5)["ecg"]["signal"].shape == (12, 250)
    np.testing.assert_array_equal(row["ecg"]["signal"], signal)
    assert row["ecg"]["leads"][6] == "V1" and row["ecg"]["unit"] == "mV"


def test_dimensionless_records_have_no_unit_to_declare(few_splits, tiny_pair):
    stored = [row["ecg"] | {"unit": "dimensionless"} for row in few_splits.test]
    feature = few_splits.test.features["ecg"]
    test = few_splits.test.remove_columns("ecg").add_column("ecg", stored, feature=feature)
    entries = unit_scores(replace(tiny_pair, splits=replace(few_splits, test=test)))
    assert len(entries) == 3 and all("dimensionless" in entry["refused"] for entry in entries)


def test_short_records_are_padded_after_the_part_that_is_there(few_splits, tiny_pair):
    row = decoded(few_splits.test)[0]
    padding = tiny_pair.feature_extractor.changed(short_records="zero_pad")
    assert tiny_pair.feature_extractor.short_records == "raise"
    cut = padding([first_seconds(row, 2.5)["ecg"]])["input_values"]
    assert not cut[..., 250:].any()
    np.testing.assert_allclose(cut[..., :250], padding([row["ecg"]])["input_values"][..., :250], atol=1e-6)
    whole, half = length_scores(tiny_pair, (2.5,))
    assert whole["value"] == "whole" and half["value"] == 2.5 and half["num_test_records"] == 16
    assert half["pretrained"] != whole["pretrained"]
