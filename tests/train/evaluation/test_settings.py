import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import roc_auc_score

from ecg_transformers.train.evaluation import changed_rows
from ecg_transformers.train.evaluation.protocols import FrozenTables, linear_protocol
from ecg_transformers.train.evaluation.settings import (
    SETTINGS,
    Change,
    evaluate_pair,
    low_shot,
    run_settings,
)
from ecg_transformers.train.features import EmbeddingTable, decoded, embed
from ecg_transformers.train.metrics import resample_counts
from ecg_transformers.train.predictions import Predictions, ProtocolResult, compare_results
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL

NAMES = ("A", "B")
ENTRY = {"setting", "group", "value", "label", "pretrained", "random_encoder", "difference", "excluded"}
COUNTS = {"num_train_records", "num_test_records", "num_test_patients"}


def result(seed, problem_type=MULTI_LABEL, num_test=60, train_labels=None, signal=1.0):
    """Random scores of one test split, two records a patient."""
    generator, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    truth = (fixed.random((num_test, len(NAMES))) < (0.4, 0.3)).astype(np.int8)
    if problem_type == REGRESSION:
        truth = fixed.normal(size=(num_test, len(NAMES))) * (10, 2)
    elif problem_type == SINGLE_LABEL:
        truth = np.eye(2, dtype=np.int8)[truth[:, 0]]
    scores = signal * truth + generator.normal(size=truth.shape)
    if problem_type != REGRESSION:
        scores = softmax(scores, axis=1) if problem_type == SINGLE_LABEL else expit(scores)
    test = Predictions(scores, truth, [f"r{n}" for n in range(num_test)], [f"p{n // 2}" for n in range(num_test)])
    train_labels = truth if train_labels is None else train_labels
    return ProtocolResult("linear", NAMES, problem_type, train_labels, test, test, {"C": 0.1})


def draws(num, **options):
    return {
        "pretrained": [result(seed, **options) for seed in range(1, num + 1)],
        "random_encoder": [result(seed, signal=0.2, **options) for seed in range(11, num + 11)],
    }


@pytest.mark.parametrize("problem_type", [MULTI_LABEL, SINGLE_LABEL, REGRESSION])
def test_one_draw_has_the_numbers_of_the_evaluation_and_the_comparison(problem_type):
    results = draws(1, problem_type=problem_type)
    facts = evaluate_pair(results, num_resamples=60, seed=3)
    metric = "macro_zmae" if problem_type == REGRESSION else "macro_auroc"
    for encoder, (one,) in results.items():
        evaluated = one.evaluate(num_resamples=60, seed=3)
        assert facts[encoder][metric] == pytest.approx(evaluated[metric])
        assert facts[encoder][f"{metric}_ci95"] == pytest.approx(evaluated[f"{metric}_ci95"])
        assert facts["num_test_patients"] == evaluated["num_test_patients"] == 30
    expected = compare_results(*(one for (one,) in results.values()), num_resamples=60, seed=3)
    for name, value in expected.items():
        assert facts["difference"][name] == pytest.approx(value), name


def test_several_draws_are_resampled_with_the_patients():
    results = draws(3)
    facts = evaluate_pair(results, num_resamples=5, seed=5)
    test = results["pretrained"][0].test
    counts = resample_counts(60, 5, 5, test.patients())
    chosen = np.random.default_rng([5, 1]).integers(3, size=(5, 3))

    def area(one, rows):
        return np.mean([roc_auc_score(one.test.labels[rows, c], one.test.scores[rows, c]) for c in range(2)])

    resampled = []
    for of_records, of_draws in zip(counts, chosen, strict=True):
        rows = np.repeat(np.arange(60), of_records)
        areas = {e: np.mean([area(results[e][draw], rows) for draw in of_draws]) for e in results}
        resampled.append([areas["pretrained"], areas["pretrained"] - areas["random_encoder"]])
    low, high = np.percentile(resampled, (2.5, 97.5), axis=0)
    assert facts["pretrained"]["macro_auroc_ci95"] == pytest.approx([low[0], high[0]])
    assert facts["difference"]["ci95"] == pytest.approx([low[1], high[1]])
    values = [area(one, np.arange(60)) for one in results["pretrained"]]
    assert facts["pretrained"]["draws"] == pytest.approx(values)
    assert facts["pretrained"]["macro_auroc_sd"] == pytest.approx(np.std(values, ddof=1))


def test_a_label_that_some_draw_cannot_teach_is_left_out_of_that_draw_alone():
    results = draws(2)
    without_b = results["pretrained"][0].test.labels.copy()
    without_b[:, 1] = 0
    for encoder in results:
        results[encoder][1] = replace(results[encoder][1], train_labels=without_b)
    facts = evaluate_pair(results, num_resamples=20)
    second = results["pretrained"][1].test
    assert facts["pretrained"]["draws"][1] == pytest.approx(roc_auc_score(second.labels[:, 0], second.scores[:, 0]))
    assert set(facts["pretrained"]["per_class"]) == {"A", "B"} and facts["excluded"] == {}


def test_results_of_other_records_are_not_compared():
    results = draws(1)
    results["random_encoder"] = [result(11, num_test=58)]
    with pytest.raises(ValueError, match="same test records"):
        evaluate_pair(results)
    with pytest.raises(ValueError, match="random encoder"):
        evaluate_pair({"pretrained": [result(1)]})


def test_changed_records_are_scored_by_the_probe_of_the_unchanged_ones(tiny_pair):
    names = ("louder", "same", "unchanged")
    changes = [Change("louder", "", None, lambda row: _scaled(row, 2.0)), Change("same", "", None, lambda row: row)]
    found = dict(zip(names, tiny_pair.on_changed_tests([*changes, Change("unchanged", "")]), strict=True))
    assert found["unchanged"] == tiny_pair.clean
    for encoder, model in tiny_pair.models.items():
        tables, clean = tiny_pair.tables[encoder], tiny_pair.clean[encoder]
        np.testing.assert_allclose(found["same"][encoder].test.scores, clean.test.scores, atol=1e-6)
        rows = [_scaled(row, 2.0) for row in decoded(tiny_pair.splits.test)]
        louder = embed(model, tiny_pair.feature_extractor, rows, progress=False)
        changed = FrozenTables(tables.tables | {"test": louder}, tables.truth, tables.label_names, MULTI_LABEL)
        expected = linear_protocol(changed, C=clean.details["C"])
        np.testing.assert_allclose(found["louder"][encoder].test.scores, expected.test.scores, atol=1e-6)
        assert found["louder"][encoder].test.record_ids == clean.test.record_ids


def check_entries(found):
    """Of one shape, and ready for JSON."""
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name, entries in found.items():
        for entry in entries:
            assert entry["setting"] == name and "refused" not in entry
            assert ENTRY | COUNTS <= set(entry)
            for encoder in ("pretrained", "random_encoder"):
                low, high = entry[encoder]["macro_auroc_ci95"]
                assert 0 <= low <= high <= 1 and 0 <= entry[encoder]["macro_auroc"] <= 1
            assert {"macro_auroc", "ci95", "p_value"} == set(entry["difference"])


def test_settings_give_entries_of_one_shape_ready_for_json(tiny_pair):
    pair = replace(tiny_pair, num_resamples=10, linear=tiny_pair.clean, batch_size=16)
    found = run_settings(["length", "low_shot"], pair)
    assert [entry["value"] for entry in found["length"]] == ["whole", 5.0, 2.5]
    few, *found["low_shot"] = found["low_shot"]  # one record of 28 teaches nothing
    assert few["value"] == 0.01 and "None of 5 draws" in few["refused"]
    check_entries(found)


@pytest.mark.slow
def test_every_setting_gives_entries_of_one_shape_ready_for_json(tiny_pair, tmp_path, monkeypatch):
    monkeypatch.setattr(changed_rows, "read_record", lambda path: (_Noise(), []))
    for kind in ("bw", "em", "ma"):
        (tmp_path / f"{kind}.hea").write_text("")
    found = run_settings(SETTINGS, replace(tiny_pair, num_resamples=10, linear=tiny_pair.clean), tmp_path)
    assert list(found) == list(SETTINGS)
    assert {name: len(entries) for name, entries in found.items()} == {
        "low_shot": 3,
        "leads": 7,
        "noise": 19,
        "sampling_rate": 6,
        "unit": 7,
        "length": 3,
    }
    few = found["low_shot"].pop(0)  # one record of 28 teaches nothing
    assert few["value"] == 0.01 and "None of 5 draws" in few["refused"]
    check_entries(found)
    clean = tiny_pair.clean["pretrained"].evaluate(num_resamples=10)["macro_auroc"]
    unchanged = found["low_shot"][-1], found["leads"][0], found["noise"][0], found["sampling_rate"][0]
    for entry in (*unchanged, found["unit"][0], found["length"][0]):
        assert entry["pretrained"]["macro_auroc"] == pytest.approx(clean)


def test_mistakes_are_refused_before_anything_is_run(tiny_pair):
    with pytest.raises(ValueError, match=r"Unknown settings \['leds'\]. Choose from"):
        run_settings(["leds"], tiny_pair)
    with pytest.raises(ValueError, match="nstdb_dir"):
        run_settings(["low_shot", "noise"], tiny_pair)
    with pytest.raises(ValueError, match="random encoder"):
        replace(tiny_pair, models={"pretrained": None})
    assert run_settings([], tiny_pair) == {}


def test_a_regression_is_scored_in_deviations_of_the_training_targets(few_splits, tiny_pair):
    """Not asked of records, which have no targets here, but of features."""
    generator = np.random.default_rng(0)
    tables = {}
    for encoder in tiny_pair.models:
        of_split = {}
        for split, size in (("train", 40), ("validation", 20), ("test", 20)):
            ids = [f"{split}{number}" for number in range(size)]
            features = generator.normal(size=(size, 4)).astype(np.float32)
            of_split[split] = EmbeddingTable(features, ids, ids, [[]] * size, [None] * size)
        truth = {split: table.features[:, :1].astype(float) * 12 + 70 for split, table in of_split.items()}
        tables[encoder] = FrozenTables(of_split, truth, ("heart rate (bpm)",), REGRESSION)
    tables["random_encoder"] = replace(tables["random_encoder"], truth=tables["pretrained"].truth)
    (_, _, whole) = low_shot(replace(tiny_pair, tables=tables, num_resamples=20), num_draws=2)
    assert whole["pretrained"]["macro_zmae"] < 0.1 < whole["random_encoder"]["macro_zmae"]
    assert whole["difference"]["macro_zmae"] < 0 and whole["difference"]["ci95"][1] < 0


class _Noise:
    sampling_rate = 360.0

    def to_millivolts(self):
        return np.cumsum(np.random.default_rng(0).normal(size=(2, 360 * 20)), axis=1).astype(np.float32)


def _scaled(row, factor):
    return row | {"ecg": row["ecg"] | {"signal": row["ecg"]["signal"] * np.float32(factor)}}
