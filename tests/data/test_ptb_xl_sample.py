import io

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpora.ptb_xl import SAMPLE_FOLDER

SAMPLE = SAMPLE_FOLDER / "ptb_xl_sample.parquet"
DUPLICATES = {138, 144, 457, 460, 463}


@pytest.fixture(scope="module")
def table():
    return pq.read_table(SAMPLE)


def test_sample_is_no_larger_than_8_megabytes():
    assert SAMPLE.stat().st_size <= 8_000_000


def test_sample_carries_licence_and_citation():
    assert "Attribution 4.0 International" in (SAMPLE_FOLDER / "LICENSE.txt").read_text()
    assert "10.13026/kfzx-aw45" in (SAMPLE_FOLDER / "README.md").read_text()


def test_sample_is_readable_by_pandas_alone():
    frame = pd.read_parquet(io.BytesIO(SAMPLE.read_bytes()))
    ecg = frame["ecg"][0]
    signal = np.frombuffer(ecg["signal"], "<i2").reshape(len(ecg["leads"]), -1) * ecg["gain"][:, None]
    assert signal.shape == (12, 1000)
    assert np.abs(signal).max() < 10


def test_sample_schema_needs_no_package(table):
    assert table.schema.metadata is None


def test_sample_has_all_records_but_the_duplicates(table):
    ids = [int(record) for record in table["record_id"].to_pylist()]
    assert ids == [number for number in range(1, 501) if number not in DUPLICATES]


def test_splits_follow_the_folds():
    sizes = {}
    for split, folds in (("train", range(1, 9)), ("validation", [9]), ("test", [10]), ("all", range(1, 11))):
        dataset = load_ecg("ptb-xl-sample", split=split)
        assert set(dataset["fold"]) == set(folds)
        sizes[split] = len(dataset)
    assert sizes == {"train": 349, "validation": 80, "test": 66, "all": 495}


def test_every_class_is_in_every_split():
    for split in ("train", "validation", "test"):
        labels = {label for row in load_ecg("ptb-xl-sample", split=split)["labels"][:] for label in row}
        assert labels == {"CD", "HYP", "MI", "NORM", "STTC"}


def test_sample_equals_the_source_bit_for_bit(shared_data, table):
    rows = table.select(["record_id", "ecg"]).to_pylist()
    for row in rows:
        source = shared_data / f"ptb-xl/records100/00000/{row['record_id']}_lr.dat"
        steps = np.frombuffer(row["ecg"]["signal"], "<i2").reshape(12, 1000)
        assert steps.T.tobytes() == source.read_bytes(), row["record_id"]


def test_500_hz_are_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"sampling_rate=500 .* Choose from \[100\]"):
        load_ecg("ptb-xl-sample", sampling_rate=500)
