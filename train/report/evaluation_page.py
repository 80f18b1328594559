"""The pages of an evaluation and of a fine-tuning: what was found first, beside every baseline and with intervals;
details are folded."""

from collections.abc import Mapping, Sequence

from datasets import Dataset
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling.method import method_of

from ..features import EmbeddingTable
from ..predictions import ProtocolResult
from ..results import REGRESSION, Result, encoder_words, format_score, kind_of
from .card_section import caveats_of
from .examples import examples_sections
from .kinds import outcome_section
from .labels import spelled_out
from .page import Cell, Page, ReportFigure, Row, Section, Table
from .plots import plot_training_curve
from .projection import features_section
from .settings import setting_sections
from .tables import published_section, split_section, splits_table, with_interval

PROBLEM_WORDS = {
    "multi_label_classification": "any number of labels a record",
    "single_label_classification": "exactly one label a record",
    "regression": "numbers",
    "token_classification": "P, QRS, T or none, for each sample of each lead",
    "retrieval": "other records of the same patient",
}
MOST_NAMED_LABELS = 12
Predicted = Mapping[tuple[str, str], ProtocolResult]
"""Predictions of the test split by encoder and protocol."""


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


def evaluation_page(
    result: Result,
    data: DataSource,
    facts: Mapping[str, str | int | float],
    predictions: Predicted | None = None,
    features: Mapping[str, EmbeddingTable] | None = None,
    rows: Dataset | None = None,
    explanations: Sequence[ReportFigure] = (),
    published: Sequence[Mapping] = (),
    published_notes: Sequence[str] = (),
) -> Page:
    """The page, which [`~.page.write_page`] writes; what is empty does not appear.

    Args:
        result, data, facts: `metrics.json`; the recordings; [`encoder_facts`].
        predictions (`Mapping`, *optional*): Predictions by encoder and protocol, for charts.
        features (`Mapping`, *optional*): Features of the test split, by encoder, for planes.
        rows (`Dataset`, *optional*): Test split, rows of [`load_ecg`]: examples drawn as ECGs.
        explanations (`Sequence[ReportFigure]`, *optional*): Attention over leads and time of some test records.
        published, published_notes: [`~.published.comparable_numbers`] and words on them.
    """
    other, predictions = result.other, predictions or {}
    name = str(other["model"]).rstrip("/").rsplit("/", 1)[-1]
    for outcome in result.outcomes:
        if "random_encoder" not in outcome.baselines:
            raise ValueError(
                f"Expected the random encoder beside the pretrained one for protocol {outcome.protocol!r}, got none. "
                "Run the protocol on both: without it nobody knows what the pretraining is worth."
            )
    sections = [outcome_section(outcome, result, predictions) for outcome in result.outcomes]
    sections += setting_sections(result.settings)
    if rows is not None:
        sections += examples_sections(result, predictions, rows)
    if explanations:
        intro = "Where the encoder looked, over leads and time, in some test records. That is no proof of a reason."
        sections.append(Section("Attention", (intro,), figures=explanations, folded=True))
    if result.problem_type != REGRESSION and any(len(table) >= 3 for table in (features or {}).values()):
        sections.append(features_section(features, result.label_names))
    seconds = other.get("seconds")
    return Page(
        title=f"Evaluation of {name} on {result.task}",
        summary=(
            f"How much the encoder {name} knows, beside one of the same configuration with random weights, on the "
            f"same records. Task: {result.task}. Protocols: {', '.join(o.protocol for o in result.outcomes)}."
        ),
        verdicts=result.verdicts(),
        sections=[*sections, published_section(result, published, published_notes)],
        caveats=caveats_of(result, predictions),
        facts={"Model": str(other["model"]), **facts} | task_facts(result, data),
        fact_tables=[splits_table(result.splits)] if result.splits else [],
        command=other["command"],
        versions=other["versions"],
        made=f"The evaluation took {seconds:.0f} s." if isinstance(seconds, (int, float)) else "",
        data=data,
    )


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


def finetune_page(
    result: Result,
    predictions: ProtocolResult,
    rows: Dataset,
    data: DataSource,
    facts: Mapping[str, str | int | float],
    log_history: Sequence[Mapping[str, float]],
) -> Page:
    """The page of a fine-tuning: how good the classifier is, for whom, and where it errs.

    Takes `metrics.json`, predictions of the test split and its rows of [`load_ecg`], facts of the model and its
    training, and `trainer.state.log_history`; [`~.page.write_page`] writes the page.
    """
    outcome, other = result.outcomes[0], result.other
    shown = {("pretrained", outcome.protocol): predictions}
    sections = [split_section(result), outcome_section(outcome, result, shown)]
    if groups := other.get("subgroups"):
        sections.append(subgroup_section(groups, outcome.kind.title))
    sections += examples_sections(result, shown, rows)
    if any("loss" in entry for entry in log_history):
        words = ("Training", "The loss on the training split.", "The loss over the steps")
        curve = ReportFigure(plot_training_curve(log_history), *words)
        sections.append(Section("Training", figures=(curve,), folded=True))
    kind, scores = outcome.kind, outcome.scores
    low, high = scores[f"{kind.score}_ci95"]
    return Page(
        title=f"{result.task}: fine-tuning of {str(other['model']).rstrip('/').rsplit('/', 1)[-1]}",
        summary=f"A pretrained encoder was trained on labels ({outcome.words}) and tested once.",
        verdicts=[
            f"On test records that took no part in training or selection: {kind.title} {scores[kind.score]:.3f}, "
            f"95\u00a0% interval {low:.3f} to {high:.3f}{', lower is better' if kind.lower_is_better else ''}."
        ],
        sections=sections,
        caveats=caveats_of(result, shown),
        facts={"Model": str(other["model"]), **facts} | task_facts(result, data),
        command=other["command"],
        versions=other["versions"],
        made=f"The training took {other['seconds']:.0f} s.",
        data=data,
    )


def subgroup_section(groups: Mapping[str, Mapping], title: str) -> Section:
    """Scores of men and women, and of ages, with those that cannot be evaluated."""
    rows, left_out = [], {}
    for name, scores in groups.items():
        if "refused" in scores:
            left_out[name] = scores["refused"]
            continue
        counts = (scores["num_records"], scores["num_patients"], scores.get("num_labels", format_score(None)))
        score = with_interval(scores, kind_of(scores).score)
        rows.append(Row(name, (*(Cell(str(count)) for count in counts), score)))
    header = ("Group", "Records", "Patients", "Labels evaluated", title)
    table = Table("Test records by sex and age, 95 % intervals from a bootstrap over patients.", header, tuple(rows))
    note = (
        "The mean over fewer labels may be easier or harder: compare groups only where the number of labels is equal, "
        "and see the intervals, which are wide in small groups."
    )
    return Section("For whom: sex and age", tables=(table,) if rows else (), notes=(note,), left_out=left_out)
