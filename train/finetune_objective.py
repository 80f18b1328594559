"""Losses of heads and scores that select them: of frozen encoders, and of fine-tuning by the stock Trainer."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import EvalPrediction, PreTrainedModel, TrainerCallback

from ecg_transformers.modeling import EcgFeatureExtractor

from .metrics import excluded_labels, macro_auroc
from .results import MULTI_LABEL, REGRESSION, SINGLE_LABEL

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class HeadTask:
    """Targets, loss and meaning of the logits of a head.

    `train_truth` `(num_train_records, num_labels)` is 0 or 1, or the targets of a regression, which are standardised
    by their mean and deviation for the loss.
    """

    def __init__(self, train_truth: np.ndarray, label_names: Sequence[str], problem_type: str):
        self.label_names, self.problem_type = tuple(label_names), problem_type
        self.centre = self.scale = None
        if problem_type == REGRESSION:
            self.centre, self.scale = train_truth.mean(axis=0), train_truth.std(axis=0)
            if not (self.scale > 0).all():
                constant = [name for name, scale in zip(label_names, self.scale, strict=True) if not scale > 0]
                raise ValueError(
                    f"The targets {constant} are the same in every training record, or not finite: nothing can be "
                    "learned. Leave them out."
                )
        else:
            not_learned = excluded_labels(train_truth, label_names)
            self.trained = [column for column, name in enumerate(label_names) if name not in not_learned]
            if not self.trained:
                raise ValueError(f"No label can be learned: {not_learned}. Train on more records.")

    def targets(self, truth: np.ndarray) -> torch.Tensor:
        """Truth for the loss: `(num_records,)` class numbers of a single-label task, else
        `(num_records, num_labels)` floats."""
        if self.problem_type == SINGLE_LABEL:
            return torch.from_numpy(truth.argmax(axis=1))
        if self.problem_type == REGRESSION:
            truth = (truth - self.centre) / self.scale
        return torch.from_numpy(np.asarray(truth, dtype=np.float32))

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy, cross-entropy or mean squared error, the mean over records and labels."""
        if self.problem_type == SINGLE_LABEL:
            return nn.functional.cross_entropy(logits, targets)
        if self.problem_type == REGRESSION:
            return nn.functional.mse_loss(logits, targets)
        return nn.functional.binary_cross_entropy_with_logits(logits, targets)

    def scores(self, logits: torch.Tensor) -> np.ndarray:
        """Probabilities, or values in the unit of the target, float64 `(num_records, num_labels)`."""
        logits = logits.detach().double().cpu()
        if self.problem_type == REGRESSION:
            return logits.numpy() * self.scale + self.centre
        return (logits.softmax(dim=-1) if self.problem_type == SINGLE_LABEL else logits.sigmoid()).numpy()

    def quality(self, scores: np.ndarray, truth: np.ndarray) -> float:
        """Quality of scores, higher is better: macro AUROC of the labels that training has; of a regression minus
        the mean absolute error in deviations of the training targets."""
        if self.problem_type == REGRESSION:
            return -float((np.abs(scores - truth) / self.scale).mean())
        names = [self.label_names[column] for column in self.trained]
        return macro_auroc(truth[:, self.trained], scores[:, self.trained], names).value


class WeightedLoss:
    """Binary cross-entropy with `pos_weight`, or cross-entropy with class weights; a mean over the labels of a step.

    The Trainer gives the number of items (labels) of all micro-batches of a step: accumulation changes nothing.
    """

    def __init__(self, weights: torch.Tensor, problem_type: str):
        is_single = problem_type == SINGLE_LABEL
        cross_entropy = nn.CrossEntropyLoss(weights, reduction="none")
        self.losses = cross_entropy if is_single else nn.BCEWithLogitsLoss(reduction="none", pos_weight=weights)

    def __call__(
        self, outputs: Mapping, labels: torch.Tensor, num_items_in_batch: int | torch.Tensor | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"].float()
        losses = self.losses.to(logits.device)(logits, labels)
        return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch


class ScaledTargets(TrainerCallback):
    """Squared error on targets in standard deviations of the training split, for a model that predicts in their unit.

    A head with small weights cannot reach 65 years in a few steps, so it learns deviations from the mean; when the
    training ends, mean and deviation are folded into its weights and bias, and the saved model predicts in the unit of
    the target. Use it as `compute_loss_func` and as a callback, so that it knows on which side of that the model is.
    """

    def __init__(self, task: HeadTask):
        self.mean, self.deviation = task.centre, task.scale
        self.is_folded = False

    def __call__(
        self, outputs: Mapping, labels: torch.Tensor, num_items_in_batch: int | torch.Tensor | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"].float()
        mean, deviation = (torch.from_numpy(x).to(logits) for x in (self.mean, self.deviation))
        said = (logits - mean) / deviation if self.is_folded else logits
        losses = (said - (labels.to(logits) - mean) / deviation) ** 2
        return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch

    def in_units(self, logits: np.ndarray) -> np.ndarray:
        return logits if self.is_folded else logits * self.deviation + self.mean

    @torch.no_grad()
    def on_train_end(self, args, state, control, model=None, **kwargs):
        head = model.classifier
        mean, deviation = (torch.from_numpy(x).to(head.weight) for x in (self.mean, self.deviation))
        head.weight.mul_(deviation[:, None])
        head.bias.mul_(deviation).add_(mean)
        self.is_folded = True


class ValidationMetrics:
    """`compute_metrics` of the Trainer: outputs of the windows of a record are averaged, then scored.

    Gives `macro_auroc` over the labels that the training split has, or for a regression `macro_zmae`, the mean
    absolute error in deviations of the training split.
    """

    def __init__(self, task: HeadTask, scale: ScaledTargets | None = None):
        self.task, self.scale = task, scale

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        truth, sample_ids = prediction.label_ids
        _, first, record = np.unique(sample_ids, return_index=True, return_inverse=True)
        sums = np.zeros((len(first), len(self.task.label_names)))
        np.add.at(sums, record, prediction.predictions)
        logits, truth = sums / np.bincount(record)[:, None], truth[first]
        if self.task.problem_type == REGRESSION:
            return {"macro_zmae": -self.task.quality(self.scale.in_units(logits), truth)}
        if self.task.problem_type == SINGLE_LABEL:
            truth = np.eye(len(self.task.label_names), dtype=np.int8)[truth]
            logits = torch.from_numpy(logits).softmax(dim=-1).numpy()  # one class against the rest depends on it
        return {"macro_auroc": self.task.quality(logits, truth.astype(np.int8))}


class WindowRows(torch.utils.data.Dataset):
    """Rows with a `window_start`, for [`EcgDataCollator`]: one row a record in training, at a place drawn anew each
    time; one row a window of the feature extractor in evaluation.

    One row a window, because the stock Trainer counts rows: a collator that made several windows of a row would lose
    those of the last batch in `Trainer.evaluate`. Places are drawn (`random`) from torch's generator, hence by the
    seed of the Trainer.
    """

    def __init__(self, rows: Dataset, feature_extractor: EcgFeatureExtractor, random: bool):
        self.rows, self.feature_extractor, self.random = rows, feature_extractor, random
        self.windows: list[tuple[int, int]] = []
        if not random:
            for number, row in enumerate(rows):
                starts = feature_extractor.window_starts(self._length(row["ecg"]))
                self.windows += [(number, start) for start in starts]

    def __len__(self) -> int:
        return len(self.rows) if self.random else len(self.windows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not self.random:
            number, start = self.windows[number]
            return self.rows[number] | {"window_start": start}
        row = self.rows[number]
        last = max(0, self._length(row["ecg"]) - self.feature_extractor.num_samples)
        return row | {"window_start": int(torch.randint(last + 1, ()))}

    def _length(self, ecg: Mapping[str, Any]) -> int:
        """Samples at the model's rate; 0 for a record that the collator will refuse."""
        num_samples = len(ecg["signal"]) // 2 // max(len(ecg["leads"]), 1)
        try:
            return self.feature_extractor.resampled_length(num_samples, ecg["sampling_rate"])
        except (ValueError, ZeroDivisionError):
            return 0


def class_weights(train: Dataset, names: Sequence[str], problem_type: str) -> torch.Tensor:
    """Weights `(num_labels,)` that balance the classes of the training split, and of no other.

    Multi-label: negatives by positives of each label, for its positives (`pos_weight` of binary cross-entropy). Single
    label: the mean count of a class by that of the class. A class that does not occur in training gets 1.
    """
    counts = Counter(label for labels in train["labels"] for label in labels)
    positives = np.array([counts[name] for name in names], dtype=float)
    total = len(train) - positives if problem_type == MULTI_LABEL else positives.sum() / max((positives > 0).sum(), 1)
    weights = np.where(positives > 0, total / np.maximum(positives, 1), 1.0)
    return torch.tensor(weights, dtype=torch.float32)


def freeze_encoder(encoder: nn.Module) -> None:
    """Freezes the weights of an encoder, and what is random in it.

    A [`~transformers.Trainer`] sets the whole model to training before each step; dropout, stochastic depth and
    masking would then act in an encoder that cannot learn from them, and the head would be trained on features that it
    never sees again. The encoder goes back to evaluation before each of its passes, until a weight of it learns again.
    """
    encoder.requires_grad_(False)
    encoder.register_forward_pre_hook(_to_evaluation)


def _to_evaluation(encoder: nn.Module, args: tuple) -> None:
    if encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters()):
        encoder.eval()


def parameter_depth(name: str, num_layers: int) -> int:
    """0 for the embeddings, 1 to `num_layers` for the layers, one more for everything behind them: the final norm and
    the head."""
    if name.startswith("ecg_vit.embeddings."):
        return 0
    layer = _LAYER.search(name) if name.startswith("ecg_vit.") else None
    return num_layers + 1 if layer is None else int(layer[1]) + 1


def layer_decay_groups(
    model: PreTrainedModel, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict]:
    """Optimiser groups of a classifier of this library; the schedule of the Trainer scales all of them alike.

    Args:
        model ([`PreTrainedModel`]): Its encoder is `ecg_vit`; what decays is its own rule (`has_weight_decay`).
        learning_rate (`float`): Rate of the head.
        weight_decay (`float`): Decay of matrices and tokens, not of biases, norms and LayerScale.
        layer_decay (`float`, *optional*, defaults to 1.0):
            Factor from each layer to the one below it: the embeddings of 12 layers get `layer_decay ** 13`.

    Returns:
        `list[dict]` of `params`, `lr` and `weight_decay`, from the embeddings to the head; parameters that do not
        require a gradient are left out.

    Raises:
        ValueError: for a factor outside of (0, 1], one below 1 for an encoder of another kind, or a model without
            anything to train.
    """
    if not 0.0 < layer_decay <= 1.0:
        raise ValueError(f"Expected 0 < layer_decay <= 1, got {layer_decay}: 1 trains all layers alike.")
    knows_layers = model.base_model_prefix == "ecg_vit"
    if layer_decay < 1.0 and not knows_layers:
        raise ValueError(
            f"layer_decay knows the layers of EcgViT encoders, not those of {type(model).__name__}. Set layer_decay=1."
        )
    num_layers = model.config.num_hidden_layers if knows_layers else 0
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = parameter_depth(name, num_layers) if knows_layers else 0, model.has_weight_decay(name, parameter)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError("The model has no parameter that requires a gradient.")
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay ** (num_layers + 1 - depth),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (depth, decays), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]
