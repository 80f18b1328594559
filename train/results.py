"""The vocabulary of results: names of scores, protocols and problem types, their JSON and their text."""

import importlib.metadata
import json
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MULTI_LABEL, SINGLE_LABEL = "multi_label_classification", "single_label_classification"
REGRESSION = "regression"
PROBLEM_TYPES = (MULTI_LABEL, SINGLE_LABEL, REGRESSION)
PROTOCOLS = {
    "linear": "frozen features, standardised, one logistic regression for each label",
    "attentive": "frozen features, an attentive pooler and a linear layer are trained",
    "knn": "frozen features, the nearest neighbours vote",
    "finetuned": "all weights are trained on the labels",
}
MAIN_SCORES = {
    "macro_auroc": "Macro AUROC",
    "macro_zmae": "Mean absolute error (SD of the targets)",
    "recall_at_1": "Recall at 1",
    "miou_waves": "mIoU of P, QRS and T",
}
"""The score that decides, of each kind of judgement, by its key."""
ENCODERS = {"random_encoder": "Random encoder", "pretrained": "Pretrained encoder"}
BASELINES = {
    "random_encoder": "random encoder",
    "random_kernels_126": "126 random kernels",
    "random_kernels": "1,200 random kernels",
    "from_scratch": "from scratch",
}
"""Encoders that a pretrained one stands beside, in the order of the rows."""
REPORTED_PACKAGES = ("ecg-transformers", "torch", "transformers", "datasets", "scikit-learn", "numpy")


def difference_key(baseline: str) -> str:
    """The key of what the pretrained encoder has more than a baseline."""
    return "difference" if baseline in ("random_encoder", "from_scratch") else f"difference_to_{baseline}"


def write_json(content: Mapping, path: Path) -> Path:
    """Writes what a run found, indented, for people and machines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def score_of(judged: Mapping) -> str | None:
    """The key of the score that decides, which says what kind of judgement it is; `None` for those of clusters."""
    return next((key for key in MAIN_SCORES if key in judged), None)


def difference_of(comparison: Mapping, protocol: str, baseline: str = "random_encoder") -> Mapping | None:
    """Pretrained minus baseline by the score that decides, with `ci95` and `p_value`; `None` where there is none."""
    score = score_of(comparison["pretrained"][protocol])
    difference = comparison[difference_key(baseline)].get(protocol)
    if difference is None or not isinstance(difference.get(score), Mapping):
        return difference
    of_score = difference[score]  # of delineation, each score has its own
    return {score: of_score["difference"], "ci95": of_score["ci95"], "p_value": of_score["p_value"]}


def summarize(comparison: Mapping, protocol: str) -> list[str]:
    """The result of a protocol in lines for a terminal: baselines, the encoder, differences (clusters have none)."""
    key = score_of(comparison["pretrained"][protocol])
    lines = []
    baselines = {name: title for name, title in BASELINES.items() if protocol in comparison.get(name, {})}
    for encoder, title in (baselines | {"pretrained": "pretrained"}).items():
        result = comparison[encoder][protocol]
        if key is None:
            found = ", ".join(f"{name} ARI {format_score(result[name]['ari'])}" for name in ("k-means", "hdbscan"))
        else:
            interval = format_interval(result[f"{key}_ci95"])
            found = f"{decapitalized(MAIN_SCORES[key])} {format_score(result[key])}  95 % {interval}"
        lines.append(f"{title:>20}  {protocol} {found}")
    for baseline, title in baselines.items() if key is not None else ():
        difference = difference_of(comparison, protocol, baseline)
        interval = format_interval(difference["ci95"], signed=True)
        lines.append(f"{'difference':>20}  {difference[key]:+.3f}  95 % {interval} (paired bootstrap), to {title}")
    return lines


def decapitalized(name: str) -> str:
    """The name within a sentence."""
    return name[0].lower() + name[1:]


def protocols_of(comparison: Mapping) -> list[str]:
    """Names of the protocols of a comparison; one that this library does not define is refused."""
    unknown = sorted(set(comparison["pretrained"]) - set(PROTOCOLS))
    if unknown:
        raise ValueError(f"Unknown protocols {unknown}. Expected some of {sorted(PROTOCOLS)}.")
    return list(comparison["pretrained"])


def verdict(comparison: Mapping, protocol: str) -> str:
    """What the difference between the two encoders allows to say, in a sentence: no more than its interval does."""
    difference = comparison["difference"][protocol]
    low, high = difference["ci95"]
    interval = f"{difference['macro_auroc']:+.3f} macro AUROC, 95\u00a0% interval {low:+.3f} to {high:+.3f}"
    if low > 0:
        return f"On these test records the pretrained encoder is better than a random one ({interval})."
    if high < 0:
        return f"On these test records the pretrained encoder is worse than a random one ({interval})."
    return f"These test records cannot tell the pretrained encoder from a random one ({interval})."


def small_test_caveat(result: Mapping) -> str:
    """How far a score on this test fold can be trusted, from its own size and interval."""
    low, high = result["macro_auroc_ci95"]
    return (
        f"The test fold holds {result['num_test_records']} records of {result['num_test_patients']} patients: each "
        f"score has an uncertainty of about ±{(high - low) / 2:.3f} from the choice of test records alone. Compare "
        "encoders by the paired difference, on the same records, and not with numbers of other tasks, splits or "
        "protocols. The intervals say nothing about other seeds of pretraining."
    )


def installed_versions(packages: Sequence[str] = REPORTED_PACKAGES) -> dict[str, str]:
    """Versions of Python and of the packages that shape the numbers."""
    versions = {"python": platform.python_version()}
    for package in packages:
        versions[package] = importlib.metadata.version(package)
    return versions


def format_score(value: float) -> str:
    return f"{value:.3f}"


def format_interval(interval: Sequence[float], signed: bool = False) -> str:
    low, high = (f"{bound:+.3f}" if signed else f"{bound:.3f}" for bound in interval)
    return f"{low} to {high}"


def format_p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def format_fact(value: str | int | float) -> str:
    """Thousands are grouped with a thin space, other numbers get three digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def check_evaluation(scores: Mapping[str, Any], where: str | os.PathLike):
    """Raises `ValueError` for scores of `evaluate` that somebody broke, by `where` they were read."""
    if not is_evaluation(scores):
        return
    cure = "Run `ecg-transformers evaluate` again, or remove the file."
    for encoder in ("pretrained", "random_encoder"):
        found = scores[encoder]
        if not isinstance(found, Mapping) or not found or not all(isinstance(of, Mapping) for of in found.values()):
            raise ValueError(f"Expected scores by protocol as {encoder!r} in {where}, got {found!r}. {cure}")
    try:
        shlex.split(scores["command"])
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"The field 'command' of {where} is no command line ({error}). {cure}") from error


def is_evaluation(results: Mapping[str, Any]) -> bool:
    """Whether scores are those of `ecg-transformers evaluate`: of a pretrained and a random encoder, with splits."""
    return {"pretrained", "random_encoder", "splits", "command"} <= results.keys()
