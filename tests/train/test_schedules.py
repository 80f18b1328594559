import pytest
import torch

from ecg_transformers.train.schedules import (
    cosine_schedule,
    kim_finetune_learning_rate,
    kim_learning_rate,
    linear_schedule,
    weimann_learning_rate,
    weimann_momentum,
)

EXACT = {"atol": 0.0, "rtol": 1e-9}


@pytest.mark.parametrize(
    ("key", "peak", "steps_an_epoch"),
    [
        ("rb_bs128_lr2.5e-5", 2.5e-5, 1375),
        ("mb_bs64_lr5.5e-5", 5.5e-5, 2750),
        ("default_bs64_lr5e-5", 5e-5, 2750),
        ("generic_ipe100_lr5e-5", 5e-5, 100),
    ],
)
def test_kim_pretraining_curves_are_the_published_ones(golden, key, peak, steps_an_epoch):
    curves = golden("kim_schedules")
    steps = curves[f"{key}/step"].tolist()
    total = 100 * steps_an_epoch
    rates = [kim_learning_rate(step, 5 * steps_an_epoch, total, peak) for step in steps]
    momenta = [linear_schedule(step, total, 0.996, 1.0) for step in steps]
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), curves[f"{key}/lr"], **EXACT)
    torch.testing.assert_close(torch.tensor(momenta, dtype=torch.float64), curves[f"{key}/ema"], **EXACT)


def test_kim_finetuning_curve_is_the_published_one(golden):
    curves = golden("kim_schedules")
    rates = [kim_finetune_learning_rate(epoch) for epoch in curves["finetune/epoch_fraction"].tolist()]
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), curves["finetune/lr"], **EXACT)


def test_schedules_end_where_they_should():
    assert cosine_schedule(0, 100, 0.01, 0.1) == pytest.approx(0.01)
    assert cosine_schedule(99, 100, 0.01, 0.1) == pytest.approx(0.1)
    assert linear_schedule(100, 100, 0.99, 1.0) == 1.0


def test_weimann_pretraining_curves_are_the_published_ones(golden):
    curves = golden("weimann_schedules")
    steps = curves["pretrain/step"].tolist()
    rates = [weimann_learning_rate(step, 10_000, 100_000) for step in steps]
    decays = [cosine_schedule(step, 100_000, 0.01, 0.1) for step in steps]
    momenta = [weimann_momentum(step - 1, 100_000, 0.998, 0.9995) for step in steps]  # before a step = after the last
    for key, values in (("lr", rates), ("weight_decay", decays), ("ema_momentum", momenta)):
        torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), curves[f"pretrain/{key}"], **EXACT)


@pytest.mark.parametrize(
    ("protocol", "settings"),
    [
        ("finetune", {"warmup_steps": 200, "total_steps": 10_000, "peak": 1e-3, "floor": 1e-5}),
        ("finetune_after_linear", {"warmup_steps": 200, "total_steps": 5000, "peak": 1e-4, "floor": 1e-6}),
    ],
)
def test_weimann_evaluation_curves_are_the_published_ones(golden, protocol, settings):
    curves = golden("weimann_schedules")
    rates = [weimann_learning_rate(step, **settings) for step in curves[f"{protocol}/step"].tolist()]
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), curves[f"{protocol}/lr"], **EXACT)


def test_weimann_momentum_of_two_micro_batches_is_that_of_their_two_updates():
    teacher, published, student = 1.0, 1.0, 0.0
    for step in range(6):
        for forward in (2 * step + 2, 2 * step + 3):  # those of the next step, with the student of this one
            momentum = linear_schedule(forward, 10, 0.5, 0.9)
            published = momentum * published + (1 - momentum) * student
        momentum = weimann_momentum(step, 10, 0.5, 0.9, num_micro_batches=2)
        teacher = momentum * teacher + (1 - momentum) * student
        assert teacher == pytest.approx(published)
        student += 0.1
