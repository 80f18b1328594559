"""Tables that several parts of a page share: every one has all baselines, and each paired difference."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..results import (
    BASELINES,
    PRETRAINED,
    Difference,
    Outcome,
    Result,
    decapitalized,
    format_fact,
    format_interval,
    format_p_value,
    format_score,
    kind_of,
)
from .page import EMPTY, Cell, Row, Section, Table

COLUMN_NAMES = {"which": "Which records"}
MISSING = "–"


class Column(NamedTuple):
    """A column of scores: key of the JSON, and title. `lower_is_better` ones are never bold."""

    key: str
    title: str
    lower_is_better: bool = False
    scaled: bool = False


def score_table(outcome: Outcome, columns: Sequence[Column], caption: str) -> Table:
    """A row for each baseline and the encoder, and one for each difference. Bold is what beats every baseline."""
    sides = outcome.sides()
    columns = [column for column in columns if any(column.key in scores for _, _, scores in sides)]
    rows = []
    for key, name, scores in sides:
        cells = []
        for column in columns:
            shown, after = with_interval(scores, column.key), scores.get(f"{column.key}_scaled")
            scaled = (f"{format_score(after)} after scaling",) if column.scaled and after is not None else ()
            values = [side.scores.get(column.key) for side in sides]  # that of the encoder is the last
            may_be_best = key == PRETRAINED and len(sides) > 1 and None not in values and not column.lower_is_better
            cells.append(Cell(shown.text, shown.small + scaled, may_be_best and values[-1] > max(values[:-1])))
        rows.append(Row(name, tuple(cells)))
    rows += difference_rows(outcome, (outcome.kind.score,), len(columns) - 1)
    return Table(caption, ("Encoder", *(column.title for column in columns)), tuple(rows))


def difference_rows(outcome: Outcome, keys: Sequence[str], num_empty: int, part: str | None = None) -> list[Row]:
    """Pretrained minus each baseline, by some scores; with `part`, of an algorithm that has scores of its own."""
    rows = []
    compared = sum(baseline.key in outcome.baselines for baseline in BASELINES)
    for baseline in BASELINES:
        gained = outcome.differences.get(baseline.key, {})
        if gained := gained if part is None else gained.get(part):
            found = [Difference.read(gained, key) for key in keys]
            cells = [EMPTY if each is None else difference_cell(each) for each in found]
            name = "Difference" if compared == 1 else f"Difference to {decapitalized(outcome.name_of(baseline))}"
            name = name if part is None else f"{part}: {decapitalized(name)}"
            rows.append(Row(name, (*cells, *[EMPTY] * num_empty)))
    return rows


def difference_cell(found: Difference) -> Cell:
    p_value = () if found.p_value is None else (format_p_value(found.p_value),)
    return Cell(f"{found.value:+.3f}", (format_interval(found.ci95, signed=True), *p_value))


def with_interval(scores: Mapping, key: str, format_value: Callable[[float], str] = format_score) -> Cell:
    """A score with its interval, where it has one."""
    value, bounds = scores.get(key), scores.get(f"{key}_ci95")
    small = () if bounds is None else (" to ".join(format_value(bound) for bound in bounds),)
    return Cell(MISSING if value is None else format_value(value), small)


def with_spread(value: float | None, spread: float | None, format_value: Callable[..., str]) -> Cell:
    """A signed value with its deviation, where it has one."""
    after = "" if spread is None else f" ± {format_value(spread)}"
    return Cell(MISSING if value is None else f"{format_value(value, signed=True)}{after}")


def counts_of(outcome: Outcome) -> str:
    """Records of training and test, in a sentence."""
    scores = outcome.scores
    trained = f"Trained on {scores['num_train_records']} records, tested on" if "num_train_records" in scores else ""
    records = scores.get("num_test_records", scores.get("num_records"))
    patients = scores.get("num_test_patients", scores.get("num_patients"))
    if num_folds := scores.get("details", {}).get("num_folds"):
        folds = f"Cross-validated in {num_folds} folds by patient"
        return f"{folds}, each predicted by a model of the others. {records} records of {patients} patients."
    return f"{trained or 'Tested on'} {records} records of {patients} patients."


def choices_of(outcome: Outcome) -> str:
    """Choices on the validation split, counted or fixed, in a sentence; empty for none."""
    sides, chosen = outcome.sides(), {}
    for _, name, scores in sides:
        details = scores.get("details", {"C": scores["C"]} if "C" in scores else {})
        for key, value in details.items():
            if key != "num_folds" and isinstance(value, (str, int, float)):
                text = f"{value:g}" if isinstance(value, float) else format_fact(value)
                chosen.setdefault(key.replace("_", " "), {})[decapitalized(name)] = text
    parts = []
    for key, texts in chosen.items():
        is_one = len(texts) == len(sides) and len(set(texts.values())) == 1
        each = [next(iter(texts.values()))] if is_one else [f"{text} ({name})" for name, text in texts.items()]
        parts.append(f"{key} {', '.join(each)}")
    return f"Chosen on the validation split, counted or fixed: {'; '.join(parts)}." if parts else ""


def format_number(value: float, signed: bool = False) -> str:
    """Three digits that count, for values in units: errors in ms, years, beats per minute."""
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:{'+' if signed else ''}.{digits}f}"


def scored_entries(entries: Sequence[Mapping]) -> list[Mapping]:
    """Entries of a setting that hold numbers, not a refusal."""
    return [entry for entry in entries if "refused" not in entry]


def setting_table(entries: Sequence[Mapping], caption: str, kinds: Mapping[str, str]) -> Table:
    """Baselines, pretrained encoder and differences of each entry of a setting; refused ones with their reason.
    `kinds` are names of the groups of entries, put before their value."""
    scores = scored_entries(entries)
    kind = kind_of(scores[0][PRETRAINED]) if scores else None
    shown = [b for b in BASELINES if any(b.key in entry for entry in scores)] or list(BASELINES[:1])
    rows = []
    for entry in entries:
        name = name_of_entry(entry, kinds)
        if "refused" in entry:
            rows.append(Row(name, (Cell("not run"), *[Cell(MISSING)] * (2 * len(shown)), Cell(entry["refused"]))))
            continue
        *cells, best = [_with_draws(entry.get(key, {}), kind.score) for key in (*(b.key for b in shown), PRETRAINED)]
        others = [entry[b.key][kind.score] for b in shown if b.key in entry]
        is_best = entry[PRETRAINED][kind.score] > max(others, default=-np.inf) and not kind.lower_is_better
        gained = [Difference.read(entry.get(b.difference), kind.score) for b in shown]
        gains = [Cell(MISSING) if found is None else difference_cell(found) for found in gained]
        rows.append(Row(name, (*cells, Cell(best.text, best.small, is_best), *gains, Cell(_about(entry)))))
    header = ["Setting", *(b.title for b in shown), "Pretrained encoder"]
    header += ["Difference"] if len(shown) == 1 else [f"Difference to {decapitalized(b.title)}" for b in shown]
    if any(row.cells[-1].text for row in rows):
        header.append("Note")
    else:
        rows = [Row(row.name, row.cells[:-1]) for row in rows]
    score = f" {kind.title}, 95 % intervals." if kind else ""
    return Table(f"{caption}{score}", tuple(header), tuple(rows), words=(2 * len(shown) + 2,))


def name_of_entry(entry: Mapping, kinds: Mapping[str, str]) -> str:
    """An entry of a setting in words: a set of leads by its name too, others by a group that they do not say."""
    words = str(entry.get("label") or entry["value"])
    if entry["setting"] == "leads":
        return words if words == str(entry["value"]) else f"{entry['value']}: {words}"
    group = kinds.get(entry.get("group"), entry.get("group"))
    return words if group is None or group.lower() in words.lower() else f"{group}: {words}"


def _with_draws(scores: Mapping, score: str) -> Cell:
    """A score with its interval; of several draws, with their standard deviation."""
    cell, spread = with_interval(scores, score), scores.get(f"{score}_sd")
    return cell if spread is None else Cell(cell.text, (*cell.small, f"SD of draws {spread:.3f}"))


def _about(entry: Mapping) -> str:
    """An entry beside its numbers, in words."""
    parts = []
    if entry.get("num_draws", 1) > 1:
        parts.append(f"{entry['num_draws']} draws of {entry['num_train_records']} records")
    elif entry["setting"] == "low_shot":
        parts.append(f"{entry['num_train_records']} records")
    if entry.get("refused_draws"):
        parts.append(f"{len(entry['refused_draws'])} draws could not be probed")
    parts += [f"{key}: {', '.join(entry[key])}" for key in ("derived", "absent") if entry.get(key)]
    if entry.get("excluded"):
        parts.append(f"left out: {', '.join(entry['excluded'])}")
    return "; ".join(parts)


def splits_table(splits: Mapping) -> Table:
    """Records of each split."""
    stated = {split: facts if isinstance(facts, Mapping) else {"which": facts} for split, facts in splits.items()}
    columns = list(dict.fromkeys(key for facts in stated.values() for key in facts))
    rows = tuple(
        Row(split, tuple(Cell(MISSING if facts.get(key) is None else format_fact(facts[key])) for key in columns))
        for split, facts in stated.items()
    )
    header = ("Split", *(COLUMN_NAMES.get(key, key.replace("_", " ").capitalize()) for key in columns))
    words = tuple(n for n, key in enumerate(columns, 1) if any(isinstance(stated[s].get(key), str) for s in stated))
    return Table("Train: fitted. Validation: choices. Test: scores.", header, rows, words)


def split_section(result: Result) -> Section:
    """The score that decides, of the validation and the test split."""
    outcome = result.outcomes[0]
    rows = []
    for split, scores in (("validation", result.validation), ("test", outcome.scores)):
        if scores is not None:
            cells = (Cell(str(scores["num_records"])), Cell(str(scores["num_patients"])))
            rows.append(Row(split, (*cells, with_interval(scores, outcome.kind.score))))
    note = "The validation split chose the step, so that its score is too good; the test split was looked at once."
    header = ("Split", "Records", "Patients", outcome.kind.title)
    table = Table("Both splits, 95 % intervals from a bootstrap over patients.", header, tuple(rows))
    return Section("Test and validation", tables=(table,), notes=(note,))


def published_section(result: Result, published: Sequence[Mapping], notes: Sequence[str]) -> Section:
    """Numbers of others of the same task, split and protocol below ours, with sentences on reading them, or on why
    there are none. The protocol `"from_scratch"` is that of the training from scratch beside `finetuned`."""
    if not published:
        none = "No published numbers stand beside these: none is of the same task, split and protocol."
        return Section("Published numbers", tuple(notes) or (none,), folded=True)
    rows = []
    for protocol in dict.fromkeys(entry["protocol"] for entry in published):
        ours = "finetuned" if protocol == "from_scratch" else protocol
        sides = [side for outcome in result.outcomes if outcome.protocol == ours for side in outcome.sides()]
        for _, name, scores in [s for s in sides if s.key == "random_encoder"] if ours != protocol else sides:
            cells = (Cell(protocol), with_interval(scores, "macro_auroc"), Cell("this evaluation"))
            rows.append(Row(f"{name} (this page)", cells))
        for entry in (entry for entry in published if entry["protocol"] == protocol):
            small = () if entry.get("interval") is None else (format_interval(entry["interval"]),)
            small += () if entry.get("deviation") is None else (f"SD over runs {entry['deviation']:.3f}",)
            source = Cell(entry["source"], (entry["note"],) if entry.get("note") else ())
            rows.append(Row(entry["model"], (Cell(protocol), Cell(format_score(entry["value"]), small), source)))
    header = ("Model", "Protocol", "Macro AUROC", "Source")
    table = Table("Numbers of others below those of this page.", header, tuple(rows), words=(1, 3))
    return Section("Published numbers", tuple(notes), (table,), folded=True)
