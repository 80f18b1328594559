"""A scoreboard written down: numbers with intervals, differences that are paired, and every single prediction."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ..evaluation.settings import drawn_again, means_by_name
from ..metrics import ResampledScore, paired_facts, percentile_interval, resample_counts
from ..predictions import ProtocolResult
from ..report.page import Cell, Row, Table
from ..results import format_interval, format_score
from .runs import write_atomically, write_table
from .scoreboard import TermResult
from .scoreboard_encoders import BoardRow, random_name

KERNELS = ("random-kernels", "random-kernels-126")
LOWER_IS_BETTER = ("error", "z_error")
NOT_AVAILABLE = Cell("not available")


def evaluate_term(
    term: TermResult, rows: Sequence[BoardRow], num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Means over seeds and draws, with 95 % intervals by a bootstrap over test patients and draws, paired.

    Returns:
        `dict` of `key`, `title`, `metric`, `lower_is_better`, counts, `rows` (by name: `value`, `ci95`, `by_name`,
        `seeds`, each with the values of its draws, and `C`), `gains` (of each model over both sizes of random kernels
        and its random encoder: positive where the model is better) and `not_available`.
    """
    facts: dict[str, Any] = {"key": term.key, "title": term.title, "metric": term.metric}
    facts |= {"lower_is_better": term.metric in LOWER_IS_BETTER, "rows": {}, "gains": []}
    facts["not_available"] = dict(term.refused)
    if not term.results:
        return facts
    some = next(iter(term.results.values()))[0]
    test, num_draws = some[0].test, len(some)
    for name, seeds in term.results.items():
        if any(result.test.record_ids != test.record_ids for draws in seeds for result in draws):
            raise ValueError(f"The row {name} was evaluated on other records than the rows before: {term.title}.")
    counts = resample_counts(len(test.record_ids), num_resamples, seed, test.patients())
    draw = drawn_again(num_draws, num_resamples, seed)
    facts |= {
        "num_train_records": len(some[0].train_labels),
        "num_draws": num_draws,
        "num_test_records": len(test.record_ids),
        "num_test_patients": len(set(test.patients())),
    }
    resampled = {}
    for name, seeds in term.results.items():
        evaluated = [[_evaluate(result, term.metric, counts) for result in draws] for draws in seeds]
        by_draw = np.mean([[one.resampled for one in draws] for draws in evaluated], axis=0)  # (draws, resamples)
        resampled[name] = np.take_along_axis(by_draw.T, draw, axis=1).mean(axis=1)
        values = np.array([[one.value for one in draws] for draws in evaluated])
        facts["rows"][name] = {
            "value": float(values.mean()),
            "ci95": list(percentile_interval(resampled[name])),
            "by_name": means_by_name([one.by_name for draws in evaluated for one in draws]),
            "seeds": values.tolist(),
            "C": [[result.details.get("C") for result in draws] for draws in seeds],
        }
    sign = -1 if term.metric in LOWER_IS_BETTER else 1
    for row in rows:
        if row.kind != "model" or row.name not in resampled:
            continue
        for baseline in (*KERNELS, random_name(row.name)):
            if baseline in resampled:
                gain = sign * (facts["rows"][row.name]["value"] - facts["rows"][baseline]["value"])
                paired = paired_facts(sign * (resampled[row.name] - resampled[baseline]))
                facts["gains"].append({"model": row.name, "over": baseline, "gain": gain} | paired)
    return facts


def _evaluate(result: ProtocolResult, metric: str, counts: np.ndarray) -> ResampledScore:
    if metric == "share":
        found = result.test.scores[:, 0]
        return ResampledScore(float(found.mean()), {}, counts @ found / counts.sum(axis=1))
    if metric == "overlap":
        iou = result.test.scores.sum(axis=0) / result.test.labels.sum(axis=0)
        resampled = (counts @ result.test.scores / (counts @ result.test.labels)).mean(axis=1)
        return ResampledScore(float(iou.mean()), dict(zip(result.label_names, iou.tolist(), strict=True)), resampled)
    return result.resampled(counts, np.ones(len(result.label_names)) if metric == "error" else None)


def scoreboard_lines(facts: Mapping[str, Any]) -> list[str]:
    """The scoreboard as Markdown: numbers, then gains of each model."""
    header = [f"{row['name']} ({row['num_features']:,} features)" for row in facts["rows"]]
    lines = []
    for term in facts["terms"]:
        found = [term["rows"].get(row["name"]) for row in facts["rows"]]
        cells = [each and Cell(format_score(each["value"]), (format_interval(each["ci95"]),)) for each in found]
        title = f"{term['title']}{', lower is better' if term['lower_is_better'] else ''}"
        lines.append(Row(title, tuple(cell or NOT_AVAILABLE for cell in cells)))
    parts = [Table("", ("", *header), tuple(lines)).markdown()]
    for model in (row["name"] for row in facts["rows"] if row["kind"] == "model"):
        parts.append(f"**{model}**, gain over the baselines (positive: {model} is better):")
        parts.append(gains_table(facts["terms"], model).markdown())
    return "\n\n".join([*parts, *_notes(facts)]).splitlines()


def gains_table(terms: Sequence[Mapping[str, Any]], model: str) -> Table:
    """Gains of a model over its baselines, and the number of terms in which they are beyond chance."""
    baselines = (*KERNELS, random_name(model))
    gains = [{gain["over"]: gain for gain in term["gains"] if gain["model"] == model} for term in terms]
    rows = []
    for term, of_term in zip(terms, gains, strict=True):
        found = [of_term.get(baseline) for baseline in baselines]
        cells = [
            each and Cell(f"{each['gain']:+.3f}", (format_interval(each["ci95"], signed=True),)) for each in found
        ]
        rows.append(Row(term["title"], tuple(cell or NOT_AVAILABLE for cell in cells)))
    counts = []
    for baseline in baselines:
        bounds = [of_term[baseline]["ci95"] for of_term in gains if baseline in of_term]
        counts.append(Cell(f"{sum(low > 0 for low, _ in bounds)} / {sum(high < 0 for _, high in bounds)}"))
    rows.append(Row("terms ahead / behind with the whole interval", tuple(counts)))
    return Table("", ("", *baselines), tuple(rows))


def _notes(facts: Mapping[str, Any]) -> list[str]:
    """Notes for the reader of the table."""
    labels = facts["terms"][0]
    notes = [
        f"Frozen features; `linear` trained on {labels['num_train_records']:,} records of the folds 1-8, its penalty "
        f"chosen there by cross-validation by patient; tested on {labels['num_test_records']:,} records of "
        f"{labels['num_test_patients']:,} patients of the folds 9 and 10 together. Means over seeds and draws; 95 % "
        "intervals by a bootstrap over test patients and draws, paired for gains; they say nothing about other seeds."
    ]
    for term in facts["terms"]:
        for reason in dict.fromkeys(term["not_available"].values()):
            rows = [name for name, why in term["not_available"].items() if why == reason]
            whose = "" if len(rows) == len(facts["rows"]) else f" for {rows}"
            notes.append(f"Not available: {term['title']}{whose}. {reason}")
    return notes


def predictions_table(terms: Sequence[TermResult]) -> pa.Table:
    """One line for each term, row, seed, draw, test record and label: `truth` and `score`.

    For identity, `score` is 1 where the search found the other record; for errors it is the value in its unit; for
    waves, `truth` and `score` are samples in either mask and in both.
    """
    every = (
        ({"term": term.key, "row": row, "seed": seed, "draw": draw}, result)
        for term in terms
        for row, seeds in term.results.items()
        for seed, draws in enumerate(seeds)
        for draw, result in enumerate(draws)
    )
    frames = []
    for about, result in every:
        test, names = result.test, result.label_names
        ids = {
            "record_id": np.repeat(test.record_ids, len(names)),
            "patient_id": np.repeat(test.patients(), len(names)),
        }
        values = {"truth": test.labels.astype(float).ravel(), "score": test.scores.astype(float).ravel()}
        frames.append(pd.DataFrame(about | ids | {"label": np.tile(names, len(test.record_ids))} | values))
    return pa.Table.from_pandas(pd.concat(frames), preserve_index=False)


def write_scoreboard(folder: Path, facts: Mapping[str, Any], terms: Sequence[TermResult]) -> list[str]:
    """Writes `scoreboard.json`, `scoreboard.md` and `predictions.parquet`; returns the lines of the table."""
    lines = scoreboard_lines(facts)
    write_table(folder / "predictions.parquet", predictions_table(terms))
    write_atomically(folder / "scoreboard.json", json.dumps(facts, indent=2) + "\n")
    write_atomically(folder / "scoreboard.md", "\n".join(lines) + "\n")
    return lines
