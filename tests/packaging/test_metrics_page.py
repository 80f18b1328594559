"""Every Python snippet of docs/metrics.md runs, in order."""

import pytest

from .snippets import page_text, run_snippets, snippets_of

PAGE = page_text("metrics.md")


@pytest.fixture(scope="module")
def names():
    """What the snippets leave behind."""
    return run_snippets(snippets_of(PAGE))


def test_the_snippets_give_what_the_page_says(names):
    assert type(names["metric"]).__name__ == type(names["same"]).__name__
    assert names["calibration"]["nll_scaled"] < names["calibration"]["nll"]
    assert names["calibration"]["temperature"] == names["temperature"]
    assert names["perfect"]["challenge_metric"] == pytest.approx(1)
    assert names["delineation"]["per_point"]["T_offset"]["mean_ms"] == 4.0
    assert names["overlap"]["miou"] == 1
