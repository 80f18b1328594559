"""Masking laws of the joint-embedding predictive methods: pure functions from seeded generators to boolean masks.

`True` = hidden. Nothing here touches the global random state; the caller keys the generator (by seed and step for what
a batch shares, by seed, epoch and record for what belongs to a record).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose stream depends on the key alone: the same on every rank, in every worker, after a resume.

    Args:
        key (`int` or `str`): For example `(seed, "mask", optimizer_step)` or `(seed, epoch, sample_id)`.
    """
    return torch.Generator().manual_seed(_digest(key) >> 1)


def _digest(key: tuple[int | str, ...]) -> int:
    """A number of 64 bits."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")


class RecordUniforms:
    """Uniform numbers of each record by counter: number k of a record is a function of its key and k alone.

    Drawn for a batch at once, where a generator for each record would cost more than what is drawn. The stream of a
    record is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").

    Args:
        keys (`np.ndarray` of shape `(batch,)`, uint64): Keys of the records.
    """

    GAMMA = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self, keys: np.ndarray):
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def draw(self, first: int, count: int) -> np.ndarray:
        """Numbers `first` to `first + count - 1` of every record, float64 of shape `(count, batch)` in [0, 1)."""
        counters = np.arange(first + 1, first + count + 1, dtype=np.uint64) * self.GAMMA
        return (self._mix(self.keys + counters[:, None]) >> np.uint64(11)) * 2.0**-53

    @classmethod
    def of(cls, key: int, ids: Sequence[int]) -> "RecordUniforms":
        """Streams of the records `ids` under a common key of 64 bits."""
        return cls(cls._mix(np.uint64(key) ^ cls._mix(np.array(ids, dtype=np.int64).astype(np.uint64) * cls.GAMMA)))

    @staticmethod
    def _mix(state: np.ndarray) -> np.ndarray:
        """Scrambles new 64-bit numbers in place, with wrapping products."""
        state ^= state >> np.uint64(30)
        state *= np.uint64(0xBF58476D1CE4E5B9)
        state ^= state >> np.uint64(27)
        state *= np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
        return state


@dataclass(frozen=True)
class DrawKeys:
    """Keys of the random draws of one batch, which depend on nothing else: neither rank, worker nor earlier draws.

    Args:
        seed (`int`): Seed of the run.
        step (`int`): Optimiser step: what a batch shares changes with it.
        epoch (`int`): Epoch: what belongs to a record changes with it.
        sample_ids (`tuple[int, ...]`): The records of the batch, in its order.
    """

    seed: int
    step: int
    epoch: int
    sample_ids: tuple[int, ...]

    def shared(self, purpose: str) -> torch.Generator:
        """For what a batch shares: equal on all ranks and in all micro-batches of a step."""
        return keyed_generator(self.seed, purpose, self.step)

    def per_record(self, purpose: str) -> list[torch.Generator]:
        """One generator a record, whatever batch it is in."""
        self._check_ids(purpose)
        return [keyed_generator(self.seed, purpose, self.epoch, sample_id) for sample_id in self.sample_ids]

    def uniforms(self, purpose: str) -> RecordUniforms:
        """Uniform numbers of each record, whatever batch it is in; much faster than generators."""
        self._check_ids(purpose)
        return RecordUniforms.of(_digest((self.seed, purpose, self.epoch)), self.sample_ids)

    def _check_ids(self, purpose: str) -> None:
        if not self.sample_ids:
            raise ValueError(
                f"The {purpose} of each record is keyed by its id, and this batch has no sample_id: collate with "
                "EcgPretrainingCollator."
            )


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A host tensor on the device of the input. A GPU gets it from pinned memory: neither waits for the other."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def all_on_device(drawn: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Tensors by name, each by [`on_device`]."""
    return {name: on_device(tensor, device) for name, tensor in drawn.items()}


def split_masked(bool_masked_pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Increasing indices of the visible and of the hidden positions, `(batch, visible)` and `(batch, hidden)`.

    Their number is read from the mask: where that lies on a GPU, the host waits for it. What draws a mask splits it on
    the host.

    Args:
        bool_masked_pos (`torch.BoolTensor` of shape `(batch, positions)`): `True` = hidden, equally many in each row.
    """
    counts = bool_masked_pos.sum(dim=1)
    num_hidden = int(counts[0])
    if bool((counts != num_hidden).any()):
        raise ValueError(
            "Expected equally many hidden patches in every sequence of bool_masked_pos (a record; ST-MEM: a lead), "
            f"got {counts.tolist()}. Draw the masks of a batch with one count."
        )
    if num_hidden == bool_masked_pos.shape[1]:
        raise ValueError(f"bool_masked_pos hides all {num_hidden} patches. Leave at least one visible.")
    visible, hidden = (mask.nonzero()[:, 1] for mask in (~bool_masked_pos, bool_masked_pos))
    return visible.view(len(counts), -1), hidden.view(len(counts), num_hidden)


def with_indices(bool_masked_pos: torch.Tensor) -> dict[str, torch.Tensor]:
    """A mask `(..., positions)` that was drawn on the host, and `visible_patches` and `hidden_patches`, the increasing
    indices of its positions `(..., visible)` and `(..., hidden)`: shapes, so that no device is asked for numbers."""
    visible, hidden = split_masked(bool_masked_pos.flatten(0, -2))
    shape = bool_masked_pos.shape[:-1]
    return {
        "bool_masked_pos": bool_masked_pos,
        "visible_patches": visible.unflatten(0, shape),
        "hidden_patches": hidden.unflatten(0, shape),
    }


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


def sample_segment_masks(
    num_columns: int,
    ratio_range: tuple[float, float],
    min_block: int,
    shared: torch.Generator,
    uniforms: RecordUniforms,
) -> torch.BoolTensor:
    """Hides long segments of time, other ones in each record, equally many columns in all (Weimann, arXiv 2410.13867).

    The batch hides `floor(r * num_columns)` columns, r uniform in `[low, high)`; the authors draw what is kept, which
    is the same. Then each record, until that many are hidden: choose a free interval with a chance proportional to
    its length; draw a block of `min_block` to all that is left to hide, and put it anywhere in the interval; an
    interval no longer than the block is hidden whole. Fewer than `min_block` columns that remain are put at an end
    of the interval that touches hidden ones.

    Two differences from the authors' code, none in the law. The interval is that of a random free column, and the
    records of a batch are drawn together, twenty times faster than one by one. And where fewer than `min_block`
    columns are to be hidden in all, their code fails for want of hidden ones to touch; here that one short block lies
    anywhere. Their own stream of random numbers: [`sample_published_segment_masks`].

    Args:
        min_block (`int`): Fewest columns of a block.
        shared (`torch.Generator`): Draws r; keyed by what the batch shares.
        uniforms (`RecordUniforms`): Draw the blocks of each record, three numbers a block.

    Returns:
        `torch.BoolTensor` of shape `(len(uniforms), num_columns)`.
    """
    num_hidden, batch = _draw_length(num_columns, ratio_range, shared), len(uniforms)
    # Each turn hides a block of min_block or more, the whole of an interval (there are at most as many as blocks,
    # and one), or the rest.
    most_turns = min(num_hidden, 2 * (num_hidden // min_block) + 2)
    records = np.arange(batch)
    starts, ends = (np.zeros((most_turns + 1, batch), dtype=np.int32) for _ in range(2))
    ends[0] = num_columns  # free intervals; the others are empty so far
    edges = np.zeros((num_columns + 1, batch), dtype=np.int8)  # 1 where a block begins, -1 behind it
    remaining = np.full(batch, num_hidden, dtype=np.int32)
    for turn in range(most_turns):
        which, length, where = uniforms.draw(3 * turn, 3)
        rank = (which * (num_columns - num_hidden + remaining)).astype(np.int32)  # among the free columns
        before, chosen = np.zeros_like(rank), np.zeros_like(rank)
        for interval in range(turn + 1):
            before += ends[interval] - starts[interval]
            chosen += before <= rank
        start, end = starts[chosen, records], ends[chosen, records]
        long = remaining >= min_block
        block = np.where(long, min_block + (length * (remaining - min_block + 1)).astype(np.int32), remaining)
        block = np.minimum(block, end - start)
        anywhere = start + (where * (end - start - block + 1)).astype(np.int32)
        can_start, can_end = start > 0, end < num_columns
        touching = np.where(can_start & (~can_end | (where < 0.5)), start, end - block)
        first = np.where(long | ~(can_start | can_end), anywhere, touching)
        edges[first, records] += 1
        edges[first + block, records] -= 1
        ends[chosen, records] = first
        starts[turn + 1], ends[turn + 1] = first + block, end
        remaining = remaining - block
        if not remaining.any():
            break
    for column in range(1, num_columns):  # row by row: a cumulative sum over the first axis is several times slower
        edges[column] += edges[column - 1]
    return torch.from_numpy(edges[:-1].T.astype(bool))


def sample_published_segment_masks(
    num_columns: int,
    keep_range: tuple[float, float],
    min_block: int,
    batch_size: int,
    random_state: np.random.RandomState,
) -> torch.BoolTensor:
    """The law of [`sample_segment_masks`] with the authors' numbers: from the same state of numpy's legacy stream, the
    same masks bit for bit. For parity tests, and slow: one record after the other.

    Args:
        keep_range (`tuple[float, float]`): Range of the **visible** fraction, as the authors state it (0.15, 0.25).
        random_state (`np.random.RandomState`): Theirs is the global one after `np.random.seed`.

    Returns:
        `torch.BoolTensor` of shape `(batch_size, num_columns)`.
    """
    num_hidden = num_columns - math.ceil(num_columns * random_state.uniform(*keep_range))
    hidden = np.zeros((batch_size, num_columns), dtype=bool)
    for mask in hidden:
        free, remaining = [(0, num_columns)], num_hidden
        while remaining:
            lengths = np.array([end - start for start, end in free])
            start, end = free.pop(random_state.choice(len(free), p=lengths / lengths.sum()))
            long = remaining >= min_block
            block = random_state.randint(min_block, remaining + 1) if long else remaining
            if end - start <= block:
                first, block = start, end - start
            else:
                touching = [edge for edge, inside in ((start, start > 0), (end - block, end < num_columns)) if inside]
                if long or not touching:
                    first = random_state.randint(start, end - block + 1)
                else:
                    first = random_state.choice(touching)
                free += [(start, first), (first + block, end)]
            mask[first : first + block] = True
            remaining -= block
    return torch.from_numpy(hidden)


def mask_from_noise(noise: torch.Tensor, mask_ratio: float) -> torch.BoolTensor:
    """Hides all but the patches with the smallest noise along the last axis (masked autoencoders, ST-MEM).

    Args:
        noise (`torch.Tensor` of shape `(..., num_patches)`): uniform in [0, 1).
        mask_ratio (`float`): `int(num_patches * (1 - mask_ratio))` patches stay visible.

    Returns:
        `torch.BoolTensor` of the shape of `noise`.
    """
    visible = noise.argsort(dim=-1)[..., : num_visible_patches(noise.shape[-1], mask_ratio)]
    return torch.ones_like(noise, dtype=torch.bool).scatter(-1, visible, False)


def num_visible_patches(num_patches: int, mask_ratio: float) -> int:
    """Number of a sequence's patches that stay visible; both sides need one, else there is no context or no loss."""
    num_visible = int(num_patches * (1 - mask_ratio))
    if not 0 < num_visible < num_patches:
        raise ValueError(
            f"mask_ratio {mask_ratio} leaves {num_visible} of {num_patches} patches visible; at least 1 must be "
            "visible and 1 hidden. Change mask_ratio, patch_size, or for MLAE the number of leads."
        )
    return num_visible


def hidden_count_bounds(num_columns: int, ratio_range: tuple[float, float]) -> tuple[int, int]:
    """Fewest and most columns that one draw of `floor(r * num_columns)` can give, r in `[low, high)`."""
    low, high = ratio_range
    return math.floor(num_columns * low), max(math.floor(num_columns * low), math.ceil(num_columns * high) - 1)


def _draw_length(num_columns: int, ratio_range: tuple[float, float], generator: torch.Generator) -> int:
    low, high = ratio_range
    return int(num_columns * (low + (high - low) * torch.rand(1, generator=generator).item()))
