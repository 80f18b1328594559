"""Probes of frozen features: embed every record once, fit a linear classifier, compare with a random encoder.

A random encoder is no straw man: on PTB-XL's superclasses its features reach a macro AUROC of 0.6 to 0.8, depending on
size and patching. What pretraining is worth is the difference, so [`compare_with_random`] always measures both, on the
same records, with a paired bootstrap of the difference.
"""

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.modeling.feature_extraction_ecg import average_windows

from .encoding import in_evaluation, input_batches
from .metrics import auroc_interval, excluded_labels, macro_auroc, paired_bootstrap
from .patients import patients_of

C_GRID = (0.0001, 0.001, 0.01, 0.1, 1.0)


@dataclass(frozen=True)
class EmbeddingTable:
    """Features of a set of records, with what a probe and a reader need to know about each.

    Args:
        features (`np.ndarray` of shape `(num_records, hidden_size)`): float32, finite.
        record_ids (`list[str]`): Names of the records.
        patient_ids (`list[str | None]`): Patient of each record, where known.
        labels (`list[list[str]]`): Label names of each record; none is an empty list.
        folds (`list[int | None]`): Fold of each record, where the corpus has folds.
    """

    features: np.ndarray
    record_ids: list[str]
    patient_ids: list[str | None]
    labels: list[list[str]]
    folds: list[int | None]

    def __post_init__(self):
        lengths = [len(column) for column in (self.record_ids, self.patient_ids, self.labels, self.folds)]
        if self.features.ndim != 2 or set(lengths) != {len(self.features)}:
            raise ValueError(f"Expected one row of features a record, got {self.features.shape}, {lengths} records.")
        bad = [self.record_ids[row] for row in np.flatnonzero(~np.isfinite(self.features).all(axis=1))]
        if bad:
            raise ValueError(
                f"The features of {len(bad)} of {len(self)} records are NaN or infinite: {bad[:10]}. Check these "
                "recordings, or the training (a diverged encoder gives NaN for every record)."
            )

    def __len__(self) -> int:
        return len(self.record_ids)

    def multi_hot(self, label_names: Sequence[str]) -> np.ndarray:
        """The labels as int8 of shape `(num_records, len(label_names))`; labels of other names are left out."""
        return np.array([[name in labels for name in label_names] for labels in self.labels], dtype=np.int8)

    def label_names(self) -> list[str]:
        """All labels that occur, in alphabetical order."""
        return sorted({name for labels in self.labels for name in labels})

    def patients(self) -> list[str]:
        """A patient for each record; a record without one counts as a patient of its own."""
        return patients_of(self.record_ids, self.patient_ids)

    def select_folds(self, folds: Iterable[int]) -> "EmbeddingTable":
        """The records of some folds, in their order."""
        folds = set(folds)
        return self.take([row for row, fold in enumerate(self.folds) if fold in folds])

    def with_any_label(self, label_names: Sequence[str]) -> "EmbeddingTable":
        """The records that have at least one of the labels. PTB-XL's benchmark leaves the others out of a task."""
        names = set(label_names)
        return self.take([row for row, labels in enumerate(self.labels) if names & set(labels)])

    def take(self, rows: list[int]) -> "EmbeddingTable":
        """The records of these numbers, in this order."""
        columns = (self.record_ids, self.patient_ids, self.labels, self.folds)
        return EmbeddingTable(self.features[rows], *([column[row] for row in rows] for column in columns))

    def save(self, path: str | Path) -> Path:
        """Writes `.parquet` (one row a record; `features` is a list of float32) or `.npz` (labels as JSON strings, a
        missing patient as `""`, a missing fold as -1), readable without this package."""
        path = Path(path)
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            values = pa.array(self.features.astype(np.float32).ravel())
            columns = {
                "record_id": pa.array(self.record_ids, pa.string()),
                "patient_id": pa.array(self.patient_ids, pa.string()),
                "fold": pa.array(self.folds, pa.int32()),
                "labels": pa.array(self.labels, pa.list_(pa.string())),
                "features": pa.FixedSizeListArray.from_arrays(values, self.features.shape[1]),
            }
            pq.write_table(pa.table(columns), path, compression="zstd")
        elif path.suffix == ".npz":
            np.savez_compressed(
                path,
                features=self.features.astype(np.float32),
                record_ids=np.array(self.record_ids, dtype=str),
                patient_ids=np.array(["" if patient is None else patient for patient in self.patient_ids], dtype=str),
                folds=np.array([-1 if fold is None else fold for fold in self.folds], dtype=np.int32),
                labels=np.array([json.dumps(labels) for labels in self.labels], dtype=str),
            )
        else:
            raise ValueError(f"Cannot write features to {path.name!r}. Name it .parquet or .npz.")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "EmbeddingTable":
        """Reads what [`~EmbeddingTable.save`] wrote."""
        path = Path(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return cls(
                    features=arrays["features"],
                    record_ids=arrays["record_ids"].tolist(),
                    patient_ids=[patient or None for patient in arrays["patient_ids"].tolist()],
                    labels=[json.loads(labels) for labels in arrays["labels"]],
                    folds=[None if fold < 0 else fold for fold in arrays["folds"].tolist()],
                )
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        columns = {name: table[name].to_pylist() for name in ("record_id", "patient_id", "labels", "fold")}
        features = table["features"].combine_chunks()
        features = features.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
        return cls(features, columns["record_id"], columns["patient_id"], columns["labels"], columns["fold"])


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


def embed(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    dataset: Iterable[dict],
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> EmbeddingTable:
    """Pools the features of every record of a dataset, in its order; those of several windows are averaged.

    A record that cannot become input is left out, named with the reason in the log, and counted.

    Args:
        model ([`PreTrainedModel`]):
            An encoder whose output has `pooler_output` of shape `(batch, hidden_size)`. It runs without gradient in
            evaluation mode; every module is then put back into the mode that it had.
        feature_extractor ([`EcgFeatureExtractor`]): Turns a row into the input of the model.
        dataset (`Iterable[dict]`): Rows of [`load_ecg`], decoded or not: stored, streaming, or a list.
        batch_size (`int`, *optional*, defaults to 64): Records in a forward pass.
        device (`torch.device` or `str`, *optional*): Where the model runs; by default where it is.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.
    """
    model.to(model.device if device is None else device)
    features, columns = [], {"record_id": [], "patient_id": [], "labels": [], "fold": []}
    with in_evaluation(model), torch.inference_mode():
        for batch in input_batches(model, feature_extractor, dataset, batch_size, "Embedding", progress):
            pooled = model(**batch.inputs).pooler_output.float().cpu()
            features.append(average_windows(pooled, batch.window_record).numpy())
            for name, values in columns.items():
                values.extend(row.get(name) for row in batch.rows)
    return EmbeddingTable(
        features=np.concatenate(features),
        record_ids=[str(record) for record in columns["record_id"]],
        patient_ids=[None if patient is None else str(patient) for patient in columns["patient_id"]],
        labels=[list(labels or ()) for labels in columns["labels"]],
        folds=columns["fold"],
    )


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


def random_encoder_like(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """An encoder of the same class and configuration with fresh weights, on the same device and in evaluation mode.

    The weights depend on the seed alone; the global generators are left as they were.
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        torch.default_generator.manual_seed(seed)
        encoder = type(model)(copy.deepcopy(model.config))
    return encoder.to(device=model.device, dtype=model.dtype).eval()


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


def refuse_patients_in_two_tables(tables: dict[str, EmbeddingTable]) -> None:
    """No patient in two tables; nor a record without one, which counts as a patient of its own."""
    names = list(tables)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            shared = sorted(set(tables[name].patients()) & set(tables[other].patients()))
            if shared:
                raise ValueError(
                    f"{len(shared)} patients are in both the {name} and the {other} table: {shared[:5]}. Split by "
                    "patient, otherwise the probe recognises people."
                )
