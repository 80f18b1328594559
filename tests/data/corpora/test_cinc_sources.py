"""CPSC-Extra, Georgia, Chapman-Shaoxing and Ningbo: as they are published."""

import csv

import numpy as np
import pytest

from ecg_transformers.data import bad_records, label_names, load_ecg
from ecg_transformers.data.corpora.cinc2021 import source_of
from ecg_transformers.data.corpora.georgia import GEORGIA_SOURCE
from ecg_transformers.data.corpora.ningbo import NINGBO_SOURCE

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]

# Corpus, folder of a record in each release, its first line where wfdb cannot read it, and the record.
LAYOUTS = [
    ("georgia", "training/georgia/g1", "E00001", "05-May-2020 14:50:55"),
    ("georgia", "Training_WFDB", "E00015", "05-May-2020"),
    ("cpsc-extra", "training/cpsc_2018_extra/g1", "Q0001", "12-May-2020 12:33:59"),
    ("chapman-shaoxing", "training/chapman_shaoxing/g1", "JS00001", "23-Mar-2021 20:20:47"),
    ("chapman-shaoxing", "WFDBRecords/01/010", "JS10646", ""),
    ("ningbo", "training/ningbo/g1", "JS10647", "30-Jul-2021 04:15:19"),
    ("ningbo", "WFDBRecords/46/460", "JS45551", ""),
]


@pytest.mark.parametrize(("corpus", "folder", "record_id", "date"), LAYOUTS)
def test_a_record_is_read_from_each_published_folder(write_cinc_record, tmp_path, corpus, folder, record_id, date):
    steps = write_cinc_record(f"{folder}/{record_id}", "426177001,164934002", age="71", sex="Female", date=date)
    (row,) = load_ecg(corpus, tmp_path / "data", split="all", cache_dir=tmp_path / "cache")
    assert (row["record_id"], row["source"], row["age"], row["sex"]) == (record_id, corpus, 71.0, "female")
    assert (row["labels"], row["snomed_codes"]) == (["SB", "TAb"], ["426177001", "164934002"])
    assert (row["ecg"]["leads"], row["ecg"]["sampling_rate"], row["patient_id"]) == (LEADS, 500.0, None)
    np.testing.assert_allclose(row["ecg"]["signal"], steps / 1000, atol=1e-6)


def test_each_corpus_takes_its_own_records_out_of_a_folder_of_all(write_cinc_record, tmp_path):
    for _, folder, record_id, _ in LAYOUTS:
        write_cinc_record(f"{folder}/{record_id}", "426783006")
    for corpus in ("georgia", "cpsc-extra", "chapman-shaoxing", "ningbo"):
        rows = load_ecg(corpus, tmp_path / "data", split="all", cache_dir=tmp_path / "cache")
        assert sorted(rows["record_id"]) == [record for name, _, record, _ in LAYOUTS if name == corpus]


@pytest.mark.parametrize(
    ("record_id", "source"),
    [
        ("JS10646", "chapman-shaoxing"),
        ("JS10647", "ningbo"),
        ("S23074", "ningbo"),
        ("S0549", "ptb"),
        ("A6877", "cpsc2018"),
        ("I0075", "incart"),
        ("HR21837", "ptb-xl"),
        ("JS45552", None),
        ("JS00000", None),
        ("E001", None),
        ("e00001", None),
        ("E0000\u0661", None),
    ],
)
def test_the_name_of_a_record_tells_its_source(record_id, source):
    found = source_of(record_id)
    assert (found.name if found else None) == source


def test_copies_and_other_names_of_a_recording_share_its_split():
    assert GEORGIA_SOURCE.entry("", "E07510").split == GEORGIA_SOURCE.entry("", "E07509").split == "train"
    assert NINGBO_SOURCE.entry("", "S23074").split == NINGBO_SOURCE.entry("", "JS23074").split
    splits = [NINGBO_SOURCE.entry("", f"JS{number}").split for number in range(10647, 20647)]
    assert [round(splits.count(name) / 10000, 2) for name in ("train", "validation", "test")] == [0.8, 0.1, 0.1]


@pytest.mark.parametrize(("age", "sex"), [("NaN", "Unknown"), ("-1", "NaN")])
def test_unknown_ages_and_sexes_are_none(write_cinc_record, tmp_path, age, sex):
    write_cinc_record("E00001", "426783006", age=age, sex=sex)
    (row,) = load_ecg("georgia", tmp_path / "data", split="all", cache_dir=tmp_path / "cache")
    assert (row["age"], row["sex"]) == (None, None)


def test_a_code_of_no_table_is_no_label_but_stays_visible(write_cinc_record, tmp_path):
    write_cinc_record("E00001", "426783006,,123,426783006,429622005")
    for task, labels in (("scored", ["NSR"]), ("all", ["NSR", "STD"]), ("codes", ["426783006", "429622005"])):
        (row,) = load_ecg("georgia", tmp_path / "data", split="all", task=task, cache_dir=tmp_path / "cache")
        assert row["labels"] == labels
        assert row["snomed_codes"] == ["426783006", "123", "429622005"]
        assert set(labels) <= set(label_names("georgia", task=task))


def test_a_folder_without_the_corpus_is_refused_with_the_source(write_cinc_record, tmp_path):
    write_cinc_record("Q0001", "426783006")
    with pytest.raises(ValueError, match="no records such as JS10647 .*physionet.org/content/ecg-arrhythmia"):
        load_ecg("ningbo", tmp_path / "data", streaming=True)


def test_two_copies_of_a_record_are_refused(write_cinc_record, tmp_path):
    for folder in ("one", "two"):
        write_cinc_record(f"{folder}/E00001", "426783006")
    with pytest.raises(ValueError, match="E00001 lies twice"):
        load_ecg("georgia", tmp_path / "data", streaming=True)


def test_a_broken_record_is_reported_and_left_out(write_cinc_record, tmp_path):
    for number in (1, 2):
        write_cinc_record(f"E0000{number}", "426783006")
    (tmp_path / "data" / "E00001.mat").write_bytes(b"short")
    rows = load_ecg("georgia", tmp_path / "data", split="all", cache_dir=tmp_path / "cache")
    assert rows["record_id"][:] == ["E00002"]
    assert [record.record_id for record in bad_records(rows)] == ["E00001"]


@pytest.mark.parametrize("corpus", ["chapman-shaoxing", "ningbo"])
def test_the_codes_of_real_records_occur_in_their_source(shared_data_dir, corpus):
    """The official tables count the codes of each source, so a record of the other source would show."""
    counts = {}
    for part in ("scored", "unscored"):
        with open(shared_data_dir / "metadata" / "cinc2021" / f"dx_mapping_{part}.csv", newline="") as file:
            counts |= {row["SNOMEDCTCode"]: row for row in csv.DictReader(file)}
    column = {"chapman-shaoxing": "Chapman_Shaoxing", "ningbo": "Ningbo"}[corpus]
    rows = list(load_ecg(corpus, shared_data_dir / "cinc2021", split="all", streaming=True, decode=False))
    assert len(rows) == {"chapman-shaoxing": 19, "ningbo": 66}[corpus]
    codes = {code for row in rows for code in row["snomed_codes"]}
    assert {code for code in codes if code not in counts} <= {"251238007"}  # one record has a code of no table
    assert all(int(counts[code][column]) for code in codes & set(counts))
