import csv

import numpy as np
import pytest

from ecg_transformers.data.corpora.cinc_snomed import snomed_label_names
from ecg_transformers.train.evaluate_metrics.challenge_scores import challenge_scores, challenge_weights

CLASSES, WEIGHTS = challenge_weights()
NSR = CLASSES.index("NSR")


def random_labels(num_records=60, prevalence=0.08, seed=0):
    return (np.random.default_rng(seed).random((num_records, 26)) < prevalence).astype(int)


def only_sinus_rhythm(num_records):
    outputs = np.zeros((num_records, 26), dtype=int)
    outputs[:, NSR] = 1
    return outputs


def challenge_slowly(labels, outputs):
    """From the formula: weights times credit, between the inactive and the perfect classifier."""

    def total(said):
        credit = 0.0
        for record in range(len(labels)):
            true = {j for j in range(26) if labels[record][j]}
            put_out = {k for k in range(26) if said[record][k]}
            for j in true:
                for k in put_out:
                    credit += WEIGHTS[j, k] / max(len(true | put_out), 1)
        return credit

    inactive = total(only_sinus_rhythm(len(labels)))
    return (total(outputs) - inactive) / (total(labels) - inactive)


def test_the_classes_are_those_of_the_corpora_in_their_order():
    assert CLASSES == snomed_label_names("scored")


def test_the_weights_give_full_credit_to_the_true_class_alone():
    assert WEIGHTS.shape == (26, 26)
    assert (np.diag(WEIGHTS) == 1).all() and WEIGHTS[~np.eye(26, dtype=bool)].max() == 0.5
    assert (WEIGHTS == WEIGHTS.T).all()


def test_the_weights_are_those_that_the_challenge_published(shared_data_dir):
    with open(shared_data_dir / "metadata" / "cinc2021" / "weights.csv", newline="") as file:
        published = np.array([row[1:] for row in list(csv.reader(file))[1:]], dtype=float)
    assert (published == WEIGHTS).all()


@pytest.mark.parametrize("prevalence", [0.02, 0.1, 0.5])
def test_the_metric_equals_a_slow_manual_version_on_random_outputs(prevalence):
    labels, outputs = random_labels(seed=1), random_labels(prevalence=prevalence, seed=2)
    assert challenge_scores(labels, outputs)["challenge_metric"] == pytest.approx(challenge_slowly(labels, outputs))


def test_the_perfect_classifier_scores_one():
    labels = random_labels()
    assert challenge_scores(labels, labels)["challenge_metric"] == pytest.approx(1)


def test_the_inactive_classifier_scores_zero():
    labels = random_labels()
    assert challenge_scores(labels, only_sinus_rhythm(len(labels)))["challenge_metric"] == 0


def test_silence_scores_below_the_inactive_classifier():
    labels = random_labels()
    assert challenge_scores(labels, np.zeros_like(labels))["challenge_metric"] < 0


def test_a_confused_class_earns_its_weight():
    labels, outputs = np.zeros((1, 26)), np.zeros((1, 26))
    labels[0, CLASSES.index("AF")] = outputs[0, CLASSES.index("AFL")] = 1
    assert challenge_scores(labels, outputs)["observed"] == 0.5 / 2  # two classes are true or put out


def test_columns_in_another_order_give_the_same():
    labels, outputs = random_labels(seed=1), random_labels(seed=2)
    order = np.random.default_rng(0).permutation(26)
    moved = challenge_scores(labels[:, order], outputs[:, order], [CLASSES[i] for i in order])
    assert moved["challenge_metric"] == pytest.approx(challenge_scores(labels, outputs)["challenge_metric"])


def test_missing_classes_are_refused():
    labels = random_labels()
    with pytest.raises(ValueError, match="26 scored classes"):
        challenge_scores(labels[:, :9], labels[:, :9], CLASSES[:9])


def test_probabilities_are_refused():
    labels = random_labels()
    with pytest.raises(ValueError, match="outputs of 0 and 1"):
        challenge_scores(labels, labels * 0.7)


def test_a_set_of_sinus_rhythms_alone_is_refused():
    with pytest.raises(ValueError, match="other than sinus rhythm"):
        challenge_scores(only_sinus_rhythm(5), only_sinus_rhythm(5))
