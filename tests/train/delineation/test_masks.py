import numpy as np
import pytest

from ecg_transformers.data.corpora.ludb import LUDB
from ecg_transformers.train.delineation.masks import (
    LABEL_NAMES,
    SHORTEST_MS,
    RecordWaves,
    Wave,
    annotated_waves,
    mask_of_waves,
    waves_of_mask,
)


@pytest.fixture(scope="module")
def rows(shared_data_dir):
    entries = {entry.record_id: entry for entry in LUDB.index(shared_data_dir / "ludb", {})}
    return {name: LUDB.read(entries[name], {}).to_row() for name in ("1", "34")}


def record_of(*waves, num_samples=1000, leads=("II",), sampling_rate=500.0):
    return RecordWaves("r", "s", sampling_rate, num_samples, leads, tuple(Wave("II", *wave) for wave in waves))


def slow_mask(row, lead, ratio):
    """Sample by sample, from the columns alone: what each mark says of it."""
    # Record 34 has a QRS without onset in V2.
    columns = ("wave_lead", "wave_kind", "wave_onset", "wave_peak", "wave_offset")
    waves = [wave[1:] for wave in zip(*(row[name] for name in columns), strict=True) if wave[0] == lead]
    marks = [mark for wave in waves for mark in wave[1:] if mark is not None]
    classes = []
    for sample in range(round(5000 * ratio)):
        found = -1 if sample < round(min(marks) * ratio) or sample > round(max(marks) * ratio) else 0
        for kind, onset, peak, offset in waves:
            first, last = (round((peak if limit is None else limit) * ratio) for limit in (onset, offset))
            if onset is None and found == 0:
                previous = [mark for mark in marks if mark < peak]
                if previous and round(max(previous) * ratio) < sample < first:
                    found = -1
            if offset is None and found == 0:
                following = [mark for mark in marks if mark > peak]
                if following and last < sample < round(min(following) * ratio):
                    found = -1
            if first <= sample <= last:
                found = {"P": 1, "QRS": 2, "T": 3}[kind]
        classes.append(found)
    return classes


@pytest.mark.parametrize(("name", "lead", "ratio"), [("34", "V2", 0.2), ("1", "II", 0.2), ("34", "V2", 0.7)])
def test_masks_of_real_recordings_equal_a_slow_version(rows, name, lead, ratio):
    mask = mask_of_waves(annotated_waves(rows[name], [lead]), round(5000 * ratio))
    assert mask.shape == (1, 5000 * ratio) and mask.dtype == np.int8
    assert mask[0].tolist() == slow_mask(rows[name], lead, ratio)


def test_the_edges_of_real_recordings_are_not_annotated(rows):
    record = annotated_waves(rows["1"])
    mask = mask_of_waves(record)
    for lead, row in zip(record.leads, mask, strict=True):
        marks = [mark for wave in record.of_lead(lead) for mark in wave[2:]]
        assert (row[: min(marks)] == -1).all() and (row[max(marks) + 1 :] == -1).all()
        assert (row[min(marks) : max(marks) + 1] >= 0).all()


def test_a_lead_without_marks_is_not_annotated():
    assert (mask_of_waves(record_of()) == -1).all()


def test_beside_a_missing_limit_nothing_is_known_up_to_the_next_mark():
    mask = mask_of_waves(record_of(("P", 100, 120, 140), ("QRS", None, 200, 220), ("T", 300, 350, None)))[0]
    assert set(mask[141:200]) == {-1} and set(mask[200:221]) == {2}
    assert set(mask[221:300]) == {0} and set(mask[300:351]) == {3} and set(mask[351:]) == {-1}


def test_waves_of_a_real_mask_are_the_marked_ones(rows):
    row = rows["1"]
    record = annotated_waves(row)
    signal = np.frombuffer(row["ecg"]["signal"], dtype="<i2").reshape(12, -1) * np.array(row["ecg"]["gain"])[:, None]
    found = waves_of_mask(np.maximum(mask_of_waves(record), 0), signal, record.leads, 500)
    marked = {(wave.lead, wave.kind, wave.onset, wave.offset): wave.peak for wave in record.waves}
    assert {(wave.lead, wave.kind, wave.onset, wave.offset) for wave in found} == set(marked)
    distances = [abs(wave.peak - marked[wave.lead, wave.kind, wave.onset, wave.offset]) for wave in found]
    assert np.mean(np.array(distances) <= 5) > 0.8  # 10 ms


def test_runs_that_are_too_short_are_no_waves():
    mask = np.zeros((1, 200), dtype=int)
    for start, kind in zip((10, 60, 110), ("P", "QRS", "T"), strict=True):
        length = round(SHORTEST_MS[kind] / 10)
        mask[0, start : start + length] = mask[0, start + 30 : start + 29 + length] = LABEL_NAMES.index(kind)
    found = waves_of_mask(mask, np.zeros((1, 1000)), ["II"], 500)
    assert [(wave.kind, wave.onset) for wave in found] == [("P", 50), ("QRS", 300), ("T", 550)]


def test_peaks_are_deflections_from_the_line_between_the_limits():
    signal = np.linspace(0, 5, 100)[None].repeat(1, axis=0)  # a drift that alone would make every end a peak
    signal[0, 30] += 1.0
    signal[0, 35] -= 2.0
    mask = np.zeros((1, 100), dtype=int)
    mask[0, 20:50] = 3
    assert waves_of_mask(mask, signal, ["II"], 100)[0].peak == 35  # T: the largest, up or down
    mask[0, 20:50] = 2
    assert waves_of_mask(mask, signal, ["II"], 100)[0].peak == 30  # QRS: the highest


def test_a_wave_of_samples_that_were_not_recorded_has_no_peak():
    mask = np.full((1, 50), 2)
    assert waves_of_mask(mask, np.full((1, 50), np.nan), ["II"], 100)[0] == Wave("II", "QRS", 0, None, 49)


def test_rows_of_other_corpora_are_refused():
    with pytest.raises(ValueError, match="no waves are marked in this corpus.*delineate"):
        annotated_waves({"record_id": "1", "ecg": {"leads": ["I"]}})
