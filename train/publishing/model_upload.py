"""A checkpoint becomes a commit of a model repository: the part that `push` and the Trainer share."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.constants import REPOCARD_NAME
from transformers import CONFIG_MAPPING
from transformers.utils import CONFIG_NAME

from .folder_files import refuse_places
from .hub_client import Repository, open_repository, refuse_other_files, send
from .shared_folder import ARGUMENTS_NAME, PREVIEW_NAME, RESULTS_NAMES, RUN_PICTURE_NAME, SharedFolder

# Settings that make another model: its sizes, its input and its labels. All others may change from version to version.
SHAPES = re.compile(
    r"(?:size|dim|heads|layers|channels|depths|kernel|stride|width|registers|codes)$"
    r"|^(?:leads|position_leads|sampling_rate|num_samples|patching|problem_type|id2label)$"
)


def open_model_repository(
    api: HfApi, repo_id: str, config: Mapping[str, Any], revision: str | None = None, private: bool | None = None
) -> Repository:
    """A new model repository, or one that holds an earlier version of the same model.

    Args:
        config (`Mapping`): Configuration of the model that is to go there.

    Raises:
        ValueError: for a repository that holds anything else, or is public where `private` was asked.
    """
    repository = open_repository(api, repo_id, "model", revision, private)
    if CONFIG_NAME not in repository.files:
        refuse_other_files(repository)
        return repository
    with tempfile.TemporaryDirectory() as temporary:
        path = api.hf_hub_download(repo_id, CONFIG_NAME, revision=repository.commit, local_dir=temporary)
        try:
            known = json.loads(Path(path).read_text(encoding="utf-8", errors="replace"))
        except ValueError:
            known = {}
    if differing := _differences(known if isinstance(known, Mapping) else {}, config):
        raise ValueError(
            f"{repo_id} holds another model, and is left as it is: {differing}. `push` writes over earlier versions "
            "of the same model alone. Give another --repo_id, or delete that repository first."
        )
    return repository


def _differences(known: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Differences that make two models of two configurations, in words; empty for versions of one model."""
    known, config = (_filled(kind) for kind in (known, config))
    names = [name for name in config if SHAPES.search(name) and name in known and known[name] != config[name]]
    kinds = [
        ", ".join(map(str, (kind.get("model_type"), *(kind.get("architectures") or ())))) for kind in (known, config)
    ]
    if kinds[0] != kinds[1]:
        return f"it is {kinds[0]}, this one is {kinds[1]}"
    there, here = ({name: _shortened(kind[name]) for name in names} for kind in (known, config))
    return "; ".join(f"{name} is {there[name]} there and {here[name]} here" for name in names)


def _filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with what it leaves to its class, where this library has that class."""
    defaults = {}
    if config.get("model_type") in CONFIG_MAPPING:
        defaults = CONFIG_MAPPING[config["model_type"]]().to_dict()
    return json.loads(json.dumps({**defaults, "id2label": None, **config}, default=list))


def _shortened(value: Any, longest: int = 60) -> str:
    text = str(list(value.values()) if isinstance(value, Mapping) else value)
    return text if len(text) <= longest else f"{text[:longest]}..."


def upload_model(
    api: HfApi, repository: Repository, folder: SharedFolder, card: ModelCard, message: str
) -> CommitInfo:
    """Sends what the repository lacks in one commit; weights that the new version no longer has are removed with it.

    Args:
        folder ([`SharedFolder`]): Files that are to be there.
        card (`ModelCard`): See [`~.shared_folder.published_card`].
        message (`str`): Message of the commit.
    """
    pictures = {name: picture.content for name, picture in folder.pictures.items()}
    texts = folder.texts | {REPOCARD_NAME: str(card).encode()}
    for name, content in texts.items():
        refuse_places(content, folder.folder / name)
    sent = {name: str(path) for name, path in folder.weights.items()} | texts | pictures
    stale = [name for name in repository.files if _belongs_to_weights(name) and name not in sent]
    files = [CommitOperationAdd(name, content) for name, content in sent.items()]
    return send(api, repository, files, message, stale)


def _belongs_to_weights(name: str) -> bool:
    """Weights that `from_pretrained` would read instead of, or among, the new ones, and what was said of the old."""
    if name in (*RESULTS_NAMES, ARGUMENTS_NAME, PREVIEW_NAME, RUN_PICTURE_NAME):
        return True
    is_safe = name.startswith("model") and name.endswith((".safetensors", ".safetensors.index.json"))
    return "/" not in name and (is_safe or name.startswith("pytorch_model"))
