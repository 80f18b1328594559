"""What only means something on the machine of a run, or names records: taken out of texts and JSON that go out."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE_ADDRESS = re.compile(r"file:/+", re.IGNORECASE)
ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^/\s@]*@)?(?P<place>[^?#\s\"']*)(?P<query>[?#][^\s\"']*)?", re.IGNORECASE
)
# Of any other address (s3://bucket/...) the rest behind the first part is a path of somebody's store.
PUBLIC_SCHEMES = {"http://", "https://", "hf://"}
SECRET_QUERY = re.compile(r"token|secret|password|credential|signature|sig=|key=|auth", re.IGNORECASE)
ROOT = r"(?:(?:~(?:[a-z_][\w.-]*)?|\.{1,2})?/|[a-z]:[\\/]+|\\{2,}(?=[^\\/\s]+\\))"
# A text that begins as a path and is one, blanks and all: as a whole, or in quotes.
WHOLE_PATH = re.compile(rf"{ROOT}[^/\n](?:[^\n,;]|[,;](?!\s*\.{{0,2}}[/~]))*", re.IGNORECASE)
QUOTED_PATH = re.compile(rf"(?P<quote>[\"'`])(?P<path>{ROOT}[^/\n\"'`][^\n\"'`]*)(?P=quote)", re.IGNORECASE)
# At the start of a word, so that "25 mm/s", "+/-" and the path of an address stay; "</b>" is no path.
LOCAL_PATH = re.compile(
    r"(?<![\w/.~+-])(?!(?<=<)/\w+\s*>)(?:~(?:[a-z_][\w.-]*)?|\.{1,2})?/(?=[^/\s`\"'<>)|*])"
    r"(?:[^/\s\"',;]+/)*(?P<name>[^/\s\"',;]*)/?(?=[\s\"',;)\]}]|$)",
    re.IGNORECASE,
)
WINDOWS_PATH = re.compile(
    r"(?<![\w\\])(?:[a-z]:[\\/]+|\\{2,}(?=[^\\/\s]+\\))(?:[^\\/\s\"',;]+[\\/]+)*(?P<name>[^\\/\s\"',;]*)[\\/]*",
    re.IGNORECASE,
)
STORED_PLACE = re.compile(r"(?:~[\w.-]*/|/[^/\n]+/|[a-z]:[\\/]|\\\\)[^\n]*", re.IGNORECASE)
PRIVATE_KEYS = {"command", "output_dir", "logging_dir", "run_name", "resume_from_checkpoint"}
PRIVATE_KEYS |= {
    "not_judged_records",
    "copies_left_out",
    "record_ids",
    "patient_ids",
    "hub_token",
    "push_to_hub_token",
    "deepspeed",
    "fsdp_config",
    "local_rank",
}


def without_private(content: Any) -> Any:
    """JSON without the fields of `PRIVATE_KEYS`; of paths only the last part stays, of addresses neither user nor
    password nor query, and nothing of the home directory, whatever is in its name."""
    if isinstance(content, Mapping):
        kept = {key: value for key, value in content.items() if key not in PRIVATE_KEYS}
        return {without_private(key): without_private(value) for key, value in kept.items()}
    if isinstance(content, list):
        return [without_private(value) for value in content]
    if isinstance(content, str):
        content = FILE_ADDRESS.sub("/", content)
        if WHOLE_PATH.fullmatch(content):
            return _last_part(content)
        return _without_paths(ADDRESS.sub(lambda found: _public_address(found, keep_query=False), content))
    return content


def without_paths(text: str) -> str:
    """A text for people, such as a card, without paths of this machine, users and passwords; a link to the web keeps
    its query, unless it looks like a token."""
    text = FILE_ADDRESS.sub("/", text)
    return _without_paths(ADDRESS.sub(lambda found: _public_address(found, keep_query=True), text))


def without_places(content: Any) -> Any:
    """JSON in which texts that as a whole are absolute paths have become their last part; all others stay."""
    if isinstance(content, Mapping):
        return {key: without_places(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_places(value) for value in content]
    return _last_part(content) if isinstance(content, str) and STORED_PLACE.fullmatch(content) else content


def is_local(name: str) -> bool:
    """Whether the name of a model is a folder, and not one of the Hub."""
    return bool(WHOLE_PATH.fullmatch(name)) or "\\" in name or (bool(name) and Path(name).exists())


def _without_paths(text: str) -> str:
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(rf"(?<![\w/.~+-]){re.escape(home)}/", "/", text)
    text = QUOTED_PATH.sub(lambda found: f"{found['quote']}{_last_part(found['path'])}{found['quote']}", text)
    text = WINDOWS_PATH.sub(lambda found: found["name"], text)
    return LOCAL_PATH.sub(lambda found: found["name"], text)


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/ "))[-1]


def _public_address(found: re.Match, keep_query: bool) -> str:
    scheme, place, query = found["scheme"], found["place"], found["query"] or ""
    if scheme.lower() not in PUBLIC_SCHEMES:
        return f"{scheme}{place.split('/')[0]}"
    return f"{scheme}{place}{query if keep_query and not SECRET_QUERY.search(query) else ''}"
