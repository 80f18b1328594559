import itertools

import numpy as np
import pytest

from ecg_transformers.data import load_ecg
from ecg_transformers.train.evaluate_metrics.delineation_scores import (
    POINTS,
    delineation_scores,
    mask_scores,
    match_points,
    points_of_mask,
    points_of_waves,
)

RATE = 500


def row(**points):
    return {point: [] for point in POINTS} | points


def random_row(generator, num_points=4, width=500):
    return {point: sorted(generator.choice(width, size=num_points, replace=False).tolist()) for point in POINTS}


def best_matching_slowly(marked, predicted, tolerance):
    """Number of matches and sum of distances of the best of all one-to-one matchings."""
    best = (0, 0)
    for number in range(1, min(len(marked), len(predicted)) + 1):
        for some in itertools.combinations(marked, number):
            for others in itertools.permutations(predicted, number):
                distances = [abs(a - b) for a, b in zip(some, others, strict=True)]
                if max(distances) <= tolerance:
                    best = max(best, (number, -sum(distances)))
    return best[0], -best[1]


def scores_slowly(references, predictions, point, tolerance):
    """`(sensitivity, ppv)` at a tolerance in samples, counted row by row."""
    matched = marked = evaluated = 0
    for reference, prediction in zip(references, predictions, strict=True):
        every_mark = [sample for samples in reference.values() for sample in samples]
        number, _ = best_matching_slowly(reference[point], prediction[point], tolerance)
        matched += number
        marked += len(reference[point])
        evaluated += sum(1 for sample in prediction[point] if min(every_mark) <= sample <= max(every_mark))
    return matched / marked, matched / evaluated


@pytest.mark.parametrize("seed", range(20))
def test_matching_equals_the_best_of_all_matchings(seed):
    generator = np.random.default_rng(seed)
    marked, predicted = (np.sort(generator.choice(60, size=size, replace=False)) for size in (4, 5))
    of_marked, of_predicted = match_points(marked, predicted, 8)
    distances = np.abs(marked[of_marked] - predicted[of_predicted])
    assert len(set(of_marked)) == len(set(of_predicted)) == len(distances)
    assert (distances <= 8).all()
    assert (len(distances), distances.sum()) == best_matching_slowly(marked.tolist(), predicted.tolist(), 8)


def test_one_prediction_matches_one_mark_only():
    of_marked, of_predicted = match_points(np.array([100, 110]), np.array([108]), 75)
    assert of_marked.tolist() == [1] and of_predicted.tolist() == [0]


def test_scores_equal_a_slow_manual_version():
    generator = np.random.default_rng(0)
    references, predictions = ([random_row(generator) for _ in range(5)] for _ in range(2))
    for reference in references:
        reference["P_onset"][0], reference["T_offset"][-1] = 0, 499  # the span is all of the row
    result = delineation_scores(references, predictions, RATE, tolerance_ms=40)
    for point in POINTS:
        scores = result["per_point"][point]
        assert (scores["sensitivity"], scores["ppv"]) == scores_slowly(references, predictions, point, 20)


def test_the_error_is_prediction_minus_reference_in_milliseconds():
    references, predictions = [row(QRS_peak=[100, 500, 900])], [row(QRS_peak=[101, 502, 903])]
    scores = delineation_scores(references, predictions, RATE, points=["QRS_peak"])["per_point"]["QRS_peak"]
    assert scores["mean_ms"] == pytest.approx(4)
    assert scores["sd_ms"] == pytest.approx(2)
    assert scores["sensitivity"] == scores["ppv"] == 1


@pytest.mark.parametrize(("shift", "matched"), [(75, 1), (76, 0)])
def test_the_tolerance_of_150_ms_is_included(shift, matched):
    references, predictions = [row(P_onset=[500], T_offset=[0, 900])], [row(P_onset=[500 + shift])]
    scores = delineation_scores(references, predictions, RATE)["per_point"]["P_onset"]
    assert (scores["num_matched"], scores["num_predictions"]) == (matched, 1)


def test_predictions_outside_the_annotated_span_are_not_evaluated():
    references = [row(QRS_peak=[1000, 1500])]
    predictions = [row(QRS_peak=[500, 1000, 1250, 1500, 2000])]
    scores = delineation_scores(references, predictions, RATE)["per_point"]["QRS_peak"]
    assert (scores["num_predictions"], scores["ppv"]) == (3, pytest.approx(2 / 3))


def test_a_prediction_just_outside_the_span_may_match_the_mark_at_its_edge():
    scores = delineation_scores([row(P_onset=[1000, 1500])], [row(P_onset=[990, 1510])], RATE)["per_point"]["P_onset"]
    assert scores["sensitivity"] == scores["ppv"] == 1


def test_points_without_a_reference_are_excluded_and_named():
    result = delineation_scores([row(QRS_peak=[10, 900])], [row(QRS_peak=[10], P_onset=[400])], RATE)
    assert "P_onset" not in result["per_point"]
    assert result["excluded"]["P_onset"] == "no reference in 1 rows (1 predicted)"


def test_rows_without_any_mark_are_counted_and_not_evaluated():
    references, predictions = [row(), row(QRS_peak=[10, 900])], [row(QRS_peak=[5]), row()]
    result = delineation_scores(references, predictions, RATE)
    assert result["num_rows_not_annotated"] == 1
    assert result["per_point"]["QRS_peak"] == {
        "sensitivity": 0.0,
        "ppv": None,
        "mean_ms": None,
        "sd_ms": None,
        "num_references": 2,
        "num_predictions": 0,
        "num_matched": 0,
    }


def test_rows_that_lack_a_point_are_refused():
    with pytest.raises(ValueError, match="Row 0 of the predictions lacks"):
        delineation_scores([row()], [{"P_onset": []}], RATE)
    with pytest.raises(ValueError, match="predictions of 1 rows, got 2"):
        delineation_scores([row()], [row(), row()], RATE)
    with pytest.raises(ValueError, match="points among"):
        delineation_scores([row()], [row()], RATE, points=["R_peak"])


def test_runs_of_a_mask_are_waves():
    points = points_of_mask(np.array([1, 1, 0, 2, 3, 3, -1, 1]))
    assert points == row(P_onset=[0, 7], P_offset=[1, 7], QRS_onset=[3], QRS_offset=[3], T_onset=[4], T_offset=[5])


def test_overlap_of_masks_equals_a_slow_manual_version():
    generator = np.random.default_rng(0)
    references, predictions = generator.integers(-1, 4, (3, 200)), generator.integers(0, 4, (3, 200))
    result = mask_scores(references, predictions, RATE)
    expected = []
    for value in range(4):
        both = either = 0
        for truth, guess in zip(references.ravel(), predictions.ravel(), strict=True):
            if truth != -1:
                both += truth == value and guess == value
                either += truth == value or guess == value
        expected.append(both / either)
    assert list(result["iou"].values()) == pytest.approx(expected)
    assert result["miou"] == pytest.approx(np.mean(expected))
    assert result["miou_waves"] == pytest.approx(np.mean(expected[1:]))


def test_a_mask_is_evaluated_where_it_is_annotated():
    reference = np.full((1, 1000), -1)
    reference[0, 300:700] = 0
    reference[0, 300:350] = reference[0, 650:700] = 2
    prediction = np.where(reference == -1, 0, reference)
    prediction[0, 0:50] = 2  # a beat that nobody marked
    result = mask_scores(reference, prediction, RATE)
    assert result["per_point"]["QRS_onset"]["ppv"] == result["iou"]["QRS"] == 1
    assert set(result["excluded"]) == {"P_onset", "P_offset", "T_onset", "T_offset", "P", "T"}


def test_masks_of_other_values_are_refused():
    with pytest.raises(ValueError, match="0 background"):
        mask_scores(np.zeros((1, 5)), np.full((1, 5), 4), RATE)
    with pytest.raises(ValueError, match="two masks"):
        mask_scores(np.zeros((1, 5)), np.zeros((1, 6)), RATE)


def ludb_rows(shared_data_dir, num_records=8):
    """Each lead of some recordings, as points."""
    records = load_ecg("ludb", data_dir=shared_data_dir / "ludb", split="test", decode=False)
    columns = ("wave_kind", "wave_onset", "wave_peak", "wave_offset")
    rows = []
    for record in records.select(range(num_records)):
        for lead in dict.fromkeys(record["wave_lead"]):
            of_lead = [i for i, name in enumerate(record["wave_lead"]) if name == lead]
            rows.append(points_of_waves(*([record[column][i] for i in of_lead] for column in columns)))
    return rows


def test_ludb_shifted_against_itself_is_found_with_exactly_this_error(shared_data_dir):
    references = ludb_rows(shared_data_dir)
    assert len(references) == 8 * 12
    shifted = [{point: [sample + 6 for sample in samples] for point, samples in row.items()} for row in references]
    result = delineation_scores(references, shifted, RATE)
    assert set(result["per_point"]) == set(POINTS) and not result["excluded"]
    for point, scores in result["per_point"].items():
        assert scores["sensitivity"] == scores["ppv"] == 1, point
        assert (scores["mean_ms"], scores["sd_ms"]) == (12, 0), point


def test_ludb_shifted_beyond_the_tolerance_matches_no_qrs(shared_data_dir):
    references = ludb_rows(shared_data_dir, num_records=2)
    shifted = [{point: [sample + 76 for sample in samples] for point, samples in row.items()} for row in references]
    scores = delineation_scores(references, shifted, RATE)["per_point"]["QRS_peak"]
    assert scores["sensitivity"] == 0 and scores["ppv"] == 0
