from collections import Counter

import datasets
import pytest
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from ecg_transformers.data import load_ecg, mix_ecg, mixed_label_names, prepare_corpus


@pytest.fixture
def folders(write_record, tmp_path):
    """Two corpora: 29 records in 24 shards and 13 in 12; 24 % 3 == 0, but the mixture's 12 shards % 5 != 0."""
    for number in range(29):
        write_record(f"a{number:02d}", folder="a")
    for number in range(13):
        write_record(f"b{number:02d}", folder="b")
    prepare_corpus("wfdb", tmp_path / "a", tmp_path / "prepared-a")
    return tmp_path / "prepared-a", tmp_path / "b"


def streams(folders, **options):
    """One prepared corpus and one folder of WFDB records."""
    prepared, wfdb = folders
    return [
        load_ecg("prepared", prepared, streaming=True, decode=False, **options),
        load_ecg("wfdb", wfdb, streaming=True, decode=False),
    ]


def mixture(folders, stopping="each_once", seed=0, weights=(0.7, 0.3)):
    return mix_ecg(streams(folders), weights, seed=seed, stopping=stopping)


def ids(rows):
    return [row["record_id"] for row in rows]


EVERY_ID = sorted([*(f"a{number:02d}" for number in range(29)), *(f"b{number:02d}" for number in range(13))])


@pytest.mark.parametrize(
    ("world_size", "num_workers", "epoch"),
    [
        *((1, 0, 0), (2, 0, 0), (3, 0, 0), (5, 0, 0), (2, 2, 0), (3, 0, 1)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 2, 0), (3, 2, 0), (5, 2, 1))),
    ],
)
def test_ranks_and_workers_read_every_record_of_a_mixture_once(folders, world_size, num_workers, epoch):
    seen = []
    for rank in range(world_size):
        dataset = mixture(folders)
        dataset.set_epoch(epoch)
        dataset = split_dataset_by_node(dataset, rank=rank, world_size=world_size)
        loader = DataLoader(dataset, batch_size=4, num_workers=num_workers, collate_fn=ids)
        seen += [record_id for batch in loader for record_id in batch]
    assert sorted(seen) == EVERY_ID


@pytest.mark.parametrize(("stopping", "epoch"), [("each_once", 0), ("all_exhausted", 2), ("first_exhausted", 1)])
def test_interrupted_mixture_goes_on_where_it_stopped(folders, stopping, epoch):
    def of_epoch():
        dataset = mixture(folders, stopping)
        dataset.set_epoch(epoch)
        return dataset

    whole = ids(of_epoch())
    for stop in (1, len(whole) // 2, len(whole) - 1):
        dataset = of_epoch()
        iterator = iter(dataset)
        first = [next(iterator)["record_id"] for _ in range(stop)]
        resumed = of_epoch()
        resumed.load_state_dict(dataset.state_dict())
        assert first + ids(resumed) == whole


def test_interrupted_rank_of_a_mixture_goes_on_where_it_stopped(folders):
    def rank(number):
        return split_dataset_by_node(mixture(folders), rank=number, world_size=5)

    for number in (1, 4):
        whole = ids(rank(number))
        dataset = rank(number)
        iterator = iter(dataset)
        first = [next(iterator)["record_id"] for _ in range(4)]
        resumed = rank(number)
        resumed.load_state_dict(dataset.state_dict())
        assert first + ids(resumed) == whole


def test_order_follows_from_seed_and_epoch(folders):
    def order(seed, epoch):
        dataset = mixture(folders, seed=seed)
        dataset.set_epoch(epoch)
        return tuple(ids(dataset))

    keys = [(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    orders = {key: order(*key) for key in keys}
    assert len(set(orders.values())) == len(keys)
    assert order(1, 1) == orders[1, 1]


@pytest.mark.parametrize("stopping", ["each_once", "all_exhausted", "first_exhausted"])
def test_the_first_epoch_is_that_of_datasets(folders, stopping):
    """`datasets` mixes row by row, which is the slow way."""
    rule = "all_exhausted_without_replacement" if stopping == "each_once" else stopping
    mixed = mix_ecg(streams(folders), (0.7, 0.3), seed=5, stopping=stopping)
    expected = datasets.interleave_datasets(streams(folders), [0.7, 0.3], seed=5, stopping_strategy=rule)
    assert ids(mixed) == ids(expected)
    tables = mixed.with_format("arrow").iter(batch_size=8)
    assert [name for table in tables for name in table["record_id"].to_pylist()] == ids(expected)


def test_records_are_drawn_by_the_weights(folders):
    mixed = mix_ecg(streams(folders), [8, 2], stopping="all_exhausted")
    drawn = Counter(record_id[0] for record_id in ids(mixed.take(120)))
    assert 0.65 < drawn["a"] / drawn.total() < 0.95


def test_oversampling_sees_every_record_and_undersampling_stops_with_the_first(folders):
    over = ids(mixture(folders, "all_exhausted", weights=(0.5, 0.5)))
    assert set(over) == set(EVERY_ID)
    assert len(over) > len(EVERY_ID)
    under = ids(mixture(folders, "first_exhausted", weights=(0.5, 0.5)))
    assert len(under) == len(set(under)) < len(EVERY_ID)
    assert {f"b{number:02d}" for number in range(13)} <= set(under)


def test_datasets_that_are_no_streams_mix_to_one_that_is_none(folders, tmp_path):
    prepared, wfdb = folders
    stored = [
        load_ecg("prepared", prepared, cache_dir=tmp_path / "cache"),
        load_ecg("wfdb", wfdb, cache_dir=tmp_path / "cache"),
    ]
    mixed = mix_ecg(stored, [0.7, 0.3], seed=3, stopping="each_once")
    assert len(mixed) == 42
    assert sorted(mixed["record_id"]) == EVERY_ID
    assert mixed[0]["ecg"]["signal"].shape == (2, 50)
    assert ids(mix_ecg(stored, [0.7, 0.3], seed=3, stopping="each_once")) == mixed["record_id"]
    with_stream = mix_ecg([stored[0], load_ecg("wfdb", wfdb, streaming=True)], seed=3, stopping="each_once")
    assert sorted(ids(with_stream)) == EVERY_ID


def test_columns_that_a_corpus_lacks_are_none_there(folders):
    ptb_xl = load_ecg("ptb-xl-sample", split="test", streaming=True, decode=False).take(3)
    rows = list(mix_ecg([ptb_xl, streams(folders)[1]], stopping="each_once"))
    assert all((row["scp_codes"] is None) == (row["source"] == "wfdb") for row in rows)


def test_classes_of_a_mixture_are_the_union_by_name():
    assert mixed_label_names([("AF", "NORM"), ("AF", "PVC")]) == ("AF", "NORM", "PVC")


@pytest.mark.parametrize("weights", [[1.0], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_that_are_none_are_refused(folders, weights):
    with pytest.raises(ValueError, match="Expected 2 weights above 0"):
        mix_ecg(streams(folders), weights, stopping="each_once")


def test_unknown_rule_and_empty_mixture_are_refused(folders):
    with pytest.raises(ValueError, match="stopping='never'.*'all_exhausted', 'first_exhausted', 'each_once'"):
        mix_ecg(streams(folders), stopping="never")
    with pytest.raises(ValueError, match="at least one dataset"):
        mix_ecg([], stopping="each_once")
    with pytest.raises(ValueError, match="Dataset 0 of the mixture is 'prepared/mine': load it first"):
        mix_ecg(["prepared/mine"], stopping="each_once")


def test_columns_that_do_not_fit_are_refused_by_name(folders):
    decoded, stored = load_ecg("wfdb", folders[1], streaming=True), streams(folders)[0]
    with pytest.raises(ValueError, match="'ecg'.*dataset 1. Load all with the same `decode`"):
        mix_ecg([stored, decoded], stopping="each_once")
    with pytest.raises(ValueError, match=r"Dataset 1 of the mixture lacks the columns \['ecg'\]"):
        mix_ecg([stored, stored.remove_columns("ecg")], stopping="each_once")
