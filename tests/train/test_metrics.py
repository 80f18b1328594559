import time
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from transformers import EvalPrediction

from ecg_transformers.train.metrics import (
    auroc_interval,
    compute_metrics,
    macro_auprc,
    macro_auroc,
    macro_f1,
    paired_facts,
    percentile_interval,
    resample_counts,
    resampled_auroc,
    resampled_macro_auroc,
)

LABELS = ("NORM", "MI", "STTC", "CD", "HYP")


def multilabel_scores(num_records=200, signal=1.0, num_levels=None, seed=0):
    """Labels of 20 % prevalence and scores that separate them by `signal` standard deviations, tied where asked."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_records, len(LABELS))) < 0.2).astype(int)
    scores = generator.normal(size=labels.shape) + signal * labels
    if num_levels:
        scores = np.round(scores * num_levels) / num_levels
    return labels, scores


def test_macro_auroc_equals_scikit_learn():
    labels, scores = multilabel_scores()
    result = macro_auroc(labels, scores, LABELS)
    assert result.value == pytest.approx(roc_auc_score(labels, scores, average="macro"), abs=1e-12)
    assert result.per_class["MI"] == pytest.approx(roc_auc_score(labels[:, 1], scores[:, 1]), abs=1e-12)
    assert result.excluded == {}


def test_labels_that_cannot_be_evaluated_or_are_rare_are_excluded_and_named():
    labels, scores = multilabel_scores()
    labels[:, 2], labels[:, 0], labels[:, 4] = 0, 1, 0
    labels[:9, 4] = 1
    result = macro_auroc(labels, scores, LABELS)
    assert set(result.per_class) == {"MI", "CD", "HYP"} and "negative" in result.excluded["NORM"]
    assert result.excluded["STTC"] == "0 positive of 200 records, at least 1 needed"
    assert result.value == pytest.approx(np.mean(list(result.per_class.values())))
    assert "9 positive" in macro_auroc(labels, scores, LABELS, min_positives=10).excluded["HYP"]
    with pytest.raises(ValueError, match="No label can be evaluated"):
        macro_auroc(np.zeros_like(labels), scores, LABELS)


def test_scores_with_nan_are_refused_with_their_row():
    labels, scores = multilabel_scores()
    scores[17, 3] = np.nan
    with pytest.raises(ValueError, match="row 17"):
        macro_auroc(labels, scores, LABELS)


def test_auprc_and_f1_equal_scikit_learn():
    labels, scores = multilabel_scores()
    assert macro_auprc(labels, scores, LABELS).value == pytest.approx(average_precision_score(labels, scores))
    assert macro_f1(labels, scores, LABELS).value == pytest.approx(f1_score(labels, scores >= 0.5, average="macro"))


@pytest.mark.parametrize("num_levels", [None, 1, 3])
def test_fast_auroc_of_resamples_equals_scikit_learn_with_and_without_ties(num_levels):
    labels, scores = multilabel_scores(num_records=60, num_levels=num_levels)
    counts = resample_counts(60, num_resamples=20, seed=1)
    areas = resampled_auroc(labels, scores, counts)
    for resample, count in enumerate(counts):
        rows = np.repeat(np.arange(60), count)
        expected = [roc_auc_score(labels[rows, column], scores[rows, column]) for column in range(len(LABELS))]
        np.testing.assert_allclose(areas[resample], expected, atol=1e-12)


def test_resample_that_loses_a_class_is_nan_for_that_label_only():
    labels = np.array([[1, 1], [0, 1], [0, 0]])
    scores = np.array([[0.9, 0.2], [0.1, 0.8], [0.4, 0.3]])
    areas = resampled_auroc(labels, scores, np.array([[0, 2, 1]]))
    assert np.isnan(areas[0, 0]) and areas[0, 1] == 1.0


def test_fast_interval_equals_the_generic_one_on_the_same_resamples():
    labels, scores = multilabel_scores()
    values = []
    for counts in resample_counts(len(labels), 50, 3):
        rows = np.repeat(np.arange(len(labels)), counts)
        values.append(macro_auroc(labels[rows], scores[rows], LABELS).value)
    generic = percentile_interval(np.array(values))
    assert auroc_interval(labels, scores, LABELS, num_resamples=50, seed=3).macro == pytest.approx(generic, abs=1e-12)


def test_interval_repeats_with_its_seed_and_leaves_the_global_generator_alone():
    labels, scores = multilabel_scores()
    before = np.random.get_state()[1].copy()
    first, second, other = (auroc_interval(labels, scores, LABELS, 100, seed).macro for seed in (5, 5, 6))
    assert first == second != other
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_resampling_by_patient_keeps_the_records_of_a_patient_together():
    counts = resample_counts(6, 50, seed=0, groups=["a", "a", "b", "c", "c", "c"])
    np.testing.assert_array_equal(counts[:, 0], counts[:, 1])
    np.testing.assert_array_equal(counts[:, 3], counts[:, 5])
    assert (counts[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_interval_by_patient_is_wider_where_patients_repeat():
    labels, scores = multilabel_scores(100)
    labels, scores, patients = (np.repeat(array, 4, axis=0) for array in (labels, scores, np.arange(100)))
    by_record = auroc_interval(labels, scores, LABELS, 300).macro
    by_patient = auroc_interval(labels, scores, LABELS, 300, groups=patients).macro
    assert by_patient[1] - by_patient[0] > 1.5 * (by_record[1] - by_record[0])


def paired(labels, scores, baseline_scores, num_resamples):
    """Difference and facts of two models by the same resamples."""
    counts = resample_counts(len(labels), num_resamples)
    ours, theirs = (resampled_macro_auroc(labels, of_model, LABELS, counts) for of_model in (scores, baseline_scores))
    return ours.value - theirs.value, paired_facts(ours.resampled - theirs.resampled)


def test_paired_resamples_see_a_better_model():
    labels, weak = multilabel_scores(300, signal=0.3)
    strong = weak + 1.0 * labels
    difference, facts = paired(labels, strong, weak, 500)
    expected = roc_auc_score(labels, strong) - roc_auc_score(labels, weak)
    assert difference == pytest.approx(expected, abs=1e-12)
    assert 0 < facts["ci95"][0] < difference < facts["ci95"][1]
    assert facts["p_value"] == pytest.approx(2 / 501)


def test_paired_resamples_of_a_model_and_itself_find_nothing():
    labels, scores = multilabel_scores()
    assert paired(labels, scores, scores, 100) == (0, {"ci95": [0, 0], "p_value": 1})


def test_facts_of_differences_leave_out_resamples_that_could_not_be_evaluated():
    differences = np.array([np.nan, *range(-3, 37)], dtype=float)  # 4 of 40 are at most 0
    facts = paired_facts(differences)
    assert facts == {"ci95": np.percentile(differences[1:], (2.5, 97.5)).tolist(), "p_value": 2 * (4 + 1) / (40 + 1)}
    assert paired_facts(-differences)["p_value"] == facts["p_value"]
    assert percentile_interval(differences) == tuple(facts["ci95"])
    with pytest.raises(ValueError, match="No bootstrap resample could be evaluated"):
        percentile_interval(np.full(3, np.nan))


def test_an_interval_of_many_records_never_holds_all_counts():
    labels, scores = multilabel_scores(50_000)
    tracemalloc.start()
    try:
        auroc_interval(labels[:, :1], scores[:, :1], LABELS[:1], num_resamples=200)
        assert tracemalloc.get_traced_memory()[1] < 4 * 200 * len(labels) / 2
    finally:
        tracemalloc.stop()


def test_thousand_resamples_of_five_labels_and_500_records_take_under_three_seconds():
    labels, scores = multilabel_scores(500)
    start = time.perf_counter()
    auroc_interval(labels, scores, LABELS, num_resamples=1000)
    assert time.perf_counter() - start < 3


def test_compute_metrics_of_several_labels_are_those_of_scikit_learn_on_the_labels_that_can_be_evaluated():
    labels, logits = multilabel_scores()
    labels[:, 3] = 0
    found = compute_metrics(EvalPrediction(predictions=(logits, "hidden states"), label_ids=labels.astype(np.float32)))
    kept = [0, 1, 2, 4]
    assert found["num_labels"] == 4
    assert found["macro_auroc"] == pytest.approx(roc_auc_score(labels[:, kept], logits[:, kept], average="macro"))
    precision = average_precision_score(labels[:, kept], logits[:, kept], average="macro")
    assert found["macro_auprc"] == pytest.approx(precision)
    assert found["macro_f1"] == pytest.approx(f1_score(labels[:, kept], logits[:, kept] >= 0, average="macro"))


def test_compute_metrics_of_one_label_a_record_count_the_most_probable_class():
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 3, size=60)
    logits = generator.normal(size=(60, 3)) + 2 * np.eye(3)[classes]
    found = compute_metrics(EvalPrediction(predictions=logits, label_ids=classes))
    assert found["macro_f1"] == pytest.approx(f1_score(classes, logits.argmax(axis=1), average="macro"))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["macro_auroc"] == pytest.approx(roc_auc_score(classes, softmax, multi_class="ovr", average="macro"))


@pytest.mark.parametrize("labels", [np.full((4, 2), 61.5), np.zeros((4, 2))])
def test_compute_metrics_refuse_a_regression_and_a_set_that_can_evaluate_no_label(labels):
    with pytest.raises(ValueError):
        compute_metrics(EvalPrediction(predictions=np.zeros((4, 2)), label_ids=labels))
