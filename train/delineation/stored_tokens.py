"""The protocol `delineation_linear` of an encoder in memory, whose tokens are computed once, to compare many encoders.

The head, its training and the five folds of LUDB are those of [`~ecg_transformers.train.delineation.evaluation`]; what
differs is that the frozen encoder sees each window once, and that fewer steps are taken.
"""

import copy

import torch
from datasets import Dataset
from torch import nn
from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ecg_transformers.modeling import EcgFeatureExtractor

from ..inference import in_evaluation
from .evaluation import NUM_FOLDS, WINDOWS_AT_ONCE, delineate, subject_folds
from .masks import LABEL_NAMES, annotated_waves
from .scores import WaveCounts, count_waves
from .training import DelineationSettings, MaskedWindows, train_delineator


class StoredTokens(nn.Module):
    """Stands in for an encoder: its input are the tokens."""

    def forward(self, input_values: torch.Tensor, **kwargs) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=input_values)


def linear_wave_counts(
    model: PreTrainedModel, feature_extractor: EcgFeatureExtractor, rows: Dataset, settings: DelineationSettings
) -> WaveCounts:
    """Trains a linear map of frozen tokens in each of the five folds, and counts what it finds in the tested fold.

    Args:
        model ([`PreTrainedModel`]): An encoder with tokens on a grid of leads and time.
        feature_extractor ([`EcgFeatureExtractor`]): Its input contract, for recordings in mV.
        rows (`Dataset`): All rows of LUDB.
        settings ([`DelineationSettings`]): Of the head.

    Raises:
        ValueError: for an encoder whose tokens do not stand for stretches of time.
    """
    if type(model.config) not in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        raise ValueError(f"{type(model).__name__} has no tokens that stand for stretches of time: no waves to find.")
    folds = subject_folds(rows)
    stride = feature_extractor.num_samples // 4
    windows = {fold: MaskedWindows(of_fold, feature_extractor, stride) for fold, of_fold in folds.items()}
    with in_evaluation(model):
        for of_fold in windows.values():
            _replace_by_tokens(model, of_fold)
    references, found = [], []
    for test in folds:
        validation = test % NUM_FOLDS + 1
        classifier = _classifier(model, settings.seed)
        encoder, classifier.ecg_vit = classifier.ecg_vit, StoredTokens()
        taught = [windows[fold] for fold in folds if fold not in (test, validation)]
        train_delineator(classifier, torch.utils.data.ConcatDataset(taught), windows[validation], settings)
        classifier.ecg_vit = encoder
        references += [annotated_waves(row) for row in folds[test]]
        found += delineate(classifier, feature_extractor, folds[test])
    return count_waves(references, found)


@torch.inference_mode()
def _replace_by_tokens(model: PreTrainedModel, windows: MaskedWindows) -> None:
    """Puts the tokens of each window in place of its signal."""
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        items = windows.items[start : start + WINDOWS_AT_ONCE]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0] if name != "labels"}
        tokens = model(**batch).last_hidden_state
        for item, of_window in zip(items, tokens, strict=True):
            item["input_values"] = of_window.clone()


def _classifier(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A token classifier with the weights of an encoder and a new head, which depends on the seed alone."""
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(LABEL_NAMES))
    config.label2id = {name: number for number, name in enumerate(LABEL_NAMES)}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        classifier = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[type(config)](config)
        nn.init.normal_(classifier.token_classifier.weight, std=config.initializer_range)
        nn.init.zeros_(classifier.token_classifier.bias)
    classifier.ecg_vit.load_state_dict(model.state_dict())
    return classifier.eval()
