"""Pages and the elements that they are made of: one template and one style for every command.

A page needs no network, no script and no other file. A [`Section`] is also Markdown, for a card or a table in a
repository: both come from the same objects, so that they cannot differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from matplotlib.figure import Figure

from ecg_transformers.data.corpus import DataSource

from ..publishing.templates import escape_markdown, template_environment
from ..results import format_fact, installed_versions
from .plots import figure_to_data_uri

LARGEST_SVG = 200_000  # letters of a data URI
CHART_DPI = 130
NOT_A_DEVICE = "This is research software, not a medical device. Nothing here is meant for a decision about a patient."


@dataclass(frozen=True)
class ReportFigure:
    """A picture of the page with heading, caption and a description for those who cannot see it: `"svg"` for charts,
    `"png"` for ECG paper with its thousands of grid lines. A `wide` one (ECG paper) keeps its size on a narrow screen
    and is swiped sideways, instead of shrinking."""

    figure: Figure
    title: str
    caption: str
    alt: str
    image_format: str = "svg"
    wide: bool = False
    dpi: int = CHART_DPI

    @cached_property
    def data_uri(self) -> str:
        """The picture within the page. A chart that takes too many letters, of thousands of points, becomes a PNG."""
        uri = figure_to_data_uri(self.figure, self.image_format, self.dpi)
        if self.image_format == "svg" and len(uri) > LARGEST_SVG:
            uri = min(uri, figure_to_data_uri(self.figure, "png", self.dpi), key=len)
        return uri


@dataclass(frozen=True)
class Cell:
    """A value with what belongs to it (an interval, a p-value); `best` ones are printed bold."""

    text: str
    small: tuple[str, ...] = ()
    best: bool = False


EMPTY = Cell("")


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table with its caption and the names of its columns, that of the row names first. `words` are the numbers of
    the columns of running text; row names have number 0."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    words: tuple[int, ...] = ()

    def markdown(self) -> str:
        """The table in Markdown: what belongs to a value follows it in brackets."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"

        lines = [line(self.header), "|" + "---|" * len(self.header)]
        for row in self.rows:
            cells = [f"{cell.text} ({'; '.join(cell.small)})" if cell.small else cell.text for cell in row.cells]
            lines.append(line([row.name, *cells]))
        return "\n".join(lines)


@dataclass(frozen=True)
class Section:
    """A part of a page: sentences (`intro`), values by name, tables, what was left out and why, pairs of reason and
    command line, small print (`notes`), figures, and parts that are folded until somebody opens them (`details`).
    `folded` folds all of it."""

    title: str
    intro: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    figures: Sequence[ReportFigure] = ()
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    commands: Sequence[tuple[str, str]] = ()
    details: Sequence["Section"] = ()
    folded: bool = False

    def markdown(self, level: int = 3) -> str:
        """Everything but the figures, details included."""
        parts = [f"{'#' * level} {escape_markdown(self.title)}", *map(escape_markdown, self.intro)]
        for table in self.tables:
            parts += [escape_markdown(table.caption), table.markdown()]
        parts += map(escape_markdown, self.notes)
        if self.left_out:
            left_out = "; ".join(f"{name} ({reason})" for name, reason in self.left_out.items())
            parts.append(f"Left out: {escape_markdown(left_out)}.")
        parts += [part.markdown(level + 1) for part in self.details if part.tables or part.intro or part.notes]
        return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Page:
    """A page: what was found first, how to read it, and how it was made.

    Args:
        title, summary (`str`): Heading, and a sentence or two below it.
        data (`DataSource`): Licence and citation of the recordings.
        command (`str`): Command line that makes the page again.
        verdicts, caveats (`Sequence[str]`): Sentences that the numbers allow, at the top, and how to read them.
        facts (`Mapping`), fact_tables (`Sequence[Table]`): The run or the model, such as the splits.
        next_commands (`Sequence[tuple[str, str]]`): Reason and command, for the next step.
        made (`str`): Sentence on the time that it took.
    """

    title: str
    summary: str
    sections: Sequence[Section]
    data: DataSource
    command: str
    verdicts: Sequence[str] = ()
    caveats: Sequence[str] = ()
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    fact_tables: Sequence[Table] = ()
    next_commands: Sequence[tuple[str, str]] = ()
    made: str = ""
    versions: Mapping[str, str] = field(default_factory=installed_versions)


def render_page(page: Page) -> str:
    """The page as HTML; Jinja2 escapes all text."""
    environment = template_environment("ecg_transformers.train.report", autoescape=True)
    environment.filters["fact"] = format_fact
    versions = ", ".join(f"{package} {version}" for package, version in page.versions.items())
    notes = [note for note in (page.made, f"{versions}." if versions else "") if note]
    last = [
        Section("What was run, and on what", facts=page.facts, tables=page.fact_tables),
        Section("Make it again", commands=[("", page.command)], notes=notes),
        Section("What to do next", commands=page.next_commands),
    ]
    url = page.data.url or ""
    return environment.get_template("page_template.html.j2").render(
        page=page,
        folded=[section for section in page.sections if section.folded]
        + [section for section in last if section.facts or section.tables or section.commands],
        data_url=url if url.startswith(("https://", "http://")) else None,
        not_a_device=NOT_A_DEVICE,
    )


def write_page(page: Page, path: str | Path) -> Path:
    """Writes the page as UTF-8; returns where."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(page), encoding="utf-8")
    return path
