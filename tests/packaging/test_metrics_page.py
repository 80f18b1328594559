"""Every Python snippet of docs/metrics.md runs, in order, and what the page says is so."""

import re
from pathlib import Path

import pytest

from ecg_transformers.train.evaluate_metrics import METRICS

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def names():
    """What the snippets leave behind."""
    left = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(snippet, "metrics.md", "exec"), left)
    return left


def row_of(metric):
    """The third column of a metric in the table: what it returns."""
    (row,) = re.findall(rf"^\| `{metric}` \|.*$", PAGE, flags=re.MULTILINE)
    return re.findall(r"`([\w.]+)`", row.split("|")[3])


def test_the_table_lists_the_metrics():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE) == list(METRICS)


def test_the_metrics_return_what_the_table_says(names):
    single_label = {"macro_f1_argmax", "accuracy"}
    assert set(row_of("ecg_classification")) - single_label <= set(names["scores"])
    assert set(row_of("calibration")) <= set(names["calibration"])
    assert set(row_of("cinc2021_challenge")) <= set(names["perfect"])
    points = names["delineation"]["per_point"]["P_onset"]
    assert set(row_of("delineation")) <= {*points, *names["delineation"], *names["overlap"]}


def test_the_snippets_give_what_the_page_says(names):
    assert type(names["metric"]).__name__ == type(names["same"]).__name__
    assert names["calibration"]["nll_scaled"] < names["calibration"]["nll"]
    assert names["calibration"]["temperature"] == names["temperature"]
    assert names["perfect"]["challenge_metric"] == pytest.approx(1)
    assert names["delineation"]["per_point"]["T_offset"]["mean_ms"] == 4.0
    assert names["overlap"]["miou"] == 1
