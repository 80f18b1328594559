import pytest
import torch

from ecg_transformers.modeling.sigreg import draw_directions, knots_and_weights, sigreg


def readable_sigreg(projections, directions):
    """The formula as it is written down, in float64, with everything in memory at once."""
    knots = torch.linspace(0, 3, 17, dtype=torch.float64)
    weights = torch.exp(-(knots**2) / 2) * 2 * (3 / 16)
    weights[[0, -1]] /= 2
    angles = (projections.double() @ directions.double())[..., None] * knots  # (..., rows, directions, knots)
    cosine_error = angles.cos().mean(dim=-3) - torch.exp(-(knots**2) / 2)
    sine_error = angles.sin().mean(dim=-3)
    return (projections.shape[-2] * (cosine_error**2 + sine_error**2) @ weights).mean()


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit_directions(width, count, seed=1):
    return draw_directions(width, count, torch.Generator().manual_seed(seed))


def value_and_gradient(function, projections, directions):
    projections = projections.clone().requires_grad_()
    value = function(projections, directions)
    return value, torch.autograd.grad(value, projections)[0]


@pytest.mark.parametrize("shape", [(50, 16), (3, 50, 16), (1, 16), (700, 32)])
@pytest.mark.parametrize("count", [1, 64, 100])
def test_value_and_gradient_equal_the_readable_formula(shape, count):
    projections, directions = features(*shape) * 1.3 + 0.1, unit_directions(shape[-1], count)
    value, gradient = value_and_gradient(sigreg, projections, directions)
    expected, expected_gradient = value_and_gradient(readable_sigreg, projections.double(), directions)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    error = (gradient - expected_gradient).abs().max() / expected_gradient.abs().max()
    assert error < 1e-5


def test_value_and_gradient_equal_the_published_ones(golden, golden_facts):
    published, facts = golden("sigreg"), golden_facts("sigreg")
    scalars, tolerance = facts["scalars"], facts["tolerance"]["scalars"]["rtol"]
    views, directions = published["proj"], published["directions"]
    pooled, gradient = value_and_gradient(sigreg, views.flatten(0, 1), directions)
    assert pooled.item() == pytest.approx(scalars["lejepa_ecg.sigreg(pooled V*B)"], rel=tolerance)
    expected = published["lejepa_ecg.grad_sigreg"].flatten(0, 1)
    torch.testing.assert_close(gradient, expected, **facts["tolerance"]["grads"])
    per_view = sigreg(views, directions).item()
    assert per_view == pytest.approx(scalars["lejepa_lib.per_view_mean (input V,B,D)"], rel=tolerance)
    assert per_view == pytest.approx(scalars["minimal_md.per_view_mean"], rel=tolerance)
    single = sigreg(views[0], directions).item()
    assert single == pytest.approx(scalars["lejepa_lib.single_view0"], rel=tolerance)
    for slice_, expected in enumerate(published["lejepa_lib.per_slice_per_view"][0, :5]):
        torch.testing.assert_close(sigreg(views[0], directions[:, [slice_]]), expected, rtol=1e-5, atol=1e-6)


def test_knots_and_directions_are_the_published_ones(golden):
    published = golden("sigreg")
    for ours, name in zip(knots_and_weights(), ("t", "phi", "weights"), strict=True):
        torch.testing.assert_close(ours, published[name], rtol=1e-6, atol=1e-7)
    for step in (0, 1):
        drawn = draw_directions(16, 8, torch.Generator().manual_seed(step))
        torch.testing.assert_close(drawn, published[f"lejepa_lib.directions_D16_M8_step{step}"])


def test_the_gradient_vanishes_where_all_rows_are_zero_and_is_shared_where_they_are_equal():
    directions = unit_directions(8, 32)
    _, gradient = value_and_gradient(sigreg, torch.zeros(16, 8), directions)
    assert not gradient.any()
    _, gradient = value_and_gradient(sigreg, torch.full((16, 8), 0.3), directions)
    assert gradient.any() and torch.equal(gradient, gradient[:1].expand(16, -1))


def test_the_statistic_stays_float32_inside_autocast():
    projections, directions = features(64, 16), unit_directions(16, 64)
    expected = sigreg(projections, directions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(sigreg, projections, directions)
        from_half, half_gradient = value_and_gradient(sigreg, projections.bfloat16(), directions)
    assert value.dtype == torch.float32 and torch.equal(value, expected)
    assert gradient.dtype == torch.float32
    assert from_half.dtype == torch.float32 and half_gradient.dtype == torch.bfloat16


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got \(4, 8\) and \(7, 3\)"):
        sigreg(torch.zeros(4, 8), torch.zeros(7, 3))
