"""Ratios of the CPU time of reading, `wfdb.rdrecord` against ours: 12 leads x 10 s x 500 Hz, page cache warm."""

import random
import time

import numpy as np
import pytest

from ecg_transformers.data import load_ecg, prepare_corpus, read_record
from ecg_transformers.data.formats.wfdb_index import WfdbIndex

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


def microseconds(function, repeats):
    """CPU time per record."""
    started = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - started) / repeats / NUM_RECORDS * 1e6


def ratio_to_library(folder, function):
    """Ratio of the shortest times of rounds in which both take turns: what else the machine does only adds to them."""
    import wfdb

    paths = [str(path.with_suffix("")) for path in sorted(folder.glob("*.hea"))]

    def library():
        for path in paths[:16]:
            wfdb.rdrecord(path)

    library()
    function()
    theirs, ours = zip(*((microseconds(library, 1), microseconds(function, 2)) for _ in range(20)), strict=True)
    return round(min(theirs) * NUM_RECORDS / 16 / min(ours), 1)


def test_wfdb_records_are_read_much_faster_than_by_the_library(folder, record_property):
    paths = [str(path.with_suffix("")) for path in sorted(folder.glob("*.hea"))]

    def ours():
        for path in paths:
            read_record(path)

    ratio = ratio_to_library(folder, ours)
    record_property("ratio", ratio)
    assert ratio >= 35


def test_indexed_records_are_read_faster_than_by_their_headers(folder, record_property):
    index = WfdbIndex(sorted(folder.glob("*.hea")))
    buffer = np.empty((NUM_RECORDS, index.num_samples, len(index.leads)), dtype=np.int16)
    order = list(range(NUM_RECORDS))
    random.Random(0).shuffle(order)
    ratio = ratio_to_library(folder, lambda: index.read_steps(order, out=buffer))
    record_property("ratio", ratio)
    assert ratio >= 80


def test_random_batches_of_a_prepared_corpus_are_read_faster_still(folder, tmp_path, record_property):
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

    ratio = ratio_to_library(folder, ours)
    record_property("ratio", ratio)
    expected = read_record(sorted(folder.glob("*.hea"))[order[5]])[0]
    np.testing.assert_array_equal(batch[5], expected.signal)
    assert ratio >= 100
