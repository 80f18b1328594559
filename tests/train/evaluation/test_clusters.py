import json

import numpy as np
import pytest
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

from ecg_transformers.train.evaluation.clusters import (
    NOISE,
    cluster_test_split,
    compare_clusters,
    resampled_agreement,
    score_clusters,
)
from ecg_transformers.train.features import EmbeddingTable
from ecg_transformers.train.metrics import resample_counts

NAMES = ("CD", "MI", "NORM")
OPTIONS = {"num_resamples": 30}


def table(num_records=60, seed=0, first=0, separation=12.0, width=3) -> EmbeddingTable:
    """Three groups of records, each its own class; every tenth record has two labels or none."""
    generator = np.random.default_rng(seed)
    classes = np.arange(num_records) % 3
    features = generator.normal(size=(num_records, width)) + separation * np.eye(3, width)[classes]
    labels = [[NAMES[number]] for number in classes]
    for row in range(0, num_records, 10):
        labels[row] = ["MI", "CD"] if row % 20 else []
    ids = [f"r{first + row}" for row in range(num_records)]
    patients = [f"p{first + row // 2}" for row in range(num_records)]
    return EmbeddingTable(features.astype(np.float32), ids, patients, labels, [None] * num_records)


def summary(*args) -> dict:
    return cluster_test_split(*args).evaluate(**OPTIONS)


@pytest.fixture(scope="module")
def tables():
    return table(seed=1, first=1000), table()


def test_separate_classes_are_found_without_labels(tables):
    found = summary(*tables, NAMES)
    assert found["k-means"]["nmi"] == found["k-means"]["ari"] == 1.0
    assert found["k-means"]["num_clusters"] == 3 and found["k-means"]["num_noise"] == 0
    assert found["k-means"]["nmi_chance"] < 0.15 and found["k-means"]["nmi_chance_p_value"] == pytest.approx(1 / 31)
    assert found["num_test_records"] == 54 and found["num_left_out"] == 6
    assert found["classes"] == {"CD": 18, "MI": 18, "NORM": 18}
    assert json.loads(json.dumps(found)) == found


def test_scores_are_those_of_scikit_learn_on_features_standardised_by_training(tables):
    train, test = table(seed=1, first=1000, separation=1.0), table(separation=1.0)
    found = cluster_test_split(train, test, NAMES, seed=3).evaluate(seed=3, **OPTIONS)
    rows = [row for row, labels in enumerate(test.labels) if len(labels) == 1]
    classes = [test.labels[row][0] for row in rows]
    features = ((test.features - train.features.mean(axis=0)) / train.features.std(axis=0))[rows]
    clusters = KMeans(3, n_init=10, random_state=3).fit_predict(features)
    assert found["k-means"]["nmi"] == pytest.approx(normalized_mutual_info_score(classes, clusters))
    assert found["k-means"]["ari"] == pytest.approx(adjusted_rand_score(classes, clusters))
    assert found["k-means"]["silhouette"] == pytest.approx(silhouette_score(features, clusters), rel=1e-4)
    noise = (HDBSCAN(copy=True).fit_predict(features) == -1).sum()
    assert found["hdbscan"]["num_noise"] == noise


def test_resampled_scores_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    classes, clusters = generator.integers(0, 4, 80), generator.integers(-1, 3, 80)
    clusters[:30] = classes[:30]
    counts = resample_counts(80, 20, 0)
    expected = [
        [score(np.repeat(classes, count), np.repeat(clusters, count)) for score in SCIKIT_LEARN] for count in counts
    ]
    np.testing.assert_allclose(resampled_agreement(classes, clusters, counts), expected, atol=1e-12)
    one = np.zeros(80, dtype=int)
    assert resampled_agreement(one, one, counts[:1]).tolist() == [[1.0, 1.0]]


SCIKIT_LEARN = (normalized_mutual_info_score, adjusted_rand_score)


def test_features_without_content_agree_as_chance_does(tables):
    found = summary(table(seed=1, first=1000), table(300, separation=0.0), NAMES)["k-means"]
    assert found["nmi"] == pytest.approx(found["nmi_chance"], abs=0.03)
    assert found["ari"] == pytest.approx(0, abs=0.03) == found["ari_chance"]
    assert found["nmi_chance_p_value"] > 0.01
    low, high = found["nmi_ci95"]
    assert low <= found["nmi"] <= high


def test_the_number_of_clusters_comes_from_training_and_not_from_the_test_split(tables):
    train, test = tables
    only_two = EmbeddingTable(
        train.features,
        train.record_ids,
        train.patient_ids,
        [[name for name in labels if name != "NORM"] for labels in train.labels],
        train.folds,
    )
    found = summary(only_two, test, NAMES)
    assert found["k-means"]["num_clusters"] == 2
    assert set(found["classes"]) == {"CD", "MI"}


def test_a_record_whose_second_label_is_not_learned_is_left_out(tables):
    train, test = tables
    labels = [[*names, "HYP"] if row == 1 else names for row, names in enumerate(test.labels)]
    more = EmbeddingTable(test.features, test.record_ids, test.patient_ids, labels, test.folds)
    clustering = cluster_test_split(train, more, (*NAMES, "HYP"))
    assert clustering.left_out == 7 and "r1" not in clustering.record_ids


def test_two_encoders_are_compared_on_the_same_resamples(tables):
    train, test = tables
    noise = [table(seed=seed, first=first, separation=0.0) for seed, first in ((5, 1000), (6, 0))]
    knows, guesses = cluster_test_split(train, test, NAMES), cluster_test_split(*noise, NAMES)
    difference = compare_clusters(knows, guesses, **OPTIONS)["k-means"]
    points = [encoder.evaluate(**OPTIONS)["k-means"]["ari"] for encoder in (knows, guesses)]
    assert difference["ari"] == pytest.approx(points[0] - points[1])
    assert difference["ci95"][0] > 0.5 and difference["p_value"] == pytest.approx(2 / 31)
    with pytest.raises(ValueError, match="other records"):
        compare_clusters(guesses, cluster_test_split(train, table(50), NAMES))


def test_a_task_without_classes_to_find_and_common_patients_are_refused(tables):
    train, test = tables
    with pytest.raises(ValueError, match="two classes"):
        summary(train, test, ("CD",))
    with pytest.raises(ValueError, match="than classes"):
        summary(train, table(3), NAMES)
    with pytest.raises(ValueError, match="Split by patient"):
        summary(train, train, NAMES)


@pytest.fixture
def groups():
    """Three well separated groups of features, their numbers and their labels as columns."""
    classes = np.repeat([0, 1, 2], 40)
    centres = np.eye(3, 8) * 10
    features = centres[classes] + np.random.default_rng(0).normal(size=(120, 8))
    return features, classes, np.eye(3)[classes]


def test_published_clusters_are_the_classes_themselves(golden, golden_facts):
    tensors, facts = golden("knn_cluster"), golden_facts("knn_cluster")["scalars"]
    features, classes = tensors["test_x"].numpy(), tensors["test_y"].numpy()
    scores = score_clusters(features, classes, classes)
    assert scores["nmi"] == pytest.approx(facts["nmi"])
    assert scores["silhouette"] == pytest.approx(facts["silhouette"], rel=1e-5)
    assert scores["davies_bouldin"] == pytest.approx(facts["db_index"], rel=1e-5)


def test_records_in_no_cluster_are_counted_and_left_out_of_distances(groups):
    features, classes, _ = groups
    clusters = np.where(np.arange(120) % 40 == 0, NOISE, classes)
    scores = score_clusters(features, clusters, classes)
    assert scores["num_noise"] == 3 and scores["num_clusters"] == 3 and scores["ari"] < 1
    kept = clusters != NOISE
    assert scores["silhouette"] == score_clusters(features[kept], clusters[kept], classes[kept])["silhouette"]


def test_a_single_cluster_has_no_distances(groups):
    features, classes, _ = groups
    scores = score_clusters(features, np.zeros(120, dtype=int), classes)
    assert scores["silhouette"] is None and scores["davies_bouldin"] is None and scores["nmi"] == 0
