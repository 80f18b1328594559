import json
import os
import subprocess
import sys

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from ecg_transformers.data import label_names, load_ecg, prepare_corpus

from .conftest import QuietHandler


@pytest.fixture
def prepared(write_record, tmp_path):
    """13 records in 12 shards: 12 % 3 == 0, 12 % 5 != 0."""
    for number in range(13):
        write_record(f"r{number:02d}", steps=np.arange(100).reshape(2, 50) + number)
    prepare_corpus("wfdb", tmp_path / "records", tmp_path / "prepared")
    return tmp_path / "prepared"


@pytest.fixture
def few_shards(write_record, tmp_path):
    """5 records in 4 shards: less shards than workers of some ranks, one with two records."""
    for number in range(5):
        write_record(f"r{number:02d}", folder="few")
    prepare_corpus("wfdb", tmp_path / "few", tmp_path / "prepared-few")
    return tmp_path / "prepared-few"


EVERY_ID = [f"r{number:02d}" for number in range(13)]


def stream(location, **options):
    return load_ecg("prepared", location, streaming=True, decode=False, **options)


def ids(rows):
    return [row["record_id"] for row in rows]


def copy_to_memory(folder):
    """The folder at a `memory://` URL of its own."""
    url = f"memory://{folder.name}-{os.urandom(4).hex()}"
    file_system = fsspec.filesystem("memory")
    for path in folder.iterdir():
        file_system.pipe_file(f"{url}/{path.name}", path.read_bytes())
    return url


class RangeHandler(QuietHandler):
    """A static server that answers requests for a part of a file, as object stores do."""

    def send_head(self):
        asked = self.headers.get("Range")
        path = self.translate_path(self.path)
        if asked is None or not os.path.isfile(path):
            return super().send_head()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        size = os.path.getsize(path)
        first, last = int(first), min(int(last) if last else size - 1, size - 1)
        file = open(path, "rb")  # noqa: SIM115, the caller closes it
        file.seek(first)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.remaining = last - first + 1
        return file

    def copyfile(self, source, outputfile):
        outputfile.write(source.read(getattr(self, "remaining", -1)))


def test_folder_and_stream_hold_the_same_rows(prepared, tmp_path):
    stored = load_ecg("prepared", prepared, cache_dir=tmp_path / "cache")
    streamed = list(load_ecg("prepared", prepared, streaming=True))
    assert ids(streamed) == stored["record_id"] == EVERY_ID
    for row, other in zip(streamed, stored, strict=True):
        np.testing.assert_array_equal(row["ecg"]["signal"], other["ecg"]["signal"])
    assert stored[7]["ecg"]["signal"].dtype == np.float32
    assert stored[7]["ecg"]["unit"] == "mV"
    assert stored.cache_files  # memory-mapped Arrow


def test_splits_are_those_that_were_prepared(ptb_xl_folder, tmp_path):
    prepare_corpus("ptb-xl", ptb_xl_folder, tmp_path / "out")
    for split, count in (("train", 3), ("validation", 1), ("test", 1), ("all", 5)):
        assert len(list(stream(tmp_path / "out", split=split))) == count
        assert len(load_ecg("prepared", tmp_path / "out", split=split, cache_dir=tmp_path / "cache")) == count
    with pytest.raises(ValueError, match=r"Unknown split 'dev'.*\['train', 'validation', 'test', 'all'\]"):
        stream(tmp_path / "out", split="dev")


def test_classes_come_from_the_manifest(ptb_xl_folder, prepared, tmp_path):
    prepare_corpus("ptb-xl", ptb_xl_folder, tmp_path / "out", task="rhythm")
    assert label_names("prepared", data_dir=tmp_path / "out") == label_names("ptb-xl", task="rhythm")
    with pytest.raises(ValueError, match="declares no classes"):
        label_names("prepared", data_dir=prepared)


@pytest.mark.parametrize("scheme", ["path", "file", "memory", "http", "http-without-ranges"])
def test_prepared_corpus_loads_from_any_url(few_shards, serve, tmp_path, scheme):
    location = {
        "path": lambda: str(few_shards),
        "file": lambda: few_shards.as_uri(),
        "memory": lambda: copy_to_memory(few_shards),
        "http": lambda: serve(few_shards, RangeHandler),
        "http-without-ranges": lambda: serve(few_shards),
    }[scheme]()
    expected = list(stream(few_shards))
    assert list(stream(location, verify=True)) == expected
    assert list(load_ecg("prepared", location, decode=False, cache_dir=tmp_path / "cache")) == expected


def test_relative_folder_is_found_by_workers(few_shards, monkeypatch):
    monkeypatch.chdir(few_shards.parent)
    dataset = stream(few_shards.name)
    monkeypatch.chdir("/")
    assert ids(dataset) == EVERY_ID[:5]


@pytest.mark.parametrize(
    ("world_size", "num_workers"),
    [(1, 0), (2, 0), (3, 0), (5, 0), (2, 2), *(pytest.param(size, 2, marks=pytest.mark.slow) for size in (1, 3, 5))],
)
def test_ranks_and_workers_read_every_record_once(prepared, world_size, num_workers):
    seen = []
    for rank in range(world_size):
        dataset = split_dataset_by_node(stream(prepared), rank=rank, world_size=world_size)
        loader = DataLoader(dataset, batch_size=4, num_workers=num_workers, collate_fn=ids)
        seen += [record_id for batch in loader for record_id in batch]
    assert sorted(seen) == EVERY_ID


@pytest.mark.parametrize(("world_size", "num_workers", "epoch"), [(1, 2, 1), (3, 2, 0), (3, 2, 2), (6, 0, 1)])
def test_few_shards_are_read_once_too_in_every_epoch(few_shards, world_size, num_workers, epoch):
    seen = []
    for rank in range(world_size):
        dataset = stream(few_shards)
        dataset.set_epoch(epoch)
        dataset = split_dataset_by_node(dataset, rank=rank, world_size=world_size)
        loader = DataLoader(dataset, batch_size=4, num_workers=num_workers, collate_fn=ids)
        seen += [record_id for batch in loader for record_id in batch]
    assert sorted(seen) == EVERY_ID[:5]


@pytest.mark.parametrize(("world_size", "epoch"), [(1, 0), (1, 2), (2, 0), (5, 0), (5, 1)])
def test_interrupted_stream_goes_on_where_it_stopped(prepared, world_size, epoch):
    def of_rank():
        dataset = stream(prepared)
        dataset.set_epoch(epoch)
        return split_dataset_by_node(dataset, rank=world_size - 1, world_size=world_size)

    whole = ids(of_rank())
    for stop in (1, len(whole) - 1):
        dataset = of_rank()
        iterator = iter(dataset)
        first = [next(iterator)["record_id"] for _ in range(stop)]
        resumed = of_rank()
        resumed.load_state_dict(dataset.state_dict())
        assert first + ids(resumed) == whole


def test_unfinished_folder_is_refused_with_the_cure(prepared):
    (prepared / "manifest.json").unlink()
    for streaming in (False, True):
        with pytest.raises(ValueError, match="unfinished.*Run the same `ecg-transformers prepare` again"):
            load_ecg("prepared", prepared, streaming=streaming)


def test_what_is_no_prepared_corpus_is_refused(ptb_xl_folder, tmp_path, serve):
    with pytest.raises(ValueError, match="holds no prepared corpus"):
        load_ecg("prepared", ptb_xl_folder)
    with pytest.raises(ValueError, match="There is no folder .*nowhere"):
        load_ecg("prepared", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="There is no folder http"):
        load_ecg("prepared", f"{serve(tmp_path)}/nowhere")
    with pytest.raises(ValueError, match="Expected a folder or a URL"):
        load_ecg("prepared", "gopher3://host/folder")
    with pytest.raises(ValueError, match="needs data_dir"):
        load_ecg("prepared")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "x"},
        {"format_version": 2},
        {"splits": None},
        {"splits": {"train": [{"file": "x"}]}},
        {"splits": {"train": [{"file": 1, "num_records": 1, "num_bytes": 1, "sha256": ""}]}},
        {"splits": {"../train": []}},
        {"splits": {"train": []}},
        {"licence": 5},
        {"label_names": 5},
        {"label_names": "AF"},
    ],
)
def test_manifest_of_another_form_is_refused(prepared, change):
    path = prepared / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="is no manifest of a prepared corpus"):
        load_ecg("prepared", prepared)


def test_damage_is_found_on_request_and_when_it_is_read(prepared):
    shard = prepared / "train-00003-of-00012.parquet"
    content = bytearray(shard.read_bytes())
    content[60] ^= 1  # in the first page
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="train-00003.*is damaged: its SHA-256"):
        stream(prepared, verify=True)
    with pytest.raises(ValueError, match="Cannot read shard .*train-00003"):
        list(stream(prepared))


def test_a_missing_shard_is_an_error(prepared):
    (prepared / "train-00011-of-00012.parquet").unlink()
    with pytest.raises(ValueError, match="Cannot read shard .*train-00011.*FileNotFoundError"):
        stream(prepared, verify=True)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda shards: shards[0].update(num_records=shards[0]["num_records"] + 1), "Expected [23] records in shard"),
        (lambda shards: shards.append(dict(shards[0])), "shards twice"),
        *[
            (lambda shards, name=name: shards[0].update(file=name), "is not inside")
            for name in ("../outside.parquet", "/etc/outside.parquet", "a/../../outside.parquet")
        ],
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
def test_a_manifest_that_lies_is_told_in_our_words(few_shards, tmp_path, edit, sentence, streaming):
    path = few_shards / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest["splits"]["train"])
    path.write_text(json.dumps(manifest))
    for location in (few_shards, few_shards.as_uri()):
        with pytest.raises(ValueError, match=sentence):
            list(load_ecg("prepared", location, streaming=streaming, cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("place", [4, -30, -4])
def test_a_damaged_shard_is_told_in_our_words(few_shards, tmp_path, place, streaming):
    shard = sorted(few_shards.glob("*.parquet"))[-1]
    content = bytearray(shard.read_bytes())
    content[place : place + 4 or None] = b"\xff" * 4
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="shard|Shard"):
        list(load_ecg("prepared", few_shards, streaming=streaming, cache_dir=tmp_path / "cache"))


def test_a_shard_that_unpacks_to_much_more_is_refused(few_shards):
    shard = sorted(few_shards.glob("*.parquet"))[0]
    table = pq.read_table(shard)
    ecg = table["ecg"].to_pylist()
    ecg[0]["signal"] = bytes(2**26 + 2)
    column = table.schema.get_field_index("ecg")
    table = table.set_column(column, "ecg", pa.array(ecg, table["ecg"].type))
    pq.write_table(table, shard, compression="zstd")
    assert shard.stat().st_size < 2**20
    with pytest.raises(ValueError, match="would unpack"):
        list(stream(few_shards))


def test_options_that_belong_to_prepare_are_refused(prepared):
    with pytest.raises(ValueError, match=r"Unknown options \['task'\].*chosen when it was prepared"):
        load_ecg("prepared", prepared, task="form")
    with pytest.raises(ValueError, match="report_path"):
        load_ecg("prepared", prepared, report_path="x")


def test_prepared_again_elsewhere_the_cache_serves_the_new_content(few_shards, write_record, tmp_path):
    assert len(load_ecg("prepared", few_shards, cache_dir=tmp_path / "cache")) == 5
    write_record("r05", folder="few")
    prepare_corpus("wfdb", tmp_path / "few", tmp_path / "second")
    for path in few_shards.iterdir():
        path.unlink()
    for path in (tmp_path / "second").iterdir():
        path.rename(few_shards / path.name)
    assert len(load_ecg("prepared", few_shards, cache_dir=tmp_path / "cache")) == 6


@pytest.mark.slow  # a process of its own
def test_a_program_may_end_in_the_middle_of_a_stream_without_complaint(prepared):
    code = (
        "from ecg_transformers.data import load_ecg\n"
        f"rows = iter(load_ecg('prepared', {str(prepared)!r}, streaming=True))\n"
        "print(next(rows)['record_id'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert (ended.stdout.strip(), "ignored" in ended.stderr) == ("r00", False), ended.stderr
