"""Sentences that the numbers of a page need: how wide the intervals are, and what must not be compared."""

from collections.abc import Mapping

from ..predictions import FEW_POSITIVES
from ..results import Result


def caveats_of(result: Result, positives: Mapping[str, int] | None = None) -> list[str]:
    """Sentences on the size of the test split, labels of few test records, and what was chosen where."""
    widths, sizes = [], None
    for outcome in result.outcomes:
        scores, score = outcome.scores, outcome.kind.score
        if outcome.kind.name not in ("classification", "regression"):
            continue
        low, high = scores[f"{score}_ci95"]
        widths.append(f"±{(high - low) / 2:.3f} ({outcome.protocol})")
        sizes = [
            scores[f"num_test_{what}"] if f"num_test_{what}" in scores else scores.get(f"num_{what}")
            for what in ("records", "patients")
        ]
    caveats = []
    if sizes is not None and None not in sizes:
        caveats.append(
            f"The test split holds {sizes[0]} records of {sizes[1]} patients. From the choice of test records alone, "
            f"a score of the model is uncertain by about {', '.join(widths)}."
        )
    left_out = {name for outcome in result.outcomes for name in outcome.scores.get("excluded", ())}
    few = [
        f"{name} ({count})"
        for name, count in (positives or {}).items()
        if 0 < count < FEW_POSITIVES and name not in left_out
    ]
    if few:
        caveats.append(
            f"Labels with fewer than {FEW_POSITIVES} test records: {', '.join(few)}. Each counts in the macro mean as "
            f"much as every other; alone they say little.{_without_rare_labels(result)}"
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


def _without_rare_labels(result: Result) -> str:
    """The macro AUROC without them, by protocol."""
    found = [
        f"{outcome.scores['without_rare_labels']['macro_auroc']:.3f} ({outcome.protocol})"
        for outcome in result.outcomes
        if "without_rare_labels" in outcome.scores
    ]
    return f" Without them the mean is {', '.join(found)}." if found else ""
