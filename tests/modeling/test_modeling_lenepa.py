import math

import pytest
import torch

from ecg_transformers.modeling import EcgLeNepaConfig, EcgLeNepaForPreTraining, EcgLeNepaModel
from ecg_transformers.modeling.causal_vit import CausalViTLayer
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_ecg_s4 import EcgS4Layer

from .tiny_methods import SMALL

TINY = SMALL | {"sampling_rate": 100, "num_samples": 100, "patch_size": 5, "intermediate_size": 48}
TINY |= {"projector_hidden_size": 24, "projection_size": 8, "num_slices": 16, "attn_implementation": "sdpa"}
TRUNKS = pytest.mark.parametrize("trunk", ["vit", "s4"])
KEYS = DrawKeys(seed=1, step=5, epoch=2, sample_ids=(10, 11, 12, 13))


def tiny_model(**fields):
    torch.manual_seed(0)
    return EcgLeNepaForPreTraining(EcgLeNepaConfig(**(TINY | fields)))


def signals(batch=4):
    return torch.randn(batch, 3, 100, generator=torch.Generator().manual_seed(7))


def epps_pulley(values):
    """The statistic of one record along one direction: `(tokens,)`."""
    total, count, step = 0.0, len(values), 3 / 16
    for knot in range(17):
        t = knot * step
        target = math.exp(-t * t / 2)
        cosine = sum(math.cos(t * value) for value in values) / count
        sine = sum(math.sin(t * value) for value in values) / count
        weight = (step if knot in (0, 16) else 2 * step) * target
        total += weight * ((cosine - target) ** 2 + sine**2)
    return count * total


@TRUNKS
@torch.no_grad()
def test_the_loss_equals_a_slow_one(trunk):
    model = tiny_model(trunk=trunk).train()
    directions = model.draw_inputs(signals(), KEYS)["directions"]
    output = model(signals(), directions=directions)
    encoded, projector = model.ecg_vit(signals()), model.projector
    rows = torch.cat((encoded.token_embeddings, encoded.last_hidden_state)).flatten(0, 1)  # z of all, then h of all
    hidden = rows @ projector.fc1.weight.T + projector.fc1.bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    projected = (hidden.clamp(min=0) @ projector.fc2.weight.T + projector.fc2.bias).view(2, 4, 20, 8)
    errors = [
        (projected[1, record, token] - projected[0, record, token + 1]).square().mean()
        for record in range(4)
        for token in range(19)
    ]
    statistics = [
        epps_pulley((projected[layer, record] @ direction).tolist())
        for layer in range(2)
        for record in range(4)
        for direction in directions.T
    ]
    prediction_loss, sigreg_loss = torch.stack(errors).mean().item(), sum(statistics) / len(statistics)
    assert output.prediction_loss.item() == pytest.approx(prediction_loss, rel=1e-4)
    assert output.sigreg_loss.item() == pytest.approx(sigreg_loss, rel=1e-4)
    assert output.loss.item() == pytest.approx(prediction_loss + 20 * sigreg_loss, rel=1e-4)
    assert isinstance(model.ecg_vit.layers[0], CausalViTLayer if trunk == "vit" else EcgS4Layer)


def test_the_gradient_flows_through_the_targets():
    assert tiny_model().train()(signals()).targets.requires_grad


def test_the_published_encoder_has_about_the_published_size():
    encoder = EcgLeNepaModel(EcgLeNepaConfig())
    linear = 8 * (4 * 192**2 + 3 * 192 * 512) + 300 * 192  # as the paper counts
    biases = 8 * (4 * 192 + 2 * 512 + 192) + 192
    norms = 8 * 2 * 2 * (192 + 48)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == linear + biases + norms == 3_620_288


@torch.no_grad()
def test_a_layer_is_causal_attention_and_a_gated_map_written_out():
    torch.manual_seed(0)
    layer = CausalViTLayer(EcgLeNepaConfig(**TINY), 1).eval()
    for norm in (layer.attention.q_norm, layer.attention.k_norm, layer.layernorm_before, layer.layernorm_after):
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    hidden = torch.randn(1, 7, 32)
    attention, normed = layer.attention, layer.layernorm_before(hidden)[0]
    query, key, value = (
        projection(normed).view(7, 4, 8) for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )

    def turned(states, token):  # pairs (k, k + 4) of one head by token * base^(-2k / 8)
        pairs = torch.complex(states[:4], states[4:])
        turns = torch.tensor([token * 1e4 ** (-2 * pair / 8) for pair in range(4)])
        pairs = pairs * torch.exp(1j * turns)
        return torch.cat((pairs.real, pairs.imag))

    attended = torch.zeros(7, 4, 8)
    for head in range(4):
        for token in range(7):
            asked = turned(attention.q_norm(query[token, head]), token)
            scores = torch.stack(
                [asked @ turned(attention.k_norm(key[other, head]), other) for other in range(token + 1)]
            )
            attended[token, head] = (scores / 8**0.5).softmax(0) @ value[: token + 1, head]
    expected = hidden[0] + attention.o_proj(attended.flatten(1))
    normed, mlp = layer.layernorm_after(expected), layer.mlp
    gate = mlp.gate_proj(normed)
    expected = expected + mlp.down_proj(gate * gate.sigmoid() * mlp.up_proj(normed))
    torch.testing.assert_close(layer(hidden)[0], expected, rtol=1e-5, atol=1e-5)


@TRUNKS
@torch.no_grad()
def test_a_token_knows_nothing_of_what_comes_after_it(trunk):
    model = tiny_model(trunk=trunk).eval().ecg_vit
    changed = signals()
    changed[..., 60:] = 9.0
    first, second = (model(x).last_hidden_state for x in (signals(), changed))
    torch.testing.assert_close(first[:, :12], second[:, :12], rtol=0, atol=1e-6)
    assert not torch.allclose(first[:, 12], second[:, 12])


@torch.no_grad()
def test_attention_implementations_agree():
    model = tiny_model().eval()
    expected = model(signals()).loss
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(signals()).loss, expected)
    weights = model.ecg_vit(signals(), output_attentions=True).attentions
    assert [attention.shape for attention in weights] == [(4, 4, 20, 20)] * 2
    assert not weights[0].triu(1).any()


def test_initial_weights_are_truncated_and_smaller_at_the_end_of_a_branch():
    layer = EcgLeNepaModel(EcgLeNepaConfig()).layers[0]
    assert layer.mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.mlp.down_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert layer.attention.o_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
