"""What the evaluation page says in words: what stands above the pretrained encoder, what its difference allows to
say, what was chosen, and what has to be known to read the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..predictions import FEW_POSITIVES
from ..results import (
    MAIN_SCORES,
    PROTOCOLS,
    REGRESSION,
    SINGLE_LABEL,
    decapitalized,
    difference_of,
    format_fact,
    score_of,
)

PROTOCOL_WORDS = PROTOCOLS | {
    "linear-kim": "frozen features, one linear layer, trained in the form of ECG-JEPA (Kim)",
    "linear-weimann": "frozen features, one linear layer, trained in the form of ECG-JEPA (Weimann)",
    "linear-st-mem": "frozen features, one linear layer, trained in the form of ST-MEM",
    ("linear", SINGLE_LABEL): "frozen features, standardised, one logistic regression for all classes",
    ("linear", REGRESSION): "frozen features, standardised, one ridge regression for each target",
    ("knn", REGRESSION): "frozen features, the mean of the nearest neighbours",
    "zero-shot-cluster": "clusters of frozen features, found without labels, against the classes",
}
LOWER_IS_BETTER = ("macro_zmae",)


def protocol_words(protocol: str, problem_type: str) -> str:
    """What a protocol does, in a line.

    Raises:
        ValueError: for one that nobody described: a number without its protocol cannot be read.
    """
    words = PROTOCOL_WORDS.get((protocol, problem_type), PROTOCOL_WORDS.get(protocol))
    if words is None:
        known = sorted(name for name in PROTOCOL_WORDS if isinstance(name, str))
        raise ValueError(f"Unknown protocol {protocol!r}. Expected one of {known}, or describe it in PROTOCOL_WORDS.")
    return words


def baseline_of(metrics: Mapping, protocol: str) -> tuple[str, Mapping]:
    """What stands above the pretrained encoder: the name and the judgement of the random encoder, which for
    `finetuned` was trained from scratch."""
    judged = metrics["random_encoder"].get(protocol)
    if judged is None:
        raise ValueError(
            f"Expected the random encoder beside the pretrained one for protocol {protocol!r}, got none. Run the "
            "protocol on both: without it nobody can tell what the pretraining is worth."
        )
    return "Trained from scratch" if protocol == "finetuned" else "Random encoder", judged


def pretrained_name(protocol: str) -> str:
    return "Pretrained, fine-tuned" if protocol == "finetuned" else "Pretrained encoder"


def judged_entries(entries: Sequence[Mapping]) -> list[Mapping]:
    """The entries of a setting that hold numbers, not a refusal."""
    return [entry for entry in entries if "refused" not in entry]


def verdict_of(metrics: Mapping, protocol: str) -> str | None:
    """What the difference of the two encoders allows to say, in a sentence: no more than its interval does."""
    score = score_of(metrics["pretrained"][protocol])
    difference = difference_of(metrics, protocol)
    if score is None or difference is None:
        return None
    low, high = difference["ci95"]
    unit = decapitalized(MAIN_SCORES[score])
    unit += ", lower is better" if score in LOWER_IS_BETTER else ""
    interval = f"{difference[score]:+.3f} {unit}, 95\u00a0% interval {low:+.3f} to {high:+.3f}"
    other = "the same encoder trained from scratch" if protocol == "finetuned" else "a random one"
    if low <= 0 <= high:
        return f"{protocol}: these test records cannot tell the pretrained encoder from {other} ({interval})."
    word = "worse" if (low > 0) == (score in LOWER_IS_BETTER) else "better"
    return f"{protocol}: on these test records the pretrained encoder is {word} than {other} ({interval})."


def caveats_of(metrics: Mapping, positives: Mapping[str, int] | None = None) -> list[str]:
    """What has to be known to read the numbers: how wide the intervals are, and what must not be compared."""
    widths, sizes = [], None
    for protocol, judged in metrics["pretrained"].items():
        score = score_of(judged)
        if score not in ("macro_auroc", "macro_zmae"):
            continue
        low, high = judged[f"{score}_ci95"]
        widths.append(f"±{(high - low) / 2:.3f} ({protocol})")
        sizes = judged["num_test_records"], judged["num_test_patients"]
    caveats = []
    if sizes is not None:
        caveats.append(
            f"The test split holds {sizes[0]} records of {sizes[1]} patients. From the choice of test records alone, "
            f"a score of the pretrained encoder is uncertain by about {', '.join(widths)}."
        )
    left_out = {name for judged in metrics["pretrained"].values() for name in judged.get("excluded", ())}
    few = [
        f"{name} ({count})"
        for name, count in (positives or {}).items()
        if 0 < count < FEW_POSITIVES and name not in left_out
    ]
    if few:
        caveats.append(
            f"Labels with fewer than {FEW_POSITIVES} test records: {', '.join(few)}. Each counts in the macro mean as "
            f"much as every other; alone they say little.{_without_rare_labels(metrics)}"
        )
    return caveats + [
        "Never put these numbers beside those of another task, split, set of labels or protocol: they answer other "
        "questions. Two encoders are compared by their paired difference on the same records.",
        "The intervals speak about the draw of test patients. They say nothing about other seeds, hospitals or "
        "recorders. No p-value is corrected for the number of comparisons.",
        "What was fitted saw the training split; what was chosen (penalty, neighbours, steps, thresholds, "
        "temperature) saw the validation split. The test split only scored.",
    ]


def verdicts_of(metrics: Mapping) -> list[str]:
    """A sentence for each protocol that has a difference."""
    sentences = [verdict_of(metrics, protocol) for protocol in metrics["pretrained"]]
    return [sentence for sentence in sentences if sentence is not None]


def choices_of(metrics: Mapping, protocol: str) -> str:
    """What was chosen on the validation split, counted or fixed, of both encoders, in a line; empty for nothing."""
    name, baseline = baseline_of(metrics, protocol)
    sides = [
        (who, judged.get("details", {}))
        for who, judged in ((name.lower(), baseline), ("pretrained", metrics["pretrained"][protocol]))
    ]
    keys = dict.fromkeys(key for _, details in sides for key in details)
    parts = []
    for key in keys:
        values = {who: details[key] for who, details in sides if _is_plain(details.get(key))}
        if not values:
            continue
        texts = {who: _plain(value) for who, value in values.items()}
        label = key.replace("_", " ")
        if len(values) == len(sides) and len(set(texts.values())) == 1:
            parts.append(f"{label} {next(iter(texts.values()))}")
        else:
            parts.append(f"{label} " + ", ".join(f"{text} ({who})" for who, text in texts.items()))
    return "; ".join(parts)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _plain(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else format_fact(value)


def _without_rare_labels(metrics: Mapping) -> str:
    """The macro AUROC of the pretrained encoder without them, by protocol."""
    found = [
        f"{judged['without_rare_labels']['macro_auroc']:.3f} ({protocol})"
        for protocol, judged in metrics["pretrained"].items()
        if "without_rare_labels" in judged
    ]
    return f" Without them the mean of the pretrained encoder is {', '.join(found)}." if found else ""
