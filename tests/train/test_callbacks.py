import logging

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from ecg_transformers.train.callbacks import CodebookMonitor, CollapseMonitor, TeacherCallback
from ecg_transformers.train.schedules import weimann_learning_rate, weimann_momentum


def end_of_training(tmp_path, **logs):
    state = TrainerState()
    state.log_history = [{"loss": 1.0, "perplexity": 3.0, **logs}]
    CodebookMonitor().on_train_end(TrainingArguments(str(tmp_path)), state, TrainerControl())


@pytest.fixture
def warnings(caplog):
    logger = logging.getLogger("ecg_transformers.train.callbacks")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_a_codebook_of_which_half_is_unused_is_said_with_the_reason(tmp_path, warnings):
    end_of_training(tmp_path, codes_in_use=0.2, feature_spread=0.5)
    assert "Only 20% of the codes are in use" in warnings.text and "take fewer codes" in warnings.text


def test_a_codebook_unused_because_the_features_died_is_said_so(tmp_path, warnings):
    end_of_training(tmp_path, codes_in_use=0.1, feature_spread=1e-5)
    assert "almost the same for every recording" in warnings.text


@pytest.mark.parametrize("logs", [{"codes_in_use": 0.9}, {}])
def test_a_run_with_a_live_codebook_or_none_says_nothing(tmp_path, warnings, logs):
    end_of_training(tmp_path, **logs)
    assert not warnings.text


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
