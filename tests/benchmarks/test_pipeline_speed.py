"""Ratio of the CPU time of `pipeline("ecg-classification")` to that of the forward pass alone."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, pipeline

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.train.settings import read_config, split_settings

pytestmark = pytest.mark.slow


def test_a_pipeline_takes_little_longer_than_the_forward_pass_of_a_classifier(times_faster):
    """Of the preset `kim_cpu`, which takes 6 ms a recording on one core."""
    model_type, fields, settings, _ = split_settings(read_config("kim_cpu"))
    head = {"num_labels": 5, "problem_type": "multi_label_classification"}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(model_type, **fields, **head)).eval()
    model.config.architectures = [type(model).__name__]
    extractor = EcgFeatureExtractor(**settings)
    classify = pipeline("ecg-classification", model=model, feature_extractor=extractor)
    recordings = [row["ecg"] for row in load_ecg("ptb-xl-sample", decode=False).select(range(64))]
    inputs = dict(extractor(recordings))

    def forward():
        with torch.inference_mode():
            model(**inputs)

    assert times_faster(lambda: list(classify(recordings, batch_size=64)), forward, rounds=9) <= 1.35
