"""From signal to tokens: patches on a grid of rows (leads) x columns (time), their projection and their positions.

Positions follow the lead's **name**, so a recording with fewer leads keeps the positions of the leads that it has.
Hidden patches are dropped before they are projected: shared columns leave a smaller grid, anything else a ragged set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from .configuration_ecg_vit import EcgViTConfig
from .conv_stem import ConvStem
from .leads import lead_indices
from .masking import on_device, split_masked


@dataclass
class TokenGrid:
    """Places of the patch tokens of a batch.

    Args:
        num_rows, num_columns (`int`): Extent of the grid that the tokens fill; of the full grid where `ragged`.
        rows (`torch.LongTensor` of shape `(batch or 1, tokens)`): Row of each token in the position table.
        columns (`torch.LongTensor` of shape `(batch or 1, tokens)`): Column of each token.
        row_mask (`torch.BoolTensor` of shape `(batch, num_rows)`, *optional*): `True` = the lead is present.
        present (`torch.BoolTensor` of shape `(batch, tokens)`, *optional*): The same for each token.
        ragged (`bool`): Whether the tokens are a subset of the grid that is no grid itself.
        attention_mask (`torch.BoolTensor` of shape `(batch or 1, 1, N or 1, N)`, *optional*):
            For layers that do not attend on the grid; N counts the prefix too.
        num_prefix (`int`): Tokens before those of the grid: registers, or the separators of the leads.
        stage_tokens (`tuple[tuple[torch.Tensor, torch.Tensor | None], ...]`):
            Tokens of each of `config.pooled_stages`, `(batch, rows * columns, width)`, and which of them are
            neither hidden nor of an absent lead, bool `(batch, rows * columns)`; `None` = all.
        pooled_states (`list[torch.FloatTensor]`): Hidden states of the layers that are pooled, unless it is the last.
    """

    num_rows: int
    num_columns: int
    rows: torch.Tensor
    columns: torch.Tensor
    row_mask: torch.Tensor | None = None
    present: torch.Tensor | None = None
    ragged: bool = False
    attention_mask: torch.Tensor | None = None
    num_prefix: int = 0
    stage_tokens: tuple[tuple[torch.Tensor, torch.Tensor | None], ...] = ()
    pooled_states: list[torch.Tensor] = field(default_factory=list)


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
    lead in the second; `sincos_leads`: the lead alone; every other table: time alone."""
    rows, columns = torch.arange(config.num_position_rows), torch.arange(config.num_columns)
    if config.position_embedding == "sincos_2d":
        time = sincos_table(columns, width // 2)[None].expand(len(rows), -1, -1)
        lead = sincos_table(rows, width // 2)[:, None].expand(-1, len(columns), -1)
        return torch.cat((time, lead), dim=-1)
    if config.position_embedding == "sincos_leads":
        return sincos_table(rows, width)[:, None].expand(-1, len(columns), -1).clone()
    table = sincos_table(columns, width, interleaved=config.position_embedding == "sincos_interleaved")
    return table[None].expand(len(rows), -1, -1).clone()


class EcgViTEmbeddings(nn.Module):
    """Cuts the signal into patches, drops the hidden ones, projects the rest and looks up their positions."""

    def __init__(self, config: EcgViTConfig):
        super().__init__()
        self.config = config
        num_leads = len(config.position_leads)
        self.patch_values = config.patch_size * (1 if config.patching == "per_lead" else num_leads)
        if config.patch_norm:
            norm = {"eps": config.layer_norm_eps, "bias": config.layer_norm_bias}
            self.patch_norm_before = nn.LayerNorm(self.patch_values, **norm)
            self.patch_norm_after = nn.LayerNorm(config.hidden_size, **norm)
        if config.stem == "conv":
            self.stem = ConvStem(config)
        else:
            self.projection = nn.Linear(self.patch_values, config.hidden_size, bias=config.use_bias)
        if config.position_embedding == "learned":
            shape = (config.num_position_rows, config.num_columns, config.hidden_size)
            self.position_embeddings = nn.Parameter(torch.zeros(shape))
        elif config.position_embedding != "none":
            table = position_table(config, config.hidden_size)
            self.register_buffer("position_embeddings", table, persistent=False)
        if config.num_registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.num_registers, config.hidden_size))
        if config.lead_separators:
            self.separator = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
            self.lead_embeddings = nn.Parameter(torch.zeros(num_leads, config.hidden_size))

    def forward(
        self,
        input_values: torch.Tensor,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        visible_patches: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, TokenGrid]:
        """Returns the tokens and their positions, each `(batch, num_prefix + tokens, hidden_size)` (the positions
        with a leading 1 where the batch shares them), and where the tokens lie.

        The prefix is the registers, or with `lead_separators` the left separators of all rows, then the right ones.
        (Full attention does not see the order of tokens; ST-MEM's code has each pair around its lead.)
        """
        config = self.config
        leads = tuple(config.leads if leads is None else leads)
        self._check_input(input_values, leads, lead_mask)
        lead_rows = lead_indices(leads, config.position_leads)
        batch = input_values.shape[0]
        if lead_mask is not None:
            if config.extra_channels:
                lead_mask = nn.functional.pad(lead_mask, (0, config.extra_channels), value=True)
            input_values = torch.where(lead_mask[..., None], input_values, 0.0)
        if config.patching == "per_lead":
            first_extra = len(config.position_leads)
            table_rows = [*lead_rows, *range(first_extra, first_extra + config.extra_channels)]
            row_mask, channel_mask = lead_mask, None
        else:
            table_rows, row_mask, channel_mask = [0], None, lead_mask
        num_columns = input_values.shape[2] // config.patch_size
        if bool_masked_pos is not None:
            bool_masked_pos = self._check_mask(bool_masked_pos, batch, len(table_rows), num_columns).to(
                input_values.device
            )
        if config.stem == "conv":
            grids = self.stem(self._blank_hidden(input_values, bool_masked_pos), lead_rows)
            tokens, grid = self._visible_patches(grids[-1], table_rows, row_mask, bool_masked_pos, visible_patches)
            grid.stage_tokens = tuple(
                self._stage_tokens(grids[stage], row_mask, bool_masked_pos) for stage in config.pooled_stages
            )
        else:
            patches = input_values.unflatten(-1, (num_columns, config.patch_size))
            if config.patching == "all_leads":
                # One row; a patch holds its leads one after the other, as the weight of a Conv1d does.
                patches = patches.transpose(1, 2).reshape(batch, 1, num_columns, -1)
            patches, grid = self._visible_patches(patches, table_rows, row_mask, bool_masked_pos, visible_patches)
            tokens = self._project(patches, lead_rows, channel_mask)
        if config.position_embedding == "none":
            positions = tokens.new_zeros(1, tokens.shape[1], 1)
        else:
            positions = self.position_embeddings[grid.rows, grid.columns].to(tokens.dtype)
        if config.lead_separators:
            tokens = tokens + self.lead_embeddings[grid.rows].to(tokens.dtype)
            separators = (self.separator + take_rows(self.lead_embeddings, lead_rows, dim=0)).repeat(1, 2, 1)
            tokens, positions = self._put_before(separators, tokens, positions, grid)
        elif config.num_registers:
            tokens, positions = self._put_before(self.register_tokens, tokens, positions, grid)
        return tokens, positions, grid

    def _blank_hidden(self, input_values, bool_masked_pos) -> torch.Tensor:
        """The signal with zeros where it is hidden, so that no receptive field reaches what it may not see."""
        if bool_masked_pos is None:
            return input_values
        hidden = bool_masked_pos if bool_masked_pos.dim() == 3 else bool_masked_pos[:, None]
        return torch.where(hidden.repeat_interleave(self.config.patch_size, dim=2), 0.0, input_values)

    def _stage_tokens(self, grid, row_mask, bool_masked_pos) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens of an earlier, finer stage, `(batch, rows, columns, width)`, on one axis, and which of them count."""
        batch, num_rows, num_columns, _ = grid.shape
        present = None if row_mask is None else row_mask[:, :, None].expand(-1, -1, num_columns)
        if bool_masked_pos is not None:
            visible = ~(bool_masked_pos if bool_masked_pos.dim() == 3 else bool_masked_pos[:, None])
            visible = visible.repeat_interleave(num_columns // visible.shape[2], dim=2)
            visible = visible.expand(batch, num_rows, -1)
            present = visible if present is None else present & visible
        return grid.flatten(1, 2), None if present is None else present.flatten(1)

    def _put_before(self, prefix, tokens, positions, grid) -> tuple[torch.Tensor, torch.Tensor]:
        """The prefix has no position of its own."""
        grid.num_prefix = prefix.shape[1]
        tokens = torch.cat((prefix.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens), dim=1)
        return tokens, nn.functional.pad(positions, (0, 0, grid.num_prefix, 0))

    def _project(self, patches, lead_rows, channel_mask) -> torch.Tensor:
        config = self.config
        if config.patching == "per_lead" or lead_rows == list(range(len(config.position_leads))):
            if config.patch_norm and channel_mask is None:
                patches = self.patch_norm_before(patches)
            elif config.patch_norm:
                patches = self._norm_before(patches, channel_mask, lead_rows)
            tokens = self.projection(patches)
        else:
            if config.patch_norm:
                patches = self._norm_before(patches, channel_mask, lead_rows)
            weight = self._of_leads(self.projection.weight, lead_rows)
            tokens = nn.functional.linear(patches, weight, self.projection.bias)
        return self.patch_norm_after(tokens) if config.patch_norm else tokens

    def _norm_before(self, patches, channel_mask, lead_rows) -> torch.Tensor:
        """The layer norm of patches of all leads where some are absent: these count neither in the statistics nor in
        the result."""
        norm = self.patch_norm_before
        present = patches.new_ones(len(patches), len(lead_rows)) if channel_mask is None else channel_mask
        present = present.repeat_interleave(self.config.patch_size, dim=1)[:, None].to(patches.dtype)
        count = present.sum(dim=-1, keepdim=True).clamp(min=1.0)
        centred = patches - (patches * present).sum(dim=-1, keepdim=True) / count
        variance = (centred.square() * present).sum(dim=-1, keepdim=True) / count
        normed = centred * (variance + norm.eps).rsqrt() * self._of_leads(norm.weight[None], lead_rows)
        if norm.bias is not None:
            normed = normed + self._of_leads(norm.bias[None], lead_rows)
        return normed * present

    def _of_leads(self, weight: torch.Tensor, lead_rows: list[int]) -> torch.Tensor:
        """The columns of some leads, in their order, of a weight `(out, leads * patch_size)`."""
        return take_rows(weight.unflatten(1, (len(self.config.position_leads), -1)), lead_rows, dim=1).flatten(1)

    def _visible_patches(
        self, patches, table_rows, row_mask, bool_masked_pos, visible
    ) -> tuple[torch.Tensor, TokenGrid]:
        batch, num_rows, num_columns, _ = patches.shape
        rows = index_tensor(table_rows, patches.device)
        if bool_masked_pos is None:
            columns = torch.arange(num_columns, device=patches.device)[None]
        elif bool_masked_pos.dim() == 2:
            columns = split_masked(bool_masked_pos)[0] if visible is None else visible
            patches = patches.gather(2, columns[:, None, :, None].expand(batch, num_rows, -1, patches.shape[-1]))
            num_columns = columns.shape[1]
        else:
            visible = split_masked(bool_masked_pos.flatten(1))[0] if visible is None else visible
            patches = patches.flatten(1, 2).gather(1, visible[..., None].expand(-1, -1, patches.shape[-1]))
            row_of_token, columns = visible // num_columns, visible % num_columns
            present = None if row_mask is None else row_mask.gather(1, row_of_token)
            grid = TokenGrid(num_rows, num_columns, rows[row_of_token], columns, row_mask, present, ragged=True)
            return patches, grid
        present = None if row_mask is None else row_mask.repeat_interleave(num_columns, dim=1)
        rows_of_tokens = rows.repeat_interleave(num_columns)[None].expand(columns.shape[0], -1)
        grid = TokenGrid(num_rows, num_columns, rows_of_tokens, columns.repeat(1, num_rows), row_mask, present)
        return patches.flatten(1, 2), grid

    def _check_mask(self, bool_masked_pos, batch: int, num_rows: int, num_columns: int) -> torch.Tensor:
        shapes = ((batch, num_columns), (1, num_columns), (batch, num_rows, num_columns))
        if bool_masked_pos.shape not in shapes:
            raise ValueError(
                f"Expected bool_masked_pos of shape {shapes[0]} or {shapes[2]}, got {tuple(bool_masked_pos.shape)}."
            )
        return bool_masked_pos

    def _check_input(self, input_values, leads, lead_mask):
        config = self.config
        check_rows(config, input_values, leads, lead_mask)
        num_samples = input_values.shape[2]
        if config.position_embedding == "none":
            if num_samples == 0 or num_samples % config.patch_size:
                raise ValueError(
                    f"Expected a multiple of {config.patch_size} samples, the length of a patch, got {num_samples}. "
                    "Cut the recording, or pass it through EcgFeatureExtractor."
                )
        elif num_samples != config.num_samples:
            seconds = config.num_samples / config.sampling_rate
            raise ValueError(
                f"Expected {config.num_samples} samples ({seconds:g} s at {config.sampling_rate} Hz), got "
                f"{input_values.shape[2]}. Pass the record through EcgFeatureExtractor, which resamples and windows, "
                "or load the model with `num_samples=` the length that you want."
            )


def check_rows(
    config: EcgViTConfig, input_values: torch.Tensor, leads: Sequence[str], lead_mask: torch.Tensor | None
) -> None:
    """Refuses input whose rows are not `leads`, and a mask of another shape; see [`EcgViTModel`]."""
    if input_values.dim() != 3:
        raise ValueError(
            "Expected input_values of shape (batch, num_leads, num_samples), got "
            f"{tuple(input_values.shape)}. EcgFeatureExtractor returns that shape."
        )
    if input_values.shape[1] != len(leads) + config.extra_channels:
        extra = f" and {config.extra_channels} extra channels" if config.extra_channels else ""
        raise ValueError(
            f"Expected {len(leads)} leads {list(leads)}{extra}, got {input_values.shape[1]}. Pass the record "
            "through EcgFeatureExtractor, or name the rows of this batch with `leads=[...]`; a lead that is "
            "missing is left out by name, never repeated."
        )
    expected = (input_values.shape[0], len(leads))
    if lead_mask is not None and (lead_mask.dtype != torch.bool or lead_mask.shape != expected):
        raise ValueError(
            f"Expected a bool lead_mask of shape {expected}, True = present, got "
            f"{lead_mask.dtype} of shape {tuple(lead_mask.shape)}."
        )


def index_tensor(rows: Sequence[int], device: torch.device) -> torch.Tensor:
    """Row numbers as a tensor; the usual ones, 0 to n - 1, are made on the device itself."""
    if list(rows) == list(range(len(rows))):
        return torch.arange(len(rows), device=device)
    return on_device(torch.tensor(rows), device)


def take_rows(tensor: torch.Tensor, rows: Sequence[int], dim: int) -> torch.Tensor:
    """Some of the rows along an axis, in their order; the tensor itself where these are all."""
    if list(rows) == list(range(tensor.shape[dim])):
        return tensor
    return tensor.index_select(dim, index_tensor(rows, tensor.device))


def statistics_of_patches(
    hidden_states: torch.Tensor, present: torch.Tensor | None, names: Sequence[str] = ("mean", "std", "max", "min")
) -> torch.Tensor:
    """Mean, standard deviation, maximum and minimum (or some of them) of each channel over the tokens of `(batch,
    tokens, hidden)`, those of absent leads left out: `(batch, names * hidden)`, zeros for a record without a lead."""
    hidden_states = hidden_states.float()
    low = high = hidden_states
    if present is not None:
        high = hidden_states.masked_fill(~present[..., None], float("-inf"))
        low = hidden_states.masked_fill(~present[..., None], float("inf"))
    parts = []
    for name in names:
        if name == "max":
            parts.append(high.amax(dim=1))
        elif name == "min":
            parts.append(low.amin(dim=1))
        else:
            mean = mean_of_patches(hidden_states, present)
            if name == "std":
                variance = mean_of_patches((hidden_states - mean[:, None]).square(), present)
                mean = (variance + 1e-5).sqrt()  # at a variance of 0 the root alone has an infinite slope
            parts.append(mean)
    statistics = torch.cat(parts, dim=-1)
    return statistics if present is None else torch.where(present.any(dim=1, keepdim=True), statistics, 0.0)


def mean_of_patches(hidden_states: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Mean over the tokens of `(batch, tokens, hidden)`, those of absent leads left out."""
    if present is None:
        return hidden_states.mean(dim=1)
    weights = present.to(hidden_states.dtype)[..., None]
    return torch.where(present[..., None], hidden_states, 0.0).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
