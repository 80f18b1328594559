"""The common tests of `transformers` for feature extractors on ours."""

import unittest

import numpy as np
import pytest

from ecg_transformers.modeling import EcgFeatureExtractor

from .transformers_suite import FeatureExtractorTests

pytestmark = pytest.mark.slow


class EcgFeatureExtractorTester:
    batch_size = 4
    min_seq_length = 40
    max_seq_length = 100
    seq_length_diff = 20
    feature_size = 3

    def prepare_feat_extract_dict(self) -> dict:
        return {"leads": ["I", "II", "V1"], "sampling_rate": 100, "num_samples": 40, "normalization": "lead"}

    def prepare_inputs_for_common(self, equal_length: bool = False, numpify: bool = False) -> list:
        """Time x leads, as the common tests have it."""
        lengths = range(self.min_seq_length, self.max_seq_length + 1, self.seq_length_diff)
        lengths = [self.max_seq_length] * self.batch_size if equal_length else lengths
        signals = [np.random.default_rng(0).normal(size=(length, self.feature_size)) for length in lengths]
        return signals if numpify else [signal.tolist() for signal in signals]


class EcgFeatureExtractionTest(FeatureExtractorTests, unittest.TestCase):
    feature_extraction_class = EcgFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = EcgFeatureExtractorTester()
