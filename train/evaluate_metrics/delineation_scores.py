"""Scores of P, QRS and T delineation: sensitivity, positive predictive value and error at a tolerance, and mIoU.

One *row* is one lead of one recording. Annotators mostly leave the first and the last beat unmarked, so a row is
evaluated within its annotated span alone: a point predicted outside it counts only where it matches a mark near the
edge.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

WAVES = ("P", "QRS", "T")
LIMITS = ("onset", "peak", "offset")
POINTS = tuple(f"{wave}_{limit}" for wave in WAVES for limit in LIMITS)
BACKGROUND, NOT_ANNOTATED = 0, -1


def delineation_scores(
    references: Sequence[Mapping[str, Sequence[int]]],
    predictions: Sequence[Mapping[str, Sequence[int]]],
    sampling_rate: float,
    tolerance_ms: float = 150.0,
    points: Sequence[str] = POINTS,
    spans: Sequence[tuple[int, int] | None] | None = None,
) -> dict:
    """Scores of onsets, peaks and offsets, pooled over all rows.

    Args:
        references (`Sequence[Mapping[str, Sequence[int]]]`):
            For each row, the marked samples of each of `POINTS`, e.g. `{"P_onset": [100, 480], ...}`.
        predictions (`Sequence[Mapping[str, Sequence[int]]]`): The same of the model, for the same rows.
        sampling_rate (`float`): Samples per second of all rows.
        tolerance_ms (`float`, *optional*, defaults to 150): Points at most so far apart may match.
        points (`Sequence[str]`, *optional*, defaults to all of `POINTS`): Points to score.
        spans (`Sequence[tuple[int, int] | None]`, *optional*):
            First and last annotated sample of each row, `None` where nothing is annotated. By default the first and
            the last mark of the row, of any kind.

    Returns:
        `dict`: `per_point` (name → `sensitivity`, `ppv`, `mean_ms`, `sd_ms`, `num_references`, `num_predictions`,
        `num_matched`), `excluded` (points without a reference, with the reason), `tolerance_ms`, `num_rows`, and
        `num_rows_not_annotated`, which are not evaluated. The error is prediction minus reference, its SD that of a
        sample (`n - 1`); `None` where there are too few. Predictions are counted where they are evaluated.
    """
    _check_rows(references, predictions, sampling_rate, points)
    spans = [span_of(row) for row in references] if spans is None else list(spans)
    if len(spans) != len(references):
        raise ValueError(f"Expected one span for each of {len(references)} rows, got {len(spans)}.")
    tolerance = tolerance_ms * sampling_rate / 1000
    per_point, excluded = {}, {}
    for point in points:
        errors, num_references, num_predictions = match_rows(references, predictions, spans, point, tolerance)
        if num_references:
            per_point[point] = _point_scores(errors * 1000 / sampling_rate, num_references, num_predictions)
        else:
            excluded[point] = f"no reference in {len(references)} rows ({num_predictions} predicted)"
    return {
        "per_point": per_point,
        "excluded": excluded,
        "tolerance_ms": tolerance_ms,
        "num_rows": len(references),
        "num_rows_not_annotated": sum(span is None for span in spans),
    }


def mask_scores(
    references: np.ndarray, predictions: np.ndarray, sampling_rate: float, tolerance_ms: float = 150.0
) -> dict:
    """Scores of sample-wise masks: those of [`delineation_scores`] for onsets and offsets, and the overlap.

    Args:
        references (`np.ndarray` of shape `(num_rows, num_samples)`):
            0 background, 1 P, 2 QRS, 3 T, and -1 where a sample is not annotated. The span of a row reaches from its
            first to its last annotated sample.
        predictions (`np.ndarray` of shape `(num_rows, num_samples)`): 0 to 3.
        sampling_rate (`float`): Samples per second.
        tolerance_ms (`float`, *optional*, defaults to 150): Points at most so far apart may match.

    Returns:
        `dict`: As [`delineation_scores`], with `iou` (`background`, `P`, `QRS`, `T`): true positives over true
        positives, false positives and false negatives, of all annotated samples of all rows together; `miou`, its
        mean, and `miou_waves`, its mean without the background. What neither mask holds is in `excluded`.
    """
    references, predictions = np.asarray(references), np.asarray(predictions)
    if references.ndim != 2 or references.shape != predictions.shape:
        raise ValueError(f"Expected two masks of shape (rows, samples), got {references.shape}, {predictions.shape}.")
    if not np.isin(references, range(NOT_ANNOTATED, 4)).all() or not np.isin(predictions, range(4)).all():
        raise ValueError("Expected masks of 0 background, 1 P, 2 QRS, 3 T, and -1 (not annotated) in references only.")
    annotated = references != NOT_ANNOTATED
    spans = [(int(row.argmax()), int(len(row) - 1 - row[::-1].argmax())) if row.any() else None for row in annotated]
    points = [f"{wave}_{limit}" for wave in WAVES for limit in ("onset", "offset")]
    rows = ([points_of_mask(row) for row in masks] for masks in (references, predictions))
    result = delineation_scores(*rows, sampling_rate, tolerance_ms, points, spans)
    truth, guess = references[annotated], predictions[annotated]
    iou = {}
    for value, name in enumerate(("background", *WAVES)):
        union = int(((truth == value) | (guess == value)).sum())
        if union:
            iou[name] = int(((truth == value) & (guess == value)).sum()) / union
        else:
            result["excluded"][name] = "in no annotated sample of either mask"
    waves = [iou[wave] for wave in WAVES if wave in iou]
    return {**result, "iou": iou, "miou": _mean(list(iou.values())), "miou_waves": _mean(waves)}


def points_of_mask(mask: np.ndarray) -> dict[str, list[int]]:
    """First and last sample of each unbroken run of a wave in a mask of shape `(num_samples,)`; no peaks."""
    points: dict[str, list[int]] = {point: [] for point in POINTS}
    edges = np.flatnonzero(np.diff(mask)) + 1
    for start, end in zip((0, *edges), (*edges, len(mask)), strict=True):
        if start < end and mask[start] > BACKGROUND:
            wave = WAVES[int(mask[start]) - 1]
            points[f"{wave}_onset"].append(int(start))
            points[f"{wave}_offset"].append(int(end) - 1)
    return points


def points_of_waves(
    kinds: Sequence[str], onsets: Sequence[int | None], peaks: Sequence[int | None], offsets: Sequence[int | None]
) -> dict[str, list[int]]:
    """The waves of one lead, one value a wave as in LUDB's columns, as a row; limits that are `None` are left out."""
    points: dict[str, list[int]] = {point: [] for point in POINTS}
    for kind, *samples in zip(kinds, onsets, peaks, offsets, strict=True):
        for limit, sample in zip(LIMITS, samples, strict=True):
            if sample is not None:
                points[f"{kind}_{limit}"].append(int(sample))
    return points


def match_rows(
    references: Sequence[Mapping[str, Sequence[int]]],
    predictions: Sequence[Mapping[str, Sequence[int]]],
    spans: Sequence[tuple[int, int] | None],
    point: str,
    tolerance: float,
) -> tuple[np.ndarray, int, int]:
    """Errors of the matches of a point in all rows, `(num_matched,)`, and the numbers of references and predictions.

    Errors and `tolerance` are in samples; a row without a span is not evaluated, predictions outside of a span count
    only where they match.
    """
    errors, num_references, num_predictions = [], 0, 0
    for reference, prediction, span in zip(references, predictions, spans, strict=True):
        if span is None:
            continue
        marked, predicted = np.sort(np.asarray(reference[point])), np.sort(np.asarray(prediction[point]))
        of_marked, of_predicted = match_points(marked, predicted, tolerance)
        inside = (predicted >= span[0]) & (predicted <= span[1])
        inside[of_predicted] = True
        num_references += len(marked)
        num_predictions += int(inside.sum())
        errors.extend(predicted[of_predicted] - marked[of_marked])
    return np.asarray(errors, dtype=float), num_references, num_predictions


def match_points(marked: np.ndarray, predicted: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one matches of points at most `tolerance` samples apart, as indices `(num_matched,)` into both: as many
    as possible and, of those, the closest."""
    if not len(marked) or not len(predicted):
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    distances = np.abs(np.subtract.outer(marked, predicted)).astype(float)
    reward = 1 + tolerance * min(distances.shape)  # one match more outweighs all distances together
    of_marked, of_predicted = linear_sum_assignment(np.where(distances <= tolerance, distances - reward, 0))
    near = distances[of_marked, of_predicted] <= tolerance
    return of_marked[near], of_predicted[near]


def _point_scores(errors: np.ndarray, num_references: int, num_predictions: int) -> dict[str, float | int | None]:
    return {
        "sensitivity": len(errors) / num_references,
        "ppv": len(errors) / num_predictions if num_predictions else None,
        "mean_ms": _mean(errors),
        "sd_ms": float(errors.std(ddof=1)) if len(errors) > 1 else None,
        "num_references": num_references,
        "num_predictions": num_predictions,
        "num_matched": len(errors),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def span_of(row: Mapping[str, Sequence[int]]) -> tuple[int, int] | None:
    """First and last mark of a row, of any kind."""
    samples = [sample for point in POINTS for sample in row.get(point, ())]
    return (min(samples), max(samples)) if samples else None


def _check_rows(references, predictions, sampling_rate: float, points: Sequence[str]):
    if len(references) != len(predictions):
        raise ValueError(f"Expected predictions of {len(references)} rows, got {len(predictions)}.")
    if not sampling_rate > 0:
        raise ValueError(f"Expected a sampling rate above 0 samples per second, got {sampling_rate}.")
    if not set(points) <= set(POINTS):
        raise ValueError(f"Expected points among {list(POINTS)}, got {list(points)}.")
    for what, rows in (("references", references), ("predictions", predictions)):
        for number, row in enumerate(rows):
            if not set(points) <= set(row):
                missing = sorted(set(points) - set(row))
                raise ValueError(f"Row {number} of the {what} lacks {missing}. Give an empty list, or name `points`.")
