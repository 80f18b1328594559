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

from ..evaluation.encoder_pair import means_by_name
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


def collect_rows(shared: RunFolder, runs: Sequence[Run], low_shot: float | None) -> tuple[list[Row], list[dict]]:
    """The rows of the finished runs in the order of the table, and the learning curves."""
    rows: dict[tuple, Row] = {}
    curves = []
    fractions = (1.0,) if low_shot is None else (1.0, low_shot)

    def add(run: Run, kind: str, fraction: float, evaluated: Mapping, facts: Mapping, C: float | None = None):
        row = rows.setdefault((run.method, kind, fraction), Row(run.method, kind, fraction))
        row.predictions[run.seed] = predictions_of(evaluated)
        if C is not None:
            row.C[run.seed] = C
        row.facts.setdefault("seconds", {})[run.seed] = facts["seconds"]
        row.facts |= {name: facts[name] for name in ("encoder", "records_seen", "num_labelled_records")}

    for run in runs:
        result = shared.result(run)
        if result is None:
            continue
        if run.kind == "pretrain":
            for fraction in fractions:
                for kind, probe in shared.probes(run, fraction).items():
                    facts = result | {"num_labelled_records": probe["num_labelled_records"]}
                    facts |= {"records_seen": 0, "seconds": 0.0} if kind == "random" else {}
                    add(run, kind, fraction, probe["judged"], facts, probe["C"])
            curves.append({"method": run.method, "seed": run.seed, "points": result["curve"]})
        else:
            kind = {"supervised": "supervised", "finetune": "finetuned"}[run.kind]
            add(run, kind, run.labelled_fraction, result["judged"], result)
    for seed in sorted({run.seed for run in runs}) if curves else ():
        for fraction in fractions:
            for name, found in shared.kernel_probes(seed, fraction).items():
                run = Run("pretrain", name, seed, {}, "")
                facts = {"seconds": 0.0, "records_seen": 0} | found["facts"]
                add(run, "kernels", fraction, found["judged"], facts, found["C"])
    order = {kind: number for number, kind in enumerate(ROWS)}
    methods = list(dict.fromkeys(row.method for row in rows.values()))
    ordered = sorted(
        rows.values(), key=lambda row: (-row.labelled_fraction, methods.index(row.method), order[row.kind])
    )
    return ordered, curves


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
    every = all_test_records(rows)
    patient_of = dict(zip(every.record_ids, every.patients(), strict=True))

    @cache
    def counts_of(record_ids: tuple[str, ...]) -> np.ndarray:
        groups = [patient_of[record_id] for record_id in record_ids]
        return resample_counts(len(groups), NUM_RESAMPLES, seed=0, groups=groups)

    def of_seeds(predictions: Mapping[int, Predictions]) -> tuple[dict, np.ndarray]:
        found = {
            seed: resampled_macro_auroc(part.labels, part.scores, label_names, counts_of(tuple(part.record_ids)))
            for seed, part in predictions.items()
        }
        values = [score.value for score in found.values()]
        mean_draws = np.mean([score.resampled for score in found.values()], axis=0)
        summary = {
            "macro_auroc": float(np.mean(values)),
            "macro_auroc_ci95": list(percentile_interval(mean_draws)),
            "range": [min(values), max(values)],
            "per_class": means_by_name([score.by_name for score in found.values()]),
            "seeds": {
                str(seed): {
                    "macro_auroc": score.value,
                    "macro_auroc_ci95": list(percentile_interval(score.resampled)),
                }
                for seed, score in found.items()
            },
        }
        return summary, mean_draws

    table, draws = [], {}
    for row in rows:
        summary, draws[row.key] = of_seeds(row.predictions)
        entry = {"key": row.key, "method": row.method, "row": row.kind, "labelled_fraction": row.labelled_fraction}
        entry |= {"folds": folds_evaluated(row.kind), "num_test_records": len(row.test.record_ids)}
        table.append(entry | summary | row.facts | ({"C": row.C} if row.C else {}))
    value = {entry["key"]: entry["macro_auroc"] for entry in table}
    differences = []
    for model, baseline, against in pairs_of(rows):
        values, pair = [value[row.key] for row in (model, baseline)], [draws[row.key] for row in (model, baseline)]
        if model.test.record_ids != baseline.test.record_ids:
            tested = set(baseline.test.record_ids)
            common = [record_id for record_id in model.test.record_ids if record_id in tested]
            evaluated = [of_seeds(_take(row, common)) for row in (model, baseline)]
            values, pair = [summary["macro_auroc"] for summary, _ in evaluated], [found for _, found in evaluated]
        differences.append(
            {"model": model.key, "baseline": baseline.key, "against": against, "macro_auroc": values[0] - values[1]}
            | paired_facts(pair[0] - pair[1])
        )
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
