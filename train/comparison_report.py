"""What a comparison found: scores with intervals, paired differences, a table, a page, and every single prediction.

All rows are judged on the same test records, by the same bootstrap resamples of patients: intervals of a row, of its
mean over seeds and of the difference of two rows all come from one matrix of resampled macro AUROCs.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

from .comparison_data import ComparisonData
from .comparison_plots import plot_comparison
from .comparison_runs import PROBE_C, Run, RunFolder, write_atomically
from .metrics import excluded_labels, macro_auroc, resample_counts, resampled_auroc
from .plots import figure_to_bytes, figure_to_data_uri
from .report import format_interval, format_score, installed_versions

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


def write_comparison(shared: RunFolder, runs: Sequence[Run], low_shot: float | None, command: str):
    """Writes `comparison.json`, `.md`, `.html`, `.png` and `predictions.parquet` of the runs that are finished.

    Returns the table as lines, and the path of the page.
    """
    rows, test, curves = collect_rows(shared, runs, low_shot)
    if test is None:
        return ["No run is finished."], shared.folder
    comparison = compare_rows(rows, test)
    comparison |= {
        "curves": curves,
        "data": data_facts(shared.data),
        "protocol": {
            "linear": f"frozen pooled features, standardised, one logistic regression a label, C = {PROBE_C}",
            "linear_selected": "the same with C chosen on fold 9",
            "supervised": "all weights, best of the steps on fold 9",
            "intervals": f"95 % percentile bootstrap over patients, {NUM_RESAMPLES} resamples, the same for all rows",
        },
        "seeds": sorted({run.seed for run in runs}),
        "finished_runs": sum(shared.result(run) is not None for run in runs),
        "planned_runs": len(runs),
        "command": command,
        "versions": installed_versions(),
    }
    table = markdown_table(comparison)
    figure = plot_comparison(comparison)
    folder = shared.folder
    sink = io.BytesIO()
    pq.write_table(predictions_table(rows, test), sink, compression="zstd")
    write_atomically(folder / "predictions.parquet", sink.getvalue())
    write_atomically(folder / "comparison.json", json.dumps(comparison, indent=2) + "\n")
    write_atomically(folder / "comparison.md", "\n".join([*table, "", *notes(comparison)]) + "\n")
    write_atomically(folder / "comparison.png", figure_to_bytes(figure, "png"))
    write_atomically(folder / "comparison.html", render_page(comparison, figure))
    return table, folder / "comparison.html"


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
    groups = [patient or f"record {record}" for record, patient in zip(test.record_ids, test.patient_ids, strict=True)]
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
            "macro_auroc_ci95": interval(mean_draws),
            "range": [min(values), max(values)],
            "per_class": {
                name: float(np.mean([point.per_class[name] for point in points.values()]))
                for name in next(iter(points.values())).per_class
            },
            "seeds": {
                str(seed): {"macro_auroc": points[seed].value, "macro_auroc_ci95": interval(draws[seed])}
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
        | paired(draws[model.key] - draws[baseline.key])
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


def interval(values: np.ndarray) -> list[float]:
    """The 2.5 and 97.5 percentiles; a resample that lost every label is left out."""
    return [float(bound) for bound in np.nanpercentile(values, (2.5, 97.5))]


def paired(differences: np.ndarray) -> dict:
    """Interval and two-sided p-value of resampled differences, as in [`~.metrics.paired_bootstrap`]."""
    differences = differences[~np.isnan(differences)]
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return {"ci95": interval(differences), "p_value": float(min(1.0, 2 * (tail + 1) / (len(differences) + 1)))}


def predictions_table(rows: Sequence[Row], test: TestSet) -> pa.Table:
    """One line for each row, seed and test record: `method, row, labelled_fraction, C, seed, record_id, patient_id`,
    then `label_<class>` (0 or 1) and `score_<class>` (probability) of each class. `C` is `"fixed"` or `"fold 9"` for
    linear probes."""
    columns: dict[str, list] = {
        name: [] for name in ("method", "row", "labelled_fraction", "C", "seed", "record_id", "patient_id")
    }
    labels, scores = [], []
    for row in rows:
        variants = [("fixed" if row.selected else None, row.scores), ("fold 9", row.selected)]
        for variant, by_seed in variants:
            for seed, array in by_seed.items():
                facts = {
                    "method": row.method,
                    "row": row.kind,
                    "labelled_fraction": row.labelled_fraction,
                    "C": variant,
                    "seed": seed,
                }
                for name, value in facts.items():
                    columns[name] += [value] * len(array)
                columns["record_id"] += test.record_ids
                columns["patient_id"] += test.patient_ids
                labels.append(test.labels)
                scores.append(array)
    for number, name in enumerate(test.label_names):
        columns[f"label_{name}"] = np.concatenate(labels)[:, number].astype(np.int8)
        columns[f"score_{name}"] = np.concatenate(scores)[:, number]
    return pa.table(columns)


def data_facts(data: ComparisonData) -> dict:
    return {
        "name": data.name,
        "num_pretraining_records": len(data.pretraining),
        "num_labelled_train_records": len(data.train),
        "num_validation_records": len(data.validation),
        "num_test_records": len(data.test),
        "extra_records_left_out": data.left_out,
        "fingerprint": data.fingerprint,
    }


HEADER = (
    "Method",
    "What",
    "Encoder",
    "Tokens",
    "Parameters",
    "Labelled records",
    "Records seen",
    "Macro AUROC",
    "95 % interval",
    "Range over seeds",
    "C on fold 9",
    "Against random",
)


def table_cells(comparison: Mapping) -> list[list[str]]:
    """The cells of the table, row by row, as text."""
    against_random = {
        difference["model"]: difference
        for difference in comparison["differences"]
        if difference["against"] == "random"
    }
    cells = []
    for entry in comparison["rows"]:
        encoder, difference = entry["encoder"], against_random.get(entry["key"])
        gain = (
            ""
            if difference is None
            else f"{difference['macro_auroc']:+.3f} ({format_interval(difference['ci95'], True)})"
        )
        selected = entry.get("C_selected")
        several = len(entry["seeds"]) > 1
        cells.append(
            [
                entry["method"],
                ROWS[entry["row"]],
                f"{encoder['hidden_size']}x{encoder['num_hidden_layers']}, {encoder['num_leads']} leads",
                f"{encoder['tokens']} of {encoder['patch_ms']:g} ms",
                f"{encoder['parameters']:,}",
                f"{entry['num_labelled_records']:,}",
                f"{entry['records_seen']:,}",
                format_score(entry["macro_auroc"]),
                format_interval(entry["macro_auroc_ci95"]),
                f"{format_interval(entry['range'])} ({len(entry['seeds'])})" if several else "one seed",
                "" if selected is None else format_score(selected["macro_auroc"]),
                gain,
            ]
        )
    return cells


def markdown_table(comparison: Mapping) -> list[str]:
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    return lines + [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table_cells(comparison)
    ]


def notes(comparison: Mapping) -> list[str]:
    """What has to be known to read the table."""
    data = comparison["data"]
    lines = [
        f"Pretraining on {data['num_pretraining_records']:,} records without labels (folds 1-8); probes and training "
        f"on labels: {data['num_labelled_train_records']:,} records; selection on {data['num_validation_records']:,} "
        f"(fold 9); judged on {comparison['num_test_records']:,} records of {comparison['num_test_patients']:,} "
        f"patients (fold 10). Classes: {', '.join(comparison['label_names'])}.",
        "Score: mean over seeds. Interval: 95 % bootstrap over the patients of the test fold, of that mean; it says "
        "nothing about other seeds, the range does. "
        f"Linear: {comparison['protocol']['linear']}.",
    ]
    if comparison["excluded"]:
        lines.append(f"Labels left out: {comparison['excluded']}.")
    if data["extra_records_left_out"]:
        left_out = [f"{count} {reason}" for reason, count in data["extra_records_left_out"].items()]
        lines.append(f"Extra records not used: {'; '.join(left_out)}.")
    if comparison["finished_runs"] < comparison["planned_runs"]:
        lines.append(
            f"UNFINISHED: {comparison['finished_runs']} of {comparison['planned_runs']} runs are in this table."
        )
    return lines


def render_page(comparison: Mapping, figure) -> str:
    """The page, as HTML: self-contained."""
    environment = Environment(
        loader=PackageLoader("ecg_transformers.train", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": format_interval}
    return environment.get_template("comparison_template.html.j2").render(
        comparison=comparison,
        header=HEADER,
        cells=table_cells(comparison),
        notes=notes(comparison),
        figure=figure_to_data_uri(figure, "svg"),
    )
