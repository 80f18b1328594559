import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel

from ecg_transformers.modeling import (
    EcgCpcConfig,
    EcgCpcForPreTraining,
    EcgS4Config,
    EcgS4ForEmbedding,
    EcgS4ForSequenceClassification,
    EcgS4ForTokenClassification,
    EcgS4Model,
)
from ecg_transformers.modeling.state_space import state_space_basis

from .tiny_methods import SMALL

TINY = {name: SMALL[name] for name in SMALL if name != "intermediate_size"} | {
    "sampling_rate": 100,
    "num_samples": 200,
}


def tiny_model(model_class=EcgS4Model, **fields):
    """Every weight and statistic of a norm is drawn, so that none of them can be left out unseen."""
    torch.manual_seed(0)
    model = model_class(EcgS4Config(**(TINY | fields))).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 1.5)
    return model


def signals(batch=4, num_samples=200):
    return torch.randn(batch, 3, num_samples, generator=torch.Generator().manual_seed(7))


def parameters_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_encoder_has_the_published_size():
    model = EcgCpcForPreTraining(EcgCpcConfig())
    assert parameters_of(model.ecg_vit.embeddings) == 808_960
    assert [parameters_of(layer) for layer in model.ecg_vit.layers] == [530_944] * 4
    assert parameters_of(model.prediction) == 262_144
    assert parameters_of(model) == 3_194_880


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_samples", [200, 37])
@torch.no_grad()
def test_the_forward_is_convolutions_and_norms_written_out(num_samples, bidirectional):
    model, values = tiny_model(bidirectional=bidirectional).double(), signals(2, num_samples).double()
    stem = model.embeddings
    kernel = stem.projection.weight.unflatten(1, (3, 3))  # leads x samples
    hidden = nn.functional.conv1d(values, kernel, stride=2, padding=1)
    for number, norm in enumerate(stem.norms):
        if number:
            hidden = nn.functional.conv1d(hidden, stem.pointwise[number - 1].weight[..., None])
        centred = (hidden - norm.running_mean[:, None]) / (norm.running_var[:, None] + norm.eps).sqrt()
        hidden = (centred * norm.weight[:, None] + norm.bias[:, None]).clamp(min=0)
    embeddings, length = hidden, hidden.shape[-1]
    assert length == (num_samples + 1) // 2
    for layer in model.layers:
        convolution = layer.convolution
        basis = state_space_basis(convolution.log_step.exp(), 8, length)
        convolved = hidden * convolution.skip[:, None]
        for coefficients, is_reversed in zip(convolution.coefficients, (False, True), strict=False):
            kernel = (coefficients[..., None] * basis).sum(1)
            for token in range(length):
                for other in range(length):
                    lag = other - token if is_reversed else token - other
                    if lag >= 0:
                        convolved[..., token] += kernel[:, lag] * hidden[..., other]
        active = nn.functional.gelu(convolved)
        both = layer.output.weight @ active + layer.output.bias[:, None]
        first, gate = both.chunk(2, dim=1)
        summed = (hidden + first * gate.sigmoid()).transpose(1, 2)
        mean, variance = summed.mean(-1, keepdim=True), summed.var(-1, unbiased=False, keepdim=True)
        hidden = (summed - mean) / (variance + 1e-5).sqrt() * layer.layernorm.weight + layer.layernorm.bias
        hidden = hidden.transpose(1, 2)
    output = model(values)
    torch.testing.assert_close(output.token_embeddings, embeddings.transpose(1, 2), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(output.last_hidden_state, hidden.transpose(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state.mean(1))


@torch.no_grad()
def test_the_start_of_a_longer_recording_gives_the_same_tokens():
    model = tiny_model()
    longer = signals(num_samples=700)
    whole = model(longer).last_hidden_state
    assert whole.shape == (4, 350, 32)
    torch.testing.assert_close(whole[:, :100], model(longer[..., :200]).last_hidden_state, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_leads_are_known_by_name_and_a_missing_one_adds_nothing():
    model, values = tiny_model(), signals()
    expected = model(values).pooler_output
    shuffled = model(values[:, [2, 0, 1]], leads=["V1", "I", "II"]).pooler_output
    torch.testing.assert_close(shuffled, expected, rtol=1e-5, atol=1e-5)
    lead_mask = torch.tensor([True, False, True]).expand(4, -1)
    noisy = values.clone()
    noisy[:, 1] = 1e3
    masked = model(noisy, lead_mask=lead_mask).pooler_output
    torch.testing.assert_close(masked, model(values[:, [0, 2]], leads=["I", "V1"]).pooler_output, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(masked, expected)


def test_dropped_channels_are_dropped_over_all_time():
    model = tiny_model(dropout=0.5, num_hidden_layers=1)
    layer = model.layers[0].train()
    dropped = layer._drop_channels(torch.ones(8, 20, 32))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert len({tuple(record[0].tolist()) for record in dropped}) == 8
    assert torch.equal(layer.eval()._drop_channels(dropped), dropped)


def test_initial_weights_have_the_published_spread():
    torch.manual_seed(0)
    model = EcgS4Model(EcgS4Config(num_hidden_layers=1))
    convolution = model.layers[0].convolution
    assert convolution.coefficients.std().item() == pytest.approx(1, abs=0.05)
    assert convolution.skip.std().item() == pytest.approx(1, abs=0.1)
    steps = convolution.log_step.exp()
    assert 1e-3 <= steps.min() < 1.2e-3 and 0.085 < steps.max() <= 0.1
    assert model.layers[0].output.weight.abs().max().item() == pytest.approx(512**-0.5, rel=1e-3)


def test_what_a_state_remembers_is_in_seconds():
    slow, fast = (EcgS4Model(EcgS4Config(**(TINY | {"sampling_rate": rate}))) for rate in (100, 400))
    shortest = {
        rate: model.layers[0].convolution.log_step.exp().max().item() for rate, model in ((1, slow), (4, fast))
    }
    assert shortest[1] > 2 * shortest[4]
    assert slow.layers[0].convolution.log_step.exp().max() <= 12 / 50  # 1/12 s at 50 tokens a second


def test_steps_stay_in_float32_where_the_rest_is_in_half_precision(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.layers[0].convolution.log_step.dtype == torch.float32
    assert half.layers[0].output.weight.dtype == torch.bfloat16
    expected = tiny_model()(signals()).pooler_output
    assert (half(signals()).pooler_output.float() - expected).abs().max() < 0.1
    made = AutoModel.from_config(half.config, dtype=torch.bfloat16)
    assert {name: weight.dtype for name, weight in made.named_parameters()} == {
        name: weight.dtype for name, weight in half.named_parameters()
    }


@torch.no_grad()
def test_any_layer_and_statistics_of_tokens_can_be_pooled():
    states = tiny_model()(signals(), output_hidden_states=True)
    layers = [states.token_embeddings, states.hidden_states[1], states.last_hidden_state]
    torch.testing.assert_close(states.hidden_states[0], layers[0])
    for chosen, expected in ((0, layers[0]), (1, layers[1]), (-1, layers[2]), ("mean_last_half", layers[2])):
        pooled = tiny_model(pooled_layer=chosen)(signals()).pooler_output
        torch.testing.assert_close(pooled, expected.mean(1))
    pooled = tiny_model(pooled_layer=0, pooling="statistics")(signals()).pooler_output
    assert pooled.shape == (4, 128)
    torch.testing.assert_close(pooled[:, :32], layers[0].mean(1))
    torch.testing.assert_close(pooled[:, 64:96], layers[0].amax(1))


@pytest.mark.parametrize("pooling", ["pooled", "attentive"])
def test_every_head_works(pooling):
    classifier = tiny_model(EcgS4ForSequenceClassification, num_labels=3, classifier_pooling=pooling)
    assert classifier(signals()).logits.shape == (4, 3)
    delineator = tiny_model(EcgS4ForTokenClassification, num_labels=4)
    lead_mask = torch.tensor([True, False, True]).expand(4, -1)
    assert delineator(signals(), lead_mask=lead_mask).logits.shape == (4, 3, 200, 4)
    embedded = tiny_model(EcgS4ForEmbedding)(signals(), labels=torch.tensor([0, 0, 1, 1]))
    assert embedded.embeddings.shape == (4, 32) and embedded.loss.isfinite()


def test_checkpointing_of_gradients_changes_none():
    plain = tiny_model(dropout=0.0).train()
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing_enable()
    for model in (plain, saving):
        model(signals()).last_hidden_state.square().sum().backward()
    for first, second in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad)


def test_hidden_tokens_are_replaced_and_none_is_dropped():
    model, hidden = tiny_model(), torch.zeros(4, 100, dtype=torch.bool)
    hidden[:, 10:20] = True
    changed = signals()
    changed[..., 20:39] = 9.0  # samples of the tokens 10 to 18 and one of token 19
    first, second = (
        model(x, bool_masked_pos=hidden, mask_token=torch.ones(32)).last_hidden_state for x in (signals(), changed)
    )
    assert first.shape == (4, 100, 32) and torch.equal(first, second)
    zeros = model(signals(), bool_masked_pos=hidden).last_hidden_state
    assert torch.equal(zeros, model(signals(), bool_masked_pos=hidden, mask_token=torch.zeros(32)).last_hidden_state)
    with pytest.raises(ValueError, match=r"shape \(4, 100\), got \(4, 50\)"):
        model(signals(), bool_masked_pos=hidden[:, :50], mask_token=torch.ones(32))


def test_a_recording_of_other_leads_is_refused():
    with pytest.raises(ValueError, match="Expected 3 leads"):
        tiny_model()(torch.randn(1, 12, 200))
