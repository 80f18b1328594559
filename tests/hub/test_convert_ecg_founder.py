"""ECGFounder against a slow forward pass written from its published structure, on random weights in their names.

The authors' weights are not here: that the real ones come through is not tested."""

import logging

import numpy as np
import pytest
import scipy.signal
import torch

from ecg_transformers.data.formats.wfdb_reader import read_record
from ecg_transformers.hub.convert_other_architectures import (
    convert_ecg_founder_checkpoint,
    ecg_founder_feature_extractor,
)
from ecg_transformers.modeling import EcgFounderConfig, EcgFounderForSequenceClassification, EcgFounderModel

STEM, CHANNELS, DEPTHS, GROUP, TAPS = 8, (8, 12, 20), (2, 1, 2), 4, 16


def published_state(num_leads: int = 12, num_labels: int = 6) -> dict[str, torch.Tensor]:
    """A model in the names of the authors' class, small, with its batch norms as they are before any training."""
    shapes = {"first_conv.conv.weight": (STEM, num_leads, TAPS), "first_conv.conv.bias": (STEM,)}
    norms, before = {"first_bn": STEM}, STEM
    for stage, (channels, depth) in enumerate(zip(CHANNELS, DEPTHS, strict=True)):
        for number in range(depth):
            block = f"stage_list.{stage}.block_list.{number}."
            shapes |= {block + "conv1.conv.weight": (channels, before, 1), block + "conv1.conv.bias": (channels,)}
            shapes |= {block + "conv2.conv.weight": (channels, GROUP, TAPS), block + "conv2.conv.bias": (channels,)}
            shapes |= {block + "conv3.conv.weight": (channels, channels, 1), block + "conv3.conv.bias": (channels,)}
            shapes |= {block + "se_fc1.weight": (channels // 2, channels), block + "se_fc1.bias": (channels // 2,)}
            shapes |= {block + "se_fc2.weight": (channels, channels // 2), block + "se_fc2.bias": (channels,)}
            norms |= {block + "bn1": before, block + "bn2": channels, block + "bn3": channels}
            before = channels
    shapes |= {"dense.weight": (num_labels, before), "dense.bias": (num_labels,)}
    generator = torch.Generator().manual_seed(0)
    state = {key: 0.3 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    for name, width in norms.items():
        state |= {name + "." + key: tensor for key, tensor in torch.nn.BatchNorm1d(width).state_dict().items()}
    return state


def reference(state: dict[str, torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """The features before the mean over time, in float64, with loops in place of convolutions."""
    weights = {key: tensor.double().numpy() for key, tensor in state.items()}

    def swish(x):
        return x / (1 + np.exp(-x))

    def convolution(name, x, stride=1):
        kernel, bias = weights[name + ".conv.weight"], weights[name + ".conv.bias"]
        taps, width = kernel.shape[2], kernel.shape[1]
        length = -(-x.shape[-1] // stride)
        missing = max(0, (length - 1) * stride + taps - x.shape[-1])
        x = np.pad(x, ((0, 0), (0, 0), (missing // 2, missing - missing // 2)))
        num_groups = x.shape[1] // width
        rows = len(kernel) // num_groups
        out = np.empty((len(x), len(kernel), length))
        for group in range(num_groups):
            inside, outside = slice(group * width, (group + 1) * width), slice(group * rows, (group + 1) * rows)
            for step in range(length):
                window = x[:, inside, step * stride : step * stride + taps]
                out[:, outside, step] = np.tensordot(window, kernel[outside], axes=((1, 2), (1, 2))) + bias[outside]
        return out

    x = swish(convolution("first_conv", values.double().numpy(), stride=2))
    for stage, depth in enumerate(DEPTHS):
        for number in range(depth):
            block = f"stage_list.{stage}.block_list.{number}."
            y = convolution(block + "conv1", x if stage == number == 0 else swish(x))
            y = convolution(block + "conv2", swish(y), stride=2 if number == 0 else 1)
            y = convolution(block + "conv3", swish(y))
            gate = swish(y.mean(-1) @ weights[block + "se_fc1.weight"].T + weights[block + "se_fc1.bias"])
            gate = gate @ weights[block + "se_fc2.weight"].T + weights[block + "se_fc2.bias"]
            y = y / (1 + np.exp(-gate))[..., None]
            if number == 0:  # the larger of two neighbours; a zero stands beyond the end
                padded = np.pad(x, ((0, 0), (0, 0), (0, 1)))
                pairs = [padded[..., 2 * step : 2 * step + 2].max(-1) for step in range(padded.shape[-1] // 2)]
                x = np.stack(pairs, axis=-1)
            wider = y.shape[1] - x.shape[1]
            x = y + np.pad(x, ((0, 0), (wider // 2, wider - wider // 2), (0, 0)))
    return torch.from_numpy(x)


def convert(state, num_samples: int = 640, **given):
    model = convert_ecg_founder_checkpoint(state, **given).eval()
    model.config.num_samples = num_samples  # the loops of the reference are slow
    return model


def recordings(num_leads: int = 12, num_samples: int = 640) -> torch.Tensor:
    return torch.randn(2, num_leads, num_samples, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_features_and_logits_are_those_of_the_published_structure():
    state, values = published_state(), recordings()
    model = convert({"epoch": 3, "state_dict": state})
    assert type(model) is EcgFounderForSequenceClassification and model.config.problem_type.startswith("multi_label")
    expected = reference(state, values)
    output = model.base_model(values, output_hidden_states=True)
    torch.testing.assert_close(output.pooler_output, expected.mean(-1).float(), atol=1e-5, rtol=0)
    logits = expected.mean(-1).float() @ state["dense.weight"].T + state["dense.bias"]
    torch.testing.assert_close(model(values).logits, logits, atol=1e-5, rtol=0)
    assert len(output.hidden_states) == sum(DEPTHS) + 1
    exact = model.double().base_model(values).last_hidden_state
    torch.testing.assert_close(exact, expected.transpose(1, 2), atol=1e-10, rtol=0)


@pytest.mark.parametrize("num_samples", [501, 250])
@torch.no_grad()
def test_lengths_that_do_not_divide_are_padded_as_published(num_samples):
    state, values = published_state(), recordings(num_samples=num_samples)
    exact = convert(state, num_samples).double().base_model(values).last_hidden_state
    torch.testing.assert_close(exact, reference(state, values).transpose(1, 2), atol=1e-10, rtol=0)


@torch.no_grad()
def test_a_file_of_one_lead_reads_lead_one():
    state, values = published_state(num_leads=1), recordings(num_leads=1)
    model = convert(state)
    assert model.config.leads == ("I",)
    expected = reference(state, values).mean(-1).float()
    torch.testing.assert_close(model.base_model(values).pooler_output, expected, atol=1e-5, rtol=0)
    assert convert_ecg_founder_checkpoint(state, leads=["II"]).config.leads == ("II",)
    with pytest.raises(ValueError, match="reads 1 lead"):
        convert_ecg_founder_checkpoint(state, leads=["I", "II"])


def test_batch_norms_that_were_trained_are_told(caplog):
    state = published_state()
    with caplog.at_level(logging.WARNING, logger="ecg_transformers"):
        convert_ecg_founder_checkpoint(state)
        assert not caplog.records
        state["stage_list.1.block_list.0.bn2.running_mean"] += 0.5
        convert_ecg_founder_checkpoint(state)
    assert "batch norms of the file were trained (stage_list.1.block_list.0.bn2.running_mean" in caplog.text


def test_the_defaults_have_the_parameters_of_the_authors_class():
    with torch.device("meta"):
        model = EcgFounderModel(EcgFounderConfig())
    # Counted by hand from the published settings, with the batch norms: 30,665,264 without the head.
    widths = [
        64,
        *(c for c, d in zip(model.config.stage_channels, model.config.stage_depths, strict=True) for _ in range(d)),
    ]
    norms = 2 * 64 + sum(2 * before + 4 * after for before, after in zip(widths[:-1], widths[1:], strict=True))
    assert sum(parameter.numel() for parameter in model.parameters()) + norms == 30_665_264


@pytest.mark.slow
def test_the_input_is_the_published_one_on_real_recordings(shared_data_dir):
    extractor = ecg_founder_feature_extractor(EcgFounderConfig())
    headers = sorted((shared_data_dir / "ptb-xl" / "records500").glob("**/*.hea"))[:2]
    if not headers:
        pytest.skip("no recordings of PTB-XL at 500 Hz")
    for header in headers:
        record, _ = read_record(header.with_suffix(""))
        signal = np.stack([record.to_millivolts()[record.leads.index(lead)] for lead in extractor.leads])
        signal = scipy.signal.filtfilt(*scipy.signal.iirnotch(50, 30, 500), signal)
        signal = scipy.signal.filtfilt(*scipy.signal.butter(4, [0.67, 40], "bandpass", fs=500), signal)
        signal = signal - np.stack([scipy.signal.medfilt(lead, 201) for lead in signal])
        expected = (signal - signal.mean()) / (signal.std() + 1e-8)
        values = extractor(record)["input_values"][0].numpy()
        assert np.abs(values - expected).mean() < 0.01
        assert np.corrcoef(values.ravel(), expected.ravel())[0, 1] > 0.9995
