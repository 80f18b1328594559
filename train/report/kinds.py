"""The parts of a page on one protocol, a function for each kind of [`~ecg_transformers.train.results.KINDS`].

Each takes the outcome, the result that it belongs to, and predictions of the test split by encoder and protocol, for
charts; without predictions it has none of those.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

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
    with_spread,
)

Predicted = Mapping[tuple[str, str], ProtocolResult]
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
WITH_INTERVALS = "95 % intervals from a bootstrap over patients."


def outcome_section(outcome: Outcome, result: Result, predictions: Predicted | None = None) -> Section:
    """The part of a page on one protocol, by its kind."""
    return SECTIONS[outcome.kind.name](outcome, result, predictions or {})


def positives_of(predictions: Predicted) -> dict[str, int]:
    """Test records with each label, of any classification among the predictions."""
    for result in predictions.values():
        if np.issubdtype(result.test.labels.dtype, np.integer):
            return dict(zip(result.label_names, result.test.labels.sum(axis=0).tolist(), strict=True))
    return {}


def classification_section(outcome: Outcome, result: Result, predictions: Predicted) -> Section:
    scores, sides, protocol = outcome.scores, outcome.sides(), outcome.protocol
    notes = [counts_of(outcome), choices_of(outcome)]
    if temperatures := [
        f"{each['temperature']:.3f} ({decapitalized(name)})" for _, name, each in sides if each.get("temperature")
    ]:
        notes.append(f"Temperature: {', '.join(temperatures)}.")
    if scores.get("challenge_metric_missing"):
        notes.append(f"No challenge metric: {scores['challenge_metric_missing']}")
    alt = f"Bars of the AUROC of {len(scores['per_class'])} labels; the macro mean is {scores['macro_auroc']:.3f}"
    alt += "".join(f", of {decapitalized(name)} {each['macro_auroc']:.3f}" for _, name, each in sides[:-1])
    words = [spelled_out(name, result.task) for name in scores["per_class"]]
    has_codes = len(words) <= MOST_SPELLED_OUT and words != list(scores["per_class"])
    caption = "Bars start at chance, 0.5; lines are 95 % intervals." + (f" {', '.join(words)}." if has_codes else "")
    bars = ReportFigure(plot_label_bars(sides), f"AUROC of each label ({protocol})", caption, alt)
    details = [Section("Each label", tables=(label_table(outcome, result, positives_of(predictions)),))]
    if ("pretrained", protocol) in predictions:
        drawn = curves(outcome, predictions["pretrained", protocol])
        details.insert(0, Section("Curves and calibration", figures=drawn))
    caption = f"Protocol {protocol}: {outcome.words}; {WITH_INTERVALS}"
    return Section(
        f"Protocol {protocol}",
        tables=(score_table(outcome, CLASSIFICATION_COLUMNS, caption),),
        notes=[note for note in notes if note],
        left_out={f"Label {spelled_out(name, result.task)}": why for name, why in scores.get("excluded", {}).items()},
        figures=[bars],
        details=details,
    )


def label_table(outcome: Outcome, result: Result, positives: Mapping[str, int]) -> Table:
    """Area under the ROC curve and average precision of each label, of every baseline and the encoder."""
    sides, thresholds = outcome.sides(), outcome.scores.get("thresholds", {})
    has_precision = all("per_class_auprc" in scores for _, _, scores in sides)
    header = ["Label"] + (["Test records with it"] if positives else [])
    header += [f"AUROC, {decapitalized(name)}" for _, name, _ in sides]
    header += ["Difference"] if len(sides) == 2 else []
    header += [f"AUPRC, {decapitalized(name)}" for _, name, _ in sides] if has_precision else []
    header += ["Threshold"] if thresholds else []
    rows = []
    for label in outcome.scores["per_class"]:
        cells = [Cell(str(positives[label]))] if positives else []
        areas = [scores["per_class"].get(label) for _, _, scores in sides]
        for area, (_, _, scores) in zip(areas, sides, strict=True):
            cells.append(with_interval({"area": area, "area_ci95": scores["per_class_ci95"].get(label)}, "area"))
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
    is_single = predictions.problem_type == SINGLE_LABEL
    of_what = "the most probable class of each record" if is_single else "all labels together"
    scaling = "No temperature was fitted."
    if temperature is not None:
        scaling = (
            "The temperature was fitted on the validation split: the calibration error goes from "
            f"{scores['ece']:.3f} to {scores['ece_scaled']:.3f}{'' if is_single else ' (mean over labels)'}."
        )
    return [
        ReportFigure(
            plot_roc(predictions),
            f"ROC curves ({protocol})",
            f"Test split. The black line is the mean over the labels; its area is {scores['macro_auroc']:.3f}.",
            f"ROC curves of {num_labels} labels and their mean, {protocol}",
        ),
        ReportFigure(
            plot_precision_recall(predictions),
            f"Precision and recall ({protocol})",
            f"Test split. The area below the mean is {scores['macro_auprc']:.3f}; chance is the mean share of "
            "positive records.",
            f"Precision over recall of {num_labels} labels and their mean, {protocol}",
        ),
        ReportFigure(
            plot_reliability(predictions, temperature),
            f"Reliability ({protocol})",
            f"Test split, {of_what}. Points of few predictions (below) jump by chance. {scaling}",
            f"Observed frequency against predicted probability, {protocol}",
        ),
    ]


def regression_section(outcome: Outcome, result: Result, predictions: Predicted) -> Section:
    kind, protocol, figures = outcome.kind, outcome.protocol, []
    if (found := predictions.get(("pretrained", protocol))) is not None:
        text = "Left: prediction against truth. Right: difference against mean (Bland-Altman)."
        for column, target in enumerate(found.label_names[:MOST_TARGETS]):
            alt = f"Predictions of {target} against the truth, and their differences against their means"
            figures.append(ReportFigure(plot_errors(found, column), f"{target} ({protocol})", text, alt, wide=True))
    columns = (Column(kind.score, f"{kind.title}, lower is better", True),)
    scores = score_table(outcome, columns, f"Protocol {protocol}: {outcome.words}; {WITH_INTERVALS}")
    notes = [note for note in (counts_of(outcome), choices_of(outcome)) if note]
    return Section(f"Protocol {protocol}", tables=(scores, target_table(outcome)), notes=notes, figures=figures)


def target_table(outcome: Outcome) -> Table:
    """Errors of each target, beside the error of always predicting the training mean."""

    def cells(found: Mapping) -> tuple[Cell, ...]:
        bias = with_spread(found.get("bias"), found.get("sd"), format_number)
        return with_interval(found, "mae", format_number), bias, Cell(format_score(found.get("pearson")))

    rows = []
    for target, of_target in outcome.scores["per_target"].items():
        if "train_mean_mae" in of_target:
            mean = Cell(format_number(of_target["train_mean_mae"]))
            rows.append(Row(f"{target}: training mean", (mean, Cell(MISSING), Cell(MISSING))))
        rows += _side_rows(outcome, target, cells, "per_target")
    caption = (
        f"Protocol {outcome.protocol}: errors in the unit of the target, lower is better. Bias and SD are those of "
        "prediction minus truth; “training mean” always predicts the mean of the training targets."
    )
    return Table(caption, ("Target", "Mean absolute error", "Bias ± SD", "Correlation"), tuple(rows))


def _side_rows(
    outcome: Outcome, part: str, cells: Callable[[Mapping], Sequence[Cell]], key: str | None = None
) -> Iterator[Row]:
    """A row of each side for a part of the scores (a target, a point, an algorithm), which lies under `key`."""
    for _, name, scores in outcome.sides():
        found = (scores if key is None else scores[key]).get(part)
        if found is not None:
            yield Row(f"{part.replace('_', ' ')}: {decapitalized(name)}", tuple(cells(found)))


def identity_section(outcome: Outcome, result: Result, predictions: Predicted) -> Section:
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


def clusters_section(outcome: Outcome, result: Result, predictions: Predicted) -> Section:
    """Agreement of clusters with classes, beside classes dealt out anew, and how separate the clusters are."""

    def cells(found: Mapping) -> Iterator[Cell]:
        for key in AGREEMENT:
            cell, chance = with_interval(found, key), found.get(f"{key}_chance")
            yield cell if chance is None else Cell(cell.text, (*cell.small, f"chance {format_score(chance)}"))
        yield from (Cell(format_score(found[key])) for key in ("silhouette", "davies_bouldin"))
        noise = (f"{found['num_noise']} records in none",) if found["num_noise"] else ()
        yield Cell(str(found["num_clusters"]), noise)

    scores, rows = outcome.scores, []
    for algorithm in (key for key, value in scores.items() if isinstance(value, Mapping) and "nmi" in value):
        rows += [*_side_rows(outcome, algorithm, cells), *difference_rows(outcome, AGREEMENT, 3, algorithm)]
    header = ("Algorithm and encoder", "NMI", "ARI", "Silhouette", "Davies-Bouldin (lower: more separate)", "Clusters")
    caption = f"Protocol {outcome.protocol}: {outcome.words}, test records with exactly one class."
    note = (
        f"{scores['num_test_records']} records of {scores['num_test_patients']} patients; {scores['num_left_out']} "
        "with none of the labels or with several take no part. Chance: classes dealt out anew."
    )
    return Section(f"Protocol {outcome.protocol}", tables=(Table(caption, header, tuple(rows)),), notes=[note])


def delineation_section(outcome: Outcome, result: Result, predictions: Predicted) -> Section:
    """Overlap of predicted and marked waves; folded, the errors of each onset, peak and offset."""

    def cells(found: Mapping) -> tuple[Cell, ...]:
        found_and_right = (with_interval(found, key) for key in ("sensitivity", "ppv"))
        error = with_spread(found["mean_ms"], found["sd_ms"], lambda value, signed=False: f"{value:{'+' * signed}.1f}")
        return Cell(str(found["num_references"])), *found_and_right, error

    names = [name for name in OVERLAPS if name in outcome.scores["iou"]]
    rows = []
    for _, name, scores in outcome.sides():
        overlaps = [with_interval(scores, "miou_waves"), with_interval(scores, "miou")]
        rows.append(Row(name, (*overlaps, *(Cell(format_score(scores["iou"].get(wave))) for wave in names))))
    rows += difference_rows(outcome, ("miou_waves", "miou"), len(names))
    caption = (
        f"Protocol {outcome.protocol}: overlap (intersection over union) with the marks, samples of all leads together"
    )
    if "num_subjects" in outcome.scores:
        caption += f"; {outcome.scores['num_subjects']} subjects, 95 % intervals from a bootstrap over them"
    header = ("Encoder", "mIoU of P, QRS and T", "mIoU with background", *(f"IoU {name}" for name in names))
    points = tuple(
        row for point in outcome.scores["per_point"] for row in _side_rows(outcome, point, cells, "per_point")
    )
    of_points = (
        f"Protocol {outcome.protocol}: points matched within {outcome.scores['tolerance_ms']:g} ms. Error: prediction "
        "minus mark, mean ± SD of the matched points."
    )
    columns = ("Point and encoder", "Marks", "Sensitivity", "PPV", "Error (ms)")
    return Section(
        f"Delineation, protocol {outcome.protocol}",
        tables=(Table(f"{caption}.", header, tuple(rows)),),
        left_out=outcome.scores.get("excluded", {}),
        details=[Section("Each onset, peak and offset", tables=(Table(of_points, columns, points),))],
    )


SECTIONS = {
    "classification": classification_section,
    "regression": regression_section,
    "identity": identity_section,
    "clusters": clusters_section,
    "delineation": delineation_section,
}
