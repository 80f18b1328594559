import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from ecg_transformers.train.evaluation.neighbours import NOISE, find_clusters, knn_scores, score_clusters


@pytest.fixture
def groups():
    """Three well separated groups of features, their numbers and their labels as columns."""
    classes = np.repeat([0, 1, 2], 40)
    centres = np.eye(3, 8) * 10
    features = centres[classes] + np.random.default_rng(0).normal(size=(120, 8))
    return features, classes, np.eye(3)[classes]


def test_published_neighbours_and_their_scores(golden, golden_facts):
    tensors, facts = golden("knn_cluster"), golden_facts("knn_cluster")["scalars"]
    train_x, train_y, test_x, test_y = (tensors[name].numpy() for name in ("train_x", "train_y", "test_x", "test_y"))
    scores = knn_scores(train_x, np.eye(5)[train_y], test_x, k=20)
    np.testing.assert_allclose(scores, tensors["knn_proba"].numpy(), rtol=1e-6)
    assert (scores.argmax(axis=1) == tensors["knn_pred"].numpy()).all()
    auroc = roc_auc_score(test_y, scores, multi_class="ovr", average="weighted")
    assert auroc == pytest.approx(facts["auroc"], rel=1e-6)
    assert f1_score(test_y, scores.argmax(axis=1), average="weighted") == pytest.approx(facts["f1_score"], rel=1e-6)


def test_published_clusters_are_the_classes_themselves(golden, golden_facts):
    tensors, facts = golden("knn_cluster"), golden_facts("knn_cluster")["scalars"]
    features, classes = tensors["test_x"].numpy(), tensors["test_y"].numpy()
    scores = score_clusters(features, classes, classes)
    assert scores.nmi == pytest.approx(facts["nmi"])
    assert scores.silhouette == pytest.approx(facts["silhouette"], rel=1e-5)
    assert scores.davies_bouldin == pytest.approx(facts["db_index"], rel=1e-5)


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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"k": 0}, "k from 1 to the 120"), ({"k": 121}, "k from 1 to the 120"), ({"metric": "l7"}, "Expected metric of")],
)
def test_impossible_neighbours_are_refused(groups, options, sentence):
    features, _, labels = groups
    with pytest.raises(ValueError, match=sentence):
        knn_scores(features, labels, features, **options)


@pytest.mark.parametrize("algorithm", ["k-means", "hdbscan"])
def test_separate_groups_are_found_without_labels(groups, algorithm):
    features, classes, _ = groups
    scores = score_clusters(features, find_clusters(features, algorithm, 3), classes)
    assert scores.num_clusters == 3 and scores.ari > 0.9 and scores.nmi > 0.9 and scores.silhouette > 0.5


def test_clusters_of_noise_know_nothing_of_the_classes():
    features = np.random.default_rng(2).normal(size=(200, 8))
    classes = np.random.default_rng(3).integers(0, 4, 200)
    scores = score_clusters(features, find_clusters(features, "k-means", 4), classes)
    assert abs(scores.ari) < 0.05 and scores.nmi < 0.1


def test_records_in_no_cluster_are_counted_and_left_out_of_distances(groups):
    features, classes, _ = groups
    clusters = np.where(np.arange(120) % 40 == 0, NOISE, classes)
    scores = score_clusters(features, clusters, classes)
    assert scores.num_noise == 3 and scores.num_clusters == 3 and scores.ari < 1
    kept = clusters != NOISE
    assert scores.silhouette == score_clusters(features[kept], clusters[kept], classes[kept]).silhouette


def test_a_single_cluster_has_no_distances(groups):
    features, classes, _ = groups
    scores = score_clusters(features, np.zeros(120, dtype=int), classes)
    assert scores.silhouette is None and scores.davies_bouldin is None and scores.nmi == 0
