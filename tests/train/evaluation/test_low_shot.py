from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_transformers.train.evaluation import settings as module
from ecg_transformers.train.evaluation.low_shot import draw_low_shot
from ecg_transformers.train.evaluation.protocols import FrozenTables, linear_protocol
from ecg_transformers.train.evaluation.settings import EncoderPair, low_shot
from ecg_transformers.train.features import EmbeddingTable
from ecg_transformers.train.metrics import macro_auroc
from ecg_transformers.train.predictions import compare_results
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL

NAMES = ("A", "B", "C")
probe = partial(linear_protocol, C=0.1)


@pytest.fixture
def one_C(monkeypatch):
    """Five times faster than to choose it."""
    monkeypatch.setattr(module, "linear_protocol", probe)


def task(rates=(0.5, 0.3, 0.15), sizes=(300, 80, 60), signal=1.0, seed=0):
    """Random multi-hot truth of three splits, one record a patient, and features `signal` deviations apart."""
    generator = np.random.default_rng(seed)
    tables, truth = {}, {}
    for split, size in zip(("train", "validation", "test"), sizes, strict=True):
        truth[split] = (generator.random((size, len(rates))) < rates).astype(np.int8)
        features = generator.normal(size=(size, 6)).astype(np.float32)
        features[:, : len(rates)] += signal * truth[split]
        ids = [f"{split}{number}" for number in range(size)]
        tables[split] = EmbeddingTable(features, ids, ids, [[]] * size, [None] * size)
    return FrozenTables(tables, truth, NAMES[: len(rates)], MULTI_LABEL)


def both(signal=1.0, **options):
    """Tables of an encoder that knows something, and of one that knows nothing, of the same records."""
    return {"pretrained": task(signal=signal, **options), "random_encoder": task(signal=0.0, **options)}


def pair(tables, num_resamples=20, seed=0):
    return EncoderPair(tables, None, None, tables, num_resamples=num_resamples, seed=seed)


labels_and_patients = st.integers(1, 60).flatmap(
    lambda size: st.tuples(
        st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=size, max_size=size),
        st.lists(st.integers(0, 25), min_size=size, max_size=size),
    )
)


@settings(max_examples=25, deadline=None)
@given(labels_and_patients, st.floats(0.01, 1.0), st.integers(0, 3))
def test_draws_have_their_size_and_one_record_a_patient_while_there_are_enough(drawn, fraction, seed):
    labels, patients = np.array(drawn[0], dtype=int), drawn[1]
    size = max(1, round(fraction * len(labels)))
    draws = draw_low_shot(labels, patients, fraction, num_draws=2, seed=seed)
    for rows in draws:
        assert len(rows) == size and (np.diff(rows) > 0).all() and rows.min() >= 0 and rows.max() < len(labels)
        people = {patients[row] for row in rows}
        assert len(people) == size if len(set(patients)) >= size else len(people) <= size
    again = draw_low_shot(labels, patients, fraction, num_draws=3, seed=seed)
    for rows, repeated in zip(draws, again, strict=False):
        np.testing.assert_array_equal(rows, repeated)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.floats(0.05, 0.5), st.integers(0, 3))
def test_every_label_has_a_positive_where_there_are_as_many_records_as_labels(counts, fraction, seed):
    labels = np.repeat(np.eye(len(counts), dtype=int), counts, axis=0)  # one label a record
    (rows,) = draw_low_shot(labels, range(len(labels)), fraction, num_draws=1, seed=seed)
    found = labels[rows].sum(axis=0)
    assert (found > 0).all() if len(rows) >= len(counts) else found.max() == 1


def test_labels_keep_their_share_and_the_rarest_its_only_positive():
    generator = np.random.default_rng(0)
    labels = (generator.random((2000, 5)) < (0.5, 0.3, 0.1, 0.05, 0.0)).astype(int)
    labels[7, 4] = 1
    for rows in draw_low_shot(labels, range(2000), 0.1, num_draws=5):
        shares = labels[rows].mean(axis=0)
        np.testing.assert_allclose(shares[:4], labels.mean(axis=0)[:4], atol=0.011)  # by lot alone: sd 0.03
        assert labels[rows, 4].sum() == 1


def test_a_label_of_nearly_all_records_leaves_room_for_one_without_it():
    labels = np.array([[1]] * 26 + [[0]] * 2)
    for rows in draw_low_shot(labels, range(28), 0.1, num_draws=5):
        assert labels[rows].sum() == 2 and len(rows) == 3


def test_draws_differ_from_each_other_and_between_seeds():
    labels = (np.random.default_rng(0).random((400, 3)) < 0.4).astype(int)
    draws = draw_low_shot(labels, range(400), 0.1, num_draws=5) + draw_low_shot(labels, range(400), 0.1, 1, seed=1)
    assert len({tuple(rows) for rows in draws}) == 6


def test_no_exchange_of_one_record_would_bring_in_another_label():
    generator = np.random.default_rng(0)
    for seed in range(40):
        labels = (generator.random((15, 4)) < 0.8 * generator.random(4)).astype(int)
        (rows,) = draw_low_shot(labels, range(15), 0.2, num_draws=1, seed=seed)
        covered = (labels[rows].sum(axis=0) > 0).sum()
        for out in range(len(rows)):
            for record in range(15):
                other = [*np.delete(rows, out), record]
                assert (labels[other].sum(axis=0) > 0).sum() <= covered or _loses_one(labels, rows, other)


def _loses_one(labels, rows, other):
    return ((labels[rows].sum(axis=0) > 0) & (labels[other].sum(axis=0) == 0)).any()


@pytest.mark.parametrize(
    ("labels", "patients", "fraction", "message"),
    [
        (np.array([[2]]), [0], 0.5, "multi-hot labels"),
        (np.array([[1]]), [0, 1], 0.5, "and 2 patients"),
        (np.array([[1]]), [0], 0.0, "above 0"),
    ],
)
def test_impossible_draws_are_refused(labels, patients, fraction, message):
    with pytest.raises(ValueError, match=message):
        draw_low_shot(labels, patients, fraction)


def test_scores_are_those_of_the_probe_on_each_draw(one_C):
    tables = both(rates=(0.5, 0.3))
    entries = low_shot(pair(tables, 50, 4), fractions=(0.1,), num_draws=3)
    assert [entry["value"] for entry in entries] == [0.1, 1.0]
    truth, patients = tables["pretrained"].truth["train"], tables["pretrained"].tables["train"].patients()
    for encoder, of_encoder in tables.items():
        expected = []
        for rows in draw_low_shot(truth, patients, 0.1, num_draws=3, seed=4):
            result = probe(of_encoder.take_train(rows))
            expected.append(macro_auroc(result.test.labels, result.test.scores, NAMES[:2]).value)
        assert entries[0][encoder]["draws"] == pytest.approx(expected)
        assert entries[0][encoder]["macro_auroc"] == pytest.approx(np.mean(expected))
        assert entries[0][encoder]["macro_auroc_sd"] == pytest.approx(np.std(expected, ddof=1))
    difference = entries[0]["difference"]
    assert difference["ci95"][0] < difference["macro_auroc"] < difference["ci95"][1]
    assert entries[0]["num_train_records"] == 30 and entries[0]["labels_in_every_draw"] == list(NAMES[:2])


def test_all_records_give_the_numbers_of_the_protocol(one_C):
    tables = both(rates=(0.5, 0.3), sizes=(60, 40, 40))
    (entry,) = low_shot(pair(tables, 100, 2), fractions=())
    results = {encoder: probe(of_encoder) for encoder, of_encoder in tables.items()}
    for encoder, result in results.items():
        evaluated = result.evaluate(num_resamples=100, seed=2)
        for name in ("macro_auroc", "macro_auroc_ci95", "per_class"):
            assert entry[encoder][name] == pytest.approx(evaluated[name]), name
    expected = compare_results(*results.values(), num_resamples=100, seed=2)
    for name, value in expected.items():
        assert entry["difference"][name] == pytest.approx(value), name


def test_labels_that_a_draw_cannot_teach_are_named(one_C):
    tables = both(rates=(0.5, 0.02, 0.02))
    for entry in low_shot(pair(tables, 20), fractions=(0.01,), num_draws=3)[:-1]:
        assert entry["num_train_records"] == 3
        for draw in entry["train_draws"]:
            taught = set(NAMES) - set(draw["unlearnt"])
            assert taught and draw["num_train_patients"] == 3
        assert set(entry["labels_in_every_draw"]) <= taught


def test_a_fraction_of_which_no_draw_can_be_probed_is_refused_with_the_reason(one_C):
    tables = both(rates=(0.5, 0.3, 0.0), sizes=(40, 30, 30))
    first, whole = low_shot(pair(tables, 20), fractions=(0.01,), num_draws=2)  # one record teaches nothing
    assert "None of 2 draws" in first["refused"] and "pretrained" not in first and len(first["refused_draws"]) == 2
    assert whole["excluded"] == {"C": "training set: 0 positive of 40 records, at least 1 needed"}


def test_a_single_label_task_needs_two_classes(one_C):
    generator = np.random.default_rng(0)
    tables = {}
    for encoder in ("pretrained", "random_encoder"):
        some = task()
        truth = {s: np.eye(3, dtype=np.int8)[generator.integers(3, size=len(t))] for s, t in some.truth.items()}
        tables.setdefault("truth", truth)
        tables[encoder] = FrozenTables(some.tables, tables["truth"], NAMES, SINGLE_LABEL)
    del tables["truth"]
    entries = low_shot(pair(tables, 20), fractions=(1 / 300, 0.02), num_draws=2)
    assert "No label can be learned" in entries[0]["refused"]
    assert 0 < entries[1]["pretrained"]["macro_auroc"] < 1


def test_a_regression_is_drawn_by_quarters_and_scaled_by_all_training_targets(one_C):
    tables = {}
    for encoder, some in both().items():
        truth = {s: some.tables[s].features[:, :1] * 10.0 + 60 for s in some.tables}
        truth = {s: values.astype(float) for s, values in truth.items()}
        tables[encoder] = FrozenTables(some.tables, truth, ("heart rate (bpm)",), REGRESSION)
    (tenth, _) = low_shot(pair(tables, 20), fractions=(0.1,), num_draws=2)
    some = tables["pretrained"]
    target, deviation = some.truth["train"][:, 0], some.truth["train"].std()
    quarters = np.searchsorted(np.percentile(target, (25, 50, 75)), target, side="right")
    draws = draw_low_shot(np.eye(4)[quarters], range(300), 0.1, num_draws=2)
    expected = []
    for rows in draws:
        assert np.bincount(quarters[rows]).min() >= 6  # of 30
        result = probe(some.take_train(rows))
        expected.append(np.abs(result.test.scores - result.test.labels).mean() / deviation)
    assert tenth["pretrained"]["draws"] == pytest.approx(expected)
    assert set(tenth["pretrained"]["per_target"]) == {"heart rate (bpm)"} and "macro_zmae" in tenth["difference"]


def test_both_encoders_are_needed():
    with pytest.raises(ValueError, match="random_encoder"):
        pair({"pretrained": task()})
