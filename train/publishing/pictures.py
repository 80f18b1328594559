"""Pictures of a published model, as files that its card shows."""

from pathlib import Path
from typing import NamedTuple

from .folder_files import own_file

PREVIEW_NAME, RUN_PICTURE_NAME = "preview.png", "results.png"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """A PNG for a card, with what it shows for those who cannot see it, and a caption (Markdown, may be empty)."""

    content: bytes
    alt: str
    caption: str


def stored_picture(folder: Path) -> Picture | None:
    """The picture that somebody put beside the weights.

    Raises:
        ValueError: for what is no PNG, or a link to what lies elsewhere.
    """
    path = folder / PREVIEW_NAME
    if not path.is_file():
        return None
    content = own_file(path).read_bytes()
    if not content.startswith(PNG_SIGNATURE):
        raise ValueError(f"{path} is no PNG. Save the picture as one, or remove it: then `push` draws one.")
    return Picture(content, "A picture of this model", "")
