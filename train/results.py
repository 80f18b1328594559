"""The one result type of `evaluate`, `quickstart` and `finetune`, for page, card, console, JSON and the Hub."""

import importlib.metadata
import json
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

MULTI_LABEL, SINGLE_LABEL = "multi_label_classification", "single_label_classification"
REGRESSION = "regression"
PROBLEM_TYPES = (MULTI_LABEL, SINGLE_LABEL, REGRESSION)
PROTOCOLS = {
    "linear": "frozen features, standardised, one logistic regression for each label",
    ("linear", SINGLE_LABEL): "frozen features, standardised, one logistic regression for all classes",
    ("linear", REGRESSION): "frozen features, standardised, one ridge regression for each target",
    "linear-kim": "frozen features, one linear layer, trained as the authors of ECG-JEPA (Kim) do",
    "linear-weimann": "frozen features, one linear layer, trained as the authors of ECG-JEPA (Weimann) do",
    "linear-st-mem": "frozen features, one linear layer, trained as the authors of ST-MEM do",
    "attentive": "frozen features, an attentive pooler and a linear layer are trained",
    "knn": "frozen features, the nearest neighbours vote",
    ("knn", REGRESSION): "frozen features, the mean of the nearest neighbours",
    "finetuned": "all weights are trained on the labels",
    "zero-shot-cluster": "clusters of frozen features, found without labels, against the classes",
    "identity": "frozen features, searched by similarity",
    "linear head on a frozen encoder": "the encoder is left as it is, a linear layer is trained",
    "delineation_linear": "frozen features of each patch, one linear layer, a class for each sample",
    "delineation_finetuned": "all weights are trained to give a class for each sample",
}
"""Protocols in words, by name, or by name and problem type where these differ."""


def encoder_words(config: Any) -> str:
    """Size of an encoder in words; one without layers is its convolutional stem."""
    if config.num_hidden_layers or config.stem == "linear":
        return f"{config.num_hidden_layers} layers of width {config.hidden_size}"
    return f"convolutions of width {', '.join(map(str, config.stem_widths))}"


class Kind(NamedTuple):
    """A kind of result: the score that decides, its name, and how the Hub lists it.

    The page of a kind is drawn by the function of its name in `report/kinds.py`.
    """

    name: str
    score: str | None = None
    title: str = ""
    task_type: str = ""
    metric_type: str = ""
    lower_is_better: bool = False


KINDS = (
    Kind("classification", "macro_auroc", "Macro AUROC", "ecg-classification", "roc_auc"),
    Kind("regression", "macro_zmae", "Mean absolute error (SD of the targets)", "ecg-regression", "mae", True),
    Kind("identity", "recall_at_1", "Recall at 1", "ecg-identity", "recall_at_1"),
    Kind("delineation", "miou_waves", "mIoU of P, QRS and T", "ecg-delineation", "mean_iou"),
    Kind("clusters"),  # the last, because they have no one score
)


class Baseline(NamedTuple):
    """A row that stands beside the pretrained encoder; `key` and `difference` are its names in JSON."""

    key: str
    difference: str
    title: str
    phrase: str


BASELINES = (
    Baseline("random_encoder", "difference", "Random encoder", "a random one"),
    Baseline("random_kernels_126", "difference_to_random_kernels_126", "126 random kernels", "126 random kernels"),
    Baseline("random_kernels", "difference_to_random_kernels", "1,200 random kernels", "1,200 random kernels"),
)
"""Rows above the pretrained encoder, in their order; the first of `finetuned` was trained from scratch."""
PRETRAINED = "pretrained"
COUNTS = ("num_train_records", "num_test_records", "num_test_patients", "num_queries", "num_subjects")
REPORTED_PACKAGES = ("ecg-transformers", "torch", "transformers", "datasets", "scikit-learn", "numpy")


def difference_key(baseline: str) -> str:
    """Key of the paired differences to a baseline."""
    return next(known.difference for known in BASELINES if known.key == baseline)


def kind_of(scores: Mapping) -> Kind:
    """The kind of some scores, by the one that decides."""
    return next(kind for kind in KINDS if kind.score is None or kind.score in scores)


class Difference(NamedTuple):
    """Pretrained minus baseline by the score that decides, with the interval of the paired bootstrap."""

    value: float
    ci95: Sequence[float]
    p_value: float | None

    @classmethod
    def read(cls, found: Mapping | None, score: str | None) -> "Difference | None":
        """Reads `{score, ci95, p_value}`, or `{score: {difference, ci95, p_value}}` as delineation has it."""
        if not found or score is None or score not in found:
            return None
        if isinstance(found[score], Mapping):
            found = found[score] | {score: found[score]["difference"]}
        return cls(found[score], found["ci95"], found.get("p_value"))


class Side(NamedTuple):
    """One row of a comparison: the key, the name for people, and the scores."""

    key: str
    name: str
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Scores of one protocol: of the pretrained encoder and of every baseline, on the same test records.

    Args:
        protocol (`str`): Name of the protocol.
        scores (`Mapping`): Scores of the pretrained encoder, see
            [`~ecg_transformers.train.predictions.evaluate_predictions`].
        baselines (`Mapping[str, Mapping]`, *optional*): The same for each baseline, by its key in `BASELINES`.
        differences (`Mapping[str, Mapping]`, *optional*): Paired differences, by the key of the baseline.
        problem_type (`str`, *optional*): Type of the task.
    """

    protocol: str
    scores: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problem_type: str = ""

    @cached_property
    def kind(self) -> Kind:
        return kind_of(self.scores)

    @property
    def words(self) -> str:
        """The protocol in a line.

        Raises:
            ValueError: for one that this library does not define: a number without its protocol cannot be read.
        """
        words = PROTOCOLS.get((self.protocol, self.problem_type), PROTOCOLS.get(self.protocol))
        if words is None:
            known = sorted(name for name in PROTOCOLS if isinstance(name, str))
            raise ValueError(f"Unknown protocol {self.protocol!r}. Expected one of {known}.")
        return words

    @property
    def from_scratch(self) -> bool:
        """`True` where the random encoder was trained on the labels too."""
        return self.protocol in ("finetuned", "delineation_finetuned")

    def sides(self) -> list[Side]:
        """Baselines first, the pretrained encoder last."""
        found = [Side(b.key, self.name_of(b), self.baselines[b.key]) for b in BASELINES if b.key in self.baselines]
        name = "Pretrained, fine-tuned" if self.from_scratch else "Pretrained encoder"
        return [*found, Side(PRETRAINED, name if found else "This model", self.scores)]

    def name_of(self, baseline: Baseline) -> str:
        return "Trained from scratch" if self.from_scratch and baseline.key == "random_encoder" else baseline.title

    def difference_to(self, baseline: Baseline) -> Difference | None:
        return Difference.read(self.differences.get(baseline.key), self.kind.score)

    def verdicts(self) -> list[str]:
        """A sentence for each paired difference, which says no more than its interval."""
        sentences = []
        for baseline in BASELINES:
            found = self.difference_to(baseline)
            if found is None:
                continue
            low, high = found.ci95
            unit = decapitalized(self.kind.title) + (", lower is better" if self.kind.lower_is_better else "")
            interval = f"{found.value:+.3f} {unit}, 95\u00a0% interval {low:+.3f} to {high:+.3f}"
            scratch = self.name_of(baseline) != baseline.title
            other = "the same encoder trained from scratch" if scratch else baseline.phrase
            if low <= 0 <= high:
                sentence = f"these test records do not separate the pretrained encoder from {other} ({interval})."
            else:
                word = "worse" if (low > 0) == self.kind.lower_is_better else "better"
                sentence = f"on these test records the pretrained encoder is {word} than {other} ({interval})."
            sentences.append(f"{self.protocol}: {sentence}")
        return sentences

    def headline(self, scores: Mapping[str, Any]) -> str:
        """The score that decides, with its interval and what it is a mean of; or why there is none."""
        score = self.kind.score
        if score is None:
            return ", ".join(f"{name} ARI {format_score(scores[name]['ari'])}" for name in ("k-means", "hdbscan"))
        name, about = decapitalized(self.kind.title), mean_of(scores)
        if not has_headline(scores):
            return f"no {name}: {about}, and at least {FEWEST_RECORDS} records are needed"
        interval = format_interval(scores[f"{score}_ci95"])
        return f"{name} {format_score(scores[score])}  95 % {interval}" + (f" ({about})" if about else "")

    def summary(self) -> list[str]:
        """The result in a line for each encoder and difference, for a terminal."""
        lines = [f"{decapitalized(n):>22}  {self.protocol} {self.headline(scores)}" for _, n, scores in self.sides()]
        for baseline in BASELINES:
            if (found := self.difference_to(baseline)) is not None:
                interval = format_interval(found.ci95, signed=True)
                title = f"minus {decapitalized(self.name_of(baseline))}"
                lines.append(f"{title:>22}  {found.value:+.3f}  95 % {interval} (paired bootstrap)")
        return lines

    def hub_details(self) -> dict[str, Any]:
        """Interval, baselines and counts, beside the score in the card's `model-index`."""
        score = self.kind.score
        details = {"protocol": self.protocol, "ci95": [round(bound, 4) for bound in self.scores[f"{score}_ci95"]]}
        for key, scores in self.baselines.items():
            name = "from_scratch" if self.from_scratch and key == "random_encoder" else key
            details[name] = round(scores[score], 4)
        details |= {count: self.scores[count] for count in COUNTS if count in self.scores}
        if "num_test_records" not in details and "num_records" in self.scores:
            details["num_test_records"] = self.scores["num_records"]
        return details


@dataclass(frozen=True)
class Result:
    """Everything that an evaluation found.

    Args:
        task (`str`): Corpus and set of labels, such as `"ptb-xl superdiagnostic"`.
        outcomes (`Sequence[Outcome]`): One for each protocol.
        problem_type (`str`, *optional*): Type of the task.
        label_names (`Sequence[str]`, *optional*): Labels of the task, or targets with their unit.
        splits (`Mapping`, *optional*): Records of each split: a mapping of counts, or a text.
        settings (`Mapping[str, Sequence[Mapping]]`, *optional*): Entries of few labels, fewer leads, noise, ...
        validation (`Mapping`, *optional*): Scores of the validation split, which `finetune` states too.
        other (`Mapping`, *optional*): Everything else of the JSON: model, command, date, versions, seconds, ...

    Example:

    ```python
    from ecg_transformers.train.results import Outcome, Result

    scores = {"macro_auroc": 0.81, "macro_auroc_ci95": [0.76, 0.85]}
    result = Result("ptb-xl superdiagnostic", [Outcome("linear", scores)])
    result.outcomes[0].kind.name  # "classification"
    ```
    """

    task: str
    outcomes: Sequence[Outcome]
    problem_type: str = ""
    label_names: Sequence[str] = ()
    splits: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Sequence[Mapping]] = field(default_factory=dict)
    validation: Mapping[str, Any] | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str | os.PathLike = "the results") -> "Result":
        """Reads `metrics.json` of `evaluate` or `finetune`, or `report.json` of `quickstart`, of any version.

        Raises:
            ValueError: for what none of them wrote, or somebody broke, by `where` it was read.
        """
        cure = "Run `ecg-transformers evaluate` again, or remove the file."
        try:
            content = dict(content)
            facts = {name: content.pop(name) for name in ("task", "problem_type", "label_names") if name in content}
            facts |= {name: content.pop(name) for name in ("splits", "settings", "validation") if name in content}
            facts["label_names"] = tuple(facts.get("label_names", ()))
            if PRETRAINED in content:
                scores, baselines, differences = content.pop(PRETRAINED), {}, {}
                for baseline in BASELINES:
                    baselines[baseline.key] = content.pop(baseline.key, {})
                    differences[baseline.key] = content.pop(baseline.difference, {})
            else:
                scores, baselines, differences = {content.pop("protocol"): content.pop("test")}, {}, {}
            outcomes = []
            for protocol, of_protocol in scores.items():
                beside = {key: found[protocol] for key, found in baselines.items() if protocol in found}
                gained = {key: found[protocol] for key, found in differences.items() if protocol in found}
                outcome = Outcome(protocol, of_protocol, beside, gained, facts.get("problem_type", ""))
                for _, _, each in outcome.sides():
                    if not isinstance(each, Mapping) or kind_of(each) != outcome.kind:
                        raise ValueError(f"scores of {protocol!r} are {each!r}")
                outcomes.append(outcome)
            if not outcomes:
                raise ValueError("no protocol was evaluated")
            shlex.split(content.get("command", ""))
            return cls(outcomes=tuple(outcomes), **facts, other=content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"Expected scores as `evaluate`, `finetune` or `quickstart` write them in {where}, got none "
                f"({type(error).__name__}: {reason}). {cure}"
            ) from error

    @property
    def is_compared(self) -> bool:
        """`True` where a baseline stands beside the model."""
        return any(outcome.baselines for outcome in self.outcomes)

    def verdicts(self) -> list[str]:
        """A sentence for each difference."""
        return [sentence for outcome in self.outcomes for sentence in outcome.verdicts()]

    def summary(self) -> list[str]:
        return [line for outcome in self.outcomes for line in outcome.summary()]

    def outcome(self, protocol: str) -> Outcome:
        return next(outcome for outcome in self.outcomes if outcome.protocol == protocol)


def write_json(content: Mapping, path: Path) -> Path:
    """Writes what a run found, indented, for people and machines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def read_result(path: str | os.PathLike) -> dict[str, Any]:
    """Reads `metrics.json` or `report.json`.

    Raises:
        ValueError: for what is no JSON, or holds no scores.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}). Give metrics.json of `evaluate`.") from error
    Result.from_json(content, path)
    return content


FEWEST_RECORDS = 20
"""Fewest records of a test split for a headline: with fewer, a macro AUROC is an anecdote."""


def has_headline(scores: Mapping[str, Any]) -> bool:
    """Returns whether scores have enough records for one number to stand for them."""
    return scores.get("num_test_records", scores.get("num_records", FEWEST_RECORDS)) >= FEWEST_RECORDS


def mean_of(scores: Mapping[str, Any]) -> str:
    """Labels and records of a mean, as far as they are stated: `"3 of 26 labels, 120 records"`."""
    about = []
    if "per_class" in scores:
        evaluated = len(scores["per_class"])
        about.append(f"{evaluated} of {evaluated + len(scores.get('excluded', ()))} labels")
    if (records := scores.get("num_test_records", scores.get("num_records"))) is not None:
        about.append(f"{records} records")
    return ", ".join(about)


def decapitalized(name: str) -> str:
    """The name within a sentence."""
    return name if name[:2].isupper() or name.startswith("mIoU") else name[0].lower() + name[1:]


def installed_versions(packages: Sequence[str] = REPORTED_PACKAGES) -> dict[str, str]:
    """Versions of Python and of the packages that shape the numbers."""
    versions = {"python": platform.python_version()}
    for package in packages:
        versions[package] = importlib.metadata.version(package)
    return versions


def format_score(value: float | None) -> str:
    """Three digits, without a sign before a zero; a dash where there is no score."""
    return "–" if value is None else f"{value:.3f}".replace("-0.000", "0.000")


def format_interval(interval: Sequence[float], signed: bool = False) -> str:
    low, high = (f"{bound:+.3f}" if signed else f"{bound:.3f}" for bound in interval)
    return f"{low} to {high}"


def format_p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def format_fact(value: str | int | float | bool) -> str:
    """Thousands are grouped with a thin space, other numbers get three digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)
