"""The protocols that need nothing but cached features: `linear` and `knn`.

Every record is embedded once; what is fitted sees the training split, what is chosen the validation split, and the
test split is scored once, with that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from transformers import FeatureExtractionMixin, PreTrainedModel

from ..features import EmbeddingTable, decoded, embed, random_encoder_like, refuse_patients_in_two_tables
from ..metrics import auroc_interval, excluded_labels, macro_auroc, paired_bootstrap
from ..predictions import Predictions, ProtocolResult
from ..results import REGRESSION, SINGLE_LABEL
from ..tasks.labelled_splits import LabelledSplits
from .head_training import HeadTask
from .neighbours import knn_scores

C_GRID = (0.0001, 0.001, 0.01, 0.1, 1.0)

K_GRID = (5, 10, 20, 50, 100)


@dataclass(frozen=True)
class FrozenTables:
    """Cached features of the three splits with their truth.

    Args:
        tables (`Mapping[str, EmbeddingTable]`): Of `train`, `validation` and `test`, without a common patient.
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
        _, sizes, basis = np.linalg.svd(train, full_matrices=False)
        basis = basis[sizes > 1e-6 * sizes[0]].T
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
    """A linear model on standardised frozen features: logistic regressions, for a regression ridge.

    Args:
        tables ([`FrozenTables`]): Cached features.
        C (`float`, *optional*):
            Inverse strength of the L2 penalty (ridge: `alpha = 1 / C`). By default the one of `C_grid` that does best
            on the validation split; the strongest penalty of equals.
    """
    task, features = tables.task(), tables.compressed()
    candidates = (C,) if C is not None else tuple(sorted(C_grid))
    found = {}
    for candidate in candidates:
        fit = _fit(features["train"], tables.truth["train"], task, candidate)
        found[candidate] = fit, fit(features["validation"])
    best = _best({candidate: scores for candidate, (_, scores) in found.items()}, task, tables)
    fit, on_validation = found[best]
    return tables.result("linear", {"validation": on_validation, "test": fit(features["test"])}, {"C": best})


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


def _fit(features: np.ndarray, truth: np.ndarray, task: HeadTask, C: float) -> Callable[[np.ndarray], np.ndarray]:
    """A fitted linear model: features to scores `(num_records, num_labels)`. Labels that cannot be learnt score 0."""
    if task.problem_type == REGRESSION:
        ridge = Ridge(alpha=1 / C).fit(features, (truth - task.centre) / task.scale)
        return lambda other: ridge.predict(other).reshape(len(other), -1) * task.scale + task.centre
    if task.problem_type == SINGLE_LABEL:
        model = LogisticRegression(C=C, max_iter=2000).fit(features, truth.argmax(axis=1))

        def of_classes(other: np.ndarray) -> np.ndarray:
            scores = np.zeros((len(other), truth.shape[1]))
            scores[:, model.classes_] = model.predict_proba(other)
            return scores

        return of_classes
    return fit_logistic(features, truth, C)


def _best(on_validation: Mapping[float, np.ndarray], task: HeadTask, tables: FrozenTables) -> float:
    """The first candidate with the best scores on the validation split; the only one without a look at it."""
    if len(on_validation) == 1:
        return next(iter(on_validation))
    truth = tables.truth["validation"]
    return max(on_validation, key=lambda candidate: task.quality(on_validation[candidate], truth))


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found on a test set.

    Args:
        protocol (`str`): `"linear"`: frozen features, standardised, one logistic regression a label.
        label_names (`list[str]`): Labels that were probed, the columns of `labels` and `scores`.
        labels, scores (`np.ndarray` of shape `(num_test_records, num_labels)`): Truth (0 or 1) and probabilities.
        record_ids, patients (`list[str]`): The test records and whom they belong to.
        macro_auroc (`float`), macro_auroc_ci95 (`tuple[float, float]`): Mean over labels; percentile bootstrap.
        per_class, per_class_ci95 (`dict`): The same for each label.
        excluded (`dict[str, str]`): Labels that training or test set could not judge, with the reason.
        C (`float`): Inverse strength of the L2 penalty.
        num_train_records (`int`): Size of the training set.
    """

    protocol: str
    label_names: list[str]
    labels: np.ndarray
    scores: np.ndarray
    record_ids: list[str]
    patients: list[str]
    macro_auroc: float
    macro_auroc_ci95: tuple[float, float]
    per_class: dict[str, float]
    per_class_ci95: dict[str, tuple[float, float]]
    excluded: dict[str, str]
    C: float
    num_train_records: int

    def summary(self) -> dict:
        """The numbers, ready for JSON, without the arrays of single records."""
        return {
            "macro_auroc": self.macro_auroc,
            "macro_auroc_ci95": list(self.macro_auroc_ci95),
            "per_class": dict(self.per_class),
            "per_class_ci95": {name: list(interval) for name, interval in self.per_class_ci95.items()},
            "excluded": dict(self.excluded),
            "C": self.C,
            "num_train_records": self.num_train_records,
            "num_test_records": len(self.record_ids),
            "num_test_patients": len(set(self.patients)),
        }


def linear_probe(
    train: EmbeddingTable,
    test: EmbeddingTable,
    label_names: Sequence[str],
    C: float = 0.01,
    validation: EmbeddingTable | None = None,
    C_grid: Sequence[float] = C_GRID,
    num_resamples: int = 1000,
    seed: int = 0,
    min_positives: int = 1,
) -> ProbeResult:
    """Fits one logistic regression a label on standardised frozen features and judges it on the test set.

    The mean and deviation of the features come from the training set alone. A label without a positive or a negative
    in either set is excluded and named. Records of one patient are resampled together.

    Args:
        train, test ([`EmbeddingTable`]): Tables without a common patient.
        label_names (`Sequence[str]`): The labels of the task.
        C (`float`, *optional*, defaults to 0.01): Inverse strength of the L2 penalty.
        validation ([`EmbeddingTable`], *optional*):
            Where given, `C` is chosen from `C_grid` by the macro AUROC on it (the strongest penalty of equals).
        num_resamples (`int`, *optional*, defaults to 1000): Bootstrap resamples.
        seed (`int`, *optional*, defaults to 0): Seed of the bootstrap; the fit itself draws nothing.
        min_positives (`int`, *optional*, defaults to 1): Test positives that a label needs.
    """
    tables = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
    refuse_patients_in_two_tables(tables)
    untrainable = excluded_labels(train.multi_hot(label_names), label_names)
    kept = [name for name in label_names if name not in untrainable]
    if not kept:
        raise ValueError(f"No label can be trained: {untrainable}. Train on more records.")
    if validation is not None:
        truth = validation.multi_hot(kept)
        C = max(sorted(C_grid), key=lambda c: macro_auroc(truth, _fit_scores(train, validation, kept, c), kept).value)
    labels, scores = test.multi_hot(kept), _fit_scores(train, test, kept, C)
    point = macro_auroc(labels, scores, kept, min_positives)
    interval = auroc_interval(labels, scores, kept, num_resamples, seed, test.patients(), min_positives)
    excluded = {name: f"training set: {reason}" for name, reason in untrainable.items()}
    excluded |= {name: f"test set: {reason}" for name, reason in point.excluded.items()}
    return ProbeResult(
        protocol="linear",
        label_names=kept,
        labels=labels,
        scores=scores,
        record_ids=list(test.record_ids),
        patients=test.patients(),
        macro_auroc=point.value,
        macro_auroc_ci95=interval.macro,
        per_class=point.per_class,
        per_class_ci95=interval.per_class,
        excluded=excluded,
        C=C,
        num_train_records=len(train),
    )


def compare_probes(
    pretrained: ProbeResult, random_encoder: ProbeResult, num_resamples: int = 1000, seed: int = 0
) -> dict:
    """Two probes of the same test records and their difference, in the form of `report.json`.

    Returns:
        `dict`: `random_encoder.<protocol>` and `pretrained.<protocol>` as [`ProbeResult.summary`] writes them, and
        `difference.<protocol>` with `macro_auroc` (pretrained minus random), `ci95` and `p_value` of the paired
        bootstrap ([`~ecg_transformers.train.metrics.paired_bootstrap`]).
    """
    if pretrained.protocol != random_encoder.protocol:
        raise ValueError(f"Protocols {pretrained.protocol!r} and {random_encoder.protocol!r} are never compared.")
    if (pretrained.record_ids, pretrained.label_names) != (random_encoder.record_ids, random_encoder.label_names):
        raise ValueError("The two probes were judged on other records or labels. Probe both on the same tables.")
    judged = [pretrained.label_names.index(name) for name in pretrained.per_class]
    arrays = (pretrained.labels, pretrained.scores, random_encoder.scores)
    paired = paired_bootstrap(
        *(array[:, judged] for array in arrays),
        label_names=list(pretrained.per_class),
        num_resamples=num_resamples,
        seed=seed,
        groups=pretrained.patients,
    )
    difference = {"macro_auroc": paired.difference, "ci95": list(paired.ci95), "p_value": paired.p_value}
    return {
        "random_encoder": {pretrained.protocol: random_encoder.summary()},
        "pretrained": {pretrained.protocol: pretrained.summary()},
        "difference": {pretrained.protocol: difference},
    }


def compare_with_random(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    train_dataset: Iterable[dict],
    test_dataset: Iterable[dict],
    label_names: Sequence[str],
    validation_dataset: Iterable[dict] | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = True,
    **probe_options,
) -> dict:
    """Probes an encoder and a random one of the same configuration; the JSON of [`compare_probes`].

    Records without any of the labels are left out, as in the benchmark of PTB-XL (Strodthoff et al., 2020).
    `seed` gives the random encoder its weights and the bootstrap its resamples; `probe_options` go to
    [`linear_probe`]. The other arguments are those of [`embed`].
    """
    datasets = {"train": train_dataset, "test": test_dataset}
    if validation_dataset is not None:
        datasets["validation"] = validation_dataset
    results = []
    for encoder in (model, random_encoder_like(model, seed)):
        tables = {
            name: embed(encoder, feature_extractor, dataset, batch_size, device, progress).with_any_label(label_names)
            for name, dataset in datasets.items()
        }
        results.append(linear_probe(**tables, label_names=label_names, seed=seed, **probe_options))
    return compare_probes(*results, num_resamples=probe_options.get("num_resamples", 1000), seed=seed)


def fit_logistic(features: np.ndarray, labels: np.ndarray, C: float) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regressions with an L2 penalty, one a label.

    Args:
        features (`np.ndarray` of shape `(num_records, hidden_size)`): Taken as they are.
        labels (`np.ndarray` of shape `(num_records, num_labels)`): 0 or 1.
        C (`float`): Inverse strength of the penalty.

    Returns:
        `Callable`: features of other records to probabilities `(num_records, num_labels)`, 0 for labels without a
        positive or a negative, which cannot be learnt.
    """
    learnt = [column for column in range(labels.shape[1]) if 0 < labels[:, column].sum() < len(labels)]
    models = {column: LogisticRegression(C=C, max_iter=2000).fit(features, labels[:, column]) for column in learnt}

    def probabilities(other: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(other), labels.shape[1]))
        for column, model in models.items():
            scores[:, column] = model.predict_proba(other)[:, 1]
        return scores

    return probabilities


def _fit_scores(train: EmbeddingTable, table: EmbeddingTable, label_names: Sequence[str], C: float) -> np.ndarray:
    """Probabilities `(len(table), len(label_names))` of logistic regressions fitted on `train`, standardised."""
    scaler = StandardScaler().fit(train.features)
    return fit_logistic(scaler.transform(train.features), train.multi_hot(label_names), C)(
        scaler.transform(table.features)
    )
