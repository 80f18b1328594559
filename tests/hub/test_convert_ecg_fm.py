"""ECG-FM against a slow forward pass written from its published structure, on random weights in the authors' names.

The authors' weights are not here: that the real ones come through is not tested."""

import math

import pytest
import torch
import torch.nn.functional as F

from ecg_transformers.hub.convert_other_architectures import convert_ecg_fm_checkpoint, ecg_fm_feature_extractor
from ecg_transformers.modeling import EcgFmConfig, EcgFmForSequenceClassification, EcgFmModel

WIDTH, FFN, CHANNELS, HEADS, LAYERS, GROUPS, TAPS = 32, 48, 24, 4, 2, 4, 16


def published_state() -> dict[str, torch.Tensor]:
    """A pretrained model in the names of fairseq-signals, small; every value is drawn, norms and biases too."""
    shapes = {"mask_emb": (WIDTH,), "layer_norm.weight": (CHANNELS,), "layer_norm.bias": (CHANNELS,)}
    for number, channels in enumerate((12, CHANNELS, CHANNELS, CHANNELS)):
        shapes[f"feature_extractor.conv_layers.{number}.0.weight"] = (CHANNELS, channels, 2)
    shapes |= {f"feature_extractor.conv_layers.0.2.{name}": (CHANNELS,) for name in ("weight", "bias")}
    shapes |= {"post_extract_proj.weight": (WIDTH, CHANNELS), "post_extract_proj.bias": (WIDTH,)}
    stem = "conv_pos.pos_conv.0."
    shapes |= {stem + "bias": (WIDTH,), stem + "parametrizations.weight.original0": (1, 1, TAPS)}
    shapes[stem + "parametrizations.weight.original1"] = (WIDTH, WIDTH // GROUPS, TAPS)
    shapes |= {f"encoder.layer_norm.{name}": (WIDTH,) for name in ("weight", "bias")}
    for number in range(LAYERS):
        layer = f"encoder.layers.{number}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{layer}self_attn.{name}.weight": (WIDTH, WIDTH), f"{layer}self_attn.{name}.bias": (WIDTH,)}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{layer}{name}.{part}": (WIDTH,) for part in ("weight", "bias")}
        shapes |= {layer + "fc1.weight": (FFN, WIDTH), layer + "fc1.bias": (FFN,)}
        shapes |= {layer + "fc2.weight": (WIDTH, FFN), layer + "fc2.bias": (WIDTH,)}
    shapes |= {"quantizer.vars": (1, 640, 8), "quantizer.weight_proj.weight": (640, CHANNELS)}
    shapes |= {"quantizer.weight_proj.bias": (640,), "project_q.weight": (16, 16), "project_q.bias": (16,)}
    shapes |= {"final_proj.weight": (16, WIDTH), "final_proj.bias": (16,)}
    generator = torch.Generator().manual_seed(0)
    return {key: 0.3 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def reference(state: dict[str, torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """Last hidden states, operation by operation."""

    def linear(name, x):
        return x @ state[name + ".weight"].T + state[name + ".bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * state[name + ".weight"] + state[name + ".bias"]

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    x = values
    for number in range(4):
        x = F.conv1d(x, state[f"feature_extractor.conv_layers.{number}.0.weight"], stride=2)
        if number == 0:  # one group a channel: statistics over time
            scaled = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            stem = "feature_extractor.conv_layers.0.2."
            x = scaled * state[stem + "weight"][:, None] + state[stem + "bias"][:, None]
        x = gelu(x)
    x = linear("post_extract_proj", norm("layer_norm", x.transpose(1, 2)))
    stem = "conv_pos.pos_conv.0."
    direction = state[stem + "parametrizations.weight.original1"]
    length = direction.square().sum((0, 1), keepdim=True).sqrt()
    kernel = direction * state[stem + "parametrizations.weight.original0"] / length
    positions = F.conv1d(x.transpose(1, 2), kernel, state[stem + "bias"], padding=TAPS // 2, groups=GROUPS)
    x = norm("encoder.layer_norm", x + gelu(positions[..., :-1]).transpose(1, 2))
    for number in range(LAYERS):
        layer = f"encoder.layers.{number}."
        query, key, value = (
            linear(f"{layer}self_attn.{name}", x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        weights = (query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS)).softmax(-1)
        attended = linear(f"{layer}self_attn.out_proj", (weights @ value).transpose(1, 2).flatten(2))
        x = norm(layer + "self_attn_layer_norm", x + attended)
        x = norm(layer + "final_layer_norm", x + linear(layer + "fc2", gelu(linear(layer + "fc1", x))))
    return x


@pytest.fixture(scope="module")
def state():
    return published_state()


def convert(state, **given):
    return convert_ecg_fm_checkpoint(state, **{"num_attention_heads": HEADS} | given).eval()


def recordings(num_samples: int = 2500) -> torch.Tensor:
    return torch.randn(2, 12, num_samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@torch.no_grad()
def test_features_are_those_of_the_published_structure(state, implementation):
    model, values = convert({"cfg": {"model": {"layer_norm_first": False}}, "model": state}), recordings()
    model.set_attn_implementation(implementation)
    assert type(model) is EcgFmModel
    expected = reference(state, values)
    output = model(values, output_attentions=implementation == "eager")
    assert output.last_hidden_state.shape == (2, 156, WIDTH)
    torch.testing.assert_close(output.last_hidden_state, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.pooler_output, expected.mean(1), atol=1e-5, rtol=0)
    if implementation == "eager":
        assert [weights.shape for weights in output.attentions] == [(2, HEADS, 156, 156)] * LAYERS


@torch.no_grad()
def test_missing_leads_are_the_zeros_of_the_pretraining(state):
    model, values = convert(state), recordings()
    hidden = values.clone()
    hidden[:, 3:] = 0
    expected = reference(state, hidden).mean(1)
    mask = torch.arange(12).expand(2, -1) < 3
    for output in (model(values, lead_mask=mask), model(values[:, [2, 0, 1]], leads=["III", "I", "II"])):
        torch.testing.assert_close(output.pooler_output, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_fine_tuned_file_becomes_a_classifier(state):
    left_out = ("mask_emb", "quantizer", "project_q", "final_proj")
    encoder = {f"encoder.{key}": tensor for key, tensor in state.items() if not key.startswith(left_out)}
    head = {"proj.weight": torch.full((17, WIDTH), 0.1), "proj.bias": torch.arange(17.0)}
    model = convert({"model": encoder | head})
    assert type(model) is EcgFmForSequenceClassification and model.config.problem_type.startswith("multi_label")
    expected = reference(state, recordings()).mean(1) @ head["proj.weight"].T + head["proj.bias"]
    torch.testing.assert_close(model(recordings()).logits, expected, atol=1e-5, rtol=0)


def test_the_defaults_have_the_parameters_that_the_authors_state():
    with torch.device("meta"):
        encoder = EcgFmModel(EcgFmConfig())
    quantizer = 640 * 256 + 640 + 640 * 128  # two groups of 320 codes, of half of 256
    heads = (256 * 256 + 256) + (768 * 256 + 256) + 768  # project_q, final_proj, mask_emb
    total = sum(parameter.numel() for parameter in encoder.parameters()) + quantizer + heads
    assert round(total / 1e6, 1) == 90.9


def test_the_file_says_its_heads_and_may_contradict_us(state):
    told = {"cfg": {"model": {"encoder_attention_heads": 8}}, "model": state}
    assert convert_ecg_fm_checkpoint(told).config.num_attention_heads == 8
    with pytest.raises(ValueError, match="num_attention_heads=4 was given .*, but the file has 8"):
        convert(told)
    for setting, value in (("layer_norm_first", True), ("extractor_mode", "layer_norm")):
        with pytest.raises(ValueError, match=f"The file says {setting}"):
            convert({"cfg": {"model": {setting: value}}, "model": state})
    with pytest.raises(ValueError, match="every stride of ECG-FM is 2"):
        convert({"cfg": {"model": {"conv_feature_layers": "[(24, 2, 2)] + [(24, 2, 4)] * 3"}}, "model": state})
    with pytest.raises(ValueError, match="width 32 and 2 layers.*Give num_attention_heads"):
        convert_ecg_fm_checkpoint(state)


def test_the_input_is_standardised_over_the_recording_and_cut_into_segments():
    extractor = ecg_fm_feature_extractor(EcgFmConfig())
    signal = torch.randn(12, 5000, generator=torch.Generator().manual_seed(2)).cumsum(-1)
    signal[4] = 0.25  # constant: zeros
    values = extractor(signal.numpy(), sampling_rate=500, leads=extractor.leads, unit="mV")["input_values"]
    scores = (signal - signal.mean(1, keepdim=True)) / signal.std(1, unbiased=False, keepdim=True)
    scores[4] = 0
    torch.testing.assert_close(values, torch.stack((scores[:, :2500], scores[:, 2500:])), atol=1e-4, rtol=0)
