"""The numbers of `metrics.json` as tables of text, for the page and for the model card: one place decides what stands
beside what.

A table of a protocol always has the random encoder (for `finetuned`: the same encoder trained from scratch) above the
pretrained one, with intervals, and says which labels were left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..results import MAIN_SCORES, difference_of, format_interval, format_p_value, format_score, score_of
from .verdicts import baseline_of, pretrained_name, protocol_words

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """A value with what belongs to it: an interval, a p-value."""

    text: str
    small: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of a table; `main` ones are what the page is about."""

    name: str
    cells: tuple[Cell, ...]
    main: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its caption and the names of its columns, that of the row names first. `words` are the numbers of
    the columns of running text; row names have number 0."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    words: tuple[int, ...] = ()


def table_markdown(table: Table) -> str:
    """The table for a card: what belongs to a value follows it in brackets."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"

    lines = [line(table.header), "|" + "---|" * len(table.header)]
    for row in table.rows:
        cells = [f"{cell.text} ({'; '.join(cell.small)})" if cell.small else cell.text for cell in row.cells]
        lines.append(line([row.name, *cells]))
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """One line without bars, tags or other signs that Markdown would read."""
    for sign, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "\\`"), ("*", "\\*")):
        text = text.replace(sign, escaped)
    return " ".join(text.split())


def protocol_table(metrics: Mapping, protocol: str) -> Table:
    """Random, pretrained and their difference: what can be said of a protocol in three lines."""
    name, baseline = baseline_of(metrics, protocol)
    pretrained = metrics["pretrained"][protocol]
    score = score_of(pretrained)
    columns = [(title, describe) for title, key, describe in _columns(score) if key in baseline or key in pretrained]
    rows = [
        Row(who, tuple(describe(judged) for _, describe in columns), main=judged is pretrained)
        for who, judged in ((name, baseline), (pretrained_name(protocol), pretrained))
    ]
    cell = difference_cell(metrics, protocol)
    if cell is not None:
        rows.append(Row("Difference", (cell, *(Cell("") for _ in columns[1:]))))
    words = protocol_words(protocol, metrics["problem_type"])
    caption = f"Protocol {protocol}: {words}. Test split, 95 % intervals from a bootstrap over patients."
    return Table(caption, ("Encoder", *(title for title, _ in columns)), tuple(rows))


def _columns(score: str):
    """Title, key and how to say it, of each column that a judgement of a classification or regression can have."""

    def plain(key: str):
        return lambda judged: Cell(format_optional(judged.get(key)))

    def scaled(key: str):
        def describe(judged: Mapping) -> Cell:
            after = judged.get(f"{key}_scaled")
            small = () if after is None else (f"{format_score(after)} after scaling",)
            return Cell(format_optional(judged.get(key)), small)

        return describe

    plain_columns = {
        "macro_auprc": "Macro AUPRC",
        "macro_f1_at_0.5": "Macro F1 at 0.5",
        "macro_f1_tuned": "Macro F1 at validation thresholds",
        "macro_f1_argmax": "Macro F1 of the most probable class",
        "accuracy": "Accuracy",
        "challenge_metric": "Challenge metric",
    }
    return (
        (MAIN_SCORES[score], score, lambda judged: with_interval(judged, score)),
        *((title, key, plain(key)) for key, title in plain_columns.items()),
        ("ECE", "ece", scaled("ece")),
        ("Brier score", "brier", scaled("brier")),
    )


def label_table(metrics: Mapping, protocol: str, positives: Mapping[str, int] | None = None) -> Table:
    """The area under the ROC curve and the average precision of each label, of both encoders.

    Args:
        positives (`Mapping[str, int]`, *optional*): Test records with each label.
    """
    name, baseline = baseline_of(metrics, protocol)
    pretrained = metrics["pretrained"][protocol]
    shown = [(name, baseline), (pretrained_name(protocol), pretrained)]
    thresholds = pretrained.get("thresholds", {})
    header = ["Label"] + (["Test records with it"] if positives is not None else [])
    header += [f"AUROC, {who.lower()}" for who, _ in shown] + ["Difference"]
    header += [f"AUPRC, {who.lower()}" for who, _ in shown] + (["Threshold"] if thresholds else [])
    rows = []
    for label in pretrained["per_class"]:
        cells = [Cell(str(positives[label]))] if positives is not None else []
        areas = [judged["per_class"].get(label) for _, judged in shown]
        for area, (_, judged) in zip(areas, shown, strict=True):
            bounds = judged["per_class_ci95"].get(label)
            cells.append(Cell(format_optional(area), () if bounds is None else (format_interval(bounds),)))
        cells.append(Cell(MISSING if None in areas else f"{areas[1] - areas[0]:+.3f}"))
        cells += [Cell(format_optional(judged["per_class_auprc"].get(label))) for _, judged in shown]
        if thresholds:
            cells.append(Cell(format_optional(thresholds.get(label))))
        rows.append(Row(label, tuple(cells)))
    caption = f"Protocol {protocol}: each label"
    caption += "; thresholds of the pretrained encoder, chosen on the validation split" if thresholds else ""
    return Table(caption + ".", tuple(header), tuple(rows))


def target_table(metrics: Mapping, protocol: str) -> Table:
    """Errors of each target of a regression, of both encoders, beside that of always saying the training mean."""
    name, baseline = baseline_of(metrics, protocol)
    pretrained = metrics["pretrained"][protocol]
    rows = []
    for target in pretrained["per_target"]:
        mean = pretrained["per_target"][target]["train_mean_mae"]
        rows.append(Row(f"{target}: training mean", (Cell(format_number(mean)), Cell(MISSING), Cell(MISSING))))
        for who, judged in ((name, baseline), (pretrained_name(protocol), pretrained)):
            found = judged["per_target"][target]
            deviation = "" if found["sd"] is None else f" ± {format_number(found['sd'])}"
            cells = (
                Cell(format_number(found["mae"]), (_number_interval(found["mae_ci95"]),)),
                Cell(f"{format_number(found['bias'], signed=True)}{deviation}"),
                Cell(format_optional(found["pearson"])),
            )
            rows.append(Row(f"{target}: {who.lower()}", cells, main=judged is pretrained))
    caption = (
        f"Protocol {protocol}: errors in the unit of the target. Bias and SD are those of prediction minus truth; "
        "“training mean” always says the mean of the training targets."
    )
    return Table(caption, ("Target", "Mean absolute error", "Bias ± SD", "Correlation"), tuple(rows))


def difference_cell(metrics: Mapping, protocol: str) -> Cell | None:
    """The difference of the score that decides, with its interval and p-value."""
    difference = difference_of(metrics, protocol)
    return None if difference is None else paired_cell(difference, score_of(metrics["pretrained"][protocol]))


def paired_cell(difference: Mapping, key: str) -> Cell:
    """The value under a key, with the `ci95` and, where there is one, `p_value` beside it."""
    small = (format_interval(difference["ci95"], signed=True),)
    small += (format_p_value(difference["p_value"]),) if difference.get("p_value") is not None else ()
    return Cell(f"{difference[key]:+.3f}", small)


def format_optional(value: float | None) -> str:
    """A score with three digits, without a sign before a zero."""
    return MISSING if value is None else format_score(value).replace("-0.000", "0.000")


def format_number(value: float, signed: bool = False) -> str:
    """Three digits that count, for values in units: errors in ms, years, beats per minute."""
    if abs(value) < 1:
        return f"{value:{'+' if signed else ''}.3f}"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:{'+' if signed else ''}.{digits}f}"


def _number_interval(bounds: Sequence[float]) -> str:
    return " to ".join(format_number(bound) for bound in bounds)


def with_interval(judged: Mapping, key: str) -> Cell:
    """A score with its interval, where it has one."""
    bounds = judged.get(f"{key}_ci95")
    return Cell(format_optional(judged.get(key)), () if bounds is None else (format_interval(bounds),))
