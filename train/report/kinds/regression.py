"""Regression: errors in standard deviations and in the unit of each target."""

from ...results import Outcome, Result, decapitalized, format_score
from ..figures import plot_errors
from ..page import Cell, ReportFigure, Row, Section, Table
from ..tables import MISSING, Column, choices_of, counts_of, format_number, score_table, with_interval
from . import Shown

MOST_TARGETS = 6


def section(outcome: Outcome, result: Result, shown: Shown) -> Section:
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
