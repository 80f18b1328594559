"""Scores of the rows of a comparison: means over seeds with intervals, and differences that are paired.

Frozen encoders are evaluated on the folds 9 and 10 together, since `linear` chooses nothing there; encoders that were
trained on labels chose their step on fold 9 and are evaluated on fold 10. Rows of the same records are evaluated by
the same bootstrap resamples of patients: intervals of a row, of its mean over seeds and of the difference of two rows
all come from one matrix of resampled macro AUROCs. A difference between the two kinds is taken on fold 10.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ..evaluation.encoder_pair import means_by_name
from ..metrics import (
    excluded_labels,
    macro_auroc,
    mean_over_labels,
    paired_facts,
    percentile_interval,
    resample_counts,
    resampled_auroc,
)
from ..patients import patients_of
from .runs import Run, RunFolder

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
        record_ids (`list[str]`): Test records of the row.
        scores (`dict[int, np.ndarray]`): Probabilities `(num_records, num_labels)` of each seed.
        C (`dict[int, float]`): Penalty of each seed, of frozen encoders.
        facts (`dict`): Size of the encoder, records seen, seconds of each seed.
    """

    method: str
    kind: str
    labelled_fraction: float
    record_ids: list[str]
    scores: dict[int, np.ndarray] = field(default_factory=dict)
    C: dict[int, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        part = "" if self.labelled_fraction == 1 else f", {self.labelled_fraction:.0%} of the labels"
        return f"{self.method}: {ROWS[self.kind]}{part}"


@dataclass(frozen=True)
class TestSet:
    """The test records of all rows."""

    __test__ = False  # no test of pytest

    label_names: list[str]
    labels: np.ndarray
    record_ids: list[str]
    patient_ids: list[str | None]

    def take(self, record_ids: Sequence[str]) -> "TestSet":
        """Some of the records, in this order."""
        places = {record_id: place for place, record_id in enumerate(self.record_ids)}
        kept = [places[record_id] for record_id in record_ids]
        patients = [self.patient_ids[place] for place in kept]
        return TestSet(self.label_names, self.labels[kept], list(record_ids), patients)


def collect_rows(shared: RunFolder, runs: Sequence[Run], low_shot: float | None):
    """The rows of the finished runs in the order of the table, the test set, and the learning curves."""
    rows: dict[tuple, Row] = {}
    test: TestSet | None = None
    curves = []

    def add(run: Run, kind: str, fraction: float, evaluated: Mapping, facts: Mapping, C: float | None = None):
        nonlocal test
        found = TestSet(
            evaluated["label_names"], np.array(evaluated["labels"]), evaluated["record_ids"], evaluated["patient_ids"]
        )
        test = found if test is None or len(found.record_ids) > len(test.record_ids) else test
        key = (run.method, kind, fraction)
        row = rows.setdefault(key, Row(run.method, kind, fraction, found.record_ids))
        alike = (row.record_ids, test.label_names) == (found.record_ids, found.label_names)
        if not alike or not set(found.record_ids) <= set(test.record_ids):
            raise ValueError(
                f"{run} was evaluated on other records or labels than others: {len(found.record_ids)} records "
                f"and {found.label_names}, {len(test.record_ids)} and {test.label_names} before. Compare on one set."
            )
        row.scores[run.seed] = np.array(evaluated["scores"])
        if C is not None:
            row.C[run.seed] = C
        row.facts.setdefault("seconds", {})[run.seed] = facts["seconds"]
        row.facts |= {name: facts[name] for name in ("encoder", "records_seen", "num_labelled_records")}

    for run in runs:
        result = shared.result(run)
        if result is None:
            continue
        if run.kind == "pretrain":
            for fraction in (1.0,) if low_shot is None else (1.0, low_shot):
                for kind, probe in shared.probes(run, fraction).items():
                    facts = result | {"num_labelled_records": probe["num_labelled_records"]}
                    facts |= {"records_seen": 0, "seconds": 0.0} if kind == "random" else {}
                    add(run, kind, fraction, probe["judged"], facts, probe["C"])
            curves.append({"method": run.method, "seed": run.seed, "points": result["curve"]})
        else:
            kind = {"supervised": "supervised", "finetune": "finetuned"}[run.kind]
            add(run, kind, run.labelled_fraction, result["judged"], result)
    for seed in sorted({run.seed for run in runs}) if curves else ():
        for fraction in (1.0,) if low_shot is None else (1.0, low_shot):
            for name, found in shared.kernel_probes(seed, fraction).items():
                run = Run("pretrain", name, seed, {}, "")
                facts = {"seconds": 0.0, "records_seen": 0} | found["facts"]
                add(run, "kernels", fraction, found["judged"], facts, found["C"])
    if test is not None and not set().union(*(row.record_ids for row in rows.values())) <= set(test.record_ids):
        raise ValueError("The runs were evaluated on sets of records of which none holds the others. Compare on one.")
    order = {kind: number for number, kind in enumerate(ROWS)}
    methods = list(dict.fromkeys(row.method for row in rows.values()))
    ordered = sorted(
        rows.values(), key=lambda row: (-row.labelled_fraction, methods.index(row.method), order[row.kind])
    )
    return ordered, test, curves


def compare_rows(rows: Sequence[Row], test: TestSet) -> dict:
    """Scores, intervals and paired differences of rows that were evaluated on the same records."""

    @cache
    def resampled_by(record_ids: tuple[str, ...]) -> Callable[[np.ndarray], np.ndarray]:
        return _resampled_by(test.take(record_ids))

    def of_seeds(record_ids: Sequence[str], scores: Mapping[int, np.ndarray]) -> tuple[dict, np.ndarray]:
        part = test.take(record_ids)
        resampled = resampled_by(tuple(record_ids))
        points = {seed: macro_auroc(part.labels, array, test.label_names) for seed, array in scores.items()}
        draws = {seed: resampled(array) for seed, array in scores.items()}
        values = [point.value for point in points.values()]
        mean_draws = np.mean(list(draws.values()), axis=0)
        summary = {
            "macro_auroc": float(np.mean(values)),
            "macro_auroc_ci95": list(percentile_interval(mean_draws)),
            "range": [min(values), max(values)],
            "per_class": means_by_name([point.per_class for point in points.values()]),
            "seeds": {
                str(seed): {
                    "macro_auroc": points[seed].value,
                    "macro_auroc_ci95": list(percentile_interval(draws[seed])),
                }
                for seed in scores
            },
        }
        return summary, mean_draws

    table, draws = [], {}
    for row in rows:
        summary, draws[row.key] = of_seeds(row.record_ids, row.scores)
        entry = {"key": row.key, "method": row.method, "row": row.kind, "labelled_fraction": row.labelled_fraction}
        entry |= {"folds": folds_evaluated(row.kind), "num_test_records": len(row.record_ids)} | summary | row.facts
        table.append(entry | ({"C": row.C} if row.C else {}))
    value = {entry["key"]: entry["macro_auroc"] for entry in table}
    differences = []
    for model, baseline, against in pairs_of(rows):
        values, pair = [value[row.key] for row in (model, baseline)], [draws[row.key] for row in (model, baseline)]
        if model.record_ids != baseline.record_ids:
            common = [record_id for record_id in model.record_ids if record_id in set(baseline.record_ids)]
            evaluated = [of_seeds(common, _scores_of(row, common)) for row in (model, baseline)]
            values, pair = [summary["macro_auroc"] for summary, _ in evaluated], [found for _, found in evaluated]
        differences.append(
            {"model": model.key, "baseline": baseline.key, "against": against, "macro_auroc": values[0] - values[1]}
            | paired_facts(pair[0] - pair[1])
        )
    return {
        "rows": table,
        "differences": differences,
        "excluded": excluded_labels(test.labels, test.label_names),
        "label_names": test.label_names,
        "num_test_records": len(test.record_ids),
        "num_test_patients": len(set(patients_of(test.record_ids, test.patient_ids))),
    }


def folds_evaluated(kind: str) -> str:
    """The folds that a row is evaluated on."""
    return "10" if kind in ("supervised", "finetuned") else "9 and 10"


def _scores_of(row: Row, record_ids: Sequence[str]) -> dict[int, np.ndarray]:
    """The scores of a row for some of its records."""
    places = {record_id: place for place, record_id in enumerate(row.record_ids)}
    kept = [places[record_id] for record_id in record_ids]
    return {seed: scores[kept] for seed, scores in row.scores.items()}


def _resampled_by(test: TestSet) -> Callable[[np.ndarray], np.ndarray]:
    """From scores to the macro AUROC of each resample; a label that lost its positives is left out of the mean of
    that resample."""
    groups = patients_of(test.record_ids, test.patient_ids)
    counts = resample_counts(len(groups), NUM_RESAMPLES, seed=0, groups=groups)
    excluded = excluded_labels(test.labels, test.label_names)
    kept = [number for number, name in enumerate(test.label_names) if name not in excluded]
    return lambda scores: mean_over_labels(resampled_auroc(test.labels[:, kept], scores[:, kept], counts))


def pairs_of(rows: Sequence[Row]) -> list[tuple[Row, Row, str]]:
    """Rows that are compared: a pretrained row with its random encoder and with random kernels, a fine-tuned one with
    the training from scratch of its encoder, and each method with those before it. Only rows with the same seeds and
    labels."""
    pairs = []
    for number, row in enumerate(rows):
        for other in [*rows[:number], *rows[number + 1 :]]:
            if row.labelled_fraction != other.labelled_fraction or set(row.scores) != set(other.scores):
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
