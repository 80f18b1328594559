import re
import subprocess
from html.parser import HTMLParser
from shutil import which

import pytest
from matplotlib.figure import Figure

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.train.report.page import Report, ReportFigure, render_report, write_report
from ecg_transformers.train.results import verdict


def probe(macro, excluded=None):
    per_class = {"NORM": macro + 0.02, "MI": macro - 0.02}
    return {
        "macro_auroc": macro,
        "macro_auroc_ci95": [macro - 0.05, macro + 0.04],
        "per_class": per_class,
        "per_class_ci95": {name: [value - 0.06, value + 0.05] for name, value in per_class.items()},
        "excluded": excluded or {},
        "C": 0.01,
        "num_train_records": 398,
        "num_test_records": 47,
        "num_test_patients": 45,
    }


def make_comparison(low=0.11, high=0.29, excluded=None):
    return {
        "random_encoder": {"linear": probe(0.611, excluded)},
        "pretrained": {"linear": probe(0.812, excluded)},
        "difference": {"linear": {"macro_auroc": 0.201, "ci95": [low, high], "p_value": 0.002}},
    }


def make_report(**changes):
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    fields = {
        "title": "ECG-JEPA quickstart",
        "summary": "A small encoder was pretrained.",
        "facts": {"Records": 38400, "Time (s)": 213.4},
        "task": "PTB-XL superdiagnostic, test fold 10",
        "comparison": make_comparison(),
        "figures": [ReportFigure.draw(figure, "Curve", "It falls.", "A falling line")],
        "data": DataSource("PTB-XL", "CC BY 4.0", "Wagner et al., Sci Data 2020;7:154"),
        "reproduce": "ecg-transformers quickstart --seed 0",
        "next_commands": [("Pretrain on more:", "ecg-transformers pretrain --config kim_random")],
    }
    return Report(**(fields | changes))


class Resources(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self):
        super().__init__()
        self.fetched = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.fetched += [attrs[name] for name in ("src", "srcset", "data") if name in attrs]
        if tag in ("link", "script", "iframe", "object"):
            self.fetched.append(f"<{tag}>")


def visible_text(page):
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_page_needs_nothing_but_itself():
    page = render_report(make_report())
    resources = Resources()
    resources.feed(page)
    assert resources.fetched and all(source.startswith("data:image/") for source in resources.fetched)
    assert "url(" not in page and "@import" not in page


def test_random_encoder_stands_beside_every_score_with_intervals_and_difference():
    text = visible_text(render_report(make_report()))
    assert "Random encoder Pretrained encoder Difference" in text
    assert "macro 0.611 0.561 to 0.651 0.812 0.762 to 0.852 +0.201 +0.110 to +0.290 p = 0.002" in text
    assert "NORM 0.631 0.571 to 0.681 0.832 0.772 to 0.882 +0.201" in text


def test_excluded_labels_are_named_with_their_reason():
    comparison = make_comparison(excluded={"HYP": "test set: 0 positive of 47 records"})
    assert "HYP: test set: 0 positive of 47 records" in visible_text(render_report(make_report(comparison=comparison)))


def test_page_states_task_protocol_caveat_licence_citation_and_commands():
    text = visible_text(render_report(make_report(caveats=["One seed only."])))
    for statement in (
        "PTB-XL superdiagnostic, test fold 10.",
        "protocol linear : frozen features",
        "The test fold holds 47 records of 45 patients",
        "±0.045",
        "One seed only.",
        "not a medical device",
        "Licence: CC BY 4.0.",
        "Wagner et al.",
        "ecg-transformers quickstart --seed 0",
        "ecg-transformers pretrain --config kim_random",
        "torch ",
    ):
        assert statement in text, statement


def test_unknown_licence_is_called_unknown():
    page = render_report(make_report(data=DataSource("My hospital", None, "unpublished")))
    assert "Licence: not stated" in visible_text(page)


@pytest.mark.parametrize(
    "low, high, words", [(0.01, 0.2, "is better than"), (-0.2, -0.01, "is worse than"), (-0.1, 0.1, "cannot tell")]
)
def test_verdict_says_no_more_than_the_interval(low, high, words):
    assert words in verdict(make_comparison(low, high), "linear")


def test_text_from_outside_is_escaped():
    page = render_report(make_report(title="<script>alert(1)</script>", facts={"<b>": "<img src=http://x>"}))
    assert "<script>" not in page and "<img src=http" not in page and "&lt;script&gt;" in page


def test_protocol_that_nobody_defined_is_refused():
    comparison = {key: {"lineair": value["linear"]} for key, value in make_comparison().items()}
    with pytest.raises(ValueError, match="lineair"):
        render_report(make_report(comparison=comparison))


def test_page_is_written_as_utf8_and_says_so(tmp_path):
    path = write_report(make_report(), tmp_path / "report.html")
    assert '<meta charset="utf-8">' in path.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(which("chromium") is None, reason="chromium is not installed")
def test_page_opens_in_a_browser(tmp_path):
    path = write_report(make_report(), tmp_path / "report.html")
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    flags += " --disable-sync --no-first-run --window-size=800,1200"
    command = [which("chromium"), *flags.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--screenshot={tmp_path / 'report.png'}", path.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    assert (tmp_path / "report.png").stat().st_size > 20_000
