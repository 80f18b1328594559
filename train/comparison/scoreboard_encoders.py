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
class BoardRow:
    """A row of the scoreboard: the encoders of one name with their feature extractors, one a seed, and the `places` of
    their weights. `kind` is `"untrained"`, `"random"` or `"model"`."""

    name: str
    kind: str
    encoders: list[tuple[PreTrainedModel, EcgFeatureExtractor]]
    places: list[str]

    def facts(self) -> dict[str, Any]:
        """The row in `scoreboard.json`."""
        num_features = self.encoders[0][0].config.pooled_size
        return {"name": self.name, "kind": self.kind, "places": self.places, "num_features": num_features}


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
    if unknown := sorted(set(treatment) - extractor_field_names()):
        raise ValueError(f"A scoreboard trains nothing: --{unknown[0]} is no setting of the feature extractor.")
    for folder in (folder for folders in models.values() for folder in folders):
        check_checkpoint(folder)
    rows = [BoardRow(name, "untrained", [load_encoder(name, dict(treatment))], [name]) for name in UNTRAINED_ENCODERS]
    for name, folders in models.items():
        trained = [load_encoder(folder, dict(treatment)) for folder in folders]
        fresh = [(random_encoder_like(model, seed), extractor) for seed, (model, extractor) in enumerate(trained)]
        rows.append(BoardRow(random_name(name), "random", fresh, [f"seed {seed}" for seed in range(len(fresh))]))
        rows.append(BoardRow(name, "model", trained, list(folders)))
    return rows


def random_name(model: str) -> str:
    """The row of the random encoder of a model."""
    return f"{model}, random weights"


@dataclass(frozen=True)
class Features:
    """The features of the encoders of all rows, computed once and kept in `folder`, in a folder an encoder."""

    rows: Sequence[BoardRow]
    folder: Path

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

        def table_of(model: PreTrainedModel, extractor: EcgFeatureExtractor) -> EmbeddingTable:
            extractor = extractor.changed(**(reads or {}))

            def compute() -> EmbeddingTable:
                records = (record for record in recordings if only is None or record["record_id"] in only)
                return embed(model, extractor, map(changed, records), progress=False)

            return kept_table(self.folder / digest(model, extractor) / f"{name}.parquet", compute)

        found, refused = {}, {}
        for row in self.rows:
            logger.info("%s: %s", row.name, name)
            try:
                found[row.name] = [table_of(*encoder) for encoder in row.encoders]
            except ValueError as error:  # the other rows are worth keeping
                logger.warning("%s, %s: not available. %s", row.name, name, error)
                refused[row.name] = str(error)
        every = [set(table.record_ids) for tables in found.values() for table in tables]
        common = set.intersection(*every) if every else set()
        return {name: [of_records(table, common) for table in tables] for name, tables in found.items()}, refused


def digest(model: PreTrainedModel, extractor: EcgFeatureExtractor) -> str:
    """Hash of weights, configuration and input, which features depend on."""
    found = hashlib.blake2b(digest_size=10)
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    found.update(json.dumps([type(model).__name__, config, extractor.to_dict()], default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
