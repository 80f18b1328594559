"""A state-space encoder of electrocardiograms: a convolutional stem and S4 layers, on tokens of a few milliseconds.

The structure is the encoder of ECG-CPC (Al-Masud, Lopez Alcaraz and Strodthoff, arXiv 2509.25095). The stem is a
convolution over all leads and pointwise ones, each with batch norm and ReLU; a layer is

    u -> long convolution -> GELU -> dropout -> linear to twice the width -> GLU -> dropout -> + u -> layer norm,

where a dropped channel is dropped over all time (see `state_space.py` for the convolution). Causal, a token knows what
came before it and nothing else, whatever the length of the input. As in the authors' code the steps of the
state spaces are drawn and stay; of a convolution only C and D learn. Where we differ: real coefficients in place of
complex ones of which the kernel's length is a part (the same functions, another weight decay), and batch norms that
see all ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_ecg_s4 import EcgS4Config
from .leads import lead_indices
from .modeling_ecg_vit import (
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
    EcgViTPreTrainedModel,
)
from .patch_embedding import TokenGrid, check_rows, take_rows
from .projector import SyncedBatchNorm1d, init_projector_weights
from .state_space import StateSpaceConvolution


@dataclass
class EcgS4ModelOutput(BaseModelOutputWithPooling):
    """
    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, tokens, hidden_size)`): c, after the last layer.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, hidden_size)`): Pooled by `config.pooling`.
        token_embeddings (`torch.FloatTensor` of shape `(batch_size, tokens, hidden_size)`): z, after the stem.
    """

    token_embeddings: torch.FloatTensor | None = None


class EcgS4Linear(nn.Linear):
    """A linear that starts from torch's own distribution, unlike those of heads."""


class EcgS4Stem(nn.Module):
    """From `(batch, num_leads, num_samples)` to a token every `patch_size` samples, `(batch, tokens, hidden_size)`.

    A token sees its `patch_size` samples and the one before them, of all leads; a rest at the end has a token too.
    """

    def __init__(self, config: EcgS4Config):
        super().__init__()
        self.config = config
        width, norm_class = config.hidden_size, SyncedBatchNorm1d if config.sync_statistics else nn.BatchNorm1d
        self.projection = EcgS4Linear(len(config.position_leads) * (config.patch_size + 1), width, bias=False)
        self.pointwise = nn.ModuleList(
            [EcgS4Linear(width, width, bias=False) for _ in range(config.num_stem_layers - 1)]
        )
        self.norms = nn.ModuleList([norm_class(width) for _ in range(config.num_stem_layers)])

    def forward(
        self, input_values: torch.Tensor, leads: Sequence[str] | None = None, lead_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        config = self.config
        leads = tuple(config.leads if leads is None else leads)
        check_rows(config, input_values, leads, lead_mask)
        lead_rows, weight = lead_indices(leads, config.position_leads), self.projection.weight
        if lead_mask is not None:
            input_values = torch.where(lead_mask[..., None], input_values, 0.0)
        padding = (1, -input_values.shape[-1] % config.patch_size)
        values = nn.functional.pad(input_values, padding).unfold(-1, config.patch_size + 1, config.patch_size)
        weight = take_rows(weight.unflatten(1, (len(config.position_leads), -1)), lead_rows, dim=1).flatten(1)
        batch, num_tokens = len(values), values.shape[2]
        rows = nn.functional.linear(values.transpose(1, 2).reshape(batch * num_tokens, -1), weight)
        rows = nn.functional.relu(self.norms[0](rows))
        for linear, norm in zip(self.pointwise, self.norms[1:], strict=True):
            rows = nn.functional.relu(norm(linear(rows)))
        return rows.unflatten(0, (batch, num_tokens))


class EcgS4Layer(GradientCheckpointingLayer):
    """A state-space layer with its norm behind the residual, on `(batch, tokens, hidden_size)`."""

    def __init__(self, config: EcgS4Config, bidirectional: bool | None = None, state_size: int | None = None):
        super().__init__()
        width = config.hidden_size
        self.dropout = config.dropout
        self.convolution = StateSpaceConvolution(
            width,
            config.state_size if state_size is None else state_size,
            config.num_columns,
            tuple(1 / (seconds * config.token_rate) for seconds in reversed(config.memory_seconds)),
            config.bidirectional if bidirectional is None else bidirectional,
        )
        self.output = EcgS4Linear(width, 2 * width)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        branch = self._drop_channels(nn.functional.gelu(self.convolution(hidden_states)))
        branch = self._drop_channels(nn.functional.glu(self.output(branch), dim=-1))
        return self.layernorm(hidden_states + branch)

    def _drop_channels(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.dropout == 0.0:
            return hidden_states
        kept = hidden_states.new_ones(len(hidden_states), 1, hidden_states.shape[2])
        return hidden_states * nn.functional.dropout(kept, self.dropout)


class EcgS4PreTrainedModel(EcgViTPreTrainedModel):
    config_class = EcgS4Config
    _no_split_modules = ["EcgS4Stem", "EcgS4Layer"]
    _can_record_outputs = {"hidden_states": EcgS4Layer}
    # A step of ten bits would be another step.
    _keep_in_fp32_modules_strict = ["convolution"]

    def post_init(self):
        super().post_init()
        # DistributedDataParallel sends buffers around before each step; these follow from the steps, equal everywhere.
        self._ddp_params_and_buffers_to_ignore = [
            name for name, _ in self.named_buffers() if name.endswith((".powers", ".basis"))
        ]

    @torch.no_grad()
    def _init_weights(self, module):
        """C and D are N(0, 1), steps log-uniform, maps of the stem and the layers as torch begins them."""
        if isinstance(module, StateSpaceConvolution):
            init.normal_(module.coefficients)
            init.normal_(module.skip)
            init.uniform_(module.log_step, *module.log_step_range)
            powers, basis = module.prepared(1 << (len(module.powers) - 1))
            init.copy_(module.powers, powers)
            init.copy_(module.basis, basis)
        elif isinstance(module, EcgS4Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif not init_projector_weights(module):
            super()._init_weights(module)


class EcgS4Model(EcgS4PreTrainedModel, EcgViTModel):
    """The bare encoder: signal in, a hidden state a token and a pooled feature a record out.

    ```python
    import torch
    from ecg_transformers.modeling import EcgS4Config, EcgS4Model

    config = EcgS4Config(leads=["I", "II"], hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    model = EcgS4Model(config).eval()
    model(torch.randn(1, 2, 600)).last_hidden_state.shape  # (1, 300, 32): a token every 8.3 ms of 2.5 s
    ```
    """

    def __init__(self, config: EcgS4Config):
        super(EcgViTModel, self).__init__(config)  # stem and layers are others than its
        self.embeddings = EcgS4Stem(config)
        self.layers = nn.ModuleList([EcgS4Layer(config) for _ in range(config.num_hidden_layers)])
        self.layernorm = nn.Identity()  # each layer ends with a norm of its own
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        mask_token: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgS4ModelOutput:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_leads, num_samples)`):
            ECG in the unit of the feature extractor (mV as published), sampled at `config.sampling_rate` Hz, of any
            length, leads in the order of `config.leads`.
        leads (`Sequence[str]`, *optional*):
            Names of the rows of this batch where they are not `config.leads`: fewer leads, or another order.
        lead_mask (`torch.BoolTensor` of shape `(batch_size, num_leads)`, *optional*):
            `True` where a lead was recorded. A missing lead adds nothing to the first convolution.
        bool_masked_pos (`torch.BoolTensor` of shape `(batch_size, tokens)`, *optional*):
            `True` = hidden: `mask_token` takes the place of what the stem made of the signal. No token is dropped: a
            state that skipped some would have another time.
        mask_token (`torch.FloatTensor` of shape `(hidden_size,)`, *optional*): By default zeros.
        """
        if input_values is None:
            raise ValueError("Expected input_values of shape (batch, num_leads, num_samples), got None.")
        embeddings = self.embeddings(input_values.to(self.embeddings.projection.weight.dtype), leads, lead_mask)
        hidden_states = embeddings
        if bool_masked_pos is not None:
            if bool_masked_pos.shape != embeddings.shape[:2]:
                raise ValueError(
                    f"Expected bool_masked_pos of shape {tuple(embeddings.shape[:2])}, got "
                    f"{tuple(bool_masked_pos.shape)}."
                )
            mask_token = embeddings.new_zeros(()) if mask_token is None else mask_token.to(embeddings.dtype)
            hidden_states = torch.where(bool_masked_pos[..., None], mask_token, embeddings)
        columns = torch.arange(hidden_states.shape[1], device=hidden_states.device)[None]
        grid, pooled_layers = TokenGrid(1, columns.shape[1], torch.zeros_like(columns), columns), self._pooled_layers()
        for number, layer in enumerate(self.layers):
            if number in pooled_layers:
                grid.pooled_states.append(hidden_states)
            hidden_states = layer(hidden_states, **kwargs)
        if len(self.layers) in pooled_layers:
            grid.pooled_states.append(hidden_states)
        return EcgS4ModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=self.pool(hidden_states, hidden_states, grid),
            token_embeddings=embeddings,
        )


class EcgS4ForSequenceClassification(EcgS4PreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = EcgS4Model


class EcgS4ForTokenClassification(EcgS4PreTrainedModel, EcgViTForTokenClassification):
    encoder_class = EcgS4Model


class EcgS4ForEmbedding(EcgS4PreTrainedModel, EcgViTForEmbedding):
    encoder_class = EcgS4Model
