"""Every Python snippet of docs/pipelines_and_export.md runs, in order."""

import pytest

from .snippets import page_text, run_snippets, snippets_of

PAGE = page_text("pipelines_and_export.md")
SNIPPETS = snippets_of(PAGE)


def run(snippets):
    names = run_snippets(snippets)
    return names


def test_the_snippets_of_the_pipelines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(SNIPPETS) == 6
    names = run(SNIPPETS[:5])
    assert len(names["first"]) == 5 and set(names["first"][0]) == {"label", "score", "above_threshold"}
    assert names["features"].shape == (32,) and names["tokens"].shape == (2, 40, 32)


@pytest.mark.slow
def test_the_exported_file_gives_the_scores_of_the_pipeline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(SNIPPETS)
    expected = {row["label"]: row["score"] for row in names["classify"](names["recording"])}
    assert dict(zip(names["classes"], names["scores"], strict=True)) == pytest.approx(expected, abs=1e-5)
