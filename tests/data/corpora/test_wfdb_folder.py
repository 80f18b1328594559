import logging
import shutil

import numpy as np
import pytest

from ecg_transformers.data import BadRecordError, bad_records, load_ecg, read_report
from ecg_transformers.data.corpora.wfdb_folder import parse_comments


def load(folder, tmp_path, **options):
    return load_ecg("wfdb", folder, cache_dir=tmp_path / "cache", **options)


@pytest.fixture
def folder(write_record, tmp_path):
    """Six sound records in two folders, and one of each kind of damage."""
    for number in range(6):
        write_record(f"sound{number}", folder="records/a" if number % 2 else "records/b")
    write_record("truncated").with_suffix(".dat").write_bytes(bytes(10))
    write_record("lost").with_suffix(".dat").unlink()
    write_record("empty").with_suffix(".hea").write_text("")
    write_record("damaged", checksums=[1, 2])
    escaping = write_record("escaping").with_suffix(".hea")
    escaping.write_text(escaping.read_text().replace("escaping.dat", "../escaping.dat"))
    steps = np.zeros((2, 50))
    steps[0, :3] = -32768
    write_record("gaps", steps=steps)
    return tmp_path / "records"


def test_folder_loads_recursively_with_labels_of_the_dx_line(wfdb_fixtures, tmp_path):
    row = load(wfdb_fixtures / "cinc", tmp_path)[0]
    assert row["record_id"] == "E00015"
    assert row["labels"] == ["426783006", "164934002"]
    assert (row["age"], row["sex"], row["fold"], row["source"]) == (71.0, "male", None, "wfdb")
    assert row["ecg"]["leads"][3] == "aVR"


def test_records_without_a_dx_line_have_no_labels(ptb_xl_folder, tmp_path):
    dataset = load(ptb_xl_folder, tmp_path)
    assert dataset["record_id"][0] == "records100/00000/00001_lr"
    assert dataset["labels"][:] == [[]] * 5


@pytest.mark.parametrize(
    ("comments", "expected"),
    [
        (["Age: 47", "Sex: Female", "Dx: 1,2"], {"age": 47.0, "sex": "female", "labels": ["1", "2"]}),
        (["<age>: 71", "<sex>: M", "<diagnoses>:"], {"age": 71.0, "sex": "male", "labels": []}),
        (["69 M 1085 1629 x1", "Aldomet, Inderal"], {"age": 69.0, "sex": "male", "labels": []}),
        (["Age: NaN", "Sex: Unknown", "Dx: Unknown"], {"labels": []}),
        (["Patient ID: 507884", "Age: -1"], {"patient_id": "507884", "labels": []}),
        ([], {"labels": []}),
    ],
)
def test_header_comments_are_understood(comments, expected):
    assert parse_comments(comments) == expected


def test_broken_records_are_reported_by_name_and_reason_and_left_out(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = load(folder, tmp_path)
    assert len(dataset) == 7
    reasons = {record.record_id: record.reason for record in bad_records(dataset) if not record.kept}
    assert set(reasons) == {"truncated", "lost", "empty", "damaged", "escaping"}
    assert "Checksum" in reasons["damaged"]
    assert "not inside the folder" in reasons["escaping"]
    assert "5 records could not be read" in caplog.text
    assert "damaged (Checksum" in caplog.text


def test_record_with_missing_samples_is_reported_and_kept_with_nan(folder, tmp_path):
    dataset = load(folder, tmp_path)
    assert [record for record in bad_records(dataset) if record.kept] == [
        ("gaps", "3 of 100 samples are missing", True)
    ]
    row = next(row for row in dataset if row["record_id"] == "gaps")
    assert np.isnan(row["ecg"]["signal"]).sum() == 3


def test_report_does_not_depend_on_processes_or_streaming(folder, tmp_path):
    expected = bad_records(load(folder, tmp_path))
    assert bad_records(load_ecg("wfdb", folder, cache_dir=tmp_path / "other", num_proc=2)) == expected
    rows = list(load(folder, tmp_path, streaming=True, report_path=tmp_path / "stream.jsonl"))
    assert len(rows) == 7
    assert read_report(tmp_path / "stream.jsonl") == expected


@pytest.mark.parametrize("options", [{}, {"streaming": True}, {"num_proc": 2}])
def test_raise_stops_at_the_first_broken_record(folder, tmp_path, options):
    with pytest.raises(ValueError, match="Record damaged: Checksum"):
        list(load(folder, tmp_path, on_bad_record="raise", **options))


def test_raise_does_not_accept_a_cache_that_was_made_with_report(folder, tmp_path):
    load(folder, tmp_path)
    with pytest.raises(BadRecordError, match="Record damaged"):
        load(folder, tmp_path, on_bad_record="raise")


def test_changed_folder_is_not_served_from_the_cache(write_record, tmp_path):
    write_record("one", steps=np.ones((2, 10)))
    assert len(load(tmp_path / "records", tmp_path)) == 1
    write_record("one", steps=np.full((2, 10), 2))
    write_record("two")
    dataset = load(tmp_path / "records", tmp_path)
    assert dataset["record_id"][:] == ["one", "two"]
    np.testing.assert_allclose(dataset[0]["ecg"]["signal"], 0.002, rtol=1e-6)


def test_unchanged_folder_is_served_from_the_cache(write_record, tmp_path):
    write_record("one")
    first = load(tmp_path / "records", tmp_path)
    assert load(tmp_path / "records", tmp_path).cache_files == first.cache_files


def test_same_files_in_another_folder_are_another_dataset(write_record, tmp_path):
    write_record("one")
    first = load(tmp_path / "records", tmp_path)
    copy = shutil.copytree(tmp_path / "records", tmp_path / "copy")
    assert load(copy, tmp_path).cache_files != first.cache_files


def test_channels_are_renamed_on_request(write_record, tmp_path):
    write_record("one", leads=("MLII", "V5"))
    assert load(tmp_path / "records", tmp_path)[0]["ecg"]["leads"] == ["MLII", "V5"]
    renamed = load(tmp_path / "records", tmp_path, rename_leads={"MLII": "II"})
    assert renamed[0]["ecg"]["leads"] == ["II", "V5"]


def test_folder_without_headers_is_refused(tmp_path):
    (tmp_path / "void").mkdir()
    with pytest.raises(ValueError, match="no WFDB headers"):
        load(tmp_path / "void", tmp_path)


def test_folder_without_a_readable_record_is_refused_with_reasons(write_record, tmp_path):
    write_record("lost").with_suffix(".dat").unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match="No record of .* lost .Cannot read"):
            load(tmp_path / "records", tmp_path)


def test_segments_of_a_record_do_not_come_a_second_time(write_record, tmp_path):
    write_record("part1", steps=np.ones((2, 50)))
    write_record("part2", steps=np.full((2, 50), 2))
    write_record("other/part1")
    whole = write_record("whole").with_suffix(".hea")
    whole.write_text("# a comment\nwhole/2 2 100 100\npart1 50\npart2 50\n")
    dataset = load(tmp_path / "records", tmp_path)
    assert dataset["record_id"][:] == ["other/part1", "whole"]
    assert dataset[1]["ecg"]["signal"].shape == (2, 100)


def test_linked_folders_are_read_once_and_looked_at_for_changes(write_record, tmp_path):
    write_record("here", steps=np.ones((2, 10)))
    write_record("there", folder="elsewhere", steps=np.ones((2, 10)))
    (tmp_path / "records" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "records", target_is_directory=True)
    assert load(tmp_path / "records", tmp_path)["record_id"][:] == ["here", "link/there"]
    write_record("there", folder="elsewhere", steps=np.full((2, 10), 2))
    dataset = load(tmp_path / "records", tmp_path)
    np.testing.assert_allclose(dataset[1]["ecg"]["signal"], 0.002, rtol=1e-6)
