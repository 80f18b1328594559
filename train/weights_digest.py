"""Which weights a model has: what scores and the weights that they are of have in common, wherever both lie."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ecg_transformers.data.prepared import hash_file

DIGEST_KEY = "weights_sha256"
"""In `metrics.json` of `evaluate`."""


def weights_digest(files: Iterable[Path]) -> str:
    """SHA-256 of the only file of weights; of several, that of their digests in the order of their names."""
    digests = []
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as file:
            digests.append(hash_file(file))
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def model_digest(model: str | os.PathLike) -> str | None:
    """The digest of the weights that `from_pretrained` reads; `None` where they are no safetensors.

    Args:
        model (`str`): A folder, or the id of a model that was loaded already.
    """
    whole = _find(model, SAFE_WEIGHTS_NAME)
    if whole is not None:
        return weights_digest([whole])
    index = _find(model, SAFE_WEIGHTS_INDEX_NAME)
    if index is None:
        return None
    files = [_find(model, name) for name in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())]
    return None if None in files else weights_digest(files)


def _find(model: str | os.PathLike, name: str) -> Path | None:
    """A file of a folder, or of the Hub as the cache has it."""
    if os.path.isdir(model):
        path = Path(model, name)
        return path if path.is_file() else None
    found = try_to_load_from_cache(os.fspath(model), name)
    return Path(found) if isinstance(found, str) else None
