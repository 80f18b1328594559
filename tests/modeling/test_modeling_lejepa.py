import pytest
import torch

from ecg_transformers.modeling.configuration_lejepa import LeJepaConfig
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_lejepa import LeJepaForPreTraining
from ecg_transformers.train.callbacks import CollapseMonitor

from .tiny_methods import SMALL

TINY = SMALL | {"sampling_rate": 100, "num_samples": 200, "patch_size": 20, "num_views": 2, "num_slices": 32}
TINY |= {"projector_hidden_size": 24, "projection_size": 8}
KEYS = DrawKeys(seed=1, step=5, epoch=2, sample_ids=(10, 11, 12, 13))


def tiny_model(**fields):
    torch.manual_seed(0)
    return LeJepaForPreTraining(LeJepaConfig(**{**TINY, **fields}))


def signals(batch=4):
    return torch.randn(batch, 3, 200, generator=torch.Generator().manual_seed(7))


def manual_losses(model, views, directions, pooled):
    """Invariance and SIGReg of the paper, a record, a view, a direction and a knot at a time."""
    batch, num_views = views.shape[:2]
    features = torch.stack([model.ecg_vit(view[None]).pooler_output[0] for view in views.flatten(0, 1)])
    projector = model.projector
    hidden_states = features
    for linear, norm in ((projector.fc1, projector.norm1), (projector.fc2, projector.norm2)):
        hidden_states = linear(hidden_states)
        mean, variance = hidden_states.mean(0), hidden_states.var(0, unbiased=False)
        hidden_states = (hidden_states - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
        hidden_states = torch.nn.functional.gelu(hidden_states)
    z = projector.fc3(hidden_states).view(batch, num_views, -1)
    invariance = torch.stack([(view - record.mean(0)) ** 2 for record in z for view in record]).mean()
    groups = [z.flatten(0, 1)] if pooled else [z[:, view] for view in range(num_views)]
    statistics = []
    for rows in groups:
        for direction in directions.T:
            u, statistic = rows @ direction, 0.0
            for knot in range(17):
                t = torch.tensor(3 * knot / 16)
                weight = torch.exp(-(t**2) / 2) * (3 / 16) * (1 if knot in (0, 16) else 2)
                error = (torch.cos(t * u).mean() - torch.exp(-(t**2) / 2)) ** 2 + torch.sin(t * u).mean() ** 2
                statistic = statistic + weight * error
            statistics.append(len(rows) * statistic)
    return invariance, torch.stack(statistics).mean(), z


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["per_view", "pooled"])
def test_the_losses_equal_manual_ones(pooling):
    model = tiny_model(sigreg_pooling=pooling, sigreg_weight=0.1).train()
    inputs = model.draw_inputs(signals(), KEYS)
    output = model(signals(), **inputs)
    invariance, sigreg, z = manual_losses(model, **inputs, pooled=pooling == "pooled")
    torch.testing.assert_close(output.invariance_loss, invariance)
    torch.testing.assert_close(output.sigreg_loss, sigreg, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.loss, 0.1 * sigreg + 0.9 * invariance, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.projections, z.transpose(0, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.projection_std, z.std(dim=0, unbiased=False).mean(), rtol=1e-4, atol=1e-5)
    assert output.pooler_output.shape == (4, 32) and output.last_hidden_state.shape == (8, 11, 32)


def test_loss_and_gradient_of_given_projections_equal_the_published_ones(golden, golden_facts):
    published, facts = golden("sigreg"), golden_facts("sigreg")
    model = tiny_model(projection_size=128, sigreg_pooling="pooled", num_views=4).train()
    projections = published["proj"].clone().requires_grad_()
    model.projector.forward = lambda features: projections.transpose(0, 1).flatten(0, 1)
    output = model(views=torch.zeros(32, 4, 3, 200), directions=published["directions"])
    assert output.loss.item() == pytest.approx(facts["scalars"]["lejepa_ecg.loss"], rel=1e-5)
    assert output.invariance_loss.item() == pytest.approx(facts["scalars"]["lejepa_ecg.inv"], rel=1e-5)
    output.loss.backward()
    torch.testing.assert_close(projections.grad, published["lejepa_ecg.grad_total"], **facts["tolerance"]["grads"])


def test_the_defaults_are_the_published_encoder_and_projector():
    with torch.device("meta"):
        model = LeJepaForPreTraining(LeJepaConfig())
    assert sum(p.numel() for p in model.ecg_vit.parameters()) == 14_303_232
    assert sum(p.numel() for p in model.parameters()) == 19_558_528
    config = model.config
    assert (config.num_columns, config.leads[3:6], config.layer_norm_eps) == (200, ("aVR", "aVL", "aVF"), 1e-6)


def test_published_views_are_never_cropped_and_corrected_ones_are():
    quiet = {"noise_std": 0.0, "wander_amplitude": 0.0, "amplitude_scale": (1.0, 1.0), "max_shift": 0.0}
    published = tiny_model(augmentation="published", **quiet).draw_inputs(signals(), KEYS)["views"]
    assert torch.equal(published, signals()[:, None].expand(-1, 2, -1, -1))
    directions = tiny_model().draw_inputs(signals(), KEYS)["directions"]
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(32))
    corrected = tiny_model(**quiet).draw_inputs(signals(), KEYS)["views"]
    assert not (corrected == signals()[:, None]).flatten(2).all(dim=2).any()


def test_biases_norms_and_registers_do_not_decay_unless_parity_asks_for_it():
    model = tiny_model()
    decayed = {name for name, parameter in model.named_parameters() if model.has_weight_decay(name, parameter)}
    assert "ecg_vit.layers.0.mlp.fc1.weight" in decayed and "projector.fc3.weight" in decayed
    for name in decayed:
        assert not any(part in name for part in ("bias", "norm", "register_tokens")), name
    parity = tiny_model(decay_all_parameters=True)
    assert all(parity.has_weight_decay(name, parameter) for name, parameter in parity.named_parameters())


def collapsed_model():
    """An encoder whose features are the same for all records: exact collapse."""
    model = tiny_model().train()
    with torch.no_grad():
        model.ecg_vit.layernorm.weight.zero_()
        model.ecg_vit.layernorm.bias.fill_(0.3)
    return model


def test_exact_collapse_gives_no_gradient_that_parts_records():
    model = collapsed_model()
    output = model(signals())
    projections = output.projections
    gradient = torch.autograd.grad(output.loss, projections, retain_graph=True)[0]
    torch.testing.assert_close(gradient, gradient[:, :1].expand_as(gradient), atol=1e-6, rtol=0)
    assert output.projection_std < 1e-6


def test_the_collapse_monitor_sees_an_exact_collapse():
    monitor, healthy = CollapseMonitor(), CollapseMonitor()
    monitor.observe(collapsed_model()(signals()).pooler_output)
    healthy.observe(tiny_model().train()(signals()).pooler_output)
    assert monitor.measure()["feature_spread"] < 1e-6 < healthy.measure()["feature_spread"]


def test_input_that_is_no_views_is_refused():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"num_views of at least 2.*got \(4, 1, 3, 200\)"):
        model(views=torch.zeros(4, 1, 3, 200), directions=torch.zeros(8, 32))
    with pytest.raises(ValueError, match="or views, got None"):
        model()
