"""What is to be told of a recording: labels, sex, age."""

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from ecg_transformers.data import load_ecg
from ecg_transformers.train.finetune import build_finetuning, finish
from ecg_transformers.train.finetune_objective import HeadTask
from ecg_transformers.train.inference import predict
from ecg_transformers.train.results import REGRESSION, SINGLE_LABEL
from ecg_transformers.train.tasks.targets import load_task
from ecg_transformers.train.trainer import train_and_save

from ..conftest import tiny_encoder


@pytest.fixture(scope="module")
def ages():
    return load_task("ptb-xl-sample", target="age")


def test_ages_are_years_and_who_has_none_is_left_out(ages):
    assert ages.problem_type == REGRESSION and ages.label_names == ("age_years",)
    for split, rows in ages.items():
        truth = ages.truth_of(split)
        stated = [age for age in load_ecg("ptb-xl-sample", split=split, decode=False)["age"] if age is not None]
        assert len(truth) == len(rows) == sum(age < 300 for age in stated)  # 300 stands for very old
        assert truth.min() > 0 and truth.max() < 100
        assert ages.unlabelled[split] == len(load_ecg("ptb-xl-sample", split=split, decode=False)) - len(rows)


def test_sex_is_a_class_of_two():
    splits = load_task("ptb-xl-sample", target="sex")
    assert splits.problem_type == SINGLE_LABEL and splits.label_names == ("female", "male")
    truth = splits.truth_of("test")
    assert (truth.sum(axis=1) == 1).all() and 0 < truth[:, 0].mean() < 1
    assert splits.test["label"][:] == truth.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"target": "height"}, "Expected target of"),
        ({"target": "age", "problem_type": SINGLE_LABEL}, "are settings of labels"),
        ({"target": "sex", "unlabelled": "keep"}, "are settings of labels"),
        ({"target": "labels", "delineator": "x"}, "makes the target 'intervals'"),
    ],
)
def test_a_target_that_cannot_be_is_refused(choices, reason):
    with pytest.raises(ValueError, match=reason):
        load_task("ptb-xl-sample", **choices)


def test_a_fine_tuned_regression_speaks_in_the_unit_of_its_target(ages, tmp_path):
    tiny_encoder(tmp_path / "encoder", extractor={"normalization": "lead", "long_records": "all"})
    settings = {"output_dir": str(tmp_path / "run"), "max_steps": 6, "eval_strategy": "steps", "eval_steps": 2}
    settings |= {"per_device_train_batch_size": 32, "learning_rate": 1e-3, "use_cpu": True, "disable_tqdm": True}
    trainer = build_finetuning(str(tmp_path / "encoder"), ages, settings)
    train_and_save(trainer)
    errors = [entry["eval_macro_zmae"] for entry in trainer.state.log_history if "eval_macro_zmae" in entry]
    assert trainer.state.best_metric == min(errors)
    facts = finish(trainer, ages)["test"]
    assert 0 < facts["macro_zmae"] < 2 and "macro_auroc" not in facts
    stored = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").eval()
    found = predict(stored, trainer.processing_class, ages.validation, ages.label_names)
    deviation = ages.truth_of("train").std()
    assert np.abs(found.scores - found.labels).mean() / deviation == pytest.approx(min(errors), abs=1e-5)
    assert trainer.evaluate()["eval_macro_zmae"] == pytest.approx(min(errors), abs=1e-5)  # knows that it is folded
    again = build_finetuning(str(tmp_path / "run"), ages, settings | {"output_dir": str(tmp_path / "again")})
    assert again.evaluate()["eval_macro_zmae"] < 1.5  # not the head in years, read as deviations


def test_a_constant_target_teaches_nothing():
    with pytest.raises(ValueError, match="nothing can be learned"):
        HeadTask(np.ones((4, 1)), ("age_years",), REGRESSION)
