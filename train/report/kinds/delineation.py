"""Delineation: overlap of waves, and onsets, peaks and offsets."""

from ...results import Outcome, Result, decapitalized, format_score
from ..page import Cell, Row, Section, Table
from ..tables import MISSING, difference_rows, with_interval
from . import Shown

OVERLAPS = ("P", "QRS", "T", "background")


def section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    points = Section("Each onset, peak and offset", tables=(point_table(outcome),))
    left_out = outcome.scores.get("excluded", {})
    title = f"Delineation, protocol {outcome.protocol}"
    return Section(title, tables=(overlap_table(outcome),), left_out=left_out, details=(points,))


def overlap_table(outcome: Outcome) -> Table:
    """Overlap of predicted and marked waves."""
    names = [name for name in OVERLAPS if name in outcome.scores["iou"]]
    rows = []
    for _, name, scores in outcome.sides():
        cells = [with_interval(scores, "miou_waves"), with_interval(scores, "miou")]
        rows.append(Row(name, (*cells, *(Cell(format_score(scores["iou"].get(wave))) for wave in names))))
    rows += difference_rows(outcome, ("miou_waves", "miou"), len(names))
    caption = (
        f"Protocol {outcome.protocol}: overlap (intersection over union) with the marks, samples of all leads together"
    )
    if "num_subjects" in outcome.scores:
        caption += f"; {outcome.scores['num_subjects']} subjects, 95 % intervals from a bootstrap over them"
    header = ("Encoder", "mIoU of P, QRS and T", "mIoU with background", *(f"IoU {name}" for name in names))
    return Table(f"{caption}.", header, tuple(rows))


def point_table(outcome: Outcome) -> Table:
    """Sensitivity, positive predictive value and error of each onset, peak and offset."""
    rows = []
    for point in outcome.scores["per_point"]:
        for _, name, scores in outcome.sides():
            found = scores["per_point"].get(point)
            if found is None:
                continue
            spread = "" if found["sd_ms"] is None else f" ± {found['sd_ms']:.1f}"
            error = Cell(MISSING if found["mean_ms"] is None else f"{found['mean_ms']:+.1f}{spread}")
            cells = (
                Cell(str(found["num_references"])),
                with_interval(found, "sensitivity"),
                with_interval(found, "ppv"),
            )
            rows.append(Row(f"{point.replace('_', ' ')}: {decapitalized(name)}", (*cells, error)))
    caption = (
        f"Protocol {outcome.protocol}: points matched within {outcome.scores['tolerance_ms']:g} ms. Error: prediction "
        "minus mark, mean ± SD of the matched points."
    )
    return Table(caption, ("Point and encoder", "Marks", "Sensitivity", "PPV", "Error (ms)"), tuple(rows))
