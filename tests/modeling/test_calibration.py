"""When a stored calibration is refused, kept and dropped, for every family of classifiers."""

import pytest
import torch

from ecg_transformers import modeling

LABELS = ("NORM", "MI")
CALIBRATION = {"labels": list(LABELS), "temperature": 2.0, "thresholds": {"NORM": 0.2}}
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
INPUT = {"leads": ("I", "II"), "sampling_rate": 100, "num_samples": 200}
SPEECH = TRANSFORMER | INPUT | {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
FAMILIES = {
    "ecg_vit": ("EcgViT", TRANSFORMER | INPUT | {"patch_size": 50}),
    "st_mem": ("StMem", TRANSFORMER | INPUT | {"patch_size": 50}),
    "hubert": ("HubertEcg", SPEECH | {"conv_dim": (8,) * 5}),
    "ecg_fm": ("EcgFm", SPEECH | {"conv_dim": (8,) * 4}),
    "founder": (
        "EcgFounder",
        INPUT | {"stem_channels": 8, "stage_channels": (8,), "stage_depths": (1,), "group_width": 4},
    ),
}


def classes_of(name):
    """Configuration, classifier, encoder and settings of a family."""
    family, settings = FAMILIES[name]
    classes = [getattr(modeling, family + ending) for ending in ("Config", "ForSequenceClassification", "Model")]
    return *classes, settings


def names(labels) -> dict:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}


@pytest.fixture(params=FAMILIES)
def family(request):
    config_class, classifier, encoder, settings = classes_of(request.param)
    head = {"problem_type": "multi_label_classification", "calibration": CALIBRATION}
    return classifier, encoder, config_class(**settings, **names(LABELS), **head)


@pytest.mark.parametrize(
    "bad",
    [
        *({"temperature": 0.0}, {"thresholds": {"AF": 0.5}}, {"labels": []}, {"bias": 1}, {"input": {"rate": 1}}),
        *({"subsets": [{"leads": ["I"]}]}, {"subsets": [{"temperature": 1.0}]}),
    ],
)
def test_one_that_makes_no_sense_is_refused(family, bad):
    config = family[2]
    with pytest.raises(ValueError, match="calibration"):
        type(config)(**config.to_dict() | {"calibration": CALIBRATION | bad})


def test_it_is_kept_with_the_weights_and_labels_that_it_was_measured_on(family, tmp_path):
    classifier, _, config = family
    model = classifier(config).eval()
    model.save_pretrained(tmp_path)
    loaded, info = classifier.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.config.calibration == CALIBRATION and not info["missing_keys"]
    loaded(torch.zeros(1, 2, 200), labels=torch.zeros(1, 2))  # a loss in evaluation trains nothing
    loaded.train()
    with torch.no_grad():
        loaded(torch.zeros(1, 2, 200), labels=torch.zeros(1, 2))
    assert loaded.config.calibration == CALIBRATION


@pytest.mark.parametrize("own_loss", [False, True], ids=["loss of the model", "compute_loss_func"])
def test_training_drops_it(family, own_loss):
    """`Trainer(compute_loss_func=...)` keeps the labels from the model."""
    classifier, _, config = family
    model = classifier(config).train()
    output = model(torch.zeros(2, 2, 200), labels=None if own_loss else torch.zeros(2, 2))
    (output.logits.sum() if own_loss else output.loss).backward()
    assert model.config.calibration is None


@pytest.mark.slow
def test_a_calibrated_classifier_trains_as_one_graph():
    config_class, classifier, _, settings = classes_of("ecg_vit")
    model = classifier(config_class(**settings, **names(LABELS), calibration=CALIBRATION)).train()
    torch.compile(model, backend="eager", fullgraph=True)(torch.zeros(2, 2, 200)).logits.sum().backward()
    assert model.config.calibration is None


def test_a_new_head_drops_it(family, tmp_path):
    """Although its labels have the same names."""
    classifier, encoder, config = family
    classifier(config).save_pretrained(tmp_path / "classifier")
    encoder.from_pretrained(tmp_path / "classifier").save_pretrained(tmp_path / "encoder")
    loaded = classifier.from_pretrained(tmp_path / "encoder")
    assert loaded.config.id2label == dict(enumerate(LABELS)) and loaded.config.calibration is None
    stretched = {**names(LABELS), "ignore_mismatched_sizes": True}
    classifier(type(config)(**config.to_dict() | names(("A", "B", "C")))).save_pretrained(tmp_path / "three")
    assert classifier.from_pretrained(tmp_path / "three", **stretched).config.calibration is None


def test_other_labels_drop_it(family, tmp_path):
    classifier, _, config = family
    classifier(config).save_pretrained(tmp_path)
    assert classifier.from_pretrained(tmp_path, **names(("MI", "NORM"))).config.calibration is None


def test_fewer_leads_keep_it(tmp_path):
    config_class, classifier, _, settings = classes_of("ecg_vit")
    config = config_class(**settings, **names(LABELS), calibration=CALIBRATION)
    classifier(config).save_pretrained(tmp_path)
    assert classifier.from_pretrained(tmp_path, leads=["II"]).config.calibration == CALIBRATION
