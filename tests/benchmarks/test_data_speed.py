"""Ratios of the CPU time of reading, `wfdb.rdrecord` against ours: 12 leads x 10 s x 500 Hz, page cache warm."""

import random

import numpy as np
import pytest

from ecg_transformers.data import EcgPretrainingCollator, load_ecg, mix_ecg, prepare_corpus, read_record
from ecg_transformers.data.formats.wfdb_index import WfdbIndex
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.leads import STANDARD_LEADS

pytestmark = pytest.mark.slow

NUM_RECORDS = 64


@pytest.fixture(scope="module")
def folder(shared_data_dir, tmp_path_factory):
    """Links to real recordings of PTB-XL."""
    headers = sorted((shared_data_dir / "ptb-xl" / "records500").rglob("*.hea"))[:NUM_RECORDS]
    if len(headers) < NUM_RECORDS:
        pytest.skip("there are not enough recordings at 500 Hz")
    links = tmp_path_factory.mktemp("records")
    for header in headers:
        for file in (header, header.with_suffix(".dat")):
            (links / file.name).symlink_to(file)
    return links


@pytest.fixture
def times_faster_than_library(folder, times_faster):
    import wfdb

    paths = [str(path.with_suffix("")) for path in sorted(folder.glob("*.hea"))][:16]

    def library():
        for path in paths:
            wfdb.rdrecord(path)

    def measure(function, num_records=NUM_RECORDS, repeats=10):
        def ours():
            for _ in range(repeats):
                function()

        return times_faster(library, ours, rounds=9, records=(len(paths), repeats * num_records))

    return measure


def test_wfdb_records_are_read_much_faster_than_by_the_library(folder, times_faster_than_library):
    paths = [str(path.with_suffix("")) for path in sorted(folder.glob("*.hea"))]

    def ours():
        for path in paths:
            read_record(path)

    ratio = times_faster_than_library(ours)
    assert ratio >= 50


def test_indexed_records_are_read_faster_than_by_their_headers(folder, times_faster_than_library):
    index = WfdbIndex(sorted(folder.glob("*.hea")))
    buffer = np.empty((NUM_RECORDS, index.num_samples, len(index.leads)), dtype=np.int16)
    order = list(range(NUM_RECORDS))
    random.Random(0).shuffle(order)
    ratio = times_faster_than_library(lambda: index.read_steps(order, out=buffer))
    assert ratio >= 80


def test_random_batches_of_a_prepared_corpus_are_read_faster_still(folder, tmp_path, times_faster_than_library):
    prepare_corpus("wfdb", folder, tmp_path / "prepared")
    dataset = load_ecg("prepared", tmp_path / "prepared", decode=False, cache_dir=tmp_path / "cache")
    order = list(range(NUM_RECORDS))
    random.Random(0).shuffle(order)
    batch = np.empty((NUM_RECORDS, 12, 5000), dtype=np.int16)

    def ours():
        for start in range(0, NUM_RECORDS, 32):
            rows = dataset[order[start : start + 32]]["ecg"]
            for number, ecg in enumerate(rows, start):
                batch[number] = np.frombuffer(ecg["signal"], "<i2").reshape(12, 5000)

    ratio = times_faster_than_library(ours)
    expected = read_record(sorted(folder.glob("*.hea"))[order[5]])[0]
    np.testing.assert_array_equal(batch[5], expected.signal)
    assert ratio >= 100


NUM_COPIES = 16


@pytest.fixture(scope="module")
def streams(folder, tmp_path_factory):
    """The recordings many times, as shards of a corpus hold hundreds: as WFDB files, and prepared."""
    root = tmp_path_factory.mktemp("corpus")
    for copy in range(NUM_COPIES):
        links = root / "records" / f"copy{copy}"
        links.mkdir(parents=True)
        for file in folder.iterdir():
            (links / file.name).symlink_to(file.resolve())
    prepare_corpus("wfdb", root / "records", root / "prepared")
    raw = load_ecg("wfdb", root / "records", streaming=True, decode=False)
    return {"raw": raw, "prepared": load_ecg("prepared", root / "prepared", streaming=True, decode=False)}


def int16_batches(stream):
    collator = EcgPretrainingCollator(EcgFeatureExtractor(STANDARD_LEADS, sampling_rate=500, num_samples=5000))
    tables = stream.with_format("arrow")
    return lambda: sum(len(collator(table)["gain"]) for table in tables.iter(batch_size=32))


def float_batches(stream):
    """As [`int16_batches`], but of the input of a model."""
    extractor = EcgFeatureExtractor(STANDARD_LEADS, sampling_rate=500, num_samples=5000)
    collator, tables = EcgPretrainingCollator(extractor, return_input_values=True), stream.with_format("arrow")
    return lambda: sum(len(collator(table)["input_values"]) for table in tables.iter(batch_size=32))


def rows(stream):
    return lambda: sum(1 for _ in stream)


@pytest.mark.parametrize(
    ("form", "name", "bar"),
    [(int16_batches, "raw", 30), (int16_batches, "prepared", 48), (float_batches, "prepared", 36)],
)
def test_streams_give_batches_much_faster_than_the_library_reads(streams, form, name, bar, times_faster_than_library):
    stream = form(streams[name])
    assert stream() == NUM_COPIES * NUM_RECORDS
    ratio = times_faster_than_library(stream, NUM_COPIES * NUM_RECORDS, repeats=1)
    assert ratio >= bar


def test_a_prepared_corpus_gives_floats_much_faster_than_the_files_that_it_was_made_of(streams, times_faster):
    raw, prepared = float_batches(streams["raw"]), float_batches(streams["prepared"])
    assert times_faster(raw, prepared) >= 1.3


@pytest.mark.parametrize(("form", "bar"), [(rows, 1.35), (int16_batches, 1.4)])
def test_a_mixture_takes_little_longer_than_one_stream(streams, form, bar, times_faster):
    num_records = NUM_COPIES * NUM_RECORDS
    one, mixture = form(streams["prepared"]), form(mix_ecg([streams["prepared"]] * 2, stopping="each_once"))
    assert one() == num_records and mixture() == 2 * num_records
    assert times_faster(mixture, one, records=(2, 1)) <= bar
