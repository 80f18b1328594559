import pytest

from ecg_transformers.train.callbacks import CollapseMonitor, TeacherCallback
from ecg_transformers.train.schedules import weimann_learning_rate, weimann_momentum


def test_projections_that_have_all_become_one_stop_the_run(make_trainer):
    trainer = make_trainer(collapse_patience=1)
    logs = {"effective_rank": 9.0, "feature_spread": 0.5, "projection_std": 1e-6}
    with pytest.raises(RuntimeError, match="The features have collapsed"):
        CollapseMonitor().on_log(trainer.args, trainer.state, trainer.control, logs=logs)


def test_the_published_curves_of_weimann_are_what_a_run_follows(make_trainer):
    trainer = make_trainer(
        published_schedule="weimann", max_steps=6, warmup_steps=2, ema_start=0.5, ema_end=0.9, weight_decay=0.01
    )
    seen = []
    original = trainer.model.update_teacher
    trainer.model.update_teacher = lambda momentum: (seen.append(momentum), original(momentum))
    assert any(isinstance(callback, TeacherCallback) for callback in trainer.callback_handler.callbacks)
    trainer.train()
    assert seen == pytest.approx([weimann_momentum(step, 6, 0.5, 0.9) for step in range(6)])
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    peak = trainer.args.learning_rate
    assert rates == pytest.approx([weimann_learning_rate(step, 2, 6, peak=peak) for step in range(6)])
