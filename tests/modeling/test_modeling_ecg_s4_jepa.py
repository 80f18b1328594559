"""JEPA on state spaces, and the teacher that learns nothing, of both teacher-student methods."""

import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining

from ecg_transformers.modeling import (
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgS4Config,
    EcgS4JepaConfig,
    EcgS4JepaForPreTraining,
    EcgS4Model,
)
from ecg_transformers.modeling.masking import DrawKeys

from .tiny_methods import SMALL, SMALL_PREDICTOR

TINY = {name: SMALL[name] for name in SMALL if name != "intermediate_size"} | {
    "sampling_rate": 100,
    "num_samples": 120,
}
TINY_JEPA = SMALL_PREDICTOR | {"patch_size": 12, "intermediate_size": 64}
TINY_JEPA |= {"mask_type": "random", "mask_ratio": (0.4, 0.6)}
JEPA = {"ecg_jepa": TINY_JEPA, "weimann": TINY_JEPA | {"evaluated_encoder": "teacher"}}
MOVING_TEACHERS = pytest.mark.parametrize("family", ["ecg_s4_jepa", *JEPA])
RANDOM_TEACHERS = pytest.mark.parametrize("family", ["ecg_s4_jepa", "ecg_jepa"])


def tiny_model(family="ecg_s4_jepa", **fields):
    torch.manual_seed(0)
    if family in JEPA:
        return EcgJepaForPreTraining(EcgJepaConfig(**(TINY | JEPA[family] | fields)))
    return EcgS4JepaForPreTraining(EcgS4JepaConfig(**(TINY | {"dropout": 0.0, "predictor_state_size": 4} | fields)))


def signals(batch=4):
    return torch.randn(batch, 3, 120, generator=torch.Generator().manual_seed(7))


def train_for(model, steps):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = model(signals()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def test_the_loss_equals_a_slow_one():
    model = tiny_model().eval()
    for parameter in model.ecg_vit.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    hidden = model.draw_inputs(signals(), DrawKeys(1, 5, 2, (10, 11, 12, 13)))["bool_masked_pos"]
    output = model(signals(), bool_masked_pos=hidden)
    losses = []
    for record, mask in zip(signals(), hidden, strict=True):
        target = model.teacher(record[None]).last_hidden_state[0]
        tokens = model.ecg_vit.embeddings(record[None])[0].clone()
        tokens[mask] = model.predictor.mask_token
        states = tokens[None]
        for layer in [*model.ecg_vit.layers, model.predictor.layer]:
            states = layer(states)
        predicted = model.predictor.projection(states)[0]
        errors = []
        for token in mask.nonzero().flatten().tolist():
            normed = (target[token] - target[token].mean()) / (target[token].var(unbiased=False) + 1e-5).sqrt()
            error = (predicted[token] - normed).abs()
            errors.append(torch.where(error < 1, 0.5 * error**2, error - 0.5).mean())
        losses.append(torch.stack(errors).mean())
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())
    assert len({int(mask.sum()) for mask in hidden}) > 1  # records hide unequal numbers of tokens


def test_hidden_blocks_are_a_share_of_the_tokens():
    model = tiny_model()
    drawn = model.draw_inputs(signals(), DrawKeys(1, 5, 2, (10, 11, 12, 13)))["bool_masked_pos"]
    assert drawn.shape == (4, 60) and 9 <= drawn.sum(1).min() and drawn.sum(1).max() <= 48
    with pytest.raises(ValueError, match="hides nothing of a record"):
        model(signals(), bool_masked_pos=torch.zeros(4, 60, dtype=torch.bool))


@MOVING_TEACHERS
def test_a_fresh_teacher_is_its_student_and_follows_it(family):
    model = tiny_model(family).train()
    student, teacher = model.trained_encoder.state_dict(), model.target_encoder.state_dict()
    assert all(torch.equal(teacher[name], tensor) for name, tensor in student.items())
    before = {name: tensor.clone() for name, tensor in model.target_encoder.named_parameters()}
    train_for(model, 1)
    model.update_teacher(0.9)
    for name, tensor in model.target_encoder.named_parameters():
        expected = 0.9 * before[name] + 0.1 * model.trained_encoder.get_parameter(name)
        torch.testing.assert_close(tensor, expected)
    assert model.has_teacher


@MOVING_TEACHERS
def test_a_reset_changes_the_teacher_alone_buffers_too(family):
    model = tiny_model(family).eval()
    with torch.no_grad():
        for tensor in [*model.trained_encoder.parameters(), *model.trained_encoder.buffers()]:
            tensor.mul_(2)
    before = {name: tensor.clone() for name, tensor in model.trained_encoder.state_dict().items()}
    model.reset_teacher()
    student, teacher = model.trained_encoder.state_dict(), model.target_encoder.state_dict()
    assert all(
        torch.equal(student[name], before[name]) and torch.equal(teacher[name], before[name]) for name in before
    )


@MOVING_TEACHERS
def test_training_with_a_teacher_that_stands_still_is_refused(family):
    model = tiny_model(family).train()
    optimizer = torch.optim.AdamW(model.trained_encoder.parameters(), lr=1e-3)
    for _ in range(2):
        for _ in range(3):  # micro-batches of one step
            model(signals()).loss.backward()
        optimizer.step()
    with pytest.raises(ValueError, match="2 optimiser steps and the teacher none.*EcgSslTrainer"):
        model(signals())


@RANDOM_TEACHERS
def test_a_random_teacher_is_another_encoder_and_keeps_its_weights(family):
    model = tiny_model(family, teacher="random").train()
    assert not model.has_teacher and not any(p.requires_grad for p in model.target_encoder.parameters())
    student = dict(model.trained_encoder.named_parameters())
    assert any(not torch.allclose(tensor, student[name]) for name, tensor in model.target_encoder.named_parameters())
    before = {name: tensor.clone() for name, tensor in model.target_encoder.named_parameters()}
    losses = train_for(model, 12)
    assert losses[-1] < losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.target_encoder.named_parameters())
    assert all(tensor.grad is None for tensor in model.target_encoder.parameters())
    with pytest.raises(ValueError, match="never moves"):
        model.update_teacher(0.5)


@RANDOM_TEACHERS
def test_a_random_teacher_comes_back_as_it_was_saved(tmp_path, family):
    model = tiny_model(family, teacher="random").train()
    train_for(model, 3)
    model.eval().save_pretrained(tmp_path)
    loaded = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    assert loaded(signals()).loss == model(signals()).loss
    assert not loaded.has_teacher and not any(p.requires_grad for p in loaded.target_encoder.parameters())
    encoder = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(encoder(signals()).pooler_output, model.trained_encoder(signals()).pooler_output)


@RANDOM_TEACHERS
def test_what_a_random_teacher_is_watched_by_is_the_student(family):
    model = tiny_model(family, teacher="random").train()
    first = model(signals()).pooler_output
    with torch.no_grad():
        for parameter in model.trained_encoder.parameters():
            parameter.add_(0.1)
    assert not torch.allclose(model(signals()).pooler_output, first)


def test_a_bare_encoder_gets_a_teacher_that_is_its_copy(tmp_path):
    fields = TINY | {"bidirectional": True}
    encoder = EcgS4Model(EcgS4Config(**fields)).eval()
    encoder.save_pretrained(tmp_path)
    model = EcgS4JepaForPreTraining.from_pretrained(
        tmp_path, config=EcgS4JepaConfig(**fields, predictor_state_size=4)
    ).eval()
    expected = encoder(signals()).pooler_output
    assert torch.equal(model.ecg_vit(signals()).pooler_output, expected)
    assert torch.equal(model.teacher(signals()).pooler_output, expected)
    random = EcgS4JepaForPreTraining.from_pretrained(
        tmp_path, config=EcgS4JepaConfig(**fields, predictor_state_size=4, teacher="random")
    ).eval()
    assert torch.equal(random.ecg_vit(signals()).pooler_output, expected)
    assert not torch.allclose(random.teacher(signals()).pooler_output, expected)


def test_the_teacher_has_no_dropout_and_norms_of_the_batch():
    model = tiny_model(dropout=0.5).train()
    assert not model.teacher.layers.training and model.teacher.embeddings.training
    assert model.ecg_vit.layers.training
    hidden = model.draw_inputs(signals(), DrawKeys(0, 0, 0, tuple(range(4))))["bool_masked_pos"]
    first, second = (model(signals(), bool_masked_pos=hidden) for _ in range(2))
    assert torch.equal(first.targets, second.targets) and not torch.equal(first.predictions, second.predictions)
    assert not model.eval().teacher.embeddings.training


def test_what_the_student_cannot_see_does_not_reach_its_predictions():
    model, hidden = tiny_model().eval(), torch.zeros(4, 60, dtype=torch.bool)
    hidden[:, 20:30] = True
    changed = signals()
    changed[..., 40:59] = 50.0
    first, second = (model(x, bool_masked_pos=hidden).predictions for x in (signals(), changed))
    assert torch.equal(first, second)
