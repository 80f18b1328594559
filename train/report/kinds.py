"""The parts of a page on one protocol, a function for each kind of [`~ecg_transformers.train.results.KINDS`].

Each takes the outcome, the result that it belongs to, and what is shown beside the scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..predictions import ProtocolResult
from ..results import SINGLE_LABEL, Outcome, Result, decapitalized, format_score
from .figures import plot_errors, plot_label_bars, plot_precision_recall, plot_reliability, plot_roc
from .labels import spelled_out
from .page import Cell, ReportFigure, Row, Section, Table
from .tables import (
    MISSING,
    Column,
    choices_of,
    counts_of,
    difference_rows,
    format_number,
    score_table,
    with_interval,
)

MOST_SPELLED_OUT = 12
CLASSIFICATION_COLUMNS = (
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
MOST_TARGETS = 6
IDENTITY_COLUMNS = (
    Column("recall_at_1", "Recall at 1"),
    Column("recall_at_5", "Recall at 5"),
    Column("recall_at_10", "Recall at 10"),
    Column("mean_reciprocal_rank", "Mean reciprocal rank"),
    Column("mean_average_precision", "Mean average precision"),
    Column("pair_auroc", "AUROC of pairs"),
)
AGREEMENT = ("nmi", "ari")
OVERLAPS = ("P", "QRS", "T", "background")


@dataclass(frozen=True)
class Shown:
    """Predictions of the test split by encoder and protocol, for charts, and test records with each label, for tables.
    `with_figures` is `False` for Markdown, which has no figures."""

    predictions: Mapping[tuple[str, str], ProtocolResult] = field(default_factory=dict)
    positives: Mapping[str, int] | None = None
    with_figures: bool = True

    def of(self, outcome: Outcome) -> ProtocolResult | None:
        """Predictions of the pretrained encoder."""
        return self.predictions.get(("pretrained", outcome.protocol)) if self.with_figures else None


def classification_section(outcome: Outcome, result: Result, shown: Shown) -> Section:
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
        meanings = (
            f" {', '.join(words)}." if len(words) <= MOST_SPELLED_OUT and words != list(scores["per_class"]) else ""
        )
        caption_of_bars = f"Bars start at chance, 0.5; lines are 95 % intervals.{meanings}"
        figures.append(ReportFigure.draw(plot_label_bars(sides), title, caption_of_bars, alt))
    if (predictions := shown.of(outcome)) is not None:
        details.insert(0, Section("Curves and calibration", figures=curves(outcome, predictions)))
    return Section(
        f"Protocol {outcome.protocol}",
        tables=(score_table(outcome, CLASSIFICATION_COLUMNS, caption),),
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


def regression_section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    kind = outcome.kind
    caption = f"Protocol {outcome.protocol}: {outcome.words}; 95 % intervals from a bootstrap over patients."
    columns = (Column(kind.score, f"{kind.title}, lower is better", True),)
    figures = []
    if (predictions := shown.of(outcome)) is not None:
        for column, target in enumerate(predictions.label_names[:MOST_TARGETS]):
            text = "Left: prediction against truth. Right: difference against mean (Bland-Altman)."
            alt = f"Predictions of {target} against the truth, and their differences against their means"
            title = f"{target} ({outcome.protocol})"
            figures.append(ReportFigure.draw(plot_errors(predictions, column), title, text, alt, wide=True))
    notes = [sentence for sentence in (counts_of(outcome), choices_of(outcome)) if sentence]
    tables = score_table(outcome, columns, caption), target_table(outcome)
    return Section(f"Protocol {outcome.protocol}", tables=tables, notes=notes, figures=figures)


def target_table(outcome: Outcome) -> Table:
    """Errors of each target, beside the error of always predicting the training mean."""
    rows = []
    for target, of_target in outcome.scores["per_target"].items():
        if "train_mean_mae" in of_target:
            mean = Cell(format_number(of_target["train_mean_mae"]))
            rows.append(Row(f"{target}: training mean", (mean, Cell(MISSING), Cell(MISSING))))
        for _, name, scores in outcome.sides():
            found = scores["per_target"][target]
            spread = "" if found.get("sd") is None else f" ± {format_number(found['sd'])}"
            bias = MISSING if found.get("bias") is None else f"{format_number(found['bias'], signed=True)}{spread}"
            cells = (with_interval(found, "mae", format_number), Cell(bias), Cell(format_score(found.get("pearson"))))
            rows.append(Row(f"{target}: {decapitalized(name)}", cells))
    caption = (
        f"Protocol {outcome.protocol}: errors in the unit of the target, lower is better. Bias and SD are those of "
        "prediction minus truth; “training mean” always predicts the mean of the training targets."
    )
    return Table(caption, ("Target", "Mean absolute error", "Bias ± SD", "Correlation"), tuple(rows))


def identity_section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    scores = outcome.scores
    caption = (
        f"{scores['num_queries']} recordings of {scores['num_query_patients']} people who have another one, each "
        f"searched among {scores['num_gallery_records']} others by the similarity of frozen features; 95 % intervals "
        "from a bootstrap over people."
    )
    table = score_table(outcome, IDENTITY_COLUMNS, caption)
    columns = [column.key for column in IDENTITY_COLUMNS if column.title in table.header]
    chance = Row("Chance", tuple(Cell(format_score(scores["chance"].get(key))) for key in columns))
    table = Table(caption, table.header, (chance, *table.rows))
    return Section("Identity: the same person again", tables=(table,))


def clusters_section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    scores = outcome.scores
    notes = [
        f"{scores['num_test_records']} records of {scores['num_test_patients']} patients; {scores['num_left_out']} "
        "with none of the labels or with several take no part. Chance: classes dealt out anew."
    ]
    return Section(f"Protocol {outcome.protocol}", tables=(cluster_table(outcome),), notes=notes)


def cluster_table(outcome: Outcome) -> Table:
    """Agreement of clusters with classes, beside classes dealt out anew, and how separate the clusters are."""
    rows = []
    algorithms = [key for key, value in outcome.scores.items() if isinstance(value, Mapping) and "nmi" in value]
    for algorithm in algorithms:
        for _, name, scores in outcome.sides():
            found = scores[algorithm]
            cells = [_with_chance(found, key) for key in AGREEMENT]
            cells += [Cell(format_score(found[key])) for key in ("silhouette", "davies_bouldin")]
            noise = (f"{found['num_noise']} records in none",) if found["num_noise"] else ()
            cells.append(Cell(str(found["num_clusters"]), noise))
            rows.append(Row(f"{algorithm}: {decapitalized(name)}", tuple(cells)))
        rows += difference_rows(outcome, AGREEMENT, 3, algorithm)
    header = ("Algorithm and encoder", "NMI", "ARI", "Silhouette", "Davies-Bouldin (lower: more separate)", "Clusters")
    caption = f"Protocol {outcome.protocol}: {outcome.words}, test records with exactly one class."
    return Table(caption, header, tuple(rows))


def _with_chance(found: Mapping, key: str) -> Cell:
    cell, chance = with_interval(found, key), found.get(f"{key}_chance")
    return cell if chance is None else Cell(cell.text, (*cell.small, f"chance {format_score(chance)}"))


def delineation_section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    points = Section("Each onset, peak and offset", tables=(point_table(outcome),))
    left_out = outcome.scores.get("excluded", {})
    title = f"Delineation, protocol {outcome.protocol}"
    return Section(title, tables=(overlap_table(outcome),), left_out=left_out, details=(points,))


def overlap_table(outcome: Outcome) -> Table:
    """Overlap of predicted and marked waves."""
    names = [name for name in OVERLAPS if name in outcome.scores["iou"]]
    rows = []
    for _, name, scores in outcome.sides():
        cells = [with_interval(scores, "miou_waves"), with_interval(scores, "miou")]
        rows.append(Row(name, (*cells, *(Cell(format_score(scores["iou"].get(wave))) for wave in names))))
    rows += difference_rows(outcome, ("miou_waves", "miou"), len(names))
    caption = (
        f"Protocol {outcome.protocol}: overlap (intersection over union) with the marks, samples of all leads together"
    )
    if "num_subjects" in outcome.scores:
        caption += f"; {outcome.scores['num_subjects']} subjects, 95 % intervals from a bootstrap over them"
    header = ("Encoder", "mIoU of P, QRS and T", "mIoU with background", *(f"IoU {name}" for name in names))
    return Table(f"{caption}.", header, tuple(rows))


def point_table(outcome: Outcome) -> Table:
    """Sensitivity, positive predictive value and error of each onset, peak and offset."""
    rows = []
    for point in outcome.scores["per_point"]:
        for _, name, scores in outcome.sides():
            found = scores["per_point"].get(point)
            if found is None:
                continue
            spread = "" if found["sd_ms"] is None else f" ± {found['sd_ms']:.1f}"
            error = Cell(MISSING if found["mean_ms"] is None else f"{found['mean_ms']:+.1f}{spread}")
            cells = (
                Cell(str(found["num_references"])),
                with_interval(found, "sensitivity"),
                with_interval(found, "ppv"),
            )
            rows.append(Row(f"{point.replace('_', ' ')}: {decapitalized(name)}", (*cells, error)))
    caption = (
        f"Protocol {outcome.protocol}: points matched within {outcome.scores['tolerance_ms']:g} ms. Error: prediction "
        "minus mark, mean ± SD of the matched points."
    )
    return Table(caption, ("Point and encoder", "Marks", "Sensitivity", "PPV", "Error (ms)"), tuple(rows))


SECTIONS = {
    "classification": classification_section,
    "regression": regression_section,
    "identity": identity_section,
    "clusters": clusters_section,
    "delineation": delineation_section,
}


def outcome_section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    """The part of a page on one protocol, by its kind."""
    return SECTIONS[outcome.kind.name](outcome, result, shown)
