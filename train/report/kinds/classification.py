"""Classification: scores, curves, calibration and each label."""

from collections.abc import Sequence

from ...predictions import ProtocolResult
from ...results import SINGLE_LABEL, Outcome, Result, decapitalized, format_score
from ..figures import plot_label_bars, plot_precision_recall, plot_reliability, plot_roc
from ..labels import spelled_out
from ..page import Cell, ReportFigure, Row, Section, Table
from ..tables import MISSING, Column, choices_of, counts_of, score_table, with_interval
from . import Shown

MOST_NAMED = 12
COLUMNS = (
    Column("macro_auroc", "Macro AUROC"),
    Column("macro_auprc", "Macro AUPRC"),
    Column("macro_f1_at_0.5", "Macro F1 at 0.5"),
    Column("macro_f1_tuned", "Macro F1 at validation thresholds"),
    Column("macro_f1_argmax", "Macro F1 of the most probable class"),
    Column("accuracy", "Accuracy"),
    Column("challenge_metric", "Challenge metric"),
    Column("ece", "ECE (lower is better)", True, True),
    Column("brier", "Brier score (lower is better)", True, True),
)


def section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    scores, sides = outcome.scores, outcome.sides()
    caption = f"Protocol {outcome.protocol}: {outcome.words}; 95 % intervals from a bootstrap over patients."
    notes = [sentence for sentence in (counts_of(outcome), choices_of(outcome)) if sentence]
    temperatures = [
        f"{each['temperature']:.3f} ({decapitalized(name)})" for _, name, each in sides if each.get("temperature")
    ]
    notes += [f"Temperature: {', '.join(temperatures)}."] if temperatures else []
    if scores.get("challenge_metric_missing"):
        notes.append(f"No challenge metric: {scores['challenge_metric_missing']}")
    figures, details = [], [Section("Each label", tables=(label_table(outcome, result, shown),))]
    if shown.with_figures:
        alt = f"Bars of the AUROC of {len(scores['per_class'])} labels; the macro mean is {scores['macro_auroc']:.3f}"
        alt += "".join(f", of {decapitalized(name)} {each['macro_auroc']:.3f}" for _, name, each in sides[:-1])
        title = f"AUROC of each label ({outcome.protocol})"
        words = [spelled_out(name, result.task) for name in scores["per_class"]]
        meanings = f" {', '.join(words)}." if len(words) <= MOST_NAMED and words != list(scores["per_class"]) else ""
        caption_of_bars = f"Bars start at chance, 0.5; lines are 95 % intervals.{meanings}"
        figures.append(ReportFigure.draw(plot_label_bars(sides), title, caption_of_bars, alt))
    if (predictions := shown.of(outcome)) is not None:
        details.insert(0, Section("Curves and calibration", figures=curves(outcome, predictions)))
    return Section(
        f"Protocol {outcome.protocol}",
        tables=(score_table(outcome, COLUMNS, caption),),
        notes=notes,
        left_out={f"Label {spelled_out(name, result.task)}": why for name, why in scores.get("excluded", {}).items()},
        figures=figures,
        details=details,
    )


def label_table(outcome: Outcome, result: Result, shown: Shown) -> Table:
    """Area under the ROC curve and average precision of each label, of every baseline and the encoder."""
    sides, thresholds = outcome.sides(), outcome.scores.get("thresholds", {})
    has_precision = all("per_class_auprc" in scores for _, _, scores in sides)
    header = ["Label"] + (["Test records with it"] if shown.positives else [])
    header += [f"AUROC, {decapitalized(name)}" for _, name, _ in sides]
    header += ["Difference"] if len(sides) == 2 else []
    header += [f"AUPRC, {decapitalized(name)}" for _, name, _ in sides] if has_precision else []
    header += ["Threshold"] if thresholds else []
    rows = []
    for label in outcome.scores["per_class"]:
        cells = [Cell(str(shown.positives[label]))] if shown.positives else []
        areas = [scores["per_class"].get(label) for _, _, scores in sides]
        for _, _, scores in sides:
            facts = {"area": scores["per_class"].get(label), "area_ci95": scores["per_class_ci95"].get(label)}
            cells.append(with_interval(facts, "area"))
        if len(sides) == 2:
            cells.append(Cell(MISSING if None in areas else f"{areas[1] - areas[0]:+.3f}"))
        if has_precision:
            cells += [Cell(format_score(scores["per_class_auprc"].get(label))) for _, _, scores in sides]
        cells += [Cell(format_score(thresholds.get(label)))] if thresholds else []
        rows.append(Row(spelled_out(label, result.task), tuple(cells)))
    caption = f"Protocol {outcome.protocol}: each label"
    caption += "; thresholds of the last encoder, chosen on the validation split" if thresholds else ""
    return Table(f"{caption}.", tuple(header), tuple(rows))


def curves(outcome: Outcome, predictions: ProtocolResult) -> Sequence[ReportFigure]:
    """ROC and precision-recall curves, and reliability, of the encoder."""
    scores, protocol = outcome.scores, outcome.protocol
    num_labels, temperature = len(scores["per_class"]), scores.get("temperature")
    single = predictions.problem_type == SINGLE_LABEL
    of_what = "the most probable class of each record" if single else "all labels together"
    scaling = "No temperature was fitted."
    if temperature is not None:
        scaling = (
            "The temperature was fitted on the validation split: the calibration error goes from "
            f"{scores['ece']:.3f} to {scores['ece_scaled']:.3f}{'' if single else ' (mean over labels)'}."
        )
    return [
        ReportFigure.draw(
            plot_roc(predictions),
            f"ROC curves ({protocol})",
            f"Test split. The black line is the mean over the labels; its area is {scores['macro_auroc']:.3f}.",
            f"ROC curves of {num_labels} labels and their mean, {protocol}",
        ),
        ReportFigure.draw(
            plot_precision_recall(predictions),
            f"Precision and recall ({protocol})",
            f"Test split. The area below the mean is {scores['macro_auprc']:.3f}; chance is the mean share of "
            "positive records.",
            f"Precision over recall of {num_labels} labels and their mean, {protocol}",
        ),
        ReportFigure.draw(
            plot_reliability(predictions, temperature),
            f"Reliability ({protocol})",
            f"Test split, {of_what}. Points of few predictions (below) jump by chance. {scaling}",
            f"Observed frequency against predicted probability, {protocol}",
        ),
    ]
