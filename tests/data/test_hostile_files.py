"""What lies in the place of recordings: pipes, links to themselves, devices, files with holes, odd names."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecg_transformers.data import load_ecg, read_recording
from ecg_transformers.data.bad_record_report import MAX_REASON, BadRecord, append_report, read_report

RECORDS = Path(__file__).parents[1] / "fixtures" / "wfdb" / "ptb-xl" / "records100" / "00000"
SECONDS = 20


def pipe(path):
    os.mkfifo(path)


def link_to_itself(path):
    path.symlink_to(path.name)


def device(path):
    path.symlink_to("/dev/zero")


def with_holes(path):
    with open(path, "wb") as file:
        file.truncate(20 * 2**30)


def folder(path):
    path.mkdir()


@pytest.fixture
def records(tmp_path):
    for name in ("00001_lr", "00002_lr"):
        for ending in (".hea", ".dat"):
            shutil.copy(RECORDS / f"{name}{ending}", tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def in_time():
    """A read that waits for ever fails instead."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)


ENDINGS = (".hea", ".dat")
OTHERS = ("x.npy", "x.csv", "x.edf", "x.dcm", "x.xml", "x.parquet")


@pytest.mark.parametrize("make", [pipe, link_to_itself, device, with_holes, folder])
@pytest.mark.parametrize("name", [*(f"00001_lr{ending}" for ending in ENDINGS), *OTHERS])
def test_what_is_no_file_is_refused_in_time(records, make, name):
    path = records / name
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises(ValueError):
        read_recording(records / "00001_lr.hea" if name.endswith(ENDINGS) else path)


@pytest.mark.parametrize("make", [pipe, link_to_itself, with_holes])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_corpus_goes_on_without_it_and_names_it(records, make, ending, tmp_path_factory):
    path = records / f"00001_lr{ending}"
    path.unlink()
    make(path)
    report = tmp_path_factory.mktemp("report") / "bad.jsonl"
    rows = load_ecg("wfdb", data_dir=records, streaming=True, report_path=report)
    assert [row["record_id"] for row in rows] == ["00002_lr"]
    assert [bad.record_id for bad in read_report(report)] == ["00001_lr"]


def test_a_name_that_is_no_text_stops_no_corpus(records, tmp_path_factory):
    shutil.copy(records / "00001_lr.hea", os.fsencode(records) + b"/\xff\xfe.hea")
    report = tmp_path_factory.mktemp("report") / "bad.jsonl"
    rows = load_ecg("wfdb", data_dir=records, streaming=True, report_path=report)
    assert {"00001_lr", "00002_lr"} <= {row["record_id"] for row in rows}
    assert "not UTF-8" in read_report(report)[0].reason


def test_a_reason_is_cut(tmp_path):
    append_report(tmp_path / "bad.jsonl", [BadRecord("a", "lead " * 10**6, False)])
    (found,) = read_report(tmp_path / "bad.jsonl")
    assert len(found.reason) <= MAX_REASON + 5 and found.reason.startswith("lead")


def test_columns_that_unpack_to_much_more_are_refused(tmp_path):
    pq.write_table(pa.table({"II": pa.array(np.zeros(10**7, np.float32))}), tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 10**5
    with pytest.raises(ValueError, match="would unpack to 80000000"):
        read_recording(tmp_path / "x.parquet", sampling_rate=500, unit="mV")
