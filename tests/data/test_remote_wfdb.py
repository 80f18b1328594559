import os

import fsspec
import numpy as np
import pytest
from datasets.distributed import split_dataset_by_node

from ecg_transformers.data import load_ecg, remote_wfdb
from ecg_transformers.data.bad_record_report import BadRecordError, read_report

from .conftest import QuietHandler


@pytest.fixture
def records(write_record, tmp_path):
    """Seven records in two folders, listed as PhysioNet lists them."""
    for number in range(7):
        write_record(f"{'ab'[number % 2]}/r{number}", steps=np.arange(100).reshape(2, 50) + number)
    for name in "ab":
        folder = tmp_path / "records" / name
        (folder / "RECORDS").write_text("".join(f"{path.stem}\n" for path in folder.glob("*.hea")))
    (tmp_path / "records" / "RECORDS").write_text("a/\nb/\n")
    return tmp_path / "records"


def in_memory(folder):
    url = f"memory://wfdb-{os.urandom(4).hex()}"
    for path in folder.rglob("*"):
        if path.is_file():
            fsspec.filesystem("memory").pipe_file(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


def test_records_of_a_url_equal_those_of_the_folder(records):
    expected = list(load_ecg("wfdb", records, streaming=True, decode=False))
    assert list(load_ecg("wfdb", in_memory(records), streaming=True, decode=False)) == expected
    assert list(load_ecg("wfdb", f"{records.as_uri()}/", streaming=True, decode=False)) == expected


def test_a_record_name_may_have_the_folder_of_its_files(records):
    for path in (records / "a").glob("*.hea"):
        path.write_text(path.read_text().replace(path.stem, f"medians/{path.stem}"))
    expected = list(load_ecg("wfdb", records, streaming=True, decode=False))
    assert len(expected) == 7
    assert list(load_ecg("wfdb", in_memory(records), streaming=True, decode=False)) == expected


def test_records_stream_from_a_server(records, serve):
    rows = list(load_ecg("wfdb", f"{serve(records)}/", streaming=True))
    assert [row["record_id"] for row in rows] == ["a/r0", "a/r2", "a/r4", "a/r6", "b/r1", "b/r3", "b/r5"]
    assert rows[0]["ecg"]["signal"].shape == (2, 50)


class FailingHandler(QuietHandler):
    """Answers 500 so many times before it gives the signals of r2."""

    faults: int

    def do_GET(self):
        if self.path.endswith("a/r2.dat") and type(self).faults > 0:
            type(self).faults -= 1
            return self.send_error(500)
        return super().do_GET()


@pytest.mark.parametrize("faults", [2, 1000])
def test_a_fault_of_the_server_is_no_fault_of_a_record(records, serve, faults, monkeypatch):
    monkeypatch.setattr(remote_wfdb, "PAUSES_SECONDS", (0, 0, 0))
    handler = type("FailsSometimes", (FailingHandler,), {"faults": faults})
    stream = load_ecg("wfdb", f"{serve(records, handler)}/", streaming=True)
    if faults == 2:
        assert len(list(stream)) == 7
    else:
        with pytest.raises(RuntimeError, match="a/r2.dat could not be fetched in 4 tries"):
            list(stream)


def test_a_server_cannot_list_without_end(records, monkeypatch):
    monkeypatch.setattr(remote_wfdb, "MAX_LISTINGS", 20)
    (records / "RECORDS").write_text("".join(f"f{number}/\n" for number in range(40)))
    for number in range(40):
        (records / f"f{number}").mkdir()
        (records / f"f{number}" / "RECORDS").write_text("r\n")
    with pytest.raises(ValueError, match="Expected at most 20 lists"):
        load_ecg("wfdb", in_memory(records), streaming=True)


def test_multi_segment_records_are_fetched_whole(records):
    (records / "a" / "joined.hea").write_text("joined/2 2 100 100\nr0 50\nr2 50\n")
    (records / "RECORDS").write_text("a/joined\n")
    (row,) = load_ecg("wfdb", in_memory(records), streaming=True)
    rows = list(load_ecg("wfdb", records / "a", streaming=True))
    (expected,) = [row for row in rows if row["record_id"] == "joined"]
    assert row["ecg"]["signal"].shape == (2, 100)
    np.testing.assert_array_equal(row["ecg"]["signal"], expected["ecg"]["signal"])


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_read_every_record_once_and_go_on_where_they_stopped(records, world_size):
    url, seen = in_memory(records), []

    def of_rank(rank):
        dataset = load_ecg("wfdb", url, streaming=True, decode=False)
        return split_dataset_by_node(dataset, rank=rank, world_size=world_size)

    for rank in range(world_size):
        dataset = of_rank(rank)
        iterator = iter(dataset)
        first = [next(iterator)["record_id"]]
        resumed = of_rank(rank)
        resumed.load_state_dict(dataset.state_dict())
        seen += first + [row["record_id"] for row in resumed]
    assert sorted(seen) == ["a/r0", "a/r2", "a/r4", "a/r6", "b/r1", "b/r3", "b/r5"]


@pytest.mark.parametrize("fault", ["missing", "outside", "damaged"])
def test_bad_records_of_a_url_are_reported_by_name(records, tmp_path, fault, caplog):
    header, signal = records / "a" / "r2.hea", records / "a" / "r2.dat"
    if fault == "missing":
        signal.unlink()
    elif fault == "outside":
        header.write_text(header.read_text().replace("r2.dat", "../b/r1.dat"))
    else:
        signal.write_bytes(bytes(200))
    url = in_memory(records)
    rows = list(load_ecg("wfdb", url, streaming=True, report_path=tmp_path / "report"))
    assert len(rows) == 6 and "1 records could not be read and are left out: a/r2 (" in caplog.text
    (bad,) = read_report(tmp_path / "report")
    assert bad.record_id == "a/r2"
    reasons = {"missing": f"Cannot read {url}/a/r2.dat", "outside": "is not inside", "damaged": "Checksum"}
    assert reasons[fault] in bad.reason
    with pytest.raises(BadRecordError, match="Record a/r2"):
        list(load_ecg("wfdb", url, streaming=True, on_bad_record="raise"))


def test_list_of_records_is_needed_and_cannot_lead_out(records):
    (records / "a" / "RECORDS").write_text("../../r1\n")
    with pytest.raises(ValueError, match="is not inside"):
        load_ecg("wfdb", in_memory(records), streaming=True)
    (records / "a" / "RECORDS").unlink()
    with pytest.raises(ValueError, match="Cannot read .*a/RECORDS.*one name a line"):
        load_ecg("wfdb", in_memory(records), streaming=True)


def test_url_is_streamed_or_downloaded_first(records):
    with pytest.raises(ValueError, match="streaming=True.*or download"):
        load_ecg("wfdb", in_memory(records))
