"""What pretraining models record of themselves, and what heads leave without gradient."""

import pytest
import torch

from ecg_transformers.modeling import (
    EcgVqVaeConfig,
    EcgVqVaeForEmbedding,
    EcgVqVaeForPreTraining,
    EcgVqVaeForSequenceClassification,
    EcgVqVaeForTokenClassification,
    MtaeConfig,
    MtaeForPreTraining,
    StMemConfig,
    StMemForPreTraining,
)

TINY = {"leads": ("I", "II", "V1"), "num_samples": 40, "patch_size": 10, "num_hidden_layers": 2, "head_dim": 8}
TINY |= {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "decoder_hidden_size": 16}
TINY |= {"decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
CODEBOOK = {"latent_size": 8, "num_codes": 16}


@pytest.mark.parametrize(
    ("model_class", "config", "num_tokens"),
    [
        (StMemForPreTraining, StMemConfig(**TINY), 3 * (1 + 2)),  # 1 of 4 patches and 2 separators of each lead
        (MtaeForPreTraining, MtaeConfig(**TINY), 1 + 1),
        (EcgVqVaeForPreTraining, EcgVqVaeConfig(**TINY, **CODEBOOK), 4),
    ],
)
def test_hidden_states_and_attentions_are_those_of_the_encoder_alone(model_class, config, num_tokens):
    model, signals = model_class(config).eval(), torch.randn(2, 3, 40)
    output = model(signals, output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, num_tokens, 16)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 2, num_tokens, num_tokens)] * 2
    assert model(signals).hidden_states is None


@pytest.mark.parametrize(
    ("head", "fields", "is_read"),
    [
        (EcgVqVaeForSequenceClassification, {}, False),
        (EcgVqVaeForSequenceClassification, {"features": "latents"}, True),
        (EcgVqVaeForSequenceClassification, {"features": "latents", "classifier_pooling": "attentive"}, False),
        (EcgVqVaeForTokenClassification, {"features": "latents"}, False),
        (EcgVqVaeForEmbedding, {}, False),
        (EcgVqVaeForEmbedding, {"features": "codes"}, True),
    ],
)
def test_a_head_leaves_nothing_trainable_that_gets_no_gradient(head, fields, is_read, tmp_path):
    """Processes that train together wait for the gradient of every trainable parameter."""
    EcgVqVaeForPreTraining(EcgVqVaeConfig(**TINY, **CODEBOOK)).save_pretrained(tmp_path)
    signals = torch.randn(4, 3, 40)
    labels = torch.zeros(4, 3, 40, dtype=torch.long) if head is EcgVqVaeForTokenClassification else torch.arange(4) % 2
    for model in (head(EcgVqVaeConfig(**TINY, **CODEBOOK, **fields)), head.from_pretrained(tmp_path, **fields)):
        assert model.ecg_vit.latent_projection.weight.requires_grad is is_read
        model.train()(signals, labels=labels).loss.backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
