"""Ratio of CPU time of segment masks drawn together against the law record by record, keys included."""

import statistics
import time

import numpy as np
import pytest
import torch

from ecg_transformers.modeling.masking import (
    DrawKeys,
    sample_published_segment_masks,
    sample_segment_masks,
)

pytestmark = pytest.mark.slow

BATCH = 256


def seconds(function):
    started = time.process_time()
    for step in range(4):
        function(step)
    return time.process_time() - started


def test_segments_drawn_together_beat_the_law_record_by_record(record_property):
    torch.set_num_threads(1)
    random_state = np.random.RandomState(0)

    def together(step):
        keys = DrawKeys(seed=0, step=step, epoch=0, sample_ids=tuple(range(BATCH)))
        sample_segment_masks(200, (0.75, 0.85), 10, keys.shared("mask"), keys.uniforms("mask"))

    def one_by_one(step):
        sample_published_segment_masks(200, (0.15, 0.25), 10, BATCH, random_state)

    ratio = statistics.median(seconds(one_by_one) / seconds(together) for _ in range(7))
    record_property("ratio", round(ratio, 2))
    assert ratio >= 12.0
