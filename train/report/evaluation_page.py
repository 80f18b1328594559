"""The page of an evaluation: what was found first, beside every baseline and with intervals; details are folded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling.method import method_of

from ..features import EmbeddingTable
from ..predictions import ProtocolResult
from ..results import REGRESSION, Result, encoder_words
from .caveats import caveats_of
from .curves import positives_of
from .examples import choose_examples, draw_examples
from .kinds import Shown, outcome_section
from .labels import spelled_out
from .page import Page, ReportFigure, Section
from .projection import METHODS, MOST_RECORDS, plot_projection
from .settings import setting_sections
from .tables import published_section, splits_table

PROBLEM_WORDS = {
    "multi_label_classification": "any number of labels a record",
    "single_label_classification": "exactly one label a record",
    "regression": "numbers",
    "token_classification": "P, QRS, T or none, for each sample of each lead",
    "retrieval": "other records of the same patient",
}
MOST_NAMED_LABELS = 12


@dataclass(frozen=True)
class EvaluationReport:
    """Everything on the page. What is empty does not appear.

    Args:
        predictions (`Mapping[tuple[str, str], ProtocolResult]`): Predictions by encoder and protocol, for charts.
        features (`Mapping[str, EmbeddingTable]`): Features of the test split, by encoder, for planes.
        rows (`Dataset`, *optional*): Test split, rows of [`load_ecg`]: examples drawn as ECGs.
        explanations (`Sequence[ReportFigure]`): Attention over leads and time of some test records.
        result, data, facts, published, published_notes:
            `metrics.json`; the recordings; [`encoder_facts`]; [`~.published.comparable_numbers`] and words on them.
    """

    result: Result
    data: DataSource
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    predictions: Mapping[tuple[str, str], ProtocolResult] = field(default_factory=dict)
    features: Mapping[str, EmbeddingTable] = field(default_factory=dict)
    rows: Dataset | None = None
    explanations: Sequence[ReportFigure] = ()
    published: Sequence[Mapping] = ()
    published_notes: Sequence[str] = ()


def encoder_facts(model: PreTrainedModel, feature_extractor: FeatureExtractionMixin) -> dict[str, str | int | float]:
    """Facts of a model by name: method, size, and its input."""
    config = model.config
    return {
        "Method": method_of(config).name,
        "Encoder": encoder_words(config),
        "Parameters": sum(parameter.numel() for parameter in model.parameters()),
        "Leads": ", ".join(feature_extractor.leads),
        "Sampling rate (Hz)": feature_extractor.sampling_rate,
        "Input (seconds)": feature_extractor.num_samples / feature_extractor.sampling_rate,
        "Unit": feature_extractor.unit,
    }


def evaluation_page(report: EvaluationReport) -> Page:
    """The page; [`~.page.write_page`] writes it."""
    result, other = report.result, report.result.other
    name = str(other["model"]).rstrip("/").rsplit("/", 1)[-1]
    for outcome in result.outcomes:
        if "random_encoder" not in outcome.baselines:
            raise ValueError(
                f"Expected the random encoder beside the pretrained one for protocol {outcome.protocol!r}, got none. "
                "Run the protocol on both: without it nobody knows what the pretraining is worth."
            )
    seconds, positives = other.get("seconds"), positives_of(report.predictions)
    return Page(
        title=f"Evaluation of {name} on {result.task}",
        summary=(
            f"How much the encoder {name} knows, beside one of the same configuration with random weights, on the "
            f"same records. Task: {result.task}. Protocols: {', '.join(o.protocol for o in result.outcomes)}."
        ),
        verdicts=result.verdicts(),
        sections=sections_of(report, Shown(report.predictions, positives)),
        caveats=caveats_of(result, positives),
        facts={"Model": str(other["model"]), **report.facts} | task_facts(result, report.data),
        fact_tables=[splits_table(result.splits)] if result.splits else [],
        command=other["command"],
        versions=other["versions"],
        made=f"The evaluation took {seconds:.0f} s." if isinstance(seconds, (int, float)) else "",
        data=report.data,
    )


def sections_of(report: EvaluationReport, shown: Shown) -> list[Section]:
    """Parts of the page, in order."""
    result = report.result
    sections = [outcome_section(outcome, result, shown) for outcome in result.outcomes]
    sections += setting_sections(result.settings)
    if report.rows is not None:
        sections += examples_sections(result, report.predictions, report.rows)
    if report.explanations:
        intro = "Where the encoder looked, over leads and time, in some test records. That is no proof of a reason."
        sections.append(Section("Attention", (intro,), figures=report.explanations, folded=True))
    if any(len(table) >= 3 for table in report.features.values()):
        sections.append(features_section(report))
    return [*sections, published_section(result, report.published, report.published_notes)]


def task_facts(result: Result, data: DataSource) -> dict[str, str | int | float]:
    """Facts of the task by name; codes of classes are spelled out."""
    names = [spelled_out(name, result.task) for name in result.label_names]
    facts: dict[str, str | int | float] = {
        "Corpus": data.name,
        "Licence of the data": data.licence or "not stated",
        "Task": result.task,
        "Answer": PROBLEM_WORDS.get(result.problem_type, result.problem_type),
    }
    if names:
        facts["Labels"] = ", ".join(names) if len(names) <= MOST_NAMED_LABELS else len(names)
    return facts | ({"Date": result.other["date"]} if result.other.get("date") else {})


def features_section(report: EvaluationReport) -> Section:
    """Features of the test split on a plane."""
    values, names = None, report.result.label_names
    table = next(iter(report.features.values()))
    if report.result.problem_type == REGRESSION:
        predictions = next(iter(report.predictions.values()))
        truth = dict(zip(predictions.test.record_ids, predictions.test.labels[:, 0], strict=True))
        values, names = np.array([truth[record] for record in table.record_ids]), names[:1]
    many = f" {MOST_RECORDS} of {len(table)} records, drawn at random." if len(table) > MOST_RECORDS else ""
    coloured = "by their class" if values is None else f"by {names[0]}"
    caption = (
        f"Features of the test records, each standardised, coloured {coloured}, by {', '.join(METHODS)}. "
        f"A picture, not a measurement: t-SNE makes clusters of noise too, distances between groups mean nothing."
        f"{many}"
    )
    alt = f"Points of the test records on planes by {', '.join(METHODS)}, for {', '.join(report.features)}"
    figure = plot_projection(report.features, names, values)
    drawn = ReportFigure.draw(figure, "Test records", caption, alt, wide=True)
    return Section("Features on a plane", figures=(drawn,), folded=True)


def examples_sections(
    result: Result, predictions: Mapping[tuple[str, str], ProtocolResult], rows: Dataset
) -> list[Section]:
    """Recordings that the model got right and wrong, by `linear` or the first classification there is."""
    chosen = example_protocol(result, predictions)
    if chosen is None:
        return []
    examples = choose_examples(predictions["pretrained", chosen], result.outcome(chosen).scores)
    figures, notes = draw_examples(examples, rows, result.task)
    intro = (
        f"Protocol {chosen}. Of the label predicted best and of the one predicted worst: the false positive and the "
        "false negative with the most confident score, and the most confident true positive. Positive is what reaches "
        "the threshold of the validation split. Some errors are those of the labels."
    )
    return [Section("Recordings, right and wrong", (intro,), notes=notes, figures=figures, folded=True)]


def example_protocol(result: Result, predictions: Mapping[tuple[str, str], ProtocolResult]) -> str | None:
    """The classification whose records are drawn: `linear` where there is one."""
    found = [
        outcome.protocol
        for outcome in result.outcomes
        if outcome.kind.name == "classification" and ("pretrained", outcome.protocol) in predictions
    ]
    return "linear" if "linear" in found else next(iter(found), None)
