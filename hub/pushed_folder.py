"""What every push asks of a folder and of the name under which it goes out, before anything is read or sent."""

import os
from pathlib import Path
from urllib.parse import quote


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
