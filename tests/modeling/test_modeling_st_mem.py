import pytest
import torch

from ecg_transformers.modeling.configuration_st_mem import MlaeConfig, MtaeConfig, StMemConfig
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.masking import DrawKeys, mask_from_noise, num_visible_patches
from ecg_transformers.modeling.modeling_st_mem import (
    MlaeForPreTraining,
    MlaeModel,
    MtaeForPreTraining,
    MtaeModel,
    StMemForPreTraining,
    StMemForSequenceClassification,
    StMemModel,
    masked_patch_loss,
    patch_statistics,
)

LEADS = ("I", "II", "V1", "V2")
TINY = {
    "leads": LEADS,
    "num_samples": 80,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 24,
    "mask_ratio": 0.5,
    "attn_implementation": "sdpa",
}
METHODS = {
    "st_mem": (StMemForPreTraining, StMemModel, StMemConfig, {"patch_size": 10}),
    "mtae": (MtaeForPreTraining, MtaeModel, MtaeConfig, {"patch_size": 10}),
    "mlae": (MlaeForPreTraining, MlaeModel, MlaeConfig, {}),
}


def tiny_model(method="st_mem", **fields):
    torch.manual_seed(0)
    model_class, _, config_class, patch = METHODS[method]
    model = model_class(config_class(**{**TINY, **patch, **fields}))
    with torch.no_grad():  # nothing may be a no-op
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def signals(batch=4, num_leads=4):
    return torch.randn(batch, num_leads, 80, generator=torch.Generator().manual_seed(7)) + 0.3


def masks(model, batch=4):
    return model.draw_inputs(signals(batch), DrawKeys(3, 5, 2, tuple(range(batch))))["bool_masked_pos"]


def manual_layers(tokens, layers, heads, head_dim):
    for layer in layers:
        normed = layer.layernorm_before(tokens)
        attention, outputs = layer.attention, []
        for head in range(heads):
            part = slice(head * head_dim, (head + 1) * head_dim)
            q, k, v = (p(normed)[:, part] for p in (attention.q_proj, attention.k_proj, attention.v_proj))
            outputs.append((q @ k.T * head_dim**-0.5).softmax(-1) @ v)
        tokens = tokens + attention.o_proj(torch.cat(outputs, dim=-1))
        tokens = tokens + layer.mlp(layer.layernorm_after(tokens))
    return tokens


def code(position, width):
    frequencies = 10000.0 ** (-torch.arange(width // 2) / (width / 2))
    return torch.cat(((position * frequencies).sin(), (position * frequencies).cos()))


def manual_patches(method, record):
    """Sequences of patches of one record, by lead for ST-MEM."""
    if method == "st_mem":
        return [[record[lead, 10 * i : 10 * i + 10] for i in range(8)] for lead in range(len(record))]
    if method == "mtae":
        return [[record[:, 10 * i : 10 * i + 10].flatten() for i in range(8)]]
    return [list(record)]


def manual_loss(model, method, record, mask):
    """The loss of one record; `mask` holds a list of hidden places for each sequence."""
    embeddings, config, decoder = model.ecg_vit.embeddings, model.config, model.decoder
    sequences = manual_patches(method, record)

    def embed(patch, position):
        patch = embeddings.patch_norm_before(patch)
        return embeddings.patch_norm_after(embeddings.projection(patch)) + code(position, 32)

    tokens, lengths = [], []
    for lead, patches in enumerate(sequences):
        visible = [embed(p, i) for i, p in enumerate(patches) if i not in mask[lead]]
        if method == "st_mem":
            visible = [embeddings.separator[0, 0], *visible, embeddings.separator[0, 0]]
            visible = [token + embeddings.lead_embeddings[lead] for token in visible]
        else:
            visible = [embeddings.register_tokens[0, 0], *visible]
        tokens += visible
        lengths.append(len(visible))
    encoded = manual_layers(torch.stack(tokens), model.ecg_vit.layers, 2, 8)
    encoded = decoder.embedding(model.ecg_vit.layernorm(encoded)).split(lengths)
    errors = []
    for patches, states, hidden in zip(sequences, encoded, mask, strict=True):
        states = list(states)
        first, last = states.pop(0), [states.pop()] if method == "st_mem" else []
        filled = [decoder.mask_token[0, 0] if i in hidden else states.pop(0) for i in range(len(patches))]
        filled = [first, *(token + code(i, 16) for i, token in enumerate(filled)), *last]
        decoded = manual_layers(torch.stack(filled), decoder.layers, 3, 8)
        predictions = decoder.projection(decoder.layernorm(decoded))[1 : 1 + len(patches)]
        for place in hidden:
            target = patches[place]
            if config.norm_pix_loss:
                target = (target - target.mean()) / (target.var(unbiased=True) + 1e-6).sqrt()
            errors.append((predictions[place] - target).square().mean())
    return torch.stack(errors)


@torch.no_grad()
@pytest.mark.parametrize("norm_pix_loss", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_equals_a_manual_one(method, norm_pix_loss):
    model = tiny_model(method, norm_pix_loss=norm_pix_loss).eval()
    mask = masks(model)
    by_sequence = mask.transpose(1, 2) if method == "mlae" else mask
    expected = [
        manual_loss(model, method, record, [row.nonzero().flatten().tolist() for row in rows])
        for record, rows in zip(signals(), by_sequence, strict=True)
    ]
    output = model(signals(), bool_masked_pos=mask)
    torch.testing.assert_close(output.loss, torch.cat(expected).mean())
    rows, columns, values = {"st_mem": (4, 8, 10), "mtae": (1, 8, 40), "mlae": (4, 1, 80)}[method]
    assert output.reconstruction.shape == (4, rows, columns, values)
    assert torch.equal(output.bool_masked_pos, mask)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("implementation", ["eager", "axial"])
def test_the_attention_implementations_agree(method, implementation):
    model = tiny_model(method).eval()
    expected = model(signals()).reconstruction
    model.set_attn_implementation(implementation)
    assert model.decoder.layers[0].attention.config._attn_implementation == implementation
    torch.testing.assert_close(model(signals()).reconstruction, expected, atol=1e-5, rtol=1e-4)


def test_the_smallest_noise_stays_visible():
    noise = torch.tensor([[0.3, 0.1, 0.9, 0.2], [0.8, 0.7, 0.6, 0.5]])
    assert mask_from_noise(noise, 0.5).tolist() == [[True, False, True, False], [True, True, False, False]]
    assert num_visible_patches(30, 0.75) == 7


def test_st_mem_hides_other_patches_in_every_lead_and_record():
    mask = masks(tiny_model())
    assert mask.shape == (4, 4, 8) and (mask.sum(-1) == 4).all()
    assert len({tuple(row.tolist()) for row in mask.flatten(0, 1)}) > 8


@pytest.mark.parametrize(("method", "shape"), [("mtae", (4, 1, 8)), ("mlae", (4, 4, 1))])
def test_mtae_hides_moments_and_mlae_leads(method, shape):
    mask = masks(tiny_model(method))
    assert mask.shape == shape
    assert (mask.flatten(1).sum(1) == mask[0].numel() // 2).all()


def test_one_mask_can_serve_all_leads_and_records():
    model = tiny_model().eval()
    columns = torch.tensor([[True, False] * 4])
    shared = model(signals(), bool_masked_pos=columns).loss
    torch.testing.assert_close(shared, model(signals(), bool_masked_pos=columns[None].expand(4, 4, 8)).loss)


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_that_hides_nothing_is_refused(method):
    model = tiny_model(method)
    with pytest.raises(ValueError, match="hides nothing"):
        model(signals(), bool_masked_pos=torch.zeros_like(masks(model)))


def test_unequal_masks_are_refused():
    mask = torch.zeros(4, 4, 8, dtype=torch.bool)
    mask[:, 0, :2] = mask[:, 1:, 0] = True
    with pytest.raises(ValueError, match="equally many hidden patches in every sequence"):
        tiny_model()(signals(), bool_masked_pos=mask)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 8\) or \(4, 8\), got \(4, 3, 8\)"):
        tiny_model()(signals(), bool_masked_pos=mask[:, :3])


@pytest.mark.parametrize("method", METHODS)
def test_a_single_lead_is_refused_unless_it_is_named(method):
    model = tiny_model(method)
    with pytest.raises(ValueError, match=r"Expected 4 leads .* never repeated"):
        model.ecg_vit(signals()[:, :1])


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_named_leads_does_not_matter(method):
    encoder = tiny_model(method).eval().ecg_vit
    expected = encoder(signals()).pooler_output
    shuffled = encoder(signals()[:, [2, 0, 3, 1]], leads=["V1", "I", "V2", "II"]).pooler_output
    torch.testing.assert_close(shuffled, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_absent_leads_count_as_little_as_leads_that_are_left_out_by_name(method):
    model = tiny_model(method).eval()
    lead_mask = torch.tensor([[False, True, False, True]]).expand(4, 4)
    spoilt = torch.where(lead_mask[..., None], signals(), float("nan"))
    masked = model.ecg_vit(spoilt, lead_mask=lead_mask).pooler_output
    named = model.ecg_vit(signals()[:, [1, 3]], leads=["II", "V2"]).pooler_output
    torch.testing.assert_close(masked, named, atol=1e-5, rtol=1e-4)
    mask = masks(model)
    if method == "mlae":
        mask = torch.tensor([True, False, False, True]).view(1, 4, 1).expand(4, 4, 1)
    rows = mask if method == "mtae" else mask[:, [1, 3]]
    masked = model(spoilt, lead_mask=lead_mask, bool_masked_pos=mask)
    named = model(signals()[:, [1, 3]], leads=["II", "V2"], bool_masked_pos=rows)
    torch.testing.assert_close(masked.loss, named.loss, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(masked.reconstruction).all()


@torch.no_grad()
def test_a_lead_has_the_embedding_of_its_name(tmp_path):
    model = tiny_model().eval()
    model.ecg_vit.save_pretrained(tmp_path)
    record = signals()[:, 1:2]
    as_ii = model.ecg_vit(record, leads=["II"]).pooler_output
    one_lead = StMemModel.from_pretrained(tmp_path, leads=["II"]).eval()
    torch.testing.assert_close(one_lead(record).pooler_output, as_ii)
    assert one_lead.embeddings.lead_embeddings.shape == (4, 32)
    model.ecg_vit.embeddings.lead_embeddings[[0, 2, 3]] = 1e3
    torch.testing.assert_close(model.ecg_vit(record, leads=["II"]).pooler_output, as_ii)
    model.ecg_vit.embeddings.lead_embeddings[1, 0] += 1.0
    assert not torch.allclose(model.ecg_vit(record, leads=["II"]).pooler_output, as_ii, atol=1e-3)


def test_a_record_without_any_lead_gives_finite_numbers():
    model = tiny_model()
    lead_mask = torch.ones(4, 4, dtype=torch.bool)
    lead_mask[0] = False
    output = model(signals(), lead_mask=lead_mask)
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_patches_go_back_to_the_signal_they_came_from(method):
    model = tiny_model(method)
    patches = model.patchify(signals())
    expected = manual_patches(method, signals()[0])
    flat = patches[0].transpose(0, 1) if method == "mlae" else patches[0]
    assert torch.equal(flat, torch.stack([torch.stack(row) for row in expected]))
    assert torch.equal(model.unpatchify(patches), signals())


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_a_perfect_decoder_gives_the_signal_back(method):
    model = tiny_model(method).eval()
    mean, deviation = patch_statistics(model.patchify(signals()))
    perfect = (model.patchify(signals()) - mean) / deviation
    perfect = perfect.transpose(1, 2) if method == "mlae" else perfect
    model.decoder.forward = lambda *args, **kwargs: perfect.flatten(0, 1)
    signal, hidden = model.reconstruct(signals())
    torch.testing.assert_close(signal, signals(), atol=1e-5, rtol=1e-5)
    assert hidden.shape == (4, 4, 1 if method == "mlae" else 8)
    assert model(signals()).loss < 1e-9


@torch.no_grad()
def test_reconstructions_keep_the_unit_of_the_input():
    model = tiny_model().eval()
    mask = masks(model)
    patches = model(signals(), bool_masked_pos=mask).reconstruction.view(4, 4, 8, 10)
    by_hand = torch.empty_like(patches)
    for index in torch.cartesian_prod(torch.arange(4), torch.arange(4), torch.arange(8)).tolist():
        record, lead, column = index
        source = signals()[record, lead, 10 * column : 10 * column + 10]
        by_hand[record, lead, column] = patches[record, lead, column] * source.std() + source.mean()
    signal, hidden = model.reconstruct(signals(), bool_masked_pos=mask)
    torch.testing.assert_close(signal, by_hand.flatten(2), atol=1e-5, rtol=1e-4)
    assert torch.equal(hidden, mask)


def test_the_loss_is_computed_in_float32():
    patches, mask = torch.ones(1, 1, 2, 4, dtype=torch.bfloat16), torch.tensor([[[True, False]]])
    loss = masked_patch_loss(patches, torch.zeros(1, 1, 2, 4), mask)
    assert loss == 1.0 and loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("method", "num_encoder", "num_trainable"),
    [("st_mem", 85_150_614 - 32 * 768, 88_501_985), ("mtae", None, 89_371_788 - 31 * 1024), ("mlae", None, None)],
)
def test_the_base_size_has_the_published_number_of_weights(method, num_encoder, num_trainable):
    model_class, _, config_class, _ = METHODS[method]
    with torch.device("meta"):
        model = model_class(config_class())
    total = sum(p.numel() for p in model.parameters())
    if method == "mlae":
        num_trainable = 90_739_806 - 13 * 1024  # they count the frozen tables too
    assert total == num_trainable
    if num_encoder is not None:
        assert sum(p.numel() for p in model.ecg_vit.parameters()) == num_encoder


def test_weights_start_as_the_authors_draw_them():
    torch.manual_seed(0)
    fields = {**TINY, "hidden_size": 64, "head_dim": 64, "patch_size": 10}
    for model in (StMemForPreTraining(StMemConfig(**fields)), StMemForSequenceClassification(StMemConfig(**fields))):
        attention, fc1 = model.ecg_vit.layers[1].attention, model.ecg_vit.layers[1].mlp.fc1
        for weight, bound in ((attention.k_proj.weight, (6 / (64 + 3 * 128)) ** 0.5), (fc1.weight, (6 / 112) ** 0.5)):
            assert 0.97 * bound < weight.abs().max() <= bound
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not attention.k_proj.bias.any() and not fc1.bias.any()
        tokens = torch.cat((model.ecg_vit.embeddings.lead_embeddings, model.ecg_vit.embeddings.separator[0]))
        assert tokens.std().item() == pytest.approx(0.02, rel=0.15)


def test_the_defaults_are_the_published_ones():
    config = StMemConfig()
    assert config.leads == STANDARD_LEADS and (config.num_samples, config.patch_size) == (2250, 75)
    assert MlaeConfig().patch_size == 2250 and MlaeConfig(num_samples=1000).patch_size == 1000
    assert (config.mask_ratio, config.norm_pix_loss, config.decoder_layer_norm_eps) == (0.75, True, 1e-6)
