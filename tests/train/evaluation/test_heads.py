import math

import numpy as np
import pytest
import torch
from torch import nn

from ecg_transformers.train.evaluation.heads import HeadForm, shuffled_batches, train_head
from ecg_transformers.train.finetune_objective import HeadTask
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL

TRUTH = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.int8)


class Counter(nn.Module):
    """Its one weight grows by the learning rate in every step, as AdamW takes a gradient that is always -1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))


class Inputs:
    """The weight itself is the logit of every record."""

    def __len__(self):
        return 3

    def drawn_logits(self, head, records, generator):
        return head.weight

    def logits(self, head):
        return head.weight


class Task:
    def __init__(self, qualities=(), loss=lambda logits: -logits.sum()):
        self.qualities, self.of_logits = iter(qualities), loss

    def targets(self, truth):
        return torch.zeros(3)

    def loss(self, logits, targets):
        return self.of_logits(logits)

    def scores(self, logits):
        return logits

    def quality(self, scores, truth):
        return next(self.qualities)


def count(qualities=(), num_steps=8, rates=lambda *args: 1.0, loss=lambda logits: -logits.sum(), **options):
    head, inputs = Counter(), {"train": Inputs(), "validation": Inputs()}
    options |= {"num_steps": num_steps, "learning_rates": rates, "selection": "quality" if qualities else None}
    form = HeadForm("test", batch_size=3, peak_learning_rate=1.0, weight_decay=0.0, **options)
    found = train_head(head, form, Task(qualities, loss), inputs, {"train": None, "validation": None})
    return head.weight.item(), found


def test_without_looks_the_last_weights_stay():
    weight, found = count()
    assert weight == pytest.approx(8.0) and found == (8, 8)


def test_every_step_has_the_learning_rate_of_its_number():
    assert count(rates=lambda step, *_: 10.0**step, num_steps=4)[0] == pytest.approx(1111.0)


def test_the_weights_of_the_best_look_stay_the_first_of_equals():
    weight, found = count([0.1, 0.7, 0.7, 0.2], select_every=2)
    assert weight == pytest.approx(4.0) and found == (8, 4)


def test_the_last_step_is_looked_at_too():
    assert count([0.1, 0.2, 0.9], select_every=3)[1][1] == 8


def test_looks_without_a_gain_end_the_training():
    weight, found = count([0.5, 0.6, 0.6, 0.1, 0.9], select_every=1, patience=2)
    assert weight == pytest.approx(2.0) and found == (4, 2)


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="loss of step 1 is nan"):
        count(loss=lambda logits: logits.sum() * math.nan)


def test_every_epoch_has_every_record_once_in_another_order():
    batches = shuffled_batches(10, 4, torch.Generator().manual_seed(0), drop_last=False)
    epochs = [torch.cat([next(batches) for _ in range(3)]).tolist() for _ in range(2)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1]


def test_what_remains_of_an_epoch_is_left_out_where_it_should_be():
    batches = shuffled_batches(10, 4, torch.Generator().manual_seed(0), drop_last=True)
    assert [len(next(batches)) for _ in range(5)] == [4] * 5


def test_a_set_smaller_than_a_batch_is_one_batch():
    batches = shuffled_batches(3, 128, torch.Generator().manual_seed(0), drop_last=True)
    assert sorted(next(batches).tolist()) == [0, 1, 2]


def test_the_quality_leaves_out_labels_that_training_never_saw():
    task = HeadTask(TRUTH, ("A", "B", "C"), MULTI_LABEL)
    truth = np.array([[1, 0, 1], [0, 1, 0]])
    assert task.quality(np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 1.0]]), truth) == 1.0


def test_the_quality_of_a_regression_is_minus_the_error_in_deviations():
    targets = np.array([[0.0, 10.0], [2.0, 30.0]])
    task = HeadTask(targets, ("a", "b"), REGRESSION)
    assert task.quality(targets + [[1.0, 5.0], [1.0, 5.0]], targets) == pytest.approx(-(1 / 1 + 5 / 10) / 2)
    logits = torch.tensor([[0.0, 2.0]])
    np.testing.assert_allclose(task.scores(logits), [[1.0, 40.0]])
    np.testing.assert_allclose(task.targets(np.array([[1.0, 40.0]])), logits)


def test_a_class_is_learned_by_its_number():
    task = HeadTask(TRUTH[:2], ("A", "B", "C"), SINGLE_LABEL)
    assert task.targets(TRUTH[:2]).tolist() == [0, 1]
    np.testing.assert_allclose(task.scores(torch.zeros(1, 3)), np.full((1, 3), 1 / 3))
    assert task.loss(torch.zeros(1, 3), torch.tensor([0])).item() == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("truth", "problem_type", "reason"),
    [
        (np.zeros((3, 2), np.int8), MULTI_LABEL, "No label can be learned"),
        (np.array([[1.0, 2.0], [1.0, 3.0]]), REGRESSION, r"targets \['A'\] are the same"),
        (np.array([[np.nan, 2.0], [1.0, 3.0]]), REGRESSION, r"targets \['A'\] are the same .* or not finite"),
    ],
)
def test_what_cannot_be_learned_is_an_error(truth, problem_type, reason):
    with pytest.raises(ValueError, match=reason):
        HeadTask(truth, ("A", "B"), problem_type)
