import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecg_transformers.train.evaluation.heads import (
    LINEAR_FORMS,
    HeadForm,
    draw_linear,
    linear_head_protocol,
    shuffled_batches,
)
from ecg_transformers.train.evaluation.protocols import FrozenTables
from ecg_transformers.train.features import EmbeddingTable
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL

NAMES = ("A", "B", "C")
EXACT = {"atol": 0.0, "rtol": 1e-9}
SHORT = {
    "kim": dataclasses.replace(LINEAR_FORMS["kim"], epochs=3),
    "weimann": dataclasses.replace(LINEAR_FORMS["weimann"], num_steps=20, select_every=5, gradient_clip=0.1),
    "st-mem": dataclasses.replace(LINEAR_FORMS["st-mem"], epochs=5, peak_learning_rate=0.05),
}


def frozen(problem_type=MULTI_LABEL, sizes=(50, 30, 30), width=6, seed=0) -> FrozenTables:
    """Features whose first columns predict the labels, or, times 100, the targets."""
    generator = np.random.default_rng(seed)
    tables, truth = {}, {}
    for split, size in zip(("train", "validation", "test"), sizes, strict=True):
        features = generator.normal(size=(size, width)) + 0.5
        noisy = features[:, :3] + 0.5 * generator.normal(size=(size, 3))
        truth[split] = (noisy > 0.5).astype(np.int8)
        if problem_type == SINGLE_LABEL:
            truth[split] = np.eye(3, dtype=np.int8)[noisy.argmax(axis=1)]
        elif problem_type == REGRESSION:
            truth[split] = 100 * noisy + 1000
        ids = [f"{split}{number}" for number in range(size)]
        tables[split] = EmbeddingTable(features.astype(np.float32), ids, list(ids), [[] for _ in ids], [None] * size)
    return FrozenTables(tables, truth, NAMES, problem_type)


def adamw(value, gradient, state, step, rate, decay):
    """One step of AdamW (Loshchilov & Hutter, 2019) by its formula, float64."""
    value = value * (1 - rate * decay)
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2
    corrected = state["m"] / (1 - 0.9**step), state["v"] / (1 - 0.999**step)
    return value - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)


def by_hand(tables: FrozenTables, form: HeadForm, rates, seed=0) -> tuple[list, list]:
    """Weights and bias after every step, by formulas of numpy; of several labels."""
    features, truth = tables.tables["train"].features.astype(float), tables.truth["train"].astype(float)
    head = draw_linear(features.shape[1], 3, form, seed)
    weight = head.weight.detach().numpy().astype(float)
    bias = head.bias.detach().numpy().astype(float) if form.bias else np.zeros(3)
    batches = shuffled_batches(len(features), form.batch_size, torch.Generator().manual_seed(seed + 1), form.drop_last)
    states, weights, biases = ({}, {}), [], []
    for step, rate in enumerate(rates, start=1):
        rows = next(batches).numpy()
        error = (1 / (1 + np.exp(-(features[rows] @ weight.T + bias))) - truth[rows]) / (len(rows) * 3)
        gradients = [error.T @ features[rows], error.sum(axis=0) * form.bias]
        if form.gradient_clip is not None:
            norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
            gradients = [gradient * min(1, form.gradient_clip / norm) for gradient in gradients]
        weight = adamw(weight, gradients[0], states[0], step, rate, form.weight_decay)
        bias = adamw(bias, gradients[1], states[1], step, rate, form.weight_decay)
        weights.append(weight)
        biases.append(bias)
    return weights, biases


def probabilities(tables: FrozenTables, split: str, weight, bias) -> np.ndarray:
    return 1 / (1 + np.exp(-(tables.tables[split].features @ weight.T + bias)))


def test_kims_rates_are_the_published_ones(golden):
    curves = golden("kim_schedules")
    rates = [LINEAR_FORMS["kim"].learning_rate(step, 1202) for step in curves["linear_eval_ipe1202/step"].tolist()]
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), curves["linear_eval_ipe1202/lr"], **EXACT)


def test_weimanns_rates_are_the_published_ones(golden):
    curves = golden("weimann_schedules")
    rates = [LINEAR_FORMS["weimann"].learning_rate(step, 7) for step in curves["linear/step"].tolist()]
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), curves["linear/lr"], **EXACT)


def test_st_mems_rates_are_the_published_ones(golden_facts):
    published = golden_facts("st_mem_data")["lr_schedule"]["lr_at_epoch"]
    for epoch, share in published.items():
        rate = LINEAR_FORMS["st-mem"].learning_rate(round(100 * float(epoch)), 100)
        assert rate == pytest.approx(6.25e-5 * share, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("name", "batch", "length", "rate", "decay", "selection"),
    [
        ("kim", 16, (10, None), 0.01, 0.01, None),
        ("weimann", 128, (None, 5000), 1e-3, 0.1, "quality"),
        ("st-mem", 16, (10, None), 6.25e-5, 0.05, "loss"),
    ],
)
def test_forms_have_the_published_settings(name, batch, length, rate, decay, selection):
    form = LINEAR_FORMS[name]
    assert (form.batch_size, (form.epochs, form.num_steps), form.selection) == (batch, length, selection)
    assert (form.peak_learning_rate, form.weight_decay) == (rate, decay)


def quality_by_hand(name, truth, said):
    """The macro AUROC, or minus the loss."""
    if name == "weimann":
        return roc_auc_score(truth, said, average="macro")
    return np.mean(truth * np.log(said) + (1 - truth) * np.log(1 - said))


@pytest.mark.parametrize(
    ("name", "seed", "steps_an_epoch", "looks"),
    [
        ("kim", 0, 4, [12]),  # 50 records, the last batch has 2
        ("weimann", 2, 1, [5, 10, 15, 20]),
        ("st-mem", 1, 3, [3, 6, 9, 12, 15]),  # 48 of 50 records
    ],
)
def test_a_form_equals_the_loop_by_hand_and_keeps_the_step_that_it_selects(name, seed, steps_an_epoch, looks):
    tables, form = frozen(seed=seed), SHORT[name]
    result = linear_head_protocol(tables, form)
    rates = [form.learning_rate(step, steps_an_epoch) for step in range(looks[-1])]
    weights, biases = by_hand(tables, form, rates)
    said = {
        split: [probabilities(tables, split, weights[look - 1], biases[look - 1]) for look in looks]
        for split in ("validation", "test")
    }
    qualities = [quality_by_hand(name, tables.truth["validation"], of_look) for of_look in said["validation"]]
    best = int(np.argmax(qualities))
    assert len(set(qualities)) > 1 or len(looks) == 1
    assert result.protocol == f"linear-{name}"
    assert (result.details["steps"], result.details["best_step"]) == (looks[-1], looks[best])
    assert (result.details["selection"] == "last step") == (name == "kim")
    for split, found in (("validation", result.validation), ("test", result.test)):
        np.testing.assert_allclose(found.scores, said[split][best], atol=1e-5)


@pytest.mark.parametrize("name", list(SHORT))
def test_the_test_split_chooses_nothing(name):
    tables = frozen(seed=3)
    other = FrozenTables(tables.tables, tables.truth | {"test": 1 - tables.truth["test"]}, NAMES, MULTI_LABEL)
    first, second = (linear_head_protocol(part, SHORT[name]) for part in (tables, other))
    assert np.array_equal(first.test.scores, second.test.scores)
    assert first.details["best_step"] == second.details["best_step"]


def test_a_seed_gives_one_result_and_touches_no_global_generator():
    tables, state = frozen(), torch.get_rng_state()
    first, again, other = (linear_head_protocol(tables, SHORT["kim"], seed).test.scores for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.allclose(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", list(SHORT))
def test_classes_sum_to_one_and_are_learned(name):
    form = dataclasses.replace(SHORT[name], peak_learning_rate=0.05)
    test = linear_head_protocol(frozen(SINGLE_LABEL), form).test
    np.testing.assert_allclose(test.scores.sum(axis=1), 1)
    assert (test.scores.argmax(axis=1) == test.labels.argmax(axis=1)).mean() > 0.5


def test_a_regression_is_in_the_unit_of_the_target():
    form = dataclasses.replace(SHORT["st-mem"], epochs=20)
    tables = frozen(REGRESSION)
    test = linear_head_protocol(tables, form).test
    assert np.abs(test.scores - test.labels).mean() < 0.7 * np.abs(test.labels - tables.truth["train"].mean(0)).mean()


def test_forms_have_names_that_are_never_mixed():
    names = {linear_head_protocol(frozen(sizes=(8, 8, 8)), form).protocol for form in SHORT.values()}
    assert names == {"linear-kim", "linear-weimann", "linear-st-mem"}
