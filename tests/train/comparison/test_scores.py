import numpy as np
import pytest

from ecg_transformers.train.comparison.plots import plot_comparison
from ecg_transformers.train.comparison.scores import Row, TestSet, compare_rows, pairs_of
from ecg_transformers.train.metrics import auroc_interval, paired_bootstrap

LABELS = ["CD", "MI", "NORM"]
ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_leads": 2, "patch_ms": 400.0, "tokens": 50, "parameters": 9}


@pytest.fixture(scope="module")
def test_set():
    labels = np.random.default_rng(0).integers(0, 2, (60, 3))
    return TestSet(LABELS, labels, [f"r{n}" for n in range(60)], [f"p{n // 2}" if n < 40 else None for n in range(60)])


def make_row(test_set, method, kind, quality, seeds=(0, 1), fraction=1.0):
    scores = {
        seed: np.random.default_rng(seed).normal(size=test_set.labels.shape) + quality * test_set.labels
        for seed in seeds
    }
    facts = {"encoder": ENCODER, "records_seen": 64, "num_labelled_records": 100}
    return Row(method, kind, fraction, test_set.record_ids, scores, {}, facts)


def test_one_seed_has_the_intervals_and_paired_differences_of_the_metrics(test_set):
    rows = [make_row(test_set, "a", kind, quality, (0,)) for kind, quality in (("random", 0.1), ("pretrained", 0.8))]
    found = compare_rows(rows, test_set)
    groups = [patient or record for record, patient in zip(test_set.record_ids, test_set.patient_ids, strict=True)]
    scores = [row.scores[0] for row in rows]
    for entry, array in zip(found["rows"], scores, strict=True):
        expected = auroc_interval(test_set.labels, array, LABELS, groups=groups)
        assert entry["macro_auroc_ci95"] == pytest.approx(list(expected.macro))
    expected = paired_bootstrap(test_set.labels, scores[1], scores[0], LABELS, groups=groups)
    (difference,) = found["differences"]
    assert difference["against"] == "random" and difference["macro_auroc"] == pytest.approx(expected.difference)
    assert difference["ci95"] == pytest.approx(list(expected.ci95))
    assert difference["p_value"] == pytest.approx(expected.p_value)


def test_seeds_give_a_mean_and_a_range(test_set):
    (entry,) = compare_rows([make_row(test_set, "a", "pretrained", 0.5)], test_set)["rows"]
    scores = [seed["macro_auroc"] for seed in entry["seeds"].values()]
    assert entry["macro_auroc"] == pytest.approx(np.mean(scores)) and entry["range"] == [min(scores), max(scores)]


def test_rows_are_compared_only_with_what_they_can_be_compared_with(test_set):
    rows = [
        make_row(test_set, "a", "random", 0.1),
        make_row(test_set, "a", "pretrained", 0.5),
        make_row(test_set, "b", "random", 0.1),
        make_row(test_set, "b", "pretrained", 0.6),
        make_row(test_set, "a, b", "supervised", 0.9),
        make_row(test_set, "b", "finetuned", 0.9),
        make_row(test_set, "b", "pretrained", 0.6, fraction=0.1),
        make_row(test_set, "c", "pretrained", 0.6, seeds=(0,)),
    ]
    pairs = [(model.method, model.kind, other.method, against) for model, other, against in pairs_of(rows)]
    assert pairs == [
        ("a", "pretrained", "a", "random"),
        ("a", "pretrained", "a, b", "supervised"),
        ("b", "pretrained", "a", "method"),
        ("b", "pretrained", "b", "random"),
        ("b", "pretrained", "a, b", "supervised"),
        ("b", "finetuned", "a, b", "supervised"),
    ]


def test_the_picture_has_a_line_for_every_row_and_curves_where_there_are_any(test_set):
    rows = [make_row(test_set, "a", kind, 0.5) for kind in ("random", "pretrained", "supervised", "finetuned")]
    comparison = compare_rows(rows, test_set) | {"curves": []}
    (axes,) = plot_comparison(comparison).axes
    assert (
        sum(text.get_text() == f"{row['macro_auroc']:.3f}" for row in comparison["rows"] for text in axes.texts) >= 4
    )
    points = [{"records_seen": n, "test": 0.6} for n in (100, 200)]
    curves = [{"method": "a", "seed": seed, "points": points} for seed in (0, 1)]
    _, curve_axes = plot_comparison(comparison | {"curves": curves}).axes
    assert len(curve_axes.lines) == 3  # two seeds and their mean
    assert curve_axes.lines[0].get_xdata()[0] == 0
