"""Axial attention against dense attention under an N x N mask, as the published code computes it."""

import pytest
import torch

from ecg_transformers.modeling.cropa import cross_pattern_attention, cross_pattern_mask

pytestmark = pytest.mark.slow


def dense(query, key, value):
    batch, rows, columns, heads, head_dim = query.shape
    query, key, value = (
        s.reshape(batch, rows * columns, heads, head_dim).transpose(1, 2) for s in (query, key, value)
    )
    scores = query @ key.transpose(-1, -2) * head_dim**-0.5
    scores = scores.masked_fill(~cross_pattern_mask(rows, columns), float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, rows, columns, heads, head_dim)


@pytest.mark.parametrize(
    ("shape", "backward", "bound"),
    [
        ((8, 8, 50, 16, 48), False, 2.0),
        ((8, 8, 50, 16, 48), True, 1.7),
        ((1, 12, 250, 16, 48), False, 6.0),
        ((1, 12, 250, 16, 48), True, 6.0),
    ],
    ids=["8x50 forward", "8x50 both", "12x250 forward", "12x250 both"],
)
def test_axial_attention_beats_dense_attention(shape, backward, bound, times_faster):
    states = [torch.randn(shape, requires_grad=backward) for _ in range(3)]
    torch.testing.assert_close(cross_pattern_attention(*states, "axial"), dense(*states), atol=1e-5, rtol=0)

    def run(attention):
        output = attention(*states)
        if backward:
            torch.autograd.grad(output.sum(), states)

    ratio = times_faster(lambda: run(dense), lambda: run(lambda *s: cross_pattern_attention(*s, "axial")), rounds=3)
    assert ratio >= bound
