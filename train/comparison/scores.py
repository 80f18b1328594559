"""Scores of the rows of a comparison: means over seeds with intervals, and differences that are paired.

All rows are judged on the same test records, by the same bootstrap resamples of patients: intervals of a row, of its
mean over seeds and of the difference of two rows all come from one matrix of resampled macro AUROCs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..metrics import excluded_labels, macro_auroc, paired_facts, percentile_interval, resample_counts, resampled_auroc
from ..patients import patients_of
from .runs import Run, RunFolder

NUM_RESAMPLES = 1000
ROWS = {
    "random": "random encoder, linear",
    "pretrained": "pretrained, linear",
    "supervised": "from scratch on the labels",
    "finetuned": "pretrained, fine-tuned",
}


@dataclass
class Row:
    """One line of the table: a way to get predictions, with those of every seed.

    Args:
        method (`str`), kind (`str`): As on the command line; one of `ROWS`.
        labelled_fraction (`float`): Of the training records whose labels were known.
        scores (`dict[int, np.ndarray]`): Probabilities `(num_records, num_labels)` of each seed.
        selected (`dict[int, np.ndarray]`): The same with the penalty chosen on fold 9, for linear probes.
        facts (`dict`): Size of the encoder, records seen, seconds of each seed.
    """

    method: str
    kind: str
    labelled_fraction: float
    scores: dict[int, np.ndarray] = field(default_factory=dict)
    selected: dict[int, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        part = "" if self.labelled_fraction == 1 else f", {self.labelled_fraction:.0%} of the labels"
        return f"{self.method}: {ROWS[self.kind]}{part}"


@dataclass(frozen=True)
class TestSet:
    """The test records that all rows are judged on."""

    __test__ = False  # no test of pytest

    label_names: list[str]
    labels: np.ndarray
    record_ids: list[str]
    patient_ids: list[str | None]


def collect_rows(shared: RunFolder, runs: Sequence[Run], low_shot: float | None):
    """The rows of the finished runs in the order of the table, the test set, and the learning curves."""
    rows: dict[tuple, Row] = {}
    test, curves = None, []

    def add(run: Run, kind: str, fraction: float, judged: Mapping, facts: Mapping, selected: Mapping | None = None):
        nonlocal test
        found = TestSet(judged["label_names"], np.array(judged["labels"]), judged["record_ids"], judged["patient_ids"])
        if test is not None and (test.record_ids, test.label_names) != (found.record_ids, found.label_names):
            raise ValueError(
                f"{run} was judged on other records or labels than the runs before: {len(found.record_ids)} records "
                f"and {found.label_names}, {len(test.record_ids)} and {test.label_names} before. Compare on one set."
            )
        test = found
        row = rows.setdefault((run.method, kind, fraction), Row(run.method, kind, fraction))
        row.scores[run.seed] = np.array(judged["scores"])
        if selected is not None:
            row.selected[run.seed] = np.array(selected["judged"]["scores"])
            row.facts.setdefault("selected_C", {})[run.seed] = selected["C"]
        row.facts.setdefault("seconds", {})[run.seed] = facts["seconds"]
        row.facts |= {name: facts[name] for name in ("encoder", "records_seen", "num_labelled_records")}

    for run in runs:
        result = shared.result(run)
        if result is None:
            continue
        if run.kind == "pretrain":
            for fraction in (1.0,) if low_shot is None else (1.0, low_shot):
                for kind, probe in shared.probes(run, fraction).items():
                    facts = result | {"num_labelled_records": probe["fixed"]["num_labelled_records"]}
                    facts |= {"records_seen": 0, "seconds": 0.0} if kind == "random" else {}
                    add(run, kind, fraction, probe["fixed"]["judged"], facts, probe["selected"])
            curves.append({"method": run.method, "seed": run.seed, "points": result["curve"]})
        else:
            kind = {"supervised": "supervised", "finetune": "finetuned"}[run.kind]
            add(run, kind, run.labelled_fraction, result["judged"], result)
    order = {kind: number for number, kind in enumerate(ROWS)}
    methods = list(dict.fromkeys(row.method for row in rows.values()))
    ordered = sorted(
        rows.values(), key=lambda row: (-row.labelled_fraction, methods.index(row.method), order[row.kind])
    )
    return ordered, test, curves


def compare_rows(rows: Sequence[Row], test: TestSet) -> dict:
    """Scores, intervals and paired differences of rows that were judged on the same records."""
    groups = patients_of(test.record_ids, test.patient_ids)
    counts = resample_counts(len(groups), NUM_RESAMPLES, seed=0, groups=groups)
    excluded = excluded_labels(test.labels, test.label_names)
    kept = [number for number, name in enumerate(test.label_names) if name not in excluded]

    def resampled(scores: np.ndarray) -> np.ndarray:
        """Macro AUROC of each resample; a label that lost its positives is left out of the mean of that resample."""
        return np.nanmean(resampled_auroc(test.labels[:, kept], scores[:, kept], counts), axis=1)

    def of_seeds(scores: Mapping[int, np.ndarray]) -> tuple[dict, np.ndarray]:
        points = {seed: macro_auroc(test.labels, array, test.label_names) for seed, array in scores.items()}
        draws = {seed: resampled(array) for seed, array in scores.items()}
        values = [point.value for point in points.values()]
        mean_draws = np.mean(list(draws.values()), axis=0)
        summary = {
            "macro_auroc": float(np.mean(values)),
            "macro_auroc_ci95": list(percentile_interval(mean_draws)),
            "range": [min(values), max(values)],
            "per_class": {
                name: float(np.mean([point.per_class[name] for point in points.values()]))
                for name in next(iter(points.values())).per_class
            },
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
        summary, draws[row.key] = of_seeds(row.scores)
        entry = {"key": row.key, "method": row.method, "row": row.kind, "labelled_fraction": row.labelled_fraction}
        entry |= summary | row.facts
        if row.selected:
            entry["C_selected"] = of_seeds(row.selected)[0] | {"C": row.facts["selected_C"]}
        table.append(entry)
    value = {entry["key"]: entry["macro_auroc"] for entry in table}
    differences = [
        {"model": model.key, "baseline": baseline.key, "against": against}
        | {"macro_auroc": value[model.key] - value[baseline.key]}
        | paired_facts(draws[model.key] - draws[baseline.key])
        for model, baseline, against in pairs_of(rows)
    ]
    return {
        "rows": table,
        "differences": differences,
        "excluded": excluded,
        "label_names": test.label_names,
        "num_test_records": len(test.record_ids),
        "num_test_patients": len(set(groups)),
    }


def pairs_of(rows: Sequence[Row]) -> list[tuple[Row, Row, str]]:
    """What is compared with what: a pretrained row with its random encoder, a fine-tuned one with the training from
    scratch of its encoder, and each method with those before it. Only rows with the same seeds and labels."""
    pairs = []
    for number, row in enumerate(rows):
        for other in [*rows[:number], *rows[number + 1 :]]:
            if row.labelled_fraction != other.labelled_fraction or set(row.scores) != set(other.scores):
                continue
            kinds = (row.kind, other.kind)
            same_method = row.method in other.method.split(", ")
            if kinds == ("pretrained", "random") and same_method:
                pairs.append((row, other, "random"))
            elif kinds in (("finetuned", "supervised"), ("pretrained", "supervised")) and same_method:
                pairs.append((row, other, "supervised"))
            elif row.kind == other.kind in ("pretrained", "finetuned") and rows.index(other) < number:
                pairs.append((row, other, "method"))
    return pairs
