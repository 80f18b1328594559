"""Encoders without training: their features by the recipe, written out slowly."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from ecg_transformers.modeling import (
    LeadStatisticsConfig,
    LeadStatisticsModel,
    RandomKernelsConfig,
    RandomKernelsModel,
)


@pytest.fixture(scope="module")
def signals():
    return torch.randn(3, 12, 400, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.1


@pytest.fixture(scope="module")
def model():
    return RandomKernelsModel(RandomKernelsConfig(num_samples=400, num_kernels=12, seed=3)).eval()


def slow_features(model, signal, present=range(12), rate_ratio=1):
    """Features of one recording (leads, samples), one response at a time."""
    taps, order, present = model.taps.numpy(), model.order.numpy(), list(present)
    scaled = np.stack([(row - row.mean()) / row.std() if row.std() else row * 0 for row in signal.double().numpy()])
    columns = []
    for number in range(len(taps)):
        dilation = round((1, 2, 4, 8, 16, 32)[number // (len(taps) // 6)] * rate_ratio)
        seen = [lead for lead in order[number] if lead in present][: max(1, round(len(present) / 4))]
        weights = taps[number, : len(seen)].astype(float)
        weights = weights / np.sqrt((weights**2).sum())
        response = np.zeros(scaled.shape[1])
        for row, lead in enumerate(seen):
            for tap in range(9):
                for sample in range(scaled.shape[1]):
                    position = sample + (tap - 4) * dilation
                    if 0 <= position < scaled.shape[1]:
                        response[sample] += weights[row, tap] * scaled[lead, position]
        columns.append([(response > 0.3).mean(), (response < -0.3).mean(), response.max(), response.min()])
    by_dilation = np.array(columns).reshape(6, len(taps) // 6, 4)
    return by_dilation.transpose(0, 2, 1).reshape(-1)


def test_random_kernels_are_the_recipe_written_out(model, signals):
    found = model(signals).pooler_output
    assert found.shape == (3, 48)
    np.testing.assert_allclose(found[1].numpy(), slow_features(model, signals[1]), atol=1e-5)


def test_kernels_have_mean_zero_in_each_lead_unit_norm_and_a_quarter_of_the_leads(model):
    kernels = model.kernels(torch.ones(12, dtype=torch.bool))
    assert kernels.mean(dim=-1).abs().max() < 1e-6
    torch.testing.assert_close(kernels.square().sum(dim=(1, 2)), torch.ones(12))
    assert ((kernels != 0).any(dim=-1).sum(dim=1) == 3).all()


def test_dilations_are_durations_so_that_the_rate_changes_the_samples_between_taps(signals):
    model = RandomKernelsModel(RandomKernelsConfig(num_samples=400, num_kernels=6, sampling_rate=250)).eval()
    expected = slow_features(model, signals[0], rate_ratio=2.5)
    np.testing.assert_allclose(model(signals[:1]).pooler_output[0].numpy(), expected, atol=1e-5)


def test_kernels_see_the_leads_that_a_record_has(model, signals):
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[1, 2:] = False
    values = signals.clone()
    values[1, 2:] = 7.0  # what is masked is never read
    found = model(values, lead_mask=mask).pooler_output
    np.testing.assert_allclose(found[1].numpy(), slow_features(model, signals[1], present=(0, 1)), atol=1e-5)
    torch.testing.assert_close(found[0], model(signals[:1]).pooler_output[0])
    alone = model(signals[1:2, [1, 0]], leads=("II", "I")).pooler_output[0]
    torch.testing.assert_close(alone, found[1])


def test_a_flat_lead_is_zeros_and_changes_no_other(model, signals):
    values = signals.clone()
    values[:, 4] = 0.25
    found = model(values).pooler_output
    assert torch.isfinite(found).all()
    np.testing.assert_allclose(found[0].numpy(), slow_features(model, values[0]), atol=1e-5)


def test_the_seed_alone_decides_the_kernels_and_a_saved_model_has_them(model, signals, tmp_path):
    torch.manual_seed(99)
    again = RandomKernelsModel(RandomKernelsConfig(num_samples=400, num_kernels=12, seed=3)).eval()
    other = RandomKernelsModel(RandomKernelsConfig(num_samples=400, num_kernels=12, seed=4)).eval()
    assert torch.equal(again.taps, model.taps) and not torch.equal(other.taps, model.taps)
    other.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(signals).pooler_output, other(signals).pooler_output)


def test_lead_statistics_are_those_of_numpy(signals):
    model = LeadStatisticsModel(LeadStatisticsConfig(num_samples=400)).eval()
    found = model(signals).pooler_output.reshape(3, 9, 12)
    values = signals.numpy()
    np.testing.assert_allclose(found[:, 0], values.mean(axis=-1), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], values.std(axis=-1), atol=1e-6)
    quantiles = np.quantile(values, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99), axis=-1)
    np.testing.assert_allclose(found[:, 2:], quantiles.transpose(1, 0, 2), atol=1e-5)
