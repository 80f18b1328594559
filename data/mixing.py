"""`mix_ecg`: several corpora as one dataset, each drawn with its weight.

Built on `datasets.interleave_datasets`, whose splits by rank and worker and whose resume are exact (the tests prove it
again). What it lacks is added here: its order of the second and later epochs does not depend on the seed, and columns
that do not fit together fail late.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.iterable_dataset import RandomlyCyclingMultiSourcesExamplesIterable, RebatchedArrowExamplesIterable

from .builder import num_shards_of

STOPPING = ("all_exhausted", "first_exhausted", "each_once")
REQUIRED_COLUMNS = ("record_id", "ecg")
MIXED_ROWS = 32
"""Records of a table of the mixture."""


def mix_ecg(
    mixed: Sequence[datasets.Dataset | datasets.IterableDataset],
    weights: Sequence[float] | None = None,
    *,
    seed: int = 0,
    stopping: str,
) -> datasets.Dataset | datasets.IterableDataset:
    """Mixes datasets of [`load_ecg`]: each next record comes from dataset `i` with the probability of `weights[i]`.

    Args:
        mixed: Datasets, all with the same form of `ecg` (decoded or not). If one of them is a stream, the mixture is.
        weights (`Sequence[float]`, *optional*): Weights above 0, one a dataset, of any sum. Equal by default.
        seed (`int`):
            Seed of the order. A stream's order follows from the seed and `set_epoch`, and it goes on exactly where its
            `state_dict` says; the order of a dataset that is no stream follows from the seed, and a sampler
            shuffles it.
        stopping (`str`): When an epoch ends.
            `"all_exhausted"`: when every record of every dataset was seen; smaller datasets start again until then.
            `"first_exhausted"`: with the last record of the dataset that ends first; of others, some are not seen.
            `"each_once"`: every record comes exactly once; a dataset that has ended is drawn no more, so that the end
            of an epoch is not mixed by the weights.
            Ranks and workers that share a stream apply the rule each to its own part.

    Returns:
        a dataset with the columns of all; `None` where a corpus does not have one. `labels` are names, so that the
        classes of the mixture are [`mixed_label_names`] of those of the corpora.

    Raises:
        ValueError: for weights or rules that are none, or columns that do not fit together (says which and how).

    Example:

    ```python
    >>> ptb_xl = load_ecg("prepared", "prepared/ptb-xl", streaming=True, decode=False)
    >>> code_15 = load_ecg("prepared", "prepared/code-15", streaming=True, decode=False)
    >>> dataset = mix_ecg([ptb_xl, code_15], weights=[0.3, 0.7], seed=1, stopping="all_exhausted")
    ```
    """
    mixed = list(mixed)
    probabilities = _probabilities(weights, len(mixed))
    if stopping not in STOPPING:
        raise ValueError(f"Unknown stopping={stopping!r}. Choose from {list(STOPPING)}.")
    _check_columns(mixed)
    strategy = "all_exhausted_without_replacement" if stopping == "each_once" else stopping
    if all(isinstance(dataset, datasets.Dataset) for dataset in mixed):
        if any(not len(dataset) for dataset in mixed):
            raise ValueError(f"Expected records in every dataset, got the lengths {[len(d) for d in mixed]}.")
        return datasets.interleave_datasets(mixed, probabilities, seed=seed, stopping_strategy=strategy)
    streams = [
        dataset.to_iterable_dataset(num_shards=num_shards_of(len(dataset)))
        if isinstance(dataset, datasets.Dataset)
        else dataset
        for dataset in mixed
    ]
    mixture = datasets.interleave_datasets(streams, probabilities, seed=seed, stopping_strategy=strategy)
    mixture._ex_iterable = _SeededMixture.of(mixture._ex_iterable, seed)
    return mixture


def mixed_label_names(label_sets: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The union of the classes of several corpora, in the order in which they first come. A class is its name: corpora
    that mean the same have to call it the same.

    ```python
    >>> mixed_label_names([("AF", "NORM"), ("AF", "PVC")])
    ('AF', 'NORM', 'PVC')
    ```
    """
    return tuple(dict.fromkeys(name for names in label_sets for name in names))


def _probabilities(weights: Sequence[float] | None, num_datasets: int) -> list[float]:
    if num_datasets < 1:
        raise ValueError("Expected at least one dataset to mix, got none.")
    weights = [1.0] * num_datasets if weights is None else [float(weight) for weight in weights]
    if len(weights) != num_datasets or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"Expected {num_datasets} weights above 0, one for each dataset, got {weights}.")
    return [weight / math.fsum(weights) for weight in weights]


def _check_columns(mixed: Sequence[datasets.Dataset | datasets.IterableDataset]):
    known = {}
    for number, dataset in enumerate(mixed):
        if not isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
            raise ValueError(f"Dataset {number} of the mixture is {dataset!r}: load it first, by load_ecg.")
        absent = [name for name in REQUIRED_COLUMNS if name not in (dataset.features or ())]
        if absent:
            raise ValueError(
                f"Dataset {number} of the mixture lacks the columns {absent}: it has {list(dataset.features or ())}. "
                "Mix datasets of load_ecg, before map or select_columns takes columns away."
            )
        for name, feature in dataset.features.items():
            first, where = known.setdefault(name, (feature, number))
            if first != feature:
                cure = "Load all with the same `decode`." if name == "ecg" else "Cast or rename it in one of them."
                raise ValueError(
                    f"Column {name!r} is {first} in dataset {where} of the mixture and {feature} in dataset {number}. "
                    f"{cure}"
                )


class _SeededMixture(RandomlyCyclingMultiSourcesExamplesIterable):
    """A random mixture whose later epochs follow from the seed too; those of `datasets` do from their number alone.

    Tables are mixed as slices of those of the sources, in the very order of `datasets`, which hands over single rows
    from a thread for each source.
    """

    seed: int = 0

    @classmethod
    def of(cls, mixture: RandomlyCyclingMultiSourcesExamplesIterable, seed: int) -> "_SeededMixture":
        sources = mixture.ex_iterables
        if all(isinstance(source, RebatchedArrowExamplesIterable) for source in sources):
            sources = [source.ex_iterable for source in sources]
        seeded = cls(sources, mixture.generator, mixture.probabilities, mixture.stopping_strategy)
        seeded.seed = seed
        return seeded

    def shuffle_data_sources(self, generator: np.random.Generator) -> "_SeededMixture":
        drawn = int(deepcopy(generator).integers(1 << 63))
        return self.of(super().shuffle_data_sources(np.random.default_rng([self.seed, drawn])), self.seed)

    def shift_rngs(self, value: int) -> "_SeededMixture":
        return self.of(super().shift_rngs(value), self.seed)

    def shard_data_sources(self, num_shards: int, index: int, contiguous=True) -> "_SeededMixture":
        return self.of(super().shard_data_sources(num_shards, index, contiguous=contiguous), self.seed)

    def _init_state_dict(self) -> dict:
        state = super()._init_state_dict()
        state["num_drawn"] = [0] * len(self.ex_iterables)  # rows of the table that follows `previous_states`
        return state

    def _iter_arrow(self) -> Iterator[tuple[str, pa.Table]]:
        state = self._state_dict or self._init_state_dict()
        for source, before in zip(self.ex_iterables, state["previous_states"], strict=True):
            if before is not None:
                source.load_state_dict(before)
        sources = [_Source(*of) for of in zip(self.ex_iterables, state["num_drawn"], strict=True)]
        is_once = self.stopping_strategy == "all_exhausted_without_replacement"
        slices, num_rows = [], 0
        is_over = self.bool_strategy_func(state["is_exhausted"])  # takes microseconds
        for number in self._get_indices_iterator():
            if is_over:
                break
            if is_once and state["is_exhausted"][number]:
                continue
            source = sources[number]
            num_rows += source.draw(slices)
            if source.is_exhausted():
                state["is_exhausted"][number] = True
                is_over = self.bool_strategy_func(state["is_exhausted"])
                if not is_once:
                    source.restart()
            if num_rows == MIXED_ROWS:
                state["previous_states"] = [source.before for source in sources]
                state["num_drawn"] = [source.num_drawn for source in sources]
                yield "mixture", _concatenate(slices)
                slices, num_rows = [], 0
        if slices:
            yield "mixture", _concatenate(slices)


class _Source:
    """A stream from whose tables rows are drawn, one at a time, from row `num_drawn` of the next table."""

    def __init__(self, stream: Any, num_drawn: int):
        self.stream, self.num_drawn = stream, num_drawn
        self._begin()

    def _begin(self):
        self.tables, self.table = self.stream.iter_arrow(), None
        self.before = self.stream.state_dict()
        self.is_read = False

    def restart(self):
        self.stream._init_state_dict()
        self.num_drawn = 0
        self._begin()

    def _read(self):
        self.before, self.is_read = self.stream.state_dict(), True
        table = next((table for _, table in self.tables if len(table)), None)
        self.table = None if table is None else table.combine_chunks().to_batches()[0]

    def draw(self, slices: list[list]) -> int:
        """Adds the next row to slices `[table, start, stop]`; the number of rows added, 0 for an empty stream."""
        if not self.is_read:
            self._read()
        if self.table is None:
            return 0
        if slices and slices[-1][0] is self.table and slices[-1][2] == self.num_drawn:
            slices[-1][2] += 1
        else:
            slices.append([self.table, self.num_drawn, self.num_drawn + 1])
        self.num_drawn += 1
        return 1

    def is_exhausted(self) -> bool:
        """Checks whether no row is left; reads on where a table has ended."""
        if self.table is not None and self.num_drawn >= len(self.table):
            self._read()
            self.num_drawn = 0
        return self.table is None


def _concatenate(slices: list[list]) -> pa.Table:
    parts = [batch.slice(start, stop - start) for batch, start, stop in slices]
    try:
        return pa.Table.from_batches(parts)
    except pa.ArrowInvalid:  # corpora with columns of their own
        return pa.concat_tables([pa.Table.from_batches([part]) for part in parts], promote_options="permissive")
