"""File names that come with the data are not to be trusted."""

import os


def inside(folder: str, file_name: str) -> str:
    """The path of a file in `folder` that a header or a table names.

    Absolute names and names with `..` are refused (`ValueError`). Links that lie in the folder are followed, because
    the Hub's cache and data managers keep recordings as links.
    """
    parts = file_name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in file_name or file_name.startswith("~"):
        raise ValueError(f"The data name the file {file_name!r}, which is not inside the folder that holds them.")
    return os.path.join(folder, *parts)
