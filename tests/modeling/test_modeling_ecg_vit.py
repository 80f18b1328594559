import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel

from ecg_transformers.modeling import EcgViTConfig, EcgViTForSequenceClassification, EcgViTModel, modeling_ecg_vit
from ecg_transformers.modeling.modeling_ecg_vit import EcgViTLayer, EcgViTResidual
from ecg_transformers.modeling.patch_embedding import TokenGrid

from .tiny_methods import SMALL

LEADS = ("I", "II", "V1", "V2")


def tiny_config(**fields):
    settings = SMALL | {"leads": LEADS, "num_samples": 60, "patch_size": 10, "attn_implementation": "sdpa"}
    return EcgViTConfig(**settings | fields)


def tiny_model(**fields):
    torch.manual_seed(0)
    model = EcgViTModel(tiny_config(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the initial 0.02 leaves attention nearly uniform: mistakes would hide
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def signals(batch=3, leads=4, samples=60):
    return torch.randn(batch, leads, samples, generator=torch.Generator().manual_seed(7))


def dense_encoder(model, input_values):
    """A slow encoder from the specification: one token at a time, attention by an explicit list of allowed keys."""
    config = model.config
    with torch.no_grad():
        tokens, positions, grid = model.embeddings(input_values)
        hidden = tokens
        rows, columns = grid.rows[0], grid.columns[0]
        for number, layer in enumerate(model.layers):
            if number == 0 or config.position_every_layer:
                hidden = hidden + positions
            normed = layer.layernorm_before(hidden)
            attention = layer.attention
            split = (*normed.shape[:2], attention.num_heads, attention.head_dim)
            query, key, value = (p(normed).view(split) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
            attended = torch.empty_like(query)
            for token in range(normed.shape[1]):
                allowed = torch.arange(normed.shape[1])
                if config.attention_pattern == "cropa" and token >= config.num_registers:
                    patch = token - config.num_registers
                    on_cross = (rows == rows[patch]) | (columns == columns[patch])
                    on_cross = torch.cat((torch.ones(config.num_registers, dtype=torch.bool), on_cross))
                    allowed = allowed[on_cross]
                scores = torch.einsum("bhd,bkhd->bhk", query[:, token], key[:, allowed]) * attention.scaling
                attended[:, token] = torch.einsum("bhk,bkhd->bhd", scores.softmax(-1), value[:, allowed])
            hidden = hidden + attention.o_proj(attended.flatten(2))
            hidden = hidden + layer.mlp(layer.layernorm_after(hidden))
        return model.layernorm(hidden)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa", "axial"])
@pytest.mark.parametrize("num_registers", [0, 2])
@pytest.mark.parametrize("attention_pattern", ["cropa", "full"])
@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
def test_the_encoder_equals_a_slow_one(patching, attention_pattern, num_registers, attn_implementation):
    model = tiny_model(patching=patching, attention_pattern=attention_pattern, num_registers=num_registers)
    model.set_attn_implementation(attn_implementation)
    output = model(signals())
    torch.testing.assert_close(output.last_hidden_state, dense_encoder(model, signals()), atol=1e-5, rtol=1e-5)
    patches = output.last_hidden_state[:, num_registers:]
    torch.testing.assert_close(output.pooler_output, patches.mean(dim=1))


@pytest.mark.parametrize("position_embedding", ["sincos_2d", "sincos_interleaved", "sincos_halves", "learned"])
@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
def test_every_position_table_tells_moments_apart(patching, position_embedding):
    model = tiny_model(patching=patching, position_embedding=position_embedding)
    table = model.embeddings.position_embeddings.detach()
    assert table.shape == (4 if patching == "per_lead" else 1, 6, 32)
    for first in range(6):
        for second in range(first):
            assert (table[:, first] - table[:, second]).abs().amax(-1).min() > 1e-3
    swapped = torch.cat((signals()[..., 30:], signals()[..., :30]), dim=-1)
    assert (model(signals()).pooler_output - model(swapped).pooler_output).abs().max() > 1e-3


def test_the_kim_position_table_is_the_published_one(golden):
    expected = golden("kim_posembed")["encoder_pos_embed_c8_p50_d48"]
    config = EcgViTConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=4)
    table = EcgViTModel(config).embeddings.position_embeddings
    torch.testing.assert_close(table.flatten(0, 1), expected, atol=1e-6, rtol=0)


def test_the_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = EcgViTModel(EcgViTConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 85_067_520


def test_initial_weights_have_the_published_spread(golden_facts):
    model = EcgViTModel(EcgViTConfig(num_hidden_layers=12, hidden_size=192, intermediate_size=768))
    published = golden_facts("kim_posembed")["init_stats"]
    for number in (0, 11):
        layer, theirs = model.layers[number], f"encoder_blocks.blocks.{number}."
        for weight, name in ((layer.mlp.fc2.weight, "mlp.fc2"), (layer.attention.o_proj.weight, "attn.proj")):
            assert weight.std().item() == pytest.approx(published[f"{theirs}{name}.weight"]["std"], rel=0.02)
        assert layer.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
def test_leads_are_found_by_name_in_any_order(patching):
    model = tiny_model(patching=patching)
    order = [2, 0, 3, 1]
    shuffled = model(signals()[:, order], leads=[LEADS[i] for i in order])
    torch.testing.assert_close(shuffled.pooler_output, model(signals()).pooler_output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa", "axial"])
@pytest.mark.parametrize("attention_pattern", ["cropa", "full"])
@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
@pytest.mark.parametrize("present", [[1], [0, 3]])
def test_a_masked_lead_and_a_lead_left_out_give_the_same_feature(
    patching, attention_pattern, attn_implementation, present
):
    model = tiny_model(patching=patching, attention_pattern=attention_pattern)
    model.set_attn_implementation(attn_implementation)
    left_out = model(signals()[:, present], leads=[LEADS[i] for i in present]).pooler_output
    lead_mask = torch.zeros(3, 4, dtype=torch.bool)
    lead_mask[:, present] = True
    garbage = signals().masked_fill(~lead_mask[..., None], 1e4)
    masked = model(garbage, lead_mask=lead_mask).pooler_output
    torch.testing.assert_close(masked, left_out, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        (torch.zeros(3, 1, 60), {}, r"Expected 4 leads .*got 1.*EcgFeatureExtractor"),  # is not repeated
        (torch.zeros(3, 4, 50), {}, r"Expected 60 samples \(0.24 s at 250 Hz\), got 50.*EcgFeatureExtractor"),
        (torch.zeros(4, 60), {}, r"Expected input_values of shape \(batch, num_leads, num_samples\)"),
        (torch.zeros(3, 2, 60), {"leads": ["I", "V6"]}, r"\['V6'\] are not among the available leads"),
        (
            torch.zeros(3, 4, 60),
            {"lead_mask": torch.ones(3, 4, dtype=torch.long)},
            r"Expected a bool lead_mask of shape \(3, 4\), True = present, got torch.int64",
        ),
    ],
)
def test_a_wrong_input_is_refused_with_what_to_do(values, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_model()(values, **settings)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa", "axial"])
def test_hidden_columns_leave_the_visible_ones_as_a_smaller_grid(attn_implementation):
    model = tiny_model(num_hidden_layers=1)
    model.set_attn_implementation(attn_implementation)
    mask = torch.tensor([False, True, False, True, True, False]).expand(3, -1)
    output = model(signals(), bool_masked_pos=mask).last_hidden_state
    assert output.shape == (3, 4 * 3, 32)
    ragged = model(signals(), bool_masked_pos=mask[:, None].expand(-1, 4, -1)).last_hidden_state
    torch.testing.assert_close(output, ragged, atol=1e-5, rtol=1e-5)
    changed = signals()
    changed.unflatten(-1, (6, 10))[:, :, mask[0]] = 100.0
    torch.testing.assert_close(model(changed, bool_masked_pos=mask).last_hidden_state, output)


@pytest.mark.parametrize("attention_pattern", ["cropa", "full"])
def test_every_record_can_hide_other_patches(attention_pattern):
    model = tiny_model(attention_pattern=attention_pattern, num_registers=1)
    masks = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)).flatten(1).argsort(1).view(3, 4, 6) < 10
    together = model(signals(), bool_masked_pos=masks).last_hidden_state
    assert together.shape == (3, 1 + 14, 32)
    for record in range(3):
        alone = model(signals()[record : record + 1], bool_masked_pos=masks[record : record + 1]).last_hidden_state
        torch.testing.assert_close(together[record : record + 1], alone, atol=1e-5, rtol=1e-5)


def test_unequal_counts_of_hidden_patches_are_refused():
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 0] = True
    with pytest.raises(ValueError, match=r"equally many hidden patches.*\[1, 0, 0\]"):
        tiny_model()(signals(), bool_masked_pos=mask)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa", "axial"])
def test_attentions_are_zero_off_the_cross_and_carry_gradients(attn_implementation):
    model = tiny_model()
    model.set_attn_implementation(attn_implementation)
    output = model(signals(), output_attentions=True, output_hidden_states=True)
    assert len(output.attentions) == 2 and len(output.hidden_states) == 3
    weights = output.attentions[-1]
    assert weights.shape == (3, 4, 24, 24)
    assert ((weights > 0).sum(-1) == 4 + 6 - 1).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 24))
    torch.testing.assert_close(output.pooler_output, model(signals()).pooler_output, atol=1e-5, rtol=1e-5)
    weights.retain_grad()
    output.pooler_output.sum().backward()
    assert weights.grad.abs().sum() > 0


def test_drop_path_rises_linearly_and_is_off_in_evaluation():
    model = tiny_model(drop_path_rate=0.1, num_hidden_layers=12)
    rates = [layer.mlp_residual.drop_path_rate for layer in model.layers]
    torch.testing.assert_close(torch.tensor(rates), torch.arange(12) * 0.1 / 11)
    torch.testing.assert_close(model(signals()).pooler_output, model(signals()).pooler_output)
    model.train()
    assert not torch.equal(model(signals()).pooler_output, model(signals()).pooler_output)


def test_drop_path_keeps_the_mean_of_a_branch():
    torch.manual_seed(0)
    residual = EcgViTResidual(tiny_config(), drop_path_rate=0.25).train()
    output = residual(torch.zeros(4000, 1, 1), torch.ones(4000, 1, 1))
    torch.testing.assert_close(output.unique(), torch.tensor([0.0, 4 / 3]))
    assert output.mean().item() == pytest.approx(1.0, abs=0.05)


def test_layer_scale_scales_both_branches():
    model = tiny_model(layer_scale_init_value=0.0)
    with torch.no_grad():
        for layer in model.layers:
            layer.attention_residual.layer_scale.zero_()
            layer.mlp_residual.layer_scale.zero_()
        tokens, positions, _ = model.embeddings(signals())
        expected = model.layernorm(tokens + 2 * positions)
        torch.testing.assert_close(model(signals()).last_hidden_state, expected)


def test_a_checkpoint_loads_for_shorter_recordings(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    shorter = AutoModel.from_pretrained(tmp_path, num_samples=30)
    assert shorter(signals(samples=30)).last_hidden_state.shape == (3, 4 * 3, 32)
    torch.testing.assert_close(
        shorter.embeddings.position_embeddings, model.embeddings.position_embeddings[:, :3], atol=0, rtol=0
    )


@pytest.mark.parametrize("position_embedding", ["sincos_2d", "learned"])
@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
def test_a_checkpoint_loaded_for_fewer_leads_keeps_their_places(tmp_path, patching, position_embedding):
    model = tiny_model(patching=patching, position_embedding=position_embedding)
    model.save_pretrained(tmp_path / "all")
    fewer = AutoModel.from_pretrained(tmp_path / "all", leads=["V1", "II"])
    expected = model(signals()[:, [2, 1]], leads=["V1", "II"]).pooler_output
    torch.testing.assert_close(fewer(signals()[:, [2, 1]]).pooler_output, expected)
    fewer.save_pretrained(tmp_path / "fewer")
    again = AutoModel.from_pretrained(tmp_path / "fewer")
    torch.testing.assert_close(again(signals()[:, [2, 1]]).pooler_output, expected)


@pytest.mark.parametrize("attention_pattern", ["cropa", "full"])
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa", "axial"])
def test_what_stands_in_an_absent_lead_never_matters(attention_pattern, attn_implementation):
    model = tiny_model(attention_pattern=attention_pattern)
    model.set_attn_implementation(attn_implementation)
    lead_mask = torch.ones(3, 4, dtype=torch.bool)
    lead_mask[1, 3], lead_mask[2] = False, False  # one lead absent; a record without any
    poisoned = signals().masked_fill(~lead_mask[..., None], float("nan"))
    output = model(poisoned, lead_mask=lead_mask)
    assert output.last_hidden_state.isfinite().all() and output.pooler_output.isfinite().all()


def test_exporting_leaves_the_model_usable():
    model = tiny_model()
    with torch.no_grad():
        exported = torch.export.export(model, (), {"input_values": signals()})
        output = model(signals()).pooler_output
        torch.testing.assert_close(exported.module()(input_values=signals()).pooler_output, output)


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("multi_label_classification", torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0]])),
        ("single_label_classification", torch.tensor([0, 2, 1])),
        ("regression", torch.tensor([[60.0, 1, 2], [70, 3, 4], [80, 5, 6]])),
    ],
)
def test_the_classification_head_has_the_loss_of_its_problem_type(problem_type, labels):
    torch.manual_seed(0)
    model = EcgViTForSequenceClassification(tiny_config(num_labels=3, problem_type=problem_type))
    output = model(signals(), labels=labels)
    expected = {
        "multi_label_classification": torch.nn.functional.binary_cross_entropy_with_logits,
        "single_label_classification": torch.nn.functional.cross_entropy,
        "regression": torch.nn.functional.mse_loss,
    }[problem_type](output.logits, labels)
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_models_keep_the_trainer_from_rescaling_the_loss():
    assert EcgViTForSequenceClassification.accepts_loss_kwargs is False


def layer_and_grid(**fields) -> tuple[EcgViTLayer, TokenGrid, torch.Tensor]:
    torch.manual_seed(0)
    layer = EcgViTLayer(tiny_config(intermediate_size=128, **fields), 2)
    places = torch.arange(8)
    return layer, TokenGrid(2, 4, places[None] // 4, places[None] % 4), torch.randn(3, 8, 32)


@pytest.mark.parametrize(
    "fields", [{}, {"use_bias": False}, {"hidden_act": "gelu_new"}, {"attention_pattern": "full"}]
)
@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_has_the_gradients_of_one_that_keeps_all(monkeypatch, fields, adapted, autocast):
    layer, grid, inputs = layer_and_grid(**fields)
    if adapted:
        layer.attention.q_proj = nn.Sequential(layer.attention.q_proj, nn.Linear(32, 32))
        layer.mlp.fc2 = nn.Sequential(nn.Dropout(0.0), layer.mlp.fc2)

    def gradients():
        own = inputs.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = layer(own, grid).float().square().sum()
        return torch.autograd.grad(loss, [own, *layer.parameters()])

    mine = gradients()
    monkeypatch.setattr(modeling_ecg_vit, "may_recompute", lambda: False)
    assert all(torch.equal(a, b) for a, b in zip(mine, gradients(), strict=True))


def test_a_layer_keeps_neither_normed_inputs_nor_activations():
    layer, grid, inputs = layer_and_grid()
    again = []
    for module in (layer.layernorm_before, layer.layernorm_after, layer.mlp.activation):
        module.register_forward_hook(lambda _, __, output: again.append(StorageWeakRef(output.untyped_storage())))
    output = layer(inputs, grid)
    assert output.grad_fn is not None and [storage.expired() for storage in again] == [True] * 3


def test_a_layer_can_be_differentiated_twice(monkeypatch):
    layer, grid, inputs = layer_and_grid(attn_implementation="eager")

    def second_gradients():
        own = inputs.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(layer(own, grid).square().sum(), own, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), own)[0]

    mine = second_gradients()
    monkeypatch.setattr(modeling_ecg_vit, "may_recompute", lambda: False)
    torch.testing.assert_close(mine, second_gradients())


@pytest.mark.parametrize("implementation", ["eager", "axial"])
def test_torch_func_has_the_gradients_of_each_record_and_those_along_a_direction(implementation):
    layer, grid, inputs = layer_and_grid(attn_implementation=implementation)
    parameters = dict(layer.named_parameters())

    def loss(parameters, records):
        return torch.func.functional_call(layer, parameters, (records, grid)).square().sum()

    by_record = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, inputs[:, None])
    _, along = torch.func.jvp(lambda records: loss(parameters, records), (inputs,), (torch.ones_like(inputs),))
    layer(inputs.requires_grad_(), grid).square().sum().backward()
    torch.testing.assert_close(along, inputs.grad.sum())
    for name, parameter in parameters.items():
        torch.testing.assert_close(by_record[name].sum(dim=0), parameter.grad)


def test_checkpointing_from_outside_keeps_the_input_alone():
    layer, grid, inputs = layer_and_grid()
    inside = []
    layer.attention_residual.register_forward_hook(
        lambda _, __, output: inside.append(StorageWeakRef(output.untyped_storage()))
    )
    checkpoint(layer, inputs.requires_grad_(), grid, use_reentrant=False)
    assert inside[0].expired()
