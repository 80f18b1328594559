"""`ecg-transformers push`: a folder that `prepare` wrote becomes a dataset repository of the Hub.

The files are uploaded first and become visible together, in one commit, when all are there: a push that breaks leaves
the repository as it was, and the next one sends only what is lacking.
"""

import argparse
import dataclasses
import hashlib
import logging
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import datasets
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile

from ecg_transformers.data.bad_records import REPORT_NAME
from ecg_transformers.data.dataset_card import HUB_LICENCES, dataset_card
from ecg_transformers.data.prepared import MANIFEST_NAME, PREPARED, Manifest, read_manifest, shard_url, verify_shards

logger = logging.getLogger("ecg_transformers")

CARD_NAME = "README.md"
SHARDS_PER_UPLOAD = 16
# Corpora of which the package does not know the licence, or of which it is for the user to find out.
UNSETTLED_LICENCE = re.compile(
    r"^\s*(none|other)?\s*$|\b(unknown|unset|verify|yours?)\b|that of the recordings", re.IGNORECASE
)


def run(args: argparse.Namespace):
    """The command."""
    location = push_prepared(
        args.folder, args.repo_id, private=args.private or None, revision=args.revision, licence=args.licence
    )
    at = f", revision={args.revision!r}" if args.revision else ""
    logger.info(
        'Load it:\n  load_ecg("%s", "%s", streaming=True)\n  datasets.load_dataset("%s"%s, streaming=True)',
        *(PREPARED, location, args.repo_id, at),
    )


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
    if "/" not in repo_id:
        raise ValueError(f"Expected repo_id as OWNER/NAME, got {repo_id!r}.")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}. Give the --output_dir of `ecg-transformers prepare`.")
    manifest = read_manifest(folder)
    stated = _settle_licence(manifest, licence)
    verify_shards(folder, manifest, tuple(manifest.splits))
    texts = _texts(folder, manifest, stated)
    api = HfApi(endpoint=endpoint, token=token)
    with _sentences(repo_id, api.endpoint):
        if not api.repo_exists(repo_id, repo_type="dataset"):
            api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        _send(api, repo_id, revision, private, folder, manifest, texts)
    return f"hf://datasets/{repo_id}" + (f"@{quote(revision, safe='')}" if revision else "")


def _settle_licence(manifest: Manifest, licence: str | None) -> Manifest:
    """The manifest with the licence under which it goes out."""
    chosen = manifest.licence if licence is None else licence
    names = {identifier: name for name, identifier in HUB_LICENCES.items()}
    if chosen.lower() in names:
        chosen = names[chosen.lower()].upper()
    if UNSETTLED_LICENCE.search(chosen):
        raise ValueError(
            f"The licence of the recordings is not settled: corpus {manifest.corpus!r} has {chosen!r}. Look it up at "
            f"{manifest.homepage or 'their source'}, and if it allows you to publish them, state it: "
            '--licence "CC BY 4.0".'
        )
    return dataclasses.replace(manifest, licence=chosen)


def _texts(folder: str | os.PathLike, manifest: Manifest, stated: Manifest) -> dict[str, bytes]:
    """The files beside the shards; where the licence was stated now, manifest and card say it too."""
    try:
        texts = {name: Path(folder, name).read_bytes() for name in (REPORT_NAME, CARD_NAME, MANIFEST_NAME)}
    except OSError as error:
        raise ValueError(f"Cannot read {error.filename}: {error.strerror}. Run the same `prepare` again.") from error
    if stated.licence != manifest.licence:
        first = next(shard for shards in manifest.splits.values() for shard in shards)
        features = datasets.Features.from_arrow_schema(pq.read_schema(shard_url(folder, first)))
        texts[CARD_NAME] = dataset_card(stated, features).encode()
        texts[MANIFEST_NAME] = stated.to_json().encode()
    return texts


def _send(
    api: HfApi,
    repo_id: str,
    revision: str | None,
    private: bool | None,
    folder: str | os.PathLike,
    manifest: Manifest,
    texts: dict[str, bytes],
):
    """Uploads what the repository lacks, then commits it at once."""
    where = {"repo_id": repo_id, "repo_type": "dataset", "revision": revision}
    branches = {branch.name for branch in api.list_repo_refs(repo_id, repo_type="dataset").branches}
    is_new_branch = revision is not None and revision not in branches
    info = api.repo_info(**{**where, "revision": None if is_new_branch else revision})
    if private and not info.private:
        raise ValueError(
            f"{repo_id} exists and is public. Make it private in its settings, or give another --repo_id."
        )
    entries = api.list_repo_tree(**{**where, "revision": info.sha}, recursive=True)
    there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    _check_same_corpus(api, repo_id, info.sha, there, manifest)
    shards = [shard for of_split in manifest.splits.values() for shard in of_split]
    lacking = [shard for shard in shards if not _is_there(there.get(shard.file), shard.sha256)]
    additions = [CommitOperationAdd(shard.file, shard_url(folder, shard)) for shard in lacking]
    changed = [
        CommitOperationAdd(name, content)
        for name, content in texts.items()
        if not _is_there(there.get(name), hashlib.sha256(content).hexdigest(), content)
    ]
    logger.info("%s: %d of %d shards are there.", repo_id, len(shards) - len(lacking), len(shards))
    if is_new_branch:
        api.create_branch(repo_id, branch=revision, revision=info.sha, repo_type="dataset", exist_ok=True)
    for first in range(0, len(additions), SHARDS_PER_UPLOAD):
        api.preupload_lfs_files(**where, additions=additions[first : first + SHARDS_PER_UPLOAD])
    if additions or changed:
        api.create_commit(
            **where,
            operations=[*additions, *changed],
            commit_message=f"{manifest.corpus}, prepared by ecg-transformers {manifest.package_version}",
            parent_commit=info.sha,
        )


def _is_there(entry: RepoFile | None, sha256: str, content: bytes | None = None) -> bool:
    """Whether a file of the repository is the same: by SHA-256, or where git stores it by git's own hash."""
    if entry is None:
        return False
    if entry.lfs is not None:
        return entry.lfs.sha256 == sha256
    return content is not None and entry.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _check_same_corpus(api: HfApi, repo_id: str, commit: str, there: dict[str, RepoFile], manifest: Manifest):
    """Only a new repository, or one of the same conversion, is written to."""
    if MANIFEST_NAME not in there:
        others = sorted(set(there) - {".gitattributes", CARD_NAME})
        if others:
            raise ValueError(
                f"{repo_id} holds other files ({', '.join(others[:3])}) and is left as it is. Give another --repo_id."
            )
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = api.hf_hub_download(
            *(repo_id, MANIFEST_NAME), repo_type="dataset", revision=commit, local_dir=temporary
        )
        known = Manifest.from_json(
            Path(path).read_text(encoding="utf-8", errors="replace"), f"{repo_id}/{MANIFEST_NAME}"
        )
    if known.plan != manifest.plan:
        raise ValueError(
            f"{repo_id} holds another conversion (corpus {known.corpus!r}, options {known.options}) and is left as it "
            "is. Give another --repo_id, or delete that repository first."
        )


@contextmanager
def _sentences(repo_id: str, endpoint: str):
    """What the client reports becomes one sentence that says what to do."""
    try:
        yield
    except (LocalTokenNotFoundError, OfflineModeIsEnabled, HTTPError) as error:
        raise ValueError(_sentence(error, repo_id, endpoint)) from error
    except RuntimeError as error:  # so the client wraps what happens to a single large file
        if not isinstance(error.__cause__, HTTPError):
            raise
        raise ValueError(_sentence(error.__cause__, repo_id, endpoint)) from error


def _sentence(error: BaseException, repo_id: str, endpoint: str) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return f"Cannot push to {repo_id}: HF_HUB_OFFLINE is set."
    owner, again = repo_id.split("/")[0], "Run the same command again: what has arrived is not sent again."
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return f"{endpoint} does not accept the token, or there is none. `hf auth login`, or set HF_TOKEN."
    if status == 403:
        return f"The token may not write to {repo_id}: it needs write permission for {owner!r}."
    if status == 404:
        return f"{endpoint} knows no dataset {repo_id} that the token may see: check OWNER/NAME and the token."
    if status == 412:
        return f"Someone else has committed to {repo_id} in the meantime; nothing was changed. {again}"
    reason = " ".join(str(error).split()) or type(error).__name__
    if status is not None:
        return f"{endpoint} refused ({status}): {reason}. Nothing of {repo_id} was changed. {again}"
    return f"The connection to {endpoint} broke: {reason}. Nothing of {repo_id} was changed. {again}"
