import pytest
import torch

from ecg_transformers.modeling.configuration_sigreg_jepa import SigRegJepaConfig
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_sigreg_jepa import SigRegJepaForPreTraining
from ecg_transformers.modeling.sigreg import sigreg

from .tiny_methods import SMALL, SMALL_PREDICTOR
from .tiny_methods import hidden_columns as mask

TINY = SMALL | SMALL_PREDICTOR | {"sampling_rate": 100, "num_samples": 100, "patch_size": 10, "num_slices": 32}
TINY |= {"mask_ratio": (0.4, 0.6), "min_segment_patches": 2, "projector_hidden_size": 24, "projection_size": 8}
TINY |= {"attn_implementation": "sdpa"}
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


def test_biases_norms_and_tokens_do_not_decay_and_there_is_no_teacher():
    model = tiny_model()
    decayed = {name for name, parameter in model.named_parameters() if model.has_weight_decay(name, parameter)}
    assert "predictor.layers.0.mlp.fc1.weight" in decayed and "projector.fc1.weight" in decayed
    assert not [name for name in decayed if any(part in name for part in ("bias", "norm", "token"))]
    assert not model.has_teacher
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"ecg_vit", "predictor", "projector"}


def test_tokens_of_absent_leads_are_refused_by_their_statistic():
    model = tiny_model(**PER_LEAD, token_sigreg_weight=0.1)
    with pytest.raises(ValueError, match="every record needs every lead"):
        model(signals(), lead_mask=torch.ones(4, 3, dtype=torch.bool))
