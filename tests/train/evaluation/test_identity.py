import json
from itertools import permutations

import numpy as np
import pytest
from datasets import Dataset
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_transformers.data import EcgRecord
from ecg_transformers.train.evaluation.identity import (
    RANKS,
    SCORES,
    chance_scores,
    compare_identity,
    compare_matches,
    match_identities,
)

from ..conftest import tiny_encoder

LEADS = ("I", "II")


def people(num_patients=15, seed=0, likeness=1.0, width=6):
    """Features of 1 to 4 records a patient, in mixed order; `likeness` deviations between patients."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), generator.integers(1, 5, num_patients))
    generator.shuffle(patients)
    centres = generator.normal(size=(num_patients, width))
    features = likeness * centres[patients] + generator.normal(size=(len(patients), width))
    return features, [f"p{patient}" for patient in patients], [f"r{row}" for row in range(len(patients))]


def slow_scores(features, patients):
    """The definitions, one query after the other."""
    values, same_pairs, other_pairs = [], [], []
    for query, patient in enumerate(patients):
        gallery = [row for row in range(len(patients)) if row != query]
        if patient not in [patients[row] for row in gallery]:
            continue
        similarity = np.array(
            [
                features[query] @ features[row] / np.linalg.norm(features[query]) / np.linalg.norm(features[row])
                for row in gallery
            ]
        )
        relevant = np.array([patients[row] == patient for row in gallery])
        ranked = relevant[np.argsort(-similarity)]
        first = int(np.flatnonzero(ranked)[0]) + 1
        precision = average_precision_score(relevant, similarity)
        values.append([*(float(first <= rank) for rank in RANKS), 1 / first, precision])
        same_pairs += similarity[relevant].tolist()
        other_pairs += similarity[~relevant].tolist()
    auroc = roc_auc_score([1] * len(same_pairs) + [0] * len(other_pairs), same_pairs + other_pairs)
    return dict(zip(SCORES, [*np.mean(values, axis=0), auroc], strict=True)), len(values)


def identity_scores(*about, num_resamples=10, **options) -> dict:
    return match_identities(*about, **options).summary(num_resamples)


def test_scores_are_those_of_a_slow_search():
    features, patients, ids = people()
    expected, num_queries = slow_scores(features, patients)
    found = identity_scores(features, patients, ids, train_features=None, num_resamples=20)
    assert {name: found[name] for name in SCORES} == pytest.approx(expected)
    assert found["num_queries"] == num_queries and found["num_gallery_records"] == len(ids) - 1
    for name in SCORES:
        low, high = found[f"{name}_ci95"]
        assert low <= found[name] <= high
    assert json.loads(json.dumps(found)) == found


def test_chance_is_the_mean_over_all_orders():
    gallery, relevant = 6, 2
    values = []
    for order in set(permutations([1] * relevant + [0] * (gallery - relevant))):
        first = order.index(1) + 1
        hits = [rank for rank, is_hit in enumerate(order, 1) if is_hit]
        precision = np.mean([number / rank for number, rank in enumerate(hits, 1)])
        values.append([*(first <= rank for rank in RANKS), 1 / first, precision, 0.5])
    assert chance_scores(gallery, np.array([relevant])) == pytest.approx(
        dict(zip(SCORES, np.mean(values, axis=0), strict=True))
    )


def test_chance_holds_for_features_that_know_nobody():
    features, patients, ids = people(num_patients=150, likeness=0.0)
    found = identity_scores(features, patients, ids, train_features=None)
    for name in SCORES:
        assert found[name] == pytest.approx(found["chance"][name], abs=0.04)


def test_a_collapsed_encoder_finds_nobody():
    _, patients, ids = people()
    features = np.tile(np.random.default_rng(0).normal(size=37), (len(ids), 1))
    found = identity_scores(features, patients, ids, train_features=None)
    assert found["recall_at_1"] == 0 and found["pair_auroc"] == 0.5


def test_copies_are_neither_searched_nor_found():
    features, patients, ids = people()
    expected = identity_scores(features, patients, ids, train_features=None)
    singles = [row for row, patient in enumerate(patients) if patients.count(patient) == 1]
    row = singles[0]
    with_copy = (np.vstack([features, features[row]]), [*patients, patients[row]], [*ids, "copy"])
    found = identity_scores(*with_copy, train_features=None, duplicates=[[ids[row], "copy"]])
    assert found == expected | {"num_copies_left_out": 1}
    assert identity_scores(*with_copy, train_features=None)["num_queries"] == expected["num_queries"] + 2


def test_records_without_a_patient_belong_to_nobody():
    features, patients, ids = people()
    unknown = [None if patient == "p0" else patient for patient in patients]
    found = match_identities(features, unknown, ids, train_features=None)
    assert "p0" not in found.patients and len(found.queries) < len(
        match_identities(features, patients, ids, train_features=None).queries
    )
    assert found.num_records == len(ids)


def test_features_are_standardised_by_the_training_split_alone():
    features, patients, ids = people()
    train = np.random.default_rng(1).normal(3, 5, size=(50, features.shape[1]))
    expected, _ = slow_scores((features - train.mean(axis=0)) / train.std(axis=0), patients)
    found = identity_scores(features, patients, ids, train_features=train)
    assert {name: found[name] for name in SCORES} == pytest.approx(expected)


def test_a_patient_is_resampled_with_all_records():
    features, patients, ids = people()
    matches = match_identities(features, patients, ids, train_features=None)
    same_everywhere = match_identities(features, patients, ids, train_features=None)
    assert (matches.resampled(5, 3) == same_everywhere.resampled(5, 3)).all()
    one = [patient if patient == "p1" else None for patient in patients]
    (spread,) = np.ptp(match_identities(features, one, ids, train_features=None).resampled(20, 0), axis=0)[:1]
    assert patients.count("p1") > 1 and spread == 0


def test_an_encoder_that_knows_people_is_told_from_one_that_does_not():
    features, patients, ids = people(num_patients=100, likeness=4.0)
    noise = np.random.default_rng(2).normal(size=features.shape)
    knows, guesses = (match_identities(x, patients, ids, train_features=None) for x in (features, noise))
    difference = compare_matches(knows, guesses, num_resamples=200)
    recalls = [matches.summary(2)["recall_at_1"] for matches in (knows, guesses)]
    assert difference["recall_at_1"] == pytest.approx(recalls[0] - recalls[1])
    assert difference["ci95"][0] > 0 and difference["p_value"] < 0.05
    none = compare_matches(knows, knows, num_resamples=50)
    assert none == {"recall_at_1": 0.0, "ci95": [0.0, 0.0], "p_value": 1.0}
    with pytest.raises(ValueError, match="other records"):
        compare_matches(guesses, match_identities(features[:-9], patients[:-9], ids[:-9], train_features=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patients": [None] * 4}, "patient with two recordings"),
        ({"patients": ["a"] * 4}, "another patient"),
        ({"features": np.full((4, 2), np.nan)}, "NaN"),
        ({"record_ids": ["1"]}, "a patient and an id each"),
    ],
)
def test_what_cannot_be_searched_is_refused(change, message):
    given = {"features": np.eye(4), "patients": ["a", "a", "b", "c"], "record_ids": list("1234")} | change
    with pytest.raises(ValueError, match=message):
        match_identities(**given, train_features=None)


def test_rows_are_embedded_by_both_encoders_and_copies_left_out():
    generator = np.random.default_rng(0)
    rows = []
    for number in range(12):
        signal = generator.normal(0, 300, (2, 200)).astype(np.int16)
        rows.append(
            EcgRecord(f"r{number}", signal, LEADS, 100.0, gain=[0.001] * 2, patient_id=f"p{number % 5}").to_row()
        )
    rows.append(rows[3] | {"record_id": "copy"})
    model, extractor = tiny_encoder(leads=LEADS, num_samples=200, patch_size=20)
    rows = Dataset.from_list(rows)
    report = compare_identity(model, extractor, rows, train_rows=rows.select(range(4)), num_resamples=20)
    assert report["pretrained"]["identity"]["num_queries"] == 12
    assert report["random_encoder"]["identity"]["num_copies_left_out"] == 1
    assert set(report["difference"]["identity"]) == {"recall_at_1", "ci95", "p_value"}
