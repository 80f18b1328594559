"""`evaluate.load(...)`-able metric: calibration error, Brier score, and both after temperature scaling."""

import datasets
import evaluate
import numpy as np

from ecg_transformers.train.evaluate_metrics.calibration_scores import calibration_scores

_INPUTS = """
Args:
    predictions: logits, shape (num_records, num_labels).
    references: 0 and 1 of shape (num_records, num_labels), or the class of each record, shape (num_records,).
    label_names, validation_labels, validation_logits, num_bins, min_positives:
        see `ecg_transformers.train.evaluate_metrics.calibration_scores.calibration_scores`.
"""
_CITATION = "Guo C, Pleiss G, Sun Y, Weinberger KQ. On Calibration of Modern Neural Networks. ICML 2017."


class Calibration(evaluate.Metric):
    """Calibration of logits; see `calibration_scores` for arguments and what it returns."""

    def _info(self):
        logits = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description="Expected calibration error, Brier score and temperature scaling.",
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": logits, "references": datasets.Sequence(datasets.Value("float64"))}),
                datasets.Features({"predictions": logits, "references": datasets.Value("int64")}),
            ],
        )

    def _compute(self, predictions, references, **options):
        return calibration_scores(np.asarray(references), np.asarray(predictions), **options)
