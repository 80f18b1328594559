"""Delineation of P, QRS and T on LUDB: a head on the encoder, five folds of subjects, scored the field's way.

Protocols are `delineation_linear` (frozen encoder, one linear map of each token) and `delineation_finetuned` (all
weights). Each fold of LUDB tests once, the next one selects the step, the other three teach. The same is done with a
random encoder of the same configuration; fine-tuned, that is supervised training from scratch.

Records are cut into windows as the feature extractor cuts them, overlapping by three quarters in training and by half
in prediction, where probabilities are averaged. LUDB is small: all windows are made once and kept in memory.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, AutoFeatureExtractor, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ecg_transformers.data.records import EcgRecord
from ecg_transformers.modeling import EcgFeatureExtractor

from ..inference import in_evaluation, input_batches, outputs_of
from ..patients import refuse_shared_patients
from ..results import write_json
from .masks import LABEL_NAMES, RecordWaves, annotated_waves, subject_of, waves_of_mask
from .scores import WaveCounts, compare_waves, count_waves, score_waves, write_waves
from .training import (
    DelineationSettings,
    classifier_of,
    masked_windows,
    token_classifier,
    train_delineator,
    windows_of,
)

logger = logging.getLogger("ecg_transformers")

NUM_FOLDS = 5
RECORDS_AT_ONCE, WINDOWS_AT_ONCE = 16, 64


@torch.inference_mode()
def delineate(
    model: PreTrainedModel,
    feature_extractor: EcgFeatureExtractor,
    rows: Sequence[Mapping[str, Any]],
    left_out: dict[str, str] | None = None,
) -> list[RecordWaves]:
    """The waves that a trained delineator sees in any recordings, in the leads that these and the model have.

    Windows overlap by half; their probabilities are averaged, each sample gets the likeliest class, and
    [`~masks.waves_of_mask`] makes waves of the runs. Waves count samples of the recording.

    Args:
        model ([`PreTrainedModel`]): A token classifier of background, P, QRS and T.
        feature_extractor ([`EcgFeatureExtractor`]): Its input contract.
        rows (`Sequence[Mapping]`): Rows of [`load_ecg`] of any corpus, stored or decoded.
        left_out (`dict`, *optional*):
            Gets id and reason of records that cannot become input; without it, these are an error.
    """
    extractor = windows_of(feature_extractor, feature_extractor.num_samples // 2)
    found = []
    with in_evaluation(model):
        for batch in input_batches(model, extractor, rows, RECORDS_AT_ONCE, "Waves", False, left_out, needs_all=True):
            probabilities = outputs_of(model, batch.inputs, "logits", WINDOWS_AT_ONCE).softmax(dim=-1).numpy()
            if probabilities.shape[-1] != len(LABEL_NAMES):
                classes = probabilities.shape[-1]
                raise ValueError(f"Expected a model of the classes {list(LABEL_NAMES)}, got one of {classes}.")
            for number, row in enumerate(batch.rows):
                record = EcgRecord.from_row(row)
                num_samples = record.signal.shape[1]
                length = extractor.resampled_length(num_samples, record.sampling_rate)
                of_record = probabilities[batch.window_record.numpy() == number]
                mask = _join(of_record, extractor.window_starts(length), length)
                leads = tuple(lead for lead in extractor.leads if lead in record.leads)
                mask = mask[[extractor.leads.index(lead) for lead in leads]]
                signal = record.to_millivolts()[[record.leads.index(lead) for lead in leads]]
                waves = waves_of_mask(mask, signal, leads, record.sampling_rate)
                facts = (row["record_id"], subject_of(row), float(record.sampling_rate), num_samples)
                found.append(RecordWaves(*facts, leads, waves))
    return found


def _join(windows: np.ndarray, starts: Sequence[int], length: int) -> np.ndarray:
    """The likeliest class of every sample, `(num_leads, length)`, of window probabilities `(num_windows, num_leads,
    num_samples, num_labels)`."""
    num_samples = windows.shape[2]
    total = np.zeros((windows.shape[1], max(length, num_samples), windows.shape[3]), dtype=np.float32)
    count = np.zeros((1, total.shape[1], 1), dtype=np.float32)
    for window, start in zip(windows, starts, strict=True):
        total[:, start : start + num_samples] += window
        count[:, start : start + num_samples] += 1
    return (total / count)[:, :length].argmax(axis=-1)


def subject_folds(rows: Dataset) -> dict[int, Dataset]:
    """The rows of LUDB's folds 1 to 5.

    Raises:
        ValueError: for a fold without records, or a subject with records in two folds.
    """
    of_row = rows["fold"][:]
    folds = {
        fold: rows.select([number for number, its_fold in enumerate(of_row) if its_fold == fold])
        for fold in range(1, NUM_FOLDS + 1)
    }
    empty = [fold for fold, of_fold in folds.items() if not len(of_fold)]
    if empty:
        raise ValueError(f"Expected records in all of the folds 1 to {NUM_FOLDS}, the folds {empty} have none.")
    refuse_shared_patients({f"fold {fold}": of_fold for fold, of_fold in folds.items()})
    return folds


def evaluate_delineation(
    checkpoint: str,
    rows: Dataset,
    output_dir: str | Path,
    frozen: bool = True,
    num_folds: int = NUM_FOLDS,
    extractor_settings: Mapping[str, Any] | None = None,
    num_resamples: int = 1000,
    **training,
) -> dict:
    """Trains and tests delineators of an encoder, and of a random one of its configuration, on LUDB.

    Args:
        checkpoint (`str`): Folder or id of a model of this library, with its feature extractor.
        rows (`Dataset`): All records of LUDB, `load_ecg("ludb", data_dir=..., split="all", decode=False)`.
        output_dir (`str` or `Path`):
            Gets `<protocol>.json`, `<protocol>_waves.parquet`, and as `<protocol>_delineator` the model (with its
            feature extractor) that tests fold 1, for [`delineate`].
        frozen (`bool`, *optional*, defaults to `True`): `delineation_linear`; else `delineation_finetuned`.
        num_folds (`int`, *optional*, defaults to 5): Number of folds that test; fewer for a quick look.
        extractor_settings (`Mapping`, *optional*):
            Settings that differ from the checkpoint's feature extractor. A model of z-scores without unit refuses
            recordings in mV: for it, state how they become z-scores (`unit="mV"`, `normalization="lead"`, ...).
        training: Fields of [`DelineationSettings`].

    Returns:
        `dict`: `random_encoder.<protocol>` and `pretrained.<protocol>` as [`score_waves`] writes them, with `details`
        of the training of each fold, and `difference.<protocol>` (`miou`, `miou_waves`; pretrained minus random).
    """
    if not 1 <= num_folds <= NUM_FOLDS:
        raise ValueError(f"Expected num_folds from 1 to {NUM_FOLDS}, got {num_folds}.")
    settings, folder = DelineationSettings(frozen=frozen, **training), Path(output_dir)
    protocol = settings.protocol
    stored = AutoFeatureExtractor.from_pretrained(checkpoint)
    feature_extractor = EcgFeatureExtractor(**(stored.to_dict() | dict(extractor_settings or {})))
    folds = subject_folds(rows)
    windows = windows_of_folds(folds, feature_extractor)
    predictions, counts, result = {}, {}, {}
    for encoder in ("random_encoder", "pretrained"):
        references, predictions[encoder], trainings = [], [], []
        for test in range(1, num_folds + 1):
            model = token_classifier(checkpoint, settings, random_encoder=encoder == "random_encoder")
            facts = train_for_fold(model, windows, test, settings)
            references += [annotated_waves(row) for row in folds[test]]
            predictions[encoder] += delineate(model, feature_extractor, folds[test])
            if encoder == "pretrained" and test == 1:
                for part in (model, feature_extractor):
                    part.save_pretrained(folder / f"{protocol}_delineator")
            trainings.append(facts)
            logger.info("%s of %s, fold %d: %s", protocol, encoder, test, facts)
        counts[encoder] = count_waves(references, predictions[encoder])
        details = {
            "folds": trainings,
            "settings": asdict(settings) | {"learning_rate": settings.peak_learning_rate},
            "leads": list(feature_extractor.leads),
            "sampling_rate": feature_extractor.sampling_rate,
            "sample_ms": 1000 / feature_extractor.sampling_rate,
            "window_seconds": feature_extractor.num_samples / feature_extractor.sampling_rate,
        }
        result[encoder] = {protocol: score_waves(counts[encoder], num_resamples, settings.seed) | {"details": details}}
    difference = compare_waves(counts["pretrained"], counts["random_encoder"], num_resamples, settings.seed)
    result["difference"] = {protocol: difference}
    write_json(result, folder / f"{protocol}.json")
    write_waves(predictions, folder / f"{protocol}_waves.parquet")
    return result


def windows_of_folds(folds: Mapping[int, Dataset], feature_extractor: EcgFeatureExtractor) -> dict[int, list[dict]]:
    stride = feature_extractor.num_samples // 4
    return {fold: masked_windows(of_fold, feature_extractor, stride) for fold, of_fold in folds.items()}


def train_for_fold(
    model: PreTrainedModel, windows: Mapping[int, list[dict]], test: int, settings: DelineationSettings
) -> dict[str, Any]:
    """Trains a token classifier for a fold that tests: the next fold selects the step, the other three teach."""
    validation = test % NUM_FOLDS + 1
    taught = [fold for fold in windows if fold not in (test, validation)]
    train = torch.utils.data.ConcatDataset([windows[fold] for fold in taught])
    facts = train_delineator(model, train, windows[validation], settings)
    return {"test": test, "validation": validation, "train": taught, **facts}


class StoredTokens(nn.Module):
    """Stands in for an encoder: its input are the tokens."""

    def forward(self, input_values: torch.Tensor, **kwargs) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=input_values)


def linear_wave_counts(
    model: PreTrainedModel, feature_extractor: EcgFeatureExtractor, rows: Dataset, settings: DelineationSettings
) -> WaveCounts:
    """Counts of the protocol `delineation_linear` for an encoder in memory, which sees each window of LUDB once: its
    tokens are stored, to compare many encoders.

    Raises:
        ValueError: for an encoder whose tokens do not stand for stretches of time.
    """
    if type(model.config) not in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        raise ValueError(f"{type(model).__name__} has no tokens that stand for stretches of time: no waves to find.")
    folds = subject_folds(rows)
    windows = windows_of_folds(folds, feature_extractor)
    with in_evaluation(model), torch.inference_mode():
        for of_fold in windows.values():
            for start in range(0, len(of_fold), WINDOWS_AT_ONCE):
                items = of_fold[start : start + WINDOWS_AT_ONCE]
                batch = {name: torch.stack([item[name] for item in items]) for name in items[0] if name != "labels"}
                for item, tokens in zip(items, model(**batch).last_hidden_state, strict=True):
                    item["input_values"] = tokens.clone()
    references, found = [], []
    for test in folds:
        classifier = classifier_of(model, settings.seed)
        encoder, classifier.ecg_vit = classifier.ecg_vit, StoredTokens()
        train_for_fold(classifier, windows, test, settings)
        classifier.ecg_vit = encoder
        references += [annotated_waves(row) for row in folds[test]]
        found += delineate(classifier, feature_extractor, folds[test])
    return count_waves(references, found)
