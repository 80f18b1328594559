import numpy as np
import pytest

from ecg_transformers.train.comparison.report import plot_comparison
from ecg_transformers.train.comparison.scores import Row, compare_rows, pairs_of
from ecg_transformers.train.metrics import auroc_interval
from ecg_transformers.train.predictions import Predictions, ProtocolResult, compare_results
from ecg_transformers.train.results import MULTI_LABEL

LABELS = ["CD", "MI", "NORM"]
ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_leads": 2, "patch_ms": 400.0, "tokens": 50, "parameters": 9}


TRUTH = np.random.default_rng(0).integers(0, 2, (60, 3))
IDS, PATIENTS = [f"r{n}" for n in range(60)], [f"p{n // 2}" if n < 40 else None for n in range(60)]


def make_row(method, kind, quality, seeds=(0, 1), fraction=1.0):
    predictions = {
        seed: Predictions(np.random.default_rng(seed).normal(size=TRUTH.shape) + quality * TRUTH, TRUTH, IDS, PATIENTS)
        for seed in seeds
    }
    facts = {"encoder": ENCODER, "records_seen": 64, "num_labelled_records": 100}
    return Row(method, kind, fraction, predictions, {}, facts)


def test_one_seed_has_the_intervals_and_paired_differences_of_the_metrics():
    rows = [make_row("a", kind, quality, (0,)) for kind, quality in (("random", 0.1), ("pretrained", 0.8))]
    found = compare_rows(rows, LABELS)
    random, pretrained = (row.predictions[0] for row in rows)
    for entry, test in zip(found["rows"], (random, pretrained), strict=True):
        expected = auroc_interval(TRUTH, test.scores, LABELS, groups=test.patients())
        assert entry["macro_auroc_ci95"] == pytest.approx(list(expected.macro))
    results = (ProtocolResult("linear", LABELS, MULTI_LABEL, TRUTH, None, test, {}) for test in (pretrained, random))
    (difference,) = found["differences"]
    expected = {"against": "random"} | compare_results(*results)
    assert {name: difference[name] for name in expected} == expected


def test_rows_of_different_records_are_compared_on_their_common_ones_and_never_without_a_row_of_all():
    random, trained = make_row("a", "pretrained", 0.5, (0,)), make_row("a", "supervised", 0.9, (0,))
    trained.predictions[0] = trained.predictions[0].take(range(20, 60))
    found = compare_rows([random, trained], LABELS)
    assert [entry["num_test_records"] for entry in found["rows"]] == [60, 40] and found["num_test_records"] == 60
    (difference,) = found["differences"]
    of_common = compare_rows([Row("a", "pretrained", 1.0, {0: random.predictions[0].take(range(20, 60))})], LABELS)
    value = of_common["rows"][0]["macro_auroc"] - found["rows"][1]["macro_auroc"]
    assert difference["macro_auroc"] == pytest.approx(value)
    random.predictions[0] = random.predictions[0].take(range(50))
    with pytest.raises(ValueError, match="Compare on one set"):
        compare_rows([random, trained], LABELS)


def test_seeds_give_a_mean_and_a_range():
    (entry,) = compare_rows([make_row("a", "pretrained", 0.5)], LABELS)["rows"]
    scores = [seed["macro_auroc"] for seed in entry["seeds"].values()]
    assert entry["macro_auroc"] == pytest.approx(np.mean(scores)) and entry["range"] == [min(scores), max(scores)]


def test_rows_are_compared_only_with_what_they_can_be_compared_with():
    rows = [
        make_row("a", "random", 0.1),
        make_row("a", "pretrained", 0.5),
        make_row("b", "random", 0.1),
        make_row("b", "pretrained", 0.6),
        make_row("a, b", "supervised", 0.9),
        make_row("b", "finetuned", 0.9),
        make_row("b", "pretrained", 0.6, fraction=0.1),
        make_row("c", "pretrained", 0.6, seeds=(0,)),
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


def test_the_picture_has_a_line_for_every_row():
    rows = [make_row("a", kind, 0.5) for kind in ("random", "pretrained", "supervised", "finetuned")]
    comparison = compare_rows(rows, LABELS)
    (axes,) = plot_comparison(comparison).axes
    scores = [text.get_text() for text in axes.texts]
    assert scores == [f"{row['macro_auroc']:.3f}" for row in comparison["rows"]]
