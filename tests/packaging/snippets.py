"""The Python snippets of the pages, for the tests that run them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def page_text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def snippets_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


def run_snippets(snippets: list[str], names: dict | None = None) -> dict:
    """Runs them one after the other; returns all names that they leave behind."""
    names = {} if names is None else names
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"snippet {number}", "exec"), names)
    return names
