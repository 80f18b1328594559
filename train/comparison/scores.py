"""Scores of the rows of a comparison: means over seeds with intervals, and differences that are paired.

Frozen encoders are evaluated on the folds 9 and 10 together, since `linear` chooses nothing there; encoders that were
trained on labels chose their step on fold 9 and are evaluated on fold 10. Rows of the same records are evaluated by
the same bootstrap resamples of patients: intervals of a row, of its mean over seeds and of the difference of two rows
all come from one matrix of resampled macro AUROCs. A difference between the two kinds is taken on fold 10.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ..evaluation.settings import means_by_name
from ..metrics import excluded_labels, paired_facts, percentile_interval, resample_counts, resampled_macro_auroc
from ..predictions import Predictions
from .runs import Run, RunFolder, predictions_of

NUM_RESAMPLES = 1000
ROWS = {
    "kernels": "random kernels, linear",
    "random": "random encoder, linear",
    "pretrained": "pretrained, linear",
    "supervised": "from scratch on the labels",
    "finetuned": "pretrained, fine-tuned",
}
UNTRAINED = {"records_seen": 0, "seconds": 0.0}


@dataclass
class Row:
    """One line of the table: a way to get predictions, with those of every seed.

    Args:
        method (`str`), kind (`str`): Name on the command line; one of `ROWS`.
        labelled_fraction (`float`): Share of the training records with known labels.
        predictions (`dict[int, Predictions]`): Predictions of each seed, for the same test records.
        C (`dict[int, float]`): Penalty of each seed, of frozen encoders.
        facts (`dict`): Size of the encoder, records seen, seconds of each seed.
    """

    method: str
    kind: str
    labelled_fraction: float
    predictions: dict[int, Predictions] = field(default_factory=dict)
    C: dict[int, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        part = "" if self.labelled_fraction == 1 else f", {self.labelled_fraction:.0%} of the labels"
        return f"{self.method}: {ROWS[self.kind]}{part}"

    @property
    def test(self) -> Predictions:
        """Predictions of the first seed, for the records and labels, which are those of all."""
        return next(iter(self.predictions.values()))


def collect_rows(shared: RunFolder, runs: Sequence[Run], low_shot: float | None) -> list[Row]:
    """The rows of the finished runs in the order of the table."""
    rows: dict[tuple, Row] = {}
    fractions = (1.0,) if low_shot is None else (1.0, low_shot)

    def add(method: str, kind: str, fraction: float, seed: int, found: Mapping):
        row = rows.setdefault((method, kind, fraction), Row(method, kind, fraction))
        row.predictions[seed] = predictions_of(found["judged"])
        if "C" in found:
            row.C[seed] = found["C"]
        row.facts.setdefault("seconds", {})[seed] = found["seconds"]
        row.facts |= {name: found[name] for name in ("encoder", "records_seen", "num_labelled_records")}

    for run in runs:
        if (result := shared.result(run)) is None:
            continue
        if run.kind != "pretrain":
            kind = {"supervised": "supervised", "finetune": "finetuned"}[run.kind]
            add(run.method, kind, run.labelled_fraction, run.seed, result)
            continue
        for fraction in fractions:
            for kind, probe in shared.probes(run, fraction).items():
                add(run.method, kind, fraction, run.seed, result | (UNTRAINED if kind == "random" else {}) | probe)
    for seed in sorted({run.seed for run in runs}) if rows else ():
        for fraction in fractions:
            for name, found in shared.kernel_probes(seed, fraction).items():
                add(name, "kernels", fraction, seed, UNTRAINED | found)
    kinds, methods = list(ROWS), list(dict.fromkeys(row.method for row in rows.values()))
    places = {
        key: (-row.labelled_fraction, methods.index(row.method), kinds.index(row.kind)) for key, row in rows.items()
    }
    return [rows[key] for key in sorted(rows, key=places.get)]


def all_test_records(rows: Sequence[Row]) -> Predictions:
    """Predictions of a row whose test records hold those of all others.

    Raises:
        ValueError: where there is none, or the seeds of a row were evaluated on different records.
    """
    widest = max((row.test for row in rows), key=lambda test: len(test.record_ids))
    for row in rows:
        for seed, found in row.predictions.items():
            if found.record_ids != row.test.record_ids or not set(found.record_ids) <= set(widest.record_ids):
                raise ValueError(
                    f"{row.key}, seed {seed}, was evaluated on other records than others: {len(found.record_ids)}, "
                    f"{len(row.test.record_ids)} of another seed, {len(widest.record_ids)} of another row. Compare on "
                    "one set."
                )
    return widest


def compare_rows(rows: Sequence[Row], label_names: Sequence[str]) -> dict:
    """Scores, intervals and paired differences of rows that were evaluated on the same records."""
    every, by_key = all_test_records(rows), {row.key: row for row in rows}
    patient_of = dict(zip(every.record_ids, every.patients(), strict=True))

    @cache
    def counts_of(record_ids: tuple[str, ...]) -> np.ndarray:
        groups = [patient_of[record_id] for record_id in record_ids]
        return resample_counts(len(groups), NUM_RESAMPLES, seed=0, groups=groups)

    @cache
    def scores_of(key: str, record_ids: tuple[str, ...]) -> tuple[dict, np.ndarray]:
        """Scores of a row for some records, and the mean over its seeds in each resample."""
        counts = counts_of(record_ids)
        found = {
            str(seed): resampled_macro_auroc(part.labels, part.scores, label_names, counts)
            for seed, part in _take(by_key[key], record_ids).items()
        }
        values, draws = zip(*((score.value, score.resampled) for score in found.values()), strict=True)
        draws = np.mean(draws, axis=0)
        scores = {"macro_auroc": float(np.mean(values)), "macro_auroc_ci95": list(percentile_interval(draws))}
        scores |= {"range": [min(values), max(values)]}
        scores |= {"per_class": means_by_name([score.by_name for score in found.values()])}
        scores["seeds"] = {
            seed: {"macro_auroc": score.value, "macro_auroc_ci95": list(percentile_interval(score.resampled))}
            for seed, score in found.items()
        }
        return scores, draws

    table, differences = [], []
    for row in rows:
        entry = {"key": row.key, "method": row.method, "row": row.kind, "labelled_fraction": row.labelled_fraction}
        entry |= {"folds": folds_evaluated(row.kind), "num_test_records": len(row.test.record_ids)}
        scores, _ = scores_of(row.key, tuple(row.test.record_ids))
        table.append(entry | scores | row.facts | ({"C": row.C} if row.C else {}))
    for model, baseline, against in pairs_of(rows):
        tested = set(baseline.test.record_ids)
        common = tuple(record_id for record_id in model.test.record_ids if record_id in tested)
        (ours, draws), (theirs, their_draws) = (scores_of(row.key, common) for row in (model, baseline))
        difference = {"macro_auroc": ours["macro_auroc"] - theirs["macro_auroc"]} | paired_facts(draws - their_draws)
        differences.append({"model": model.key, "baseline": baseline.key, "against": against} | difference)
    return {
        "rows": table,
        "differences": differences,
        "excluded": excluded_labels(every.labels, label_names),
        "label_names": list(label_names),
        "num_test_records": len(every.record_ids),
        "num_test_patients": len(set(every.patients())),
    }


def folds_evaluated(kind: str) -> str:
    """The folds that a row is evaluated on."""
    return "10" if kind in ("supervised", "finetuned") else "9 and 10"


def _take(row: Row, record_ids: Sequence[str]) -> dict[int, Predictions]:
    """The predictions of a row for some of its records."""
    places = {record_id: place for place, record_id in enumerate(row.test.record_ids)}
    kept = [places[record_id] for record_id in record_ids]
    return {seed: found.take(kept) for seed, found in row.predictions.items()}


def pairs_of(rows: Sequence[Row]) -> list[tuple[Row, Row, str]]:
    """Rows that are compared: a pretrained row with its random encoder and with random kernels, a fine-tuned one with
    the training from scratch of its encoder, and each method with those before it. Only rows with the same seeds and
    labels."""
    pairs = []
    for number, row in enumerate(rows):
        for other in [*rows[:number], *rows[number + 1 :]]:
            if row.labelled_fraction != other.labelled_fraction or set(row.predictions) != set(other.predictions):
                continue
            kinds = (row.kind, other.kind)
            same_method = row.method in other.method.split(", ")
            if kinds == ("pretrained", "random") and same_method:
                pairs.append((row, other, "random"))
            elif kinds == ("pretrained", "kernels"):
                pairs.append((row, other, "kernels"))
            elif kinds in (("finetuned", "supervised"), ("pretrained", "supervised")) and same_method:
                pairs.append((row, other, "supervised"))
            elif row.kind == other.kind in ("pretrained", "finetuned") and rows.index(other) < number:
                pairs.append((row, other, "method"))
    return pairs
