"""The encoders of a scoreboard: trained ones by their folders, untrained ones beside them, and the features of all."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ecg_transformers.modeling import EcgFeatureExtractor

from ..checkpoints import UNTRAINED_ENCODERS, check_checkpoint
from ..features import EmbeddingTable, embed, load_encoder, random_encoder_like
from ..settings import extractor_field_names
from .runs import kept_table, of_records
from .scoreboard_data import Recordings

logger = logging.getLogger("ecg_transformers")


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder with its feature extractor, and a hash of both."""

    model: PreTrainedModel
    extractor: EcgFeatureExtractor

    def digest(self, extractor: EcgFeatureExtractor) -> str:
        """Hash of weights, configuration and input, which features depend on."""
        found = hashlib.blake2b(digest_size=10)
        config = {name: value for name, value in self.model.config.to_dict().items() if name != "_name_or_path"}
        found.update(json.dumps([type(self.model).__name__, config, extractor.to_dict()], default=str).encode())
        for name, value in sorted(self.model.state_dict().items()):
            found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class BoardRow:
    """A row of the scoreboard: the encoders of one name, one a seed, and the `places` of their weights. `kind` is
    `"untrained"`, `"random"` or `"model"`."""

    name: str
    kind: str
    encoders: list[FrozenEncoder]
    places: list[str]


def parse_models(words: Sequence[str]) -> dict[str, list[str]]:
    """`NAME=DIR[,DIR...]` words as folders (seeds) by name."""
    models = {}
    for word in words:
        name, equals, folders = word.partition("=")
        if not (name and equals and all(folders.split(","))) or name in models or name in UNTRAINED_ENCODERS:
            raise ValueError(
                f"Expected --scoreboard NAME=DIR[,DIR...] with a name of its own for each encoder, got {word!r}."
            )
        models[name] = folders.split(",")
    return models


def load_rows(models: Mapping[str, Sequence[str]], treatment: Mapping[str, Any]) -> list[BoardRow]:
    """The untrained encoders, then each model after its random encoder.

    `models` are folders (seeds) by name. `treatment` are settings of the feature extractor that make one treatment of
    the input for all encoders: their own unit, filter and normalisation are then left out. Empty: each encoder reads
    as it is stored.
    """
    for folders in models.values():
        for folder in folders:
            check_checkpoint(folder)

    def load(checkpoint: str) -> FrozenEncoder:
        return FrozenEncoder(*load_encoder(checkpoint, treatment))

    rows = [BoardRow(name, "untrained", [load(name)], [name]) for name in UNTRAINED_ENCODERS]
    for name, folders in models.items():
        trained = [load(folder) for folder in folders]
        fresh = [
            FrozenEncoder(random_encoder_like(encoder.model, seed), encoder.extractor)
            for seed, encoder in enumerate(trained)
        ]
        rows.append(BoardRow(random_name(name), "random", fresh, [f"seed {seed}" for seed in range(len(fresh))]))
        rows.append(BoardRow(name, "model", trained, list(folders)))
    return rows


def random_name(model: str) -> str:
    """The row of the random encoder of a model."""
    return f"{model}, random weights"


def treatment_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as settings of the feature extractor; a `ValueError` for a flag that is none of them."""
    unknown = sorted(set(settings) - extractor_field_names())
    if unknown:
        raise ValueError(f"A scoreboard trains nothing: --{unknown[0]} is no setting of the feature extractor.")
    return dict(settings)


@dataclass(frozen=True)
class Features:
    """The features of the encoders of all rows, computed once and kept in `folder`, in a folder an encoder."""

    rows: Sequence[BoardRow]
    folder: Path
    batch_size: int = 64

    def tables(
        self,
        recordings: Recordings,
        change: str = "",
        changed: Callable[[dict], dict] = dict,
        reads: Mapping[str, Any] | None = None,
        only: set[str] | None = None,
    ) -> tuple[dict[str, list[EmbeddingTable]], dict[str, str]]:
        """Tables of every row, one a seed, all of the same records; and why rows have none.

        Args:
            change (`str`): Name of a change of the recordings.
            changed (`Callable`, *optional*): Function from a decoded row to the changed one.
            reads (`Mapping`, *optional*): Settings of the feature extractor with which it reads the change.
            only (`set[str]`, *optional*): Record ids, if not all.
        """
        ids = [record_id for record_id in recordings.rows["record_id"] if only is None or record_id in only]
        records = hashlib.blake2b(repr((recordings.name, ids)).encode(), digest_size=6).hexdigest()
        name = "-".join(filter(None, (recordings.name, change, records)))
        found, refused = {}, {}
        for row in self.rows:
            try:
                found[row.name] = [
                    self._table(row, encoder, name, recordings, changed, reads, set(ids)) for encoder in row.encoders
                ]
            except ValueError as error:  # the other rows are worth keeping
                logger.warning("%s, %s: not available. %s", row.name, name, error)
                refused[row.name] = str(error)
        every = [table for tables in found.values() for table in tables]
        common = set.intersection(*(set(table.record_ids) for table in every)) if every else set()
        return {name: [of_records(table, common) for table in tables] for name, tables in found.items()}, refused

    def _table(self, row, encoder, name, recordings, changed, reads, ids) -> EmbeddingTable:
        extractor = encoder.extractor.changed(**(reads or {}))

        def compute() -> EmbeddingTable:
            logger.info("%s: %s", row.name, name)
            records = (record for record in recordings if record["record_id"] in ids)
            return embed(encoder.model, extractor, map(changed, records), self.batch_size, progress=False)

        return kept_table(self.folder / encoder.digest(extractor) / f"{name}.parquet", compute)
