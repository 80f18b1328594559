"""The steps that every push to the Hub shares: one commit when all has arrived, and errors that say what to do.

The files are uploaded first and become visible together: a push that breaks leaves the repository as it was, and the
next one sends only what is lacking.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from transformers import CONFIG_MAPPING
from transformers.utils import CONFIG_NAME

from .model_card import EVAL_RESULTS, eval_result_files
from .shared_folder import (
    ARGUMENTS_NAME,
    PREVIEW_NAME,
    RESULTS_NAMES,
    SharedFolder,
    refuse_places,
)

PAUSES_SECONDS = (1, 4)
"""Waits between the tries of a look-up."""
AGAIN = "Run the same command again: what has arrived is not sent again."
# Settings that make another model: its sizes, its input and its labels. All others may change from version to version.
SHAPES = re.compile(
    r"(?:size|dim|heads|layers|channels|depths|kernel|stride|width|registers|codes)$"
    r"|^(?:leads|position_leads|sampling_rate|num_samples|patching|problem_type|id2label)$"
)


@dataclass(frozen=True)
class Repository:
    """A repository of models or datasets as a push finds it: the branch to write to, whether that is still to be made,
    the last commit (of the main branch where it is), the paths of its files, and whether this push has created it."""

    repo_id: str
    repo_type: str
    revision: str | None
    is_new_branch: bool
    commit: str
    files: set[str]
    is_new: bool


def open_repository(
    api: HfApi,
    repo_id: str,
    repo_type: str,
    revision: str | None,
    private: bool | None,
    facts_name: str,
    check: Callable[[str], None],
) -> Repository:
    """Looks at a repository, which is created if it does not exist and else holds an earlier version: `check` raises
    `ValueError` for a text of its file `facts_name` that another version cannot replace."""
    is_new = not look_up(api.repo_exists, repo_id, repo_type=repo_type)
    if is_new:
        api.create_repo(repo_id, repo_type=repo_type, private=private)
    branches = {branch.name for branch in look_up(api.list_repo_refs, repo_id, repo_type=repo_type).branches}
    is_new_branch = revision is not None and revision not in branches
    info = look_up(api.repo_info, repo_id, repo_type=repo_type, revision=None if is_new_branch else revision)
    if private and not info.private:
        raise ValueError(
            f"{repo_id} exists and is public. Make it private in its settings, or give another --repo_id."
        )
    files = {sibling.rfilename for sibling in info.siblings or ()}
    if facts_name in files:
        path = api.hf_hub_download(repo_id, facts_name, repo_type=repo_type, revision=info.sha)
        check(Path(path).read_text(encoding="utf-8", errors="replace"))
    elif others := sorted(files - {".gitattributes", REPOCARD_NAME}):
        raise ValueError(
            f"{repo_id} holds other files ({', '.join(others[:3])}) and is left as it is. Give another --repo_id."
        )
    return Repository(repo_id, repo_type, revision, is_new_branch, info.sha, files, is_new)


def look_up(ask: Callable, *args: Any, **options: Any) -> Any:
    """Asks the Hub something that changes nothing; where it is busy (429) or broken (5xx), once more, and again."""
    for pause in (*PAUSES_SECONDS, None):
        try:
            return ask(*args, **options)
        except HfHubHTTPError as error:
            status = error.response.status_code
            if pause is None or (status != 429 and status < 500):
                raise
            time.sleep(pause)


def send(
    api: HfApi,
    repository: Repository,
    files: Mapping[str, str | bytes],
    message: str,
    deleted: Iterable[str] = (),
) -> CommitInfo:
    """Uploads files, by their path in the repository content or place on this machine, and commits them at once with
    the removal of others: `HfApi.create_commit` sends only what the repository lacks.

    (`HfApi.upload_folder` makes several commits where `hf_xet` is installed.)
    """
    repo_id, address = repository.repo_id, {"repo_type": repository.repo_type, "revision": repository.revision}
    if repository.is_new_branch:
        branch = address | {"branch": repository.revision, "revision": repository.commit, "exist_ok": True}
        api.create_branch(repo_id, **branch)
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    operations += [CommitOperationDelete(path) for path in deleted]
    return api.create_commit(repo_id, operations, commit_message=message, parent_commit=repository.commit, **address)


@contextmanager
def plain_errors(repo_id: str, endpoint: str, repo_type: str, again: str = AGAIN, is_new: bool = False):
    """Errors of the client become a `ValueError` that says what to do; `again`, where trying again may help, and
    what is left behind where the repository `is_new`."""
    try:
        yield
    except (LocalTokenNotFoundError, OfflineModeIsEnabled, HTTPError, RuntimeError) as error:
        found = error.__cause__ if isinstance(error, RuntimeError) else error  # so the client wraps a large file's
        if isinstance(error, RuntimeError) and not isinstance(found, HTTPError):
            raise
        raise ValueError(_sentence(found, repo_id, endpoint, repo_type, again, is_new)) from error


def _sentence(error: BaseException, repo_id: str, endpoint: str, repo_type: str, again: str, is_new: bool) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return f"Cannot push to {repo_id}: HF_HUB_OFFLINE is set."
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return f"{endpoint} does not accept the token, or there is none. `hf auth login`, or set HF_TOKEN."
    if status == 403:
        return f"The token may not write to {repo_id}: it needs write permission for {repo_id.split('/')[0]!r}."
    if status == 404:
        return f"{endpoint} knows no {repo_type} {repo_id} that the token may see: check OWNER/NAME and the token."
    if status == 409:
        return (
            f"The name {repo_id} is taken on {endpoint}, by a repository that the token does not see or that was made "
            "this moment. Run the same command again, or give another --repo_id."
        )
    if status == 412:
        return f"Someone else has committed to {repo_id} in the meantime; nothing was changed. {again}"
    reason = " ".join(str(error).split()) or type(error).__name__
    left = f"{repo_id} was created and is empty" if is_new else f"Nothing of {repo_id} was changed"
    what = f"The connection to {endpoint} broke" if status is None else f"{endpoint} refused ({status})"
    return f"{what}: {reason}. {left}. {again}"


def find_folder(folder: str | os.PathLike, repo_id: str) -> Path:
    """The folder to push, to a repository that is named with its owner."""
    if "/" not in repo_id:
        raise ValueError(f"Expected repo_id as OWNER/NAME, got {repo_id!r}.")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder {folder}. Give the --output_dir of `pretrain`, `finetune`, `quickstart` or `convert` "
            "(a model), or of `prepare` (a dataset)."
        )
    return folder


def at_revision(address: str, mark: str, revision: str | None) -> str:
    """An address with its branch behind a mark (`"@"`, `"/tree/"`), where there is one."""
    return address if revision is None else f"{address}{mark}{quote(revision, safe='')}"


# --- Models -------------------------------------------------------------------------------------------------------


def open_model_repository(
    api: HfApi, repo_id: str, config: Mapping[str, Any], revision: str | None = None, private: bool | None = None
) -> Repository:
    """Opens a repository for the model of a configuration; see [`open_repository`]."""

    def check(text: str):
        try:
            known = json.loads(text)
        except ValueError:
            known = None
        if differing := _differences(known if isinstance(known, Mapping) else {}, config):
            raise ValueError(
                f"{repo_id} holds another model, and is left as it is: {differing}. `push` writes over earlier "
                "versions of the same model alone. Give another --repo_id, or delete that repository first."
            )

    return open_repository(api, repo_id, "model", revision, private, CONFIG_NAME, check)


def _differences(*configs: Mapping[str, Any]) -> str:
    """Differences that make two models of two configurations, in words; empty for versions of one model."""
    there, here = map(_filled, configs)
    kinds = [", ".join(map(str, (of["model_type"], *(of.get("architectures") or ())))) for of in (there, here)]
    if kinds[0] != kinds[1]:
        return f"it is {kinds[0]}, this one is {kinds[1]}"

    def shown(value: Any) -> str:
        text = str(list(value.values()) if isinstance(value, Mapping) else value)
        return text if len(text) <= 60 else f"{text[:60]}..."

    names = [name for name in here if SHAPES.search(name) and name in there and there[name] != here[name]]
    return "; ".join(f"{name} is {shown(there[name])} there and {shown(here[name])} here" for name in names)


def _filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with what it leaves to its class, where this library has that class."""
    known = CONFIG_MAPPING[config["model_type"]]().to_dict() if config.get("model_type") in CONFIG_MAPPING else {}
    return json.loads(json.dumps({"model_type": None, **known, "id2label": None, **config}, default=list))


def upload_model(
    api: HfApi, repository: Repository, folder: SharedFolder, card: ModelCard, message: str
) -> CommitInfo:
    """Sends what the repository lacks in one commit; weights, scores and pictures that the new version no longer has
    are removed with it."""
    texts = folder.texts | {REPOCARD_NAME: str(card).encode()}
    for name, content in texts.items():
        refuse_places(content, folder.folder / name)
    for result in folder.results.values():
        texts |= eval_result_files(result)
    sent = {name: str(path) for name, path in folder.weights.items()} | texts
    sent |= {} if folder.picture is None else {PREVIEW_NAME: folder.picture.content}
    return send(api, repository, sent, message, [name for name in repository.files - sent.keys() if _is_stale(name)])


def _is_stale(name: str) -> bool:
    """Weights that `from_pretrained` would read instead of, or among, the new ones, and statements on the old."""
    if name in (*RESULTS_NAMES, ARGUMENTS_NAME, PREVIEW_NAME, "results.png") or name.startswith(EVAL_RESULTS):
        return True
    is_safe = name.startswith("model") and name.endswith((".safetensors", ".safetensors.index.json"))
    return "/" not in name and (is_safe or name.startswith("pytorch_model"))
