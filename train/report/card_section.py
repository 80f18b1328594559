"""Results as Markdown, for a model card: the sections of the page without pictures, and how to read the numbers."""

from collections.abc import Mapping

from ..predictions import FEW_POSITIVES, ProtocolResult
from ..results import Result
from .kinds import outcome_section, positives_of
from .page import escape_markdown
from .settings import setting_sections
from .tables import split_section, splits_table


def results_markdown(result: Result) -> str:
    """Markdown of a result: task, splits, verdicts, a section for each protocol and setting, and how to read them."""
    try:
        parts = [f"Task: {escape_markdown(result.task)}. Every number lies in `metrics.json` or `report.json`."]
        if result.splits:
            table = splits_table(result.splits)
            parts += [escape_markdown(table.caption), table.markdown()]
        parts.append("\n".join(f"- {escape_markdown(sentence)}" for sentence in result.verdicts()))
        sections = [split_section(result)] if result.validation else []
        sections += [outcome_section(outcome, result) for outcome in result.outcomes]
        parts += [section.markdown() for section in sections + setting_sections(result.settings)]
        caveats = "\n".join(f"- {escape_markdown(sentence)}" for sentence in caveats_of(result))
        return "\n\n".join(part for part in [*parts, f"### How to read these numbers\n\n{caveats}"] if part)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The scores are not as `evaluate` writes them ({type(error).__name__}: {' '.join(str(error).split())}). "
            "Run `ecg-transformers evaluate` again, or remove the file."
        ) from error


def caveats_of(result: Result, predictions: Mapping[tuple[str, str], ProtocolResult] | None = None) -> list[str]:
    """Sentences that the numbers need: the size of the test split, labels of few test records, what was chosen where,
    and what must not be compared."""
    evaluated = [outcome for outcome in result.outcomes if outcome.kind.name in ("classification", "regression")]
    caveats, widths = [], []
    for outcome in evaluated:
        low, high = outcome.scores[f"{outcome.kind.score}_ci95"]
        widths.append(f"±{(high - low) / 2:.3f} ({outcome.protocol})")
    if evaluated:
        scores = evaluated[-1].scores
        records, patients = (
            scores.get(f"num_test_{what}", scores.get(f"num_{what}")) for what in ("records", "patients")
        )
        if None not in (records, patients):
            caveats.append(
                f"The test split holds {records} records of {patients} patients. From the choice of test records "
                f"alone, a score of the model is uncertain by about {', '.join(widths)}."
            )
    left_out = {name for outcome in result.outcomes for name in outcome.scores.get("excluded", ())}
    few = [
        f"{name} ({count})"
        for name, count in positives_of(predictions or {}).items()
        if 0 < count < FEW_POSITIVES and name not in left_out
    ]
    if few:
        without = [
            f"{outcome.scores['without_rare_labels']['macro_auroc']:.3f} ({outcome.protocol})"
            for outcome in result.outcomes
            if "without_rare_labels" in outcome.scores
        ]
        caveats.append(
            f"Labels with fewer than {FEW_POSITIVES} test records: {', '.join(few)}. Each counts in the macro mean as "
            "much as every other; alone they say little."
            + (f" Without them the mean is {', '.join(without)}." if without else "")
        )
    if result.is_compared:
        caveats.append(
            "Never put these numbers beside those of another task, split, set of labels or protocol: they answer "
            "other questions. Two encoders are compared by their paired difference on the same records."
        )
    else:
        caveats.append(
            "No encoder that was not pretrained stands beside this model. ecg-transformers evaluate "
            "--protocol finetuned trains the same encoder from scratch and compares the two."
        )
    return caveats + [
        "The intervals speak about the draw of test patients. They say nothing about other seeds, hospitals or "
        "recorders. No p-value is corrected for the number of comparisons.",
        "What was fitted saw the training split; what was chosen (penalty, neighbours, steps, thresholds, "
        "temperature) saw the validation split, where there is one. The test split only scored.",
    ]
