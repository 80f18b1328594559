"""A convolutional stem: strided convolutions and ConvNeXt blocks from the signal to the same grid of tokens.

Blocks follow ConvNeXt (Liu et al., arXiv 2201.03545) in one dimension: a depthwise convolution over time, a layer norm
over the channels of each token, and an MLP. No norm runs over time, so that a token knows nothing of samples outside
of its receptive field, and nothing of samples that were blanked within.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_ecg_vit import EcgViTConfig


class ChannelsLastConv1d(nn.Conv2d):
    """Convolution over time of `(batch, time, channels)`, zero-padded so that time is divided by the stride.

    The input is a picture of one row to PyTorch, whose memory is already in the order that its fast kernels want.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        padding = (0, (kernel_size - stride + 1) // 2)
        super().__init__(in_channels, out_channels, (1, kernel_size), (1, stride), padding, groups=groups)

    def forward(self, hidden_states: torch.Tensor, channels: Sequence[int] | None = None) -> torch.Tensor:
        """`(batch, time, channels)` to `(batch, time / stride, out_channels)`.

        channels (`Sequence[int]`, *optional*): Input channels that came, in their order, where they are not all.
        """
        weight = self.weight if channels is None else self.weight[:, channels]
        picture = hidden_states.transpose(1, 2).unsqueeze(2)
        return self._conv_forward(picture, weight, self.bias).squeeze(2).transpose(1, 2)


class ConvStemBlock(GradientCheckpointingLayer):
    """One ConvNeXt block of `(batch, time, width)`, with LayerScale and stochastic depth as the encoder has them."""

    def __init__(self, config: EcgViTConfig, width: int, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.depthwise = ChannelsLastConv1d(width, width, config.stem_block_kernel, groups=width)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.layer_norm_bias)
        self.fc1 = ChannelsLastConv1d(width, config.stem_mlp_ratio * width, 1)
        self.fc2 = ChannelsLastConv1d(config.stem_mlp_ratio * width, width, 1)
        self.layer_scale = None
        if config.layer_scale_init_value is not None:
            self.layer_scale = nn.Parameter(torch.full((width,), float(config.layer_scale_init_value)))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        branch = self.fc2(nn.functional.gelu(self.fc1(self.layernorm(self.depthwise(hidden_states)))))
        if self.layer_scale is not None:
            branch = branch * self.layer_scale
        if self.drop_path_rate == 0.0 or not self.training:
            return hidden_states + branch
        keep = 1.0 - self.drop_path_rate
        return torch.addcmul(hidden_states, branch, branch.new_empty(len(branch), 1, 1).bernoulli_(keep) / keep)


class ConvStemStage(nn.Module):
    """A strided convolution, normed after it in the first stage and before it in the others, then blocks."""

    def __init__(self, config: EcgViTConfig, in_channels: int, number: int, drop_path_rates: Sequence[float]):
        super().__init__()
        width, stride = config.stem_widths[number], config.stem_strides[number]
        self.is_first = number == 0
        kernel_size = config.stem_kernel if self.is_first else 2 * stride if stride % 2 == 0 else stride
        self.convolution = ChannelsLastConv1d(in_channels, width, kernel_size, stride)
        norm = {"eps": config.layer_norm_eps, "bias": config.layer_norm_bias}
        self.layernorm = nn.LayerNorm(width if self.is_first else in_channels, **norm)
        self.blocks = nn.ModuleList([ConvStemBlock(config, width, rate) for rate in drop_path_rates])

    def forward(self, hidden_states: torch.Tensor, channels: Sequence[int] | None = None) -> torch.Tensor:
        if self.is_first:
            hidden_states = self.layernorm(self.convolution(hidden_states, channels))
        else:
            hidden_states = self.convolution(self.layernorm(hidden_states))
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


class ConvStem(nn.Module):
    """From the signal to tokens of `hidden_size`: of each lead alone, with weights that all leads share
    (`patching="per_lead"`), or of all leads at once (`"all_leads"`)."""

    def __init__(self, config: EcgViTConfig):
        super().__init__()
        self.config = config
        num_blocks = sum(config.stem_depths)
        # Where transformer layers follow, stochastic depth is theirs.
        last_rate = 0.0 if config.num_hidden_layers else config.drop_path_rate
        rates = iter([last_rate * number / max(num_blocks - 1, 1) for number in range(num_blocks)])
        self.stages = nn.ModuleList()
        channels = 1 if config.patching == "per_lead" else len(config.position_leads)
        for number, depth in enumerate(config.stem_depths):
            self.stages.append(ConvStemStage(config, channels, number, [next(rates) for _ in range(depth)]))
            channels = config.stem_widths[number]

    def forward(self, signal: torch.Tensor, lead_rows: list[int]) -> list[torch.Tensor]:
        """
        signal (`torch.FloatTensor` of shape `(batch, num_leads, num_samples)`): hidden and absent samples are 0.
        lead_rows (`list[int]`): Places of its leads in `config.position_leads`.

        Returns the grid after each stage, `(batch, rows, num_samples / strides so far, width)`.
        """
        batch, num_leads, _ = signal.shape
        if self.config.patching == "per_lead":
            hidden_states, rows, channels = signal.flatten(0, 1)[..., None], num_leads, None
        else:
            hidden_states, rows = signal.transpose(1, 2), 1
            channels = None if lead_rows == list(range(len(self.config.position_leads))) else lead_rows
        grids = []
        for stage in self.stages:
            hidden_states = stage(hidden_states, channels)
            grids.append(hidden_states.unflatten(0, (batch, rows)))
        return grids


@torch.no_grad()
def init_stem_weights(module: nn.Module, config: EcgViTConfig) -> bool:
    """Initialises a part of a stem, its convolutions as torch does; `False` if `module` is none."""
    if isinstance(module, ChannelsLastConv1d):
        bound = module.weight[0].numel() ** -0.5
        init.uniform_(module.weight, -bound, bound)
        init.uniform_(module.bias, -bound, bound)
    elif isinstance(module, ConvStemBlock):
        if module.layer_scale is not None:
            init.constant_(module.layer_scale, config.layer_scale_init_value)
    else:
        return False
    return True
