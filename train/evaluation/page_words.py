"""What the evaluation page says in words: what stands above the pretrained encoder, what its difference allows to
say, what was chosen, and what has to be known to read the numbers."""

from collections.abc import Mapping
from typing import Any

from ..predictions import FEW_POSITIVES, REGRESSION, SINGLE_LABEL
from ..report import MAIN_SCORES, PROTOCOLS, decapitalized, format_fact

PROTOCOL_WORDS = PROTOCOLS | {
    "linear-kim": "frozen features, one linear layer, trained in the form of ECG-JEPA (Kim)",
    "linear-weimann": "frozen features, one linear layer, trained in the form of ECG-JEPA (Weimann)",
    "linear-st-mem": "frozen features, one linear layer, trained in the form of ST-MEM",
    ("linear", SINGLE_LABEL): "frozen features, standardised, one logistic regression for all classes",
    ("linear", REGRESSION): "frozen features, standardised, one ridge regression for each target",
    ("knn", REGRESSION): "frozen features, the mean of the nearest neighbours",
    "zero-shot-cluster": "clusters of frozen features, found without labels, against the classes",
}
FURTHER_TASKS = ("delineation", "identity", "clusters")
"""Keys of `metrics.json` under which a task of its own has `random_encoder`, `pretrained` and `difference`."""
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


def baseline_of(metrics: Mapping, protocol: str) -> tuple[str, str, Mapping | None]:
    """What stands above the pretrained encoder: its key, its name, and its judgement.

    That is the random encoder; for `finetuned` the same encoder trained from scratch, whose judgement is `None` where
    nobody asked for it.
    """
    judged = metrics["random_encoder"].get(protocol)
    if protocol == "finetuned":
        from_scratch = metrics.get("from_scratch", {}).get(protocol)
        key = "random_encoder" if from_scratch is None else "from_scratch"
        return key, "Trained from scratch", judged if from_scratch is None else from_scratch
    if judged is None:
        raise ValueError(
            f"Expected the random encoder beside the pretrained one for protocol {protocol!r}, got none. Run the "
            "protocol on both: without it nobody can tell what the pretraining is worth."
        )
    return "random_encoder", "Random encoder", judged


def pretrained_name(protocol: str) -> str:
    return "Pretrained, fine-tuned" if protocol == "finetuned" else "Pretrained encoder"


def score_of(judged: Mapping) -> str | None:
    """The key of the score that decides, which says what kind of judgement it is; `None` for those of clusters."""
    return next((key for key in MAIN_SCORES if key in judged), None)


def protocols_of(metrics: Mapping, *scores: str) -> list[str]:
    """The protocols that are judged by one of some scores, in their order."""
    return [protocol for protocol, judged in metrics["pretrained"].items() if score_of(judged) in scores]


def difference_of(metrics: Mapping, protocol: str) -> Mapping | None:
    """Pretrained minus baseline by the score that decides, with `ci95` and `p_value`; `None` where there is none."""
    score = score_of(metrics["pretrained"][protocol])
    difference = metrics.get("difference", {}).get(protocol)
    if difference is None or not isinstance(difference.get(score), Mapping):
        return difference
    of_score = difference[score]  # of delineation, each score has its own
    return {score: of_score["difference"], "ci95": of_score["ci95"], "p_value": of_score["p_value"]}


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
    for protocol in protocols_of(metrics, "macro_auroc", "macro_zmae"):
        judged = metrics["pretrained"][protocol]
        low, high = judged[f"{score_of(judged)}_ci95"]
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


def parts_of(metrics: Mapping) -> dict[str, Mapping]:
    """The metrics themselves, under an empty name, and those of the further tasks."""
    return {"": metrics} | {key: metrics[key] for key in FURTHER_TASKS if metrics.get(key)}


def verdicts_of(metrics: Mapping) -> list[str]:
    """A sentence for each protocol of each task that has a difference."""
    sentences = []
    for name, part in parts_of(metrics).items():
        for protocol in part["pretrained"]:
            sentence = verdict_of(part, protocol)
            if sentence is not None:
                sentences.append(sentence if name in ("", protocol) else f"{name}, {sentence}")
    return sentences


def choices_of(metrics: Mapping, protocol: str) -> str:
    """What was chosen on the validation split, counted or fixed, of both encoders, in a line; empty for nothing."""
    _, name, baseline = baseline_of(metrics, protocol)
    sides = [] if baseline is None else [(name.lower(), baseline.get("details", {}))]
    sides.append(("pretrained", metrics["pretrained"][protocol].get("details", {})))
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
