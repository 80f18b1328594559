"""CPU time of a state-space convolution, forward and backward, against the authors' formulation and against attention.

The authors evaluate each kernel by a Cauchy product in complex numbers at its length and convolve by FFT; an FFT of a
kernel from the real basis stands beside it. Attention is the causal layer of equal width, without its MLP, to the
convolution with its pointwise map.
"""

import pytest
import torch
from torch import nn

from ecg_transformers.modeling import EcgLeNepaConfig, EcgS4Config
from ecg_transformers.modeling.causal_vit import CausalAttention
from ecg_transformers.modeling.modeling_ecg_s4 import EcgS4Layer
from ecg_transformers.modeling.state_space import StateSpaceConvolution, hippo_legs, state_space_basis

pytestmark = pytest.mark.slow

WIDTH, STATE = 512, 8


class ComplexKernel(nn.Module):
    """A kernel as the authors have it: conjugate pairs, a correction of rank one, nodes on a circle; then FFT."""

    def __init__(self, log_step: torch.Tensor, num_tokens: int):
        super().__init__()
        matrix, inputs = hippo_legs(STATE)
        low_rank = torch.sqrt(torch.arange(STATE, dtype=torch.float64) + 0.5)
        values, vectors = torch.linalg.eigh(-1j * (matrix + low_rank[:, None] * low_rank + 0.5 * torch.eye(STATE)))
        kept = values > 0
        self.poles = (-0.5 + 1j * values[kept]).to(torch.complex64)
        self.inputs, self.low_rank = (
            (vectors.conj().T @ vector.to(vectors.dtype))[kept].to(torch.complex64) for vector in (inputs, low_rank)
        )
        self.step = log_step.exp()[:, None]
        self.outputs = nn.Parameter(torch.randn(len(log_step), STATE // 2, 2))
        nodes = torch.exp(
            -2j * torch.pi * torch.arange(num_tokens + 1, dtype=torch.float64) / (2 * num_tokens) + 1e-9j
        )
        self.nodes, self.z = nodes.to(torch.complex64), (2 * (1 - nodes) / (1 + nodes)).to(torch.complex64)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        num_tokens = hidden_states.shape[1]
        outputs = torch.view_as_complex(self.outputs)
        rows = torch.stack((outputs, self.low_rank.conj().expand_as(outputs)))  # C and Q
        columns = torch.stack((self.inputs, self.low_rank))  # B and P
        weights = rows[:, None] * columns[None, :, None]  # (2, 2, channels, N / 2)
        denominators = self.z[:, None] - (self.step * self.poles)[:, None]
        conjugates = self.z[:, None] - (self.step * self.poles.conj())[:, None]
        cauchy = (weights[..., None, :] / denominators + weights.conj()[..., None, :] / conjugates).sum(-1)
        cauchy = cauchy * self.step
        values = cauchy[0, 0] - cauchy[0, 1] * cauchy[1, 0] / (1 + cauchy[1, 1])
        kernel = torch.fft.irfft(values * 2 / (1 + self.nodes), n=2 * num_tokens)[:, :num_tokens]
        return convolve_by_fft(hidden_states, kernel)


class RealKernelByFft(nn.Module):
    """The same functions as ours, from a basis of the whole length, convolved by FFT."""

    def __init__(self, log_step: torch.Tensor, num_tokens: int):
        super().__init__()
        self.coefficients = nn.Parameter(torch.randn(len(log_step), STATE))
        self.basis = state_space_basis(log_step.exp(), STATE, num_tokens).float()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return convolve_by_fft(hidden_states, (self.coefficients[:, None] @ self.basis)[:, 0])


def convolve_by_fft(hidden_states, kernel):
    signal, length = hidden_states.transpose(1, 2), hidden_states.shape[1]
    product = torch.fft.rfft(signal, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
    return torch.fft.irfft(product, n=2 * length)[..., :length].transpose(1, 2)


def step(function, values):
    """A forward and a backward pass on memory of its own, whose place decides a tenth."""
    return lambda: function(values.clone()).square().mean().backward()


@pytest.mark.parametrize(("num_tokens", "batch", "bounds"), [(300, 8, (1.8, 0.8)), (1200, 4, (2.5, 1.0))])
def test_blocks_beat_complex_kernels_and_on_long_input_an_fft(num_tokens, batch, bounds, times_faster):
    torch.manual_seed(0)
    ours = StateSpaceConvolution(WIDTH, STATE, num_tokens)
    values = torch.randn(batch, num_tokens, WIDTH, requires_grad=True)
    for kind, bound in zip((ComplexKernel, RealKernelByFft), bounds, strict=True):
        other = kind(ours.log_step, num_tokens)
        assert times_faster(step(other, values), step(ours, values), rounds=9, name=kind.__name__) >= bound


@pytest.mark.parametrize(("num_tokens", "batch", "bound"), [(300, 8, 1.2), (1200, 4, 1.5)])
def test_a_layer_beats_attention_of_its_width(num_tokens, batch, bound, times_faster):
    torch.manual_seed(0)
    ours = EcgS4Layer(EcgS4Config(num_samples=2 * num_tokens, dropout=0.0))
    attention = CausalAttention(
        EcgLeNepaConfig(hidden_size=WIDTH, num_attention_heads=8, attn_implementation="sdpa"), layer_number=1
    )
    values = torch.randn(batch, num_tokens, WIDTH, requires_grad=True)
    theirs = step(lambda hidden_states: attention(hidden_states)[0], values)
    assert times_faster(theirs, step(ours, values), rounds=9) >= bound


def test_what_is_kept_for_the_gradient_grows_with_the_length(record_property):
    def kept_bytes(num_tokens):
        module, values = StateSpaceConvolution(16, STATE, num_tokens), torch.randn(1, num_tokens, 16)
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            module(values.requires_grad_())
        return total

    ratio = kept_bytes(9600) / kept_bytes(2400)
    record_property("ratio", round(ratio, 2))
    assert ratio < 6  # 4 times the tokens; an N x N matrix would be 16 times
