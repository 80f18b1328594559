"""Scores of predicted waves: points within 150 ms and overlap of masks, with intervals over subjects.

Everything is counted at the rate of the recording, from the waves alone, so that a file of predicted waves can be
scored again by anybody and models of different rates are tested on the same samples. Counts are kept for each subject:
sums over subjects give the pooled scores of `evaluate_metrics/delineation_scores.py` (a test compares), and sums over
drawn subjects a bootstrap that costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..evaluate_metrics.delineation_scores import (
    BACKGROUND,
    NOT_ANNOTATED,
    POINTS,
    WAVES,
    match_rows,
    points_of_waves,
    span_of,
)
from ..metrics import mean_over_labels, paired_facts, percentile_interval, resample_counts
from .masks import LABEL_NAMES, RecordWaves, mask_of_waves

TOLERANCE_MS = 150.0


@dataclass(frozen=True)
class WaveCounts:
    """Counts from which the scores of some recordings follow, subject by subject.

    Args:
        subjects (`tuple[str, ...]`): In order of appearance.
        points (`np.ndarray` of shape `(num_subjects, 9, 5)`):
            Counts for each of `POINTS`: references, predictions, matches, sum of errors (ms), sum of their squares.
        overlaps (`np.ndarray` of shape `(num_subjects, 4, 2)`):
            Annotated samples of background, P, QRS and T in both masks, and in either.
        num_rows (`int`): Leads of recordings; num_rows_not_annotated (`int`): of these without any mark.
    """

    subjects: tuple[str, ...]
    points: np.ndarray
    overlaps: np.ndarray
    num_rows: int
    num_rows_not_annotated: int


def count_waves(references: Sequence[RecordWaves], predictions: Sequence[RecordWaves]) -> WaveCounts:
    """Matches predicted waves with marked ones, at a tolerance of 150 ms, in the leads that were predicted.

    Raises:
        ValueError: if the recordings are not the same, in order, rate and length.
    """
    subjects = tuple(dict.fromkeys(record.subject for record in references))
    points, overlaps = np.zeros((len(subjects), len(POINTS), 5)), np.zeros((len(subjects), len(LABEL_NAMES), 2))
    num_rows = num_empty = 0
    for reference, prediction in zip(references, predictions, strict=True):
        subject = subjects.index(reference.subject)
        facts = [(r.record_id, r.sampling_rate, r.num_samples) for r in (reference, prediction)]
        if facts[0] != facts[1]:
            raise ValueError(f"Expected predictions of {facts[0]} (id, Hz, samples), got {facts[1]}.")
        rows = [[_points(record, lead) for lead in prediction.leads] for record in (reference, prediction)]
        spans, tolerance = [span_of(row) for row in rows[0]], TOLERANCE_MS * reference.sampling_rate / 1000
        num_rows, num_empty = num_rows + len(spans), num_empty + spans.count(None)
        for number, point in enumerate(POINTS):
            errors, num_references, num_predictions = match_rows(*rows, spans, point, tolerance)
            errors_ms = errors * 1000 / reference.sampling_rate
            sums = (len(errors), errors_ms.sum(), np.square(errors_ms).sum())
            points[subject, number] += (num_references, num_predictions, *sums)
        truth, guess = (_mask(record, prediction.leads) for record in (reference, prediction))
        annotated = truth != NOT_ANNOTATED
        truth, guess = truth[annotated], np.maximum(guess[annotated], BACKGROUND)
        for label in range(len(LABEL_NAMES)):
            of_truth, of_guess = truth == label, guess == label
            overlaps[subject, label] += ((of_truth & of_guess).sum(), (of_truth | of_guess).sum())
    return WaveCounts(subjects, points, overlaps, num_rows, num_empty)


def score_waves(counts: WaveCounts, num_resamples: int = 1000, seed: int = 0) -> dict:
    """The scores, ready for JSON.

    Returns:
        `dict`: `per_point` (name → `sensitivity`, `ppv`, `mean_ms`, `sd_ms`, each with `_ci95`, `num_references`,
        `num_predictions`, `num_matched`), `iou` (`background`, `P`, `QRS`, `T`), `miou` and `miou_waves` (without
        background) with `_ci95`, `excluded` (what no reference has, with the reason), `tolerance_ms` and counts. The
        error is prediction minus mark; intervals are percentiles of a bootstrap over subjects.
    """
    weights = resample_counts(len(counts.subjects), num_resamples, seed)
    value, drawn = _scores(counts, np.ones((1, len(counts.subjects)))), _scores(counts, weights)
    per_point, excluded = {}, {}
    totals = counts.points.sum(axis=0)
    for number, point in enumerate(POINTS):
        references, predictions, matched = (int(total) for total in totals[number, :3])
        if not references:
            excluded[point] = f"no reference in {counts.num_rows} rows ({predictions} predicted)"
            continue
        scores = {}
        for name in ("sensitivity", "ppv", "mean_ms", "sd_ms"):
            scores |= _with_interval(name, value[name][:, number], drawn[name][:, number])
        numbers = {"num_references": references, "num_predictions": predictions, "num_matched": matched}
        per_point[point] = scores | numbers
    iou = {name: float(value["iou"][0, i]) for i, name in enumerate(LABEL_NAMES) if np.isfinite(value["iou"][0, i])}
    excluded |= {name: "in no annotated sample of either mask" for name in LABEL_NAMES if name not in iou}
    return {
        "per_point": per_point,
        "iou": iou,
        **_with_interval("miou", value["miou"], drawn["miou"]),
        **_with_interval("miou_waves", value["miou_waves"], drawn["miou_waves"]),
        "excluded": excluded,
        "tolerance_ms": TOLERANCE_MS,
        "num_rows": counts.num_rows,
        "num_rows_not_annotated": counts.num_rows_not_annotated,
        "num_subjects": len(counts.subjects),
    }


def compare_waves(counts: WaveCounts, baseline: WaveCounts, num_resamples: int = 1000, seed: int = 0) -> dict:
    """`miou` and `miou_waves` of a model minus those of a baseline, with `ci95` and `p_value` of a paired bootstrap
    over subjects, see [`~ecg_transformers.train.metrics.paired_facts`]."""
    if counts.subjects != baseline.subjects:
        raise ValueError("The two models were evaluated on other subjects. Evaluate both on the same folds.")
    weights = resample_counts(len(counts.subjects), num_resamples, seed)
    result = {}
    for name in ("miou", "miou_waves"):
        once = np.ones((1, len(counts.subjects)))
        value, drawn = (_scores(counts, w)[name] - _scores(baseline, w)[name] for w in (once, weights))
        result[name] = {"difference": float(value[0])} | paired_facts(drawn)
    return result


def write_waves(predictions: dict[str, Sequence[RecordWaves]], path: Path) -> Path:
    """Writes one row a wave as Parquet: `encoder`, `record_id`, `lead`, `kind`, `onset_sample`, `peak_sample`,
    `offset_sample` (of the recording, inclusive, null where unknown) and `sampling_rate`."""
    rows = [
        (encoder, record.record_id, *wave, record.sampling_rate)
        for encoder, records in predictions.items()
        for record in records
        for wave in record.waves
    ]
    samples = [pa.field(f"{limit}_sample", pa.int32()) for limit in ("onset", "peak", "offset")]
    names = [pa.field(name, pa.string()) for name in ("encoder", "record_id", "lead", "kind")]
    schema = pa.schema([*names, *samples, pa.field("sampling_rate", pa.float64())])
    columns = list(zip(*rows, strict=True)) or [[] for _ in schema]
    pq.write_table(pa.table(list(map(pa.array, columns, schema.types)), schema=schema), path, compression="zstd")
    return path


def _points(record: RecordWaves, lead: str) -> dict[str, list[int]]:
    waves = record.of_lead(lead)
    return points_of_waves(*([wave[column] for wave in waves] for column in range(1, 5)))


def _mask(record: RecordWaves, leads: Sequence[str]) -> np.ndarray:
    return mask_of_waves(record)[[record.leads.index(lead) for lead in leads]]


def _scores(counts: WaveCounts, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of `weights` `(num_draws, num_subjects)`, each `(num_draws, 9)`, `(num_draws, 4)` or `(num_draws,)`; NaN
    where a draw has nothing to evaluate."""
    references, predictions, matched, errors, squares = np.moveaxis(np.tensordot(weights, counts.points, 1), -1, 0)
    both, either = np.moveaxis(np.tensordot(weights, counts.overlaps, 1), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = errors / matched
        variance = (squares - matched * mean**2) / np.where(matched > 1, matched - 1, np.nan)
        iou = both / either
    scores = {"sensitivity": matched / _positive(references), "ppv": matched / _positive(predictions)}
    scores |= {"mean_ms": mean, "sd_ms": np.sqrt(np.maximum(variance, 0)), "iou": iou}
    waves = slice(1, 1 + len(WAVES))
    return scores | {"miou": mean_over_labels(iou), "miou_waves": mean_over_labels(iou[:, waves])}


def _positive(counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, counts, np.nan)


def _with_interval(name: str, value: np.ndarray, drawn: np.ndarray) -> dict:
    drawn = drawn[np.isfinite(drawn)]
    return {
        name: float(value[0]) if np.isfinite(value[0]) else None,
        f"{name}_ci95": list(percentile_interval(drawn)) if len(drawn) else None,
    }
