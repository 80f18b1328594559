import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, IterableDataset

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.train.features import EmbeddingTable, embed, random_encoder_like

from .conftest import tiny_encoder

LEADS = ("I", "II")
READ = {"leads": LEADS, "sampling_rate": 100, "num_samples": 200}
LABELS = ("FAST", "TALL")


@pytest.fixture(scope="module")
def model():
    return tiny_encoder(**READ, patch_size=20, num_hidden_layers=2, drop_path_rate=0.5)[0].train()


@pytest.fixture(scope="module")
def feature_extractor():
    return EcgFeatureExtractor(**READ)


def ecg_rows(num_records=40, seed=0, first=0):
    """Records of 2 s at 100 Hz, two of each patient; FAST ones swing faster, TALL ones higher."""
    generator = np.random.default_rng(seed)
    seconds = np.arange(200) / 100
    rows = []
    for record in range(first, first + num_records):
        fast, tall = generator.random(2) < 0.5
        wave = (1.0 + tall) * np.sin(2 * np.pi * (1 + 2 * fast) * seconds + generator.random())
        signal = (wave + 0.1 * generator.normal(size=(2, 200))).astype(np.float32)
        rows.append(
            {
                "record_id": f"r{record}",
                "patient_id": f"p{record // 2}",
                "ecg": {"signal": signal, "leads": list(LEADS), "sampling_rate": 100.0, "unit": "mV"},
                "labels": [name for name, present in zip(LABELS, (fast, tall), strict=True) if present],
                "fold": 1 + record % 10,
            }
        )
    return rows


def table(num_records=200, seed=0, first=0, signal=1.0, width=8):
    """Features whose first columns predict the labels, `signal` deviations apart; one record a patient."""
    generator = np.random.default_rng(seed)
    truth = generator.random((num_records, len(LABELS))) < 0.4
    features = generator.normal(size=(num_records, width)).astype(np.float32)
    features[:, : len(LABELS)] += signal * truth
    ids = range(first, first + num_records)
    labels = [[name for name, present in zip(LABELS, row, strict=True) if present] for row in truth]
    folds = [1 + number % 10 for number in ids]
    return EmbeddingTable(features, [f"r{n}" for n in ids], [f"p{n}" for n in ids], labels, folds)


def test_features_are_the_pooled_output_of_each_record_in_order(model, feature_extractor):
    rows = ecg_rows(5)
    result = embed(model, feature_extractor, rows, batch_size=2, progress=False)
    signals = torch.tensor(np.stack([row["ecg"]["signal"] for row in rows]))
    with torch.inference_mode():
        expected = model.eval()(signals).pooler_output.numpy()
    np.testing.assert_allclose(result.features, expected, atol=1e-5)
    assert result.features.dtype == np.float32
    assert result.record_ids == ["r0", "r1", "r2", "r3", "r4"]
    assert result.patient_ids == ["p0", "p0", "p1", "p1", "p2"]
    assert result.labels == [row["labels"] for row in rows] and result.folds == [1, 2, 3, 4, 5]


def test_streaming_dataset_gives_the_same_features_as_a_stored_one(model, feature_extractor):
    rows = ecg_rows(7)
    for row in rows:
        row["ecg"]["signal"] = row["ecg"]["signal"].tolist()
    stored = embed(model, feature_extractor, Dataset.from_list(rows), batch_size=4, progress=False)
    streaming = IterableDataset.from_generator(lambda: iter(rows))
    streamed = embed(model, feature_extractor, streaming, batch_size=3, progress=False)
    np.testing.assert_allclose(stored.features, streamed.features, atol=1e-5)


def test_features_that_are_nan_are_refused_with_their_records():
    good = table(4)
    features = good.features.copy()
    features[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"1 of 4 records are NaN or infinite: \['r2'\]"):
        EmbeddingTable(features, good.record_ids, good.patient_ids, good.labels, good.folds)


def test_windows_of_a_long_record_are_averaged(model):
    first, second = ecg_rows(2)
    joined = np.concatenate([first["ecg"]["signal"], second["ecg"]["signal"]], axis=1)
    long = dict(first, ecg=dict(first["ecg"], signal=joined))
    extractor = EcgFeatureExtractor(**READ, long_records="all")
    whole = embed(model, extractor, [long, second], progress=False)
    parts = embed(model, extractor, [first, second], progress=False)
    assert whole.record_ids == ["r0", "r1"]
    np.testing.assert_allclose(whole.features[0], parts.features.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(whole.features[1], parts.features[1], atol=1e-5)


def test_every_window_of_a_long_record_can_be_a_row_with_its_start(model, tmp_path):
    first, second = ecg_rows(2)
    joined = np.concatenate([first["ecg"]["signal"], second["ecg"]["signal"], first["ecg"]["signal"][:, :90]], axis=1)
    long = dict(first, ecg=dict(first["ecg"], signal=joined))
    extractor = EcgFeatureExtractor(**READ, long_records="all")
    whole = embed(model, extractor, [long, second], progress=False, windows=True)
    assert whole.record_ids == ["r0", "r0", "r0", "r1"] and whole.start_seconds == pytest.approx([0, 2, 2.9, 0])
    parts = embed(model, extractor, [first, second], progress=False)
    np.testing.assert_allclose(whole.features[[0, 1, 3]], parts.features[[0, 1, 1]], atol=1e-5)
    assert EmbeddingTable.load(whole.save(tmp_path / "a.parquet")).start_seconds == whole.start_seconds
    assert np.load(whole.save(tmp_path / "a.npz"))["start_seconds"].tolist() == whole.start_seconds
    assert whole.take([3, 1]).start_seconds == pytest.approx([0, 2])


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_bad_record_is_left_out_and_named_and_others_stay(model, feature_extractor, caplog, batch_size):
    rows = ecg_rows(5)
    clean = embed(model, feature_extractor, rows, progress=False)
    rows[3]["ecg"]["signal"][0, 7] = np.nan
    result = embed(model, feature_extractor, rows, batch_size=batch_size, progress=False)
    assert result.record_ids == ["r0", "r1", "r2", "r4"]
    np.testing.assert_allclose(result.features, clean.features[[0, 1, 2, 4]], atol=1e-5)
    assert result.labels == [clean.labels[row] for row in (0, 1, 2, 4)]
    assert "Record r3 is left out" in caplog.text


def test_missing_leads_are_masked_not_read_as_zeros(model):
    rows = ecg_rows(3)
    for row in rows:
        row["ecg"] = dict(row["ecg"], signal=row["ecg"]["signal"][1:], leads=["II"])
    extractor = EcgFeatureExtractor(**READ, missing_leads="mask")
    result = embed(model, extractor, rows, progress=False)
    signals = torch.tensor(np.stack([row["ecg"]["signal"] for row in rows]))
    with torch.inference_mode():
        expected = model.eval()(signals, leads=["II"]).pooler_output.numpy()
    np.testing.assert_allclose(result.features, expected, atol=1e-5)


def test_empty_dataset_is_refused(model, feature_extractor):
    with pytest.raises(ValueError, match="no records"):
        embed(model, feature_extractor, [], progress=False)


def three_records(quality=None):
    ids, patients, labels = ["a", "b", "c"], ["p", None, "q"], [["MI"], [], ["B", "A"]]
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    return EmbeddingTable(features, ids, patients, labels, [1, None, 10], quality=quality)


@pytest.mark.parametrize("ending", ["parquet", "npz"])
def test_a_table_survives_a_file(tmp_path, ending):
    written = three_records(quality=[[], ["no_signal", "flat_leads"], ["noise"]])
    read = EmbeddingTable.load(written.save(tmp_path / f"features.{ending}"))
    np.testing.assert_array_equal(read.features, written.features)
    assert read.columns() == written.columns() and read.take([1]).quality == [["no_signal", "flat_leads"]]
    assert EmbeddingTable.load(three_records().save(tmp_path / f"without.{ending}")).quality is None


def test_numpy_reads_an_npz_file(tmp_path):
    with np.load(three_records().save(tmp_path / "features.npz"), allow_pickle=False) as arrays:
        assert arrays["features"].tolist() == [[0, 1], [2, 3], [4, 5]] and arrays["record_ids"].tolist() == list("abc")
        assert arrays["patient_ids"].tolist() == ["p", "", "q"] and arrays["folds"].tolist() == [1, -1, 10]
        assert arrays["labels"].tolist() == ['["MI"]', "[]", '["B", "A"]']


def test_parquet_has_plain_columns(tmp_path):
    columns = pq.read_table(table(3).save(tmp_path / "features.parquet"))
    assert columns.column_names == ["record_id", "patient_id", "fold", "labels", "features"]
    assert len(columns["features"][0].as_py()) == 8


def test_unknown_file_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match=".parquet or .npz"):
        table(3).save(tmp_path / "features.csv")


def test_folds_are_selected_in_order():
    assert table(20).select_folds([9, 10]).record_ids == ["r8", "r9", "r18", "r19"]


def test_random_encoder_has_the_same_shape_and_other_weights_by_seed_alone(model):
    first, again, other = (random_encoder_like(model, seed) for seed in (1, 1, 2))
    assert type(first) is type(model) and first.config.to_dict() == model.config.to_dict()
    matrices = [max(encoder.layers[0].parameters(), key=torch.numel) for encoder in (first, again, other, model)]
    assert torch.equal(matrices[0], matrices[1])
    assert not torch.equal(matrices[0], matrices[2]) and not torch.equal(matrices[0], matrices[3])


def test_random_encoder_leaves_the_global_generator_alone(model):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    random_encoder_like(model, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_records_without_a_label_of_the_task_can_be_left_out():
    records = table(50)
    kept = records.with_any_label(["FAST"])
    assert len(kept) == sum("FAST" in labels for labels in records.labels)
    assert all("FAST" in labels for labels in kept.labels)


def test_a_flat_recording_is_named_among_the_embedded():
    encoder = tiny_encoder(leads=LEADS, patch_size=50)
    rows = list(load_ecg("ptb-xl-sample", split="test").select(range(2)))
    rows[1]["ecg"] = rows[1]["ecg"] | {"signal": np.zeros((12, 1000), np.float32)}
    table = embed(*encoder, rows, progress=False, check_quality=True)
    assert table.quality[0] == [] and "no_signal" in table.quality[1]
