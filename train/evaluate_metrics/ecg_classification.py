"""`evaluate.load(...)`-able metric: AUROC, average precision and F1, macro and for each class."""

import datasets
import evaluate
import numpy as np

from ecg_transformers.train.evaluate_metrics.classification_scores import classification_scores

_INPUTS = """
Args:
    predictions: probabilities, shape (num_records, num_labels).
    references: 0 and 1 of shape (num_records, num_labels), or the class of each record, shape (num_records,).
    label_names, validation_labels, validation_probabilities, min_positives:
        see `ecg_transformers.train.evaluate_metrics.classification_scores.classification_scores`.
"""


class EcgClassification(evaluate.Metric):
    """Multi-label and single-label classification; see `classification_scores` for arguments and what it returns."""

    def _info(self):
        scores = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description="Macro and per-class AUROC, average precision and F1 of ECG classification.",
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": scores, "references": datasets.Sequence(datasets.Value("float64"))}),
                datasets.Features({"predictions": scores, "references": datasets.Value("int64")}),
            ],
        )

    def _compute(self, predictions, references, **options):
        return classification_scores(np.asarray(references), np.asarray(predictions), **options)
