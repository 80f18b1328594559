"""SIGReg: how far one-dimensional projections of features are from a standard normal (LeJEPA, arXiv 2511.08544).

Along each of many random directions the empirical characteristic function of the projected rows is compared with that
of N(0, 1), `exp(-t^2 / 2)`, under a Gaussian weight (the Epps-Pulley statistic): with `c_k = mean_n cos(t_k u_n)`,
`s_k = mean_n sin(t_k u_n)` and `phi_k = exp(-t_k^2 / 2)` at equally spaced knots `t_k` of `[0, 3]`,

    T = N * sum_k w_k ((c_k - phi_k)^2 + s_k^2),   w_k = phi_k * trapezoid weight, doubled for the negative knots,

and SIGReg is the mean of T over the directions. Rows that are N(0, I) give 1.05 whatever N is; rows that are all zero
give 0.402 N, and there the gradient vanishes: SIGReg keeps features apart, it does not part them.

The knots are multiples of one step, so the fast path takes one cosine and one sine an element and turns the rest by
rotation; the gradient is computed along with the value, a few directions at a time, so that nothing of size
rows x directions x knots ever exists. Over several ranks the means of the cosines and sines are those of all rows
(summed before they are squared), so the value is that of one process on the concatenated batch.

Where we differ from the authors' code: float32 always, also inside autocast; LeJEPA-ECG neither reduces over ranks nor
shares its directions between them.
"""

import torch
from torch.autograd.function import once_differentiable
from transformers.utils.generic import maybe_autocast

from .collectives import sum_over_ranks, world_size

NUM_KNOTS = 17
LAST_KNOT = 3.0

DIRECTIONS_AT_A_TIME = 64
"""Rows x this many floats should stay in the cache of a core (measured: 32 to 128 are alike)."""


def draw_directions(width: int, num_directions: int, generator: torch.Generator) -> torch.FloatTensor:
    """Random unit vectors as the columns of `(width, num_directions)`: normal draws, each column divided by its norm.

    Args:
        generator (`torch.Generator`): on the CPU; keyed by seed and step, so that all ranks draw the same.
    """
    directions = torch.randn(width, num_directions, generator=generator)
    return directions / directions.norm(dim=0)


def sigreg(projections: torch.Tensor, directions: torch.Tensor, over_ranks: bool = True) -> torch.FloatTensor:
    r"""
    Statistic of features against N(0, I), a mean over the directions, and over the leading axis where there is one.

    Use it when nothing else, neither a teacher nor negatives, keeps features from collapsing.

    Args:
        projections (`torch.FloatTensor` of shape `(rows, width)` or `(groups, rows, width)`):
            Features. Groups (views) have a statistic each, and the mean of them is returned.
        directions (`torch.FloatTensor` of shape `(width, num_directions)`): Unit columns; no gradient reaches them.
        over_ranks (`bool`, *optional*, defaults to `True`):
            Whether the rows of all ranks count as one set. The gradient then fits the averaging of
            DistributedDataParallel: the parameters get what one process on the concatenated rows would give them.

    Returns:
        `torch.FloatTensor` of shape `()`.

    ```python
    import torch
    from ecg_transformers.modeling.sigreg import draw_directions, sigreg

    directions = draw_directions(16, 256, torch.Generator().manual_seed(0))
    sigreg(torch.randn(64, 16, requires_grad=True), directions).backward()
    ```
    """
    if projections.dim() not in (2, 3) or directions.dim() != 2 or projections.shape[-1] != directions.shape[0]:
        raise ValueError(
            "Expected projections (rows, width) or (groups, rows, width) and directions (width, num_directions), got "
            f"{tuple(projections.shape)} and {tuple(directions.shape)}."
        )
    groups = projections if projections.dim() == 3 else projections[None]
    return _SigReg.apply(groups.float(), directions.float(), over_ranks)


def knots_and_weights(device=None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The knots t_k, the target phi_k and the weights w_k (trapezoid rule on `[-3, 3]`, folded), `(17,)` each."""
    knots = torch.linspace(0.0, LAST_KNOT, NUM_KNOTS, device=device)
    target = torch.exp(-knots.square() / 2)
    trapezoid = torch.full_like(knots, 2 * LAST_KNOT / (NUM_KNOTS - 1))
    trapezoid[0] /= 2
    trapezoid[-1] /= 2
    return knots, target, trapezoid * target


class _SigReg(torch.autograd.Function):
    @staticmethod
    def forward(ctx, projections, directions, over_ranks):
        num_groups, num_rows, _ = projections.shape
        ranks = world_size() if over_ranks else 1
        total_rows = num_rows
        if ranks > 1:
            total_rows = sum_over_ranks(projections.new_full((), num_rows))
        knots, target, weights = knots_and_weights(projections.device)
        needs_gradient = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(projections) if needs_gradient else None
        value = projections.new_zeros(())
        with maybe_autocast(projections.device.type, enabled=False):
            for chunk in directions.split(DIRECTIONS_AT_A_TIME, dim=1):
                angles = (projections @ chunk).mul_(knots[1])  # (groups, rows, directions)
                cosine, sine = angles.cos(), angles.sin()
                means = _characteristic_function(cosine, sine, scratch=angles)
                if ranks > 1:
                    means = sum_over_ranks(means)
                means /= total_rows
                means[0] -= target[1:, None, None]  # the error of c_k; knot 0 has none
                value += total_rows * torch.einsum("pkgd,k->", means.square(), weights[1:])
                if needs_gradient:
                    # dT/du_n = sum_k 2 w_k t_k (s_k cos(t_k u_n) - (c_k - phi_k) sin(t_k u_n))
                    means *= (2 * weights * knots)[1:, None, None]
                    slopes = _trigonometric_sum(means[1], means[0], cosine, sine, scratch=angles)
                    gradient.baddbmm_(slopes, chunk.T.expand(num_groups, -1, -1))
        scale = 1.0 / (num_groups * directions.shape[1])
        if needs_gradient:
            # Every rank holds the whole statistic, so their sum, of which DDP takes the mean, holds it `ranks` times.
            ctx.save_for_backward(gradient.mul_(scale * ranks))
        return value * scale

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None


def _characteristic_function(cosine, sine, scratch) -> torch.Tensor:
    """Sums over the rows of cos(k a) and sin(k a), k = 1..16, as `(2, knots, groups, directions)`."""
    shape = (2, NUM_KNOTS - 1, cosine.shape[0], cosine.shape[2])
    sums = cosine.new_empty(shape)
    real, imaginary = cosine, sine
    buffers = [torch.empty_like(cosine) for _ in range(3)] + [scratch]
    for k in range(NUM_KNOTS - 1):
        if k:
            # e^{i(k+1)a} = e^{ika} e^{ia}, into the pair of buffers that does not hold e^{ika}
            next_real, next_imaginary = buffers[:2] if k % 2 else buffers[2:]
            torch.mul(real, cosine, out=next_real).addcmul_(imaginary, sine, value=-1)
            torch.mul(real, sine, out=next_imaginary).addcmul_(imaginary, cosine)
            real, imaginary = next_real, next_imaginary
        torch.sum(real, dim=1, out=sums[0, k])
        torch.sum(imaginary, dim=1, out=sums[1, k])
    return sums


def _trigonometric_sum(cosine_weights, sine_weights, cosine, sine, scratch) -> torch.Tensor:
    """`sum_k b_k cos(k a_n) - a_k sin(k a_n)` by Horner's rule: the real part of `sum_k (b_k + i a_k) e^{i k a_n}`.

    Args:
        cosine_weights, sine_weights (`torch.FloatTensor` of shape `(knots, groups, directions)`): b and a.
    """
    real = cosine_weights[-1][:, None].expand_as(cosine)
    imaginary = sine_weights[-1][:, None].expand_as(cosine)
    buffers = [torch.empty_like(cosine) for _ in range(3)] + [scratch]
    for k in range(NUM_KNOTS - 3, -1, -1):
        next_real, next_imaginary = buffers[:2] if k % 2 else buffers[2:]
        torch.addcmul(cosine_weights[k][:, None], real, cosine, out=next_real).addcmul_(imaginary, sine, value=-1)
        torch.addcmul(sine_weights[k][:, None], real, sine, out=next_imaginary).addcmul_(imaginary, cosine)
        real, imaginary = next_real, next_imaginary
    return (real * cosine).addcmul_(imaginary, sine, value=-1)
