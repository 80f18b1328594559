import pytest
import torch

from ecg_transformers.hub import convert_st_mem
from ecg_transformers.hub.convert_st_mem import st_mem_feature_extractor, st_mem_state_dict
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.configuration_st_mem import MlaeConfig, StMemConfig
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.masking import mask_from_noise
from ecg_transformers.modeling.modeling_st_mem import (
    MlaeForPreTraining,
    MlaeModel,
    MtaeForPreTraining,
    MtaeForSequenceClassification,
    MtaeModel,
    StMemForPreTraining,
    StMemForSequenceClassification,
    StMemModel,
)

from .conftest import named_gradients

OUTPUTS = {"atol": 2e-5, "rtol": 1e-4}  # the tolerances that the fixtures state
GRADIENTS = {"atol": 1e-5, "rtol": 2e-3}
CLASSES = {"st_mem": StMemForPreTraining, "mtae": MtaeForPreTraining}


def convert_st_mem_checkpoint(checkpoint, **given):
    """The fixtures are of no published size: their layers, and their heads of 64 channels, have to be given."""
    state = checkpoint.get("model", checkpoint)
    for flag, key in (("num_attention_heads", "block0."), ("decoder_num_attention_heads", "decoder_blocks.0.")):
        rows = [len(tensor) for name, tensor in state.items() if name.endswith(key + "attn.fn.to_qkv.weight")]
        given |= {flag: rows[0] // 192} if rows else {}
    return convert_st_mem.convert_st_mem_checkpoint(
        checkpoint, **{"num_hidden_layers": 1, "decoder_num_hidden_layers": 1} | given
    )


@pytest.fixture(scope="module", params=["st_mem", "mtae"])
def method(request):
    return request.param


@pytest.fixture(scope="module")
def tensors(golden, method):
    return {k: v.float() if v.is_floating_point() else v for k, v in golden(method).items()}


@pytest.fixture(scope="module")
def state(tensors):
    return {k.removeprefix("state_dict."): v for k, v in tensors.items() if k.startswith("state_dict.")}


@pytest.fixture(params=["eager", "sdpa"])
def model(request, state):
    model = convert_st_mem_checkpoint({"epoch": 1, "model": state}).eval()
    model.set_attn_implementation(request.param)
    return model


def in_their_order(tokens: torch.Tensor, method: str, noise: torch.Tensor | None = None) -> torch.Tensor:
    """Ours: separators (left, then right) or class token, then patches in order. Theirs: ST-MEM as [left, patches,
    right] of each lead; visible patches by their noise."""
    num_leads = 12 if method == "st_mem" else 1
    prefix, patches = tokens.split(
        (24, tokens.shape[1] - 24) if method == "st_mem" else (1, tokens.shape[1] - 1), dim=1
    )
    patches = patches.unflatten(1, (num_leads, -1))
    if noise is not None:
        kept = noise.view(len(noise), num_leads, -1).argsort(dim=-1)[..., : patches.shape[2]]
        rank = kept.argsort(dim=-1).argsort(dim=-1)
        patches = patches.gather(2, rank[..., None].expand_as(patches))
    left, *right = prefix.unflatten(1, (-1, num_leads)).unbind(1)
    return torch.cat((left[:, :, None], patches, *(part[:, :, None] for part in right)), dim=2).flatten(1, 2)


def their_patches(patches: torch.Tensor, method: str) -> torch.Tensor:
    """MTAE: lead by lead as sample by sample."""
    return patches if method == "st_mem" else patches[:, 0].unflatten(-1, (12, 75)).transpose(2, 3).flatten(2)


@torch.no_grad()
def test_the_masked_forward_equals_the_published_one(model, method, tensors):
    assert type(model) is CLASSES[method]
    mask = mask_from_noise(tensors["masked.noise"], model.config.mask_ratio)
    assert torch.equal(mask.float(), tensors["masked.mask"])
    output = model(tensors["input"], bool_masked_pos=mask)
    torch.testing.assert_close(
        in_their_order(output.last_hidden_state, method, tensors["masked.noise"]), tensors["masked.latent"], **OUTPUTS
    )
    torch.testing.assert_close(their_patches(output.reconstruction, method), tensors["masked.pred"], **OUTPUTS)
    torch.testing.assert_close(output.loss, tensors["masked.loss"], atol=0, rtol=1e-4)
    model.config.norm_pix_loss = False
    loss = model(tensors["input"], bool_masked_pos=mask).loss
    torch.testing.assert_close(loss, tensors["masked.loss_norm_pix_flipped"], atol=0, rtol=1e-4)
    if method == "st_mem":  # the only method whose authors can go back to a signal, here in normalised units
        series = model.unpatchify(output.reconstruction)
        torch.testing.assert_close(series, tensors["masked.recon_series"], **OUTPUTS)


@torch.no_grad()
def test_the_unmasked_forward_equals_the_published_one(model, method, tensors):
    record = tensors["input"][:1]
    hidden_states, _ = model.ecg_vit.encode_tokens(record)
    tokens = in_their_order(model.ecg_vit.layernorm(hidden_states), method)
    torch.testing.assert_close(tokens, tensors["unmasked.latent_tokens"], **OUTPUTS)
    model.config.norm_pix_loss = False
    nothing = torch.zeros(1, 30, dtype=torch.bool)
    signal, _ = model.reconstruct(record, bool_masked_pos=nothing)
    predictions = their_patches(model.patchify(signal), method)
    torch.testing.assert_close(predictions, tensors["unmasked.pred"], **OUTPUTS)


def test_gradients_equal_the_published_ones(model, tensors, state):
    mask = mask_from_noise(tensors["masked.noise"], 0.75)
    model(tensors["input"], bool_masked_pos=mask).loss.backward()
    named = named_gradients(model, convert_st_mem_checkpoint(state), st_mem_state_dict)
    expected = {k.removeprefix("masked.grad."): v for k, v in tensors.items() if k.startswith("masked.grad.")}
    assert len(expected) >= 6
    for name, gradient in expected.items():
        torch.testing.assert_close(named[name], gradient, **GRADIENTS, msg=name)


@torch.no_grad()
def test_the_pooled_feature_equals_the_published_one(model, tensors):
    pooled = model.ecg_vit(tensors["input"]).pooler_output
    torch.testing.assert_close(pooled, tensors["downstream.forward_encoding"], **OUTPUTS)


def test_the_way_back_is_bit_exact(state):
    back = st_mem_state_dict(convert_st_mem_checkpoint(state))
    alias = {key.removeprefix("encoder."): key for key in state if key.startswith("encoder.to_patch_embedding.")}
    assert back.keys() == state.keys() | alias.keys()
    for name, tensor in back.items():
        expected = state[alias.get(name, name)]
        if "pos_embed" in name:
            torch.testing.assert_close(tensor, expected, atol=1e-5, rtol=0)
        else:
            assert torch.equal(tensor, expected), name


@torch.no_grad()
def test_an_encoder_file_gives_the_encoder(method, tensors, state):
    encoder_state = {key[8:]: tensor for key, tensor in state.items() if key.startswith("encoder.")}
    encoder = convert_st_mem_checkpoint({"epoch": 10, "model": encoder_state, "optimizer": None, "scaler": None})
    assert type(encoder) is {"st_mem": StMemModel, "mtae": MtaeModel}[method]
    pooled = encoder.eval()(tensors["input"]).pooler_output
    torch.testing.assert_close(pooled, tensors["downstream.forward_encoding"], **OUTPUTS)
    assert st_mem_state_dict(encoder).keys() == encoder_state.keys()


@torch.no_grad()
def test_a_file_with_a_head_gives_a_classifier(method, tensors, state):
    head = {"head.weight": torch.randn(5, len(state["encoder.norm.weight"])), "head.bias": torch.randn(5)}
    encoder_state = {key[8:]: tensor for key, tensor in state.items() if key.startswith("encoder.")}
    model = convert_st_mem_checkpoint({"model": encoder_state | head}).eval()
    assert type(model) is {"st_mem": StMemForSequenceClassification, "mtae": MtaeForSequenceClassification}[method]
    expected = tensors["downstream.forward_encoding"] @ head["head.weight"].T + head["head.bias"]
    torch.testing.assert_close(model(tensors["input"]).logits, expected, atol=1e-4, rtol=1e-4)
    assert st_mem_state_dict(model).keys() == encoder_state.keys() | head.keys()


def test_two_copies_of_the_patch_embedding_have_to_agree(state):
    copies = {k[8:]: v.clone() for k, v in state.items() if k.startswith("encoder.to_patch_embedding.")}
    assert convert_st_mem_checkpoint(state | copies)
    copies["to_patch_embedding.3.bias"][0] += 1e-3
    with pytest.raises(
        ValueError, match="'to_patch_embedding.3.bias' and 'encoder.to_patch_embedding.3.bias', differ"
    ):
        convert_st_mem_checkpoint(state | copies)


def tiny_mlae():
    fields = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    torch.manual_seed(0)
    return MlaeForPreTraining(MlaeConfig(**fields, **decoder, decoder_intermediate_size=64)).eval()


@torch.no_grad()
def test_mlae_goes_to_the_authors_names_and_back():
    model = tiny_mlae()
    state = st_mem_state_dict(model)
    assert state["encoder.pos_embedding"].shape == (1, 13, 32) and not state["encoder.pos_embedding"][0, 0].any()
    assert state["to_patch_embedding.2.weight"].shape == (32, 2250) and "encoder.cls_embedding" in state
    back = convert_st_mem_checkpoint({"model": state}).eval()
    assert type(back) is MlaeForPreTraining and back.config.to_dict() == model.config.to_dict()
    record = torch.randn(2, 12, 2250)
    assert torch.equal(back(record).loss, model(record).loss)
    encoder = convert_st_mem_checkpoint({k[8:]: v for k, v in state.items() if k.startswith("encoder.")})
    assert type(encoder) is MlaeModel


def test_shapes_that_fit_two_methods_are_refused():
    model = MlaeForPreTraining(
        MlaeConfig(**(tiny_mlae().config.to_diff_dict() | {"num_samples": 24, "patch_size": 24}))
    )
    state = st_mem_state_dict(model)
    with pytest.raises(ValueError, match=r"can be \['mtae', 'mlae'\]"):
        convert_st_mem_checkpoint(state)


def test_the_feature_extractor_equals_the_published_preparation(golden):
    data = golden("st_mem_data")
    declared = {"leads": STANDARD_LEADS, "unit": "mV"}
    resampling = EcgFeatureExtractor(leads=STANDARD_LEADS, sampling_rate=250, num_samples=2500)
    resampled = resampling(data["raw"].numpy(), sampling_rate=500, **declared)["input_values"][0]
    torch.testing.assert_close(resampled, data["resampled"], atol=1e-4, rtol=0)
    crop = resampled[:, 100:2350].numpy()
    prepared = st_mem_feature_extractor(StMemConfig())(crop, sampling_rate=250, **declared)["input_values"][0]
    torch.testing.assert_close(prepared, data["hp_lp_std"], atol=1e-4, rtol=0)
    longer = resampled[:, 100:].numpy()  # the window is cut before it is filtered
    prepared = st_mem_feature_extractor(StMemConfig())(longer, sampling_rate=250, **declared)["input_values"][0]
    torch.testing.assert_close(prepared, data["hp_lp_std"], atol=1e-4, rtol=0)
    filtering = EcgFeatureExtractor(STANDARD_LEADS, 250, 2250, highpass_hz=0.67, lowpass_hz=40.0)
    filtered = filtering(crop, sampling_rate=250, **declared)["input_values"][0, :3]
    torch.testing.assert_close(filtered, data["hp_lp"], atol=1e-4, rtol=0)
