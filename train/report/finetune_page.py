"""The page of a fine-tuning: how good the classifier is, for whom, and where it errs."""

from collections.abc import Mapping, Sequence

from datasets import Dataset

from ecg_transformers.data.corpus import DataSource

from ..predictions import ProtocolResult
from ..results import Result, format_score, kind_of
from .caveats import caveats_of
from .curves import positives_of
from .evaluation_page import examples_sections, task_facts
from .kinds import Shown, outcome_section
from .page import Cell, Page, ReportFigure, Row, Section, Table
from .plots import plot_training_curve
from .tables import split_section, with_interval


def finetune_page(
    result: Result,
    predictions: ProtocolResult,
    rows: Dataset,
    data: DataSource,
    facts: Mapping[str, str | int | float],
    log_history: Sequence[Mapping[str, float]],
) -> Page:
    """The page, of `metrics.json`, predictions of the test split and its rows of [`load_ecg`], facts of the model and
    its training, and `trainer.state.log_history`; [`~.page.write_page`] writes it."""
    outcome, other = result.outcomes[0], result.other
    shown = {("pretrained", outcome.protocol): predictions}
    positives = positives_of(shown)
    sections = [split_section(result), outcome_section(outcome, result, Shown(shown, positives))]
    if groups := other.get("subgroups"):
        sections.append(subgroup_section(groups, outcome.kind.title))
    sections += examples_sections(result, shown, rows)
    if any("loss" in entry for entry in log_history):
        curve = ReportFigure.draw(
            plot_training_curve(log_history), "Training", "The loss on the training split.", "The loss over the steps"
        )
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
        caveats=caveats_of(result, positives),
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
        labels = scores.get("num_labels")
        cells = [Cell(str(scores["num_records"])), Cell(str(scores["num_patients"]))]
        cells += [Cell(format_score(None) if labels is None else str(labels))]
        rows.append(Row(name, (*cells, with_interval(scores, kind_of(scores).score))))
    header = ("Group", "Records", "Patients", "Labels evaluated", title)
    table = Table("Test records by sex and age, 95 % intervals from a bootstrap over patients.", header, tuple(rows))
    note = (
        "The mean over fewer labels may be easier or harder: compare groups only where the number of labels is equal, "
        "and see the intervals, which are wide in small groups."
    )
    return Section("For whom: sex and age", tables=(table,) if rows else (), notes=(note,), left_out=left_out)
