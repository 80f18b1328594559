"""A record that cannot be read is a bad record; a folder or most files that are gone are no corpus."""

import shutil

import pytest

from ecg_transformers.data import load_ecg, prepare_corpus
from ecg_transformers.data.bad_record_report import CorpusGoneError, read_report

NUM_RECORDS = 40


@pytest.fixture
def folder(tmp_path):
    """WFDB records of one lead and a tenth of a second."""
    folder = tmp_path / "records"
    folder.mkdir()
    for number in range(NUM_RECORDS):
        name = f"r{number:02d}"
        (folder / f"{name}.hea").write_text(f"{name} 1 100 10\n{name}.dat 16 1000/mV 16 0 0 0 0 II\n")
        (folder / f"{name}.dat").write_bytes(bytes(20))
    return folder


def remove(folder, numbers, suffix):
    for number in numbers:
        (folder / f"r{number:02d}{suffix}").unlink()


def stream(folder, **options):
    return load_ecg("wfdb", data_dir=folder, split="train", streaming=True, decode=False, **options)


@pytest.mark.parametrize("suffix", [".dat", ".hea"])
def test_a_stream_whose_files_vanish_stops(folder, suffix):
    rows = iter(stream(folder))
    next(rows)
    remove(folder, range(2, NUM_RECORDS), suffix)
    with pytest.raises(CorpusGoneError, match=r"files of \d+ of \d+ records are not there"):
        list(rows)


def test_a_stream_whose_folder_vanishes_stops_at_once(folder):
    rows = iter(stream(folder))
    next(rows)
    shutil.rmtree(folder)
    with pytest.raises(CorpusGoneError, match="The folder of the corpus, .*records, is gone"):
        next(rows)


def test_some_missing_files_are_bad_records(folder, tmp_path):
    remove(folder, range(0, NUM_RECORDS, 3), ".dat")
    rows = list(stream(folder, report_path=tmp_path / "bad.jsonl"))
    assert len(rows) == 26 and len(read_report(tmp_path / "bad.jsonl")) == 14


def test_records_that_are_there_and_cannot_be_read_are_bad_however_many(folder, tmp_path):
    for number in range(1, NUM_RECORDS):
        (folder / f"r{number:02d}.dat").write_bytes(b"")
    rows = list(stream(folder, report_path=tmp_path / "bad.jsonl"))
    assert len(rows) + len(read_report(tmp_path / "bad.jsonl")) >= NUM_RECORDS


@pytest.mark.parametrize("what", ["cache", "prepared"])
def test_a_corpus_without_most_of_its_files_is_not_stored(folder, tmp_path, what):
    remove(folder, range(2, NUM_RECORDS), ".dat")
    with pytest.raises(CorpusGoneError, match="files of 38 of 40 records"):
        if what == "cache":
            load_ecg("wfdb", data_dir=folder, split="train", cache_dir=tmp_path / "cache")
        else:
            prepare_corpus("wfdb", folder, tmp_path / "prepared")
