"""The convolutional stem, what it may not see, and the pooling that goes with it."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from ecg_transformers.modeling import (
    EcgConvConfig,
    EcgConvForSequenceClassification,
    EcgConvForTokenClassification,
    EcgConvModel,
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgViTConfig,
    EcgViTModel,
    LeJepaConfig,
    LeJepaForPreTraining,
    StMemConfig,
    StMemForPreTraining,
)

from .tiny_methods import DECODER, SMALL_PREDICTOR

LEADS = ("I", "II", "V1", "V2")
STEM = {"stem": "conv", "stem_widths": (12, 16), "stem_depths": (1, 2), "stem_strides": (4, 2), "stem_kernel": 9}
STEM |= {"pooling": "statistics", "pooled_stages": (0,)}
TINY = {"leads": LEADS, "num_samples": 48, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 2, "intermediate_size": 32}
GRIDS = {
    "cropa": {"patching": "per_lead", "attention_pattern": "cropa"},
    "per lead, full": {"patching": "per_lead", "attention_pattern": "full", "num_registers": 1},
    "all leads": {"patching": "all_leads", "attention_pattern": "full"},
    "no layers": {"patching": "all_leads", "num_hidden_layers": 0, "position_embedding": "none"},
    "no layers, per lead": {"patching": "per_lead", "num_hidden_layers": 0, "position_embedding": "none"},
}


def tiny(model_class=EcgViTModel, config_class=EcgViTConfig, **fields):
    torch.manual_seed(0)
    model = model_class(config_class(**TINY | STEM | fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def signals(batch=2, samples=48):
    return torch.randn(batch, 4, samples, generator=torch.Generator().manual_seed(7))


def masks(num_rows):
    """Hidden patches of two records with six columns: of all leads at once, shared, and of each lead."""
    columns = torch.tensor([[0, 1, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0]], dtype=torch.bool)
    yield columns
    yield columns[:1]
    shifts = [columns.roll(row, dims=1) for row in range(num_rows)]
    yield torch.stack(shifts, dim=1)


@pytest.mark.parametrize("grid", GRIDS)
def test_no_visible_token_depends_on_a_hidden_sample(grid):
    model = tiny(**GRIDS[grid])
    for mask in masks(model.config.num_position_rows):
        values = signals().requires_grad_()
        outputs = model(values, bool_masked_pos=mask)
        hidden = (mask if mask.dim() == 3 else mask[:, None]).repeat_interleave(8, dim=2).expand(2, 4, -1)
        seen = torch.zeros_like(hidden)
        for feature in (outputs.last_hidden_state, outputs.pooler_output):
            for column in range(0, feature.shape[-1], 5):
                (gradient,) = torch.autograd.grad(feature[..., column].sum(), values, retain_graph=True)
                assert not gradient[hidden].any()
                seen |= gradient != 0
        assert seen[~hidden].all()
        with torch.no_grad():
            again = model(torch.where(hidden, float("nan"), values), bool_masked_pos=mask)
        assert torch.equal(again.last_hidden_state, outputs.last_hidden_state)
        assert torch.equal(again.pooler_output, outputs.pooler_output)


@pytest.mark.parametrize("grid", GRIDS)
def test_an_absent_lead_is_as_one_left_out_and_has_no_gradient(grid):
    model = tiny(**GRIDS[grid])
    lead_mask = torch.tensor([[True, False, True, True]]).expand(2, -1)
    values = signals().requires_grad_()
    outputs = model(values, lead_mask=lead_mask)
    (gradient,) = torch.autograd.grad(outputs.pooler_output.square().sum(), values)
    assert not gradient[:, 1].any() and gradient[:, [0, 2, 3]].all()
    left_out = model(signals()[:, [3, 0, 2]], leads=["V2", "I", "V1"])
    torch.testing.assert_close(outputs.pooler_output, left_out.pooler_output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", ["cropa", "no layers"])
def test_records_without_a_lead_or_without_a_difference_have_finite_features_and_gradients(grid):
    model = tiny(**GRIDS[grid])
    outputs = model(torch.zeros(2, 4, 48), lead_mask=torch.tensor([[True] * 4, [False] * 4]))
    outputs.pooler_output.sum().backward()
    assert grid == "no layers" or not outputs.pooler_output[1].any()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
def test_the_stem_equals_slow_convolutions(patching):
    stem = tiny(patching=patching).embeddings.stem
    with torch.no_grad():
        grids = stem(signals(), [0, 1, 2, 3])
    rows = signals().unbind(1) if patching == "per_lead" else [signals()]
    for row, signal in enumerate(rows):
        states = (signal[:, None] if signal.dim() == 2 else signal).detach().double().numpy()
        for number, stage in enumerate(stem.stages):
            states = slow_norm(states, stage.layernorm) if number else states
            states = slow_convolution(states, stage.convolution, stride=(4, 2)[number])
            states = states if number else slow_norm(states, stage.layernorm)
            for block in stage.blocks:
                branch = slow_norm(slow_convolution(states, block.depthwise, depthwise=True), block.layernorm)
                branch = torch.nn.functional.gelu(torch.from_numpy(slow_convolution(branch, block.fc1))).numpy()
                states = states + slow_convolution(branch, block.fc2)
            np.testing.assert_allclose(grids[number][:, row].transpose(1, 2), states, rtol=1e-4, atol=1e-4)


def slow_convolution(states, convolution, stride=1, depthwise=False):
    weight, bias = convolution.weight[:, :, 0].detach().double().numpy(), convolution.bias.detach().double().numpy()
    taps = weight.shape[-1]
    before = (taps - stride + 1) // 2
    padded = np.pad(states, ((0, 0), (0, 0), (before, taps)))
    output = np.zeros((len(states), len(weight), states.shape[2] // stride))
    for step in range(output.shape[2]):
        window = padded[:, :, step * stride : step * stride + taps]
        equation = "bct,ct->bc" if depthwise else "bct,oct->bo"
        output[:, :, step] = np.einsum(equation, window, weight[:, 0] if depthwise else weight) + bias
    return output


def slow_norm(states, norm):
    mean, variance = states.mean(1, keepdims=True), states.var(1, keepdims=True)
    weight, bias = (p.detach().double().numpy()[None, :, None] for p in (norm.weight, norm.bias))
    return (states - mean) / np.sqrt(variance + norm.eps) * weight + bias


@pytest.mark.parametrize("grid", GRIDS)
def test_statistics_are_those_of_present_tokens(grid):
    model = tiny(**GRIDS[grid])
    assert model.config.pooled_size == 4 * (12 + 16)
    lead_mask = torch.tensor([[True, True, False, True], [True, False, True, True]])
    with torch.no_grad():
        outputs = model(signals(), lead_mask=lead_mask)
        tokens = outputs.last_hidden_state[:, model.config.num_registers :]
        for record, present in enumerate(lead_mask):
            known = tokens[record]
            if model.config.patching == "per_lead":
                known = known.unflatten(0, (4, 6))[present].flatten(0, 1)
            expected = torch.cat(
                [known.mean(0), (known.var(0, correction=0) + 1e-5).sqrt(), known.amax(0), known.amin(0)]
            )
            torch.testing.assert_close(outputs.pooler_output[record, 48:], expected)
        first = model.embeddings.stem(signals() * lead_mask[..., None], [0, 1, 2, 3])[0]
        first = (first - first.mean(-1, keepdim=True)) / (first.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        for record, present in enumerate(lead_mask):
            known = (first[record, present] if model.config.patching == "per_lead" else first[record]).flatten(0, 1)
            torch.testing.assert_close(outputs.pooler_output[record, :12], known.mean(0))
            torch.testing.assert_close(outputs.pooler_output[record, 24:36], known.amax(0))


def test_some_of_the_statistics_can_be_chosen():
    whole = tiny(**GRIDS["cropa"])
    some = tiny(**GRIDS["cropa"], statistics=("max", "min"), stage_statistics=("std",))
    assert some.config.pooled_size == 2 * 16 + 12
    lead_mask = torch.tensor([[True, True, False, True], [False] * 4])
    parts = whole(signals(), lead_mask=lead_mask).pooler_output.split([12] * 4 + [16] * 4, dim=-1)
    expected = torch.cat([parts[1], parts[6], parts[7]], dim=-1)
    assert torch.equal(some(signals(), lead_mask=lead_mask).pooler_output, expected)


@pytest.mark.parametrize(
    ("pooled_layer", "layers"),
    [("last", [2]), (2, [2]), (-1, [2]), (1, [1]), (0, [0]), (-3, [0]), ("mean_last_half", [2])],
)
@pytest.mark.parametrize("pooling", ["mean", "statistics", "mean_then_norm"])
def test_the_layer_that_is_pooled_can_be_chosen(pooled_layer, layers, pooling):
    fields = {"stem": "linear", "pooling": pooling, "pooled_stages": (), "position_every_layer": False}
    model = tiny(pooled_layer=pooled_layer, **fields)
    plain = tiny(**fields)
    with torch.no_grad():
        outputs = model(signals(), output_hidden_states=True)
        hidden, grid = plain.encode_tokens(signals())
        states = {0: plain.embeddings(signals())[0], 1: outputs.hidden_states[1], 2: hidden}[layers[0]]
        torch.testing.assert_close(outputs.pooler_output, plain.pool(states, plain.layernorm(states), grid))
        torch.testing.assert_close(outputs.last_hidden_state, plain.layernorm(hidden))


def test_the_later_half_is_a_mean_of_normed_layers():
    fields = {"stem": "linear", "pooled_stages": (), "num_hidden_layers": 4}
    four, parts = tiny(pooled_layer="mean_last_half", **fields), [tiny(pooled_layer=n, **fields) for n in (3, 4)]
    with torch.no_grad():
        four.config.pooling = "mean"
        for part in parts:
            part.config.pooling = "mean"
        expected = torch.stack([part(signals()).pooler_output for part in parts]).mean(0)
        torch.testing.assert_close(four(signals()).pooler_output, expected)


def test_a_convolutional_encoder_takes_any_length_in_whole_patches():
    model = tiny(EcgConvForTokenClassification, EcgConvConfig, **GRIDS["no layers"], num_labels=3)
    assert model(signals(samples=80)).logits.shape == (2, 4, 80, 3)
    classifier = tiny(EcgConvForSequenceClassification, EcgConvConfig, **GRIDS["no layers"], num_labels=5)
    assert classifier(signals(samples=16)).logits.shape == (2, 5)
    with pytest.raises(ValueError, match="multiple of 8 samples"):
        classifier(signals(samples=44))
    with pytest.raises(ValueError, match="Expected 48 samples"):
        tiny(**GRIDS["cropa"])(signals(samples=80))


@pytest.mark.parametrize("grid", ["cropa", "no layers"])
def test_gradient_checkpointing_changes_no_gradient(grid):
    gradients = []
    for checkpointing in (False, True):
        model = tiny(**GRIDS[grid]).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(signals()).pooler_output.square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        assert all(gradient is not None for gradient in gradients[-1])
    torch.testing.assert_close(*gradients)


def test_blocks_are_left_out_at_random_in_training_only():
    model = tiny(**GRIDS["no layers"], drop_path_rate=0.5)
    blocks = [block for stage in model.embeddings.stem.stages for block in stage.blocks]
    assert [block.drop_path_rate for block in blocks] == [0.0, 0.25, 0.5]
    assert torch.equal(model(signals()).pooler_output, model(signals()).pooler_output)
    torch.manual_seed(1)
    model.train()
    assert len({model(signals()).pooler_output.sum().item() for _ in range(5)}) > 1


def test_fewer_leads_can_be_loaded(tmp_path):
    model = tiny(EcgConvModel, EcgConvConfig, **GRIDS["no layers"])
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, leads=["II"])
    expected = model(signals()[:, 1:2], leads=["II"]).pooler_output
    torch.testing.assert_close(loaded(signals()[:, 1:2]).pooler_output, expected)


RANDOM_MASK = SMALL_PREDICTOR | {"mask_type": "random", "mask_ratio": (0.3, 0.5)}


@pytest.mark.parametrize(
    ("model_class", "config_class", "fields"),
    [
        (EcgJepaForPreTraining, EcgJepaConfig, RANDOM_MASK | {"variance_weight": 0.1}),
        (EcgJepaForPreTraining, EcgJepaConfig, RANDOM_MASK | GRIDS["no layers"]),
        (EcgJepaForPreTraining, EcgJepaConfig, RANDOM_MASK | {"initializer": "xavier_uniform"}),
        (LeJepaForPreTraining, LeJepaConfig, {"projector_hidden_size": 8, "projection_size": 4, "num_slices": 8}),
        (StMemForPreTraining, StMemConfig, DECODER | {"head_dim": 8, "patch_norm": False}),
    ],
)
def test_other_methods_train_on_the_stem(model_class, config_class, fields):
    torch.manual_seed(0)
    model = model_class(config_class(**TINY | STEM | fields)).train()
    loss = model(signals()).loss
    loss.backward()
    encoder = model.trained_encoder if config_class is EcgJepaConfig else model.ecg_vit
    assert loss.isfinite() and encoder.embeddings.stem.stages[0].convolution.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stem_widths": (16,)}, "one value a stage"),
        ({"stem_widths": (12, 8)}, "its last width is hidden_size"),
        ({"stem_strides": (4, 4)}, "product of its strides patch_size"),
        ({"stem_kernel": 3}, "stem_kernel of at least the first stride"),
        ({"stem_block_kernel": 4}, "odd stem_block_kernel"),
        ({"pooled_stages": (2,)}, "pooled_stages among"),
        ({"pooling": "mean"}, "with pooling='statistics'"),
        ({"statistics": ("max", "median")}, "Expected statistics of"),
        ({"stage_statistics": ("max", "max")}, "each once"),
        ({"pooled_layer": 3}, "pooled_layer of 'last'"),
        ({"pooled_layer": "best"}, "pooled_layer of 'last'"),
        ({"patch_norm": True}, "patch_norm belongs to the linear patches"),
        ({"stem": "linear", "pooled_stages": (), "position_embedding": "none"}, "needs stem='conv'"),
    ],
)
def test_stems_that_fit_no_grid_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EcgViTConfig(**TINY | STEM | fields)
