import pytest
import torch

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.train.evaluation.protocols import FrozenTables, linear_protocol
from ecg_transformers.train.features import embed
from ecg_transformers.train.online_probe import follow_with_probe
from ecg_transformers.train.results import MULTI_LABEL

LABELS = label_names("ptb-xl-sample")


@pytest.fixture(scope="module")
def probed():
    train = load_ecg("ptb-xl-sample", split="train", decode=False).select(range(60))
    return train, {"test": load_ecg("ptb-xl-sample", split="test", decode=False).select(range(30))}


def test_a_probe_follows_the_run_and_changes_nothing_in_it(make_trainer, probed):
    train, evaluated = probed
    validation = load_ecg("ptb-xl-sample", split="validation", decode=False).select(range(9))
    plain, followed = make_trainer(name="plain", max_steps=5), make_trainer(name="followed", max_steps=5)
    follow_with_probe(followed, train, evaluated, LABELS, every_steps=2)
    plain.train()
    followed.train()
    weights = followed.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in plain.model.state_dict().items())
    history = [entry for entry in followed.state.log_history if "probe_test_macro_auroc" in entry]
    assert [point["step"] for point in history] == [2, 4, 5]

    splits = {"train": train, "validation": validation, "test": evaluated["test"]}
    tables = {
        split: embed(followed.model.ecg_vit, followed.processing_class, rows).with_any_label(LABELS)
        for split, rows in splits.items()
    }
    truth = {split: table.multi_hot(LABELS) for split, table in tables.items()}
    result = linear_protocol(FrozenTables(tables, truth, LABELS, MULTI_LABEL)).evaluate(num_resamples=2)
    assert history[-1]["probe_test_macro_auroc"] == pytest.approx(result["macro_auroc"], abs=1e-9)


def test_a_probe_of_a_divided_model_is_refused(make_trainer, recordings):
    trainer = make_trainer()
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match=r"none has all of the weights. Leave out the probe"):
        follow_with_probe(trainer, recordings, {}, LABELS, every_steps=2)


def test_a_probe_at_every_zeroth_step_is_refused():
    with pytest.raises(ValueError, match="at least 1 step between two probes, got 0"):
        follow_with_probe(None, [], {}, LABELS, every_steps=0)
