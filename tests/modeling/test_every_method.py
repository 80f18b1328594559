"""Each behaviour here is that of every pretraining method."""

import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification

from ecg_transformers import modeling
from ecg_transformers.modeling.masking import DrawKeys

from .tiny_methods import FROZEN, METHODS, make, step_inputs

EVERY = pytest.mark.parametrize("name", METHODS)
DRAWING = pytest.mark.parametrize("name", [name for name in METHODS if name != "vqvae"])
HIDING = pytest.mark.parametrize(
    "name", ["kim", "kim, multi-block", "weimann", "sigreg_jepa", "sigreg_jepa, per lead", "st_mem", "mtae", "mlae"]
)
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


@DRAWING
def test_without_draws_evaluation_repeats_some_and_training_makes_new_ones(name):
    model, values = make(name)
    state = torch.random.get_rng_state()
    losses = {model(values).loss.item() for _ in range(4)}
    assert len(losses) == 4
    assert torch.equal(torch.random.get_rng_state(), state)
    model.eval()
    assert model(values).loss == model(values).loss


@DRAWING
def test_what_is_drawn_belongs_to_a_record_and_its_epoch_or_to_a_step(name):
    model, values = make(name)
    state, ids = torch.random.get_rng_state(), (10, 11, 12, 13)
    drawn = model.draw_inputs(values, DrawKeys(1, 5, 2, ids))
    two = model.draw_inputs(values[[2, 0]], DrawKeys(1, 5, 2, (12, 10)))
    next_epoch = model.draw_inputs(values, DrawKeys(1, 5, 3, ids))
    next_step = model.draw_inputs(values, DrawKeys(1, 6, 2, ids))
    assert torch.equal(torch.random.get_rng_state(), state)
    for key, tensor in drawn.items():
        if "directions" in key or (key == "bool_masked_pos" and len(tensor) == 1):
            assert torch.equal(two[key], tensor) and torch.equal(next_epoch[key], tensor), key
            assert not torch.equal(next_step[key], tensor), key
        elif not key.endswith("_patches"):  # which follow from the mask
            assert torch.equal(two[key], tensor[[2, 0]]) and not torch.equal(next_epoch[key], tensor), key
            if name not in ("weimann", "sigreg_jepa"):  # the number of hidden patches is that of a step
                assert torch.equal(next_step[key], tensor), key


@HIDING
def test_hidden_patches_do_not_leak_into_what_is_predicted(name):
    model, values = make(name)
    inputs = step_inputs(model.eval(), values)
    hidden = inputs["bool_masked_pos"].view(len(inputs["bool_masked_pos"]), -1, model.config.num_columns)
    hidden = hidden.repeat_interleave(values.shape[-1] // hidden.shape[-1], dim=-1).expand_as(values)
    before, after = model(**inputs), model(**inputs | {"input_values": torch.where(hidden, 50.0, values)})
    part = "predictions" if "predictions" in before else "reconstruction"
    assert torch.equal(before[part], after[part])


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("sigreg_jepa", "mlae")])
def test_an_absent_lead_has_no_part_in_the_loss(name):
    model, values = make(name)
    inputs = step_inputs(model.eval(), values)
    inputs = {key: tensor for key, tensor in inputs.items() if not key.endswith("_patches")}  # follow from the mask
    masked, fewer = dict(inputs), inputs | {"leads": ["I", "II"]}
    for key, axis in {"input_values": 1, "views": 2, "view_leads": 2, "bool_masked_pos": 1}.items():
        if key in inputs and inputs[key].shape[axis] == 3:
            fewer[key] = inputs[key].narrow(axis, 0, 2)
            if inputs[key].is_floating_point():
                masked[key] = inputs[key].index_fill(axis, torch.tensor(2), 1e3)
    masked["lead_mask"] = torch.tensor([True, True, False]).expand(4, -1)
    torch.testing.assert_close(model(**masked).loss, model(**fewer).loss)


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
