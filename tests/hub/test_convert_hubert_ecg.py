"""HuBERT-ECG against transformers' own HuBERT, of which the authors made it, on random weights in the authors' names.

The authors' weights are not here: that the real ones come through is not tested."""

import pytest
import torch
from transformers import HubertConfig, HubertModel

from ecg_transformers.hub.convert_other_architectures import (
    convert_hubert_ecg_checkpoint,
    hubert_ecg_feature_extractor,
)
from ecg_transformers.modeling import HubertEcgConfig, HubertEcgForSequenceClassification, HubertEcgModel

CONVOLUTIONS = {
    100: ((10, 3, 3, 2, 2), (4, 2, 2, 2, 2)),
    50: ((10, 3, 3, 2), (4, 2, 2, 2)),
    500: ((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)),
}


def published(sampling_rate: int = 100) -> tuple[HubertModel, dict[str, torch.Tensor]]:
    """The authors' model (mask probability 0.33, the rest HuBERT's defaults) and its file, small."""
    kernels, strides = CONVOLUTIONS[sampling_rate]
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(24,) * len(kernels),
        conv_kernel=kernels,
        conv_stride=strides,
        mask_time_prob=0.33,
        mask_time_length=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = HubertModel(config).eval()
        for parameter in model.parameters():  # biases and norms too
            torch.nn.init.normal_(parameter, std=0.2)
        state = dict(model.state_dict())
        state |= {"final_proj.0.weight": torch.randn(16, 32), "final_proj.0.bias": torch.randn(16)}
        state |= {"label_embedding.0.weight": torch.randn(100, 16)}
    return model, state


def convert(state, **given):
    return convert_hubert_ecg_checkpoint(state, num_attention_heads=4, **given).eval()


def recordings(sampling_rate: int = 100) -> torch.Tensor:
    return torch.randn(2, 12, 5 * sampling_rate, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sampling_rate", CONVOLUTIONS)
@torch.no_grad()
def test_features_are_those_of_the_joined_leads(sampling_rate):
    reference, state = published(sampling_rate)
    model, values = convert({"model_state_dict": state}, sampling_rate=sampling_rate), recordings(sampling_rate)
    assert type(model) is HubertEcgModel
    assert (model.config.sampling_rate, model.config.num_samples) == (sampling_rate, 5 * sampling_rate)
    expected = reference(torch.stack([torch.cat(list(record)) for record in values])).last_hidden_state
    output = model(values, output_hidden_states=True)
    torch.testing.assert_close(output.last_hidden_state, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.pooler_output, expected.mean(1), atol=1e-5, rtol=0)
    assert len(output.hidden_states) == 3


@torch.no_grad()
def test_a_fine_tuned_file_becomes_a_classifier():
    reference, state = published()
    head = {"classifier.weight": torch.full((3, 32), 0.1), "classifier.bias": torch.arange(3.0)}
    encoder = {key: tensor for key, tensor in state.items() if not key.startswith(("final_proj", "label_emb"))}
    model = convert({"hubert_ecg." + key: tensor for key, tensor in encoder.items()} | head)
    assert type(model) is HubertEcgForSequenceClassification
    pooled = reference(recordings().flatten(1)).last_hidden_state.mean(1)
    expected = pooled @ head["classifier.weight"].T + head["classifier.bias"]
    torch.testing.assert_close(model(recordings()).logits, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_files_of_older_torch_name_the_weight_norm_otherwise():
    _, state = published()
    stem = "encoder.pos_conv_embed.conv."
    older = dict(state)
    older[stem + "weight_g"] = older.pop(stem + "parametrizations.weight.original0")
    older[stem + "weight_v"] = older.pop(stem + "parametrizations.weight.original1")
    values = recordings()
    assert torch.equal(convert(older)(values).pooler_output, convert(state)(values).pooler_output)


def test_the_published_sizes_are_the_defaults_and_the_heads_known():
    config = HubertEcgConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert (config.conv_kernel, config.conv_stride) == CONVOLUTIONS[100]
    with torch.device("meta"):
        small = {"num_hidden_layers": 1, "num_attention_heads": 8, "intermediate_size": 8, "conv_dim": (8,) * 5}
        state = HubertEcgModel(HubertEcgConfig(hidden_size=512, **small)).state_dict()
    state = {key: torch.zeros(tensor.shape) for key, tensor in state.items()}
    with pytest.raises(ValueError, match="the published model of width 512 has 8"):
        convert_hubert_ecg_checkpoint(state)
    with pytest.raises(ValueError, match="width 512 and 1 layers.*Give num_attention_heads"):
        convert_hubert_ecg_checkpoint(state, num_hidden_layers=1)
    layer = {key: tensor for key, tensor in state.items() if ".layers.0." in key}
    state |= {key.replace("layers.0", f"layers.{n}"): tensor for key, tensor in layer.items() for n in range(1, 8)}
    assert convert_hubert_ecg_checkpoint(state).config.num_attention_heads == 8
    with pytest.raises(ValueError, match="width 32 and 2 layers.*Give num_attention_heads"):
        convert_hubert_ecg_checkpoint(published()[1])


def test_convolutions_of_unknown_strides_are_refused():
    _, state = published()
    other = {key: tensor for key, tensor in state.items() if "conv_layers.4" not in key}
    other["feature_extractor.conv_layers.1.conv.weight"] = torch.zeros(24, 24, 7)
    with pytest.raises(ValueError, match=r"kernels \(10, 7, 3, 2\); the strides are known of"):
        convert(other)


def test_the_input_is_scaled_over_the_whole_recording():
    extractor = hubert_ecg_feature_extractor(HubertEcgConfig())
    waves = torch.sin(2 * torch.pi * 2 * torch.arange(5000) / 500).repeat(12, 1)
    waves[:, 2500:] *= 2  # in the second half, which is not read
    values = extractor(waves.numpy(), sampling_rate=500, leads=extractor.leads, unit="mV")["input_values"]
    assert values.shape == (1, 12, 500)
    assert values.max().item() == pytest.approx(0.5, abs=0.02) and values.min().item() == pytest.approx(-0.5, abs=0.02)
