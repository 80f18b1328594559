"""What fine-tuning minimises and what it selects by: the losses and the scores that the stock Trainer is given."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction, TrainerCallback

from .metrics import excluded_labels, macro_auroc
from .predictions import REGRESSION, SINGLE_LABEL


class WeightedLoss:
    """Binary cross-entropy with `pos_weight`, or cross-entropy with class weights; a mean over the labels of a step.

    The Trainer gives the number of items (labels) of all micro-batches of a step: accumulation changes nothing.
    """

    def __init__(self, weights: torch.Tensor, problem_type: str):
        self.weights, self.problem_type = weights, problem_type

    def __call__(
        self, outputs: Mapping, labels: torch.Tensor, num_items_in_batch: int | torch.Tensor | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"].float()
        weights = self.weights.to(logits.device)
        if self.problem_type == SINGLE_LABEL:
            losses = nn.functional.cross_entropy(logits, labels, weight=weights, reduction="none")
        else:
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits, labels, pos_weight=weights, reduction="none"
            )
        return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch


class ScaledTargets(TrainerCallback):
    """Squared error on targets in standard deviations of the training split, for a model that answers in their unit.

    A head with small weights cannot say 65 years in a few steps, so it learns deviations from the mean; when the
    training ends, mean and deviation are folded into its weights and bias, and the saved model speaks in the unit of
    the target. Use it as `compute_loss_func` and as a callback, so that it knows on which side of that the model is.

    Args:
        targets (`np.ndarray` of shape `(num_records, num_targets)`): Of the training split, in their unit.
    """

    def __init__(self, targets: np.ndarray):
        self.mean, self.deviation = targets.mean(axis=0), targets.std(axis=0)
        if not (self.deviation > 0).all():
            raise ValueError("A target is the same in every training record: nothing can be learnt. Leave it out.")
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
    """`compute_metrics` of the Trainer: outputs of the windows of a record are averaged, then judged.

    Gives `macro_auroc` over the labels that the training split has, or for a regression `macro_zmae`, the mean
    absolute error in deviations of the training split.
    """

    def __init__(
        self,
        label_names: Sequence[str],
        problem_type: str,
        train_labels: np.ndarray,
        scale: ScaledTargets | None = None,
    ):
        self.label_names, self.problem_type, self.scale = list(label_names), problem_type, scale
        if problem_type != REGRESSION:
            unlearnt = excluded_labels(train_labels, label_names)
            self.learnt = [column for column, name in enumerate(label_names) if name not in unlearnt]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        truth, sample_ids = prediction.label_ids
        _, first, record = np.unique(sample_ids, return_index=True, return_inverse=True)
        sums = np.zeros((len(first), len(self.label_names)))
        np.add.at(sums, record, prediction.predictions)
        logits, truth = sums / np.bincount(record)[:, None], truth[first]
        if self.problem_type == REGRESSION:
            errors = np.abs(self.scale.in_units(logits) - truth) / self.scale.deviation
            return {"macro_zmae": float(errors.mean())}
        if self.problem_type == SINGLE_LABEL:
            truth = np.eye(len(self.label_names), dtype=np.int8)[truth]
            logits = torch.from_numpy(logits).softmax(dim=-1).numpy()  # one class against the rest depends on it
        names = [self.label_names[column] for column in self.learnt]
        return {"macro_auroc": macro_auroc(truth.astype(np.int8)[:, self.learnt], logits[:, self.learnt], names).value}
