import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ecg_transformers.train.evaluation.linear_models import cross_validated_C, fit_linear, folds_of_patients
from ecg_transformers.train.evaluation.protocols import (
    FrozenTables,
    choose_layer,
    cross_validated_linear,
    embed_splits,
    knn_protocol,
    knn_scores,
    linear_protocol,
    linear_scores,
)
from ecg_transformers.train.features import EmbeddingTable, embed
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from ecg_transformers.train.tasks.labelled_splits import load_labelled_splits

from ..conftest import tiny_encoder

NAMES = ("A", "B", "C")
SPLITS = ("train", "validation", "test")


def frozen(problem_type=MULTI_LABEL, sizes=(60, 40, 40), width=8, seed=0, first_patient=0) -> FrozenTables:
    """Features of very unequal scale, whose first columns predict the labels or the targets through noise."""
    generator = np.random.default_rng(seed)
    tables, truth = {}, {}
    for split, size in zip(SPLITS, sizes, strict=True):
        hidden = generator.normal(size=(size, width))
        noisy = hidden[:, :3] + generator.normal(size=(size, 3))
        if problem_type == SINGLE_LABEL:
            truth[split] = np.eye(3, dtype=np.int8)[noisy.argmax(axis=1)]
        else:
            truth[split] = 10 * noisy + 70 if problem_type == REGRESSION else (noisy > 0.5).astype(np.int8)
        features = (hidden * 10.0 ** np.arange(-2, width - 2) + 3).astype(np.float32)
        ids = [f"{split}{number}" for number in range(size)]
        tables[split] = EmbeddingTable(features, ids, list(ids), [[] for _ in ids], [None] * size)
    return FrozenTables(tables, truth, NAMES, problem_type)


def with_truth(tables: FrozenTables, **truth) -> FrozenTables:
    return FrozenTables(tables.tables, dict(tables.truth) | truth, NAMES, tables.problem_type)


def scaled(tables: FrozenTables) -> dict[str, np.ndarray]:
    scaler = StandardScaler().fit(tables.tables["train"].features)
    return {split: scaler.transform(tables.tables[split].features) for split in SPLITS}


def test_linear_is_a_logistic_regression_a_label_on_standardised_features():
    tables = frozen()
    features, result = scaled(tables), linear_protocol(tables, C=0.1)
    for column in range(3):
        fit = LogisticRegression(C=0.1, tol=1e-12, max_iter=9999).fit(
            features["train"].astype(float), tables.truth["train"][:, column]
        )
        for split in ("validation", "test"):
            expected = fit.predict_proba(features[split])[:, 1]
            np.testing.assert_allclose(vars(result)[split].scores[:, column], expected)
    assert result.protocol == "linear" and result.details == {"C": 0.1}
    assert np.array_equal(result.train_labels, tables.truth["train"])
    assert result.test.record_ids == tables.tables["test"].record_ids


def test_no_validation_record_takes_part_in_the_choice_of_the_penalty():
    tables = frozen(seed=4)
    turned = with_truth(tables, validation=1 - tables.truth["validation"])
    found = [linear_protocol(part) for part in (tables, turned)]
    assert found[0].details == found[1].details
    assert np.array_equal(found[0].test.scores, found[1].test.scores)
    train, task = scaled(tables)["train"], tables.task()
    expected = cross_validated_C(train, tables.truth["train"], tables.tables["train"].patients(), task)
    assert found[0].details["C"] == expected


def test_of_equal_choices_the_most_neighbours_are_taken():
    tables = frozen()
    same = with_truth(tables, validation=np.tile([[1, 0, 1], [0, 1, 0]], (20, 1)))
    features = np.tile(tables.tables["validation"].features[:1], (40, 1))  # everybody gets the same scores
    tables_of_split = dict(tables.tables) | {
        "validation": dataclasses.replace(tables.tables["validation"], features=features)
    }
    same = FrozenTables(tables_of_split, same.truth, NAMES, MULTI_LABEL)
    assert knn_protocol(same, k_grid=(3, 10)).details["k"] == 10


@pytest.mark.parametrize("protocol", [linear_protocol, knn_protocol])
@pytest.mark.parametrize("problem_type", [MULTI_LABEL, SINGLE_LABEL, REGRESSION])
def test_the_truth_of_the_test_split_changes_no_score(protocol, problem_type):
    tables = frozen(problem_type)
    grid = {} if protocol is linear_protocol else {"k_grid": (3, 10)}
    first, second = (protocol(part, **grid) for part in (tables, with_truth(tables, test=tables.truth["test"][::-1])))
    assert first.details == second.details
    assert np.array_equal(first.test.scores, second.test.scores)
    assert not np.array_equal(first.test.labels, second.test.labels)


def test_one_label_a_record_is_one_model_of_all_classes():
    tables = frozen(SINGLE_LABEL)
    features, result = scaled(tables), linear_protocol(tables, C=0.1)
    fit = LogisticRegression(C=0.1, max_iter=2000).fit(features["train"], tables.truth["train"].argmax(axis=1))
    np.testing.assert_allclose(result.test.scores, fit.predict_proba(features["test"]))


def test_a_class_that_training_lacks_gets_its_own_column_of_zeros():
    tables = frozen(SINGLE_LABEL)
    rows = [number for number, of_record in enumerate(tables.truth["train"]) if not of_record[1]]
    result = linear_protocol(tables.take_train(rows), C=0.1)
    assert (result.test.scores[:, 1] == 0).all() and (result.test.scores[:, [0, 2]] > 0).all()
    evaluated = result.evaluate(num_resamples=20)
    assert evaluated["excluded"] == {"B": f"training set: 0 positive of {len(rows)} records, at least 1 needed"}
    assert set(evaluated["per_class"]) == {"A", "C"} and evaluated["num_train_records"] == len(rows)


def test_a_regression_is_ridge_on_standardised_targets_in_their_unit():
    tables = frozen(REGRESSION)
    features, truth = scaled(tables), tables.truth["train"]
    result = linear_protocol(tables, C=0.1)
    for column in range(3):
        mean, deviation = truth[:, column].mean(), truth[:, column].std()
        fit = Ridge(alpha=10.0).fit(features["train"], (truth[:, column] - mean) / deviation)
        expected = fit.predict(features["test"]) * deviation + mean
        np.testing.assert_allclose(result.test.scores[:, column], expected, rtol=1e-5)  # features are float32
    assert result.evaluate(20)["macro_zmae"] < 0.85


def test_a_target_alone_keeps_its_column():
    tables = frozen(REGRESSION)
    single = {split: truth[:, :1] for split, truth in tables.truth.items()}
    alone = FrozenTables(tables.tables, single, NAMES[:1], REGRESSION)
    for protocol in (linear_protocol, knn_protocol):
        assert protocol(alone).test.scores.shape == (40, 1)


def test_labels_that_training_never_or_always_has_score_zero_and_are_named():
    tables = frozen()
    truth = tables.truth["train"].copy()
    truth[:, 0], truth[:, 2] = 0, 1
    result = linear_protocol(with_truth(tables, train=truth), C=0.1)
    assert (result.test.scores[:, [0, 2]] == 0).all() and (result.test.scores[:, 1] > 0).all()
    evaluated = result.evaluate(num_resamples=20)
    assert set(evaluated["excluded"]) == {"A", "C"} and set(evaluated["per_class"]) == {"B"}
    assert evaluated["macro_auroc"] == roc_auc_score(tables.truth["test"][:, 1], result.test.scores[:, 1])


def test_knn_is_the_vote_of_scikit_learn_on_standardised_features():
    tables = frozen()
    features, result = scaled(tables), knn_protocol(tables, k=7)
    for column in range(3):
        fit = KNeighborsClassifier(7, metric="cosine", weights="distance")
        fit.fit(features["train"], tables.truth["train"][:, column])
        expected = fit.predict_proba(features["test"])[:, 1]
        np.testing.assert_allclose(result.test.scores[:, column], expected, rtol=1e-5)
    assert result.protocol == "knn" and result.details == {"k": 7, "metric": "cosine", "weights": "distance"}


def test_knn_of_a_regression_is_a_mean_of_targets():
    tables = frozen(REGRESSION)
    features = scaled(tables)
    fit = KNeighborsRegressor(5, metric="euclidean").fit(features["train"], tables.truth["train"])
    result = knn_protocol(tables, k=5, metric="euclidean", weights="uniform")
    np.testing.assert_allclose(result.test.scores, fit.predict(features["test"]))


def test_the_number_of_neighbours_does_best_on_validation_and_is_never_more_than_there_are():
    tables, grid = frozen(seed=2), (3, 10, 500)
    truth = tables.truth["validation"]
    areas = {k: roc_auc_score(truth, knn_protocol(tables, k).validation.scores, average="macro") for k in (3, 10, 60)}
    assert len(set(areas.values())) == 3
    assert knn_protocol(tables, k_grid=grid).details["k"] == max(areas, key=areas.get)
    assert knn_protocol(tables, k_grid=(500,)).details["k"] == 60


def test_published_neighbours_and_their_scores(golden, golden_facts):
    tensors, facts = golden("knn_cluster"), golden_facts("knn_cluster")["scalars"]
    train_x, train_y, test_x, test_y = (tensors[name].numpy() for name in ("train_x", "train_y", "test_x", "test_y"))
    scores = knn_scores(train_x, np.eye(5)[train_y], test_x, k=20)
    np.testing.assert_allclose(scores, tensors["knn_proba"].numpy(), rtol=1e-6)
    assert (scores.argmax(axis=1) == tensors["knn_pred"].numpy()).all()
    auroc = roc_auc_score(test_y, scores, multi_class="ovr", average="weighted")
    assert auroc == pytest.approx(facts["auroc"], rel=1e-6)
    assert f1_score(test_y, scores.argmax(axis=1), average="weighted") == pytest.approx(facts["f1_score"], rel=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_shares_of_several_labels_are_those_of_one_classifier_a_label(metric, weights):
    random = np.random.default_rng(1)
    train, test, labels = random.normal(size=(50, 4)), random.normal(size=(20, 4)), random.integers(0, 2, (50, 3))
    test[0] = train[7]  # a copy: only neighbours at distance 0 count by distance
    scores = knn_scores(train, labels, test, k=5, metric=metric, weights=weights)
    for column in range(3):
        classifier = KNeighborsClassifier(5, metric=metric, weights=weights).fit(train, labels[:, column])
        np.testing.assert_allclose(scores[:, column], classifier.predict_proba(test)[:, 1], atol=1e-6)


def test_records_whose_neighbours_all_agree_tie_to_the_last_bit():
    random, labels = np.random.default_rng(0), np.random.default_rng(1).integers(0, 2, (60, 1))
    train, test = (random.normal(size=(size, 4)).astype(np.float32) for size in (60, 40))
    scores = knn_scores(train, labels, test, k=3, metric="cosine", weights="distance")
    _, near = NearestNeighbors(n_neighbors=3, metric="cosine").fit(train).kneighbors(test)
    agreed = labels[near, 0].min(axis=1) == labels[near, 0].max(axis=1)
    assert agreed.sum() > 5 and set(scores[agreed, 0]) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": 0}, "k from 1 to the 120"),
        ({"k": 121}, "k from 1 to the 120"),
        ({"weights": "l7"}, "Expected weights of"),
    ],
)
def test_impossible_neighbours_are_refused(options, sentence):
    features, labels = np.eye(120, 3), np.ones((120, 1))
    with pytest.raises(ValueError, match=sentence):
        knn_scores(features, labels, features, **options)


def test_a_part_of_the_training_records_keeps_truth_beside_features():
    tables = frozen()
    part = tables.take_train([7, 3])
    assert part.tables["train"].record_ids == ["train7", "train3"]
    assert np.array_equal(part.truth["train"], tables.truth["train"][[7, 3]])
    assert part.tables["test"] is tables.tables["test"] and len(tables.tables["train"]) == 60


@pytest.fixture(scope="module")
def splits():
    whole = load_labelled_splits("ptb-xl-sample")
    parts = {split: rows.select(range(4)) for split, rows in whole.items()}
    return dataclasses.replace(whole, **parts)


ENCODER = tiny_encoder(num_samples=1000, extractor={"missing_leads": "mask"})


def test_every_split_is_embedded_with_its_truth(splits):
    found = embed_splits(*ENCODER, splits, batch_size=3)
    for split, rows in splits.items():
        table = found.tables[split]
        assert table.record_ids == rows["record_id"][:] and table.features.shape == (4, 16)
        assert np.array_equal(found.truth[split], splits.truth_of(split))
    expected = embed(*ENCODER, splits.test, batch_size=2, progress=False)
    np.testing.assert_allclose(found.tables["test"].features, expected.features, atol=1e-6)


def test_rows_are_changed_before_they_are_embedded(splits):
    seen = []

    def only_lead_ii(row):
        seen.append(row["record_id"])
        ecg = row["ecg"]
        signal = np.asarray(ecg["signal"])[[ecg["leads"].index("II")]]
        return row | {"ecg": dict(ecg, signal=signal, leads=["II"])}

    plain = embed_splits(*ENCODER, splits)
    changed = embed_splits(*ENCODER, splits, change=only_lead_ii)
    assert seen == [record_id for _, rows in splits.items() for record_id in rows["record_id"]]
    for split in SPLITS:
        assert changed.tables[split].record_ids == plain.tables[split].record_ids
        assert not np.allclose(changed.tables[split].features, plain.tables[split].features, atol=1e-3)


@pytest.mark.parametrize("problem_type", [MULTI_LABEL, SINGLE_LABEL, REGRESSION])
def test_linear_on_more_features_than_records_scores_as_a_fit_of_all_features_does(problem_type):
    tables = frozen(problem_type, sizes=(30, 20, 25), width=8)
    generator = np.random.default_rng(1)
    more = generator.normal(size=(8, 70))
    wide = {}
    for split, table in tables.tables.items():
        values = np.tanh(table.features / table.features.std(axis=0) @ more).astype(np.float32)
        wide[split] = dataclasses.replace(table, features=values)
    tables = dataclasses.replace(tables, tables=wide)
    features, task = scaled(tables), tables.task()
    fit = fit_linear(features["train"], tables.truth["train"], task, 0.1)
    expected = fit(features["test"])
    np.testing.assert_allclose(linear_protocol(tables, C=0.1).test.scores, expected, rtol=1e-4, atol=2e-3)


def test_the_chosen_layer_predicts_the_validation_split_best():
    splits = dataclasses.replace(load_labelled_splits("ptb-xl-sample"), test=None)
    model, extractor = tiny_encoder(seed=3, num_hidden_layers=2, extractor={"normalization": "lead"})
    chosen = choose_layer(model, extractor, splits)
    areas = []
    for layer in range(3):
        model.config.pooled_layer = layer
        parts = {split: vars(splits)[split] for split in ("train", "validation")}
        tables = {split: embed(model, extractor, rows, progress=False) for split, rows in parts.items()}
        truth = {split: splits.truth_of(split) for split in parts}
        scores, _ = linear_scores(FrozenTables(tables, truth, splits.label_names, splits.problem_type))
        areas.append(roc_auc_score(truth["validation"], scores["validation"]))
    assert chosen == np.argmax(areas)


def test_cross_validation_predicts_each_record_by_the_other_patients():
    tables = frozen(sizes=(40, 20, 20))
    found = cross_validated_linear(tables, num_folds=4)
    table = EmbeddingTable.joined(tables.tables.values())
    truth = np.concatenate(list(tables.truth.values()))
    assert found.test.record_ids == table.record_ids and len(found.details["C"]) == 4
    folds = folds_of_patients(table.patients(), 4)
    assert all(len(set(folds[[p == patient for p in table.patients()]])) == 1 for patient in table.patients())
    others, part = folds != 2, folds == 2
    scaler = StandardScaler().fit(table.features[others])
    learn, predict = scaler.transform(table.features[others]), scaler.transform(table.features[part])
    for column in range(3):
        model = LogisticRegression(C=found.details["C"][2], max_iter=5000, tol=1e-10)
        expected = model.fit(learn, truth[others, column]).predict_proba(predict)[:, 1]
        np.testing.assert_allclose(found.test.scores[part, column], expected, atol=1e-4)
