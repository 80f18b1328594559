import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ecg_transformers.data import builder, load_ecg, prepare_corpus
from ecg_transformers.data.bad_record_report import BadRecordError, read_report
from ecg_transformers.data.prepared import read_manifest
from ecg_transformers.train.cli import main
from ecg_transformers.train.prepare import parse_options
from ecg_transformers.train.report.ecg_paper import draw_preview


@pytest.fixture
def records(write_record, tmp_path):
    """13 records: 12 shards."""
    for number in range(13):
        write_record(f"r{number:02d}", steps=np.arange(100).reshape(2, 50) + number)
    return tmp_path / "records"


def contents(folder):
    """File name → SHA-256 of everything in a folder, hidden files too."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def shard_files(folder):
    return sorted(path for path in folder.glob("*.parquet"))


def test_prepared_rows_equal_those_of_the_corpus(ptb_xl_folder, tmp_path):
    prepare_corpus("ptb-xl", ptb_xl_folder, tmp_path / "out", task="all")
    for split in ("train", "validation", "test"):
        prepared = load_ecg("prepared", tmp_path / "out", split=split, streaming=True, decode=False)
        corpus = load_ecg("ptb-xl", ptb_xl_folder, split=split, streaming=True, decode=False, task="all")
        assert list(prepared) == list(corpus)
        assert prepared.features == corpus.features


def test_manifest_says_what_was_prepared(ptb_xl_folder, tmp_path):
    prepare_corpus("ptb-xl", ptb_xl_folder, tmp_path / "out", task="form")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["corpus"] == "ptb-xl"
    assert manifest["options"] == {"task": "form", "sampling_rate": 100}
    assert manifest["licence"] == "CC BY 4.0"
    assert "Wagner" in manifest["citation"]
    assert len(manifest["label_names"]) == 19
    assert manifest["num_records"] == {"train": 3, "validation": 1, "test": 1}
    shard = manifest["splits"]["test"][0]
    content = (tmp_path / "out" / shard["file"]).read_bytes()
    assert shard == {
        "file": "test-00000-of-00001.parquet",
        "num_records": 1,
        "num_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_shards_read_with_pandas_as_the_card_shows(ptb_xl_folder, tmp_path):
    prepare_corpus("ptb-xl", ptb_xl_folder, tmp_path / "out")
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    found = {}
    before = os.getcwd()
    os.chdir(tmp_path / "out")
    try:
        exec(code, found)
    finally:
        os.chdir(before)
    row = load_ecg("ptb-xl", ptb_xl_folder, streaming=True).take(1)
    np.testing.assert_allclose(found["millivolts"], next(iter(row))["ecg"]["signal"], atol=1e-6)
    assert isinstance(found["rows"], pd.DataFrame)


@pytest.fixture(scope="module")
def pictures_once(wfdb_fixtures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    corpus = ["--dataset", "ptb-xl", "--data_dir", str(wfdb_fixtures / "ptb-xl")]
    assert main(["prepare", *corpus, "--output_dir", str(folder / "once"), "--preview_pictures"]) == 0
    return folder / "once"


@pytest.fixture
def pictures(pictures_once, tmp_path):
    return shutil.copytree(pictures_once, tmp_path / "pictures")


def test_datasets_shows_a_picture_of_each_recording(pictures, ptb_xl_folder, tmp_path):
    with_pictures = datasets.load_dataset(str(pictures), split="validation", cache_dir=tmp_path / "cache")
    (row,) = load_ecg("ptb-xl", ptb_xl_folder, split="validation", streaming=True)
    assert isinstance(with_pictures.features["preview"], datasets.Image)
    assert with_pictures[0]["preview"].format == "PNG"
    stored = with_pictures.cast_column("preview", datasets.Image(decode=False))[0]
    assert stored["preview"]["bytes"] == draw_preview(row["ecg"]) and stored["record_id"] == row["record_id"]


@pytest.mark.parametrize("streaming", [True, False])
def test_pictures_are_not_read_by_load_ecg(pictures, ptb_xl_folder, tmp_path, streaming):
    for shard in shard_files(pictures):  # a page that were read would not have its checksum
        column = pq.ParquetFile(shard).metadata.row_group(0).column(0)
        assert column.path_in_schema == "preview.bytes"
        content = bytearray(shard.read_bytes())
        content[column.data_page_offset + column.total_compressed_size - 1] ^= 1
        shard.write_bytes(content)
    where = {"split": "train", "decode": False, "streaming": streaming}
    prepared = load_ecg("prepared", pictures, cache_dir=tmp_path / "cache", **where)
    corpus = load_ecg("ptb-xl", ptb_xl_folder, cache_dir=tmp_path / "cache", **where)
    assert list(prepared) == list(corpus) and prepared.features == corpus.features
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(shard, page_checksum_verification=True).read()


def test_a_folder_without_pictures_is_another_conversion(pictures, ptb_xl_folder):
    before = contents(pictures)
    with pytest.raises(ValueError, match="holds another conversion"):
        prepare_corpus("ptb-xl", ptb_xl_folder, pictures)
    assert contents(pictures) == before


def test_a_recording_of_which_nothing_is_drawn_has_no_picture(records, tmp_path):
    prepare_corpus("wfdb", records, tmp_path / "out", draw_preview=lambda ecg: None)
    with_pictures = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=tmp_path / "cache")
    assert len(with_pictures) == 13 and set(with_pictures["preview"]) == {None}


@pytest.mark.slow  # processes import everything again
def test_bytes_do_not_depend_on_processes_or_where_the_corpus_lies(records, tmp_path):
    prepare_corpus("wfdb", records, tmp_path / "one")
    moved = records.rename(tmp_path / "moved")
    prepare_corpus("wfdb", moved, tmp_path / "two", num_proc=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(shard_files(tmp_path / "one")) == 12


def test_tasks_of_an_array_in_any_order_give_the_same_bytes(records, tmp_path):
    prepare_corpus("wfdb", records, tmp_path / "whole")
    tasks = list(range(5))
    random.Random(1).shuffle(tasks)
    for task in tasks:
        assert prepare_corpus("wfdb", records, tmp_path / "array", shard_index=task, num_shards=5) is None
        with pytest.raises(ValueError, match="unfinished"):
            load_ecg("prepared", tmp_path / "array")
    times = {path: path.stat().st_mtime_ns for path in shard_files(tmp_path / "array")}
    prepare_corpus("wfdb", records, tmp_path / "array")
    assert contents(tmp_path / "array") == contents(tmp_path / "whole")
    assert times == {path: path.stat().st_mtime_ns for path in shard_files(tmp_path / "array")}


@pytest.mark.parametrize(("index", "number"), [(5, 5), (-1, 5), (None, 5), (0, None)])
def test_task_numbers_that_are_none_are_refused(records, tmp_path, index, number):
    with pytest.raises(ValueError, match="shard_index from 0 to num_shards - 1"):
        prepare_corpus("wfdb", records, tmp_path / "out", shard_index=index, num_shards=number)


def test_damaged_and_missing_shards_are_written_again_and_whole_ones_kept(records, tmp_path):
    prepare_corpus("wfdb", records, tmp_path / "out")
    before = contents(tmp_path / "out")
    kept, cut, flipped, gone, *_ = shard_files(tmp_path / "out")
    time_of_kept = kept.stat().st_mtime_ns
    cut.write_bytes(cut.read_bytes()[:-100])
    content = bytearray(flipped.read_bytes())
    content[60] ^= 1  # in the first page
    flipped.write_bytes(content)
    gone.unlink()
    (tmp_path / "out" / ".train-00000-of-00012.parquet.0.part").write_bytes(b"half")
    prepare_corpus("wfdb", records, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    assert kept.stat().st_mtime_ns == time_of_kept


@pytest.mark.parametrize("change", ["corpus", "option", "records", "split"])
def test_folder_of_another_conversion_is_refused(ptb_xl_folder, records, tmp_path, change):
    prepare_corpus("ptb-xl", ptb_xl_folder, tmp_path / "out")
    before = contents(tmp_path / "out")
    again = {"name": "ptb-xl", "data_dir": ptb_xl_folder}
    if change == "corpus":
        again = {"name": "wfdb", "data_dir": records}
    elif change == "option":
        again["task"] = "form"
    elif change == "split":
        again["split"] = "test"
    else:
        table = ptb_xl_folder / "ptbxl_database.csv"
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    for unfinished in (False, True):
        if unfinished:
            (tmp_path / "out" / "manifest.json").unlink()
            before.pop("manifest.json")
        with pytest.raises(ValueError, match="another conversion.*Give another output_dir"):
            prepare_corpus(output_dir=tmp_path / "out", **again)
        assert contents(tmp_path / "out") == before
    (tmp_path / "others").mkdir()
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "others" / "mine.parquet")
    with pytest.raises(ValueError, match="mine.parquet belongs to another conversion"):
        prepare_corpus(output_dir=tmp_path / "others", **again)


def test_bad_records_are_reported_and_the_report_outlives_an_interruption(records, write_record, tmp_path):
    write_record("r05", checksums=[1, 2])
    write_record("r10", steps=[[-32768] + [0] * 49, [0] * 50])
    for task in (1, 0):
        prepare_corpus("wfdb", records, tmp_path / "out", shard_index=task, num_shards=2)
    manifest = prepare_corpus("wfdb", records, tmp_path / "out", num_proc=1)
    report = read_report(tmp_path / "out" / "bad_records.jsonl")
    assert [(record.record_id, record.kept) for record in report] == [("r05", False), ("r10", True)]
    assert manifest.num_bad_records == 2
    assert sum(shard.num_records for shard in manifest.splits["train"]) == 12
    with pytest.raises(BadRecordError, match="names 2 records"):
        load_ecg("prepared", tmp_path / "out", on_bad_record="raise")


def test_record_that_is_mended_comes_with_the_next_call(records, write_record, tmp_path):
    write_record("r05", checksums=[1, 2])
    prepare_corpus("wfdb", records, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in shard_files(tmp_path / "out")}
    prepare_corpus("wfdb", records, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in shard_files(tmp_path / "out")} == before
    write_record("r05", steps=np.arange(100).reshape(2, 50))
    manifest = prepare_corpus("wfdb", records, tmp_path / "out")
    assert manifest.num_bad_records == 0
    assert sum(shard.num_records for shard in manifest.splits["train"]) == 13
    assert sum(path.stat().st_mtime_ns != time for path, time in before.items()) == 1


@pytest.mark.parametrize("num_proc", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_first_bad_record_stops_the_conversion_on_request(records, write_record, tmp_path, num_proc):
    write_record("r05", checksums=[1, 2])
    with pytest.raises(BadRecordError, match="Record r05: Checksum"):
        prepare_corpus("wfdb", records, tmp_path / "out", on_bad_record="raise", num_proc=num_proc)
    with pytest.raises(ValueError, match="unfinished"):
        load_ecg("prepared", tmp_path / "out")
    prepare_corpus("wfdb", records, tmp_path / "out")
    with pytest.raises(BadRecordError, match="r05"):
        prepare_corpus("wfdb", records, tmp_path / "out", on_bad_record="raise")


def test_corpus_of_which_nothing_can_be_read_makes_no_manifest(write_record, tmp_path):
    write_record("r0", checksums=[1, 2])
    with pytest.raises(ValueError, match="No record of .* can be read. 1 records could not be read.*r0"):
        prepare_corpus("wfdb", tmp_path / "records", tmp_path / "out")
    with pytest.raises(ValueError, match="unfinished"):
        load_ecg("prepared", tmp_path / "out")


def test_long_records_go_into_row_groups_of_few(write_record, tmp_path):
    import pyarrow.parquet as pq

    for number in range(3):
        write_record(f"r{number}")
    for number in (3, 4):  # both in the last of four shards
        write_record(f"r{number}", steps=np.zeros((2, 2_200_000), dtype=np.int16))
    prepare_corpus("wfdb", tmp_path / "records", tmp_path / "out")
    rows = [pq.ParquetFile(path).metadata.num_row_groups for path in shard_files(tmp_path / "out")]
    assert rows == [1, 1, 1, 2]


def test_unknown_corpus_split_and_carried_corpus_are_refused(records, tmp_path):
    for name, split, message in [
        ("wfbd", "all", "Unknown corpus"),
        ("wfdb", "test", "Unknown split 'test'"),
        ("ptb-xl-sample", "all", "carried by the package"),
    ]:
        with pytest.raises(ValueError, match=message):
            prepare_corpus(name, records, tmp_path / "out", split=split)


def prepare_until_killed(records, out, stage, count):
    """Runs in a process of its own, which is killed in its work, at the call number `count` of what `stage` says."""
    calls = 0

    def watched(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > count:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    if stage == "record":
        builder.RecordTable.add_group = watched(builder.RecordTable.add_group)
    elif stage == "fsync":  # every file is written in full, then synced, then renamed, then its folder is synced
        os.fsync = watched(os.fsync)
    else:
        os.replace = watched(os.replace)
    prepare_corpus("wfdb", records, out)


KILLED_WITH_WORKERS = """
import os, signal, sys, threading, time
from ecg_transformers.data import prepare, prepare_corpus

if __name__ == "__main__":
    source, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def kill_when_there():
        while sum(name.endswith(".parquet") for name in os.listdir(out)) < count:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    prepare.FEWEST_SHARD_RECORDS = 1
    os.makedirs(out, exist_ok=True)
    threading.Thread(target=kill_when_there, daemon=True).start()
    prepare_corpus("wfdb", source, out, num_proc=2)
"""


def check_what_was_killed(records, tmp_path):
    """What is there is right and stays, and the same call finishes the rest."""
    out = tmp_path / "out"
    prepare_corpus("wfdb", records, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    if not (out / "manifest.json").is_file():
        with pytest.raises(ValueError, match="no manifest.json"):
            load_ecg("prepared", out)
    there = {path: path.stat().st_mtime_ns for path in shard_files(out)}
    assert all(whole[path.name] == hashlib.sha256(path.read_bytes()).hexdigest() for path in there)
    prepare_corpus("wfdb", records, out)
    assert contents(out) == whole
    assert there == {path: path.stat().st_mtime_ns for path in there}
    return len(there)


@pytest.mark.parametrize(
    ("stage", "count", "num_shards"),
    [
        *(("record", 0, 0), ("record", 7, 7), ("replace", 0, 0), ("replace", 6, 6)),
        *(("fsync", 1, 1), ("fsync", 9, 5)),
        *(("fsync", count, 12) for count in (24, 26, 28, 29)),  # shards, then report, card and manifest
    ],
)
def test_killed_at_any_moment_it_goes_on_and_no_half_file_loads(records, tmp_path, stage, count, num_shards):
    (tmp_path / "out").mkdir()
    arguments = (records, tmp_path / "out", stage, count)
    child = multiprocessing.get_context("fork").Process(target=prepare_until_killed, args=arguments)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert check_what_was_killed(records, tmp_path) == num_shards


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
def test_killed_with_workers_it_goes_on(records, tmp_path, count):
    script = tmp_path / "killed.py"
    script.write_text(KILLED_WITH_WORKERS)
    arguments = [sys.executable, script, records, tmp_path / "out", str(count)]
    assert subprocess.run(arguments, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    time.sleep(1)  # its workers see that it is gone
    assert check_what_was_killed(records, tmp_path) >= count


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(records, tmp_path):
    import psutil

    script, out = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(KILLED_WITH_WORKERS)
    child = subprocess.Popen(
        [sys.executable, script, records, out, "1"], stderr=subprocess.DEVNULL, start_new_session=True
    )
    descendants = {}
    while child.poll() is None:
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == child.pid and process.pid != child.pid:
                    descendants[process.pid] = process
            except (psutil.Error, ProcessLookupError):
                continue
        time.sleep(0.02)
    assert len(descendants) >= 2
    _, alive = psutil.wait_procs(descendants.values(), timeout=10)
    assert not alive


def test_command_prepares_and_says_how_to_load(ptb_xl_folder, tmp_path, capfd):
    out = tmp_path / "out"
    arguments = ["prepare", "--dataset", "ptb-xl", "--data_dir", str(ptb_xl_folder), "--output_dir", str(out)]
    assert main([*arguments, "--options", "task=form", "sampling_rate=100"]) == 0
    assert 'load_ecg("prepared"' in capfd.readouterr().err
    assert read_manifest(out).options == {"task": "form", "sampling_rate": 100}
    assert main([*arguments, "--options", "task=rhythm"]) == 1
    assert "another conversion" in capfd.readouterr().err


def test_options_on_the_command_line_are_json_or_words():
    found = parse_options(["a=500", "b=form", 'c={"MLII": "II"}', "d=x=y"])
    assert found == {"a": 500, "b": "form", "c": {"MLII": "II"}, "d": "x=y"}
    for words in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(ValueError, match="key=value"):
            parse_options(words)
