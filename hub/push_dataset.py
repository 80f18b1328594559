"""A folder that `prepare` wrote becomes a dataset repository of the Hub, in one commit."""

import dataclasses
import logging
import os
import tempfile
from pathlib import Path

import datasets
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.constants import REPOCARD_NAME

from ecg_transformers.data.bad_record_report import REPORT_NAME
from ecg_transformers.data.dataset_card import dataset_card
from ecg_transformers.data.prepared import MANIFEST_NAME, Manifest, read_manifest, shard_url, verify_shards
from ecg_transformers.train.publishing.hub_client import (
    Repository,
    at_revision,
    check_repo_id,
    find_folder,
    open_repository,
    plain_errors,
    refuse_other_files,
    send,
)
from ecg_transformers.train.publishing.licences import EXPECTED_LICENCE, is_settled, licence_name

logger = logging.getLogger("ecg_transformers")


def push_prepared(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    licence: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Uploads a prepared corpus to a dataset repository of the Hub; files that are there already are not sent again.

    Args:
        folder (`str`): What `ecg-transformers prepare` wrote, finished. Nothing in it is changed.
        repo_id (`str`): `"OWNER/NAME"`. Created if it does not exist.
        private (`bool`, *optional*): Whether a new repository is private; by default what the owner has set.
        revision (`str`, *optional*): Branch, created if it does not exist; by default the main one.
        licence (`str`, *optional*):
            Licence of the recordings, such as `"CC BY 4.0"` or `"cc-by-4.0"`. Needed where the corpus states none that
            holds for every copy; otherwise the stated one. With it, the card is written anew.
        token (`str`, *optional*): By default `HF_TOKEN`, or the one that `hf auth login` stored.
        endpoint (`str`, *optional*): Another Hub than that of `HF_ENDPOINT`.

    Returns:
        the URL by which `load_ecg("prepared", ...)` finds it: `"hf://datasets/OWNER/NAME"`, with `@REVISION` if given.

    Raises:
        ValueError: for a folder that is unfinished or damaged, an unsettled licence, a repository that holds anything
            else or is public where `private` was asked, and for what the Hub refuses.
    """
    check_repo_id(repo_id)
    folder = find_folder(folder)
    manifest = read_manifest(folder)
    _refuse_private_paths(folder, manifest)
    stated = _settle_licence(manifest, licence)
    verify_shards(folder, manifest, tuple(manifest.splits))
    texts = _texts(folder, manifest, stated)
    api = HfApi(endpoint=endpoint, token=token)
    with plain_errors(repo_id, api.endpoint, "dataset"):
        repository = open_repository(api, repo_id, "dataset", revision, private)
        _check_same_corpus(api, repository, manifest)
        with plain_errors(repo_id, api.endpoint, "dataset", is_new=repository.is_new):
            _send(api, repository, folder, manifest, texts)
    return at_revision(f"hf://datasets/{repo_id}", "@", revision)


def _refuse_private_paths(folder: Path, manifest: Manifest):
    """Earlier versions stored the path of a file that an option names; every shard has it too."""
    private = [name for name, value in manifest.options.items() if isinstance(value, str) and os.path.isabs(value)]
    if private:
        raise ValueError(
            f"{folder} states a path of this machine in the options {private}, which would be published. Run "
            "`prepare` into a new folder: this version stores name and checksum of such a file instead."
        )


def _settle_licence(manifest: Manifest, licence: str | None) -> Manifest:
    """The manifest with the licence under which it goes out."""
    chosen = licence_name(manifest.licence if licence is None else licence)
    if not is_settled(chosen):
        raise ValueError(
            f"The licence of the recordings is not settled: corpus {manifest.corpus!r} has {chosen!r}. Look it up at "
            f"{manifest.homepage or 'their source'}, and if it allows you to publish them, state it: "
            f'--licence "CC BY 4.0". {EXPECTED_LICENCE}.'
        )
    return dataclasses.replace(manifest, licence=chosen)


def _texts(folder: str | os.PathLike, manifest: Manifest, stated: Manifest) -> dict[str, bytes]:
    """The files beside the shards; where the licence was stated now, manifest and card say it too."""
    try:
        texts = {name: Path(folder, name).read_bytes() for name in (REPORT_NAME, REPOCARD_NAME, MANIFEST_NAME)}
    except OSError as error:
        raise ValueError(f"Cannot read {error.filename}: {error.strerror}. Run the same `prepare` again.") from error
    if stated.licence != manifest.licence:
        first = next(shard for shards in manifest.splits.values() for shard in shards)
        features = datasets.Features.from_arrow_schema(pq.read_schema(shard_url(folder, first)))
        texts[REPOCARD_NAME] = dataset_card(stated, features).encode()
        texts[MANIFEST_NAME] = stated.to_json().encode()
    return texts


def _send(api: HfApi, repository: Repository, folder: str | os.PathLike, manifest: Manifest, texts: dict[str, bytes]):
    """Uploads what the repository lacks, then commits it at once."""
    shards = [shard for of_split in manifest.splits.values() for shard in of_split]
    files = [CommitOperationAdd(shard.file, shard_url(folder, shard)) for shard in shards]
    files += [CommitOperationAdd(name, content) for name, content in texts.items()]
    logger.info("%s: %d shards; those that are there are not sent.", repository.repo_id, len(shards))
    message = f"{manifest.corpus}, prepared by ecg-transformers {manifest.package_version}"
    send(api, repository, files, message)


def _check_same_corpus(api: HfApi, repository: Repository, manifest: Manifest):
    """Only a new repository, or one of the same conversion, is written to."""
    repo_id = repository.repo_id
    if MANIFEST_NAME not in repository.files:
        refuse_other_files(repository)
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = api.hf_hub_download(
            *(repo_id, MANIFEST_NAME), repo_type="dataset", revision=repository.commit, local_dir=temporary
        )
        known = Manifest.from_json(
            Path(path).read_text(encoding="utf-8", errors="replace"), f"{repo_id}/{MANIFEST_NAME}"
        )
    if known.plan != manifest.plan:
        raise ValueError(
            f"{repo_id} holds another conversion (corpus {known.corpus!r}, options {known.options}) and is left as it "
            "is. Give another --repo_id, or delete that repository first."
        )
