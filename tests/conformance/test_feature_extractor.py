"""The common tests of `transformers` for feature extractors on ours."""

import unittest

import pytest

from ecg_transformers.modeling import EcgFeatureExtractor

from .transformers_suite import FeatureExtractorTests

pytestmark = pytest.mark.slow


class EcgFeatureExtractionTest(FeatureExtractorTests, unittest.TestCase):
    feature_extraction_class = EcgFeatureExtractor
    feat_extract_dict = {"leads": ["I", "II", "V1"], "sampling_rate": 100, "num_samples": 40, "normalization": "lead"}
