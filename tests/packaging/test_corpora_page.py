"""Every Python snippet of docs/corpora.md runs, in order."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "corpora.md").read_text(encoding="utf-8")


def test_the_snippets_of_the_page_run():
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(snippet, "corpora.md", "exec"), names)
    assert {row["record_id"] for row in names["mixture"]} == {
        row["record_id"] for part in (names["first"], names["second"]) for row in part
    }
