"""Training of a delineator: recordings and masks cut into windows, a new head on the encoder, the stock Trainer."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForTokenClassification,
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.augmentation import sample_between

from ..evaluate_metrics.delineation_scores import NOT_ANNOTATED
from .masks import LABEL_NAMES, annotated_waves, mask_of_waves, num_samples_of

CLASSES = {
    "id2label": dict(enumerate(LABEL_NAMES)),
    "label2id": {name: number for number, name in enumerate(LABEL_NAMES)},
}
STRETCH, MOST_SHIFT, GAIN_STD, MOST_NOISE, FEW_LEADS_CHANCE = 1.2, 0.1, 0.2, 0.2, 0.5


@dataclass(frozen=True)
class DelineationSettings:
    """Settings of the training of a delineator.

    Args:
        frozen (`bool`, *optional*, defaults to `True`): Train the head alone, without stochastic depth.
        max_steps (`int`, *optional*, defaults to 300):
            Steps of a fold; the best of ten looks at its validation fold is kept, by the mean IoU of background, P,
            QRS and T.
        learning_rate (`float`, *optional*):
            Peak after a tenth of the steps; then a cosine. By default 1e-2 for the head alone and 1e-3 for all
            weights.
        batch_size (`int`, *optional*, defaults to 32): Windows in a step.
        weight_decay (`float`, *optional*, defaults to 0.01): Weight decay of matrices.
        altered (`bool`, *optional*, defaults to `False`): Train on altered windows, see [`AlteredWindows`].
        seed (`int`, *optional*, defaults to 0): Seed of the head, the random encoder and the order of the windows.
    """

    frozen: bool = True
    max_steps: int = 300
    learning_rate: float | None = None
    batch_size: int = 32
    weight_decay: float = 0.01
    altered: bool = False
    seed: int = 0

    @property
    def protocol(self) -> str:
        return "delineation_linear" if self.frozen else "delineation_finetuned"

    @property
    def peak_learning_rate(self) -> float:
        return self.learning_rate or (1e-2 if self.frozen else 1e-3)


def masked_windows(
    rows: Sequence[Mapping[str, Any]], feature_extractor: EcgFeatureExtractor, stride: int
) -> list[dict[str, torch.Tensor]]:
    """Windows of some rows of LUDB with the mask of each (`labels`), ready for a model and the stock Trainer.

    `stride` is the number of samples between the starts of windows; the last one ends with the record.
    """
    extractor, windows = windows_of(feature_extractor, stride), []
    for row in rows:
        length = extractor.resampled_length(num_samples_of(row["ecg"]), row["ecg"]["sampling_rate"])
        mask = mask_of_waves(annotated_waves(row, extractor.leads), length)
        masks = torch.from_numpy(crop_mask(mask, extractor.window_starts(length), extractor.num_samples)).long()
        inputs = extractor([row["ecg"]])
        for number, labels in enumerate(masks):
            values = {name: inputs[name][number] for name in ("input_values", "lead_mask") if name in inputs}
            windows.append(values | {"labels": labels})
    return windows


class AlteredWindows(torch.utils.data.Dataset):
    """Windows with the mask of each, drawn anew whenever they are read: up to a fifth faster or slower and moved by up
    to a tenth of their length, with a gain of each lead and white noise; of every second window some leads are shown.

    Samples from outside of a window are 0 and not annotated. `seed` alone decides what a whole training reads.
    """

    def __init__(self, windows: torch.utils.data.Dataset, seed: int):
        self.windows, self.generator = windows, torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        item, generator = self.windows[number], self.generator
        values, labels = item["input_values"], item["labels"]
        num_leads, num_samples = values.shape
        rate, shift, strength, few, share = torch.rand(5, generator=generator).tolist()
        middle = (num_samples - 1) / 2
        steps = torch.arange(num_samples) - middle
        places = middle + (2 * shift - 1) * MOST_SHIFT * num_samples + steps * STRETCH ** (2 * rate - 1)
        outside = (places < 0) | (places > num_samples - 1)
        places = places.clamp(0, num_samples - 1)
        values = sample_between(values[None], places[None, None])[0, 0]
        values = values * torch.exp(GAIN_STD * torch.randn(num_leads, 1, generator=generator))
        values = values + strength * MOST_NOISE * torch.randn(values.shape, generator=generator)
        shown = item.get("lead_mask", torch.ones(num_leads, dtype=torch.bool))
        if few < FEW_LEADS_CHANCE:
            order = torch.rand(num_leads, generator=generator).masked_fill(~shown, 2.0).argsort()
            hidden = torch.ones(num_leads, dtype=torch.bool)
            hidden[order[: 1 + int(share * num_leads)]] = False
            shown = shown & ~hidden
        return {
            "input_values": values.masked_fill(outside, 0.0) * shown[:, None],
            "lead_mask": shown,
            "labels": labels[:, places.round().long()].masked_fill(outside, NOT_ANNOTATED),
        }


def windows_of(feature_extractor: EcgFeatureExtractor, stride: int) -> EcgFeatureExtractor:
    """The feature extractor, cutting all windows of a record at this stride."""
    settings = {"long_records": "all", "window_stride_samples": max(1, stride)}
    return EcgFeatureExtractor(**(feature_extractor.to_dict() | settings))


def crop_mask(mask: np.ndarray, starts: Sequence[int], num_samples: int) -> np.ndarray:
    """Windows `(num_windows, num_leads, num_samples)` of a mask `(num_leads, length)`; what lies beyond its end, where
    the feature extractor pads, is not annotated."""
    missing = max(0, max(starts) + num_samples - mask.shape[1])
    padded = np.pad(mask, ((0, 0), (0, missing)), constant_values=NOT_ANNOTATED)
    return np.stack([padded[:, start : start + num_samples] for start in starts])


def token_classifier(checkpoint: str, settings: DelineationSettings, random_encoder: bool = False) -> PreTrainedModel:
    """The encoder of a checkpoint, or a random one of its configuration, under a new head of four classes.

    The weights depend on checkpoint and seed alone; the global generators are left as they were.
    """
    options = CLASSES | {"num_labels": len(LABEL_NAMES)} | ({"drop_path_rate": 0.0} if settings.frozen else {})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        model = AutoModelForTokenClassification.from_pretrained(
            checkpoint, dtype=torch.float32, ignore_mismatched_sizes=True, **options
        )
        if random_encoder:
            model = type(model)(copy.deepcopy(model.config))
        _new_head(model)
    model.ecg_vit.requires_grad_(not settings.frozen)
    return model


def classifier_of(encoder: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A token classifier with the weights of an encoder and a new head, which depends on the seed alone."""
    config = copy.deepcopy(encoder.config)
    config.update(CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        classifier = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[type(config)](config)
        _new_head(classifier)
    classifier.ecg_vit.load_state_dict(encoder.state_dict())
    return classifier.eval()


def _new_head(model: PreTrainedModel):
    nn.init.normal_(model.token_classifier.weight, std=model.config.initializer_range)
    nn.init.zeros_(model.token_classifier.bias)


def train_delineator(
    model: PreTrainedModel,
    train: torch.utils.data.Dataset,
    validation: Sequence[dict[str, torch.Tensor]] | None,
    settings: DelineationSettings,
) -> dict[str, float]:
    """Trains in place by the stock Trainer; the model ends with the weights that did best on `validation`, without one
    with the last ones.

    Returns:
        `dict` of `best_step` and `validation_miou` (of windows, sample by sample); empty without validation.
    """
    best = KeepBest(model)
    train = AlteredWindows(train, settings.seed) if settings.altered else train
    with tempfile.TemporaryDirectory() as folder:  # the Trainer wants one, and writes nothing there
        args = TrainingArguments(
            output_dir=folder,
            max_steps=settings.max_steps,
            per_device_train_batch_size=min(settings.batch_size, len(train)),
            per_device_eval_batch_size=64,
            dataloader_drop_last=False,
            learning_rate=settings.peak_learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            weight_decay=settings.weight_decay,
            max_grad_norm=1.0,
            seed=settings.seed,
            dataloader_pin_memory=torch.accelerator.is_available(),
            eval_strategy="no" if validation is None else "steps",
            eval_steps=max(1, settings.max_steps // 10),
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=validation,
            compute_metrics=mean_iou,
            preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1).to(torch.int8),
            callbacks=[best],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if validation is None:
        return {}
    model.load_state_dict(best.weights)
    return {"best_step": best.step, "validation_miou": best.score}


class KeepBest(TrainerCallback):
    """Keeps the weights of the look at the validation fold with the highest mean IoU."""

    def __init__(self, model: PreTrainedModel):
        self.model, self.score, self.step, self.weights = model, -1.0, 0, None

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if metrics["eval_miou"] > self.score:
            self.score, self.step = metrics["eval_miou"], state.global_step
            self.weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}


def mean_iou(prediction: EvalPrediction) -> dict[str, float]:
    """`miou` of the annotated samples of all windows together, over the classes that occur."""
    annotated = prediction.label_ids >= 0
    truth, guess = prediction.label_ids[annotated], prediction.predictions[annotated]
    pairs = np.bincount(truth * len(LABEL_NAMES) + guess, minlength=len(LABEL_NAMES) ** 2).reshape(
        len(LABEL_NAMES), -1
    )
    union = pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    return {"miou": float((pairs.diagonal()[union > 0] / union[union > 0]).mean())}
