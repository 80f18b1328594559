"""What the encoders of other authors keep of our interface: input by name, one output, Auto classes, shipped code."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification, pipeline

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgFmConfig,
    EcgFmForSequenceClassification,
    EcgFmModel,
    EcgFounderConfig,
    EcgFounderForSequenceClassification,
    EcgFounderModel,
    HubertEcgConfig,
    HubertEcgForSequenceClassification,
    HubertEcgModel,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS

TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
POSITIONS = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
HUBERT = HubertEcgConfig(**TRANSFORMER, **POSITIONS, conv_dim=(8,) * 5, num_samples=200, sampling_rate=100)
ECG_FM = EcgFmConfig(**TRANSFORMER, **POSITIONS, conv_dim=(8,) * 4, num_samples=200, sampling_rate=100)
ECG_FOUNDER = EcgFounderConfig(
    stem_channels=8, stage_channels=(8, 16), stage_depths=(1, 2), group_width=4, num_samples=200, sampling_rate=100
)
MODELS = {
    "hubert-ecg": (HUBERT, HubertEcgModel, HubertEcgForSequenceClassification),
    "ecg-fm": (ECG_FM, EcgFmModel, EcgFmForSequenceClassification),
    "ecg-founder": (ECG_FOUNDER, EcgFounderModel, EcgFounderForSequenceClassification),
}


def recordings(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 12, 200, generator=torch.Generator().manual_seed(0))


def drawn(model_class, config, seed: int = 0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()


@pytest.fixture(params=MODELS)
def published(request):
    return MODELS[request.param]


@pytest.fixture
def encoder(published):
    config, model_class, _ = published
    return drawn(model_class, config)


def settings_of(config) -> dict:
    return {"leads": config.leads, "sampling_rate": config.sampling_rate, "num_samples": config.num_samples}


@torch.no_grad()
def test_leads_are_found_by_name(encoder):
    values, order = recordings(), [11, 3, 0, *range(4, 11), 1, 2]
    shuffled = encoder(values[:, order], leads=[STANDARD_LEADS[place] for place in order])
    assert torch.equal(shuffled.pooler_output, encoder(values).pooler_output)


@torch.no_grad()
def test_a_missing_lead_is_refused_or_zeros_as_in_the_training(encoder):
    values = recordings()
    mask = torch.ones(2, 12, dtype=torch.bool)
    assert torch.equal(encoder(values, lead_mask=mask).pooler_output, encoder(values).pooler_output)
    mask[1, 4] = False
    if encoder.admits_missing_leads:
        hidden = values.clone()
        hidden[1, 4] = 0
        assert torch.equal(encoder(values, lead_mask=mask).pooler_output, encoder(hidden).pooler_output)
    else:
        with pytest.raises(ValueError, match="was never trained without a lead; \\['aVL'\\] are missing"):
            encoder(values, lead_mask=mask)
        with pytest.raises(ValueError, match="was never trained without a lead; \\['I'\\] are missing"):
            encoder(values[:, 1:], leads=STANDARD_LEADS[1:])


def test_another_shape_is_refused(encoder):
    for values in (None, recordings()[0], recordings()[:, :8], recordings()[..., :-1]):
        with pytest.raises(ValueError, match=r"Expected input_values of shape \(batch, 12, 200\)"):
            encoder(values)
    with pytest.raises(ValueError, match="VX"):
        encoder(recordings(), leads=[*STANDARD_LEADS[:-1], "VX"])


@torch.no_grad()
def test_a_folder_serves_the_auto_classes(published, tmp_path):
    config, model_class, classifier_class = published
    classifier = drawn(classifier_class, type(config)(**config.to_dict() | {"num_labels": 3}))
    classifier.save_pretrained(tmp_path)
    EcgFeatureExtractor(**settings_of(config)).save_pretrained(tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert (type(encoder), type(loaded)) == (model_class, classifier_class)
    assert AutoConfig.from_pretrained(tmp_path).leads == STANDARD_LEADS
    assert type(AutoFeatureExtractor.from_pretrained(tmp_path)) is EcgFeatureExtractor
    expected = classifier.base_model(recordings()).pooler_output
    assert torch.equal(encoder(recordings()).pooler_output, expected)
    assert torch.equal(loaded(recordings()).logits, classifier(recordings()).logits)
    assert expected.shape == (2, config.pooled_size)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert all((tmp_path / f"{reference.split('.')[0]}.py").is_file() for reference in auto_map.values())


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("single_label_classification", torch.tensor([0, 2])),
        ("multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 0, 0]])),
    ],
)
def test_a_classifier_trains_all_its_weights(published, problem_type, labels):
    config, _, classifier_class = published
    settings = {"num_labels": 3, "problem_type": problem_type}
    classifier = drawn(classifier_class, type(config)(**config.to_dict() | settings)).train()
    output = classifier(recordings(), labels=labels)
    output.loss.backward()
    assert output.logits.shape == (2, 3)
    assert all(parameter.grad is not None for parameter in classifier.parameters())
    decaying = {
        name for name, parameter in classifier.named_parameters() if classifier.has_weight_decay(name, parameter)
    }
    assert "classifier.weight" in decaying and "classifier.bias" not in decaying


def test_the_pipelines_read_a_recording(published):
    config, _, classifier_class = published
    settings = {"num_labels": 2, "problem_type": "multi_label_classification", "id2label": {0: "AF", 1: "NORM"}}
    classifier = drawn(classifier_class, type(config)(**config.to_dict() | settings))
    classifier.config.architectures = [classifier_class.__name__]
    extractor = EcgFeatureExtractor(**settings_of(config))
    signal = recordings()[0].numpy()
    recording = {"array": signal, "sampling_rate": 100, "leads": list(STANDARD_LEADS), "unit": "mV"}
    scores = pipeline("ecg-classification", model=classifier, feature_extractor=extractor)(recording)
    assert {score["label"] for score in scores} == {"AF", "NORM"}
    features = pipeline("ecg-feature-extraction", model=classifier.base_model, feature_extractor=extractor)
    assert features(recording).shape == (config.pooled_size,)
