"""Segment masks drawn together against the law record by record, keys included."""

import numpy as np
import pytest

from ecg_transformers.modeling.masking import (
    DrawKeys,
    sample_published_segment_masks,
    sample_segment_masks,
)

pytestmark = pytest.mark.slow

BATCH = 256


def test_segments_drawn_together_beat_the_law_record_by_record(times_faster):
    random_state = np.random.RandomState(0)

    def together():
        for step in range(4):
            keys = DrawKeys(seed=0, step=step, epoch=0, sample_ids=tuple(range(BATCH)))
            sample_segment_masks(200, (0.75, 0.85), 10, keys.shared("mask"), keys.uniforms("mask"))

    def one_by_one():
        for _ in range(4):
            sample_published_segment_masks(200, (0.15, 0.25), 10, BATCH, random_state)

    assert times_faster(one_by_one, together) >= 12.0
