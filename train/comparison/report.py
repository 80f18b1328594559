"""What a comparison found, written down: scores, a table, a page, and every single prediction."""

import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..publishing.templates import template_environment
from ..report.plots import figure_to_bytes, figure_to_data_uri
from ..results import format_interval, format_score, installed_versions
from .data import ComparisonData
from .plots import plot_comparison
from .runs import PROBE_C, Run, RunFolder, write_atomically
from .scores import NUM_RESAMPLES, ROWS, Row, TestSet, collect_rows, compare_rows


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
    environment = template_environment("ecg_transformers.train.comparison", autoescape=True)
    environment.filters |= {"interval": format_interval}
    return environment.get_template("comparison_template.html.j2").render(
        comparison=comparison,
        header=HEADER,
        cells=table_cells(comparison),
        notes=notes(comparison),
        figure=figure_to_data_uri(figure, "svg"),
    )
