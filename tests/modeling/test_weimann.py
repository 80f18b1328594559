"""ECG-JEPA of Weimann and Conrad: the same classes as Kim's, other values of their fields."""

import pytest
import torch

from ecg_transformers.modeling import EcgJepaConfig, EcgJepaForPreTraining, EcgViTConfig, EcgViTModel
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_ecg_jepa import EcgJepaForSequenceClassification

from .tiny_methods import SMALL, SMALL_PREDICTOR, same_weights

ENCODER = SMALL | {
    "num_samples": 200,
    "patch_size": 10,
    "patching": "all_leads",
    "attention_pattern": "full",
    "position_embedding": "sincos_interleaved",
    "position_every_layer": False,
    "num_registers": 1,
    "use_bias": False,
    "layer_norm_bias": False,
    "layer_norm_eps": 1e-6,
}
METHOD = SMALL_PREDICTOR | {
    "mask_type": "segments",
    "mask_ratio": (0.6, 0.8),
    "min_segment_patches": 3,
    "evaluated_encoder": "teacher",
    "initializer": "weimann",
    "target_normalization": "none",
    "prediction_loss": "l1",
}


def tiny_model(**fields):
    torch.manual_seed(0)
    return EcgJepaForPreTraining(EcgJepaConfig(**{**ENCODER, **METHOD, **fields}))


def shaken_model(**fields):
    """With a teacher unlike its student, and weights large enough to matter."""
    model = tiny_model(**fields)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def signals(batch=4):
    return torch.randn(batch, 3, 200, generator=torch.Generator().manual_seed(7))


def masks(batch=4, step=0):
    keys = DrawKeys(seed=0, step=step, epoch=0, sample_ids=tuple(range(batch)))
    return tiny_model().draw_inputs(signals(batch), keys)["bool_masked_pos"]


def manual_layer(layer, tokens):
    """One pre-norm block on `(tokens, width)`, head by head."""
    attention, normed = layer.attention, layer.layernorm_before(tokens)
    heads = []
    for head in range(attention.num_heads):
        rows = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
        q, k, v = (normed @ p.weight[rows].T for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        heads.append((q @ k.T / attention.head_dim**0.5).softmax(-1) @ v)
    tokens = tokens + torch.cat(heads, dim=-1) @ attention.o_proj.weight.T
    return tokens + layer.mlp(layer.layernorm_after(tokens))


def manual_encode(encoder, record, columns):
    """Patches of all leads, positions once, a register in front; the states of the patches alone."""
    patches = torch.stack([record[:, 10 * column : 10 * column + 10].flatten() for column in columns])
    width = encoder.config.hidden_size
    rate = 10_000 ** (-torch.arange(0, width, 2) / width)
    positions = torch.stack([torch.stack(((c * rate).sin(), (c * rate).cos()), dim=-1).flatten() for c in columns])
    tokens = patches @ encoder.embeddings.projection.weight.T + positions
    tokens = torch.cat((encoder.embeddings.register_tokens[0], tokens))
    for layer in encoder.layers:
        tokens = manual_layer(layer, tokens)
    return encoder.layernorm(tokens)[1:]


def manual_loss(model, input_values, hidden_masks):
    losses = []
    for record, mask in zip(input_values, hidden_masks, strict=True):
        visible, hidden = (torch.nonzero(part)[:, 0] for part in (~mask, mask))
        targets = manual_encode(model.ecg_vit, record, range(20))[hidden]
        predictor = model.predictor
        tokens = predictor.embedding(manual_encode(model.student, record, visible.tolist()))
        tokens = torch.cat((tokens, predictor.mask_token[0].expand(len(hidden), -1)))
        tokens = tokens + predictor.position_embeddings[torch.cat((visible, hidden))]
        for layer in predictor.layers:
            tokens = manual_layer(layer, tokens)
        predictions = predictor.projection(predictor.layernorm(tokens))[len(visible) :]
        losses.append((predictions - targets).abs().mean())
    return torch.stack(losses).mean()


def test_the_loss_equals_a_manual_one():
    model = shaken_model().eval()
    with torch.no_grad():
        output = model(signals(), bool_masked_pos=masks())
        torch.testing.assert_close(output.loss, manual_loss(model, signals(), masks()), atol=1e-5, rtol=1e-4)


def test_nothing_has_a_bias_registers_are_never_predicted_and_the_teacher_is_evaluated():
    model = tiny_model(num_registers=2)
    assert not [name for name, _ in model.named_parameters() if "bias" in name]
    output = model(signals(), bool_masked_pos=masks())
    num_hidden = int(masks()[0].sum())
    assert output.predictions.shape == output.targets.shape == (4, 1, num_hidden, 32)
    assert output.last_hidden_state.shape == (4, 2 + 20 - num_hidden, 32)
    assert model.target_encoder is model.ecg_vit and model.trained_encoder is model.student


@pytest.mark.parametrize("base", ["ecg_vit", "ecg_jepa"])
def test_a_bare_encoder_becomes_student_and_teacher(tmp_path, base):
    torch.manual_seed(3)
    encoder = EcgViTModel(EcgViTConfig(**ENCODER)) if base == "ecg_vit" else shaken_model().ecg_vit
    encoder.save_pretrained(tmp_path)
    model = EcgJepaForPreTraining.from_pretrained(tmp_path, **METHOD)
    assert same_weights(model.ecg_vit, encoder) and same_weights(model.student, encoder)
    assert not any(parameter.requires_grad for parameter in model.ecg_vit.parameters())
    assert all(parameter.requires_grad for parameter in model.student.parameters())


def test_records_of_a_batch_hide_one_count_of_other_patches():
    drawn = masks()
    assert drawn.shape == (4, 20) and len(set(drawn.sum(dim=1).tolist())) == 1
    assert len({tuple(row) for row in drawn.tolist()}) > 1
    counts = {int(masks(step=step)[0].sum()) for step in range(40)}
    assert counts == {12, 13, 14, 15}  # one count a batch, another one each step


def test_one_mask_can_be_drawn_for_a_picture():
    assert tiny_model().draw_mask(torch.Generator().manual_seed(0)).shape == (1, 20)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask_ratio": (0.01, 0.5)}, "can hide between 0 and 9 of 20"),
        ({"mask_ratio": (1.0, 1.0)}, "at least 1 must be hidden and 1 visible"),
        ({"min_segment_patches": 0}, "min_segment_patches of at least 1"),
        ({"evaluated_encoder": "both"}, "Expected evaluated_encoder to be one of"),
    ],
)
def test_every_draw_leaves_something_hidden_and_something_visible(fields, message):
    tiny_model(mask_ratio=(0.5, 1.0))  # 19 of 20 at most
    with pytest.raises(ValueError, match=message):
        tiny_model(**fields)


def test_masks_smaller_than_the_smallest_block_do_not_fail():
    model = tiny_model(min_segment_patches=10, mask_ratio=(0.3, 0.45))
    assert model(signals()).loss.isfinite()


def test_weimann_weights_start_from_a_truncated_normal_scaled_by_the_depth_of_the_encoder():
    model = tiny_model(hidden_size=128, num_hidden_layers=8, predictor_hidden_size=128, predictor_num_hidden_layers=2)
    branch = 0.02 / (2 * 8) ** 0.5
    for layers in (model.student.layers, model.predictor.layers):
        for layer in layers:
            for module, std in (
                (layer.attention.q_proj, 0.02),
                (layer.mlp.fc1, 0.02),
                (layer.attention.o_proj, branch),
                (layer.mlp.fc2, branch),
            ):
                assert module.weight.std().item() == pytest.approx(std, rel=0.1)
    for tensor in (
        model.student.embeddings.projection.weight,
        model.student.embeddings.register_tokens,
        model.predictor.mask_token,
        model.predictor.embedding.weight,
    ):
        assert tensor.std().item() == pytest.approx(0.02, rel=0.25)
    assert same_weights(model.student, model.ecg_vit)


def test_xavier_bounds_are_those_of_the_fused_matrices_and_of_the_convolution():
    model = tiny_model(initializer="xavier_uniform", hidden_size=64)
    layer, embeddings = model.student.layers[0], model.student.embeddings
    for module, bound in (
        (layer.attention.k_proj, (6 / (64 + 3 * 64)) ** 0.5),
        (layer.attention.o_proj, (6 / (64 + 64)) ** 0.5),
        (layer.mlp.fc1, (6 / (64 + 64)) ** 0.5),
        (embeddings.projection, (6 / (3 * 10 + 64 * 10)) ** 0.5),
        (model.predictor.embedding, (6 / (64 + 16)) ** 0.5),
    ):
        assert 0.95 * bound < module.weight.abs().max().item() <= bound


def test_loading_draws_no_weight_anew(tmp_path):
    model = shaken_model(initializer="xavier_uniform")
    model.save_pretrained(tmp_path)
    assert same_weights(EcgJepaForPreTraining.from_pretrained(tmp_path), model)
    classifier = EcgJepaForSequenceClassification.from_pretrained(tmp_path, classifier_pooling="attentive")
    assert same_weights(classifier.ecg_vit, model.ecg_vit)
    assert classifier.attentive_pooler.k_proj.weight.abs().max() <= (6 / (32 + 2 * 32)) ** 0.5


def test_the_attentive_head_starts_as_the_encoder_does():
    torch.manual_seed(0)
    config = EcgJepaConfig(
        **{**ENCODER, **METHOD, "hidden_size": 128}, classifier_pooling="attentive", classifier_bias=False
    )
    model = EcgJepaForSequenceClassification(config)
    assert model.attentive_pooler.k_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.attentive_pooler.query_token.std().item() == pytest.approx(0.02, rel=0.3)


def test_only_the_matrices_of_linear_maps_decay():
    def free(model):
        names = dict(model.named_parameters())
        return {name for name, parameter in names.items() if parameter.ndim > 1} - {
            name for name, parameter in names.items() if model.has_weight_decay(name, parameter)
        }

    tokens = {"ecg_vit.embeddings.register_tokens", "student.embeddings.register_tokens", "predictor.mask_token"}
    assert free(tiny_model()) == tokens
    assert free(tiny_model(initializer="kim")) == set()
