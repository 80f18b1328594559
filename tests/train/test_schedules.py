import pytest
import torch

from ecg_transformers.train.schedules import (
    cosine_schedule,
    kim_finetune_learning_rate,
    kim_learning_rate,
    kim_probe_learning_rate,
    linear_schedule,
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


def test_kim_probe_curve_is_the_published_one(golden):
    curves = golden("kim_schedules")
    rates = [kim_probe_learning_rate(step, 10 * 1202) for step in curves["linear_eval_ipe1202/step"].tolist()]
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), curves["linear_eval_ipe1202/lr"], **EXACT)


def test_kim_finetuning_curve_is_the_published_one(golden):
    curves = golden("kim_schedules")
    rates = [kim_finetune_learning_rate(epoch) for epoch in curves["finetune/epoch_fraction"].tolist()]
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), curves["finetune/lr"], **EXACT)


def test_schedules_end_where_they_should():
    assert cosine_schedule(0, 100, 0.01, 0.1) == pytest.approx(0.01)
    assert cosine_schedule(99, 100, 0.01, 0.1) == pytest.approx(0.1)
    assert linear_schedule(100, 100, 0.99, 1.0) == 1.0
