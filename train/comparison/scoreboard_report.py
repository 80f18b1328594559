"""A scoreboard written down: numbers with intervals, differences that are paired, and every single prediction."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..evaluation.encoder_pair import drawn_again, means_by_name
from ..metrics import ResampledScore, paired_facts, percentile_interval, resample_counts
from ..predictions import ProtocolResult
from ..results import format_interval, format_score
from .runs import write_atomically, write_table
from .scoreboard import TermResult
from .scoreboard_encoders import BoardRow, random_name

KERNELS = ("random-kernels", "random-kernels-126")
METRICS = {
    "auroc": "macro AUROC",
    "error": "mean absolute error",
    "z_error": "mean absolute error, in standard deviations",
    "share": "share of the searches",
    "overlap": "mean intersection over union",
}
LOWER_IS_BETTER = ("error", "z_error")


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
    ids, num_draws = some[0].test.record_ids, len(some)
    for name, seeds in term.results.items():
        if any(result.test.record_ids != ids for draws in seeds for result in draws):
            raise ValueError(f"The row {name} was evaluated on other records than the rows before: {term.title}.")
    counts = resample_counts(len(ids), num_resamples, seed, some[0].test.patients())
    draw = drawn_again(num_draws, num_resamples, seed)
    facts |= {
        "num_train_records": len(some[0].train_labels),
        "num_draws": num_draws,
        "num_test_records": len(ids),
        "num_test_patients": len(set(some[0].test.patients())),
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
    names = [row["name"] for row in facts["rows"]]
    widths = [f"{row['name']} ({row['num_features']:,} features)" for row in facts["rows"]]
    lines = ["| | " + " | ".join(widths) + " |", "|---|" + "---|" * len(names)]
    for term in facts["terms"]:
        cells = []
        for name in names:
            found = term["rows"].get(name)
            score = found and f"{format_score(found['value'])} ({format_interval(found['ci95'])})"
            cells.append(score or "not available")
        better = ", lower is better" if term["lower_is_better"] else ""
        lines.append(f"| {term['title']}{better} | " + " | ".join(cells) + " |")
    for row in facts["rows"]:
        if row["kind"] == "model":
            lines += ["", *_gain_lines(facts, row["name"])]
    return lines + ["", *_notes(facts)]


def _gain_lines(facts: Mapping[str, Any], model: str) -> list[str]:
    """Gains of a model over its baselines, and the number of terms in which they are beyond chance."""
    baselines = [*KERNELS, random_name(model)]
    ahead, behind, cells = dict.fromkeys(baselines, 0), dict.fromkeys(baselines, 0), []
    for term in facts["terms"]:
        gains = {gain["over"]: gain for gain in term["gains"] if gain["model"] == model}
        of_term = []
        for baseline in baselines:
            gain = gains.get(baseline)
            if gain is None:
                of_term.append("not available")
                continue
            ahead[baseline] += gain["ci95"][0] > 0
            behind[baseline] += gain["ci95"][1] < 0
            of_term.append(f"{gain['gain']:+.3f} ({format_interval(gain['ci95'], signed=True)})")
        cells.append(f"| {term['title']} | " + " | ".join(of_term) + " |")
    counted = " | ".join(f"{ahead[baseline]} / {behind[baseline]}" for baseline in baselines)
    return [
        f"**{model}**, gain over the baselines (positive: {model} is better):",
        "",
        "| | " + " | ".join(baselines) + " |",
        "|---|" + "---|" * len(baselines),
        *cells,
        f"| terms ahead / behind with the whole interval | {counted} |",
    ]


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
            everybody = len(rows) == len(facts["rows"])
            notes.append(f"Not available: {term['title']}{'' if everybody else f' for {rows}'}. {reason}")
    return notes


def predictions_table(terms: Sequence[TermResult]) -> pa.Table:
    """One line for each term, row, seed, draw, test record and label: `truth` and `score`.

    For identity, `score` is 1 where the search found the other record; for errors it is the value in its unit; for
    waves, `truth` and `score` are samples in either mask and in both.
    """
    columns: dict[str, list] = {name: [] for name in ("term", "row", "seed", "draw", "record_id", "patient_id")}
    columns |= {"label": [], "truth": [], "score": []}
    for term in terms:
        for row, seeds in term.results.items():
            for seed, draws in enumerate(seeds):
                for draw, result in enumerate(draws):
                    test, names = result.test, result.label_names
                    size = len(test.record_ids) * len(names)
                    for name, value in (("term", term.key), ("row", row), ("seed", seed), ("draw", draw)):
                        columns[name].append(np.full(size, value))
                    columns["record_id"].append(np.repeat(test.record_ids, len(names)))
                    columns["patient_id"].append(np.repeat(test.patients(), len(names)))
                    columns["label"].append(np.tile(names, len(test.record_ids)))
                    columns["truth"].append(test.labels.astype(float).ravel())
                    columns["score"].append(test.scores.astype(float).ravel())
    return pa.table({name: np.concatenate(parts) for name, parts in columns.items()})


def write_scoreboard(folder: Path, facts: Mapping[str, Any], terms: Sequence[TermResult]) -> list[str]:
    """Writes `scoreboard.json`, `scoreboard.md` and `predictions.parquet`; returns the lines of the table."""
    lines = scoreboard_lines(facts)
    write_table(folder / "predictions.parquet", predictions_table(terms))
    write_atomically(folder / "scoreboard.json", json.dumps(facts, indent=2) + "\n")
    write_atomically(folder / "scoreboard.md", "\n".join(lines) + "\n")
    return lines
