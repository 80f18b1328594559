"""Uses the names of the top level as a program does. A type checker reads this file (`.ci/run`); nothing runs it."""

from typing import assert_type

import numpy as np
from transformers import BatchFeature, EvalPrediction

from ecg_transformers import (
    EcgDataCollator,
    EcgFeatureExtractor,
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgSslTrainer,
    EcgViTConfig,
    EcgViTModel,
    SslTrainingArguments,
    __version__,
    compute_metrics,
    explain_recording,
    load_ecg,
    read_recording,
    register,
)
from ecg_transformers.data import EcgRecord
from ecg_transformers.train.explain.recordings import Explanation

register()
assert_type(__version__, str)
assert_type(read_recording("recording.csv", sampling_rate=500, unit="mV"), EcgRecord)
feature_extractor = EcgFeatureExtractor(sampling_rate=100, num_samples=500)
inputs = feature_extractor(np.zeros((2, 500)), sampling_rate=100, leads=["I", "II"], unit="mV")
assert_type(inputs, BatchFeature)
model = EcgViTModel(EcgViTConfig(hidden_size=64))
assert_type(explain_recording(model, feature_extractor, load_ecg("ptb-xl-sample")[0]), Explanation)
collator = EcgDataCollator(feature_extractor, label2id={"NORM": 0})
assert_type(compute_metrics(EvalPrediction(np.zeros((2, 1)), np.array([[0], [1]]))), dict[str, float])
trainer = EcgSslTrainer(
    model=EcgJepaForPreTraining(EcgJepaConfig()),
    args=SslTrainingArguments("run", max_steps=1),
    processing_class=feature_extractor,
)
trainer.train()
