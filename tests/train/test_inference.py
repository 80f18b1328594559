import numpy as np
import pytest
import torch

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgViTConfig,
    EcgViTForSequenceClassification,
    EcgViTModel,
)
from ecg_transformers.train.inference import in_evaluation, input_batches, predict

LEADS = ("I", "II")


@pytest.fixture
def model():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return EcgViTModel(EcgViTConfig(leads=LEADS, sampling_rate=100, num_samples=200, patch_size=50, **sizes))


@pytest.fixture
def feature_extractor():
    return EcgFeatureExtractor(leads=LEADS, sampling_rate=100, num_samples=200, long_records="all")


def rows_of(*seconds: float) -> list[dict]:
    """A record of each length, in seconds."""
    rows = []
    for number, length in enumerate(seconds):
        signal = np.random.default_rng(number).normal(size=(2, round(100 * length))).astype(np.float32)
        ecg = {"signal": signal, "leads": list(LEADS), "sampling_rate": 100.0, "unit": "mV"}
        rows.append({"record_id": f"r{number}", "ecg": ecg})
    return rows


def test_every_module_gets_its_mode_back_even_after_an_error(model):
    model.train()
    model.layers[0].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), in_evaluation(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before


def test_batches_hold_every_window_of_the_records_that_can_become_input(model, feature_extractor, caplog):
    rows = rows_of(2, 4, 2, 2)
    rows[2]["ecg"]["signal"][0, 7] = np.nan
    batches = list(input_batches(model.to(torch.float64), feature_extractor, iter(rows), 3, "Test"))
    assert [[row["record_id"] for row in batch.rows] for batch in batches] == [["r0", "r1"], ["r3"]]
    windows = len(feature_extractor([rows[1]["ecg"]])["input_values"])
    assert windows > 1 and batches[0].window_record.tolist() == [0] + [1] * windows
    assert batches[0].inputs["input_values"].dtype == torch.float64
    assert "1 records were left out: ['r2']" in caplog.text


def test_a_batch_of_bad_records_is_passed_over_and_a_dataset_of_them_refused(model, feature_extractor):
    rows = rows_of(2, 2)
    rows[0]["ecg"]["signal"][:] = np.nan
    assert [len(batch.rows) for batch in input_batches(model, feature_extractor, rows, 1, "Test")] == [1]
    with pytest.raises(ValueError, match=r"no records to encode \(1 were left out, the first because: "):
        list(input_batches(model, feature_extractor, rows[:1], 1, "Test"))


def test_logits_of_the_windows_of_a_record_are_averaged(model, feature_extractor):
    labels = {"id2label": {0: "A", 1: "B"}, "problem_type": "multi_label_classification"}
    config = EcgViTConfig(**model.config.to_dict() | labels)
    classifier = EcgViTForSequenceClassification(config).eval()
    rows = [row | {"patient_id": None, "labels": ["B"]} for row in rows_of(4, 4, 4)]
    found = predict(classifier, feature_extractor, rows, ["A", "B"], batch_size=2)
    windows = feature_extractor([row["ecg"] for row in rows])["input_values"]
    with torch.inference_mode():
        logits = classifier(input_values=windows).logits.unflatten(0, (3, 2)).mean(dim=1)
    assert np.allclose(found.scores, logits.sigmoid().numpy(), atol=1e-6)
    assert found.record_ids == ["r0", "r1", "r2"] and found.labels.tolist() == [[0, 1]] * 3
