import json
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    mean_absolute_error,
    roc_auc_score,
)

from ecg_transformers.train.evaluate_metrics.challenge_scores import challenge_scores, challenge_weights
from ecg_transformers.train.metrics import auroc_interval, macro_auroc, paired_facts, resample_counts, resampled_auroc
from ecg_transformers.train.predictions import (
    Predictions,
    ProtocolResult,
    compare_results,
    evaluate_predictions,
    write_predictions,
)
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL

NAMES = ("A", "B", "C")


def predictions(split="test", num_records=60, seed=0, skill=1.5, num_labels=3) -> Predictions:
    """Probabilities of several labels that know something of the truth; two records a patient, the last without."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_records, num_labels)) < 0.4).astype(np.int8)
    logits = generator.normal(size=labels.shape) + skill * (labels - 0.5)
    patients = [f"{split}p{number // 2}" for number in range(num_records - 1)] + [None]
    return Predictions(1 / (1 + np.exp(-logits)), labels, [f"{split}{n}" for n in range(num_records)], patients)


def single_label(split="test", seed=0, num_records=60) -> Predictions:
    part = predictions(split, num_records, seed)
    labels = np.eye(3, dtype=np.int8)[np.random.default_rng(seed).integers(3, size=num_records)]
    logits = np.random.default_rng(seed + 1).normal(size=labels.shape) + 1.5 * labels
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(scores, labels, part.record_ids, part.patient_ids)


def regression(split="test", seed=0, num_records=60) -> Predictions:
    part = predictions(split, num_records, seed)
    truth = np.random.default_rng(seed).normal((70, 400), (10, 30), size=(num_records, 2))
    scores = truth + np.random.default_rng(seed + 1).normal((2, 0), (5, 20), size=truth.shape)
    return Predictions(scores, truth, part.record_ids, part.patient_ids)


def result(kind=predictions, problem_type=MULTI_LABEL, names=NAMES, test=None, train=None, protocol="linear"):
    train = kind("train", seed=9).labels if train is None else train
    test = kind("test", seed=1) if test is None else test
    return ProtocolResult(protocol, names, problem_type, train, kind("validation", seed=2), test, {"C": 0.1})


def read(path):
    """A Parquet file of predictions, with pyarrow alone: columns of labels and scores, and rows."""
    table = pq.read_table(path)
    names = [name.removeprefix("label/") for name in table.column_names if name.startswith("label/")]
    labels, scores = (
        np.stack([table[f"{kind}/{name}"].to_numpy() for name in names], axis=1) for kind in ("label", "score")
    )
    return names, labels, scores, table


def test_macro_numbers_are_those_of_scikit_learn_from_the_file_that_was_written(tmp_path):
    found = result()
    evaluated = found.evaluate(num_resamples=50)
    path = write_predictions({"test": found.test}, NAMES, tmp_path / "predictions.parquet")
    names, labels, scores, table = read(path)
    assert names == list(NAMES) and table["split"].to_pylist() == ["test"] * 60
    assert evaluated["macro_auroc"] == pytest.approx(roc_auc_score(labels, scores, average="macro"), abs=1e-12)
    assert evaluated["macro_auprc"] == pytest.approx(
        average_precision_score(labels, scores, average="macro"), abs=1e-12
    )
    assert evaluated["macro_f1_at_0.5"] == pytest.approx(f1_score(labels, scores >= 0.5, average="macro"), abs=1e-12)
    limits = np.array([evaluated["thresholds"][name] for name in names])
    assert evaluated["macro_f1_tuned"] == pytest.approx(f1_score(labels, scores >= limits, average="macro"), abs=1e-12)
    briers = [brier_score_loss(labels[:, column], scores[:, column]) for column in range(3)]
    assert evaluated["brier"] == pytest.approx(np.mean(briers), abs=1e-9)
    losses = [log_loss(labels[:, column], scores[:, column]) for column in range(3)]
    assert evaluated["nll"] == pytest.approx(np.mean(losses), abs=1e-9)
    for column, name in enumerate(names):
        assert evaluated["per_class"][name] == pytest.approx(roc_auc_score(labels[:, column], scores[:, column]))
        assert evaluated["per_class_auprc"][name] == pytest.approx(
            average_precision_score(labels[:, column], scores[:, column])
        )


def test_a_evaluation_has_intervals_and_counts_and_is_ready_for_json():
    evaluated = json.loads(json.dumps(result().evaluate(num_resamples=50)))
    low, high = evaluated["macro_auroc_ci95"]
    assert low < evaluated["macro_auroc"] < high and set(evaluated["per_class_ci95"]) == set(NAMES)
    counts = {"num_train_records": 60, "num_test_records": 60, "num_test_patients": 31}
    assert {name: evaluated[name] for name in counts} == counts
    assert evaluated["details"] == {"C": 0.1} and evaluated["excluded"] == {}
    assert "challenge_metric" not in evaluated


def test_thresholds_and_temperature_come_from_the_validation_split():
    test, train = predictions("test", seed=1), predictions("train", seed=9).labels
    evaluated = [
        evaluate_predictions(test, NAMES, MULTI_LABEL, train, predictions("validation", seed=seed), 5)
        for seed in (2, 3)
    ]
    assert (
        evaluated[0]["thresholds"] != evaluated[1]["thresholds"]
        and evaluated[0]["temperature"] != evaluated[1]["temperature"]
    )
    other = Predictions(test.scores, 1 - test.labels, test.record_ids, test.patient_ids)
    same = evaluate_predictions(other, NAMES, MULTI_LABEL, train, predictions("validation", seed=2), 5)
    assert same["thresholds"] == evaluated[0]["thresholds"] and same["temperature"] == evaluated[0]["temperature"]
    alone = evaluate_predictions(test, NAMES, MULTI_LABEL, train, num_resamples=5)
    assert not {"thresholds", "macro_f1_tuned", "temperature", "ece_scaled"} & set(alone)


def test_labels_that_training_or_test_cannot_evaluate_are_left_out_and_named():
    train, test = predictions("train", seed=9).labels, predictions("test", seed=1)
    train[:, 0], test.labels[:, 2] = 0, 0
    evaluated = result(train=train, test=test).evaluate(num_resamples=20)
    assert evaluated["excluded"] == {
        "A": "training set: 0 positive of 60 records, at least 1 needed",
        "C": "0 positive of 60 records, at least 1 needed",
    }
    assert set(evaluated["per_class"]) == set(evaluated["per_class_ci95"]) == {"B"}
    assert evaluated["macro_auroc"] == roc_auc_score(test.labels[:, 1], test.scores[:, 1])


def test_nothing_that_can_be_learned_is_an_error():
    with pytest.raises(ValueError, match="No label can be learned"):
        result(train=np.zeros((5, 3), dtype=np.int8)).evaluate(20)


def test_the_intervals_of_areas_are_a_bootstrap_of_patients():
    test = result().test
    evaluated = evaluate_predictions(test, NAMES, MULTI_LABEL, test.labels, num_resamples=50, seed=3)
    of_patients, of_records = (
        auroc_interval(test.labels, test.scores, NAMES, 50, 3, groups) for groups in (test.patients(), None)
    )
    assert evaluated["macro_auroc_ci95"] == list(of_patients.macro) != list(of_records.macro)
    assert evaluated["per_class_ci95"] == {name: list(bounds) for name, bounds in of_patients.per_class.items()}


@pytest.mark.slow
def test_the_classes_of_the_challenge_get_its_metric():
    names = tuple(challenge_weights()[0])
    test = predictions("test", 40, 1, num_labels=len(names))
    train = predictions("train", 40, 9, num_labels=len(names)).labels
    validation = predictions("validation", 40, 2, num_labels=len(names))
    evaluated = evaluate_predictions(test, names, MULTI_LABEL, train, validation, 10)
    limits = [evaluated["thresholds"][name] for name in names]
    expected = challenge_scores(test.labels, (test.scores >= limits).astype(int), names)["challenge_metric"]
    assert evaluated["challenge_metric"] == expected


def test_one_label_a_record_is_evaluated_one_against_the_rest():
    found = result(single_label, SINGLE_LABEL)
    evaluated, labels, scores = found.evaluate(20), found.test.labels, found.test.scores
    classes, chosen = labels.argmax(axis=1), scores.argmax(axis=1)
    assert evaluated["macro_auroc"] == pytest.approx(roc_auc_score(classes, scores, multi_class="ovr"), abs=1e-12)
    assert evaluated["macro_f1_argmax"] == pytest.approx(f1_score(classes, chosen, average="macro"), abs=1e-12)
    assert evaluated["accuracy"] == accuracy_score(classes, chosen)
    assert evaluated["nll"] == pytest.approx(log_loss(classes, scores), abs=1e-9)
    assert evaluated["temperature"] > 0 and "thresholds" not in evaluated


def test_a_class_that_training_lacks_is_wrong_for_the_accuracy():
    train = single_label("train", seed=9).labels
    train = train[train[:, 1] == 0]
    test = single_label("test", seed=1)
    scores = test.scores * [1, 0, 1]
    test = Predictions(scores / scores.sum(axis=1, keepdims=True), test.labels, test.record_ids, test.patient_ids)
    evaluated = result(single_label, SINGLE_LABEL, test=test, train=train).evaluate(20)
    assert set(evaluated["per_class"]) == {"A", "C"} and list(evaluated["excluded"]) == ["B"]
    assert evaluated["accuracy"] == (test.labels.argmax(axis=1) == scores.argmax(axis=1)).mean()
    assert evaluated["accuracy"] <= 1 - test.labels[:, 1].mean()
    assert np.isfinite(evaluated["nll"])


def test_errors_are_in_the_unit_of_the_target_and_in_its_deviations(tmp_path):
    names = ("age_years", "qt_ms")
    found = result(regression, REGRESSION, names)
    evaluated = found.evaluate(num_resamples=100)
    written, truth, said, table = read(write_predictions({"test": found.test}, names, tmp_path / "p.parquet"))
    assert written == list(names) and str(table.schema.field("label/qt_ms").type) == "double"
    deviations = found.train_labels.std(axis=0)
    errors = [mean_absolute_error(truth[:, column], said[:, column]) for column in range(2)]
    assert evaluated["macro_zmae"] == pytest.approx(np.mean(errors / deviations), abs=1e-12)
    assert evaluated["macro_zmae_ci95"][0] < evaluated["macro_zmae"] < evaluated["macro_zmae_ci95"][1]
    for column, name in enumerate(names):
        row, difference = evaluated["per_target"][name], said[:, column] - truth[:, column]
        assert row["mae"] == pytest.approx(errors[column]) and row["mae_ci95"][0] < row["mae"] < row["mae_ci95"][1]
        assert row["bias"] == pytest.approx(difference.mean()) and row["sd"] == pytest.approx(difference.std(ddof=1))
        assert row["pearson"] == pytest.approx(np.corrcoef(truth[:, column], said[:, column])[0, 1])
        constant = np.full(60, found.train_labels[:, column].mean())
        assert row["train_mean_mae"] == pytest.approx(mean_absolute_error(truth[:, column], constant))
    json.dumps(evaluated)


def test_the_interval_of_an_error_is_a_bootstrap_of_patients():
    truth = np.repeat(np.random.default_rng(0).normal(size=20), 10)[:, None]
    scores = truth + np.repeat(np.random.default_rng(1).normal(size=20), 10)[:, None]  # as a patient, so each record
    ids = [f"r{number}" for number in range(200)]
    train = np.random.default_rng(2).normal(size=(50, 1))
    widths = []
    for patients in ([f"p{number // 10}" for number in range(200)], [None] * 200):
        evaluated = evaluate_predictions(
            Predictions(scores, truth, ids, patients), ("a",), REGRESSION, train, num_resamples=300
        )
        widths.append(np.ptp(evaluated["macro_zmae_ci95"]))
    assert widths[0] > 2 * widths[1]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda part, train: train.__setitem__((slice(None), 0), 5.0), r"targets \['age'\] are the same"),
        (lambda part, train: part.labels.__setitem__((0, 1), np.nan), "Expected finite targets"),
    ],
)
def test_values_that_cannot_be_evaluated_are_an_error(spoil, reason):
    part, train = regression(), regression("train").labels
    spoil(part, train)
    with pytest.raises(ValueError, match=reason):
        evaluate_predictions(part, ("age", "qt"), REGRESSION, train, num_resamples=20)


def test_the_difference_of_two_encoders_is_paired():
    better, worse = result(), result(test=predictions("test", seed=1, skill=0.2))
    assert np.array_equal(better.test.labels, worse.test.labels)
    found = compare_results(better, worse, num_resamples=100)
    tests, counts = (better.test, worse.test), resample_counts(60, 100, groups=better.test.patients())
    points = [macro_auroc(test.labels, test.scores, NAMES).value for test in tests]
    areas = [resampled_auroc(test.labels, test.scores, counts).mean(axis=1) for test in tests]
    assert found == {"macro_auroc": points[0] - points[1]} | paired_facts(areas[0] - areas[1])
    evaluated = [one.evaluate(20)["macro_auroc"] for one in (better, worse)]
    assert found["macro_auroc"] == pytest.approx(evaluated[0] - evaluated[1]) and found["macro_auroc"] > 0


def test_the_difference_of_many_records_never_holds_all_counts():
    def of(skill):
        generator = np.random.default_rng(0)
        labels = generator.integers(0, 2, (50_000, len(NAMES)))
        scores = generator.random(labels.shape) + skill * labels
        ids = [str(number) for number in range(len(labels))]
        return result(test=Predictions(scores, labels, ids, ids))

    better, worse = of(0.5), of(0.4)
    tracemalloc.start()
    try:
        found = compare_results(better, worse, num_resamples=200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["ci95"][0] > 0
    assert peak < 4 * 200 * 50_000


def test_the_difference_leaves_out_what_the_evaluation_leaves_out():
    train, tests = predictions("train", seed=9).labels, [predictions("test", seed=1, skill=s) for s in (1.5, 0.2)]
    train[:, 0] = 0
    for test in tests:
        test.labels[:, 2] = 0
    both = [result(test=test, train=train) for test in tests]
    evaluated = [one.evaluate(20)["macro_auroc"] for one in both]
    assert compare_results(*both, num_resamples=50)["macro_auroc"] == pytest.approx(evaluated[0] - evaluated[1])


def test_the_difference_of_errors_is_negative_where_pretraining_helps():
    worse = regression("test", seed=1)
    better = Predictions((worse.scores + worse.labels) / 2, worse.labels, worse.record_ids, worse.patient_ids)
    both = [result(regression, REGRESSION, ("age", "qt"), test=test) for test in (better, worse)]
    found = compare_results(*both, num_resamples=100)
    evaluated = [one.evaluate(20)["macro_zmae"] for one in both]
    assert found["macro_zmae"] == pytest.approx(evaluated[0] - evaluated[1])
    assert found["ci95"][1] < 0 and found["p_value"] < 0.05


def test_results_of_other_protocols_or_records_are_never_compared():
    with pytest.raises(ValueError, match="compare only by one protocol"):
        compare_results(result(), result(protocol="linear-kim"))
    with pytest.raises(ValueError, match="compare only by one protocol"):
        compare_results(result(), result(test=predictions("other", seed=1)))


def test_a_file_holds_every_encoder_and_protocol(tmp_path):
    keys = ("split", "encoder", "protocol")
    found = {(split, "pretrained", "knn"): predictions(split) for split in ("validation", "test")}
    table = read(write_predictions(found, NAMES, tmp_path / "p.parquet", keys))[3]
    assert table.column_names[:5] == [*keys, "record_id", "patient_id"] and len(table) == 120
    assert str(table.schema.field("label/A").type) == "int8" and str(table.schema.field("score/A").type) == "double"
    assert table["patient_id"].to_pylist()[59] is None
    rows = table.slice(60)
    assert rows["split"].to_pylist() == ["test"] * 60 and set(rows["protocol"].to_pylist()) == {"knn"}
    assert np.array_equal(rows["score/B"].to_numpy(), found["test", "pretrained", "knn"].scores[:, 1])


def test_probabilities_just_above_one_half_are_calibrated_too():
    """Their logits all lie in [0, 1], where `calibration_scores` suspects probabilities."""
    generator = np.random.default_rng(0)
    parts = [
        Predictions(
            0.55 + 0.1 * generator.random((40, 1)),
            (generator.random((40, 1)) < 0.6).astype(np.int8),
            [f"{split} {number}" for number in range(40)],
            [None] * 40,
        )
        for split in ("validation", "test")
    ]
    train = np.array([[0], [1]])
    found = evaluate_predictions(parts[1], ["A"], MULTI_LABEL, train, validation=parts[0], num_resamples=2)
    assert 0 < found["ece"] < 0.3 and found["temperature"] > 0


def test_the_mean_without_rare_labels_stands_beside_that_of_all():
    generator = np.random.default_rng(0)
    labels = np.zeros((60, 3), np.int8)
    labels[:30, 0], labels[20:50, 1], labels[50:54, 2] = 1, 1, 1  # the third has 4 positives
    scores = np.clip(0.3 * labels + 0.7 * generator.random(labels.shape), 0, 1)
    part = Predictions(scores, labels, [str(number) for number in range(60)], [None] * 60)
    found = evaluate_predictions(part, ["A", "B", "rare"], MULTI_LABEL, labels, num_resamples=2)
    assert found["without_rare_labels"]["left_out"] == ["rare"]
    expected = np.mean([found["per_class"][name] for name in ("A", "B")])
    assert found["without_rare_labels"]["macro_auroc"] == pytest.approx(expected)
    only = Predictions(scores[:, :2], labels[:, :2], part.record_ids, part.patient_ids)
    assert "without_rare_labels" not in evaluate_predictions(
        only, ["A", "B"], MULTI_LABEL, labels[:, :2], num_resamples=2
    )
