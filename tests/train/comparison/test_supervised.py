import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.train.comparison.supervised import SupervisedSettings, train_on_labels
from ecg_transformers.train.inference import predict
from ecg_transformers.train.metrics import macro_auroc

LABELS = label_names("ptb-xl-sample")
INPUT = {"leads": ["I", "II", "V2"], "sampling_rate": 100, "num_samples": 500}


def tiny_classifier(seed=0):
    torch.manual_seed(seed)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    head = {"num_labels": len(LABELS), "problem_type": "multi_label_classification"}
    return AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model("ecg_vit", patch_size=100, **size, **INPUT, **head)
    )


def test_the_weights_of_the_step_that_did_best_on_validation_are_kept(tmp_path):
    parts = {
        name: load_ecg("ptb-xl-sample", split=name, decode=False).select(range(40)) for name in ("train", "validation")
    }
    extractor, model = EcgFeatureExtractor(**INPUT, normalization="lead"), tiny_classifier()
    settings = SupervisedSettings(records_seen=48, batch_size=8, learning_rate=0.03, num_selections=6)
    facts = train_on_labels(model, extractor, *parts.values(), LABELS, settings, seed=0, output_dir=str(tmp_path))
    assert facts["steps"] == 6 and facts["records_seen"] == 48 and 1 <= facts["best_step"] <= 6
    found = predict(model, extractor, parts["validation"], LABELS)
    assert macro_auroc(found.labels, found.scores, LABELS).value == facts["validation_macro_auroc"]


def test_training_on_eight_records_learns_them(tmp_path):
    records = load_ecg("ptb-xl-sample", split="train", decode=False)
    rows = [number for number, labels in enumerate(records["labels"]) if len(labels) == 1]
    rows = [next(n for n in rows if records["labels"][n] == [name]) for name in ("NORM", "MI", "STTC", "CD")]
    records, names = records.select(rows), ("CD", "MI", "NORM", "STTC")
    extractor, model = EcgFeatureExtractor(**INPUT, normalization="lead"), tiny_classifier()
    model.classifier = torch.nn.Linear(16, 4)
    model.num_labels = model.config.num_labels = 4
    settings = SupervisedSettings(records_seen=160, learning_rate=0.01, num_selections=4)
    train_on_labels(model, extractor, records, records, names, settings, seed=0, output_dir=str(tmp_path))
    found = predict(model, extractor, records, names)
    assert macro_auroc(found.labels, found.scores, names).value == 1.0


def test_logits_of_the_windows_of_a_record_are_averaged():
    records = load_ecg("ptb-xl-sample", split="test", decode=False).select(range(3))
    model = tiny_classifier().eval()
    found = predict(model, EcgFeatureExtractor(**INPUT, long_records="all"), records, LABELS, batch_size=2)
    halves = EcgFeatureExtractor(**INPUT, long_records="all")([row["ecg"] for row in records])["input_values"]
    with torch.inference_mode():
        logits = model(input_values=halves).logits.unflatten(0, (3, 2)).mean(dim=1)
    assert np.allclose(found.scores, logits.sigmoid().numpy(), atol=1e-6)
    assert found.record_ids == list(records["record_id"])
    assert found.labels.tolist() == [[name in labels for name in LABELS] for labels in records["labels"]]
