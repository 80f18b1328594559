import pytest
import torch

from ecg_transformers.modeling import EcgJepaConfig, EcgJepaForPreTraining, EcgViTConfig, EcgViTModel
from ecg_transformers.modeling.modeling_ecg_jepa import POOLED_STD
from ecg_transformers.modeling.vicreg import standardize_by_position, variance_and_covariance

from .tiny_methods import SMALL, SMALL_PREDICTOR, same_weights
from .tiny_methods import hidden_columns as mask

TINY = SMALL | {"num_samples": 100, "patch_size": 10, "attn_implementation": "sdpa"}
TINY_PREDICTOR = SMALL_PREDICTOR | {"mask_type": "random", "mask_ratio": (0.4, 0.6)}


def tiny_model(**fields):
    torch.manual_seed(0)
    return EcgJepaForPreTraining(EcgJepaConfig(**{**TINY, **TINY_PREDICTOR, **fields}))


def signals(batch=4):
    return torch.randn(batch, 3, 100, generator=torch.Generator().manual_seed(7))


def manual_loss(model, input_values, hidden):
    """The loss of the paper, one record, lead and hidden patch at a time."""
    visible = [column for column in range(10) if column not in hidden]
    losses = []
    for record in input_values:
        target = model.teacher(record[None]).last_hidden_state[0].view(3, 10, -1)
        student = (
            model.ecg_vit(record[None], bool_masked_pos=mask(*hidden)).last_hidden_state[0].view(3, len(visible), -1)
        )
        for lead in range(3):
            predictor = model.predictor
            tokens = torch.cat((predictor.embedding(student[lead]), predictor.mask_token[0].expand(len(hidden), -1)))
            positions = predictor.position_embeddings[visible + list(hidden)]
            for layer in predictor.layers:
                tokens = tokens + positions
                normed = layer.layernorm_before(tokens)
                attention = layer.attention
                q, k, v = (
                    projection(normed).view(10, attention.num_heads, attention.head_dim).transpose(0, 1)
                    for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
                )
                weights = (q @ k.transpose(1, 2) * attention.head_dim**-0.5).softmax(-1)
                tokens = tokens + attention.o_proj((weights @ v).transpose(0, 1).flatten(1))
                tokens = tokens + layer.mlp(layer.layernorm_after(tokens))
            predictions = predictor.projection(predictor.layernorm(tokens))[len(visible) :]
            for prediction, column in zip(predictions, hidden, strict=True):
                states = target[lead, column]
                states = (states - states.mean()) / (states.var(unbiased=False) + 1e-5).sqrt()
                error = (prediction - states).abs()
                losses.append(torch.where(error < 1, 0.5 * error**2, error - 0.5).mean())
    return torch.stack(losses).mean()


def test_the_loss_equals_a_manual_one():
    model = tiny_model().eval()
    model.update_teacher(0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        hidden = (1, 2, 5, 9)
        output = model(signals(), bool_masked_pos=mask(*hidden))
        torch.testing.assert_close(output.loss, manual_loss(model, signals(), hidden))
    assert output.predictions.shape == output.targets.shape == (4, 3, 4, 32)


@pytest.mark.parametrize(("prediction_loss", "power"), [("l1", 1), ("mse", 2)])
def test_other_distances_are_those_of_their_name(prediction_loss, power):
    model = tiny_model(prediction_loss=prediction_loss, target_normalization="none").eval()
    output = model(signals(), bool_masked_pos=mask(0, 3))
    expected = (output.predictions - output.targets).abs().pow(power).mean()
    torch.testing.assert_close(output.loss, expected)
    teacher = model.teacher(signals()).last_hidden_state.view(4, 3, 10, 32)
    torch.testing.assert_close(output.targets, teacher[:, :, [0, 3]])


def test_position_targets_hold_nothing_that_the_position_explains():
    model = tiny_model(target_normalization="position").eval()
    teacher = model.teacher(signals()).last_hidden_state.view(4, 3, 10, 32)
    normed = torch.nn.functional.layer_norm(teacher, (32,))
    expected = torch.empty_like(normed)
    for lead in range(3):
        for column in range(10):
            expected[:, lead, column] = normed[:, lead, column] - normed[:, lead, column].mean(dim=0)
    for channel in range(32):
        values = expected[..., channel]
        expected[..., channel] = values / (values.pow(2).mean() + 1e-4).sqrt()
    targets = model(signals(), bool_masked_pos=mask(2, 8)).targets
    torch.testing.assert_close(targets, expected[:, :, [2, 8]], atol=1e-5, rtol=1e-4)


def test_position_statistics_leave_absent_leads_out():
    states = torch.randn(5, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    lead_mask = torch.ones(5, 3, dtype=torch.bool)
    lead_mask[3:, 1] = False
    before = standardize_by_position(states, lead_mask)
    states[3:, 1] = 1e4
    after = standardize_by_position(states, lead_mask)
    torch.testing.assert_close(after[lead_mask], before[lead_mask])
    assert before[:3, 1].mean(dim=0).abs().max() < 1e-6


def test_variance_and_covariance_terms_equal_a_manual_computation():
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    variance, covariance = variance_and_covariance(features, POOLED_STD)
    scaled = (features - features.mean(0)) / 0.5
    hinges, products = [], []
    for first in range(3):
        hinges.append(max(0.0, 1 - (scaled[:, first].var().item() + 1e-4) ** 0.5))
        for second in range(3):
            if first != second:
                products.append((sum(scaled[i, first] * scaled[i, second] for i in range(6)) / 5).item() ** 2)
    assert variance.item() == pytest.approx(sum(hinges) / 3, rel=1e-5)
    assert covariance.item() == pytest.approx(sum(products) / 3, rel=1e-5)


@pytest.mark.parametrize("weights", [(0.5, 0.25), (0.0, 1e4)])  # the covariance is tiny before any training
def test_the_regularisers_enter_the_loss_by_their_weights(weights):
    regularised = tiny_model(variance_weight=weights[0], covariance_weight=weights[1]).eval()
    plain = tiny_model().eval()
    output = plain(signals(), bool_masked_pos=mask(1, 4))
    pooled = plain.ecg_vit(signals(), bool_masked_pos=mask(1, 4)).pooler_output
    variance, covariance = variance_and_covariance(pooled, POOLED_STD)
    assert weights[1] < 1 or weights[1] * covariance > 0.1 * output.loss
    expected = output.loss + weights[0] * variance + weights[1] * covariance
    torch.testing.assert_close(regularised(signals(), bool_masked_pos=mask(1, 4)).loss, expected)


def test_every_record_can_have_a_mask_of_its_own():
    model = tiny_model().eval()
    masks = torch.cat((mask(1, 4), mask(0, 9), mask(5, 6), mask(2, 7)))
    together = model(signals(), bool_masked_pos=masks)
    alone = [model(signals()[i : i + 1], bool_masked_pos=masks[i : i + 1]).loss for i in range(4)]
    torch.testing.assert_close(together.loss, torch.stack(alone).mean())


def test_stochastic_depth_is_off_in_the_teacher_unless_parity_is_asked_for():
    for teacher_drop_path in (False, True):
        model = tiny_model(drop_path_rate=0.5, teacher_drop_path=teacher_drop_path).train()
        targets = [model(signals(), bool_masked_pos=mask(1, 2)).targets for _ in range(2)]
        assert torch.equal(*targets) == (not teacher_drop_path)
        assert model.teacher.training == teacher_drop_path


@pytest.mark.parametrize("base", ["ecg_vit", "ecg_jepa"])
def test_a_bare_encoder_becomes_a_pretraining_model_whose_teacher_is_its_student(tmp_path, base):
    torch.manual_seed(3)
    encoder = EcgViTModel(EcgViTConfig(**TINY)) if base == "ecg_vit" else tiny_model().ecg_vit
    encoder.save_pretrained(tmp_path)
    model = EcgJepaForPreTraining.from_pretrained(tmp_path, **TINY_PREDICTOR)
    assert same_weights(model.ecg_vit, encoder)
    assert same_weights(model.teacher, encoder)
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())


def test_a_missing_part_of_the_teacher_comes_from_the_student(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.add_(0.1)
    state = {key: value for key, value in model.state_dict().items() if key != "teacher.layernorm.weight"}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = EcgJepaForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(loaded.teacher.layernorm.weight, model.ecg_vit.layernorm.weight)
    assert torch.equal(loaded.teacher.layers[0].mlp.fc1.weight, model.teacher.layers[0].mlp.fc1.weight)


def test_the_attention_implementation_reaches_the_predictor():
    model = tiny_model()
    model.set_attn_implementation("eager")
    assert model.predictor.layers[0].attention.config._attn_implementation == "eager"


def test_a_batch_of_one_is_refused_by_an_objective_that_compares_records():
    model = tiny_model(covariance_weight=0.1).train()
    with pytest.raises(ValueError, match="dataloader_drop_last"):
        model(signals(1))
    assert torch.isfinite(model.eval()(signals(1)).loss)


def test_a_mask_that_hides_nothing_or_is_of_another_width_is_refused():
    with pytest.raises(ValueError, match="hides nothing"):
        tiny_model()(signals(), bool_masked_pos=mask())
    with pytest.raises(ValueError, match=r"shape \(batch or 1, 10\), got \(4, 3, 10\)"):
        tiny_model()(signals(), bool_masked_pos=torch.zeros(4, 3, 10, dtype=torch.bool))


@pytest.mark.parametrize("target_normalization", ["layer_norm", "position"])
def test_extra_channels_are_predicted_whatever_leads_are_absent(target_normalization):
    model = tiny_model(extra_channels=2, target_normalization=target_normalization).eval()
    input_values = torch.randn(4, 5, 100, generator=torch.Generator().manual_seed(7))
    lead_mask = torch.tensor([[True, False, True]]).expand(4, -1)
    output = model(input_values, lead_mask=lead_mask, bool_masked_pos=mask(1, 4))
    per_row = torch.nn.functional.smooth_l1_loss(output.predictions, output.targets, reduction="none").mean(dim=(2, 3))
    torch.testing.assert_close(output.loss, per_row[:, [0, 2, 3, 4]].mean())
