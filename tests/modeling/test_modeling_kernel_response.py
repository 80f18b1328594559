import numpy as np
import pytest
import torch

from ecg_transformers.modeling import EcgConvConfig, EcgConvModel, KernelResponseConfig, KernelResponseForPreTraining
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_kernel_response import principal_components

from .tiny_methods import CONV, same_weights

TINY = CONV | {"fitting_records": 10}
VICREG = {"invariance_weight": 0.5, "variance_weight": 0.25, "covariance_weight": 0.1}
PROJECTOR = {"projector_hidden_size": 8, "projection_size": 4}
TRANSFORMER = {
    "patching": "per_lead",
    "attention_pattern": "cropa",
    "position_embedding": "sincos_2d",
    "num_hidden_layers": 2,
    "view_samples": 200,
}
KEYS = DrawKeys(seed=1, step=5, epoch=2, sample_ids=(10, 11, 12, 13))


def tiny_model(fitted=True, **fields):
    torch.manual_seed(0)
    model = KernelResponseForPreTraining(KernelResponseConfig(**TINY | PROJECTOR | fields))
    if fitted:
        model.fit_targets([{"input_values": signals(12, seed=3)}])
    return model


def signals(batch=4, seed=7):
    return torch.randn(batch, 3, 200, generator=torch.Generator().manual_seed(seed))


def slow_responses(kernels, record):
    """Share above 0.3, share below -0.3, maximum and minimum of every kernel, one moment at a time."""
    record = record.double().numpy()
    record = (record - record.mean(1, keepdims=True)) / record.std(1, keepdims=True)
    features = []
    for same_dilation, dilation in zip(np.split(kernels, 6), (1, 2, 4, 8, 16, 32), strict=True):
        responses = np.zeros((len(same_dilation), record.shape[1]))
        for moment in range(record.shape[1]):
            for tap in range(9):
                place = moment + (tap - 4) * dilation
                if 0 <= place < record.shape[1]:
                    responses[:, moment] += same_dilation[:, :, tap] @ record[:, place]
        shares = [(responses > 0.3).mean(1), (responses < -0.3).mean(1)]
        features += [*shares, responses.max(1), responses.min(1)]
    return np.concatenate(features)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_targets_are_principal_components_of_slowly_computed_responses(power):
    model = tiny_model(target_power=power)
    kernels = model.targets.kernels.kernels(torch.ones(3, dtype=torch.bool)).double().numpy()
    fitted = np.stack([slow_responses(kernels, record) for record in signals(12, seed=3)[:10]])
    mean, deviation = fitted.mean(0), fitted.std(0) + 1e-6
    left, strengths, right = np.linalg.svd((fitted - mean) / deviation, full_matrices=False)
    scale = np.sqrt(np.mean((left[:, :5] * strengths[:5] ** power) ** 2))
    new = np.stack([slow_responses(kernels, record) for record in signals()])
    expected = ((new - mean) / deviation) @ right[:5].T * strengths[:5] ** (power - 1) / scale
    targets = model.eval()(signals()).targets.double().numpy()
    signs = np.sign((targets * expected).sum(0))  # a component has no direction
    np.testing.assert_allclose(targets * signs, expected, rtol=1e-3, atol=1e-3)
    of_fitted = model(signals(12, seed=3)[:10]).targets
    assert of_fitted.square().mean().item() == pytest.approx(1.0, abs=1e-3)


def test_median_beats_are_further_targets_that_noise_hardly_moves():
    beat = np.exp(-((np.arange(80) - 30) ** 2) / 18) * np.array([1.0, 2.0, -0.5])[:, None]
    records = []
    for number in range(12):
        signal = np.zeros((3, 400))
        for start in (20 + number, 120 + number, 220 + number, 310):
            signal[:, start : start + 80] += beat * (1 + 0.1 * number)
        records.append(signal)
    records = torch.tensor(np.stack(records), dtype=torch.float32)
    model = tiny_model(fitted=False, num_samples=400, target_size=2, beat_target_size=3)
    model.fit_targets([{"input_values": records[:10]}])
    targets = model.eval()(records).targets
    assert targets.shape == (12, 5) and targets[:10, 2].square().mean().item() == pytest.approx(1.0, abs=1e-3)
    # One component alone: the height of the beat. It goes on beyond the recordings of the fit.
    heights = targets[:, 2] * torch.sign(targets[11, 2] - targets[0, 2])
    assert (heights.diff() > 0.1).all()
    assert targets[:10, 3:].abs().max() < 0.1 * targets[:10, 2].abs().max()
    noisy = records + 0.02 * torch.randn(records.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(noisy).targets[:, 2], targets[:, 2], atol=0.2, rtol=0)


def test_fewer_records_than_components_leave_the_others_zero():
    responses = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    mean, components = principal_components(responses, size=6, power=0.5)
    scores = (responses - mean) @ components
    assert scores[:, :3].abs().sum() > 0 and not components[:, 3:].any()
    _, alike = principal_components(torch.ones(4, 30), size=6, power=0.5)
    assert not alike.any()


def test_targets_do_not_depend_on_the_batch_or_on_what_was_seen_before():
    model = tiny_model().eval()
    together = model(signals()).targets
    assert torch.equal(model(signals()).targets, together)
    again = tiny_model().eval()
    for row in (2, 0, 3):
        assert torch.equal(again(signals()[row : row + 1]).targets[0], together[row])
    assert not torch.equal(model(signals(seed=8)).targets, together)


def test_half_precision_is_refused_with_a_cure_that_works():
    with pytest.raises(ValueError, match="dtype=torch.float32 and train with bf16=True"):
        tiny_model(fitted=False).to(torch.bfloat16).train()(signals().to(torch.bfloat16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tiny_model(fitted=False).train()(signals()).loss.isfinite()


def test_targets_follow_the_names_of_the_leads():
    model = tiny_model().eval()
    reordered = model(signals()[:, [2, 0, 1]], leads=["V1", "I", "II"]).targets
    torch.testing.assert_close(reordered, model(signals()).targets, rtol=1e-4, atol=1e-4)


def test_an_evaluation_before_the_fit_leaves_no_trace_and_a_training_step_fits():
    model = tiny_model(fitted=False).eval()
    assert model(signals()).loss.isfinite() and model.needs_fitting
    assert not model.targets.components.any()
    model.train()(signals())
    fitted = model.targets.components.clone()
    assert fitted.any() and not model.needs_fitting
    model(signals(seed=8))
    assert torch.equal(model.targets.components, fitted)
    with pytest.raises(ValueError, match="at least two recordings"):
        model.fit_targets([])


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("ecg_transformers.modeling.modeling_kernel_response.REMEMBERED_RECORDINGS", 6)
    model = tiny_model().eval()
    for seed in range(3):
        model(signals(seed=seed))
    assert len(model.targets._known) <= 10  # those of the fit, and no more


@torch.no_grad()
@pytest.mark.parametrize(
    "fields", [{}, VICREG | {"beat_target_size": 4}, TRANSFORMER | VICREG], ids=["plain", "vicreg", "transformer"]
)
def test_the_losses_equal_manual_ones(fields):
    model = tiny_model(**fields).train()
    drawn = model.draw_inputs(signals(), KEYS)
    output = model(signals(), **drawn)
    rows = [
        model.ecg_vit(view[None], lead_mask=leads[None]).pooler_output[0]
        for view, leads in zip(drawn["views"].flatten(0, 1), drawn["view_leads"].flatten(0, 1), strict=True)
    ]
    features = torch.stack(rows)
    normed = (features - features.mean(0)) / (features.var(0, correction=0) + 1e-5).sqrt()
    predictions = normed @ model.response_head.weight.T + model.response_head.bias
    targets = output.targets.repeat_interleave(2, dim=0)
    expected = np.mean([(p - t).item() ** 2 for p, t in zip(predictions.flatten(), targets.flatten(), strict=True)])
    assert output.response_loss.item() == pytest.approx(expected, rel=1e-4)
    if not model.config.uses_vicreg:
        assert output.loss == output.response_loss and output.invariance_loss is None
        return
    first, second = model.projector(features).unflatten(0, (4, 2)).unbind(1)
    invariance = ((first - second) / 2).square().mean()
    variances, covariances = [], []
    for view in (first, second):
        matrix = np.cov(view.double().numpy().T)
        variances.append(np.maximum(0.0, 1 - np.sqrt(np.diag(matrix) + 1e-4)).mean())
        covariances.append((matrix**2).sum() - (np.diag(matrix) ** 2).sum())
    assert output.invariance_loss.item() == pytest.approx(invariance.item(), rel=1e-3)
    assert output.variance_loss.item() == pytest.approx(np.mean(variances), rel=1e-3)
    assert output.covariance_loss.item() == pytest.approx(np.mean(covariances) / 4, rel=1e-3)
    weighted = 0.5 * output.invariance_loss + 0.25 * output.variance_loss + 0.1 * output.covariance_loss
    torch.testing.assert_close(output.loss, output.response_loss + weighted)


def test_an_encoder_alone_gets_the_kernels_of_its_seed_and_is_fitted_anew(tmp_path):
    model = tiny_model()
    model.ecg_vit.save_pretrained(tmp_path)
    loaded = KernelResponseForPreTraining.from_pretrained(tmp_path)
    assert same_weights(loaded.ecg_vit, model.ecg_vit) and same_weights(loaded.targets, model.targets)
    assert loaded.needs_fitting and not loaded.targets.components.any()


def test_the_encoder_is_that_of_the_convolutional_model():
    shared = {name: TINY[name] for name in ("leads", "num_samples", "stem_widths", "stem_depths", "hidden_size")}
    model, plain = tiny_model().eval(), EcgConvModel(EcgConvConfig(**shared)).eval()
    plain.load_state_dict(model.ecg_vit.state_dict())
    assert torch.equal(plain(signals()).pooler_output, model.ecg_vit(signals()).pooler_output)
