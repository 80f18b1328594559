import numpy as np
import pytest
import torch
from torch import nn

from ecg_transformers.hub.convert_lejepa import convert_lejepa_checkpoint, lejepa_feature_extractor, lejepa_state_dict
from ecg_transformers.modeling import EcgViTForSequenceClassification, EcgViTModel
from ecg_transformers.modeling.configuration_lejepa import LeJepaConfig
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS, STANDARD_LEADS
from ecg_transformers.modeling.modeling_lejepa import LeJepaForPreTraining
from ecg_transformers.train.schedules import weimann_learning_rate

from ..train.conftest import tiny_encoder
from .conftest import named_gradients

MIMIC_FILE_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(scope="module")
def small(golden):
    return golden("lejepa_ecg_small")


@pytest.fixture(scope="module")
def tolerance(golden_facts):
    return golden_facts("lejepa_ecg_small")["tolerance"]


@pytest.fixture(scope="module")
def checkpoint(small, golden_facts):
    """The file that the authors' code would have written."""
    prefix = "state_dict."
    state = {key.removeprefix(prefix): tensor for key, tensor in small.items() if key.startswith(prefix)}
    facts = golden_facts("lejepa_ecg_small")
    return {"model": state, "config": facts["config"] | {"lambda": facts["lambda_"], "num_views": 3}, "step": 1}


@pytest.fixture
def model(checkpoint):
    return convert_lejepa_checkpoint(checkpoint, leads=INDEPENDENT_LEADS)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_activations_equal_the_published_ones_block_by_block(model, small, tolerance, implementation):
    model.eval().set_attn_implementation(implementation)
    views = small["input.views"]
    output = model(views=views, directions=small["train.directions"])
    torch.testing.assert_close(output.last_hidden_state[:, 2:], small["eval.tokens"], **tolerance["eval"])
    torch.testing.assert_close(output.projections, small["eval.proj"], **tolerance["eval"])
    features = small["eval.emb"].unflatten(0, (4, 3)).mean(dim=1)
    torch.testing.assert_close(output.pooler_output, features, **tolerance["eval"])
    first_view = model.ecg_vit(views[:, 0], output_hidden_states=True)
    for block, hidden_states in enumerate(first_view.hidden_states[1:]):
        torch.testing.assert_close(hidden_states, small[f"eval.block{block}_out_view0"], **tolerance["eval"])


def test_losses_gradients_and_an_optimiser_step_equal_the_published_ones(model, small, tolerance):
    model.train()
    output = model(views=small["input.views"], directions=small["train.directions"])
    for name, published in (("loss", "loss"), ("invariance_loss", "inv_loss"), ("sigreg_loss", "sigreg")):
        torch.testing.assert_close(getattr(output, name), small[f"train.{published}"], **tolerance["eval"])
    torch.testing.assert_close(output.projections, small["train.proj"], **tolerance["eval"])
    output.loss.backward()
    settings = {"num_heads": 2, "channel_size": 1000, "num_registers": 2}
    holder = convert_lejepa_checkpoint(
        {"model": lejepa_state_dict(model), "config": settings}, leads=INDEPENDENT_LEADS
    )
    gradients = named_gradients(model, holder, lejepa_state_dict)
    published = {key.removeprefix("train.grad."): value for key, value in small.items() if "train.grad." in key}
    assert published.keys() == {name for name in gradients if "running" not in name and "num_batches" not in name}
    for name, gradient in published.items():
        torch.testing.assert_close(gradients[name], gradient, **tolerance["grad"], msg=name)


def test_the_batch_norms_move_as_those_of_torch(model, small):
    model.train()
    rows = model.ecg_vit(small["input.views"].flatten(0, 1)).pooler_output
    reference = nn.BatchNorm1d(64)
    reference.load_state_dict(model.projector.norm1.state_dict())
    reference(model.projector.fc1(rows))
    model(views=small["input.views"], directions=small["train.directions"])
    for ours, expected in zip(model.projector.norm1.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_full_file_becomes_a_pretraining_model_with_the_published_settings(model):
    assert isinstance(model, LeJepaForPreTraining)
    config = model.config
    assert (config.augmentation, config.sigreg_pooling) == ("published", "pooled")
    assert config.decay_all_parameters and not config.sync_statistics
    assert config.sigreg_weight == 0.05 and config.num_views == 3
    assert config.layer_scale_init_value == 0.1 and config.qkv_bias


def test_an_encoder_alone_becomes_a_bare_encoder(checkpoint, small, tolerance):
    state = {key: tensor for key, tensor in checkpoint["model"].items() if key.startswith("encoder.")}
    encoder = convert_lejepa_checkpoint(checkpoint | {"model": state}, leads=INDEPENDENT_LEADS).eval()
    assert type(encoder) is EcgViTModel
    with torch.no_grad():
        pooled = encoder(small["input.views"].flatten(0, 1)).pooler_output
    torch.testing.assert_close(pooled, small["eval.emb"], **tolerance["eval"])


def probe_file(head: str, task="superdiagnostic"):
    """A classifier of random weights in the authors' layout."""
    torch.manual_seed(0)
    encoder = LeJepaForPreTraining(
        LeJepaConfig(hidden_size=48, num_hidden_layers=2, intermediate_size=96, projector_hidden_size=8)
    )
    state = {key: tensor for key, tensor in lejepa_state_dict(encoder).items() if key.startswith("encoder.")}
    if head == "attentive":
        state["attn_pool.query_token"] = torch.randn(1, 1, 48)
        state["attn_pool.cross_attention_block.q.weight"] = torch.randn(48, 48) * 0.3
        state["attn_pool.cross_attention_block.kv.weight"] = torch.randn(96, 48) * 0.3
        state["attn_pool.cross_attention_block.proj.weight"] = torch.randn(5, 48)
    else:
        state["fc.weight"] = torch.randn(5, 48)
    return {
        "model": state,
        "encoder_config": {"dim": 48, "depth": 2, "num_heads": 6, "channel_size": 5000, "sampling_frequency": 500},
        "eval_config": {"use_register": head != "mean", "attn_pooling": head == "attentive"},
        "preprocess": {"mean": np.arange(12) / 100, "std": np.arange(1, 13) / 10},
        "task": task,
        "best_step": 100,
    }


def manual_attentive_logits(tokens, state):
    """One record, one head at a time (spec, section 10)."""
    logits = []
    key_weight, value_weight = state["attn_pool.cross_attention_block.kv.weight"].chunk(2)
    query = state["attn_pool.query_token"][0, 0] @ state["attn_pool.cross_attention_block.q.weight"].T
    for record in tokens:
        keys, values = record @ key_weight.T, record @ value_weight.T
        heads = []
        for head in range(6):
            channels = slice(8 * head, 8 * head + 8)
            weights = (keys[:, channels] @ query[channels] * 8**-0.5).softmax(0)
            heads.append(weights @ values[:, channels])
        logits.append(torch.cat(heads) @ state["attn_pool.cross_attention_block.proj.weight"].T)
    return torch.stack(logits)


@torch.no_grad()
@pytest.mark.parametrize("head", ["attentive", "register", "mean"])
def test_a_linear_probe_gives_the_logits_of_its_head(head):
    file = probe_file(head)
    model = convert_lejepa_checkpoint(file).eval()
    assert isinstance(model, EcgViTForSequenceClassification)
    signal = torch.randn(2, 12, 1250, generator=torch.Generator().manual_seed(3))
    tokens = model.ecg_vit(signal).last_hidden_state
    assert tokens.shape == (2, 51, 48)
    expected = {
        "attentive": lambda: manual_attentive_logits(tokens, file["model"]),
        "register": lambda: tokens[:, 0] @ file["model"]["fc.weight"].T,
        "mean": lambda: tokens[:, 1:].mean(dim=1) @ file["model"]["fc.weight"].T,
    }[head]()
    torch.testing.assert_close(model(signal).logits, expected, atol=1e-5, rtol=1e-4)
    back = lejepa_state_dict(model)
    assert all(torch.equal(back[name], tensor) for name, tensor in file["model"].items())
    assert back.keys() == file["model"].keys()
    assert list(model.config.label2id) == ["CD", "HYP", "MI", "NORM", "STTC"]


def test_the_single_label_task_says_so():
    model = convert_lejepa_checkpoint(probe_file("attentive", task="ST-MEM"))
    assert model.config.problem_type == "single_label_classification"


def test_a_linear_probe_brings_its_crops_and_its_statistics():
    file = probe_file("attentive")
    extractor = lejepa_feature_extractor(convert_lejepa_checkpoint(file), file)
    inputs = extractor(np.ones((12, 5000)), sampling_rate=500, leads=STANDARD_LEADS, unit="mV")
    assert inputs["input_values"].shape == (7, 12, 1250)  # starts 0, 625, ..., 3750
    expected = torch.tensor([((1 - m) / s).clip(-5, 5) for m, s in zip(*file["preprocess"].values(), strict=True)])
    torch.testing.assert_close(inputs["input_values"][3, :, 100].double(), expected, atol=1e-5, rtol=0)


def test_an_attentive_pooler_with_heads_of_its_own_is_refused():
    with pytest.raises(ValueError, match="pooler has 6 heads whatever the encoder has.*here 4"):
        file = probe_file("attentive")
        file["encoder_config"]["num_heads"] = 4
        convert_lejepa_checkpoint(file)


def test_the_feature_extractor_does_what_the_authors_do_to_a_record(golden):
    published = golden("lejepa_ecg_data")
    raw, expected = published["pre.raw_f16"].float().T.numpy(), published["pre.out_f16"].float().T
    model, _ = tiny_encoder(leads=STANDARD_LEADS, sampling_rate=500)
    extractor = lejepa_feature_extractor(model, {})
    ours = extractor(raw, sampling_rate=500, leads=MIMIC_FILE_LEADS, unit="mV")["input_values"][0]
    # Theirs are half precision throughout: eleven bits of a value of up to 5.
    torch.testing.assert_close(ours, expected, atol=6e-3, rtol=2e-3)


def test_the_constants_follow_their_leads():
    file = probe_file("mean")
    model = convert_lejepa_checkpoint(file)
    extractor = lejepa_feature_extractor(model, file, dataset="mimic-iv-ecg")
    stds = dict(zip(extractor.leads, extractor.lead_stds, strict=True))
    assert stds["aVL"] == 0.141 and stds["aVF"] == 0.143
    with pytest.raises(ValueError, match="No constants are known of 'cpsc'"):
        lejepa_feature_extractor(model, file, dataset="cpsc")


def test_the_learning_rate_of_the_authors_is_that_of_weimann(golden_facts):
    for step, expected in golden_facts("lejepa_ecg_data")["statistics"]["lr_at_step"].items():
        ours = weimann_learning_rate(int(step), warmup_steps=5000, total_steps=100_000)
        assert ours == pytest.approx(expected, rel=1e-9 if int(step) < 100_000 else 1e-6), step


def test_leads_that_do_not_fit_the_patches_are_refused(checkpoint):
    with pytest.raises(ValueError, match="patches have 8 leads, the configuration names 12"):
        convert_lejepa_checkpoint(checkpoint)
