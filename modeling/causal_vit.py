"""A causal transformer layer with rotary positions, normed queries and keys and a gated MLP (the trunk of LeNEPA)."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_ecg_vit import EcgViTConfig
from .modeling_ecg_vit import EcgViTAttention, EcgViTBranchOutput, eager_attention_forward

ROTARY_BASE = 1e4


def rotary_angles(num_tokens: int, head_dim: int, device=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of t * base^(-2k / head_dim) for token t and pair k, `(num_tokens, head_dim / 2)` each (RoPE,
    arXiv 2104.09864)."""
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
    angles = torch.arange(num_tokens, dtype=torch.float64, device=device)[:, None] * ROTARY_BASE ** (-pairs / head_dim)
    return angles.cos().float(), angles.sin().float()


def rotate(states: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Turns the channel pairs (k, k + head_dim / 2) of `(batch, heads, tokens, head_dim)` by the angles of tokens."""
    first, second = states.chunk(2, dim=-1)
    cosine, sine = cosine.to(states.dtype), sine.to(states.dtype)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class CausalAttention(EcgViTAttention):
    """Attention to the tokens up to one's own; what counts is the distance, by rotary positions."""

    def __init__(self, config: EcgViTConfig, layer_number: int):
        super().__init__(config, layer_number)
        self.is_causal = True
        self.q_norm = nn.LayerNorm(self.head_dim, eps=config.layer_norm_eps)
        self.k_norm = nn.LayerNorm(self.head_dim, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, num_tokens, _ = hidden_states.shape
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (
            projection(hidden_states).view(batch, num_tokens, self.num_heads, self.head_dim).transpose(1, 2)
            for projection in projections
        )
        angles = rotary_angles(num_tokens, self.head_dim, hidden_states.device)
        query, key = rotate(self.q_norm(query), *angles), rotate(self.k_norm(key), *angles)
        wants_weights = kwargs.get("output_attentions") or self.config.output_attentions
        implementation = "eager" if wants_weights else self.config._attn_implementation
        mask = None
        if implementation == "eager":
            mask = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=hidden_states.device).tril()
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        output, weights = attend(self, query, key, value, mask, scaling=self.scaling, is_causal=mask is None)
        return self.o_proj(output.reshape(batch, num_tokens, -1)), weights


class GatedMLP(nn.Module):
    """SwiGLU with the activation of the configuration: `down(act(gate(x)) * up(x))`."""

    def __init__(self, config: EcgViTConfig, layer_number: int):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.activation = ACT2FN[config.hidden_act]
        self.down_proj = EcgViTBranchOutput(
            config.intermediate_size, config.hidden_size, config.use_bias, layer_number
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.activation(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))


class CausalViTLayer(GradientCheckpointingLayer):
    """Pre-norm block on `(batch, tokens, hidden_size)`; layers are numbered from 1."""

    def __init__(self, config: EcgViTConfig, layer_number: int):
        super().__init__()
        norm = {"eps": config.layer_norm_eps, "bias": config.layer_norm_bias}
        self.layernorm_before = nn.LayerNorm(config.hidden_size, **norm)
        self.attention = CausalAttention(config, layer_number)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, **norm)
        self.mlp = GatedMLP(config, layer_number)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        attention_output, _ = self.attention(self.layernorm_before(hidden_states), **kwargs)
        hidden_states = hidden_states + attention_output
        return hidden_states + self.mlp(self.layernorm_after(hidden_states))
