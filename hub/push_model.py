"""A checkpoint becomes a model repository of the Hub, in one commit."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from ecg_transformers.train.explain.preview import complete_push
from ecg_transformers.train.publishing.hub_client import at_revision, check_repo_id, find_folder, plain_errors
from ecg_transformers.train.publishing.model_upload import open_model_repository, upload_model
from ecg_transformers.train.publishing.shared_folder import published_card, read_shared_folder
from ecg_transformers.train.results import read_result

logger = logging.getLogger("ecg_transformers")


def push_model(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    licence: str | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    *,
    weights_licence: str | None = None,
    results: Mapping[str, Any] | str | os.PathLike | None = None,
    endpoint: str | None = None,
) -> str:
    """Uploads a checkpoint to a model repository of the Hub: weights (safetensors), configuration, feature extractor,
    code for `trust_remote_code`, card, scores, training arguments and pictures.

    Nothing is pickled, and files that are there already are not sent again.

    Args:
        folder (`str`):
            What `pretrain`, `finetune`, `quickstart`, `convert` or `Trainer.save_model` wrote, with its card. Nothing
            in it is changed.
        repo_id (`str`): `"OWNER/NAME"`. Created if it does not exist.
        private (`bool`, *optional*): Whether a new repository is private; by default what the owner has set.
        revision (`str`, *optional*): Branch, created if it does not exist; by default the main one.
        licence (`str`, *optional*):
            Licence of the training data, such as `"CC BY 4.0"`, or `"other: NAME"`; needed where the card does not
            state it. Written into the card that goes out.
        token (`str`, *optional*): By default `HF_TOKEN`, or the one that `hf auth login` stored.
        commit_message (`str`, *optional*): By default a sentence with the class of the model.
        weights_licence (`str`, *optional*):
            Licence of the weights, such as `"cc-by-4.0"`; by default what the card states, which may be "unknown".
        results (`str` or `Mapping`, *optional*):
            `metrics.json` of `ecg-transformers evaluate`, or what is in it: goes into the card and its model-index. By
            default what lies in the folder.
        endpoint (`str`, *optional*): Another Hub than that of `HF_ENDPOINT`.

    Returns:
        `str`: the address of the repository, with `/tree/REVISION` if given.

    Raises:
        ValueError: for a folder that lacks something, a licence that is not settled, a repository that holds anything
            else or is public where `private` was asked, and for what the Hub refuses.
    """
    check_repo_id(repo_id)
    folder = find_folder(folder)
    if isinstance(results, (str, os.PathLike)):
        results = read_result(Path(results).expanduser()).to_json()
    shared = complete_push(read_shared_folder(folder, results), with_model=False)
    card = published_card(shared, repo_id, licence, weights_licence)  # refused before all else
    if card.data.get("license_name") == "unknown":
        logger.warning("The card says that the licence of the weights is unknown; --weights_licence NAME states it.")
    if shared.left_out:
        logger.info("Stay at home: %s", ", ".join(shared.left_out))
    name = (shared.config.get("architectures") or [shared.config["model_type"]])[0]
    api = HfApi(endpoint=endpoint, token=token)
    with plain_errors(repo_id, api.endpoint, "model"):
        repository = open_model_repository(api, repo_id, shared.config, revision, private)
        with plain_errors(repo_id, api.endpoint, "model", is_new=repository.is_new):
            shared = complete_push(shared)
            card = published_card(shared, repo_id, licence, weights_licence)
            upload_model(api, repository, shared, card, commit_message or f"Upload {name}")
    return at_revision(f"{api.endpoint}/{repo_id}", "/tree/", revision)
