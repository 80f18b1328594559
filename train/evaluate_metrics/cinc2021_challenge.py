"""`evaluate.load(...)`-able metric: the challenge metric of PhysioNet/CinC 2021."""

import datasets
import evaluate
import numpy as np

from ecg_transformers.train.evaluate_metrics.challenge_scores import challenge_scores

_INPUTS = """
Args:
    predictions: 0 and 1, shape (num_records, 26).
    references: 0 and 1, shape (num_records, 26).
    label_names: the 26 scored classes in the order of the columns; by default that of the challenge's table.
"""
_CITATION = (
    "Reyna MA, Sadr N, Perez Alday EA, et al. Will Two Do? Varying Dimensions in Electrocardiography: The "
    "PhysioNet/Computing in Cardiology Challenge 2021. Computing in Cardiology 2021;48:1-4."
)


class Cinc2021Challenge(evaluate.Metric):
    """The challenge metric; see `challenge_scores` for arguments and what it returns."""

    def _info(self):
        classes = datasets.Sequence(datasets.Value("float64"))  # as int64, probabilities would be cut off unseen
        return evaluate.MetricInfo(
            description="The metric of the PhysioNet/CinC Challenge 2021 with its official weights.",
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": classes, "references": classes}),
        )

    def _compute(self, predictions, references, label_names=None):
        return challenge_scores(np.asarray(references), np.asarray(predictions), label_names)
