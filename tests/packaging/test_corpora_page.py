"""Every Python snippet of docs/corpora.md runs, in order."""

from .snippets import page_text, run_snippets, snippets_of

PAGE = page_text("corpora.md")


def test_the_snippets_of_the_page_run():
    names = run_snippets(snippets_of(PAGE))
    assert {row["record_id"] for row in names["mixture"]} == {
        row["record_id"] for part in (names["first"], names["second"]) for row in part
    }
