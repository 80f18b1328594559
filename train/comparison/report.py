"""Report of a comparison: scores, a table, a page, and every single prediction."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ecg_transformers.data.corpus import data_source

from ..report.page import EMPTY, Cell, Page, ReportFigure, Row, Section, Table, render_page
from ..report.plots import BLUE, GREEN, GREY, ORANGE, figure_to_bytes, lighten
from ..report.tables import difference_cell
from ..results import Difference, format_interval, format_score, installed_versions
from .data import ComparisonData
from .runs import Run, RunFolder, write_atomically, write_table
from .scores import NUM_RESAMPLES, ROWS, collect_rows, compare_rows
from .scores import Row as ScoredRow

CAVEATS = (
    "Every method runs on the same records, folds, records seen and probe; its random encoder is its own encoder "
    "before the first step.",
    "Encoders with other leads or patches have the same width and depth, not the same number of tokens.",
    "Differences speak about the draw of test records, not about other seeds.",
)


ROW_STYLES = {
    "kernels": ("#000000", "o"),
    "random": (GREY, "o"),
    "pretrained": (BLUE, "o"),
    "supervised": (ORANGE, "D"),
    "finetuned": (GREEN, "s"),
}
ROW_INCHES, LABEL_WIDTH = 0.27, 34


def write_comparison(shared: RunFolder, runs: Sequence[Run], low_shot: float | None, command: str):
    """Writes `comparison.json`, `.md`, `.html`, `.png` and `predictions.parquet` of the runs that are finished.

    Returns the table as lines, and the path of the page.
    """
    rows = collect_rows(shared, runs, low_shot)
    if not rows:
        return ["No run is finished."], shared.folder
    names, folder = shared.data.label_names, shared.folder
    comparison = compare_rows(rows, names) | {
        "data": data_facts(shared.data),
        "protocol": {
            "linear": "frozen pooled features, standardised, one logistic regression a label, C chosen by "
            "cross-validation by patient inside the folds 1-8; tested on the folds 9 and 10",
            "supervised": "all weights, best of the steps on fold 9; tested on fold 10",
            "intervals": f"95 % percentile bootstrap over patients, {NUM_RESAMPLES} resamples, the same for all rows",
        },
        "seeds": sorted({run.seed for run in runs}),
        "finished_runs": sum(shared.result(run) is not None for run in runs),
        "planned_runs": len(runs),
        "command": command,
        "versions": installed_versions(),
    }
    section, figure = comparison_section(comparison), plot_comparison(comparison)
    alt = "Macro AUROC of every row with its 95 % interval"
    drawn = ReportFigure(figure, "Scores", "Lines are 95 % intervals.", alt, wide=True)
    page = Page(
        title=f"Comparison of pretraining methods on {shared.data.name}",
        summary="Methods of pretraining, each beside its own encoder before the first step, on the same records.",
        sections=[Section("Every method", figures=[drawn]), section],
        caveats=CAVEATS,
        data=data_source(shared.data.test, shared.data.name),
        command=command,
        versions=comparison["versions"],
    )
    write_table(folder / "predictions.parquet", predictions_table(rows, names))
    write_atomically(folder / "comparison.json", json.dumps(comparison, indent=2) + "\n")
    write_atomically(folder / "comparison.md", section.markdown(level=2) + "\n")
    write_atomically(folder / "comparison.png", figure_to_bytes(figure, "png"))
    write_atomically(folder / "comparison.html", render_page(page))
    return section.tables[0].markdown().splitlines(), folder / "comparison.html"


def predictions_table(rows: Sequence[ScoredRow], label_names: Sequence[str]) -> pa.Table:
    """One line for each row, seed and test record: `method, row, labelled_fraction, C, seed, record_id, patient_id`,
    then `label_<class>` (0 or 1) and `score_<class>` (probability) of each class. `C` is the penalty of frozen
    encoders."""
    frames = []
    for row in rows:
        for seed, found in row.predictions.items():
            facts = {"method": row.method, "row": row.kind, "labelled_fraction": row.labelled_fraction}
            facts |= {"C": row.C.get(seed, np.nan), "seed": seed}
            facts |= {"record_id": found.record_ids, "patient_id": found.patient_ids}
            for column, name in enumerate(label_names):
                facts[f"label_{name}"] = found.labels[:, column].astype(np.int8)
                facts[f"score_{name}"] = found.scores[:, column]
            frames.append(pd.DataFrame(facts))
    return pa.Table.from_pandas(pd.concat(frames), preserve_index=False)


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


def comparison_section(comparison: Mapping) -> Section:
    """The tables and their notes, for the page and for `comparison.md`."""
    differences = [
        (found, difference_cell(Difference.read(found, "macro_auroc"))) for found in comparison["differences"]
    ]
    gains = {
        (found["model"], found["baseline"].split(":")[0] if found["against"] == "kernels" else found["against"]): cell
        for found, cell in differences
    }
    scores, encoders = [], []
    for entry in comparison["rows"]:
        seeds, encoder = len(entry["seeds"]), entry["encoder"]
        cells = (
            Cell(format_score(entry["macro_auroc"]), (format_interval(entry["macro_auroc_ci95"]),)),
            Cell(f"{format_interval(entry['range'])} ({seeds})" if seeds > 1 else "one seed"),
            Cell(entry["folds"]),
            *(gains.get((entry["key"], baseline), EMPTY) for baseline in ("random", "random-kernels")),
        )
        scores.append(Row(entry["key"], cells))
        about = (
            f"{encoder['hidden_size']}x{encoder['num_hidden_layers']}, {encoder['num_leads']} leads",
            f"{encoder['tokens']} of {encoder['patch_ms']:g} ms",
            f"{encoder['parameters']:,}",
            f"{entry['num_labelled_records']:,}",
            f"{entry['records_seen']:,}",
        )
        encoders.append(Row(entry["key"], tuple(map(Cell, about))))
    header = ("Method", "Macro AUROC", "Range over seeds", "Test folds", "Against random", "Against 1,200 kernels")
    columns = ("Method", "Encoder", "Tokens", "Parameters", "Labelled records", "Records seen")
    details = [Section("Encoders", tables=(Table("Encoders.", columns, tuple(encoders)),))]
    if differences:
        paired = "The same bootstrap resamples for both; two-sided p. Not corrected for the number of comparisons."
        rows = tuple(Row(f"{found['model']} minus {found['baseline']}", (cell,)) for found, cell in differences)
        details.append(Section("All paired differences", tables=(Table(paired, ("Difference", "Macro AUROC"), rows),)))
    return Section(
        f"Comparison on {comparison['data']['name']}",
        tables=(Table("Macro AUROC, 95 % intervals.", header, tuple(scores)),),
        notes=notes(comparison),
        left_out=comparison["excluded"],
        details=details,
    )


def notes(comparison: Mapping) -> list[str]:
    """Notes for the reader of the table."""
    data = comparison["data"]
    lines = [
        f"Pretraining on {data['num_pretraining_records']:,} records without labels (folds 1-8); probes and training "
        f"on labels: {data['num_labelled_train_records']:,} records; selection on {data['num_validation_records']:,} "
        f"(fold 9); frozen encoders evaluated on {comparison['num_test_records']:,} records of "
        f"{comparison['num_test_patients']:,} patients (folds 9 and 10), which choose nothing there, those trained on "
        "labels on fold 10, differences between the two kinds on fold 10. Classes: "
        f"{', '.join(comparison['label_names'])}.",
        "Score: mean over seeds. Interval: 95 % bootstrap over the test patients, of that mean; it says "
        "nothing about other seeds, the range does. "
        f"Linear: {comparison['protocol']['linear']}.",
    ]
    if data["extra_records_left_out"]:
        left_out = [f"{count} {reason}" for reason, count in data["extra_records_left_out"].items()]
        lines.append(f"Extra records not used: {'; '.join(left_out)}.")
    if comparison["finished_runs"] < comparison["planned_runs"]:
        lines.append(
            f"UNFINISHED: {comparison['finished_runs']} of {comparison['planned_runs']} runs are in this table."
        )
    return lines


def plot_comparison(comparison: Mapping) -> Figure:
    """Draws every row of [`~.scores.compare_rows`] with its 95 % interval and its seeds."""
    rows = comparison["rows"]
    groups: dict[tuple[str, float], list[Mapping]] = {}  # a training from scratch: with the first of its methods
    for row in rows:
        groups.setdefault((row["method"].split(", ")[0], row["labelled_fraction"]), []).append(row)
    height = max(2.6, 1.5 + ROW_INCHES * (len(rows) + 1.5 * len(groups)))
    figure = Figure(figsize=(7.5, height), layout="constrained")
    _draw_rows(figure.add_subplot(), groups)
    handles = [
        Line2D([], [], color=color, marker=marker, linewidth=2, label=ROWS[kind])
        for kind, (color, marker) in ROW_STYLES.items()
        if any(row["row"] == kind for row in rows)
    ]
    handles.append(Line2D([], [], color=GREY, marker="|", linestyle="none", markersize=8, label="one seed"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw_rows(axes: Axes, groups: Mapping[tuple[str, float], Sequence[Mapping]]) -> None:
    position, ticks = 0.0, {}
    for (method, fraction), rows in groups.items():
        name = _wrapped(method) + ("" if fraction == 1 else f"\n({fraction:.0%} of the labels)")
        ticks[position + (len(rows) - 1) / 2] = name
        for row in rows:
            (color, marker), interval = ROW_STYLES[row["row"]], row["macro_auroc_ci95"]
            axes.plot(interval, (position, position), color=color, linewidth=2.2, solid_capstyle="butt")
            if len(row["seeds"]) > 1:
                seeds = [of_seed["macro_auroc"] for of_seed in row["seeds"].values()]
                axes.plot(seeds, [position] * len(seeds), "|", color=color, markersize=9, markeredgewidth=1.1)
            axes.plot(row["macro_auroc"], position, marker, color=color, markersize=6, markeredgecolor="white")
            text = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": color}
            axes.annotate(f"{row['macro_auroc']:.3f}", (interval[1], position), **text)
            position += 1
        axes.axhline(position, color="#e5e5e5", linewidth=0.7)
        position += 1
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.margins(x=0.12)
    axes.set_ylim(position - 0.6, -0.8)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("macro AUROC, 95 % bootstrap interval (0.5 is chance)")
    lighten(axes)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _wrapped(method: str) -> str:
    """A method with its changes, on lines that leave room for the picture."""
    lines = [""]
    for part in method.split(":"):
        joined = f"{lines[-1]}:{part}" if lines[-1] else part
        if len(joined) > LABEL_WIDTH and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(lines)
