"""Protocol `zero-shot-cluster`: do clusters of frozen features, found without labels, agree with the classes?

Clusters are found in the features of the test split, standardised by the training split, and only then compared with
the classes. (The published evaluation of the SMILES project gives the classes in place of clusters, so that its mutual
information is always 1.) A record takes part if it has exactly one label of the task.

Mutual information of clusters and classes is above 0 for clusters without meaning, the more so the fewer the records
and the more the clusters; hence `nmi_chance` beside it, by classes in random order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import entr
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score, davies_bouldin_score, normalized_mutual_info_score, silhouette_score
from sklearn.preprocessing import StandardScaler

from ..features import EmbeddingTable, refuse_patients_in_two_tables
from ..metrics import paired_facts, percentile_interval, resample_counts

PROTOCOL = "zero-shot-cluster"
ALGORITHMS = ("k-means", "hdbscan")
LOWEST = {"nmi": 0.0, "ari": -1.0}
NOISE = -1
"""Cluster of the records that HDBSCAN gives to none."""


def find_clusters(features: np.ndarray, algorithm: str, num_clusters: int, seed: int = 0) -> np.ndarray:
    """The cluster of each record, found without labels: by k-means (the best of 10 starts), or by HDBSCAN, which finds
    the number of clusters itself and gives some records to none (`NOISE`)."""
    if algorithm == "hdbscan":
        return HDBSCAN(copy=True).fit_predict(features)
    return KMeans(num_clusters, n_init=10, random_state=seed).fit_predict(features)


def score_clusters(features: np.ndarray, clusters: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Scores of found clusters against the one true class of each record.

    Returns:
        `dict`: `nmi`, normalised mutual information, 0 to 1; `ari`, Rand index adjusted for chance; `silhouette` (-1
        to 1) and `davies_bouldin` (lower is more separate), `None` for fewer than two clusters; `num_clusters` without
        noise; `num_noise`, records that count as one cluster in `nmi` and `ari` and are left out of the other two.
    """
    kept = clusters != NOISE
    num_clusters = len(np.unique(clusters[kept]))
    is_scored = 2 <= num_clusters < kept.sum()
    return {
        "nmi": float(normalized_mutual_info_score(classes, clusters)),
        "ari": float(adjusted_rand_score(classes, clusters)),
        "silhouette": float(silhouette_score(features[kept], clusters[kept])) if is_scored else None,
        "davies_bouldin": float(davies_bouldin_score(features[kept], clusters[kept])) if is_scored else None,
        "num_clusters": num_clusters,
        "num_noise": int((~kept).sum()),
    }


@dataclass(frozen=True)
class Clustering:
    """Clusters of the records of a test split that have one class.

    Args:
        features (`np.ndarray` of shape `(num_records, hidden_size)`): Standardised by the training split.
        classes (`np.ndarray` of shape `(num_records,)`): Position of the class in `class_names`.
        class_names (`list[str]`): The classes that the training split has; as many clusters has k-means.
        clusters (`dict[str, np.ndarray]`): Cluster of each record, by algorithm.
        record_ids, patients (`list[str]`): Names and patients of the records.
        left_out (`int`): Test records with none of the labels or with several.
    """

    features: np.ndarray
    classes: np.ndarray
    class_names: list[str]
    clusters: dict[str, np.ndarray]
    record_ids: list[str]
    patients: list[str]
    left_out: int

    def evaluate(self, num_resamples: int = 1000, seed: int = 0) -> dict:
        """Scores of each algorithm, ready for JSON.

        Beside [`score_clusters`], `nmi` and `ari` have `_ci95` (over patients, clusters kept), `_chance` (mean over
        classes in random order) and `_chance_p_value` (share of the orders that agree as well or better). Resampling
        with replacement raises the mutual information, because records repeat; the intervals are moved back by the
        mean of that.
        """
        counts = resample_counts(len(self.classes), num_resamples, seed, self.patients)
        generator = np.random.default_rng(seed)
        dealt = np.array([generator.permutation(self.classes) for _ in range(num_resamples)])
        result = {}
        for algorithm, clusters in self.clusters.items():
            scores = score_clusters(self.features, clusters, self.classes)
            resampled = resampled_agreement(self.classes, clusters, counts)
            chance = np.array([agreement_of(classes, clusters) for classes in dealt])
            for column, name in enumerate(LOWEST):
                low, high = percentile_interval(_centred(resampled[:, column], scores[name]))
                as_good = (chance[:, column] >= scores[name]).sum()
                scores[f"{name}_ci95"] = [float(max(low, LOWEST[name])), float(min(high, 1.0))]
                scores[f"{name}_chance"] = float(chance[:, column].mean())
                scores[f"{name}_chance_p_value"] = float((1 + as_good) / (1 + num_resamples))
            result[algorithm] = scores
        numbers, found = np.unique(self.classes, return_counts=True)
        return result | {
            "classes": {self.class_names[number]: int(count) for number, count in zip(numbers, found, strict=True)},
            "num_test_records": len(self.classes),
            "num_test_patients": len(set(self.patients)),
            "num_left_out": self.left_out,
        }


def cluster_test_split(
    train: EmbeddingTable, test: EmbeddingTable, label_names: Sequence[str], seed: int = 0
) -> Clustering:
    """Finds the clusters of the test records that have exactly one label.

    Args:
        train ([`EmbeddingTable`]):
            Gives mean and deviation of the features, and the number of clusters: that of the classes which occur here
            as the only label of a record.
        test ([`EmbeddingTable`]): Records without a patient of `train`.

    Raises:
        ValueError: for a common patient, fewer than two classes, or no more records than classes.
    """
    refuse_patients_in_two_tables({"train": train, "test": test})
    single = [_single_class(labels, label_names) for labels in train.labels]
    class_names = [name for name in label_names if name in single]
    classes = [_single_class(labels, label_names) for labels in test.labels]
    known = [row for row, name in enumerate(classes) if name in class_names]
    if len(class_names) < 2 or len(known) <= len(class_names) or len({classes[row] for row in known}) < 2:
        raise ValueError(
            f"Clusters need two classes, and more test records with exactly one of them than classes: {len(known)} "
            f"records of the {len(class_names)} classes {class_names[:10]} are there. Take a task with fewer classes, "
            "or more records."
        )
    features = StandardScaler().fit(train.features).transform(test.features)[known]
    return Clustering(
        features=features,
        classes=np.array([class_names.index(classes[row]) for row in known]),
        class_names=class_names,
        clusters={algorithm: find_clusters(features, algorithm, len(class_names), seed) for algorithm in ALGORITHMS},
        record_ids=[test.record_ids[row] for row in known],
        patients=[test.patients()[row] for row in known],
        left_out=len(test) - len(known),
    )


def compare_clusters(
    pretrained: Clustering, random_encoder: Clustering, num_resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The difference between two encoders on the same records: for each algorithm `ari` (pretrained minus random),
    `ci95` and `p_value` of the paired bootstrap over patients. Not of the mutual information, which another number of
    clusters alone would change."""
    same_records = random_encoder.record_ids == pretrained.record_ids
    if not same_records or not np.array_equal(random_encoder.classes, pretrained.classes):
        raise ValueError("The two encoders were evaluated on other records or classes. Compare on the same tables.")
    counts = resample_counts(len(pretrained.classes), num_resamples, seed, pretrained.patients)
    differences = {}
    for algorithm in ALGORITHMS:
        pair = [(encoder.classes, encoder.clusters[algorithm]) for encoder in (pretrained, random_encoder)]
        points = [agreement_of(*columns)[1] for columns in pair]
        resampled = [
            _centred(resampled_agreement(*columns, counts)[:, 1], point)
            for columns, point in zip(pair, points, strict=True)
        ]
        differences[algorithm] = {"ari": float(points[0] - points[1])} | paired_facts(resampled[0] - resampled[1])
    return differences


def agreement(contingency: np.ndarray) -> np.ndarray:
    """Normalised mutual information (by the arithmetic mean of the entropies) and adjusted Rand index, as scikit-learn
    defines them, of many tables at once.

    Args:
        contingency (`np.ndarray` of shape `(..., num_classes, num_clusters)`): Records of each class and cluster.

    Returns:
        `np.ndarray` of shape `(..., 2)`; 1 and 1 where both partitions have one part.
    """
    table = np.asarray(contingency, dtype=float)
    total = table.sum(axis=(-2, -1))
    by_class, by_cluster = table.sum(axis=-1), table.sum(axis=-2)
    entropies = [_entropy(part, total) for part in (by_class, by_cluster)]
    information = sum(entropies) - _entropy(table.reshape(*table.shape[:-2], -1), total)
    mean_entropy = sum(entropies) / 2
    nmi = np.where(mean_entropy > 0, information / np.where(mean_entropy > 0, mean_entropy, 1), 1.0)

    pairs, class_pairs, cluster_pairs, all_pairs = (
        (count * (count - 1) / 2).sum(axis=axes)
        for count, axes in ((table, (-2, -1)), (by_class, -1), (by_cluster, -1), (total[..., None], -1))
    )
    expected = class_pairs * cluster_pairs / all_pairs
    room = (class_pairs + cluster_pairs) / 2 - expected
    ari = np.where(room > 0, (pairs - expected) / np.where(room > 0, room, 1), 1.0)
    return np.stack([np.clip(nmi, 0, 1), ari], axis=-1)


def resampled_agreement(classes: np.ndarray, clusters: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[`agreement`] of every resample, `(num_resamples, 2)`; `counts` are those of [`resample_counts`]."""
    _, rows = np.unique(classes, return_inverse=True)
    _, columns = np.unique(clusters, return_inverse=True)
    shape = (rows.max() + 1, columns.max() + 1)
    cells = np.eye(shape[0] * shape[1])[rows * shape[1] + columns]
    return agreement((counts @ cells).reshape(-1, *shape))


def agreement_of(classes: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """[`agreement`] of the records themselves, `(2,)`."""
    return resampled_agreement(classes, clusters, np.ones((1, len(classes))))[0]


def _entropy(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    return entr(counts / total[..., None]).sum(axis=-1)


def _centred(values: np.ndarray, point: float) -> np.ndarray:
    """Resampled values, moved so that their mean is the value of the records themselves."""
    return values - values.mean() + point


def _single_class(labels: Sequence[str], label_names: Sequence[str]) -> str | None:
    """The one label of a record that the task has; `None` if there is none or several."""
    found = [name for name in label_names if name in labels]
    return found[0] if len(found) == 1 else None
