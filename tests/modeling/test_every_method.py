"""Each behaviour here is that of every pretraining method."""

import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification

from ecg_transformers import modeling
from ecg_transformers.modeling.masking import DrawKeys

from .tiny_methods import FROZEN, METHODS, make, step_inputs

EVERY = pytest.mark.parametrize("name", METHODS)
HARDER = {"st_mem": 0.9, "mtae": 0.9, "mlae": 0.9, "vqvae": 0.95}
"""Shares of the first loss that these are still above after more than ten steps."""


def assert_same_weights(first, second):
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


@EVERY
def test_ten_steps_lower_the_loss(losses_of_ten_steps, name):
    model, values = make(name, batch=8)
    momentum = 0.99 if model.has_teacher else None
    losses = losses_of_ten_steps(model, 1e-2, momentum=momentum, **step_inputs(model, values))
    assert losses[-1] < HARDER.get(name, 0.8) * losses[0]


@EVERY
def test_gradients_reach_every_weight_that_is_trained_and_no_other(name):
    model, values = make(name)
    model(**step_inputs(model, values)).loss.backward()
    frozen = FROZEN.get(name.split(",")[0], "-")
    for weight, parameter in model.named_parameters():
        assert parameter.requires_grad != weight.startswith(frozen), weight
        assert (parameter.grad is None) == weight.startswith(frozen), weight
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, weight


@EVERY
def test_losses_stay_float32_inside_autocast(name):
    model, values = make(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**step_inputs(model, values))
    output.loss.backward()
    assert {output[part].dtype for part in output if part.endswith("loss")} == {torch.float32}


@pytest.mark.parametrize("name", [name for name in METHODS if name != "vqvae"])
def test_without_draws_evaluation_repeats_some_and_training_makes_new_ones(name):
    model, values = make(name)
    state = torch.random.get_rng_state()
    losses = {model(values).loss.item() for _ in range(4)}
    assert len(losses) == 4
    assert torch.equal(torch.random.get_rng_state(), state)
    model.eval()
    assert model(values).loss == model(values).loss


@EVERY
def test_a_pretraining_checkpoint_loads_as_every_class(tmp_path, name):
    model, values = make(name)
    with torch.no_grad():
        for parameter in model.parameters():  # a teacher is not its student any more
            parameter.add_(0.1 * torch.randn(parameter.shape))
    inputs = step_inputs(model, values)
    model(**inputs)  # moves statistics of norms and codebooks
    model.eval().save_pretrained(tmp_path)
    family = METHODS[name][0]
    loaded = AutoModelForPreTraining.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert_same_weights(loaded, model)
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    assert loaded(**inputs).loss == model(**inputs).loss
    encoder = AutoModel.from_pretrained(tmp_path)
    assert type(encoder) is getattr(modeling, f"{family}Model")
    assert_same_weights(encoder, model.ecg_vit)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    assert_same_weights(classifier.ecg_vit, model.ecg_vit)
    assert classifier(values).logits.shape == (4, 5)
    embedding = getattr(modeling, f"{family}ForEmbedding").from_pretrained(tmp_path)
    assert_same_weights(embedding.ecg_vit, model.ecg_vit)
    torch.testing.assert_close(embedding(values).embeddings.norm(dim=-1), torch.ones(4))


@pytest.mark.parametrize("name", ["lejepa", "sigreg_jepa", "kernel_response"])
def test_a_batch_of_one_is_refused_in_training(name):
    model, values = make(name, batch=1)
    with pytest.raises(ValueError, match="dataloader_drop_last"):
        model(values)
    assert model.eval()(values).loss.isfinite()


@pytest.mark.parametrize("name", ["weimann", "sigreg_jepa", "ecg_cpc", "ecg_s4_jepa"])
def test_records_without_an_id_are_refused(name):
    model, values = make(name)
    keys = DrawKeys(seed=0, step=0, epoch=0, sample_ids=(1,))
    with pytest.raises(ValueError, match="a sample id for each of 4 records, got 1"):
        model.draw_inputs(values, keys)
