import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_transformers.modeling.state_space import (
    BLOCK,
    StateSpaceConvolution,
    discretize,
    hippo_legs,
    state_space_basis,
)


def convolution(channels=6, state_size=8, num_tokens=100, bidirectional=False):
    module = StateSpaceConvolution(channels, state_size, num_tokens, bidirectional=bidirectional)
    generator = torch.Generator().manual_seed(0)
    state = {
        "coefficients": torch.randn(module.coefficients.shape, generator=generator),
        "skip": torch.randn(channels, generator=generator),
        "log_step": torch.empty(channels).uniform_(-6.9, -2.3, generator=generator),
    }
    module.load_state_dict(state)
    return module


def recurrence(module, signal):
    """x_t = A x_{t-1} + B u_t, y_t = C x_t, token by token in float64; and D."""
    state_matrix, input_matrix = discretize(module.log_step.double().exp(), module.state_size)

    def run(values, coefficients):
        state = torch.zeros(len(values), *input_matrix.shape, dtype=torch.float64)
        outputs = []
        for token in range(values.shape[1]):
            state = (state_matrix @ state[..., None])[..., 0] + input_matrix * values[:, token, :, None]
            outputs.append((state * coefficients).sum(-1))
        return torch.stack(outputs, dim=1)

    values, coefficients = signal.double(), module.coefficients.detach().double()
    output = run(values, coefficients[0]) + values * module.skip.detach().double()
    if len(coefficients) > 1:
        output = output + run(values.flip(1), coefficients[1]).flip(1)
    return output


@settings(max_examples=16, deadline=None, derandomize=True)
@given(
    num_tokens=st.integers(1, 200),
    state_size=st.sampled_from([1, 8, 64]),
    bidirectional=st.booleans(),
    prepared_for=st.sampled_from([1, 100, 1000]),
)
def test_the_convolution_is_the_recurrence(num_tokens, state_size, bidirectional, prepared_for):
    module = convolution(2, state_size, prepared_for, bidirectional)
    signal = torch.randn(2, num_tokens, 2, generator=torch.Generator().manual_seed(num_tokens))
    expected = recurrence(module, signal)
    error = (module(signal) - expected).abs().max() / expected.abs().max()
    assert error < 1e-6


def test_the_continuous_matrices_are_those_of_hippo():
    state_matrix, input_matrix = hippo_legs(3)
    roots = [1, 3**0.5, 5**0.5]
    expected = torch.tensor(
        [[-1, 0, 0], [-roots[1], -2, 0], [-roots[2], -roots[1] * roots[2], -3]], dtype=torch.float64
    )
    torch.testing.assert_close(state_matrix, expected)
    torch.testing.assert_close(input_matrix, torch.tensor(roots, dtype=torch.float64))


def test_the_basis_is_that_of_the_discretised_recurrence():
    step = torch.tensor([0.1, 0.003])
    state_matrix, input_matrix = discretize(step, 8)
    column = input_matrix
    basis = state_space_basis(step, 8, 40)
    for lag in range(40):
        torch.testing.assert_close(basis[..., lag], column, rtol=1e-10, atol=1e-12)
        column = (state_matrix @ column[..., None])[..., 0]


@pytest.mark.parametrize("num_tokens", [20, 70])
def test_gradients_are_those_of_the_recurrence(num_tokens):
    module = convolution(3, 4).double()
    signal = torch.randn(2, num_tokens, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, num_tokens, 3, dtype=torch.float64)
    (module(signal) * weights).sum().backward()
    basis = state_space_basis(module.log_step.exp(), 4, num_tokens)
    lag = torch.arange(num_tokens)[:, None] - torch.arange(num_tokens)
    shifted = torch.where(lag >= 0, basis[..., lag.clamp(min=0)], 0.0)  # (channels, N, t, s)
    kernel = torch.einsum("cn,cnts->cts", module.coefficients[0].detach(), shifted)
    torch.testing.assert_close(
        module.coefficients.grad[0],
        torch.einsum("btc,cnts,bsc->cn", weights, shifted, signal.detach()),
        rtol=1e-4,
        atol=1e-4,
    )
    expected = torch.einsum("btc,cts->bsc", weights, kernel) + weights * module.skip.detach()
    torch.testing.assert_close(signal.grad, expected, rtol=1e-4, atol=1e-4)


def test_a_loaded_step_brings_its_own_basis():
    source, target = convolution(), convolution()
    with torch.no_grad():
        source.log_step.uniform_(-4, -3)
    source.load_state_dict(source.state_dict())
    target.load_state_dict(source.state_dict())
    signal = torch.randn(1, 50, 6)
    torch.testing.assert_close(target(signal), source(signal), rtol=0, atol=0)
    torch.testing.assert_close(target(signal).double(), recurrence(target, signal), rtol=1e-4, atol=1e-5)


def test_longer_input_than_prepared_for_changes_nothing_before():
    module, signal = convolution(num_tokens=BLOCK), torch.randn(1, 500, 6)
    short = copy.deepcopy(module)(signal[:, :BLOCK])
    torch.testing.assert_close(module(signal)[:, :BLOCK], short, rtol=1e-5, atol=1e-5)
    assert set(module.state_dict()) == {"coefficients", "skip", "log_step"}


def test_inside_autocast_it_stays_in_float32():
    module, signal = convolution(), torch.randn(1, 100, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(module(signal), module(signal.clone()), rtol=0, atol=0)
        assert module(signal).dtype == torch.float32
    assert module(signal.bfloat16()).dtype == torch.bfloat16
