"""Loss and scores of a classifier: in training, and at the end with their uncertainty and all predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction

from .finetune_data import SINGLE_LABEL
from .metrics import auroc_interval, excluded_labels, macro_auprc, macro_auroc, macro_f1
from .supervised import Predictions


def multi_hot(labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
    return np.array([[name in of_record for name in names] for of_record in labels], dtype=np.int8)


class WeightedLoss:
    """Binary cross-entropy with `pos_weight`, or cross-entropy with class weights; a mean over the labels of a step.

    The Trainer gives the number of items (labels) of all micro-batches of a step: accumulation changes nothing.
    """

    def __init__(self, weights: torch.Tensor, problem_type: str):
        self.weights, self.problem_type = weights, problem_type

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
        logits = outputs["logits"].float()
        weights = self.weights.to(logits.device)
        if self.problem_type == SINGLE_LABEL:
            losses = nn.functional.cross_entropy(logits, labels, weight=weights, reduction="none")
        else:
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits, labels, pos_weight=weights, reduction="none"
            )
        return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch


class ValidationMetrics:
    """`compute_metrics` of the Trainer: logits of the windows of a record are averaged, then judged."""

    def __init__(self, label_names: Sequence[str], problem_type: str):
        self.label_names, self.problem_type = list(label_names), problem_type

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        truth, sample_ids = prediction.label_ids
        _, first, record = np.unique(sample_ids, return_index=True, return_inverse=True)
        sums = np.zeros((len(first), len(self.label_names)))
        np.add.at(sums, record, prediction.predictions)
        logits, truth = sums / np.bincount(record)[:, None], truth[first]
        if self.problem_type == SINGLE_LABEL:
            truth = np.eye(len(self.label_names), dtype=np.int8)[truth]
            logits = torch.from_numpy(logits).softmax(dim=-1).numpy()  # one class against the rest depends on it
        return {"macro_auroc": macro_auroc(truth.astype(np.int8), logits, self.label_names).value}


def judge(
    found: Predictions, label_names: Sequence[str], problem_type: str, unlearnt: Mapping[str, str], seed: int = 0
) -> dict:
    """Macro AUROC with 95 % intervals from a bootstrap over patients, average precision and F1, ready for JSON.

    F1 is at 0.5 for a multi-label task, and of the most likely class for a single-label one, which gets an accuracy
    too. Labels that the split cannot judge, and those of `unlearnt`, are left out and named under `excluded`.
    """
    patients = [
        f"record {record}" if patient is None else patient
        for record, patient in zip(found.record_ids, found.patient_ids, strict=True)
    ]
    scores = found.scores
    chosen = np.eye(len(label_names))[scores.argmax(axis=1)] if problem_type == SINGLE_LABEL else scores
    columns = [column for column, name in enumerate(label_names) if name not in unlearnt]
    names = [label_names[column] for column in columns]
    labels, scores, chosen_kept = found.labels[:, columns], scores[:, columns], chosen[:, columns]
    area = macro_auroc(labels, scores, names)
    interval = auroc_interval(labels, scores, names, groups=patients, seed=seed)
    facts = {
        "macro_auroc": area.value,
        "macro_auroc_ci95": list(interval.macro),
        "per_class": area.per_class,
        "per_class_ci95": {name: list(bounds) for name, bounds in interval.per_class.items()},
        "macro_auprc": macro_auprc(labels, scores, names).value,
        "macro_f1": macro_f1(labels, chosen_kept, names).value,
        "excluded": dict(unlearnt) | excluded_labels(labels, names),
        "num_records": len(found.record_ids),
        "num_patients": len(set(patients)),
    }
    if problem_type == SINGLE_LABEL:
        facts["accuracy"] = float((chosen * found.labels).sum() / len(found.labels))
    return facts


def write_predictions(found: Mapping[str, Predictions], label_names: Sequence[str], path: Path) -> Path:
    """One row a record: `split`, `record_id`, `patient_id` and, for each class, `label/NAME` (0 or 1) and
    `score/NAME` (probability), so that anybody can score them again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for split, part in found.items():
        columns = {
            "split": pa.array([split] * len(part.record_ids)),
            "record_id": pa.array(part.record_ids, pa.string()),
            "patient_id": pa.array(part.patient_ids, pa.string()),
        }
        for column, name in enumerate(label_names):
            columns[f"label/{name}"] = pa.array(part.labels[:, column], pa.int8())
            columns[f"score/{name}"] = pa.array(part.scores[:, column], pa.float64())
        tables.append(pa.table(columns))
    pq.write_table(pa.concat_tables(tables), path, compression="zstd")
    return path
