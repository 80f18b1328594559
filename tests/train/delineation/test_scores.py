import numpy as np
import pyarrow.parquet as pq
import pytest

from ecg_transformers.train.delineation.masks import RecordWaves, Wave, mask_of_waves
from ecg_transformers.train.delineation.scores import compare_waves, count_waves, score_waves, write_waves
from ecg_transformers.train.evaluate_metrics.delineation_scores import (
    POINTS,
    delineation_scores,
    mask_scores,
    points_of_waves,
)

LEADS = ("I", "II")
KINDS = {"P": (0, 25, 50), "QRS": (80, 100, 125), "T": (220, 270, 320)}


def annotation(subject: str, seed: int, record_id: str | None = None) -> RecordWaves:
    """Five beats of 400 samples at 500 Hz, a little different in each lead; the first P of lead I is not marked."""
    generator = np.random.default_rng(seed)
    waves = []
    for lead in LEADS:
        for start in range(100, 2100, 400):
            for kind, limits in KINDS.items():
                if (lead, start, kind) != ("I", 100, "P"):
                    waves.append(
                        Wave(lead, kind, *(start + limit + int(generator.integers(-4, 5)) for limit in limits))
                    )
    return RecordWaves(record_id or subject, subject, 500.0, 2500, LEADS, tuple(waves))


def guess(record: RecordWaves, seed: int, leads=LEADS) -> RecordWaves:
    """The marks moved at random; some waves are missed, and some P are seen where nothing is."""
    generator = np.random.default_rng(seed)
    waves = []
    for wave in record.waves:
        if generator.random() < 0.85:
            waves.append(Wave(wave.lead, wave.kind, *(int(s + generator.integers(-12, 13)) for s in wave[2:])))
        if generator.random() < 0.1:
            waves.append(Wave(wave.lead, "P", *(wave.offset + shift for shift in (30, 40, 50))))
    waves = tuple(wave for wave in waves if wave.lead in leads)
    return RecordWaves(record.record_id, record.subject, 500.0, 2500, leads, waves)


@pytest.fixture(scope="module")
def references():
    return [annotation(str(number), number) for number in range(6)] + [annotation("0", 6, record_id="again")]


@pytest.fixture(scope="module")
def predictions(references):
    return [guess(record, number) for number, record in enumerate(references)]


def rows_of(records):
    columns = range(1, 5)
    return [
        points_of_waves(*([wave[column] for wave in record.of_lead(lead)] for column in columns))
        for record in records
        for lead in LEADS
    ]


def test_sums_over_subjects_give_the_pooled_scores(references, predictions):
    scored = score_waves(count_waves(references, predictions), num_resamples=10)
    pooled = delineation_scores(rows_of(references), rows_of(predictions), 500)
    assert scored["num_subjects"] == 6 and scored["num_rows"] == pooled["num_rows"] == 14
    for point in POINTS:
        for name, value in pooled["per_point"][point].items():
            assert scored["per_point"][point][name] == pytest.approx(value, rel=1e-9)


def test_overlaps_are_those_of_the_masks(references, predictions):
    scored = score_waves(count_waves(references, predictions), num_resamples=10)
    truth = np.concatenate([mask_of_waves(record) for record in references])
    found = np.concatenate([np.maximum(mask_of_waves(record), 0) for record in predictions])
    expected = mask_scores(truth, found, 500)
    assert scored["iou"] == pytest.approx(expected["iou"])
    assert scored["miou"] == pytest.approx(expected["miou"])
    assert scored["miou_waves"] == pytest.approx(expected["miou_waves"])


def test_intervals_are_percentiles_over_drawn_subjects(references, predictions):
    scored = score_waves(count_waves(references, predictions), num_resamples=40, seed=3)
    subjects = list(dict.fromkeys(record.subject for record in references))
    generator, values = np.random.default_rng(3), []
    for _ in range(40):
        drawn = [subjects[number] for number in generator.integers(6, size=6)]
        pairs = [
            (reference, prediction)
            for subject in drawn
            for reference, prediction in zip(references, predictions, strict=True)
            if reference.subject == subject
        ]
        scores = delineation_scores(
            *(rows_of(records) for records in zip(*pairs, strict=True)), 500, points=["T_peak"]
        )
        values.append([scores["per_point"]["T_peak"][name] for name in ("sensitivity", "sd_ms")])
    low, high = np.percentile(values, (2.5, 97.5), axis=0)
    found = scored["per_point"]["T_peak"]
    assert found["sensitivity_ci95"] == pytest.approx([low[0], high[0]])
    assert found["sd_ms_ci95"] == pytest.approx([low[1], high[1]])


def test_perfect_waves_score_one_and_beat_worse_ones(references, predictions):
    perfect, worse = count_waves(references, references), count_waves(references, predictions)
    scored = score_waves(perfect, num_resamples=10)
    assert scored["miou"] == 1 and scored["per_point"]["QRS_onset"]["sd_ms"] == 0
    difference = compare_waves(perfect, worse, num_resamples=100)["miou"]
    assert 0 < difference["ci95"][0] <= difference["difference"] == pytest.approx(1 - score_waves(worse, 10)["miou"])
    assert difference["p_value"] == pytest.approx(2 / 101)


def test_leads_without_predictions_are_not_scored(references):
    counts = count_waves(references, [guess(record, 0, leads=("II",)) for record in references])
    assert counts.num_rows == 7


def test_what_no_reference_has_is_excluded_and_its_predictions_counted(references, predictions):
    without = [
        RecordWaves(*(r.record_id, r.subject, 500.0, 2500, LEADS), tuple(w for w in r.waves if w.kind != "P"))
        for r in references
    ]
    scored = score_waves(count_waves(without, predictions), num_resamples=10)
    assert {"P_onset", "P_peak", "P_offset"} == set(scored["excluded"])
    assert "(0 predicted)" not in scored["excluded"]["P_onset"] and scored["iou"]["P"] == 0


def test_other_recordings_are_refused(references, predictions):
    with pytest.raises(ValueError, match="Expected predictions of"):
        count_waves(references, predictions[::-1])


def test_the_file_of_waves_scores_again_to_the_same_numbers(references, predictions, tmp_path):
    table = pq.read_table(write_waves({"pretrained": predictions}, tmp_path / "waves.parquet"))
    assert table.column_names[:4] == ["encoder", "record_id", "lead", "kind"]
    read = table.to_pylist()
    assert {row["sampling_rate"] for row in read} == {500.0}
    rows = [
        {
            f"{kind}_{limit}": [
                row[f"{limit}_sample"]
                for row in read
                if (row["record_id"], row["lead"], row["kind"]) == (record.record_id, lead, kind)
            ]
            for kind in KINDS
            for limit in ("onset", "peak", "offset")
        }
        for record in predictions
        for lead in LEADS
    ]
    scored = score_waves(count_waves(references, predictions), num_resamples=10)["per_point"]
    again = delineation_scores(rows_of(references), rows, 500)["per_point"]
    for point in POINTS:
        assert again[point]["ppv"] == scored[point]["ppv"]
        assert again[point]["sd_ms"] == pytest.approx(scored[point]["sd_ms"])
