import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from ecg_transformers.train.evaluation.linear_models import cross_validated_C, fit_logistic, folds_of_patients
from ecg_transformers.train.finetune_objective import HeadTask
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL

GRID = (1e-4, 0.01, 1.0, 100.0)
NAMES = ("A", "B", "C")


def records(num_records, width=30, seed=0, problem_type=MULTI_LABEL):
    """Features, truth and patients (two records each) whose best penalty is neither end of the grid."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(num_records, width))
    told = features[:, :3] + 1.5 * generator.normal(size=(num_records, 3))
    patients = [f"p{number // 2}" for number in range(num_records)]
    if problem_type == REGRESSION:
        return features, told, patients
    if problem_type == SINGLE_LABEL:
        return features, np.eye(3, dtype=np.int8)[told.argmax(axis=1)], patients
    return features, (told > 0.7).astype(np.int8), patients


def chosen_by_hand(features, truth, patients, problem_type):
    """Every candidate, fold and label, one after the other, by scikit-learn."""
    folds, qualities = folds_of_patients(patients), {}
    deviation = truth.std(axis=0)
    for C in GRID:
        by_label = {column: [] for column in range(3)}
        for fold in range(5):
            trained, evaluated = folds != fold, folds == fold
            if problem_type == SINGLE_LABEL:
                model = LogisticRegression(C=C, max_iter=5000).fit(features[trained], truth[trained].argmax(axis=1))
                said = model.predict_proba(features[evaluated])
            for column in range(3):
                target = truth[:, column]
                if problem_type == REGRESSION:
                    model = Ridge(alpha=1 / C).fit(features[trained], (target[trained] - truth[:, column].mean()))
                    error = model.predict(features[evaluated]) + truth[:, column].mean() - target[evaluated]
                    by_label[column].append(-np.abs(error / deviation[column]).mean())
                    continue
                if len(set(target[evaluated])) < 2 or len(set(target[trained])) < 2:
                    continue
                if problem_type == MULTI_LABEL:
                    model = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(features[trained], target[trained])
                    scores = model.decision_function(features[evaluated])
                else:
                    scores = said[:, column]
                by_label[column].append(roc_auc_score(target[evaluated], scores))
        qualities[C] = np.mean([np.mean(values) for values in by_label.values() if values])
    return qualities


@pytest.mark.parametrize("problem_type", [MULTI_LABEL, SINGLE_LABEL, REGRESSION])
def test_the_penalty_is_that_of_a_slow_cross_validation_by_patient(problem_type):
    features, truth, patients = records(100, problem_type=problem_type)
    qualities = chosen_by_hand(features, truth, patients, problem_type)
    assert len(set(qualities.values())) == len(GRID)
    chosen = cross_validated_C(features, truth, patients, HeadTask(truth, NAMES, problem_type), GRID)
    assert chosen == max(qualities, key=qualities.get)


def test_a_label_is_evaluated_by_the_folds_that_can_evaluate_it():
    features, truth, patients = records(60)
    truth[:, 0] = 0
    truth[[0, 20], 0] = 1  # of two patients: in the other folds there is nobody to find
    qualities = chosen_by_hand(features, truth, patients, MULTI_LABEL)
    chosen = cross_validated_C(features, truth, patients, HeadTask(truth, NAMES, MULTI_LABEL), GRID)
    assert chosen == max(qualities, key=qualities.get)


@pytest.mark.parametrize("problem_type", [MULTI_LABEL, SINGLE_LABEL, REGRESSION])
def test_fourteen_records_are_enough_for_a_choice(problem_type):
    features, truth, patients = records(14, problem_type=problem_type)
    assert cross_validated_C(features, truth, patients, HeadTask(truth, NAMES, problem_type), GRID) in GRID


def test_where_no_fold_can_evaluate_a_label_the_strongest_penalty_is_taken():
    features, truth = records(6)[:2]
    truth[:] = 0
    truth[0] = 1
    task = HeadTask(truth, NAMES, MULTI_LABEL)
    assert cross_validated_C(features, truth, [f"p{n}" for n in range(6)], task, (1.0, 0.1, 10.0)) == 0.1
    truth[1] = 1
    assert cross_validated_C(features, truth, ["one"] * 6, task, (1.0, 0.1, 10.0)) == 0.1


def test_of_equal_penalties_the_strongest_is_taken():
    features, truth, patients = records(60)
    same = np.repeat(truth[:, :1], 30, axis=1) * 1.0  # every penalty ranks the records alike
    truth = np.repeat(truth[:, :1], 3, axis=1)
    assert cross_validated_C(same, truth, patients, HeadTask(truth, NAMES, MULTI_LABEL), (1.0, 0.01, 0.1)) == 0.01


def test_folds_keep_the_records_of_a_patient_together_whatever_their_order():
    patients = [f"p{number % 23}" for number in range(60)]
    folds = folds_of_patients(patients)
    by_patient = dict(zip(patients, folds, strict=True))
    assert all(by_patient[patient] == fold for patient, fold in zip(patients, folds, strict=True))
    assert sorted(np.bincount(list(by_patient.values()))) == [4, 4, 5, 5, 5]
    assert np.array_equal(folds_of_patients(patients[::-1]), folds[::-1])
    assert set(folds_of_patients(["a", "b", "a"])) == {0, 1}


@pytest.mark.parametrize("C", [1e-4, 0.1, 10.0])
def test_logistic_regressions_are_those_of_scikit_learn_from_any_start(C):
    features, truth, _ = records(40, width=60, seed=3)
    features = features * np.logspace(-2, 1, 60)
    truth[:, 1] = 0
    first = fit_logistic(features, truth, C)
    again = fit_logistic(features, truth, C, fit_logistic(features, truth, 0.01).coefficients)
    for column in (0, 2):
        expected = LogisticRegression(C=C, tol=1e-10, max_iter=10000).fit(features, truth[:, column])
        for fit in (first, again):
            np.testing.assert_allclose(fit(features)[:, column], expected.predict_proba(features)[:, 1], atol=1e-6)
    assert (first(features)[:, 1] == 0).all()
