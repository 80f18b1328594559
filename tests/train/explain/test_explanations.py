import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgViTConfig,
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTModel,
    MlaeConfig,
    MlaeForSequenceClassification,
    MtaeConfig,
    MtaeForSequenceClassification,
    StMemConfig,
    StMemForSequenceClassification,
)
from ecg_transformers.train.explain.explanations import attention_rollout, integrated_gradients

LEADS = ("I", "II", "V2")
SHAPE = {"leads": LEADS, "sampling_rate": 100, "num_samples": 200}
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TINY = SHAPE | WIDTHS | {"patch_size": 50}
DECODER = {f"decoder_{name}": value for name, value in (WIDTHS | {"num_hidden_layers": 1, "hidden_size": 8}).items()}


class Classifier(nn.Module):
    """Any function of the input as a classifier of one class."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, input_values):
        return SequenceClassifierOutput(logits=self.function(input_values)[:, None])


def tiny(model_class=EcgViTForSequenceClassification, config_class=EcgViTConfig, seed=0, **settings):
    """Weights large enough that attention is not even and the output not linear."""
    torch.manual_seed(seed)
    settings = TINY | {"initializer_range": 0.5, "id2label": {0: "NORM", 1: "MI"}} | settings
    if config_class is not EcgViTConfig:
        settings |= DECODER
    if config_class is MlaeConfig:
        del settings["patch_size"]
    model = model_class(config_class(**settings))
    # What starts at zero or small would hide a mistake.
    for name, parameter in model.named_parameters():
        if "q_proj" in name or "k_proj" in name or "token" in name:
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def ecg():
    """Two real recordings, 2 s of three leads in mV, `(2, 3, 200)`."""
    rows = load_ecg("ptb-xl-sample", split="test", decode=False)
    return EcgFeatureExtractor(**SHAPE)([rows[1], rows[5]])["input_values"]


def test_a_linear_model_gets_value_times_weight(ecg):
    weight = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    model = Classifier(lambda x: (x * weight).sum(dim=(1, 2)) + 7.0)
    baseline = torch.full((1, 3, 1), 0.25)
    found = integrated_gradients(model, ecg, 0, baseline, num_steps=2)
    torch.testing.assert_close(found.attributions, (ecg - baseline) * weight)


def test_a_product_is_shared_as_the_closed_form_says():
    """f = a b² from (0, 0): the part of a is a b²/3, that of b is 2 a b²/3."""
    values = torch.tensor([[[2.0, 3.0]]])
    found = integrated_gradients(Classifier(lambda x: x[:, 0, 0] * x[:, 0, 1] ** 2), values, 0, num_steps=6)
    torch.testing.assert_close(found.attributions, torch.tensor([[[6.0, 12.0]]]))


def test_an_encoder_gets_what_a_slow_riemann_sum_gives(ecg):
    model, num_steps, values = tiny(initializer_range=0.1), 32, ecg[:1]
    slow = torch.zeros(1, 3, 200, dtype=torch.float64)
    for number in range(num_steps):
        between = (values * (number + 0.5) / num_steps).requires_grad_(True)
        (gradient,) = torch.autograd.grad(model(between).logits[:, 1].sum(), between)
        slow += gradient.double() * values / num_steps
    fast = integrated_gradients(model, values, 1, num_steps=16).attributions.double()
    assert (fast - slow).abs().max() < 1e-3 * slow.abs().max()


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [
        (EcgViTForSequenceClassification, EcgViTConfig),
        (StMemForSequenceClassification, StMemConfig),
        pytest.param(MtaeForSequenceClassification, MtaeConfig, marks=pytest.mark.slow),
        pytest.param(MlaeForSequenceClassification, MlaeConfig, marks=pytest.mark.slow),
    ],
)
def test_attributions_add_up_to_the_difference_to_a_flat_recording(ecg, model_class, config_class):
    """Also where each patch is normalised, so that everything happens next to the flat recording."""
    model, ecg = tiny(model_class, config_class), ecg[:1]
    found = integrated_gradients(model, ecg, "MI", num_steps=256 if model.config.patch_norm else 64)
    with torch.no_grad():
        difference = (model(ecg).logits - model(torch.zeros_like(ecg)).logits)[:, 1]
    torch.testing.assert_close(found.output - found.baseline_output, difference, atol=1e-5, rtol=1e-5)
    error = found.attributions.sum(dim=(1, 2)) - difference
    assert error.abs() < 0.01 * difference.abs()
    torch.testing.assert_close(found.completeness_error, error, atol=1e-4, rtol=0)


def test_the_batch_size_changes_nothing(ecg):
    model = tiny()
    one, other = (integrated_gradients(model, ecg, 0, num_steps=5, batch_size=size) for size in (3, 16))
    torch.testing.assert_close(one.attributions, other.attributions)


def test_models_of_one_function_get_one_map(ecg):
    """Implementation invariance: the same attention computed in three ways."""
    model, maps = tiny(), []
    for implementation in ("eager", "sdpa", "axial"):
        model.set_attn_implementation(implementation)
        maps.append(integrated_gradients(model, ecg, 0, num_steps=8).attributions)
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0], atol=1e-4 * float(maps[0].abs().max()), rtol=1e-3)


def test_a_model_that_reads_one_lead_gets_attributions_in_that_lead_only(ecg):
    encoder = tiny()
    only_second = torch.tensor([0.0, 1.0, 0.0])[:, None]
    found = integrated_gradients(Classifier(lambda x: encoder(x * only_second).logits[:, 0]), ecg, 0, num_steps=4)
    assert (found.attributions[:, [0, 2]] == 0).all() and (found.attributions[:, 1] != 0).any()


def test_an_absent_lead_gets_nothing(ecg):
    lead_mask = torch.tensor([[True, True, False], [False, True, True]])
    model = tiny()
    found = integrated_gradients(model, ecg, 0, num_steps=4, lead_mask=lead_mask).attributions
    shares = attention_rollout(model, ecg, lead_mask=lead_mask)
    for maps in (found, shares):
        assert (maps[~lead_mask] == 0).all() and (maps[lead_mask] != 0).any()


def test_classes_go_by_name_or_number(ecg):
    maps = [integrated_gradients(tiny(), ecg, target, num_steps=4).attributions for target in ("MI", 1, 0)]
    torch.testing.assert_close(maps[0], maps[1])
    assert not torch.allclose(maps[1], maps[2])


def test_an_encoder_is_explained_along_a_direction_or_by_its_norm(ecg):
    encoder = tiny(EcgViTModel)
    direction = torch.randn(16, generator=torch.Generator().manual_seed(0))
    found = integrated_gradients(encoder, ecg, direction, num_steps=32)
    with torch.no_grad():
        features = encoder(ecg).pooler_output
    torch.testing.assert_close(found.output, features @ direction)
    torch.testing.assert_close(integrated_gradients(encoder, ecg, "norm", num_steps=2).output, features.norm(dim=1))
    assert found.completeness_error.abs().max() < 0.01 * (found.output - found.baseline_output).abs().max()


@pytest.mark.parametrize(
    ("model_class", "target", "message"),
    [
        (EcgViTForSequenceClassification, "AFIB", "Unknown class 'AFIB'"),
        (EcgViTForSequenceClassification, 2, "class below 2"),
        (EcgViTForSequenceClassification, None, "by its number or name"),
        (EcgViTModel, 0, r'a direction of shape \(16,\) or "norm"'),
        (EcgViTForEmbedding, "norm", r"a direction of shape \(16,\); got 'norm'"),
    ],
)
def test_a_target_that_the_model_does_not_have_is_refused(ecg, model_class, target, message):
    with pytest.raises(ValueError, match=message):
        integrated_gradients(tiny(model_class), ecg, target, num_steps=2)


def test_a_pretraining_model_and_nan_are_refused(ecg):
    model = EcgJepaForPreTraining(
        EcgJepaConfig(
            **TINY,
            mask_type="random",
            mask_ratio=(0.5, 0.5),
            predictor_hidden_size=16,
            predictor_num_attention_heads=2,
        )
    )
    for explain in (attention_rollout, lambda *args: integrated_gradients(*args, "norm")):
        with pytest.raises(ValueError, match="Load the encoder"):
            explain(model, ecg)
    with pytest.raises(ValueError, match="NaN"):
        integrated_gradients(tiny(), ecg * torch.nan, 0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_model_stays_as_it_was(ecg, mode):
    model = tiny(drop_path_rate=0.5).train()
    model.ecg_vit.layers[0].eval()
    model.set_attn_implementation("axial")
    with mode():
        integrated_gradients(model, ecg, 0, num_steps=2)
        attention_rollout(model, ecg)
    assert model.training and not model.ecg_vit.layers[0].mlp.training and model.ecg_vit.layers[1].mlp.training
    assert model.config._attn_implementation == "axial" and not model.config.output_attentions
    assert all(parameter.grad is None for parameter in model.parameters())


def test_other_weights_give_another_map(ecg):
    """The randomisation test of Adebayo et al. (NeurIPS 2018), which an edge detector fails."""
    for explain in (
        lambda model: integrated_gradients(model, ecg, 0, num_steps=16).attributions,
        lambda model: attention_rollout(model, ecg),
    ):
        maps = [explain(tiny(seed=seed)).flatten().numpy() for seed in (0, 0, 1)]
        assert (maps[0] == maps[1]).all()
        assert abs(spearmanr(maps[0], maps[2]).statistic) < 0.5


POOLED = {
    "mean over a cross": (EcgViTForSequenceClassification, EcgViTConfig, {}),
    "mean beside registers": (EcgViTForSequenceClassification, EcgViTConfig, {"num_registers": 2}),
    "all leads in a patch": (
        EcgViTForSequenceClassification,
        EcgViTConfig,
        {"patching": "all_leads", "attention_pattern": "full", "num_registers": 1},
    ),
    "first register": (
        EcgViTForSequenceClassification,
        EcgViTConfig,
        {"num_registers": 2, "classifier_pooling": "register"},
    ),
    "query of a pooler": (
        EcgViTForSequenceClassification,
        EcgViTConfig,
        {"num_registers": 1, "classifier_pooling": "attentive", "attention_pattern": "full"},
    ),
    "separators": (StMemForSequenceClassification, StMemConfig, {}),
    "separators and a pooler": (StMemForSequenceClassification, StMemConfig, {"classifier_pooling": "attentive"}),
    "class token": (MtaeForSequenceClassification, MtaeConfig, {}),
    "class token over leads": (MlaeForSequenceClassification, MlaeConfig, {}),
}


def slow_rollout(model, input_values, leads=None):
    """Token by token, with the read-out from the definition of each pooling."""
    config, num_leads = model.config, input_values.shape[1]
    with torch.no_grad():
        encoded = model.ecg_vit(input_values, leads=leads, output_attentions=True)
    rows = num_leads if config.patching == "per_lead" else 1
    maps = []
    for record in range(len(input_values)):
        layers = [attention[record].double().numpy() for attention in encoded.attentions]
        num_tokens = layers[0].shape[-1]
        prefix = num_tokens - rows * config.num_columns
        rollout = np.eye(num_tokens)
        for heads in layers:
            mixed = np.zeros((num_tokens, num_tokens))
            for query in range(num_tokens):
                mixed[query] = heads[:, query].mean(axis=0)
                mixed[query, query] += 1.0
                mixed[query] /= mixed[query].sum()
            rollout = mixed @ rollout
        if config.classifier_pooling == "attentive":
            pooler, tokens = model.attentive_pooler, encoded.last_hidden_state[record : record + 1]
            # A pooler whose values are the numbers of the tokens gives back its weights.
            weights = np.zeros(num_tokens)
            for token in range(tokens.shape[1]):
                marks = torch.zeros_like(tokens)
                marks[:, token] = 1.0
                query, keys = pooler.q_proj(pooler.query_token), pooler.k_proj(tokens)
                heads = (x.unflatten(-1, (pooler.num_heads, -1)).transpose(1, 2) for x in (query, keys, marks))
                found = nn.functional.scaled_dot_product_attention(*heads)
                weights[num_tokens - tokens.shape[1] + token] = found.mean().item()
        elif config.pooling == "class_token" or config.classifier_pooling == "register":
            weights = np.eye(num_tokens)[0]
        else:
            weights = np.concatenate([np.zeros(prefix), np.full(num_tokens - prefix, 1 / (num_tokens - prefix))])
        patches = (weights @ rollout)[prefix:]
        maps.append((patches / patches.sum()).reshape(rows, config.num_columns))
    return np.stack(maps)


@pytest.mark.parametrize("pooled", POOLED)
def test_rollout_is_what_a_slow_version_gives_for_every_pooling(ecg, pooled):
    model_class, config_class, settings = POOLED[pooled]
    model = tiny(model_class, config_class, **settings)
    found = attention_rollout(model, ecg, batch_size=1)
    np.testing.assert_allclose(found.numpy(), slow_rollout(model, ecg), atol=1e-6)
    assert found.flatten(1).std(dim=1).min() > 1e-4  # not even: the comparison says something


def test_rows_follow_the_names_of_the_leads(ecg):
    encoder = tiny(EcgViTModel)
    turned = attention_rollout(encoder, ecg[:, [2, 0]], leads=["V2", "I"])
    torch.testing.assert_close(turned[:, [1, 0]], attention_rollout(encoder, ecg[:, [0, 2]], leads=["I", "V2"]))
    assert turned.shape == (2, 2, 4)


def test_extra_channels_come_after_the_leads(ecg):
    shares = attention_rollout(tiny(extra_channels=1), torch.cat((ecg, ecg[:, :1]), dim=1))
    assert shares.shape == (2, 4, 4)
    torch.testing.assert_close(shares.sum(dim=(1, 2)), torch.ones(2))


def test_a_record_without_a_lead_and_a_foreign_model_are_refused(ecg):
    with pytest.raises(ValueError, match="a lead in every record"):
        attention_rollout(tiny(), ecg, lead_mask=torch.zeros(2, 3, dtype=torch.bool))
    model = tiny()
    model.base_model_prefix = "hubert"
    with pytest.raises(ValueError, match="Use integrated_gradients"):
        attention_rollout(model, ecg)
    stages = {"stem_widths": (8, 16), "stem_depths": (0, 1), "stem_strides": (10, 5), "stem_kernel": 11}
    convolutional = tiny(stem="conv", num_hidden_layers=0, **stages)
    with pytest.raises(ValueError, match="encoders of this library that have attention"):
        attention_rollout(convolutional, ecg)
    assert integrated_gradients(convolutional, ecg, 0, num_steps=2).attributions.shape == ecg.shape
