import pytest
import torch

from ecg_transformers.modeling.cropa import (
    cross_pattern_attention,
    cross_pattern_attention_with_weights,
    cross_pattern_mask,
)

IMPLEMENTATIONS = ("eager", "sdpa", "axial", "auto")
SHAPES = [
    (2, 8, 50, 4, 12),  # the published grid
    (2, 8, 24, 2, 12),  # a student's visible grid
    (2, 1, 50, 2, 8),  # one lead
    (1, 3, 20, 2, 8),
    pytest.param((1, 12, 250, 2, 8), marks=pytest.mark.slow),
    (2, 8, 1, 2, 8),  # one moment
]


def dense_attention(query, key, value, row_mask=None):
    """The oracle: every token against every token under the cross-shaped mask."""
    batch, rows, columns, heads, head_dim = query.shape
    query, key, value = (
        s.reshape(batch, rows * columns, heads, head_dim).transpose(1, 2) for s in (query, key, value)
    )
    scores = query @ key.transpose(-1, -2) * head_dim**-0.5
    mask = torch.zeros(rows * columns, rows * columns, dtype=torch.bool)
    for token in range(rows * columns):
        row, column = divmod(token, columns)
        mask[token, row * columns : (row + 1) * columns] = True
        mask[token, column::columns] = True
    mask = mask[None, None]
    if row_mask is not None:
        present = row_mask.repeat_interleave(columns, dim=1)
        mask = mask & (present[:, None, None] | torch.eye(rows * columns, dtype=torch.bool))
    output = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ value
    output = output.transpose(1, 2).reshape(batch, rows, columns, heads, head_dim)
    return output if row_mask is None else output * row_mask[:, :, None, None, None]


def random_states(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]


def some_leads_absent(shape):
    row_mask = torch.rand(shape[:2], generator=torch.Generator().manual_seed(1)) > 0.4
    row_mask[:, 0] = True
    row_mask[0, 1:] = False  # a record with a single lead
    return row_mask


@pytest.mark.parametrize("with_row_mask", [False, True])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_implementation_equals_the_dense_oracle(shape, implementation, with_row_mask):
    *states, upstream = random_states(shape)
    row_mask = some_leads_absent(shape) if with_row_mask else None
    exact_states = [state.clone().requires_grad_() for state in states]
    expected = dense_attention(*exact_states, row_mask)
    expected_grads = torch.autograd.grad(expected, exact_states, upstream)

    float_states = [state.float().requires_grad_() for state in states]
    output = cross_pattern_attention(*float_states, implementation=implementation, row_mask=row_mask)
    grads = torch.autograd.grad(output, float_states, upstream.float())

    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=0)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad.double(), expected_grad, atol=2e-5, rtol=0)


def test_weights_are_those_of_the_cross_and_reproduce_the_output():
    query, key, value, _ = random_states((2, 3, 5, 2, 8))
    output, weights = cross_pattern_attention_with_weights(query, key, value)
    assert weights.shape == (2, 2, 15, 15)
    assert torch.equal(weights != 0, cross_pattern_mask(3, 5).expand_as(weights))
    assert (cross_pattern_mask(8, 50).sum(-1) == 57).all()  # of the published grid
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
    flat = weights @ value.reshape(2, 15, 2, 8).transpose(1, 2)
    torch.testing.assert_close(flat.transpose(1, 2).reshape(output.shape), output)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_axial_attention_runs_in_half_precision(dtype):
    query, key, value, _ = random_states((1, 8, 50, 2, 16))
    output = cross_pattern_attention(query.to(dtype), key.to(dtype), value.to(dtype), "axial")
    assert output.dtype == dtype
    torch.testing.assert_close(output.double(), dense_attention(query, key, value), atol=3e-2, rtol=3e-2)


def test_an_unknown_implementation_and_flat_tensors_are_refused():
    query, key, value, _ = random_states((1, 2, 3, 1, 4))
    with pytest.raises(ValueError, match="axial.*got 'flash'"):
        cross_pattern_attention(query, key, value, "flash")
    with pytest.raises(ValueError, match="batch, rows, columns, heads, head_dim"):
        cross_pattern_attention(*(torch.zeros(1, 6, 8),) * 3)
