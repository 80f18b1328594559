import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecg_transformers.data import ECG_STORAGE, Ecg, load_ecg
from ecg_transformers.data.builder import corpus_features
from ecg_transformers.data.corpora.ptb_xl import PTB_XL
from ecg_transformers.data.features import RecordTable
from ecg_transformers.data.records import EcgRecord, new_steps


@pytest.fixture(scope="module")
def sample():
    return load_ecg("ptb-xl-sample", split="test").select(range(5))


def test_decoded_signal_is_float32_millivolts(sample):
    ecg = sample[0]["ecg"]
    assert set(ecg) == {"signal", "leads", "sampling_rate", "unit"}
    assert ecg["signal"].dtype == np.float32
    assert 0.1 < np.abs(ecg["signal"]).max() < 10


def test_decode_false_leaves_the_bytes(sample):
    ecg = sample.cast_column("ecg", Ecg(decode=False))[0]["ecg"]
    assert isinstance(ecg["signal"], bytes)
    assert len(ecg["gain"]) == 12


def test_decoded_recordings_can_be_encoded_again(sample):
    signal = sample[0]["ecg"]["signal"]
    features = datasets.Features({"ecg": Ecg()})
    again = datasets.Dataset.from_list([{"ecg": sample[0]["ecg"]}], features=features)[0]["ecg"]
    np.testing.assert_allclose(again["signal"], signal, atol=np.abs(signal).max() / 60000)


def test_recordings_in_microvolts_are_stored_in_millivolts_with_their_gaps():
    ecg = {"signal": np.array([[500.0, np.nan, 500.0]]), "leads": ["I"], "sampling_rate": 100, "unit": "uV"}
    row = datasets.Dataset.from_list([{"ecg": ecg}], features=datasets.Features({"ecg": Ecg()}))[0]["ecg"]
    assert row["unit"] == "mV"
    np.testing.assert_allclose(row["signal"], [[0.5, np.nan, 0.5]], rtol=1e-4)


def test_parquet_of_this_package_decodes_after_a_cast(sample, tmp_path):
    sample.cast_column("ecg", ECG_STORAGE).to_parquet(tmp_path / "plain.parquet")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "plain.parquet"), cache_dir=str(tmp_path / "cache"))
    assert "Ecg" not in str(loaded.features)
    loaded = loaded.cast_column("ecg", Ecg())
    np.testing.assert_array_equal(loaded[0]["ecg"]["signal"], sample[0]["ecg"]["signal"])
    assert pq.read_schema(tmp_path / "plain.parquet").field("ecg").type == Ecg.pa_type


def test_bytes_that_do_not_divide_into_leads_are_refused():
    stored = {"signal": b"123", "gain": [1.0], "leads": ["I"], "sampling_rate": 100.0, "unit": "mV"}
    with pytest.raises(ValueError, match="3 bytes"):
        Ecg().decode_example(stored)


def test_a_table_of_records_is_that_of_their_rows():
    """Rows, encoded one by one, are the slow way."""
    features = corpus_features(PTB_XL)
    schema = features.arrow_schema
    whole = EcgRecord("a", np.arange(20, dtype=np.int16).reshape(10, 2).T, ("I", "II"), 100.0, gain=[1e-3, 2e-3])
    floats = EcgRecord("b", np.float32([[0.5, np.nan, -1.0]]), ("V1",), 250, "uV", labels=("NORM",), fold=3, age=61)
    of_numpy = EcgRecord("c", whole.signal, ("I", "II"), 500, "V", gain=[1e-6, 1e-6], patient_id=7, sex="male")
    of_numpy.extra = {"scp_codes": ["SR", "NORM"], "age": np.int64(50), "fold": np.int64(2)}
    records = [whole, floats, of_numpy]
    expected = pa.Table.from_pylist([features.encode_example(record.to_row()) for record in records], schema=schema)
    for num_bytes in (0, 100):
        table = RecordTable(features, schema, num_bytes)
        for record in records:
            table.add(record)
        assert table.finish().equals(expected)


def test_memory_of_a_table_is_lent_to_one_array_of_a_record_and_taken_back_from_a_bad_one():
    features = corpus_features(PTB_XL)
    table = RecordTable(features, features.arrow_schema, num_bytes=100)
    signals = []
    for number, is_bad in enumerate([False, True, False, False, False]):
        with table:
            first, second, signal = new_steps((2, 6)), new_steps((2, 6)), np.full((2, 6), 9, np.int16)
            first[...], second[...] = number, -1  # a second array is no view of the table's memory
        if number == 2:
            table.add(EcgRecord("copied", signal, ("I", "II"), 100.0, gain=[1e-3, 1e-3]))
        elif not is_bad:
            table.add(EcgRecord("lent", first, ("I", "II"), 100.0, gain=[1e-3, 1e-3]))
        assert table.num_bytes == 24 * len(table.rows)
        signals.append(first)
    assert new_steps((2, 6)).base is None
    stored = table.finish()["ecg"].combine_chunks().field("signal").to_pylist()
    values = [np.frombuffer(of, "<i2").reshape(2, 6) for of in stored]
    assert [set(of.ravel().tolist()) for of in values] == [{0}, {9}, {3}, {4}]


def test_arrays_of_numpy_are_stored_in_a_column_of_lists():
    features = datasets.Features({"record_id": datasets.Value("string"), "ecg": ECG_STORAGE})
    features["peaks"] = datasets.List(datasets.Value("int64"))
    table = RecordTable(features, features.arrow_schema)
    for peaks in (np.array([3, 50]), np.array([], dtype=int), None):
        signal = np.ones((1, 60), dtype=np.float32)
        table.add(EcgRecord("r", signal, ["I"], 100.0, extra={} if peaks is None else {"peaks": peaks}))
    assert table.finish()["peaks"].to_pylist() == [[3, 50], [], None]
