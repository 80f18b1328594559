"""Every Python snippet of docs/metrics.md runs, in order."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def names():
    """What the snippets leave behind."""
    left = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(snippet, "metrics.md", "exec"), left)
    return left


def test_the_snippets_give_what_the_page_says(names):
    assert type(names["metric"]).__name__ == type(names["same"]).__name__
    assert names["calibration"]["nll_scaled"] < names["calibration"]["nll"]
    assert names["calibration"]["temperature"] == names["temperature"]
    assert names["perfect"]["challenge_metric"] == pytest.approx(1)
    assert names["delineation"]["per_point"]["T_offset"]["mean_ms"] == 4.0
    assert names["overlap"]["miou"] == 1
