"""The protocols that need nothing but cached features: `linear` and `knn`.

Every record is embedded once; what is fitted sees the training split, and the test split is scored once, with that.
`linear` chooses its penalty by cross-validation inside the training split, `knn` the number of neighbours on the
validation split.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from transformers import FeatureExtractionMixin, PreTrainedModel

from ..features import EmbeddingTable, decoded, embed, refuse_patients_in_two_tables
from ..predictions import Predictions, ProtocolResult
from ..tasks.labelled_splits import LabelledSplits
from .head_training import HeadTask
from .linear_models import C_GRID, cross_validated_C, fit_linear, folds_of_patients
from .neighbours import knn_scores

K_GRID = (5, 10, 20, 50, 100)


@dataclass(frozen=True)
class FrozenTables:
    """Cached features of the three splits with their truth.

    Args:
        tables (`Mapping[str, EmbeddingTable]`):
            Features of `train` and of what is judged, mostly `validation` and `test`, without a common patient.
        truth (`Mapping[str, np.ndarray]`):
            Of each split, `(num_records, num_labels)`: 0 or 1, or the targets of a regression.
        label_names (`tuple[str, ...]`), problem_type (`str`): Of the task.
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

    def compressed(self) -> dict[str, np.ndarray]:
        """[`standardised`] features in a basis of the training records, where there are more features than records.

        A linear model with an L2 penalty has its weights in the span of the training records: the scores are the same
        (to rounding), the fit is faster.
        """
        features = self.standardised()
        train = features["train"]
        if train.shape[1] <= len(train):
            return features
        train = train.astype(np.float64)
        squares, directions = np.linalg.eigh(train @ train.T)  # a quarter of the time of the decomposition of `train`
        kept = squares > 1e-12 * squares[-1]
        basis = train.T @ (directions[:, kept] / np.sqrt(squares[kept]))
        return {split: values @ basis for split, values in features.items()}

    def task(self) -> HeadTask:
        """What is to be learnt from the training split; a `ValueError` where nothing can be."""
        return HeadTask(self.truth["train"], self.label_names, self.problem_type)

    def predictions(self, split: str, scores: np.ndarray) -> Predictions:
        table = self.tables[split]
        return Predictions(scores, self.truth[split], table.record_ids, table.patient_ids)

    def result(self, protocol: str, scores: Mapping[str, np.ndarray], details: dict) -> ProtocolResult:
        """What a protocol found, from its scores of `validation` and `test`."""
        return ProtocolResult(
            protocol,
            self.label_names,
            self.problem_type,
            self.truth["train"],
            self.predictions("validation", scores["validation"]),
            self.predictions("test", scores["test"]),
            details,
        )

    def take_train(self, rows: Sequence[int]) -> "FrozenTables":
        """The same with a part of the training records, by their numbers."""
        rows = list(rows)
        return FrozenTables(
            dict(self.tables) | {"train": self.tables["train"].take(rows)},
            dict(self.truth) | {"train": self.truth["train"][rows]},
            self.label_names,
            self.problem_type,
        )


def embed_splits(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    splits: LabelledSplits,
    batch_size: int = 64,
    change: Callable[[str, dict], dict] | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> FrozenTables:
    """Features of every record of a task.

    Args:
        change (`Callable[[str, dict], dict]`, *optional*):
            Makes another row of a split's name and a decoded row, for instance one with fewer leads.
        The other arguments are those of [`~ecg_transformers.train.features.embed`].
    """
    tables, truth = {}, {}
    for split, rows in splits.items():
        changed: Iterable[dict] = rows if change is None else _Changed(rows, split, change)
        tables[split] = embed(model, feature_extractor, changed, batch_size, device, progress)
        truth[split] = splits.truth_of(split, tables[split].record_ids)
    return FrozenTables(tables, truth, splits.label_names, splits.problem_type)


class _Changed:
    """Decoded rows of a split, each changed as it is read."""

    def __init__(self, rows, split: str, change: Callable[[str, dict], dict]):
        self.rows, self.split, self.change = decoded(rows), split, change

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self):
        return (self.change(self.split, row) for row in self.rows)


def linear_protocol(tables: FrozenTables, C: float | None = None, C_grid: Sequence[float] = C_GRID) -> ProtocolResult:
    """Learns a linear model of standardised frozen features: logistic regressions, for a regression ridge.

    Args:
        tables ([`FrozenTables`]): Cached features.
        C (`float`, *optional*):
            Inverse strength of the L2 penalty (ridge: `alpha = 1 / C`). By default the choice of
            [`~linear_models.cross_validated_C`] in the training split, so that no validation record is looked at.
        C_grid (`Sequence[float]`, *optional*): The candidates.
    """
    scores, C = linear_scores(tables, C, C_grid)
    return tables.result("linear", scores, {"C": C})


def linear_scores(
    tables: FrozenTables, C: float | None = None, C_grid: Sequence[float] = C_GRID
) -> tuple[dict[str, np.ndarray], float]:
    """Scores of every split but `train` by the linear model of [`linear_protocol`], and its penalty."""
    task, features, truth = tables.task(), tables.compressed(), tables.truth["train"]
    if C is None:
        C = cross_validated_C(features["train"], truth, tables.tables["train"].patients(), task, C_grid)
    fit = fit_linear(features["train"], truth, task, C)
    return {split: fit(values) for split, values in features.items() if split != "train"}, C


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
        part = FrozenTables(
            {split: table.take(numbers.tolist()) for split, numbers in rows.items()},
            {split: truth[numbers] for split, numbers in rows.items()},
            tables.label_names,
            tables.problem_type,
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
        tables = FrozenTables(
            {
                split: embed(model, feature_extractor, vars(splits)[split], batch_size, progress=False)
                for split in ("train", "validation")
            },
            {split: splits.truth_of(split) for split in ("train", "validation")},
            splits.label_names,
            splits.problem_type,
        )
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
    num_train = len(features["train"])

    def scores(split: str, k: int) -> np.ndarray:
        return knn_scores(features["train"], tables.truth["train"], features[split], k, metric, weights)

    candidates = (k,) if k is not None else sorted({min(candidate, num_train) for candidate in k_grid}, reverse=True)
    on_validation = {candidate: scores("validation", candidate) for candidate in candidates}
    best = _best(on_validation, task, tables)
    details = {"k": best, "metric": metric, "weights": weights}
    return tables.result("knn", {"validation": on_validation[best], "test": scores("test", best)}, details)


def _best(on_validation: Mapping[float, np.ndarray], task: HeadTask, tables: FrozenTables) -> float:
    """The first candidate with the best scores on the validation split; the only one without a look at it."""
    if len(on_validation) == 1:
        return next(iter(on_validation))
    truth = tables.truth["validation"]
    return max(on_validation, key=lambda candidate: task.quality(on_validation[candidate], truth))
