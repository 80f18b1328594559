"""ECGFounder (Li et al., arXiv 2410.04133) as an encoder: a convolutional network of the RegNet family.

A stem, then stages of pre-activation blocks: a pointwise convolution, a grouped one, a pointwise one, a gate of each
channel (squeeze and excitation), and a shortcut. Convolutions pad with zeros to the length of their input over the
stride. Where a block shortens the sequence its shortcut is max-pooled (after a padding by zeros, which a negative
signal loses against); where it widens, its shortcut gets channels of zeros on both sides. No norm is used: the
authors' class has batch norms, and their scripts for the published weights leave them out.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_ecg_founder import EcgFounderConfig
from .published_encoder import PublishedEncoderMixin, PublishedSequenceClassifier

STEM_STRIDE = 2


class EcgFounderConvolution(nn.Conv1d):
    """Zero-padded so that the output has `ceil(num_samples / stride)` samples; the odd zero comes last."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        length, stride = hidden_states.shape[-1], self.stride[0]
        missing = max(0, (-(-length // stride) - 1) * stride + self.kernel_size[0] - length)
        return super().forward(nn.functional.pad(hidden_states, (missing // 2, missing - missing // 2)))


class EcgFounderGate(nn.Module):
    """Squeeze and excitation: every channel is scaled by what the means of all channels say."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 2)
        self.fc2 = nn.Linear(channels // 2, channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weights = self.fc2(nn.functional.silu(self.fc1(hidden_states.mean(dim=-1))))
        return hidden_states * weights.sigmoid()[..., None]


class EcgFounderBlock(GradientCheckpointingLayer):
    """One residual block on `(batch, channels, num_samples)`; the very first has no activation before its input."""

    def __init__(self, config: EcgFounderConfig, in_channels: int, channels: int, stride: int | None, is_first: bool):
        super().__init__()
        self.stride = stride  # `None` in all but the first block of a stage: nothing is pooled there
        self.is_first = is_first
        self.num_new_channels = channels - in_channels
        self.conv1 = EcgFounderConvolution(in_channels, channels, 1)
        groups = channels // config.group_width
        self.conv2 = EcgFounderConvolution(channels, channels, config.kernel_size, stride=stride or 1, groups=groups)
        self.conv3 = EcgFounderConvolution(channels, channels, 1)
        self.gate = EcgFounderGate(channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        branch = self.conv1(hidden_states if self.is_first else nn.functional.silu(hidden_states))
        branch = self.conv2(nn.functional.silu(branch))
        branch = self.gate(self.conv3(nn.functional.silu(branch)))
        shortcut = hidden_states
        if self.stride is not None:
            before = (self.stride - 1) // 2
            shortcut = nn.functional.pad(shortcut, (before, self.stride - 1 - before))
            shortcut = nn.functional.max_pool1d(shortcut, self.stride)
        above = self.num_new_channels // 2
        return branch + nn.functional.pad(shortcut, (0, 0, above, self.num_new_channels - above))


class EcgFounderPreTrainedModel(PublishedEncoderMixin, PreTrainedModel):
    config: EcgFounderConfig
    config_class = EcgFounderConfig
    base_model_prefix = "ecg_founder"
    main_input_name = "input_values"
    input_modalities = ("time",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["EcgFounderBlock"]
    _can_record_outputs = {"hidden_states": EcgFounderBlock}

    @torch.no_grad()
    def _init_weights(self, module):
        """Kernels uniform by the number of inputs (PyTorch's own, which the authors leave as it is); linear layers
        normal, without biases."""
        if isinstance(module, nn.Conv1d):
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            init.zeros_(module.bias)


class EcgFounderModel(EcgFounderPreTrainedModel):
    """The encoder; `pooler_output` is the mean over time, which the authors' head reads."""

    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(self, config: EcgFounderConfig):
        super().__init__(config)
        self.stem = EcgFounderConvolution(
            len(config.leads), config.stem_channels, config.kernel_size, stride=STEM_STRIDE
        )
        self.stages = nn.ModuleList()
        in_channels = config.stem_channels
        for channels, depth in zip(config.stage_channels, config.stage_depths, strict=True):
            blocks = nn.ModuleList()
            for number in range(depth):
                is_first, stride = not self.stages and number == 0, config.stride if number == 0 else None
                blocks.append(EcgFounderBlock(config, in_channels, channels, stride, is_first))
                in_channels = channels
            self.stages.append(blocks)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        input_values, leads, lead_mask: see [`~PublishedEncoderMixin.arrange_leads`]. A missing lead is refused.

        Returns `last_hidden_state` `(batch_size, tokens, hidden_size)` and `pooler_output` `(batch_size,
        hidden_size)`.
        """
        hidden_states = nn.functional.silu(self.stem(self.arrange_leads(input_values, leads, lead_mask)))
        for blocks in self.stages:
            for block in blocks:
                hidden_states = block(hidden_states)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states.transpose(1, 2), pooler_output=hidden_states.mean(dim=-1)
        )


class EcgFounderForSequenceClassification(PublishedSequenceClassifier, EcgFounderPreTrainedModel):
    """[`EcgFounderModel`] with a linear head on the mean over time."""

    encoder_class = EcgFounderModel
