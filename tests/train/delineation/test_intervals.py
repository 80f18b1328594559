import numpy as np
import pytest

from ecg_transformers.data.corpora.ludb import LUDB
from ecg_transformers.train.delineation.intervals import INTERVAL_NAMES, interval_targets, measure_intervals
from ecg_transformers.train.delineation.masks import RecordWaves, Wave


def beat(lead, peak, pr=160, qrs=90, qt=400, is_conducted=True, has_t=True):
    """The waves of a beat with its R peak 40 ms after the onset of QRS; samples are milliseconds."""
    onset = peak - 40
    waves = [Wave(lead, "QRS", onset, peak, onset + qrs)]
    waves += [Wave(lead, "P", onset - pr, onset - pr + 50, onset - pr + 100)] if is_conducted else []
    return waves + ([Wave(lead, "T", onset + 250, onset + 320, onset + qt)] if has_t else [])


def record_of(*waves, leads=("II",)):
    return RecordWaves("r", "s", 1000.0, 10_000, leads, tuple(wave for of_beat in waves for wave in of_beat))


def test_intervals_of_regular_beats_are_read_off():
    values = measure_intervals(record_of(*(beat("II", peak) for peak in range(500, 9000, 800)))).values
    assert values["heart_rate_bpm"] == pytest.approx(75)
    assert (values["qrs_duration_ms"], values["pr_interval_ms"], values["qt_interval_ms"]) == (90, 160, 400)
    assert values["qtc_bazett_ms"] == pytest.approx(400 / np.sqrt(0.8))
    assert values["qtc_fridericia_ms"] == pytest.approx(400 / np.cbrt(0.8))


def test_at_one_beat_a_second_both_corrections_leave_qt_alone():
    values = measure_intervals(record_of(*(beat("II", peak) for peak in range(500, 9000, 1000)))).values
    assert values["qtc_bazett_ms"] == values["qtc_fridericia_ms"] == values["qt_interval_ms"] == 400


def test_one_extrasystole_and_one_missed_beat_do_not_move_the_rate():
    peaks = [500, 1300, 1700, 2900, 3700, 4500, 6100, 6900, 7700]
    assert measure_intervals(record_of(*(beat("II", peak) for peak in peaks))).values[
        "heart_rate_bpm"
    ] == pytest.approx(75)


def test_the_median_is_over_beats_first_and_leads_then():
    waves = [beat("I", peak, qrs=80) for peak in range(500, 9000, 800)]
    waves += [beat("II", peak, qrs=90) for peak in (500, 1300)] + [beat("V1", 500, qrs=120)]
    assert measure_intervals(record_of(*waves, leads=("I", "II", "V1"))).values["qrs_duration_ms"] == 90


def test_a_p_belongs_to_the_next_qrs_and_the_last_one_counts():
    blocked = Wave("II", "P", 1000, 1040, 1080)  # not conducted, before the P of the second beat
    values = measure_intervals(record_of(beat("II", 500, pr=160), [blocked], beat("II", 1500, pr=200))).values
    assert values["pr_interval_ms"] == 180  # of 160 and 200
    far = measure_intervals(record_of(beat("II", 1500, is_conducted=False), [blocked]))
    assert np.isnan(far.values["pr_interval_ms"]) and "no P at most 400 ms" in far.reasons["pr_interval_ms"]


def test_a_t_belongs_to_the_qrs_before_it_alone():
    values = measure_intervals(record_of(beat("II", 500, has_t=False), beat("II", 1300, qt=380))).values
    assert values["qt_interval_ms"] == 380


def test_what_cannot_be_measured_is_nan_with_its_reason():
    alone = measure_intervals(record_of(beat("II", 500)))
    assert set(alone.reasons) == {"heart_rate_bpm", "qtc_fridericia_ms", "qtc_bazett_ms"}
    assert alone.values["qt_interval_ms"] == 400
    nothing = measure_intervals(record_of())
    assert set(nothing.reasons) == set(INTERVAL_NAMES) and np.isnan(list(nothing.values.values())).all()
    no_onset = measure_intervals(record_of([Wave("II", "QRS", None, 500, 550), Wave("II", "T", 700, 750, 800)]))
    assert "onset and offset" in no_onset.reasons["qrs_duration_ms"] and "qt_interval_ms" in no_onset.reasons


def test_targets_are_arrays_by_name_with_unit():
    records = [record_of(*(beat("II", peak) for peak in range(500, 9000, rr))) for rr in (600, 1000)] + [record_of()]
    targets = interval_targets(records)
    assert tuple(targets) == INTERVAL_NAMES[:5]
    np.testing.assert_allclose(targets["heart_rate_bpm"], [100, 60, np.nan])


def test_marks_of_ludb_give_the_rates_of_their_rhythms(shared_data_dir):
    entries = {entry.record_id: entry for entry in LUDB.index(shared_data_dir / "ludb", {})}
    rows = [LUDB.read(entries[name], {}).to_row() for name in ("1", "8", "2")]
    assert [row["labels"] for row in rows] == [["Sinus bradycardia"], ["Atrial fibrillation"], ["Sinus rhythm"]]
    targets = interval_targets(rows)
    bradycardia, fibrillation, normal = range(3)
    assert targets["heart_rate_bpm"][bradycardia] < 60 <= targets["heart_rate_bpm"][normal] <= 100
    assert np.isnan(targets["pr_interval_ms"][fibrillation]) and 120 <= targets["pr_interval_ms"][normal] <= 200
    assert (targets["qrs_duration_ms"] > 60).all() and (targets["qrs_duration_ms"] < 130).all()
    assert (targets["qtc_fridericia_ms"] > 340).all() and (targets["qtc_fridericia_ms"] < 480).all()
