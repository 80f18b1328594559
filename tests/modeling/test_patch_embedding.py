"""What a token is made of: layer norms around the projection, separators, extra channels, and what heads read."""

import pytest
import torch

from ecg_transformers.modeling import EcgViTConfig, EcgViTForSequenceClassification, EcgViTModel
from ecg_transformers.modeling.patch_embedding import sincos_table

from .tiny_methods import SMALL

LEADS = ("I", "II", "V1", "V2")
SEPARATED = {"lead_separators": True, "attention_pattern": "full", "position_embedding": "sincos_halves"}


def tiny(model_class=EcgViTModel, **fields):
    settings = SMALL | {"leads": LEADS, "num_samples": 60, "patch_size": 10, "position_every_layer": False}
    torch.manual_seed(0)
    model = model_class(EcgViTConfig(**settings | {"attn_implementation": "sdpa"} | fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def signals(batch=3, channels=4):
    return torch.randn(batch, channels, 60, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
def test_patches_are_normed_before_and_after_their_projection(patching):
    embeddings = tiny(patching=patching, patch_norm=True).embeddings
    tokens, _, _ = embeddings(signals())
    for column in range(6):
        patch = signals()[:, :, 10 * column : 10 * column + 10]
        rows = patch.unbind(1) if patching == "per_lead" else [patch.flatten(1)]
        for row, values in enumerate(rows):
            normed = (values - values.mean(-1, keepdim=True)) / (
                values.var(-1, keepdim=True, unbiased=False) + 1e-5
            ) ** 0.5
            normed = normed * embeddings.patch_norm_before.weight + embeddings.patch_norm_before.bias
            expected = torch.nn.functional.layer_norm(
                normed @ embeddings.projection.weight.T + embeddings.projection.bias,
                (32,),
                embeddings.patch_norm_after.weight,
                embeddings.patch_norm_after.bias,
            )
            torch.testing.assert_close(tokens[:, row * 6 + column], expected, atol=1e-5, rtol=1e-5)


def test_separators_and_lead_embeddings_stand_where_st_mem_has_them():
    """Built as in ST-MEM: for each lead [separator, patches, separator], one dense sequence."""
    model = tiny(**SEPARATED)
    embeddings = model.embeddings
    table = sincos_table(torch.arange(6), 32)
    sequence, is_patch = [], []
    for row in range(4):
        patches = embeddings.projection(signals()[:, row].unflatten(-1, (6, 10))) + table
        separator = embeddings.separator.expand(3, 1, -1)
        sequence.append(torch.cat((separator, patches, separator), dim=1) + embeddings.lead_embeddings[row])
        is_patch += [False] + [True] * 6 + [False]
    hidden = torch.cat(sequence, dim=1)
    for layer in model.layers:
        normed = layer.layernorm_before(hidden)
        attention = layer.attention
        query, key, value = (
            projection(normed).unflatten(-1, (4, 8)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        weights = (query @ key.transpose(2, 3) * 8**-0.5).softmax(-1)
        hidden = hidden + attention.o_proj((weights @ value).transpose(1, 2).flatten(2))
        hidden = hidden + layer.mlp(layer.layernorm_after(hidden))
    expected = model.layernorm(hidden)[:, is_patch]
    output = model(signals())
    torch.testing.assert_close(output.last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.pooler_output, expected.mean(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        SEPARATED,  # a lead takes its separators with it
        {"patching": "all_leads", "patch_norm": True},
        {"classifier_pooling": "attentive", "num_registers": 1},
    ],
    ids=["separators", "patch norms", "attentive head"],
)
def test_an_absent_lead_is_as_one_left_out(fields):
    model = tiny(EcgViTForSequenceClassification, **fields)
    lead_mask = torch.tensor([[True, False, True, True]]).expand(3, -1)
    masked = model(signals(), lead_mask=lead_mask).logits
    left_out = model(signals()[:, [0, 2, 3]], leads=["I", "V1", "V2"]).logits
    torch.testing.assert_close(masked, left_out, atol=1e-5, rtol=1e-5)


def test_a_class_token_is_the_first_register_after_the_norm():
    output = tiny(num_registers=2, pooling="class_token")(signals())
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, 0])


def test_lead_positions_tell_leads_apart_and_not_moments():
    model = tiny(position_embedding="sincos_leads", attention_pattern="full")
    positions = model.embeddings.position_embeddings
    torch.testing.assert_close(positions[:, 0], sincos_table(torch.arange(4), 32))
    assert (positions == positions[:, :1]).all()


def test_heads_can_have_a_width_of_their_own():
    model = tiny(num_attention_heads=3, head_dim=16)
    assert model.layers[0].attention.q_proj.weight.shape == (48, 32)
    assert model(signals()).last_hidden_state.shape == (3, 24, 32)


@pytest.mark.parametrize("attention_pattern", ["cropa", "full"])
def test_extra_channels_are_rows_after_the_leads_that_no_lead_mask_touches(attention_pattern):
    model = tiny(extra_channels=2, attention_pattern=attention_pattern)
    assert model.embeddings.position_embeddings.shape == (6, 6, 32)
    assert model(signals(channels=6)).last_hidden_state.shape == (3, 36, 32)
    lead_mask = torch.tensor([[True, False, True, True]]).expand(3, -1)
    masked = model(signals(channels=6), lead_mask=lead_mask).pooler_output
    left_out = model(signals(channels=6)[:, [0, 2, 3, 4, 5]], leads=["I", "V1", "V2"]).pooler_output
    torch.testing.assert_close(masked, left_out, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="Expected 4 leads .* and 2 extra channels, got 4"):
        model(signals())


def test_the_attentive_head_equals_a_manual_one():
    model = tiny(
        EcgViTForSequenceClassification, num_registers=1, classifier_pooling="attentive", classifier_bias=False
    )
    states, pooler = model.ecg_vit(signals()).last_hidden_state, model.attentive_pooler
    pooled = torch.empty(3, 32)
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        query = pooler.query_token[0, 0] @ pooler.q_proj.weight[part].T
        key, value = states @ pooler.k_proj.weight[part].T, states @ pooler.v_proj.weight[part].T
        weights = (key @ query * 8**-0.5).softmax(-1)
        pooled[:, part] = torch.einsum("bn,bnd->bd", weights, value)
    assert model.classifier.bias is None
    torch.testing.assert_close(model(signals()).logits, pooled @ model.classifier.weight.T, atol=1e-5, rtol=1e-5)


def test_the_register_head_reads_the_first_register():
    model = tiny(EcgViTForSequenceClassification, classifier_pooling="register", num_registers=2)
    states = model.ecg_vit(signals()).last_hidden_state
    torch.testing.assert_close(model(signals()).logits, model.classifier(states[:, 0]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "class_token"}, "set num_registers to 1 or more"),
        ({"patching": "all_leads", "extra_channels": 1}, "need patching='per_lead'"),
        ({"lead_separators": True}, "lead_separators need attention_pattern='full'"),
    ],
)
def test_tokens_that_exclude_each_other_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)
