import shutil
from collections import Counter

import numpy as np
import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.ludb import LUDB, MAX_SLIP, RHYTHMS, STATEMENT_COLUMNS, WAVE_COLUMNS, waves_of
from ecg_transformers.data.formats.wfdb_annotations import WfdbAnnotations


@pytest.fixture(scope="module")
def entries(shared_data):
    return {entry.record_id: entry for entry in LUDB.index(shared_data / "ludb", {})}


@pytest.fixture(scope="module")
def records(entries):
    return {name: LUDB.read(entries[name], {}) for name in ("1", "8", "34", "150")}


@pytest.fixture
def copy(shared_data, tmp_path):
    """A writable copy of two subjects."""
    (tmp_path / "data").mkdir()
    shutil.copy(shared_data / "ludb" / "ludb.csv", tmp_path)
    for subject in (1, 2):
        for path in (shared_data / "ludb" / "data").glob(f"{subject}.*"):
            shutil.copy(path, tmp_path / "data")
    return tmp_path


def test_wave_is_its_peak_with_the_limits_beside_it():
    marks = WfdbAnnotations(np.array([10, 20, 30, 50, 60, 70, 80]), list("(p)N)(t"), [""] * 7)
    assert waves_of(marks) == [("P", 10, 20, 30), ("QRS", None, 50, 60), ("T", 70, 80, None)]


def test_peak_marked_just_outside_its_limits_keeps_them():
    marks = WfdbAnnotations(np.array([100, 102, 150, 200, 240, 243]), list("N()()N"), [""] * 6)
    assert waves_of(marks) == [("QRS", 102, 100, 150), ("QRS", 200, 243, 240)]


def test_limits_without_a_peak_are_left_out():
    marks = WfdbAnnotations(np.array([10, 20, 30, 50, 60]), list("()(t)"), [""] * 5)
    assert waves_of(marks) == [("T", 30, 50, 60)]


def test_every_mark_of_every_lead_is_in_the_columns(entries, records):
    import wfdb

    extra, path = records["150"].extra, entries["150"].path
    for lead in records["150"].leads:
        theirs = wfdb.rdann(path, lead.lower())
        chosen = [i for i, name in enumerate(extra["wave_lead"]) if name == lead]
        peaks = [sample for sample, symbol in zip(theirs.sample, theirs.symbol, strict=True) if symbol in "pNt"]
        assert [extra["wave_peak"][i] for i in chosen] == peaks
        limits = [extra[name][i] for i in chosen for name in ("wave_onset", "wave_offset")]
        marked = [sample for sample, symbol in zip(theirs.sample, theirs.symbol, strict=True) if symbol in "()"]
        assert [limit for limit in limits if limit is not None] == marked


def test_columns_of_waves_are_equally_long_and_in_order(records):
    for record in records.values():
        columns = [record.extra[name] for name in WAVE_COLUMNS]
        assert len({len(column) for column in columns}) == 1 and len(columns[0]) > 100
        for _, kind, onset, peak, offset in zip(*columns, strict=True):
            assert kind in ("P", "QRS", "T")
            assert onset is None or onset <= peak + MAX_SLIP
            assert offset is None or peak <= offset + MAX_SLIP
        assert set(record.extra["wave_lead"]) == set(record.leads)


@pytest.mark.slow
def test_all_waves_of_150_subjects_are_counted(entries):
    kinds, unlimited = Counter(), 0
    for entry in entries.values():
        extra = LUDB.read(entry, {}).extra
        kinds.update(extra["wave_kind"])
        unlimited += extra["wave_onset"].count(None) + extra["wave_offset"].count(None)
    assert len(entries) == 150
    assert kinds["QRS"] > kinds["T"] > kinds["P"] > 10_000 and unlimited < 150


def test_statements_of_the_table_are_lists_and_rhythms_are_labels(records):
    record = records["1"]
    assert (record.labels, record.age, record.sex, record.fold) == (["Sinus bradycardia"], 51.0, "female", 1)
    assert record.extra["hypertrophy"] == ["Left ventricular overload", "Left ventricular hypertrophy"]
    assert record.extra["conduction"] == [] and set(STATEMENT_COLUMNS) < set(record.extra)
    assert label_names("ludb") == RHYTHMS and len(RHYTHMS) == 9


def test_age_that_is_only_bounded_is_unknown(records):
    assert records["34"].age is None


def test_leads_in_lower_case_get_their_names(records):
    assert records["1"].leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def test_five_folds_by_turns_make_the_splits(entries):
    folds = {name: (entry.columns["fold"], entry.split) for name, entry in entries.items()}
    assert [folds[str(subject)] for subject in range(1, 7)] == [
        *((1, "train"), (2, "train"), (3, "train"), (4, "validation"), (5, "test"), (1, "train"))
    ]
    assert Counter(fold for fold, _ in folds.values()) == dict.fromkeys(range(1, 6), 30)


def test_waves_survive_loading_with_limits_that_are_null(copy):
    (row,) = (row for row in load_ecg("ludb", copy, streaming=True) if row["record_id"] == "1")
    assert row["wave_onset"] == LUDB.read(LUDB.index(copy, {})[0], {}).extra["wave_onset"]
    assert row["ecg"]["signal"].shape == (12, 5000)


def test_record_whose_annotations_are_absent_is_refused(copy):
    (copy / "data" / "1.avr").unlink()
    with pytest.raises(ValueError, match="1.avr: No such file"):
        LUDB.read(LUDB.index(copy, {})[0], {})
