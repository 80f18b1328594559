"""What every push to the Hub shares: one commit when all has arrived, and errors that say what to do.

The files are uploaded first and become visible together: a push that breaks leaves the repository as it was, and the
next one sends only what is lacking.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

PAUSES_SECONDS = (1, 4)
"""Waits between the tries of a look-up."""
AGAIN = "Run the same command again: what has arrived is not sent again."


@dataclass(frozen=True)
class Repository:
    """A repository as a push finds it.

    Args:
        repo_id (`str`): `"OWNER/NAME"`.
        repo_type (`str`): `"model"` or `"dataset"`.
        revision (`str`, *optional*): Branch to write to.
        is_new_branch (`bool`): Whether it is still to be made.
        commit (`str`): Its last commit, or that of the main branch where it is new.
        files (`set[str]`): Paths of its files.
        is_new (`bool`): Whether this push has created it.
    """

    repo_id: str
    repo_type: str
    revision: str | None
    is_new_branch: bool
    commit: str
    files: set[str]
    is_new: bool = False

    @property
    def address(self) -> dict[str, Any]:
        return {"repo_id": self.repo_id, "repo_type": self.repo_type, "revision": self.revision}


def open_repository(
    api: HfApi, repo_id: str, repo_type: str, revision: str | None = None, private: bool | None = None
) -> Repository:
    """Looks at a repository; creates it if it does not exist.

    Raises:
        ValueError: for a public repository where a private one is asked.
    """
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


def refuse_other_files(repository: Repository):
    """Raises `ValueError` for a repository that holds more than a new one does."""
    if others := sorted(repository.files - {".gitattributes", REPOCARD_NAME}):
        raise ValueError(
            f"{repository.repo_id} holds other files ({', '.join(others[:3])}) and is left as it is. Give another "
            "--repo_id."
        )


def send(
    api: HfApi,
    repository: Repository,
    files: Iterable[CommitOperationAdd],
    message: str,
    deleted: Iterable[str] = (),
) -> CommitInfo:
    """Uploads files and commits them at once: `HfApi.create_commit` sends only what the repository lacks.

    (`HfApi.upload_folder` makes several commits where `hf_xet` is installed.)

    Args:
        files (`Iterable[CommitOperationAdd]`): Files that are to be there.
        message (`str`): Message of the commit.
        deleted (`Iterable[str]`): Paths to remove.
    """
    if repository.is_new_branch:
        api.create_branch(
            *(repository.repo_id,),
            branch=repository.revision,
            revision=repository.commit,
            repo_type=repository.repo_type,
            exist_ok=True,
        )
    operations = [*files, *(CommitOperationDelete(path) for path in deleted)]
    return api.create_commit(
        **repository.address, operations=operations, commit_message=message, parent_commit=repository.commit
    )


@contextmanager
def plain_errors(repo_id: str, endpoint: str, repo_type: str, again: str = AGAIN, is_new: bool = False):
    """Errors of the client become a `ValueError` that says what to do; `again`, where trying again may help, and
    what is left behind where the repository `is_new`."""
    try:
        yield
    except (LocalTokenNotFoundError, OfflineModeIsEnabled, HTTPError) as error:
        raise ValueError(_sentence(error, repo_id, endpoint, repo_type, again, is_new)) from error
    except RuntimeError as error:  # so the client wraps what happens to a single large file
        if not isinstance(error.__cause__, HTTPError):
            raise
        raise ValueError(_sentence(error.__cause__, repo_id, endpoint, repo_type, again, is_new)) from error


def _sentence(
    error: BaseException, repo_id: str, endpoint: str, repo_type: str, again: str, is_new: bool = False
) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return f"Cannot push to {repo_id}: HF_HUB_OFFLINE is set."
    owner = repo_id.split("/")[0]
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return f"{endpoint} does not accept the token, or there is none. `hf auth login`, or set HF_TOKEN."
    if status == 403:
        return f"The token may not write to {repo_id}: it needs write permission for {owner!r}."
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
    if status is not None:
        return f"{endpoint} refused ({status}): {reason}. {left}. {again}"
    return f"The connection to {endpoint} broke: {reason}. {left}. {again}"


def find_folder(folder: str | os.PathLike) -> Path:
    """The folder to push.

    Raises:
        ValueError: if there is none.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder {folder}. Give the --output_dir of `pretrain`, `finetune`, `quickstart` or `convert` "
            "(a model), or of `prepare` (a dataset)."
        )
    return folder


def check_repo_id(repo_id: str):
    """Raises `ValueError` for a name without an owner."""
    if "/" not in repo_id:
        raise ValueError(f"Expected repo_id as OWNER/NAME, got {repo_id!r}.")


def at_revision(address: str, mark: str, revision: str | None) -> str:
    """An address with its branch behind a mark (`"@"`, `"/tree/"`), where there is one."""
    return address if revision is None else f"{address}{mark}{quote(revision, safe='')}"
