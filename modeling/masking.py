"""Masking laws of the joint-embedding predictive methods: pure functions from a seeded generator to boolean masks.

`True` = hidden. Nothing here touches the global random state; the caller keys the generator (by seed and step for what
a batch shares, by seed, epoch and record for what belongs to a record).
"""

import hashlib
import math

import torch


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose stream depends on the key alone: the same on every rank, in every worker, after a resume.

    Args:
        key (`int` or `str`): For example `(seed, "mask", optimizer_step)` or `(seed, epoch, sample_id)`.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def sample_random_mask(
    num_columns: int, ratio_range: tuple[float, float], generator: torch.Generator
) -> torch.BoolTensor:
    """Hides `floor(r * num_columns)` random columns, r uniform in `[low, high)` (Kim, "random").

    One `rand(1)`, then one `randperm`, as in the authors' code: the same generator state gives the same masks.

    Returns:
        `torch.BoolTensor` of shape `(num_columns,)`.
    """
    num_hidden = _draw_length(num_columns, ratio_range, generator)
    mask = torch.zeros(num_columns, dtype=torch.bool)
    mask[torch.randperm(num_columns, generator=generator)[:num_hidden]] = True
    return mask


def sample_multi_block_mask(
    num_columns: int,
    ratio_range: tuple[float, float],
    num_blocks: int,
    generator: torch.Generator,
    spare_last_column: bool = False,
) -> torch.BoolTensor:
    """Hides the union of `num_blocks` blocks of `floor(r * num_columns)` columns, r uniform in `[low, high)` (Kim).

    Blocks may overlap, so the hidden fraction varies from draw to draw (mean 0.55 for 4 blocks of 0.175 to 0.225).

    Args:
        spare_last_column (`bool`, *optional*, defaults to `False`):
            Parity with the authors' code, whose blocks never reach the last column (an off-by-one).

    Returns:
        `torch.BoolTensor` of shape `(num_columns,)`.
    """
    mask = torch.zeros(num_columns, dtype=torch.bool)
    for _ in range(num_blocks):
        length = _draw_length(num_columns, ratio_range, generator)
        num_starts = num_columns - length + (0 if spare_last_column else 1)
        start = int(torch.randperm(num_starts, generator=generator)[0])
        mask[start : start + length] = True
    return mask


def hidden_count_bounds(num_columns: int, ratio_range: tuple[float, float]) -> tuple[int, int]:
    """Fewest and most columns that one draw of `floor(r * num_columns)` can give, r in `[low, high)`."""
    low, high = ratio_range
    return math.floor(num_columns * low), max(math.floor(num_columns * low), math.ceil(num_columns * high) - 1)


def _draw_length(num_columns: int, ratio_range: tuple[float, float], generator: torch.Generator) -> int:
    low, high = ratio_range
    return int(num_columns * (low + (high - low) * torch.rand(1, generator=generator).item()))
