"""The protocols that need nothing but cached features: `linear` and `knn`.

Every record is embedded once, models are fitted on the training split, and the test split is scored once. `linear`
chooses its penalty by cross-validation inside the training split, `knn` the number of neighbours on the validation
split.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from transformers import FeatureExtractionMixin, PreTrainedModel

from ..features import EmbeddingTable, decoded, embed, refuse_patients_in_two_tables
from ..finetune_objective import HeadTask
from ..predictions import Predictions, ProtocolResult
from ..tasks.labelled_splits import SPLITS, LabelledSplits
from .linear_models import cross_validated_C, fit_linear, folds_of_patients

K_GRID = (5, 10, 20, 50, 100)
WEIGHTS = ("uniform", "distance")


@dataclass(frozen=True)
class FrozenTables:
    """Cached features of the three splits with their truth.

    Args:
        tables (`Mapping[str, EmbeddingTable]`):
            Features of `train` and of what is scored, mostly `validation` and `test`, without a common patient.
        truth (`Mapping[str, np.ndarray]`):
            Truth of each split, `(num_records, num_labels)`: 0 or 1, or the targets of a regression.
        label_names (`tuple[str, ...]`), problem_type (`str`): Names and type of the task.
    """

    tables: Mapping[str, EmbeddingTable]
    truth: Mapping[str, np.ndarray]
    label_names: tuple[str, ...]
    problem_type: str

    def __post_init__(self):
        refuse_patients_in_two_tables(dict(self.tables))

    def standardised(self) -> dict[str, np.ndarray]:
        """Features of each split, centred and scaled by those of the training split."""
        scaler = StandardScaler().fit(self.tables["train"].features)
        return {split: scaler.transform(table.features) for split, table in self.tables.items()}

    def task(self) -> HeadTask:
        """The task of the training split; a `ValueError` where nothing can be learned."""
        return HeadTask(self.truth["train"], self.label_names, self.problem_type)

    def predictions(self, split: str, scores: np.ndarray) -> Predictions:
        table = self.tables[split]
        return Predictions(scores, self.truth[split], table.record_ids, table.patient_ids)

    def result(self, protocol: str, scores: Mapping[str, np.ndarray], details: dict) -> ProtocolResult:
        """The result of a protocol, from its scores of `validation` and `test`."""
        found = {split: self.predictions(split, scores[split]) for split in ("validation", "test")}
        about = (self.label_names, self.problem_type, self.truth["train"])
        return ProtocolResult(protocol, *about, **found, details=details)

    def take_train(self, rows: Sequence[int]) -> "FrozenTables":
        """The same with a part of the training records, by their numbers."""
        rows = list(rows)
        tables = dict(self.tables) | {"train": self.tables["train"].take(rows)}
        return replace(self, tables=tables, truth=dict(self.truth) | {"train": self.truth["train"][rows]})


def embed_splits(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    splits: LabelledSplits,
    batch_size: int = 64,
    change: Callable[[dict], dict] | None = None,
    names: Sequence[str] = SPLITS,
) -> FrozenTables:
    """Features of every record of a task, or of the splits `names`; `change` makes another row of each decoded row,
    such as fewer leads."""
    tables, truth = {}, {}
    for split in names:
        rows = vars(splits)[split]
        changed = rows if change is None else map(change, decoded(rows))
        tables[split] = embed(model, feature_extractor, changed, batch_size, progress=False)
        truth[split] = splits.truth_of(split, tables[split].record_ids)
    return FrozenTables(tables, truth, splits.label_names, splits.problem_type)


def linear_protocol(tables: FrozenTables, C: float | None = None) -> ProtocolResult:
    """Fits a linear model of standardised frozen features: logistic regressions, for a regression ridge.

    Args:
        tables ([`FrozenTables`]): Cached features.
        C (`float`, *optional*):
            Inverse strength of the L2 penalty (ridge: `alpha = 1 / C`). By default the choice of
            [`~linear_models.cross_validated_C`] in the training split, so that no validation record is looked at.
    """
    scores, C = linear_scores(tables, C)
    return tables.result("linear", scores, {"C": C})


def linear_scores(tables: FrozenTables, C: float | None = None) -> tuple[dict[str, np.ndarray], float]:
    """Scores of every split but `train` by the linear model of [`linear_protocol`], and its penalty."""
    probe, C = fit_probe(tables, C)
    return {split: probe(table.features) for split, table in tables.tables.items() if split != "train"}, C


def fit_probe(tables: FrozenTables, C: float | None = None) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """The linear model of [`linear_protocol`], from features `(num_records, hidden_size)` to scores `(num_records,
    num_labels)`, and its penalty.

    Where there are more features than records, it is fitted in a basis of the training records: a model with an L2
    penalty has its weights in their span, so that the scores are the same (to rounding) and the fit is faster.
    """
    task, truth = tables.task(), tables.truth["train"]
    scaler = StandardScaler().fit(tables.tables["train"].features)
    train, basis = scaler.transform(tables.tables["train"].features), None
    if train.shape[1] > len(train):
        wide = train.astype(np.float64)
        squares, directions = np.linalg.eigh(wide @ wide.T)  # a quarter of the time of the decomposition of `wide`
        kept = squares > 1e-12 * squares[-1]
        basis = wide.T @ (directions[:, kept] / np.sqrt(squares[kept]))
        train = train @ basis
    C = C or cross_validated_C(train, truth, tables.tables["train"].patients(), task)
    fit = fit_linear(train, truth, task, C)

    def scores(features: np.ndarray) -> np.ndarray:
        features = scaler.transform(features)
        return fit(features if basis is None else features @ basis)

    return scores, C


def cross_validated_linear(tables: FrozenTables, num_folds: int = 8) -> ProtocolResult:
    """Predicts every record of all splits by the linear model of the other folds of patients.

    For corpora whose test split is too small to say anything. Each model chooses its penalty inside its own training
    folds.
    """
    table = EmbeddingTable.joined(tables.tables.values())
    truth = np.concatenate([tables.truth[split] for split in tables.tables])
    folds = folds_of_patients(table.patients(), num_folds)
    scores, penalties = np.zeros(truth.shape), []
    for fold in range(folds.max() + 1):
        rows = {"train": np.flatnonzero(folds != fold), "test": np.flatnonzero(folds == fold)}
        part = replace(
            tables,
            tables={split: table.take(numbers.tolist()) for split, numbers in rows.items()},
            truth={split: truth[numbers] for split, numbers in rows.items()},
        )
        found, C = linear_scores(part)
        scores[folds == fold] = found["test"]
        penalties.append(C)
    test = Predictions(scores, truth, table.record_ids, table.patient_ids)
    details = {"num_folds": len(penalties), "C": penalties}
    return ProtocolResult("linear", tables.label_names, tables.problem_type, truth, None, test, details)


def choose_layer(
    model: PreTrainedModel, feature_extractor: FeatureExtractionMixin, splits: LabelledSplits, batch_size: int = 64
) -> int:
    """Chooses the layer whose features a linear model predicts the validation split from best; the first of equals.

    The test split is not read. `model.config.pooled_layer` is left at the choice.
    """
    by_layer = {}
    for layer in range(model.config.num_hidden_layers + 1):
        model.config.pooled_layer = layer
        tables = embed_splits(model, feature_extractor, splits, batch_size, names=("train", "validation"))
        by_layer[layer] = linear_scores(tables)[0]["validation"]
    model.config.pooled_layer = _best(by_layer, tables.task(), tables)
    return model.config.pooled_layer


def knn_protocol(
    tables: FrozenTables,
    k: int | None = None,
    metric: str = "cosine",
    weights: str = "distance",
    k_grid: Sequence[int] = K_GRID,
) -> ProtocolResult:
    """The nearest training records vote, on standardised frozen features; see [`knn_scores`].

    `k` is by default the one of `k_grid` that does best on the validation split; the most neighbours of equals.
    """
    task, features = tables.task(), tables.standardised()

    def scores(split: str, k: int) -> np.ndarray:
        return knn_scores(features["train"], tables.truth["train"], features[split], k, metric, weights)

    candidates = (k,) if k else sorted({min(number, len(features["train"])) for number in k_grid}, reverse=True)
    found = {candidate: scores("validation", candidate) for candidate in candidates}
    best = _best(found, task, tables)
    details = {"k": best, "metric": metric, "weights": weights}
    return tables.result("knn", {"validation": found[best], "test": scores("test", best)}, details)


def _best(found: Mapping[int, np.ndarray], task: HeadTask, tables: FrozenTables) -> int:
    """The first candidate with the best scores on the validation split; the only one without a look at its truth."""
    if len(found) == 1:
        return next(iter(found))
    return max(found, key=lambda candidate: task.quality(found[candidate], tables.truth["validation"]))


def knn_scores(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    k: int = 20,
    metric: str = "euclidean",
    weights: str = "uniform",
) -> np.ndarray:
    """The share of each label among the `k` nearest training records, by which labels rank records.

    Args:
        train_features, test_features (`np.ndarray` of shape `(num_records, hidden_size)`): Frozen features.
        train_labels (`np.ndarray` of shape `(num_train, num_labels)`): 1 where a record has a label, else 0.
        weights (`str`, *optional*, defaults to `"uniform"`):
            `"distance"`: a neighbour counts by the inverse of its distance; at distance 0 only such neighbours count.

    Raises:
        ValueError: for unknown weights, or more neighbours than training records.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"Expected weights of {list(WEIGHTS)}, got {weights!r}.")
    if not 1 <= k <= len(train_features):
        raise ValueError(f"Expected k from 1 to the {len(train_features)} training records, got {k}.")
    distances, neighbours = (
        NearestNeighbors(n_neighbors=k, metric=metric).fit(train_features).kneighbors(test_features)
    )
    if weights == "uniform":
        votes = np.ones_like(distances)
    else:
        is_same = distances == 0
        votes = np.where(is_same.any(axis=1, keepdims=True), is_same, 1 / np.where(is_same, 1, distances))
    shares = votes / votes.sum(axis=1, keepdims=True)
    found = np.asarray(train_labels, dtype=float)[neighbours]
    # Shares that sum to 1 by rounding may sum to more: nothing lies beyond the neighbours' own labels.
    return np.clip(np.einsum("tk,tkl->tl", shares, found), found.min(axis=1), found.max(axis=1))
