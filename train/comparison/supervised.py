"""Training an encoder on labels: from scratch, the yardstick of every pretraining, or from a pretrained checkpoint.

All weights are trained; the weights of the step that did best on the validation fold are kept; the test fold is looked
at once, afterwards. Our encoders have no dropout (stochastic depth, `drop_path_rate`, is there): where a published
recipe uses dropout, this one is not the same.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from ecg_transformers.data import EcgDataCollator
from ecg_transformers.modeling.feature_extraction_ecg import EcgFeatureExtractor

from ..inference import predict
from ..metrics import macro_auroc

logger = logging.getLogger("ecg_transformers")


@dataclass(frozen=True)
class SupervisedSettings:
    """Settings of a training on labels: the learning rate has its peak after a tenth of the steps, then falls along a
    cosine; weight decay is that of matrices; the validation fold is looked at `num_selections` times in all
    `records_seen`, and the best step is kept."""

    records_seen: int
    learning_rate: float = 1e-3
    batch_size: int = 64
    weight_decay: float = 0.05
    num_selections: int = 20


class SelectOnValidation(TrainerCallback):
    """Keeps the weights of the step with the best macro AUROC on the validation fold (the first of equals)."""

    def __init__(self, feature_extractor, validation: Dataset, label_names: Sequence[str], every_steps: int):
        self.feature_extractor, self.validation = feature_extractor, validation
        self.label_names, self.every_steps = list(label_names), every_steps
        self.best_score, self.best_step, self.best_weights = -math.inf, 0, None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every_steps and state.global_step != state.max_steps:
            return
        found = predict(model, self.feature_extractor, self.validation, self.label_names)
        score = macro_auroc(found.labels, found.scores, self.label_names).value
        if score > self.best_score:
            self.best_score, self.best_step = score, state.global_step
            self.best_weights = {name: value.detach().clone() for name, value in model.state_dict().items()}


def train_on_labels(
    model: PreTrainedModel,
    feature_extractor: EcgFeatureExtractor,
    train: Dataset,
    validation: Dataset,
    label_names: Sequence[str],
    settings: SupervisedSettings,
    seed: int,
    output_dir: str,
) -> dict[str, float]:
    """Trains a classifier with one output a label, in place; it ends with the weights that did best on `validation`.

    `seed` is that of the order of the records; the Trainer wants an `output_dir` and writes nothing there.

    Returns:
        `dict` of `validation_macro_auroc`, `best_step`, `steps` and `records_seen`.
    """
    batch_size = min(settings.batch_size, len(train))
    max_steps = math.ceil(settings.records_seen / batch_size)
    args = TrainingArguments(
        output_dir=output_dir,
        max_steps=max_steps,
        per_device_train_batch_size=batch_size,
        dataloader_drop_last=True,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        seed=seed,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
        save_strategy="no",
        logging_steps=max(1, max_steps // 10),
        report_to="none",
        disable_tqdm=True,
    )
    label2id = {name: number for number, name in enumerate(label_names)}
    selection = SelectOnValidation(
        feature_extractor, validation, label_names, max(1, max_steps // settings.num_selections)
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=train,
        data_collator=EcgDataCollator(feature_extractor, label2id=label2id),
        callbacks=[selection],
    )
    trainer.train()
    model.load_state_dict(selection.best_weights)
    return {
        "validation_macro_auroc": selection.best_score,
        "best_step": selection.best_step,
        "steps": max_steps,
        "records_seen": max_steps * batch_size,
    }
