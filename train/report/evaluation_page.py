"""The report of an evaluation: one self-contained HTML page that cannot be misread.

It needs no network, no script and no other file. Every table has the random encoder above the pretrained one, with
intervals, task, protocol and split; what was not measured does not appear. Text is escaped by Jinja2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.data.corpus import DataSource

from ..features import EmbeddingTable
from ..predictions import ProtocolResult
from ..publishing.model_card import method_of
from ..publishing.templates import template_environment
from ..results import format_fact
from .curves import positives_of
from .page import ReportFigure
from .sections import Section, examples_section, features_section, judged_section, published_section, setting_sections
from .task_tables import splits_table
from .verdicts import caveats_of, verdicts_of

PROBLEM_WORDS = {
    "multi_label_classification": "any number of labels a record",
    "single_label_classification": "exactly one label a record",
    "regression": "numbers",
    "token_classification": "P, QRS, T or none, for each sample of each lead",
    "retrieval": "which other records are of the same patient",
}
MOST_NAMED_LABELS = 12


@dataclass(frozen=True)
class EvaluationReport:
    """Everything on the page. What is empty does not appear.

    Args:
        metrics (`Mapping`): The content of `metrics.json`.
        data ([`DataSource`]): Licence and citation of the recordings.
        facts (`Mapping[str, str | int | float]`): What was evaluated, see [`encoder_facts`].
        predictions (`Mapping[tuple[str, str], ProtocolResult]`): By encoder and protocol: curves and examples.
        features (`Mapping[str, EmbeddingTable]`): Of the test split, by encoder: planes.
        rows (`Dataset`, *optional*): The test split, rows of [`load_ecg`]: examples drawn as ECGs.
        explanations (`Sequence[ReportFigure]`): Attention over leads and time of some test records.
        published (`Sequence[Mapping]`):
            Numbers of others of the same task, split and protocol, as [`~.published.comparable_numbers`] gives them.
        published_notes (`Sequence[str]`): How to read them, or why there are none.
    """

    metrics: Mapping
    data: DataSource
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    predictions: Mapping[tuple[str, str], ProtocolResult] = field(default_factory=dict)
    features: Mapping[str, EmbeddingTable] = field(default_factory=dict)
    rows: Dataset | None = None
    explanations: Sequence[ReportFigure] = ()
    published: Sequence[Mapping] = ()
    published_notes: Sequence[str] = ()


def encoder_facts(model: PreTrainedModel, feature_extractor: FeatureExtractionMixin) -> dict[str, str | int | float]:
    """What was evaluated, by name: method, size, and what it wants to be fed."""
    config = model.config
    encoder = f"{config.num_hidden_layers} layers of width {config.hidden_size}"
    return {
        "Method": method_of(config).name,
        "Encoder": encoder,
        "Parameters": sum(parameter.numel() for parameter in model.parameters()),
        "Leads": ", ".join(feature_extractor.leads),
        "Sampling rate (Hz)": feature_extractor.sampling_rate,
        "Input (seconds)": feature_extractor.num_samples / feature_extractor.sampling_rate,
        "Unit": feature_extractor.unit,
    }


def write_evaluation_page(report: EvaluationReport, path: str | Path) -> Path:
    """Writes the page as UTF-8; returns where."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_evaluation_page(report), encoding="utf-8")
    return path


def render_evaluation_page(report: EvaluationReport) -> str:
    """The page, as HTML."""
    environment = template_environment("ecg_transformers.train.report", autoescape=True)
    environment.filters["fact"] = format_fact
    metrics = report.metrics
    name = str(metrics["model"]).rstrip("/").rsplit("/", 1)[-1]
    url = report.data.url
    return environment.get_template("evaluation_template.html.j2").render(
        title=f"Evaluation of {name} on {metrics['task']}",
        summary=summary_of(metrics, name),
        verdicts=verdicts_of(metrics),
        facts=facts_of(report),
        splits=splits_table(metrics, report.predictions),
        caveats=caveats_of(metrics, positives_of(report.predictions)),
        sections=sections_of(report),
        command=metrics["command"],
        versions=metrics["versions"],
        made=made_words(metrics),
        data=report.data,
        data_url=url if url is not None and url.startswith(("https://", "http://")) else None,
    )


def sections_of(report: EvaluationReport) -> list[Section]:
    """What there is to show, in order."""
    metrics, results = report.metrics, report.predictions
    sections = []
    for number, protocol in enumerate(metrics["pretrained"], start=1):
        sections.append(judged_section(metrics, protocol, results, f"protocol-{number}"))
    sections += setting_sections(metrics.get("settings", {}))
    if any(len(table) >= 3 for table in report.features.values()):
        sections.append(features_section(report.features, metrics, results))
    if report.rows is not None:
        section = examples_section(report.rows, metrics, results)
        sections += [] if section is None else [section]
    if report.explanations:
        intro = "Where the encoder looked, over leads and time, in some test records. That is no proof of a reason."
        sections.append(Section("attention", "Attention", (intro,), figures=report.explanations))
    return [*sections, published_section(metrics, report.published, report.published_notes)]


def summary_of(metrics: Mapping, name: str) -> str:
    protocols = ", ".join(metrics["pretrained"])
    return (
        f"What the encoder {name} knows, beside one of the same configuration with random weights, on the same "
        f"records. Task: {metrics['task']}. Protocols: {protocols}."
    )


def facts_of(report: EvaluationReport) -> dict[str, str | int | float]:
    """The facts of the model, and those of the task."""
    metrics, names = report.metrics, report.metrics["label_names"]
    facts: dict[str, str | int | float] = {"Model": str(metrics["model"]), **report.facts}
    facts |= {
        "Corpus": report.data.name,
        "Licence of the data": report.data.licence or "not stated",
        "Task": metrics["task"],
        "Answer": PROBLEM_WORDS.get(metrics["problem_type"], metrics["problem_type"]),
    }
    if names:
        facts["Labels"] = ", ".join(names) if len(names) <= MOST_NAMED_LABELS else len(names)
    return facts | ({"Date": metrics["date"]} if metrics.get("date") else {})


def made_words(metrics: Mapping) -> str:
    """How long it took, as far as `metrics` says it."""
    seconds = metrics.get("seconds")
    return f"The evaluation took {seconds:.0f} s." if isinstance(seconds, (int, float)) else ""
