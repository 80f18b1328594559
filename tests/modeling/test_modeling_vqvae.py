import pytest
import torch

from ecg_transformers.modeling import EcgJepaConfig, EcgJepaForPreTraining
from ecg_transformers.modeling.configuration_vqvae import EcgVqVaeConfig
from ecg_transformers.modeling.modeling_vqvae import (
    EcgVqVaeForPreTraining,
    EcgVqVaeForSequenceClassification,
    EcgVqVaeTokenizer,
)

from .tiny_methods import SMALL, SMALL_PREDICTOR, hidden_columns

TINY = SMALL | {"num_samples": 100, "patch_size": 10, "latent_size": 8, "num_codes": 16, "initializer_range": 0.1}
TINY |= {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
TINY |= {"decoder_intermediate_size": 48}


def tiny_model(cls=EcgVqVaeForPreTraining, **fields):
    torch.manual_seed(0)
    return cls(EcgVqVaeConfig(**TINY | fields))


def signals(batch=8):
    return torch.randn(batch, 3, 100, generator=torch.Generator().manual_seed(7))


def trained_model(**fields):
    model = tiny_model(**fields).train()
    for _ in range(3):
        model(signals())
    return model.eval()


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_finite_for_the_largest_signals_that_other_methods_read(training):
    model, signal = tiny_model().train(training), 1e18 * signals()
    mask = torch.ones(8, 3, dtype=torch.bool)
    mask[0, 1] = False
    for lead_mask in (None, mask):
        loss = model(signal, lead_mask=lead_mask).loss
        loss.backward()
        present = signal.double() if lead_mask is None else signal.double()[lead_mask]
        torch.testing.assert_close(loss.double(), present.square().mean(), rtol=1e-4, atol=0)
        assert all(weights.grad.isfinite().all() for weights in model.parameters() if weights.grad is not None)


def leads_first(tensor, axis=0):
    """A patch of the authors holds its samples one after the other, each of all leads; ours its leads."""
    return tensor.movedim(axis, -1).unflatten(-1, (75, 12)).transpose(-1, -2).flatten(-2).movedim(-1, axis)


def published_state(stored):
    source = {name.removeprefix("state_dict."): t.float() for name, t in stored.items() if "state_dict." in name}
    patch = "encoder.to_patch_embedding"
    state = {
        "ecg_vit.embeddings.position_embeddings": source["encoder.pos_embedding"],
        "ecg_vit.embeddings.projection.weight": leads_first(source[f"{patch}.2.weight"], axis=1),
        "ecg_vit.embeddings.projection.bias": source[f"{patch}.2.bias"],
        "ecg_vit.quantizer.codebook": source["vq.embeddings"],
        "ecg_vit.quantizer.code_counts": source["vq._ema_cluster_size"],
        "ecg_vit.quantizer.code_sums": source["vq._ema_w"],
        "decoder.position_embeddings": source["decoder.pos_embedding"],
    }
    for part in ("weight", "bias"):
        state[f"ecg_vit.embeddings.patch_norm_before.{part}"] = leads_first(source[f"{patch}.1.{part}"])
        state[f"ecg_vit.embeddings.patch_norm_after.{part}"] = source[f"{patch}.3.{part}"]
        state[f"ecg_vit.layernorm.{part}"] = source[f"encoder.norm.{part}"]
        state[f"ecg_vit.latent_projection.{part}"] = source[f"encoder.projection.{part}"]
        state[f"decoder.embedding.{part}"] = source[f"decoder.projection.{part}"]
        state[f"decoder.layernorm.{part}"] = source[f"decoder.norm.{part}"]
        state[f"decoder.projection.{part}"] = leads_first(source[f"decoder.output.{part}"])
        for theirs, ours in (("encoder", "ecg_vit"), ("decoder", "decoder")):
            block, layer = f"{theirs}.transformer_blocks.0", f"{ours}.layers.0"
            state[f"{layer}.layernorm_before.{part}"] = source[f"{block}.attn.norm.{part}"]
            for name, chunk in zip("qkv", source[f"{block}.attn.fn.to_qkv.{part}"].chunk(3), strict=True):
                state[f"{layer}.attention.{name}_proj.{part}"] = chunk
            state[f"{layer}.attention.o_proj.{part}"] = source[f"{block}.attn.fn.to_out.0.{part}"]
            state[f"{layer}.layernorm_after.{part}"] = source[f"{block}.ff.norm.{part}"]
            state[f"{layer}.mlp.fc1.{part}"] = source[f"{block}.ff.fn.net.0.{part}"]
            state[f"{layer}.mlp.fc2.{part}"] = source[f"{block}.ff.fn.net.3.{part}"]
    return state


def test_published_model(golden):
    stored = golden("vqvae_full")
    widths = {"hidden_size": 128, "intermediate_size": 512, "latent_size": 32, "num_codes": 64}
    decoder = {f"decoder_{name}": value for name, value in widths.items() if name.endswith("mediate_size")}
    config = EcgVqVaeConfig(
        **widths,
        **decoder,
        num_hidden_layers=1,
        num_attention_heads=4,
        head_dim=32,
        decoder_hidden_size=128,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        codebook="published",
    )
    model = EcgVqVaeForPreTraining(config).eval()
    missing, unexpected = model.load_state_dict(published_state(stored), strict=False)
    assert missing == ["ecg_vit.quantizer.steps_unused", "ecg_vit.quantizer.num_updates"] and not unexpected
    close = {"atol": 2e-5, "rtol": 1e-4}
    output = model(stored["input"].float())
    assert torch.equal(output.code_indices.view(-1, 1), stored["eval.indices"])
    torch.testing.assert_close(output.latents, stored["eval.z"], **close)
    torch.testing.assert_close(output.reconstruction, stored["eval.x_recon"], **close)
    torch.testing.assert_close(output.loss, stored["eval.loss"], **close)
    output = model.train()(stored["input"].float())
    output.loss.backward()
    assert torch.equal(output.code_indices.view(-1, 1), stored["train.indices"])
    torch.testing.assert_close(output.loss, stored["train.loss"], **close)
    encoder = model.ecg_vit
    for tensor, name in (
        (encoder.latent_projection.bias.grad, "grad.encoder.projection.bias"),
        (encoder.quantizer.codebook.grad, "grad.vq.embeddings"),
        (encoder.quantizer.codebook.data, "after.vq.embeddings"),
        (encoder.quantizer.code_counts, "after.vq._ema_cluster_size"),
        (encoder.quantizer.code_sums, "after.vq._ema_w"),
    ):
        torch.testing.assert_close(tensor, stored[f"train.{name}"], atol=1e-6, rtol=1e-4)
    assert (encoder.quantizer.codebook.norm(dim=1) == 0).sum() == 20  # the published defect


def test_the_loss_equals_a_manual_one():
    model = trained_model()
    output = model(signals())
    encoder, errors, commitments = model.ecg_vit, [], []
    for number, record in enumerate(signals()):
        hidden = encoder(record[None]).last_hidden_state[0]
        codes = []
        for token in hidden:
            latent = encoder.latent_projection(token)
            distances = [(latent - code).square().sum() for code in encoder.quantizer.codebook]
            codes.append(encoder.quantizer.codebook[torch.stack(distances).argmin()])
            commitments.append(min(distances) / 8)
        signal = model.decoder(torch.stack(codes)[None])[0]
        torch.testing.assert_close(signal, output.reconstruction[number], atol=1e-5, rtol=1e-4)
        errors += [(signal[lead] - record[lead]).square().mean() for lead in range(3)]
    reconstruction, commitment = torch.stack(errors).mean(), torch.stack(commitments).mean()
    torch.testing.assert_close(output.reconstruction_loss, reconstruction, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.commitment_loss, commitment, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.loss, reconstruction + 0.25 * commitment, atol=1e-5, rtol=1e-4)


def test_nothing_is_drawn_from_the_global_generator():
    model = tiny_model(dead_code_steps=1).train()
    state = torch.random.get_rng_state()
    for _ in range(3):
        model(signals())
    assert torch.equal(state, torch.random.get_rng_state())
    assert model.eval().draw_inputs(signals(), model.own_keys(8)) == {}


@pytest.mark.parametrize(("features", "width"), [("hidden", 32), ("latents", 8), ("codes", 8)])
def test_the_pooled_feature_is_the_mean_of_what_is_asked_for(features, width):
    model = trained_model(features=features)
    output = model.ecg_vit(signals())
    expected = {"hidden": output.last_hidden_state, "latents": output.latents, "codes": output.quantized}[features]
    assert output.pooler_output.shape == (8, width) and model.config.pooled_size == width
    torch.testing.assert_close(output.pooler_output, expected.mean(dim=1))
    torch.testing.assert_close(output.pooler_output, model(signals()).pooler_output)
    assert torch.equal(output.code_indices, model(signals()).code_indices)
    torch.testing.assert_close(model.decode(output.code_indices), model(signals()).reconstruction)


def test_fine_tuning_leaves_the_codebook_alone():
    model = tiny_model(EcgVqVaeForSequenceClassification, features="codes", num_labels=3).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(signals(), labels=torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])).loss.backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert model.ecg_vit.latent_projection.weight.grad.abs().sum() > 0  # straight through the codes


def test_fewer_leads_keep_their_places(tmp_path):
    model = trained_model()
    model.save_pretrained(tmp_path)
    loaded = EcgVqVaeForPreTraining.from_pretrained(tmp_path, leads=["V1", "I"])
    expected = model(signals()[:, [2, 0]], leads=["V1", "I"])
    output = loaded(signals()[:, [2, 0]])
    torch.testing.assert_close(output.reconstruction, expected.reconstruction)
    torch.testing.assert_close(loaded.decode(output.code_indices), expected.reconstruction)


@pytest.mark.parametrize("tokens", ["codes", "latents"])
def test_another_method_learns_from_the_tokens(tokens):
    model = trained_model()
    tokenizer = EcgVqVaeTokenizer(model.ecg_vit, tokens)
    inputs = tokenizer(signals())
    output = model.ecg_vit(signals())
    expected = output.quantized if tokens == "codes" else output.latents
    assert torch.equal(inputs.view(8, 10, 8), expected) and not inputs.requires_grad
    torch.manual_seed(0)
    config = EcgJepaConfig(
        **tokenizer.input_fields(),
        **{name: TINY[name] for name in ("num_hidden_layers", "num_attention_heads", "intermediate_size")},
        **SMALL_PREDICTOR,
        hidden_size=32,
        mask_type="random",
        mask_ratio=(0.4, 0.6),
    )
    jepa = EcgJepaForPreTraining(config).train()
    assert config.num_columns == 10 and config.num_samples / config.sampling_rate == 100 / 250
    mask = hidden_columns(1, 2, 6, 7)
    optimizer = torch.optim.AdamW([p for p in jepa.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(10):
        loss = jepa(tokenizer(signals()), bool_masked_pos=mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        jepa.update_teacher(0.99)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert not tokenizer.train().encoder.training
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


@pytest.mark.slow
def test_a_short_run_keeps_its_codes_alive_and_draws_the_signal(tmp_path):
    from ecg_transformers.data import load_ecg
    from ecg_transformers.train.pretrain import build_trainer
    from ecg_transformers.train.settings import read_config

    settings = read_config("vqvae_cpu") | {"max_steps": 150, "output_dir": str(tmp_path), "report_to": "none"}
    trainer = build_trainer(settings, load_ecg("ptb-xl-sample", split="train", decode=False))
    trainer.train()
    last = [entry for entry in trainer.state.log_history if "codes_in_use" in entry][-1]
    assert last["codes_in_use"] >= 0.5 and last["perplexity"] >= 0.5 * 64
    assert last["reconstruction_loss"] < 0.6 * 0.7155  # the variance of the signals
