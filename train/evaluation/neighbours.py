"""What frozen features show without training a model on them: nearest neighbours and clusters, by scikit-learn.

The published evaluation of the SMILES project gives the true labels in place of clusters, so that its mutual
information is always 1. Here clusters are found in the features first, and then compared with the labels.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    davies_bouldin_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.neighbors import NearestNeighbors

METRICS = ("euclidean", "cosine")
WEIGHTS = ("uniform", "distance")
ALGORITHMS = ("k-means", "hdbscan")
NOISE = -1
"""Cluster of the records that HDBSCAN gives to none."""


def knn_scores(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    k: int = 20,
    metric: str = "euclidean",
    weights: str = "uniform",
) -> np.ndarray:
    """How many of the `k` nearest training records have each label.

    Args:
        train_features (`np.ndarray` of shape `(num_train, hidden_size)`): Frozen features.
        train_labels (`np.ndarray` of shape `(num_train, num_labels)`): 1 where a record has a label, else 0.
        test_features (`np.ndarray` of shape `(num_test, hidden_size)`): Of the records to judge.
        k (`int`, *optional*, defaults to 20): Number of neighbours.
        metric (`str`, *optional*, defaults to `"euclidean"`): Or `"cosine"`.
        weights (`str`, *optional*, defaults to `"uniform"`):
            `"distance"`: a neighbour counts by the inverse of its distance; at distance 0 only such neighbours count.

    Returns:
        `np.ndarray` of shape `(num_test, num_labels)`: weighted shares from 0 to 1, by which labels rank records.

    Raises:
        ValueError: for an unknown choice, or more neighbours than training records.
    """
    if metric not in METRICS or weights not in WEIGHTS:
        raise ValueError(
            f"Expected metric of {list(METRICS)} and weights of {list(WEIGHTS)}, got {metric!r} and {weights!r}."
        )
    if not 1 <= k <= len(train_features):
        raise ValueError(f"Expected k from 1 to the {len(train_features)} training records, got {k}.")
    if len(train_labels) != len(train_features):
        raise ValueError(f"Expected labels of {len(train_features)} training records, got {len(train_labels)}.")
    search = NearestNeighbors(n_neighbors=k, metric=metric).fit(train_features)
    distances, neighbours = search.kneighbors(test_features)
    if weights == "uniform":
        votes = np.ones_like(distances)
    else:
        is_same = distances == 0
        votes = np.where(is_same.any(axis=1, keepdims=True), is_same, 1 / np.where(is_same, 1, distances))
    shares = votes / votes.sum(axis=1, keepdims=True)
    found = np.asarray(train_labels, dtype=float)[neighbours]
    # Shares that sum to 1 by rounding may sum to more: nothing lies beyond the neighbours' own labels.
    return np.clip(np.einsum("tk,tkl->tl", shares, found), found.min(axis=1), found.max(axis=1))


def find_clusters(features: np.ndarray, algorithm: str, num_clusters: int, seed: int = 0) -> np.ndarray:
    """The cluster of each record, found without labels.

    Args:
        features (`np.ndarray` of shape `(num_records, hidden_size)`): Frozen features.
        algorithm (`str`): `"k-means"` (the best of 10 starts), or `"hdbscan"`, which finds the number of clusters.
        num_clusters (`int`): Of k-means; usually the number of classes.
        seed (`int`, *optional*, defaults to 0): Of the starts of k-means.

    Returns:
        int `(num_records,)`; `NOISE` where HDBSCAN gives a record to no cluster.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"Unknown algorithm {algorithm!r}. Choose from {list(ALGORITHMS)}.")
    if algorithm == "hdbscan":
        return HDBSCAN(copy=True).fit_predict(features)
    return KMeans(num_clusters, n_init=10, random_state=seed).fit_predict(features)


@dataclass(frozen=True)
class ClusterScores:
    """How clusters fit the classes, and how separate they are.

    Args:
        nmi (`float`): Normalised mutual information of clusters and classes, 0 to 1.
        ari (`float`): Rand index adjusted for chance, 0 for random clusters, 1 for equal ones.
        silhouette (`float`, *optional*):
            -1 to 1, higher is more separate; `None` where there are fewer than two clusters.
        davies_bouldin (`float`, *optional*): From 0, lower is more separate; `None` as above.
        num_clusters (`int`): Without noise.
        num_noise (`int`): Records in no cluster: counted as one cluster in `nmi` and `ari`, left out of the other two.
    """

    nmi: float
    ari: float
    silhouette: float | None
    davies_bouldin: float | None
    num_clusters: int
    num_noise: int


def score_clusters(features: np.ndarray, clusters: np.ndarray, classes: np.ndarray) -> ClusterScores:
    """Scores of found clusters against the true classes.

    Args:
        features (`np.ndarray` of shape `(num_records, hidden_size)`): In which the clusters were found.
        clusters (`np.ndarray` of shape `(num_records,)`): From [`find_clusters`].
        classes (`np.ndarray` of shape `(num_records,)`): The one true class of each record.
    """
    kept = clusters != NOISE
    num_clusters = len(np.unique(clusters[kept]))
    is_scored = 2 <= num_clusters < kept.sum()
    return ClusterScores(
        nmi=float(normalized_mutual_info_score(classes, clusters)),
        ari=float(adjusted_rand_score(classes, clusters)),
        silhouette=float(silhouette_score(features[kept], clusters[kept])) if is_scored else None,
        davies_bouldin=float(davies_bouldin_score(features[kept], clusters[kept])) if is_scored else None,
        num_clusters=num_clusters,
        num_noise=int((~kept).sum()),
    )
