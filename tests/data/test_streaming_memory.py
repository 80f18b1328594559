"""Memory while ten thousand records stream: real ones of PTB-XL at 100 Hz, 24 kB each, again and again."""

import os

import psutil
import pytest

from ecg_transformers.data import load_ecg, prepare_corpus

pytestmark = pytest.mark.slow

NUM_RECORDS = 10_000
MAX_GROWTH = 48 << 20  # bytes; all records together are 240 MB


@pytest.fixture(scope="module")
def ten_thousand(shared_data_dir, tmp_path_factory):
    headers = sorted((shared_data_dir / "ptb-xl" / "records100").rglob("*.hea"))
    if len(headers) < 100:
        pytest.skip("there are not enough recordings at 100 Hz")
    folder = tmp_path_factory.mktemp("records")
    for number in range(NUM_RECORDS):
        header = headers[number % len(headers)]
        copy = folder / f"{number // len(headers):03d}"
        copy.mkdir(exist_ok=True)
        for file in (header, header.with_suffix(".dat")):
            (copy / file.name).symlink_to(file)
    return folder


def growth(dataset):
    """Bytes by which the process grows at most between the thousandth record and the last."""
    process, count, start, most = psutil.Process(os.getpid()), 0, 0, 0
    for row in dataset:
        count += 1
        assert row["ecg"]["signal"].shape == (12, 1000)
        if count == 1000:
            start = process.memory_info().rss
        elif count % 100 == 0 and count > 1000:
            most = max(most, process.memory_info().rss - start)
    assert count == NUM_RECORDS
    return most


def test_memory_is_flat_while_wfdb_records_stream(ten_thousand, record_property):
    grown = growth(load_ecg("wfdb", ten_thousand, streaming=True))
    record_property("growth_mb", round(grown / 1e6, 1))
    assert grown < MAX_GROWTH


def test_memory_is_flat_while_a_prepared_corpus_streams(ten_thousand, tmp_path, record_property):
    prepare_corpus("wfdb", ten_thousand, tmp_path / "prepared")
    grown = growth(load_ecg("prepared", tmp_path / "prepared", streaming=True))
    record_property("growth_mb", round(grown / 1e6, 1))
    assert grown < MAX_GROWTH
