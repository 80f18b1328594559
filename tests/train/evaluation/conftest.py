"""A task of few carried recordings and two encoders small enough for a test."""

from dataclasses import replace

import numpy as np
import pytest

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.train.evaluation.protocols import embed_splits
from ecg_transformers.train.evaluation.settings import EncoderPair
from ecg_transformers.train.features import random_encoder_like
from ecg_transformers.train.tasks.labelled_splits import load_labelled_splits

from ..conftest import tiny_encoder

EIGHT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(scope="session")
def few_splits():
    """Recordings of one fold as three splits: 28, 16 and 16 of different patients, NORM or not."""
    splits = load_labelled_splits("ptb-xl-sample")
    _, first = np.unique(splits.train["patient_id"], return_index=True)
    rows = splits.train.select(np.sort(first)[:60])
    parts = {"train": range(28), "validation": range(28, 44), "test": range(44, 60)}
    return replace(splits, **{name: rows.select(part) for name, part in parts.items()}, label_names=("NORM",))


@pytest.fixture(scope="session")
def tiny_extractor():
    return EcgFeatureExtractor(leads=EIGHT_LEADS, sampling_rate=100, num_samples=500)


@pytest.fixture(scope="session")
def tiny_encoders():
    model, _ = tiny_encoder(leads=EIGHT_LEADS)
    return {"pretrained": model, "random_encoder": random_encoder_like(model, seed=1)}


@pytest.fixture(scope="session")
def tiny_pair(few_splits, tiny_extractor, tiny_encoders):
    """An [`EncoderPair`] of which nothing is learned but by the probe."""
    tables = {name: embed_splits(model, tiny_extractor, few_splits) for name, model in tiny_encoders.items()}
    return EncoderPair(tiny_encoders, tiny_extractor, few_splits, tables, num_resamples=50)
