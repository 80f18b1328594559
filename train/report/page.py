"""The report of a run: one self-contained HTML page that cannot be misread.

The page needs no network and no other file: styles are inline and images are `data:` URIs. It states the task, the
protocol and the split beside every number, prints the random encoder above the pretrained one, gives intervals, names
the labels that were left out, and says how little a small test fold can tell. Text is escaped by Jinja2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from ecg_transformers.data.corpus import DataSource

from ..publishing.templates import template_environment
from ..results import (
    ENCODERS,
    PROTOCOLS,
    format_fact,
    format_interval,
    format_p_value,
    format_score,
    installed_versions,
    protocols_of,
    small_test_caveat,
    verdict,
)
from .plots import figure_to_data_uri


@dataclass(frozen=True)
class ReportFigure:
    """A picture of the report.

    Args:
        title (`str`): Heading.
        caption (`str`): What to see in it; one or two sentences.
        alt (`str`): What it shows, for those who cannot see it.
        data_uri (`str`): The image; see [`~ReportFigure.draw`].
        wide (`bool`, *optional*, defaults to `False`):
            Whether it keeps its size on a narrow screen, to be scrolled sideways (ECG paper), instead of shrinking.
    """

    title: str
    caption: str
    alt: str
    data_uri: str
    wide: bool = False

    @classmethod
    def draw(cls, figure: Figure, title: str, caption: str, alt: str, image_format="svg", wide=False):
        """Embeds a figure: `"svg"` for charts, `"png"` for ECG paper with its thousands of grid lines."""
        return cls(title, caption, alt, figure_to_data_uri(figure, image_format), wide)


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Args:
        title (`str`): Heading of the page.
        summary (`str`): What was done, in a sentence or two.
        facts (`Mapping[str, str | int | float]`): Run facts by name, with units in the name (`"Pretraining (steps)"`).
        figures (`Sequence[ReportFigure]`): Pictures, in order.
        data (`DataSource`): Licence and citation of the recordings.
        reproduce (`str`): The command that makes this page again.
        comparison (`Mapping`, *optional*):
            As `compare_with_random` returns it; without it there are no results.
        task (`str`, *optional*):
            Task and split of the comparison, for example `"PTB-XL superdiagnostic, train folds 1-8, test fold 10"`.
        next_commands (`Sequence[tuple[str, str]]`): What a person may want next, as (why, command).
        caveats (`Sequence[str]`): Sentences besides [`small_test_caveat`], which is always there.
        versions (`Mapping[str, str]`): Package versions; by default those that are installed.
    """

    title: str
    summary: str
    facts: Mapping[str, str | int | float]
    figures: Sequence[ReportFigure]
    data: DataSource
    reproduce: str
    comparison: Mapping | None = None
    task: str | None = None
    next_commands: Sequence[tuple[str, str]] = ()
    caveats: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: installed_versions())


def render_report(report: Report) -> str:
    """The page, as HTML."""
    environment = template_environment("ecg_transformers.train.report", autoescape=True)
    environment.filters["score"] = format_score
    environment.filters["interval"] = format_interval
    environment.filters["p_value"] = format_p_value
    environment.filters["fact"] = format_fact
    protocols = [] if report.comparison is None else protocols_of(report.comparison)
    return environment.get_template("report_template.html.j2").render(
        report=report,
        protocols=PROTOCOLS,
        encoders=ENCODERS,
        caveats=[*(small_test_caveat(report.comparison["pretrained"][name]) for name in protocols), *report.caveats],
        verdicts=[verdict(report.comparison, name) for name in protocols],
    )


def write_report(report: Report, path: str | Path) -> Path:
    """Writes the page; returns where."""
    path = Path(path)
    path.write_text(render_report(report), encoding="utf-8")
    return path
