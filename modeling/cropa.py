"""Cross-Pattern Attention (CroPA): attention on a grid of leads x time.

A token at (lead, time) attends to the tokens of its own lead at any time and to the tokens of every lead at its own
time, itself counted once: `rows + columns - 1` keys instead of `rows * columns` (Kim, arXiv 2410.08559, section 3.2).

Three implementations of the same function, each equal to dense attention under the cross-shaped mask:

* `"eager"`: the scores along time and along the leads are concatenated under one softmax. Readable, exports, runs on
  any device; never forms an N x N matrix.
* `"sdpa"`: dense scaled-dot-product attention with a boolean mask. Fastest on small grids, wasteful on large ones.
* `"axial"`: two flash-attention calls, one an axis, merged exactly by their log-sum-exps. Memory is linear in N.
  Uses the CPU flash kernel of torch; on other devices and within `torch.func`, `"eager"`, which has the same
  complexity, stands in.

`"auto"` takes `"sdpa"` on grids of at most 256 tokens and `"axial"` above; within `torch.compile`, `"axial"` always.
"""

import torch
from torch import nn

from .recomputation import within_torch_func

SDPA_MAX_TOKENS = 256
"""Up to this many tokens the dense kernel is faster than two passes (measured on CPU, 8 x 24 against 8 x 50)."""

IMPLEMENTATIONS = ("auto", "eager", "sdpa", "axial")


def cross_pattern_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    implementation: str = "auto",
    row_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""
    Attention of every token to its own row and its own column.

    Args:
        query, key, value (`torch.Tensor` of shape `(batch, rows, columns, heads, head_dim)`):
            Projected hidden states of a grid; rows are leads, columns are time patches.
        implementation (`str`, *optional*, defaults to `"auto"`):
            `"auto"`, `"eager"`, `"sdpa"` or `"axial"`.
        row_mask (`torch.BoolTensor` of shape `(batch, rows)`, *optional*):
            `True` = present. Nobody attends to an absent row; its own output is zero.

    Returns:
        `torch.Tensor` of shape `(batch, rows, columns, heads, head_dim)`. The scores are scaled by `head_dim**-0.5`.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"Expected implementation to be one of {list(IMPLEMENTATIONS)}, got {implementation!r}.")
    if query.dim() != 5 or query.shape != key.shape or key.shape != value.shape:
        raise ValueError(
            "Expected query, key and value of one shape (batch, rows, columns, heads, head_dim), got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}."
        )
    rows, columns = query.shape[1:3]
    if row_mask is not None and (row_mask.dtype != torch.bool or row_mask.shape != query.shape[:2]):
        raise ValueError(
            f"Expected a bool row_mask of shape {tuple(query.shape[:2])}, got {row_mask.dtype} of shape "
            f"{tuple(row_mask.shape)}."
        )
    if implementation == "auto":
        # One graph serves any number of visible columns: it must not choose by their number.
        is_small = rows == 1 or (not torch.compiler.is_compiling() and rows * columns <= SDPA_MAX_TOKENS)
        implementation = "sdpa" if is_small else "axial"
    if implementation == "axial" and (query.device.type != "cpu" or within_torch_func()):
        implementation = "eager"

    if implementation == "eager":
        output = _eager_attention(query, key, value, row_mask)[0]
    elif implementation == "sdpa" or rows == 1:
        output = _masked_attention(query, key, value, row_mask)
    else:
        output = _AxialAttention.apply(query, key, value, _other_rows(query, row_mask))
    if row_mask is not None:
        output = output.masked_fill(~row_mask[:, :, None, None, None], 0.0)
    return output


def cross_pattern_attention_with_weights(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, row_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The eager output of [`cross_pattern_attention`] and its weights, `(batch, heads, N, N)`, zero off the cross."""
    batch, rows, columns, heads, _ = query.shape
    _, time_weights, lead_weights = _eager_attention(query, key, value, row_mask)
    dense = query.new_zeros(batch, heads, rows, columns, rows, columns)
    row, column = torch.arange(rows, device=query.device), torch.arange(columns, device=query.device)
    # The two indexed axes come first in the result of an advanced index that is split by slices.
    dense[:, :, row, :, row, :] = time_weights.permute(1, 0, 2, 3, 4)
    dense[:, :, :, column, :, column] += lead_weights.permute(3, 0, 2, 1, 4)
    if row_mask is not None:
        dense = dense.masked_fill(~row_mask[:, None, :, None, None, None], 0.0)
    dense = dense.view(batch, heads, rows * columns, rows * columns)
    # The output is made of the weights that are returned, so that gradients reach them (attribution).
    output = dense @ value.reshape(batch, rows * columns, heads, -1).transpose(1, 2)
    return output.transpose(1, 2).reshape(value.shape), dense


def cross_pattern_mask(rows: int, columns: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Bool `(N, N)` with N = rows * columns in row-major order; `True` where the query (first axis) sees the key."""
    row = torch.arange(rows, device=device).repeat_interleave(columns)
    column = torch.arange(columns, device=device).repeat(rows)
    return token_cross_mask(row, column)


def token_cross_mask(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """The rule itself: `(..., N)` row and column numbers of tokens to a bool mask `(..., N, N)`."""
    return (row[..., :, None] == row[..., None, :]) | (column[..., :, None] == column[..., None, :])


def _eager_attention(query, key, value, row_mask):
    """Output, weights along time `(batch, rows, heads, columns, columns)`, along leads `(..., columns, rows)`."""
    columns = query.shape[2]
    query = query * query.shape[-1] ** -0.5
    time_query, time_key, time_value = (states.transpose(2, 3) for states in (query, key, value))
    time_scores = time_query @ time_key.transpose(-1, -2)  # (batch, rows, heads, columns, columns)
    lead_query, lead_key, lead_value = (states.permute(0, 2, 3, 1, 4) for states in (query, key, value))
    lead_scores = lead_query @ lead_key.transpose(-1, -2)  # (batch, columns, heads, rows, rows)
    allowed = _other_rows(query, row_mask)[:, None, None]
    lead_scores = lead_scores.masked_fill(~allowed, float("-inf")).permute(0, 3, 2, 1, 4)

    scores = torch.cat((time_scores, lead_scores), dim=-1)
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    time_weights, lead_weights = weights.to(query.dtype).split((columns, scores.shape[-1] - columns), dim=-1)
    along_time = (time_weights @ time_value).transpose(2, 3)
    along_leads = (lead_weights.permute(0, 3, 2, 1, 4) @ lead_value).permute(0, 3, 1, 2, 4)
    return along_time + along_leads, time_weights, lead_weights


def _other_rows(query: torch.Tensor, row_mask: torch.Tensor | None) -> torch.Tensor:
    """Bool `(batch or 1, rows, rows)`: the lead axis leaves out the token itself, which the time axis has counted."""
    rows = query.shape[1]
    others = ~torch.eye(rows, dtype=torch.bool, device=query.device)[None]
    return others if row_mask is None else others & row_mask[:, None, :]


def _masked_attention(query, key, value, row_mask):
    batch, rows, columns, heads, head_dim = query.shape
    mask = None
    if rows > 1:
        mask = cross_pattern_mask(rows, columns, query.device)[None, None]
    if row_mask is not None:
        # An absent row still sees itself: a query without any key would give NaN, also in the gradient.
        own_row = torch.eye(rows, dtype=torch.bool, device=query.device)
        visible = (row_mask[:, None, :] | own_row).repeat_interleave(columns, 1).repeat_interleave(columns, 2)
        mask = visible[:, None] if mask is None else mask & visible[:, None]
    query, key, value = (
        s.reshape(batch, rows * columns, heads, head_dim).transpose(1, 2) for s in (query, key, value)
    )
    output = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return output.transpose(1, 2).reshape(batch, rows, columns, heads, head_dim)


class _AxialAttention(torch.autograd.Function):
    """Two flash-attention passes, over time and over the other leads, merged by log-sum-exp.

    The backward runs the flash backward of each axis with the **merged** output and log-sum-exp, as ring attention
    does: then the recomputed probabilities are those of the whole cross, and no gradient through the log-sum-exp is
    needed.
    """

    @staticmethod
    def forward(ctx, query, key, value, other_rows):
        batch, rows, columns, heads, _ = query.shape
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        time_out, time_lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *(_along_time(states) for states in (query, key, value))
        )
        # A row without another present row has no key here: it attends to all, and weighs nothing in the merge.
        lonely = ~other_rows.any(-1)
        mask = _additive_mask(other_rows | lonely[:, :, None], query.dtype)
        lead_out, lead_lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *(_along_leads(states) for states in (query, key, value)), attn_mask=mask
        )
        time_lse = time_lse.view(batch, rows, heads, columns).transpose(2, 3)
        lead_lse = lead_lse.view(batch, columns, heads, rows).permute(0, 3, 1, 2)
        lead_lse = lead_lse.masked_fill(lonely[:, :, None, None], float("-inf"))
        lse = torch.logaddexp(time_lse, lead_lse)
        output = _to_grid(time_out, query) * (time_lse - lse).exp()[..., None].to(query.dtype)
        output += _to_grid(lead_out, query) * (lead_lse - lse).exp()[..., None].to(query.dtype)
        ctx.save_for_backward(query, key, value, output, lse, other_rows)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        query, key, value, output, lse, other_rows = ctx.saved_tensors
        batch, rows, columns, heads, _ = query.shape
        grad_output = grad_output.contiguous()
        states = (grad_output, query, key, value, output)
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        grad_out, *qkv, out = (_along_time(state) for state in states)
        time_lse = lse.transpose(2, 3).reshape(batch * rows, heads, columns)
        time_grads = backward(grad_out, *qkv, out, time_lse, 0.0, False)
        grad_out, *qkv, out = (_along_leads(state) for state in states)
        lead_lse = lse.permute(0, 2, 3, 1).reshape(batch, columns * heads, rows)
        mask = _additive_mask(other_rows, query.dtype)
        lead_grads = backward(grad_out, *qkv, out, lead_lse, 0.0, False, attn_mask=mask)
        grads = (_to_grid(t, query) + _to_grid(s, query) for t, s in zip(time_grads, lead_grads, strict=True))
        return *grads, None


def _along_time(states: torch.Tensor) -> torch.Tensor:
    """`(batch, rows, columns, heads, head_dim)` as `(batch * rows, heads, columns, head_dim)`, without a copy."""
    return states.flatten(0, 1).transpose(1, 2)


def _along_leads(states: torch.Tensor) -> torch.Tensor:
    """`(batch, rows, columns, heads, head_dim)` as `(batch, columns * heads, rows, head_dim)`, without a copy."""
    return states.flatten(2, 3).transpose(1, 2)


def _to_grid(states: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The way back of both views."""
    return states.transpose(1, 2).reshape(like.shape)


def _additive_mask(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bool `(batch or 1, rows, rows)` to an additive mask `(batch or 1, 1, rows, rows)`."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, float("-inf"))[:, None]
