import datasets
import pytest
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.builder import num_shards_of, shards_of


@pytest.fixture
def many_records(write_record, tmp_path):
    for number in range(50):
        write_record(f"r{number:02d}")
    return tmp_path / "records"


def test_corpora_are_refused_with_the_choices_and_a_suggestion(tmp_path):
    with pytest.raises(ValueError, match="Unknown corpus 'ptbxl'.*'ptb-xl', 'ptb-xl-sample'.*'wfdb'"):
        load_ecg("ptbxl")
    with pytest.raises(ValueError, match="Unknown corpus 'PTB_XL'. Did you mean 'ptb-xl'"):
        label_names("PTB_XL")
    with pytest.raises(ValueError, match="carried by the package"):
        load_ecg("ptb-xl-sample", tmp_path)
    with pytest.raises(ValueError, match="declares no classes"):
        label_names("wfdb")


@pytest.mark.parametrize("name", ["ptb-xl", "wfdb"])
def test_missing_folder_is_refused_with_source_and_licence(name, tmp_path):
    for data_dir in (None, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="physionet.org.*licence"):
            load_ecg(name, data_dir)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ptb-xl-sample", {"split": "dev"}, r"split 'dev'.*\['train', 'validation', 'test', 'all'\]"),
        ("wfdb", {"split": "test"}, r"split 'test'.*\['train', 'all'\]"),
        ("ptb-xl-sample", {"tasks": "form"}, r"Unknown options \['tasks'\].*'task'"),
        ("wfdb", {"task": "form"}, r"Unknown options \['task'\].*'rename_leads'"),
        ("ptb-xl-sample", {"task": "forms"}, "task='forms'.*'superdiagnostic'"),
        ("ptb-xl", {"sampling_rate": 250}, r"sampling_rate=250.*\[100, 500\]"),
        ("ptb-xl-sample", {"on_bad_record": "skip"}, "'report' or 'raise'"),
    ],
)
def test_unknown_options_are_refused_with_the_choices(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_ecg(name, **options)


def test_stream_equals_the_dataset_row_by_row(ptb_xl_folder, tmp_path):
    for split in ("train", "validation", "test", "all"):
        stored = load_ecg("ptb-xl", ptb_xl_folder, split=split, decode=False, cache_dir=tmp_path / "cache")
        streamed = load_ecg("ptb-xl", ptb_xl_folder, split=split, decode=False, streaming=True)
        assert list(streamed) == list(stored)


def test_undecoded_rows_hold_plain_bytes(ptb_xl_folder, tmp_path):
    dataset = load_ecg("ptb-xl", ptb_xl_folder, decode=False, cache_dir=tmp_path / "cache")
    assert len(dataset[0]["ecg"]["signal"]) == 2 * 12 * 1000
    assert "Ecg" not in str(dataset.features)


def test_dataset_carries_licence_and_citation(ptb_xl_folder, tmp_path):
    info = load_ecg("ptb-xl", ptb_xl_folder, cache_dir=tmp_path / "cache").info
    assert info.license == "CC BY 4.0"
    assert "Wagner" in info.citation


def test_processes_that_convert_share_the_records(many_records, tmp_path):
    dataset = load_ecg("wfdb", many_records, cache_dir=tmp_path / "cache", num_proc=2)
    assert sorted(dataset["record_id"]) == [f"r{number:02d}" for number in range(50)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_and_workers_read_every_record_once(many_records, world_size, num_workers):
    seen = []
    for rank in range(world_size):
        dataset = load_ecg("wfdb", many_records, streaming=True, decode=False)
        dataset = split_dataset_by_node(dataset, rank=rank, world_size=world_size)
        loader = DataLoader(dataset, batch_size=4, num_workers=num_workers, collate_fn=lambda rows: rows)
        seen += [row["record_id"] for batch in loader for row in batch]
    assert sorted(seen) == [f"r{number:02d}" for number in range(50)]


def test_ranks_get_whole_shards(many_records):
    dataset = load_ecg("wfdb", many_records, streaming=True)
    assert dataset.num_shards == 48
    assert split_dataset_by_node(dataset, rank=0, world_size=3).num_shards == 16


def test_interrupted_stream_goes_on_where_it_stopped(many_records):
    dataset = load_ecg("wfdb", many_records, streaming=True, decode=False)
    iterator = iter(dataset)
    first = [next(iterator)["record_id"] for _ in range(20)]
    resumed = load_ecg("wfdb", many_records, streaming=True, decode=False)
    resumed.load_state_dict(dataset.state_dict())
    rest = [row["record_id"] for row in resumed]
    assert first + rest == [f"r{number:02d}" for number in range(50)]


@pytest.mark.parametrize("num_records", [0, 1, 3, 5, 50, 95, 96, 97, 1000, 100_001])
def test_shards_hold_every_record_once_in_nearly_equal_parts(num_records):
    shards = shards_of(range(num_records))
    assert [entry for shard in shards for entry in shard] == list(range(num_records))
    assert len(shards) == num_shards_of(num_records)
    lengths = {len(shard) for shard in shards}
    assert max(lengths, default=0) - min(lengths, default=0) <= 1


def test_shards_of_millions_divide_among_many_loaders_and_small_corpora_get_few():
    assert num_shards_of(10_000_000) % 512 == 0 and 1000 < 10_000_000 / num_shards_of(10_000_000) < 2048
    assert (num_shards_of(800_000), num_shards_of(21_799, 32), num_shards_of(500, 32)) == (960, 96, 12)
    assert (num_shards_of(31, 32), num_shards_of(0, 32)) == (1, 0)


def test_loader_of_the_dataset_with_workers_decodes(ptb_xl_folder, tmp_path):
    dataset = load_ecg("ptb-xl", ptb_xl_folder, cache_dir=tmp_path / "cache")
    assert isinstance(dataset, datasets.Dataset)
    loader = DataLoader(dataset, batch_size=3, num_workers=1, collate_fn=lambda rows: rows)
    rows = next(iter(loader))
    assert torch.from_numpy(rows[0]["ecg"]["signal"]).shape == (12, 1000)


def test_a_prepared_folder_is_not_taken_for_the_corpus_itself(ptb_xl_folder):
    (ptb_xl_folder / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match='was prepared. Load it by load_ecg\\("prepared"'):
        load_ecg("ptb-xl", ptb_xl_folder)
