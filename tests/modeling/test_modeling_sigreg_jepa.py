import pytest
import torch

from ecg_transformers.modeling.configuration_sigreg_jepa import SigRegJepaConfig
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_sigreg_jepa import (
    SigRegJepaForPreTraining,
)
from ecg_transformers.modeling.sigreg import sigreg

TINY = {
    "leads": ("I", "II", "V1"),
    "sampling_rate": 100,
    "num_samples": 100,
    "patch_size": 10,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "mask_ratio": (0.4, 0.6),
    "min_segment_patches": 2,
    "predictor_hidden_size": 16,
    "predictor_num_hidden_layers": 1,
    "predictor_num_attention_heads": 2,
    "predictor_intermediate_size": 32,
    "projector_hidden_size": 24,
    "projection_size": 8,
    "num_slices": 32,
    "attn_implementation": "sdpa",
}
PER_LEAD = {
    "patching": "per_lead",
    "attention_pattern": "cropa",
    "position_embedding": "sincos_2d",
    "num_registers": 0,
    "mask_type": "multi_block",
    "mask_ratio": (0.2, 0.25),
}
LAYOUTS = pytest.mark.parametrize("layout", [{}, PER_LEAD], ids=["all_leads", "per_lead"])
KEYS = DrawKeys(seed=1, step=5, epoch=2, sample_ids=(10, 11, 12, 13))


def tiny_model(**fields):
    torch.manual_seed(0)
    return SigRegJepaForPreTraining(SigRegJepaConfig(**{**TINY, **fields}))


def signals(batch=4):
    return torch.randn(batch, 3, 100, generator=torch.Generator().manual_seed(7))


def mask(*hidden):
    columns = torch.zeros(1, 10, dtype=torch.bool)
    columns[0, list(hidden)] = True
    return columns


def same_weights(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@torch.no_grad()
@LAYOUTS
def test_the_loss_equals_a_manual_one(layout):
    """A record at a time, on top of the encoder and the predictor, which have tests of their own."""
    model = tiny_model(**layout, sigreg_weight=0.1, token_sigreg_weight=0.3).train()
    drawn = model.draw_inputs(signals(), KEYS)
    output = model(signals(), **drawn)
    masks = drawn["bool_masked_pos"].expand(4, -1)
    rows, registers = (3, 0) if layout else (1, 1)
    errors, features, grids = [], [], []
    for record, columns in zip(signals(), masks, strict=True):
        whole = model.ecg_vit(record[None])
        grid = whole.last_hidden_state[0, registers:].view(rows, 10, -1)
        visible, hidden = (~columns).nonzero().T, columns.nonzero().T
        context = model.ecg_vit(record[None], bool_masked_pos=columns[None]).last_hidden_state[:, registers:]
        predicted = model.predictor(context.view(1, rows, visible.shape[1], -1), visible, hidden)[0]
        error = (predicted - grid[:, columns]).abs()
        errors.append(torch.where(error < 1, 0.5 * error**2, error - 0.5).mean())
        features.append(whole.pooler_output[0])
        grids.append(grid)
    prediction_loss = torch.stack(errors).mean()
    pooled = sigreg(model.projector(torch.stack(features)), drawn["directions"])
    by_place = [
        sigreg(torch.stack(grids)[:, row, column], drawn["token_directions"])
        for row in range(rows)
        for column in range(10)
    ]
    token_loss = torch.stack(by_place).mean()
    torch.testing.assert_close(output.prediction_loss, prediction_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.sigreg_loss, pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.token_sigreg_loss, token_loss, rtol=1e-4, atol=1e-5)
    expected = prediction_loss + 0.1 * pooled + 0.3 * token_loss
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.pooler_output, torch.stack(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("prediction_loss", "power"), [("l1", 1), ("mse", 2)])
def test_other_distances_are_those_of_their_name(prediction_loss, power):
    output = tiny_model(prediction_loss=prediction_loss).eval()(signals(), bool_masked_pos=mask(0, 3))
    expected = (output.predictions - output.targets).abs().pow(power).mean()
    torch.testing.assert_close(output.prediction_loss, expected)


def test_targets_can_be_normalised_and_carry_gradients():
    output = tiny_model(target_normalization="layer_norm").eval()(signals(), bool_masked_pos=mask(0, 3))
    torch.testing.assert_close(output.targets.mean(dim=-1), torch.zeros(4, 1, 2), atol=1e-5, rtol=0)
    assert output.targets.requires_grad


def test_there_is_no_teacher():
    model = tiny_model()
    assert not model.has_teacher
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"ecg_vit", "predictor", "projector"}


@LAYOUTS
def test_hidden_patches_do_not_leak_into_the_predictions(layout):
    model = tiny_model(**layout).eval()
    changed = signals()
    changed.unflatten(-1, (10, 10))[:, :, [1, 4]] = 50.0
    first = model(signals(), bool_masked_pos=mask(1, 4)).predictions
    assert torch.equal(first, model(changed, bool_masked_pos=mask(1, 4)).predictions)


def test_an_absent_lead_has_no_part_in_the_loss():
    model = tiny_model(**PER_LEAD).eval()
    lead_mask = torch.tensor([[True, True, False]]).expand(4, -1)
    with_garbage = signals()
    with_garbage[:, 2] = 1e3
    masked = model(with_garbage, lead_mask=lead_mask, bool_masked_pos=mask(1, 4)).loss
    left_out = model(signals()[:, :2], leads=["I", "II"], bool_masked_pos=mask(1, 4)).loss
    torch.testing.assert_close(masked, left_out)


def test_segments_belong_to_a_record_and_blocks_to_a_batch():
    model = tiny_model()
    drawn = model.draw_inputs(signals(), KEYS)
    assert drawn["bool_masked_pos"].shape == (4, 10)
    alone = model.draw_inputs(signals()[2:3], DrawKeys(seed=1, step=5, epoch=2, sample_ids=(12,)))
    assert torch.equal(alone["bool_masked_pos"], drawn["bool_masked_pos"][2:3])
    assert tiny_model(**PER_LEAD).draw_inputs(signals(), KEYS)["bool_masked_pos"].shape == (1, 10)
    with pytest.raises(ValueError, match="a sample id for each of 4 records, got 1"):
        model.draw_inputs(signals(), DrawKeys(0, 0, 0, (1,)))


def test_biases_norms_and_tokens_do_not_decay():
    model = tiny_model()
    decayed = {name for name, parameter in model.named_parameters() if model.has_weight_decay(name, parameter)}
    assert "predictor.layers.0.mlp.fc1.weight" in decayed and "projector.fc1.weight" in decayed
    assert not [name for name in decayed if any(part in name for part in ("bias", "norm", "token"))]


def test_masks_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="hides nothing"):
        tiny_model()(signals(), bool_masked_pos=mask())
    with pytest.raises(ValueError, match=r"shape \(batch or 1, 10\), got \(4, 3, 10\)"):
        tiny_model()(signals(), bool_masked_pos=torch.zeros(4, 3, 10, dtype=torch.bool))


def test_tokens_of_absent_leads_are_refused_by_their_statistic():
    model = tiny_model(**PER_LEAD, token_sigreg_weight=0.1)
    with pytest.raises(ValueError, match="every record needs every lead"):
        model(signals(), lead_mask=torch.ones(4, 3, dtype=torch.bool))
