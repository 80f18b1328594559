"""The long convolution of a linear state space (S4, arXiv 2111.00396), in a fixed real basis.

Each channel has a state of N numbers that follows its input u and is read by C, with a direct path D:

    x_t = A x_{t-1} + B u_t,    y_t = C x_t + D u_t,

where A and B are the HiPPO-LegS matrices, discretised by the bilinear rule with the channel's own step. The step is
drawn once and stays, so that y is the convolution of u with C times N fixed functions: no eigenvalues, no Cauchy
product, no complex numbers, and no length that the parameters depend on.

The convolution is done block by block, by matrix products alone. Within a block of `BLOCK` tokens it is the direct
sum; from block to block goes the state, in a number of turns that grows with the logarithm of their number. Time and
memory grow linearly with the tokens, short input is the direct sum alone, and the graph exports. (How it compares with
an FFT and with attention on the CPU: tests/benchmarks/test_state_space_speed.py and docs/methods.md.)
"""

import math

import torch
from torch import nn
from transformers.utils.generic import maybe_autocast

from .recomputation import within_torch_func

BLOCK = 32
"""Tokens of a block; a power of two."""


def hippo_legs(state_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The continuous HiPPO-LegS matrices (arXiv 2008.07669) in float64: A `(N, N)`, lower triangular, and B `(N,)`."""
    order = torch.arange(state_size, dtype=torch.float64)
    roots = torch.sqrt(2 * order + 1)
    return -(roots[:, None] * roots).tril(-1) - torch.diag(order + 1), roots


def discretize(step: torch.Tensor, state_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of the recurrence by the bilinear rule, in float64, on the CPU.

    Args:
        step (`torch.Tensor` of shape `(channels,)`): Step of each channel, in units of the state's own time a token.

    Returns:
        `(channels, N, N)` and `(channels, N)`.
    """
    state_matrix, input_matrix = hippo_legs(state_size)
    step = step.detach().cpu().double()[:, None, None]
    identity = torch.eye(state_size, dtype=torch.float64)
    right = torch.cat(((identity + step / 2 * state_matrix), step * input_matrix[:, None]), dim=-1)
    solved = torch.linalg.solve_triangular(identity - step / 2 * state_matrix, right, upper=False)
    return solved[..., :-1], solved[..., -1]


def state_space_basis(step: torch.Tensor, state_size: int, length: int) -> torch.Tensor:
    """The N functions of each channel, `A^l B` for l = 0 to `length - 1`, in float64: `(channels, N, length)`."""
    power, vector = discretize(step, state_size)
    columns = vector[..., None]
    while columns.shape[-1] < length:
        columns = torch.cat((columns, power @ columns), dim=-1)
        power = power @ power
    return columns[..., :length]


class StateSpaceConvolution(nn.Module):
    """Convolves every channel with a kernel of its own: `C A^l B` at lag l, and D at lag 0.

    Args:
        channels (`int`): Channels.
        state_size (`int`): Size N of a channel's state.
        num_tokens (`int`): Tokens that it is prepared for; longer input prepares it anew.
        step_range (`tuple[float, float]`): Smallest and largest step (one over the tokens that a state remembers),
            drawn log-uniformly.
        bidirectional (`bool`): Whether a second kernel looks ahead; lag 0 is in both.
    """

    def __init__(
        self,
        channels: int,
        state_size: int,
        num_tokens: int,
        step_range: tuple[float, float] = (1e-3, 1e-1),
        bidirectional: bool = False,
    ):
        super().__init__()
        self.state_size = state_size
        self.log_step_range = tuple(math.log(step) for step in step_range)
        float32 = {"dtype": torch.float32}  # in a model of half precision too
        directions = 2 if bidirectional else 1
        self.coefficients = nn.Parameter(torch.randn(directions, channels, state_size, **float32))  # C
        self.skip = nn.Parameter(torch.randn(channels, **float32))  # D
        self.register_buffer("log_step", torch.empty(channels, **float32).uniform_(*self.log_step_range))
        shape = (_num_powers(num_tokens), channels, state_size, state_size)
        self.register_buffer("powers", torch.empty(shape, **float32), persistent=False)
        self.register_buffer("basis", torch.empty(channels, state_size, BLOCK, **float32), persistent=False)
        if self.log_step.device.type != "meta":
            self.powers, self.basis = self.prepared(num_tokens)
        self.register_load_state_dict_post_hook(_prepare_after_loading)

    @torch.no_grad()
    def prepared(self, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes what the step alone decides: A to the powers 1, 2, 4, ... for so many tokens, and a basis."""
        step = self.log_step.detach().cpu().double().exp()
        powers = [discretize(step, self.state_size)[0]]
        while len(powers) < _num_powers(num_tokens):
            powers.append(powers[-1] @ powers[-1])
        basis = state_space_basis(step, self.state_size, BLOCK)
        return torch.stack(powers).to(self.powers), basis.to(self.basis)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch, tokens, channels)` to the same shape. Computes in float32 or better, inside autocast too."""
        num_tokens = hidden_states.shape[1]
        if _num_powers(num_tokens) > len(self.powers):
            self.powers, self.basis = self.prepared(num_tokens)
        with maybe_autocast(hidden_states.device.type, enabled=False):
            dtype = torch.promote_types(self.coefficients.dtype, torch.float32)
            signal, coefficients = hidden_states.to(dtype), self.coefficients.to(dtype)
            output = self._convolve(signal, coefficients[0])
            if len(coefficients) > 1:
                output = output + self._convolve(signal.flip(1), coefficients[1]).flip(1)
            output = torch.addcmul(output, signal, self.skip)
        return output.to(hidden_states.dtype)

    def _convolve(self, signal: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        batch, num_tokens, channels = signal.shape
        block = min(BLOCK, 1 << max(num_tokens - 1, 0).bit_length())
        num_blocks = -(-num_tokens // block)
        blocks = nn.functional.pad(signal, (0, 0, 0, num_blocks * block - num_tokens))
        blocks = _transposed(blocks.flatten(0, 1)).view(channels, -1, block)  # (channels, batch * blocks, block)
        basis = self.basis[..., :block].to(signal.dtype)
        kernel = (coefficients[:, None] @ basis)[:, 0]  # (channels, block)
        # Column t of the direct sum holds the kernel upside down, from its lag t at token 0 to lag 0 at token t.
        direct = nn.functional.pad(kernel, (block - 1, 0)).unfold(1, block, 1).flip(2)  # [t, s] = kernel[t - s]
        if num_blocks == 1:
            output = torch.bmm(blocks, direct.transpose(1, 2))
        else:
            # One product for both: the direct sum, and what a block adds to the state at its end.
            columns = torch.cat((direct.transpose(1, 2), basis.flip(2).transpose(1, 2)), dim=2)
            output, states = torch.bmm(blocks, columns).split((block, self.state_size), dim=2)
            before = self._states_before(states.unflatten(1, (batch, num_blocks)), block)
            output = torch.baddbmm(output, before.flatten(1, 2), self._readout(coefficients, block).transpose(1, 2))
        output = _transposed(output.flatten(1)).view(batch, -1, channels)
        return output[:, :num_tokens]

    def _states_before(self, states: torch.Tensor, block: int) -> torch.Tensor:
        """From what each block adds to the state, `(channels, batch, blocks, N)`, the state before each block."""
        number, distance = block.bit_length() - 1, 1  # powers[number] is A to the power of `block * distance`
        while distance < states.shape[2]:
            earlier = states[:, :, :-distance]
            power = self.powers[number].to(states.dtype)
            carried = torch.bmm(earlier.flatten(1, 2), power.transpose(1, 2)).view(earlier.shape)
            states = torch.cat((states[:, :, :distance], states[:, :, distance:] + carried), dim=2)
            number, distance = number + 1, 2 * distance
        return nn.functional.pad(states[:, :, :-1], (0, 0, 1, 0))

    def _readout(self, coefficients: torch.Tensor, block: int) -> torch.Tensor:
        """`C A^(t+1)` for each token t of a block, `(channels, block, N)`: what is left of the state before it."""
        powers, number = self.powers[: block.bit_length()].to(coefficients.dtype), 0
        rows = coefficients[:, None] @ powers[0]
        while rows.shape[1] < block:
            rows = torch.cat((rows, rows @ powers[number]), dim=1)
            number += 1
        return rows


class _Transposed(torch.autograd.Function):
    """A transposed copy of a matrix, whose gradient is one too: left to autograd, all that comes before it would work
    on a transposed view, at two thirds of the speed."""

    @staticmethod
    def forward(ctx, matrix: torch.Tensor) -> torch.Tensor:
        return matrix.t().contiguous()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.t().contiguous()


def _transposed(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.t().contiguous() if within_torch_func() else _Transposed.apply(matrix)


def _num_powers(num_tokens: int) -> int:
    """The highest power that is asked for is below the number of tokens, and a block needs its own."""
    return max(num_tokens, 2 * BLOCK).bit_length()


def _prepare_after_loading(module: StateSpaceConvolution, incompatible_keys) -> None:
    """A loaded step brings its own powers and basis, which are not in the file."""
    if module.log_step.device.type != "meta":
        module.powers, module.basis = module.prepared(1 << (len(module.powers) - 1))
