"""Reading what is to be published: only what lies in the folder itself, and one sentence where it cannot be read."""

import json
import re
from pathlib import Path
from typing import Any

HOMES = re.compile(rb"(?<![\w.-])(?:/home/|/Users/|/root/|[A-Za-z]:\\+Users\\)[\w.-]*")


def refuse_places(content: bytes, path: Path):
    """Raises `ValueError` for a text that names a home, the working folder or its own folder on this machine.

    Args:
        content (`bytes`): Text that is to be published.
        path (`Path`): File that holds it.
    """
    own = {str(place).encode() + b"/" for place in (Path.home(), Path.cwd(), path.parent.absolute())} - {b"//"}
    found = HOMES.search(content)
    places = [found[0]] if found else [place for place in sorted(own) if place in content]
    if places:
        raise ValueError(
            f"{path.name} names a place of this machine, {places[0].decode()}, which would be published. Take it out "
            f"of {path}."
        )


def own_file(path: Path) -> Path:
    """A file of a folder that is to be published; in the Hub's cache, where `snapshots/COMMIT` holds links to the
    `blobs` of the same repository, those too.

    Raises:
        ValueError: for a link to what lies elsewhere.
    """
    folder, found = path.parent.resolve(), path.resolve()
    is_cached = folder.parent.name == "snapshots" and found.parent == folder.parent.parent / "blobs"
    if found.parent != folder and not is_cached:
        raise ValueError(
            f"{path} is a link to a file outside of the folder, and would be published: {found}. Put a copy of it "
            "there if it belongs to the model, or remove the link."
        )
    return path


def read_text(path: Path) -> str:
    """Text (UTF-8) of a folder that is to be published.

    Raises:
        ValueError: for a link to what lies elsewhere, and what cannot be read.
    """
    try:
        return own_file(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}). Save it as UTF-8.") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping of a folder that is to be published.

    Raises:
        ValueError: for a link to what lies elsewhere, and what is no JSON or no mapping.
    """
    text, cure = read_text(path), "Write it again, or remove it if it is not needed."
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}). {cure}") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected names and values ({{...}}) in {path}, got a {type(content).__name__}. {cure}")
    return content
