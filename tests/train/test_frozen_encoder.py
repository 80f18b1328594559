import pytest
import torch

from ecg_transformers.modeling import (
    EcgFmConfig,
    EcgFmForSequenceClassification,
    EcgViTConfig,
    EcgViTForSequenceClassification,
    HubertEcgConfig,
    HubertEcgForSequenceClassification,
)
from ecg_transformers.train.finetune_objective import freeze_encoder

TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
INPUT = {"leads": ("I", "II"), "sampling_rate": 100, "num_samples": 200}
SPEECH = TRANSFORMER | INPUT | {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
DROPPING = {"hidden_dropout": 0.5, "attention_dropout": 0.5, "activation_dropout": 0.5, "layerdrop": 0.5}
MODELS = {
    "stochastic depth": lambda: EcgViTForSequenceClassification(
        EcgViTConfig(**TRANSFORMER, **INPUT, patch_size=50, drop_path_rate=0.9)
    ),
    "hubert-ecg": lambda: HubertEcgForSequenceClassification(
        HubertEcgConfig(**SPEECH, **DROPPING, conv_dim=(8,) * 5, feat_proj_dropout=0.5)
    ),
    "masking": lambda: HubertEcgForSequenceClassification(
        HubertEcgConfig(**SPEECH, conv_dim=(8,) * 5, mask_time_prob=0.9, mask_time_length=1)
    ),
    "ecg-fm": lambda: EcgFmForSequenceClassification(EcgFmConfig(**SPEECH, **DROPPING, conv_dim=(8,) * 4)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_nothing_is_random_in_a_frozen_encoder_and_its_head_learns(kind):
    torch.manual_seed(0)
    model, values = MODELS[kind](), torch.randn(8, 2, 200)
    expected = model.eval()(values).logits
    assert not torch.allclose(model.train()(values).logits, expected, atol=1e-4)  # as it was before
    freeze_encoder(model.base_model)
    for _ in range(2):
        model.train()  # as a Trainer does before each step
        logits = model(values).logits
        torch.testing.assert_close(logits, expected)
    assert model.training and model.classifier.training
    logits.sum().backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learned == {"classifier.weight", "classifier.bias"}


def test_an_encoder_that_learns_again_is_in_training_again():
    model = MODELS["stochastic depth"]()
    freeze_encoder(model.base_model)
    model.base_model.requires_grad_(True)
    model.train()
    model(torch.zeros(2, 2, 200))
    assert model.base_model.training
