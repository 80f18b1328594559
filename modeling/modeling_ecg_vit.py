"""The ECG vision transformer: one encoder for per-lead and all-lead patches, with Cross-Pattern or full attention.

Hidden states live on a grid of rows (leads) x columns (time patches), stored row by row as `(batch, tokens, hidden)`
after `num_registers` free tokens. What differs from an image ViT:

* patches and positions are those of `patch_embedding.py`: by lead name, hidden ones dropped before the first layer;
* positions can be added to the input of every layer (Kim, arXiv 2410.08559);
* attention along the cross of a token never forms an N x N matrix on a large grid (see `cropa.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput, TokenClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .calibration import CalibratedModelMixin
from .collectives import gather_rows
from .configuration_ecg_vit import EcgViTConfig
from .conv_stem import init_stem_weights
from .cropa import cross_pattern_attention, cross_pattern_attention_with_weights, token_cross_mask
from .leads import lead_indices
from .masking import DrawKeys
from .metric_learning import EmbeddingProjection, mined_triplet_loss
from .patch_embedding import (
    EcgViTEmbeddings,
    TokenGrid,
    mean_of_patches,
    position_table,
    statistics_of_patches,
    take_rows,
)
from .recomputation import RecomputedInBackward, call_module, may_recompute
from .remote_code import ShippedModelMixin

# `axial` only means something on the cross; where the attention is full it is plain SDPA.
AttentionInterface.register("axial", sdpa_attention_forward)
AttentionMaskInterface.register("axial", sdpa_mask)


def eager_attention_forward(module, query, key, value, attention_mask, scaling, **kwargs):
    """Plain attention on `(batch, heads, N, head_dim)` with a boolean mask; also returns the weights."""
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


class EcgViTBranchOutput(nn.Linear):
    """The last linear of a residual branch; deeper layers start smaller (Kim)."""

    def __init__(self, in_features: int, out_features: int, bias: bool, layer_number: int):
        super().__init__(in_features, out_features, bias=bias)
        self.layer_number = layer_number


class EcgViTAttention(nn.Module):
    """Multi-head attention: along the cross on a grid, dense (with a mask if there must be one) otherwise."""

    def __init__(self, config: EcgViTConfig, layer_number: int):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        inner_width = self.num_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, inner_width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, inner_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, inner_width, bias=config.qkv_bias)
        self.o_proj = EcgViTBranchOutput(inner_width, config.hidden_size, config.use_bias, layer_number)

    def forward(self, hidden_states: torch.Tensor, grid: TokenGrid, **kwargs):
        batch, length, _ = hidden_states.shape
        wants_weights = kwargs.get("output_attentions") or self.config.output_attentions
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (p(hidden_states).view(batch, length, self.num_heads, self.head_dim) for p in projections)
        if self.config.attention_pattern == "cropa" and grid.attention_mask is None:
            output, weights = self._attend_on_grid(query, key, value, grid, wants_weights)
        else:
            implementation = "eager" if wants_weights else self.config._attn_implementation
            attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
            query, key, value = (states.transpose(1, 2) for states in (query, key, value))
            output, weights = attend(self, query, key, value, grid.attention_mask, scaling=self.scaling)
        return self.o_proj(output.reshape(batch, length, -1)), weights

    def _attend_on_grid(self, query, key, value, grid, wants_weights):
        shape = (query.shape[0], grid.num_rows, grid.num_columns, self.num_heads, self.head_dim)
        query, key, value = (states.view(shape) for states in (query, key, value))
        if wants_weights:  # only the eager form has them
            return cross_pattern_attention_with_weights(query, key, value, grid.row_mask)
        implementation = self.config._attn_implementation
        implementation = "auto" if implementation == "sdpa" else implementation
        return cross_pattern_attention(query, key, value, implementation, grid.row_mask), None


class EcgViTMLP(nn.Module):
    def __init__(self, config: EcgViTConfig, layer_number: int):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = EcgViTBranchOutput(config.intermediate_size, config.hidden_size, config.use_bias, layer_number)

    def forward(self, hidden_states: torch.Tensor, call: Callable = call_module) -> torch.Tensor:
        return self.fc2(call(self.activation, self.fc1(hidden_states)))


class EcgViTResidual(nn.Module):
    """Adds a branch to its residual, through LayerScale and stochastic depth (one draw a sample and branch)."""

    def __init__(self, config: EcgViTConfig, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.layer_scale = None
        if config.layer_scale_init_value is not None:
            self.layer_scale = nn.Parameter(torch.full((config.hidden_size,), float(config.layer_scale_init_value)))

    def forward(self, residual: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        if self.layer_scale is not None:
            branch = branch * self.layer_scale
        if self.drop_path_rate == 0.0 or not self.training:
            return residual + branch
        keep = 1.0 - self.drop_path_rate
        scale = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep) / keep
        return torch.addcmul(residual, branch, scale)


class EcgViTLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block; layers are numbered from 1."""

    def __init__(self, config: EcgViTConfig, layer_number: int):
        super().__init__()
        norm = {"eps": config.layer_norm_eps, "bias": config.layer_norm_bias}
        # Stochastic depth rises linearly from 0 in the first layer to the configured rate in the last.
        drop_path_rate = config.drop_path_rate * (layer_number - 1) / max(config.num_hidden_layers - 1, 1)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, **norm)
        self.attention = EcgViTAttention(config, layer_number)
        self.attention_residual = EcgViTResidual(config, drop_path_rate)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, **norm)
        self.mlp = EcgViTMLP(config, layer_number)
        self.mlp_residual = EcgViTResidual(config, drop_path_rate)

    def forward(self, hidden_states: torch.Tensor, grid: TokenGrid, **kwargs) -> torch.Tensor:
        if not may_recompute():
            return self._add_branches(hidden_states, grid, call_module, **kwargs)
        with RecomputedInBackward() as call:
            return self._add_branches(hidden_states, grid, call, **kwargs)

    def _add_branches(self, hidden_states: torch.Tensor, grid: TokenGrid, call: Callable, **kwargs) -> torch.Tensor:
        attention_output, _ = self.attention(call(self.layernorm_before, hidden_states), grid, **kwargs)
        hidden_states = self.attention_residual(hidden_states, attention_output)
        mlp_output = self.mlp(call(self.layernorm_after, hidden_states), call)
        return self.mlp_residual(hidden_states, mlp_output)


class EcgViTPreTrainedModel(ShippedModelMixin, CalibratedModelMixin, PreTrainedModel):
    config_class = EcgViTConfig
    base_model_prefix = "ecg_vit"
    main_input_name = "input_values"
    input_modalities = ("time",)
    supports_gradient_checkpointing = True
    _num_own_draws = 0
    _no_split_modules = ["EcgViTEmbeddings", "EcgViTLayer"]
    _supports_sdpa = True
    _supports_flash_attn = False
    _supports_flex_attn = False
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": EcgViTLayer, "attentions": EcgViTAttention}

    def own_keys(self, batch_size: int) -> DrawKeys:
        """Keys of the draws of a pretraining batch that came without them: always the same in evaluation, so that
        losses compare; others each time in training. The batch's places stand for the records."""
        number = 0
        if self.training:
            self._num_own_draws += 1
            number = self._num_own_draws
        return DrawKeys(seed=0, step=number, epoch=number, sample_ids=tuple(range(batch_size)))

    def step_inputs(self, inputs: dict[str, torch.Tensor], keys: DrawKeys) -> dict[str, torch.Tensor]:
        """The arguments of `forward` of a pretraining model for one step: a batch (`input_values` and, where leads are
        absent, `lead_mask`) and what is drawn for it."""
        return inputs | self.draw_inputs(inputs["input_values"], keys)

    def has_weight_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Matrices decay, and so do tokens; biases, norms and LayerScale do not (the rule of Kim's code)."""
        return parameter.ndim > 1 and "bias" not in name

    @torch.no_grad()
    def _init_weights(self, module):
        """Normal(0, 0.02) weights, zero biases; the last linear of a residual branch of layer l (from 1) is divided by
        sqrt(2 l) (Kim)."""
        std = self.config.initializer_range
        if init_stem_weights(module, self.config):
            return
        if isinstance(module, nn.Linear):
            depth = 2 * module.layer_number if isinstance(module, EcgViTBranchOutput) else 1
            init.normal_(module.weight, mean=0.0, std=std / depth**0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            if module.weight is not None:
                init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, EcgViTEmbeddings):
            if self.config.position_embedding == "learned":
                init.normal_(module.position_embeddings, mean=0.0, std=std)
            elif self.config.position_embedding != "none":
                init.copy_(module.position_embeddings, position_table(module.config, module.config.hidden_size))
            if module.config.num_registers:
                init.normal_(module.register_tokens, mean=0.0, std=std)
            if module.config.lead_separators:
                init.normal_(module.separator, mean=0.0, std=std)
                init.normal_(module.lead_embeddings, mean=0.0, std=std)
        elif isinstance(module, EcgViTAttentivePooler):
            init.normal_(module.query_token, mean=0.0, std=std)
        elif isinstance(module, EmbeddingProjection):
            module.reset_parameters()
        elif isinstance(module, EcgViTResidual) and module.layer_scale is not None:
            init.constant_(module.layer_scale, self.config.layer_scale_init_value)


class EcgViTModel(EcgViTPreTrainedModel):
    """The bare encoder: signal in, one hidden state a patch and a pooled feature a record out."""

    def __init__(self, config: EcgViTConfig):
        super().__init__(config)
        self.embeddings = EcgViTEmbeddings(config)
        self.layers = nn.ModuleList([EcgViTLayer(config, number + 1) for number in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.layer_norm_bias)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        if self.config.stem == "conv":
            return self.embeddings.stem.stages[0].convolution
        return self.embeddings.projection

    def set_input_embeddings(self, value: nn.Module):
        if self.config.stem == "conv":
            self.embeddings.stem.stages[0].convolution = value
        else:
            self.embeddings.projection = value

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        visible_patches: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_leads, num_samples)`):
            ECG in the unit of the feature extractor (mV unless it normalises), sampled at `config.sampling_rate` Hz,
            leads in the order of `config.leads`.
        leads (`Sequence[str]`, *optional*):
            Names of the rows of this batch where they are not `config.leads`: fewer leads, or another order.
        lead_mask (`torch.BoolTensor` of shape `(batch_size, num_leads)`, *optional*):
            `True` where a lead was recorded. Missing leads are left out of attention and pooling, not read as zeros.
        bool_masked_pos (`torch.BoolTensor`, *optional*):
            `(batch_size, columns)` for all rows, or `(batch_size, rows, columns)`. `True` = hidden. Hidden patches
            are dropped: the output holds the visible tokens only, in grid order.
        visible_patches (`torch.LongTensor` of shape `(batch_size or 1, visible)`, *optional*):
            Increasing indices of what `bool_masked_pos` leaves visible, among columns or among rows x columns. Without
            them the host waits for the mask, and nothing compiles as one graph.

        Returns `last_hidden_state` `(batch_size, num_registers + tokens, hidden_size)`, registers first, then row by
        row, and `pooler_output` `(batch_size, config.pooled_size)`.
        """
        hidden_states, grid = self.encode_tokens(
            input_values, leads, lead_mask, bool_masked_pos, visible_patches, **kwargs
        )
        last_hidden_state = self.layernorm(hidden_states)
        pooled = self.pool(hidden_states, last_hidden_state, grid)
        if self.config.lead_separators:  # internal to the encoder
            last_hidden_state = last_hidden_state[:, grid.num_prefix :]
        return BaseModelOutputWithPooling(last_hidden_state=last_hidden_state, pooler_output=pooled)

    def pool(self, hidden_states: torch.Tensor, last_hidden_state: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
        """`pooler_output` of all tokens before and after the final norm, by `config.pooling`, of the layer or layers
        of `config.pooled_layer`."""
        if grid.pooled_states:
            hidden_states = torch.stack(grid.pooled_states).mean(dim=0)
            last_hidden_state = torch.stack([self.layernorm(states) for states in grid.pooled_states]).mean(dim=0)
        if self.config.pooling == "class_token":
            return last_hidden_state[:, 0]
        if self.config.pooling == "mean_then_norm":
            return self.layernorm(mean_of_patches(hidden_states[:, grid.num_prefix :], grid.present))
        if self.config.pooling == "statistics":
            parts = []
            for tokens, present in grid.stage_tokens:
                # No scale and shift to learn: a head has them, and heads on tokens would leave them without gradient.
                tokens = nn.functional.layer_norm(tokens, tokens.shape[-1:], eps=self.config.layer_norm_eps)
                parts.append(statistics_of_patches(tokens, present, self.config.stage_statistics))
            tokens = last_hidden_state[:, grid.num_prefix :]
            parts.append(statistics_of_patches(tokens, grid.present, self.config.statistics))
            return torch.cat(parts, dim=-1).to(last_hidden_state.dtype)
        return mean_of_patches(last_hidden_state[:, grid.num_prefix :], grid.present)

    def encode_tokens(
        self,
        input_values: torch.Tensor | None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        visible_patches: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, TokenGrid]:
        """All tokens after the last layer and before the final norm, `(batch, num_prefix + tokens, hidden_size)`, with
        registers or separators first, and where they lie. Arguments as in `forward`."""
        if input_values is None:
            raise ValueError("Expected input_values of shape (batch, num_leads, num_samples), got None.")
        input_values = input_values.to(self.layernorm.weight.dtype)
        hidden_states, positions, grid = self.embeddings(
            input_values, leads, lead_mask, bool_masked_pos, visible_patches
        )
        grid.attention_mask = self._dense_attention_mask(grid)
        pooled_layers = self._pooled_layers()
        for number, layer in enumerate(self.layers):
            if number in pooled_layers:
                grid.pooled_states.append(hidden_states)
            if number == 0 or self.config.position_every_layer:
                hidden_states = hidden_states + positions
            hidden_states = layer(hidden_states, grid, **kwargs)
        if len(self.layers) in pooled_layers:
            grid.pooled_states.append(hidden_states)
        return hidden_states, grid

    def _pooled_layers(self) -> range:
        """Numbers of the layers to pool besides the last one, which is always at hand; 0 is the embeddings."""
        chosen, last = self.config.pooled_layer, len(self.layers)
        if chosen == "mean_last_half" and last > 1:
            return range(last // 2 + 1, last + 1)
        if isinstance(chosen, int) and chosen % (last + 1) < last:
            return range(chosen % (last + 1), chosen % (last + 1) + 1)
        return range(0)

    def _dense_attention_mask(self, grid: TokenGrid) -> torch.Tensor | None:
        """The mask of layers that do not attend on the grid; `None` where they do, or where all see all."""
        if self.config.attention_pattern == "full":
            if grid.present is None:
                return None
            # A query without any key would give NaN: a record without a lead sees its zeros.
            keys = grid.present | ~grid.present.any(dim=1, keepdim=True)
            if self.config.lead_separators:
                prefix = grid.row_mask.repeat(1, 2)
            else:
                prefix = keys.new_ones(len(keys), grid.num_prefix)
            return torch.cat((prefix, keys), dim=1)[:, None, None, :]
        if not grid.ragged and not grid.num_prefix:
            return None
        mask = token_cross_mask(grid.rows, grid.columns)
        if grid.present is not None:
            # An absent row still sees itself: a query without any key would give NaN.
            same_row = grid.rows[:, :, None] == grid.rows[:, None, :]
            mask = mask & (grid.present[:, None, :] | same_row)
        mask = nn.functional.pad(mask, (grid.num_prefix, 0, grid.num_prefix, 0), value=True)
        if grid.present is not None and grid.num_prefix:  # registers see what is present
            mask[:, : grid.num_prefix, grid.num_prefix :] = grid.present[:, None, :]
        return mask[:, None]


class EcgViTAttentivePooler(nn.Module):
    """One learned query attends to all tokens, registers included; no norm, no MLP, no residual (Weimann)."""

    def __init__(self, config: EcgViTConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        for name in ("q_proj", "k_proj", "v_proj"):
            self.add_module(name, nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias))

    def forward(self, hidden_states: torch.Tensor, token_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        hidden_states (`torch.FloatTensor` of shape `(batch, tokens, hidden_size)`): after the final norm.
        token_mask (`torch.BoolTensor` of shape `(batch, tokens)`, *optional*): `True` = present.

        Returns `(batch, hidden_size)`.
        """
        query = self.q_proj(self.query_token).expand(len(hidden_states), -1, -1)
        states = (query, self.k_proj(hidden_states), self.v_proj(hidden_states))
        query, key, value = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in states)
        mask = None if token_mask is None else token_mask[:, None, None, :]
        pooled = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return pooled.transpose(1, 2).flatten(1)


class EcgViTForSequenceClassification(EcgViTPreTrainedModel):
    """The encoder with a linear head: multi-label, single-label or regression.

    `config.problem_type` decides the loss: `"multi_label_classification"` (binary cross-entropy on float labels),
    `"single_label_classification"` (cross-entropy), `"regression"` (mean squared error). `config.classifier_pooling`
    decides what the head reads.
    """

    encoder_class = EcgViTModel  # a method with an initialisation of its own names its encoder

    def __init__(self, config: EcgViTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.ecg_vit = self.encoder_class(config)
        if config.classifier_pooling == "attentive":
            self.attentive_pooler = EcgViTAttentivePooler(config)
        width = config.pooled_size if config.classifier_pooling == "pooled" else config.hidden_size
        self.classifier = nn.Linear(width, config.num_labels, bias=config.classifier_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`].
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
            Class indices, float multi-hot vectors or targets of a regression, by `config.problem_type`.
        """
        outputs = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        logits = self.classifier(self._pool(outputs, lead_mask))
        self.forget_calibration_in_training()
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _pool(self, outputs: BaseModelOutputWithPooling, lead_mask: torch.Tensor | None) -> torch.Tensor:
        pooling = self.config.classifier_pooling
        if pooling == "pooled":
            return outputs.pooler_output
        if pooling == "register":
            return outputs.last_hidden_state[:, 0]
        if lead_mask is None or self.config.patching == "all_leads":
            return self.attentive_pooler(outputs.last_hidden_state)
        # Registers and extra channels are always there; a record without a lead sees its zeros.
        present = nn.functional.pad(lead_mask, (0, self.config.extra_channels), value=True)
        num_tokens = outputs.last_hidden_state.shape[1] - self.config.num_registers
        present = present.repeat_interleave(num_tokens // present.shape[1], dim=1)
        present = nn.functional.pad(present, (self.config.num_registers, 0), value=True)
        return self.attentive_pooler(outputs.last_hidden_state, present | ~present.any(dim=1, keepdim=True))


class EcgViTForTokenClassification(EcgViTPreTrainedModel):
    """The encoder with a head that names every sample of every lead, as in the delineation of P, QRS and T.

    One linear map of each token gives the logits of the samples that the token stands for: `patch_size` of its lead
    with `patching="per_lead"`, `patch_size` of every lead of `config.position_leads` with `"all_leads"`. Between
    neighbouring tokens nothing is smoothed: what a sample learns of its surroundings comes through attention alone.
    """

    encoder_class = EcgViTModel

    def __init__(self, config: EcgViTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.ecg_vit = self.encoder_class(config)
        leads_of_token = 1 if config.patching == "per_lead" else len(config.position_leads)
        self.token_classifier = nn.Linear(config.hidden_size, leads_of_token * config.patch_size * config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`].
        labels (`torch.LongTensor` of shape `(batch_size, num_leads, num_samples)`, *optional*):
            Class of every sample, 0 to `config.num_labels - 1`; below 0 where nobody said (-1 or -100), which the
            cross-entropy leaves out, as it does absent leads.

        Returns `logits` `(batch_size, num_leads, num_samples, num_labels)`, for the leads in the order in which they
        came (extra channels have none). Those of absent leads mean nothing.
        """
        outputs = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        tokens = outputs.last_hidden_state[:, self.config.num_registers :]
        logits = self._logits_of_samples(tokens, self.config.leads if leads is None else leads)
        loss = None
        if labels is not None:
            if labels.shape != logits.shape[:3]:
                raise ValueError(f"Expected labels of shape {tuple(logits.shape[:3])}, got {tuple(labels.shape)}.")
            known = labels >= 0 if lead_mask is None else (labels >= 0) & lead_mask[..., None]
            losses = nn.functional.cross_entropy(
                logits.float().flatten(0, 2), labels.masked_fill(~known, -100).flatten(), reduction="sum"
            )
            loss = losses / known.sum().clamp(min=1)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _logits_of_samples(self, tokens: torch.Tensor, leads: Sequence[str]) -> torch.Tensor:
        """`(batch, rows * columns, hidden_size)` → `(batch, num_leads, num_samples, num_labels)`."""
        config = self.config
        samples = (config.patch_size, config.num_labels)
        if config.patching == "per_lead":
            num_columns = tokens.shape[1] // (len(leads) + config.extra_channels)
            logits = self.token_classifier(tokens[:, : len(leads) * num_columns])
            return logits.unflatten(-1, samples).unflatten(1, (len(leads), -1)).flatten(2, 3)
        logits = self.token_classifier(tokens).unflatten(-1, (len(config.position_leads), *samples))
        logits = logits.movedim(2, 1).flatten(2, 3)  # (batch, position_leads, num_samples, num_labels)
        return take_rows(logits, lead_indices(leads, config.position_leads), dim=1)


@dataclass
class EcgViTEmbeddingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): Triplet loss of the batch, with `labels`.
        embeddings (`torch.FloatTensor` of shape `(batch_size, embedding_size or hidden_size)`): Unit vectors.
    """

    loss: torch.FloatTensor | None = None
    embeddings: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class EcgViTForEmbedding(EcgViTPreTrainedModel):
    """The encoder for retrieval and metric learning: one vector of unit length a record.

    With `labels` it gives a triplet loss (see `metric_learning.py`) over the batch of all ranks, so that the stock
    Trainer trains it. `model.ecg_vit.requires_grad_(False)` leaves the encoder as it is, as the SMILES project does.
    """

    encoder_class = EcgViTModel

    def __init__(self, config: EcgViTConfig):
        super().__init__(config)
        self.ecg_vit = self.encoder_class(config)
        if config.embedding_size is not None:
            self.projection = EmbeddingProjection(
                config.pooled_size, config.embedding_hidden_size, config.embedding_size
            )
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgViTEmbeddingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`].
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
            Class indices, or multi-hot vectors; see [`~metric_learning.matching_pairs`].
        """
        outputs = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        features = outputs.pooler_output
        if self.config.embedding_size is not None:
            features = self.projection(features)
        embeddings, loss = nn.functional.normalize(features.float(), dim=-1), None
        if labels is not None:
            batch = (gather_rows(embeddings), gather_rows(labels)) if self.training else (embeddings, labels)
            generator = self.own_keys(len(labels)).shared("triplets")
            loss = mined_triplet_loss(*batch, self.config.triplet_mining, self.config.triplet_margin, generator)
        return EcgViTEmbeddingOutput(loss, embeddings, outputs.hidden_states, outputs.attentions)
