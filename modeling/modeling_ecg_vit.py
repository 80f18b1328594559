"""The ECG vision transformer: one encoder for per-lead and all-lead patches, with Cross-Pattern or full attention.

Hidden states live on a grid of rows (leads) x columns (time patches), stored row by row as `(batch, tokens, hidden)`
after `num_registers` free tokens. What differs from an image ViT:

* positions follow the lead's **name**, so a recording with fewer leads keeps the positions of the leads that it has;
* positions can be added to the input of every layer (Kim, arXiv 2410.08559);
* hidden patches are dropped before the first layer: shared columns leave a smaller grid, anything else a ragged set;
* attention along the cross of a token never forms an N x N matrix on a large grid (see `cropa.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_ecg_vit import EcgViTConfig
from .cropa import cross_pattern_attention, cross_pattern_attention_with_weights, token_cross_mask
from .leads import lead_indices
from .remote_code import ship_source_files

# `axial` only means something on the cross; where the attention is full it is plain SDPA.
AttentionInterface.register("axial", sdpa_attention_forward)
AttentionMaskInterface.register("axial", sdpa_mask)


@dataclass
class TokenGrid:
    """Where the patch tokens of a batch lie.

    Args:
        num_rows, num_columns (`int`): Extent of the grid that the tokens fill; of the full grid where `ragged`.
        rows (`torch.LongTensor` of shape `(batch or 1, tokens)`): Row of each token in the position table.
        columns (`torch.LongTensor` of shape `(batch or 1, tokens)`): Column of each token.
        row_mask (`torch.BoolTensor` of shape `(batch, num_rows)`, *optional*): `True` = the lead is present.
        present (`torch.BoolTensor` of shape `(batch, tokens)`, *optional*): The same for each token.
        ragged (`bool`): Whether the tokens are a subset of the grid that is no grid itself.
        attention_mask (`torch.BoolTensor` of shape `(batch or 1, 1, N or 1, N)`, *optional*):
            For layers that do not attend on the grid; N counts registers too.
    """

    num_rows: int
    num_columns: int
    rows: torch.Tensor
    columns: torch.Tensor
    row_mask: torch.Tensor | None = None
    present: torch.Tensor | None = None
    ragged: bool = False
    attention_mask: torch.Tensor | None = None


def sincos_table(positions: torch.Tensor, width: int, interleaved: bool = False) -> torch.Tensor:
    """Sine-cosine code of integer positions, `(len(positions), width)` in float32.

    `[sin(i w), cos(i w)]` with `w_k = 10000^(-2k/width)`: halves, computed in float64; or interleaved, computed in
    float32 as in Weimann's code (float64 differs by 1e-5 at the far end).
    """
    dtype = torch.float32 if interleaved else torch.float64
    frequencies = torch.exp(
        torch.arange(0, width, 2, dtype=dtype) * (-torch.log(torch.tensor(1e4, dtype=dtype)) / width)
    )
    angles = positions.to(dtype)[:, None] * frequencies
    sin_cos = (angles.sin(), angles.cos())
    table = torch.stack(sin_cos, dim=-1).flatten(1) if interleaved else torch.cat(sin_cos, dim=-1)
    return table.float()


def position_table(config: EcgViTConfig, width: int) -> torch.Tensor:
    """Fixed positions of the full grid, `(rows, columns, width)`. `sincos_2d`: time in the first half of the channels,
    lead in the second; every other table encodes time alone."""
    rows, columns = torch.arange(config.num_position_rows), torch.arange(config.num_columns)
    if config.position_embedding == "sincos_2d":
        time = sincos_table(columns, width // 2)[None].expand(len(rows), -1, -1)
        lead = sincos_table(rows, width // 2)[:, None].expand(-1, len(columns), -1)
        return torch.cat((time, lead), dim=-1)
    table = sincos_table(columns, width, interleaved=config.position_embedding == "sincos_interleaved")
    return table[None].expand(len(rows), -1, -1).clone()


class EcgViTEmbeddings(nn.Module):
    """Cuts the signal into patches, drops the hidden ones, projects the rest and looks up their positions."""

    def __init__(self, config: EcgViTConfig):
        super().__init__()
        self.config = config
        channels = 1 if config.patching == "per_lead" else len(config.position_leads)
        self.projection = nn.Linear(channels * config.patch_size, config.hidden_size, bias=config.use_bias)
        if config.position_embedding == "learned":
            shape = (config.num_position_rows, config.num_columns, config.hidden_size)
            self.position_embeddings = nn.Parameter(torch.zeros(shape))
        else:
            table = position_table(config, config.hidden_size)
            self.register_buffer("position_embeddings", table, persistent=False)
        if config.num_registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.num_registers, config.hidden_size))

    def forward(
        self,
        input_values: torch.Tensor,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, TokenGrid]:
        """Returns the tokens and their positions, each `(batch, num_registers + tokens, hidden_size)` (the positions
        with a leading 1 where the batch shares them), and where the tokens lie."""
        config = self.config
        leads = tuple(config.leads if leads is None else leads)
        self._check_input(input_values, leads, lead_mask)
        lead_rows = lead_indices(leads, config.position_leads)
        batch = input_values.shape[0]
        if lead_mask is not None:
            input_values = torch.where(lead_mask[..., None], input_values, 0.0)
        if config.patching == "per_lead":
            patches = input_values.reshape(batch, len(lead_rows), config.num_columns, config.patch_size)
            row_mask = lead_mask
        else:
            # One row; a patch holds its leads one after the other, as the weight of a Conv1d does.
            patches = input_values.unflatten(-1, (config.num_columns, config.patch_size)).transpose(1, 2)
            patches = patches.reshape(batch, 1, config.num_columns, -1)
            row_mask = None
        table_rows = lead_rows if config.patching == "per_lead" else [0]
        patches, grid = self._visible_patches(patches, table_rows, row_mask, bool_masked_pos)
        if config.patching == "per_lead" or leads == tuple(config.position_leads):
            tokens = self.projection(patches)
        else:
            weight = self.projection.weight.unflatten(1, (len(config.position_leads), config.patch_size))
            tokens = nn.functional.linear(patches, weight[:, lead_rows].flatten(1), self.projection.bias)
        positions = self.position_embeddings[grid.rows, grid.columns].to(tokens.dtype)
        if config.num_registers:
            tokens = torch.cat((self.register_tokens.expand(batch, -1, -1), tokens), dim=1)
            positions = nn.functional.pad(positions, (0, 0, config.num_registers, 0))
        return tokens, positions, grid

    def _visible_patches(self, patches, lead_rows, row_mask, bool_masked_pos) -> tuple[torch.Tensor, TokenGrid]:
        batch, num_rows, num_columns, _ = patches.shape
        rows = torch.tensor(lead_rows, device=patches.device)
        ragged = False
        if bool_masked_pos is None:
            columns = torch.arange(num_columns, device=patches.device)[None]
        elif bool_masked_pos.shape in ((batch, num_columns), (1, num_columns)):
            columns, _ = split_masked(bool_masked_pos.to(patches.device))
            patches = patches.gather(2, columns[:, None, :, None].expand(batch, num_rows, -1, patches.shape[-1]))
            num_columns = columns.shape[1]
        elif bool_masked_pos.shape == (batch, num_rows, num_columns):
            visible, _ = split_masked(bool_masked_pos.to(patches.device).flatten(1))
            patches = patches.flatten(1, 2).gather(1, visible[..., None].expand(-1, -1, patches.shape[-1]))
            row_of_token, columns = visible // num_columns, visible % num_columns
            present = None if row_mask is None else row_mask.gather(1, row_of_token)
            grid = TokenGrid(num_rows, num_columns, rows[row_of_token], columns, row_mask, present, ragged=True)
            return patches, grid
        else:
            raise ValueError(
                f"Expected bool_masked_pos of shape {(batch, num_columns)} or {(batch, num_rows, num_columns)}, got "
                f"{tuple(bool_masked_pos.shape)}."
            )
        present = None if row_mask is None else row_mask.repeat_interleave(num_columns, dim=1)
        rows_of_tokens = rows.repeat_interleave(num_columns)[None].expand(columns.shape[0], -1)
        grid = TokenGrid(num_rows, num_columns, rows_of_tokens, columns.repeat(1, num_rows), row_mask, present, ragged)
        return patches.flatten(1, 2), grid

    def _check_input(self, input_values, leads, lead_mask):
        config = self.config
        if input_values.dim() != 3:
            raise ValueError(
                "Expected input_values of shape (batch, num_leads, num_samples), got "
                f"{tuple(input_values.shape)}. EcgFeatureExtractor returns that shape."
            )
        if input_values.shape[1] != len(leads):
            raise ValueError(
                f"Expected {len(leads)} leads {list(leads)}, got {input_values.shape[1]}. Pass the record "
                "through EcgFeatureExtractor, or name the rows of this batch with `leads=[...]`; a lead that is "
                "missing is left out by name, never repeated."
            )
        if input_values.shape[2] != config.num_samples:
            seconds = config.num_samples / config.sampling_rate
            raise ValueError(
                f"Expected {config.num_samples} samples ({seconds:g} s at {config.sampling_rate} Hz), got "
                f"{input_values.shape[2]}. Pass the record through EcgFeatureExtractor, which resamples and windows, "
                "or load the model with `num_samples=` the length that you want."
            )
        if lead_mask is not None and (lead_mask.dtype != torch.bool or lead_mask.shape != input_values.shape[:2]):
            raise ValueError(
                f"Expected a bool lead_mask of shape {tuple(input_values.shape[:2])}, True = present, got "
                f"{lead_mask.dtype} of shape {tuple(lead_mask.shape)}."
            )


def split_masked(bool_masked_pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Increasing indices of the visible and of the hidden positions, `(batch, visible)` and `(batch, hidden)`.

    Args:
        bool_masked_pos (`torch.BoolTensor` of shape `(batch, positions)`): `True` = hidden, equally many in each row.
    """
    counts = bool_masked_pos.sum(dim=1)
    num_hidden = int(counts[0])
    if bool((counts != num_hidden).any()):
        raise ValueError(
            f"Expected equally many hidden patches in every row of bool_masked_pos, got {counts.tolist()}. "
            "Draw the masks of a batch with one count."
        )
    if num_hidden == bool_masked_pos.shape[1]:
        raise ValueError(f"bool_masked_pos hides all {num_hidden} patches. Leave at least one visible.")
    order = torch.argsort(bool_masked_pos.to(torch.uint8), dim=1, stable=True)
    return order.split((order.shape[1] - num_hidden, num_hidden), dim=1)


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
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = EcgViTBranchOutput(config.hidden_size, config.hidden_size, config.use_bias, layer_number)

    def forward(self, hidden_states: torch.Tensor, grid: TokenGrid, **kwargs):
        batch, length, width = hidden_states.shape
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
        return self.o_proj(output.reshape(batch, length, width)), weights

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

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


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
        attention_output, _ = self.attention(self.layernorm_before(hidden_states), grid, **kwargs)
        hidden_states = self.attention_residual(hidden_states, attention_output)
        return self.mlp_residual(hidden_states, self.mlp(self.layernorm_after(hidden_states)))


class EcgViTPreTrainedModel(PreTrainedModel):
    config_class = EcgViTConfig
    base_model_prefix = "ecg_vit"
    main_input_name = "input_values"
    input_modalities = ("time",)
    supports_gradient_checkpointing = True
    # The losses are means over a batch, not sums over tokens: the Trainer must not rescale them by an item count.
    accepts_loss_kwargs = False
    # Whether a `teacher` has to follow after every optimiser step (`update_teacher`).
    has_teacher = False
    # What each Auto class loads from a folder that any class of this family saved.
    auto_classes = {
        "AutoConfig": "configuration_ecg_vit.EcgViTConfig",
        "AutoModel": "modeling_ecg_vit.EcgViTModel",
        "AutoModelForSequenceClassification": "modeling_ecg_vit.EcgViTForSequenceClassification",
    }
    _no_split_modules = ["EcgViTEmbeddings", "EcgViTLayer"]
    _supports_sdpa = True
    _supports_flash_attn = False
    _supports_flex_attn = False
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": EcgViTLayer, "attentions": EcgViTAttention}

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):
        """Saves weights and configuration and, for `trust_remote_code`, the source files they need."""
        self.config.auto_map = dict(self.auto_classes)
        if is_main_process:
            ship_source_files(self.auto_classes, save_directory)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        """Normal(0, 0.02) weights, zero biases; the last linear of a residual branch of layer l (from 1) is divided by
        sqrt(2 l) (Kim)."""
        std = self.config.initializer_range
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
            else:
                init.copy_(module.position_embeddings, position_table(module.config, module.config.hidden_size))
            if module.config.num_registers:
                init.normal_(module.register_tokens, mean=0.0, std=std)
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
        return self.embeddings.projection

    def set_input_embeddings(self, value: nn.Module):
        self.embeddings.projection = value

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        **kwargs,
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

        Returns `last_hidden_state` `(batch_size, num_registers + tokens, hidden_size)`, registers first, then row by
        row, and `pooler_output` `(batch_size, hidden_size)`.
        """
        if input_values is None:
            raise ValueError("Expected input_values of shape (batch, num_leads, num_samples), got None.")
        input_values = input_values.to(self.layernorm.weight.dtype)
        hidden_states, positions, grid = self.embeddings(input_values, leads, lead_mask, bool_masked_pos)
        grid.attention_mask = self._dense_attention_mask(grid)
        for number, layer in enumerate(self.layers):
            if number == 0 or self.config.position_every_layer:
                hidden_states = hidden_states + positions
            hidden_states = layer(hidden_states, grid, **kwargs)
        last_hidden_state = self.layernorm(hidden_states)
        if self.config.pooling == "mean_then_norm":
            pooled = self.layernorm(mean_of_patches(hidden_states[:, self.config.num_registers :], grid.present))
        else:
            pooled = mean_of_patches(last_hidden_state[:, self.config.num_registers :], grid.present)
        return BaseModelOutputWithPooling(last_hidden_state=last_hidden_state, pooler_output=pooled)

    def _dense_attention_mask(self, grid: TokenGrid) -> torch.Tensor | None:
        """The mask of layers that do not attend on the grid; `None` where they do, or where all see all."""
        registers = self.config.num_registers
        if self.config.attention_pattern == "full":
            if grid.present is None:
                return None
            # A query without any key would give NaN: a record without a lead sees its zeros.
            keys = grid.present | ~grid.present.any(dim=1, keepdim=True)
            return nn.functional.pad(keys, (registers, 0), value=True)[:, None, None, :]
        if not grid.ragged and not registers:
            return None
        mask = token_cross_mask(grid.rows, grid.columns)
        if grid.present is not None:
            # An absent row still sees itself: a query without any key would give NaN.
            same_row = grid.rows[:, :, None] == grid.rows[:, None, :]
            mask = mask & (grid.present[:, None, :] | same_row)
        return nn.functional.pad(mask, (registers, 0, registers, 0), value=True)[:, None]


def mean_of_patches(hidden_states: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Mean over the tokens of `(batch, tokens, hidden)`, those of absent leads left out."""
    if present is None:
        return hidden_states.mean(dim=1)
    weights = present.to(hidden_states.dtype)[..., None]
    return torch.where(present[..., None], hidden_states, 0.0).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


class EcgViTForSequenceClassification(EcgViTPreTrainedModel):
    """The encoder with a linear head on the pooled feature: multi-label, single-label or regression.

    `config.problem_type` decides the loss: `"multi_label_classification"` (binary cross-entropy on float labels),
    `"single_label_classification"` (cross-entropy), `"regression"` (mean squared error).
    """

    def __init__(self, config: EcgViTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.ecg_vit = EcgViTModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`].
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
            Class indices, float multi-hot vectors or targets of a regression, by `config.problem_type`.
        """
        outputs = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


@dataclass
class EcgViTEmbeddingOutput(ModelOutput):
    """
    Args:
        embeddings (`torch.FloatTensor` of shape `(batch_size, hidden_size)`): Pooled features of unit length.
    """

    embeddings: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class EcgViTForEmbedding(EcgViTPreTrainedModel):
    """The encoder for retrieval and metric learning: one vector of unit length a record."""

    def __init__(self, config: EcgViTConfig):
        super().__init__(config)
        self.ecg_vit = EcgViTModel(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> EcgViTEmbeddingOutput:
        r"""input_values, leads, lead_mask: see [`EcgViTModel`]."""
        outputs = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        embeddings = nn.functional.normalize(outputs.pooler_output, dim=-1)
        return EcgViTEmbeddingOutput(embeddings, hidden_states=outputs.hidden_states, attentions=outputs.attentions)


__all__ = ["EcgViTForEmbedding", "EcgViTForSequenceClassification", "EcgViTModel", "EcgViTPreTrainedModel"]
