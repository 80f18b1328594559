"""docs/corpora.md names every corpus and every task, and its snippets run."""

import re
from pathlib import Path

from ecg_transformers.data.corpora import CORPORA

PAGE = (Path(__file__).parents[2] / "docs" / "corpora.md").read_text(encoding="utf-8")
ROWS = {line.split("|")[1].strip().strip("`"): line for line in PAGE.splitlines() if line.startswith("| `")}


def test_the_page_lists_the_corpora():
    assert set(ROWS) == {*CORPORA, "prepared"}


def test_the_page_lists_the_tasks_with_the_default_first():
    for name, corpus in CORPORA.items():
        if "task" in corpus.options and name != "ptb-xl-sample":
            named = [task for task in re.findall(r"`([\w-]+)`", ROWS[name])[1:] if task in corpus.options["task"]]
            assert tuple(named) == corpus.options["task"], name


def test_the_snippets_of_the_page_run():
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(snippet, "corpora.md", "exec"), names)
    assert {row["record_id"] for row in names["mixture"]} == {
        row["record_id"] for part in (names["first"], names["second"]) for row in part
    }
