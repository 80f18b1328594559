"""Results as Markdown, for a model card: the sections of the page without its pictures."""

from ..results import Result
from .caveats import caveats_of
from .kinds import Shown, outcome_section
from .page import escape_markdown
from .settings import setting_sections
from .tables import split_section, splits_table

MARKDOWN = Shown(with_figures=False)


def results_markdown(result: Result) -> str:
    """Markdown of a result: task, splits, verdicts, a section for each protocol and setting, and how to read them."""
    try:
        parts = [f"Task: {escape_markdown(result.task)}. Every number lies in `metrics.json` or `report.json`."]
        if result.splits:
            table = splits_table(result.splits)
            parts += [escape_markdown(table.caption), table.markdown()]
        parts.append("\n".join(f"- {escape_markdown(sentence)}" for sentence in result.verdicts()))
        sections = [split_section(result)] if result.validation else []
        sections += [outcome_section(outcome, result, MARKDOWN) for outcome in result.outcomes]
        sections += setting_sections(result.settings, with_figures=False)
        parts += [section.markdown() for section in sections]
        caveats = "\n".join(f"- {escape_markdown(sentence)}" for sentence in caveats_of(result))
        return "\n\n".join(part for part in [*parts, f"### How to read these numbers\n\n{caveats}"] if part)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The scores are not as `evaluate` writes them ({type(error).__name__}: {' '.join(str(error).split())}). "
            "Run `ecg-transformers evaluate` again, or remove the file."
        ) from error
