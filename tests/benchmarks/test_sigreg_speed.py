"""SIGReg against its readable formula: time of value and gradient, and the memory that they take beside the input."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ecg_transformers.modeling.sigreg import draw_directions, knots_and_weights, sigreg

pytestmark = pytest.mark.slow

WIDTH, NUM_SLICES = 128, 1024


def readable_sigreg(projections, directions):
    knots, target, weights = knots_and_weights()
    angles = (projections @ directions)[..., None] * knots  # (rows, directions, knots)
    error = (angles.cos().mean(0) - target).square() + angles.sin().mean(0).square()
    return (len(projections) * error @ weights).mean()


def inputs(num_rows):
    generator = torch.Generator().manual_seed(0)
    projections = torch.randn(num_rows, WIDTH, generator=generator, requires_grad=True)
    return projections, draw_directions(WIDTH, NUM_SLICES, generator)


def peak_bytes(function, projections, directions):
    """The most that was allocated at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        torch.autograd.grad(function(projections, directions), projections)
    held, most = 0, 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.parametrize("num_rows", [1024, 1760])
def test_the_fused_statistic_is_at_least_five_times_as_fast(num_rows, times_faster):
    projections, directions = inputs(num_rows)
    expected = readable_sigreg(projections, directions)
    torch.testing.assert_close(sigreg(projections, directions), expected, rtol=1e-6, atol=0)

    def run(statistic):
        torch.autograd.grad(statistic(projections, directions), projections)

    assert times_faster(lambda: run(readable_sigreg), lambda: run(sigreg), rounds=5) >= 5.0


@pytest.mark.parametrize("num_rows", [1024, 1760])
def test_the_fused_statistic_takes_a_fiftieth_of_the_memory(num_rows, record_property):
    projections, directions = inputs(num_rows)
    slow = peak_bytes(readable_sigreg, projections, directions)
    fast = peak_bytes(sigreg, projections, directions)
    record_property("megabytes", (round(slow / 1e6, 1), round(fast / 1e6, 1)))
    record_property("ratio", round(slow / fast, 1))
    assert slow >= 50 * fast
