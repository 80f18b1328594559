"""`evaluate.load(...)`-able metric: P, QRS and T delineation, from points or from sample-wise masks."""

import datasets
import evaluate
import numpy as np

from ecg_transformers.train.evaluate_metrics.delineation_scores import POINTS, delineation_scores, mask_scores

CONFIGS = ("default", "masks")
_INPUTS = """
Args:
    predictions, references: one row for each lead of each recording.
        By default a dict of nine lists of samples (P_onset, P_peak, P_offset, QRS_onset, ..., T_offset).
        With config_name="masks", 0 background, 1 P, 2 QRS, 3 T, in references -1 where not annotated; shape
        (num_rows, num_samples).
    sampling_rate: samples per second.
    tolerance_ms: 150 by default.
    points: of lists of samples, which points to score; all nine by default.
"""
_CITATION = (
    "Kalyakulina AI, Yusipov II, Moskalenko VA, et al. LUDB: A New Open-Access Validation Tool for Electrocardiogram "
    "Delineation Algorithms. IEEE Access 2020;8:186181."
)


class Delineation(evaluate.Metric):
    """Delineation; see `delineation_scores` and `mask_scores` for arguments and what they return."""

    def _info(self):
        if self.config_name not in CONFIGS:
            raise ValueError(f"Expected config_name among {list(CONFIGS)}, got {self.config_name!r}.")
        samples = datasets.Sequence(datasets.Value("int64"))
        row = samples if self.config_name == "masks" else dict.fromkeys(POINTS, samples)
        return evaluate.MetricInfo(
            description="Sensitivity, PPV and error of P, QRS and T onsets, peaks and offsets, and mIoU of masks.",
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, predictions, references, sampling_rate, **options):
        if self.config_name == "masks":
            return mask_scores(np.asarray(references), np.asarray(predictions), sampling_rate, **options)
        return delineation_scores(references, predictions, sampling_rate, **options)
