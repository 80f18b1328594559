import numpy as np
import pytest
import torch

from ecg_transformers.hub.convert import read_checkpoint
from ecg_transformers.hub.convert_weimann import (
    NUMPY_GLOBALS,
    STATISTICS_MV,
    convert_weimann_checkpoint,
    weimann_feature_extractor,
    weimann_state_dict,
)
from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgJepaForPreTraining,
    EcgViTForSequenceClassification,
    EcgViTModel,
)
from ecg_transformers.modeling.feature_extraction_ecg import average_windows
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.train.schedules import cosine_schedule, linear_schedule, weimann_learning_rate, weimann_momentum

from .conftest import named_gradients, recipe_tensor

ACTIVATIONS = {"atol": 2e-5, "rtol": 1e-4}  # the tolerance that the fixtures state
HALF_PRECISION = {"atol": 2e-3, "rtol": 2e-3}  # the authors compute in float16: one unit in the last place a step
SMALL = ["weimann_small", "weimann_small_legacy_lnbias", "weimann_small_bias_ls_reg2"]
MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
HEADS = ["attn", "register", "mean"]


def stored(tensors, prefix="state/"):
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def hidden_mask(tensors, num_columns, prefix=""):
    indices = tensors[prefix + "mask_predictor"]
    return torch.zeros(len(indices), num_columns, dtype=torch.bool).scatter_(1, indices, True)


def classifier_file(state, head_state, facts, head, crop_duration):
    """A file as the authors' fine-tuning writes it."""
    encoder = {f"encoder.{key[15:]}": tensor for key, tensor in state.items() if key.startswith("target_encoder.")}
    evaluation = {"use_register": head != "mean", "attn_pooling": head == "attn", "crop_duration": crop_duration}
    return {"model": encoder | head_state, "config": facts["config"], "eval_config": evaluation, "task": "all"}


@pytest.fixture(params=SMALL)
def small(request, golden, golden_facts):
    return golden(request.param), golden_facts(request.param)


@pytest.fixture
def pretraining_file(small):
    return {"model": stored(small[0]), "config": small[1]["config"], "step": 0}


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_activations_predictions_and_loss_equal_the_published_ones(small, pretraining_file, implementation):
    tensors, _ = small
    model = convert_weimann_checkpoint(pretraining_file).eval()
    model.set_attn_implementation(implementation)
    registers, num_layers = model.config.num_registers, model.config.num_hidden_layers
    student = model.trained_encoder(tensors["input"], output_hidden_states=True)
    torch.testing.assert_close(student.hidden_states[0][:, registers:], tensors["tokens_plus_pos"], **ACTIVATIONS)
    for block in range(num_layers):
        expected = tensors[f"student_block{block}_out_unmasked"]
        torch.testing.assert_close(student.hidden_states[block + 1], expected, **ACTIVATIONS)
    teacher = model.ecg_vit(tensors["input"]).last_hidden_state
    torch.testing.assert_close(teacher[:, registers:], tensors["teacher_out"], **ACTIVATIONS)
    torch.testing.assert_close(teacher[:, :registers], tensors["teacher_registers"], **ACTIVATIONS)

    mask = hidden_mask(tensors, model.config.num_columns)
    output = model(tensors["input"], bool_masked_pos=mask)
    torch.testing.assert_close(output.last_hidden_state[:, registers:], tensors["student_out"], **ACTIVATIONS)
    torch.testing.assert_close(output.predictions[:, 0], tensors["predictor_out"], **ACTIVATIONS)
    torch.testing.assert_close(output.targets[:, 0], tensors["target"], **ACTIVATIONS)
    torch.testing.assert_close(output.loss, tensors["loss"][0], atol=1e-6, rtol=0)
    for record, expected in enumerate(tensors["loss_per_sample"]):
        alone = model(tensors["input"][record : record + 1], bool_masked_pos=mask[record : record + 1])
        torch.testing.assert_close(alone.loss, expected, atol=1e-6, rtol=0)
    model.update_teacher(0.5)
    after = model(tensors["input"], bool_masked_pos=mask).loss
    torch.testing.assert_close(after, tensors["loss_after_ema_m0.5"][0], atol=1e-6, rtol=0)


def test_gradient_norms_equal_the_published_ones(small, pretraining_file):
    tensors, facts = small
    model = convert_weimann_checkpoint(pretraining_file).eval()
    model(tensors["input"], bool_masked_pos=hidden_mask(tensors, model.config.num_columns)).loss.backward()
    named = named_gradients(model, convert_weimann_checkpoint(pretraining_file), weimann_state_dict)
    for name, norm in facts["grad_norms"].items():
        assert named[name].norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7), name


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_each_head_gives_the_published_logits(small, head):
    tensors, facts = small
    head_state = stored(tensors, f"classifier_{head}/state/")
    crop_duration = facts["config"]["channel_size"] / facts["config"]["sampling_frequency"]
    checkpoint = classifier_file(stored(tensors), head_state, facts, head, crop_duration)
    model = convert_weimann_checkpoint(checkpoint).eval()
    assert type(model) is EcgViTForSequenceClassification
    expected = tensors[f"classifier_{head}/logits_full_length"]
    torch.testing.assert_close(model(tensors["input"]).logits, expected, **ACTIVATIONS)
    back = weimann_state_dict(model)
    assert back.keys() == checkpoint["model"].keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in checkpoint["model"].items())


@pytest.mark.slow
@torch.no_grad()
def test_vit_s_gives_the_published_numbers_and_crop_logits(golden, golden_facts):
    tensors, facts = golden("weimann_vit_s"), golden_facts("weimann_vit_s")
    state = {name: recipe_tensor(name, shape) for name, shape in facts["state_dict_shapes"].items()}
    sums = facts["weight_checksums_sum_abssum"]["target_encoder.blocks.3.attn.qkv.weight"]
    generated = state["target_encoder.blocks.3.attn.qkv.weight"].double()
    assert [generated.sum().item(), generated.abs().sum().item()] == pytest.approx(sums)
    signal = 0.3 * np.random.RandomState(20241110).standard_normal((2, 12, 5000))
    signal = torch.from_numpy(signal).float()

    model = convert_weimann_checkpoint({"model": state, "config": facts["config"]}).eval()
    num_parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert num_parameters["student"] == facts["n_params"]["encoder"]
    assert num_parameters["predictor"] == facts["n_params"]["predictor"]
    output = model(signal, bool_masked_pos=hidden_mask(tensors, 200))
    torch.testing.assert_close(output.loss, tensors["loss"][0], atol=1e-5, rtol=0)
    predictions = output.predictions[:, 0, ::8, ::4]
    torch.testing.assert_close(predictions, tensors["predictor_out/strided"], **ACTIVATIONS)
    teacher = model.ecg_vit(signal).last_hidden_state
    torch.testing.assert_close(teacher[:, 1:][:, ::8, ::4], tensors["teacher_out/strided"], **ACTIVATIONS)
    torch.testing.assert_close(teacher[:, 1:][:, [0, 99, 199]], tensors["teacher_out/tokens_0_99_199"], **ACTIVATIONS)
    torch.testing.assert_close(teacher[:, :1], tensors["teacher_registers"], **ACTIVATIONS)

    for head in HEADS:
        shapes = {"fc.weight": (7, 384)}
        if head == "attn":
            block = "attn_pool.cross_attention_block"
            shapes = {"attn_pool.query_token": (1, 1, 384), f"{block}.q.weight": (384, 384)}
            shapes |= {f"{block}.kv.weight": (768, 384), f"{block}.proj.weight": (7, 384)}
        head_state = {name: recipe_tensor(name, shape) for name, shape in shapes.items()}
        checkpoint = classifier_file(state, head_state, facts, head, crop_duration=2.5)
        classifier = convert_weimann_checkpoint(checkpoint).eval()
        feature_extractor = weimann_feature_extractor(classifier, checkpoint)
        # The fixture's input is what the encoder reads: only the cutting into crops is the extractor's here.
        cut = EcgFeatureExtractor.from_dict(
            feature_extractor.to_dict() | {"lead_means": [0] * 12, "lead_stds": [1] * 12, "clip": 100}
        )
        crops = cut(signal, sampling_rate=500, leads=STANDARD_LEADS, unit="mV")
        logits = classifier(crops["input_values"]).logits
        expected = tensors[f"classifier_{head}/logits_crops"]
        torch.testing.assert_close(logits.view_as(expected), expected, **ACTIVATIONS)
        mean = average_windows(logits, crops["window_record"])
        torch.testing.assert_close(mean, tensors[f"classifier_{head}/logits_mean"], **ACTIVATIONS)


def test_five_training_steps_follow_the_published_ones(golden, golden_facts):
    facts, tensors = golden_facts("weimann_train5"), golden("weimann_train5")
    final = stored(tensors, "final/")
    state = {name: recipe_tensor(name, tensor.shape) for name, tensor in final.items()}
    model = convert_weimann_checkpoint({"model": state, "config": facts["config"]}).train()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [[p for name, p in trained if model.has_weight_decay(name, p) == decays] for decays in (True, False)]
    num_fused = 2 * 3  # q and k of the layers are no parameters of their own in the authors' code
    assert len(groups[0]) == len(facts["param_groups"]["decay"]) + num_fused
    assert len(groups[1]) == len(facts["param_groups"]["no_decay"])
    optimizer = torch.optim.AdamW([{"params": group} for group in groups], betas=(0.9, 0.99), eps=1e-6)
    # The authors' first update comes before the first forward; here student and teacher differ at the start.
    model.update_teacher(linear_schedule(0, 5, 0.5, 1.0))
    for step, expected in enumerate(facts["trace"]):
        learning_rate = weimann_learning_rate(step, warmup_steps=2, total_steps=5, peak=1e-2)
        decay = cosine_schedule(step, 5, 0.01, 0.1)
        assert [learning_rate, decay] == pytest.approx([expected["lr"], expected["wd"][0]], rel=1e-9)
        for group, weight_decay in zip(optimizer.param_groups, (decay, 0.0), strict=True):
            group.update(lr=learning_rate, weight_decay=weight_decay)
        inputs = torch.from_numpy(0.3 * np.random.RandomState(100 + step).standard_normal((2, 12, 500))).float()
        loss = model(inputs, bool_masked_pos=hidden_mask(tensors, 20, f"step{step}/")).loss
        assert loss.item() == pytest.approx(expected["loss"], abs=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step < 4:  # the authors' next update comes with the next forward
            model.update_teacher(weimann_momentum(step, 5, 0.5, 1.0))
    for name, tensor in weimann_state_dict(model).items():
        torch.testing.assert_close(tensor, final[name], atol=1e-4, rtol=0, msg=name)


def test_each_kind_of_file_gives_its_class(pretraining_file, small):
    model = convert_weimann_checkpoint(pretraining_file)
    assert type(model) is EcgJepaForPreTraining
    state = pretraining_file["model"]
    minified = {key: tensor for key, tensor in state.items() if key.startswith("target_encoder.")}
    encoder = convert_weimann_checkpoint({"model": minified, "config": pretraining_file["config"]}).eval()
    assert type(encoder) is EcgViTModel
    pooled = encoder(small[0]["input"]).pooler_output
    torch.testing.assert_close(pooled, small[0]["teacher_out"].mean(dim=1), **ACTIVATIONS)
    assert weimann_state_dict(encoder).keys() == minified.keys()


def test_a_converted_folder_gives_the_teacher(tmp_path, pretraining_file):
    model = convert_weimann_checkpoint(pretraining_file)
    model.save_pretrained(tmp_path)
    encoder = EcgViTForSequenceClassification.from_pretrained(tmp_path).ecg_vit
    teacher = model.target_encoder.state_dict()
    assert all(torch.equal(tensor, teacher[name]) for name, tensor in encoder.state_dict().items())


def test_the_configuration_of_the_file_counts_and_the_published_one_fills_its_gaps(golden, golden_facts):
    state, settings = stored(golden("weimann_small")), golden_facts("weimann_small")["config"]
    config = convert_weimann_checkpoint({"model": state, "config": settings}).config
    assert (config.num_samples, config.num_attention_heads, config.layer_norm_eps) == (500, 4, 1e-6)
    assert (config.mask_ratio, config.min_segment_patches) == ((0.75, 0.85), 3)
    assert not (config.use_bias or config.qkv_bias or config.layer_norm_bias)
    bare = convert_weimann_checkpoint(state, num_attention_heads=4, predictor_num_attention_heads=3).config
    assert (bare.num_samples, bare.sampling_rate, bare.leads) == (5000, 500, STANDARD_LEADS)
    with pytest.raises(ValueError, match="No published model has width 48.*Give num_attention_heads"):
        convert_weimann_checkpoint(state)


def test_fewer_leads_than_the_file_says_are_refused(pretraining_file):
    with pytest.raises(ValueError, match=r"leads=.* was given \(--leads\), but the file has .* Leave it out"):
        convert_weimann_checkpoint(pretraining_file, leads=("I", "II"))
    silent = {name: value for name, value in pretraining_file["config"].items() if name != "channels"}
    with pytest.raises(ValueError, match=r"Give the leads of the checkpoint: leads \(--leads\)"):
        convert_weimann_checkpoint(pretraining_file | {"config": silent}, leads=("I", "II"))


def test_a_classifier_file_is_read_without_executing_it_and_keeps_its_own_statistics(tmp_path, golden, golden_facts):
    tensors, facts = golden("weimann_small"), golden_facts("weimann_small")
    head_state = stored(tensors, "classifier_register/state/")
    checkpoint = classifier_file(stored(tensors), head_state, facts, "register", crop_duration=0.5)
    statistics = golden("weimann_data")
    checkpoint["preprocess"] = {name: statistics[f"finetune_{name}"].numpy() for name in ("mean", "std")}
    torch.save(checkpoint, tmp_path / "all_best_chkpt.pt")
    loaded = read_checkpoint(str(tmp_path / "all_best_chkpt.pt"), NUMPY_GLOBALS)
    model = convert_weimann_checkpoint(loaded)
    feature_extractor = weimann_feature_extractor(model, loaded)
    assert feature_extractor.lead_stds == pytest.approx(statistics["finetune_std"].flatten().tolist())
    assert (feature_extractor.num_samples, feature_extractor.window_stride_samples) == (250, 625)
    assert model.config.problem_type == "multi_label_classification"


def test_the_single_label_task_has_its_five_names(golden, golden_facts):
    tensors, facts = golden("weimann_small"), golden_facts("weimann_small")
    checkpoint = classifier_file(stored(tensors), {"fc.weight": torch.zeros(5, 48)}, facts, "mean", 1.0)
    config = convert_weimann_checkpoint(checkpoint | {"task": "ST-MEM"}).config
    assert config.problem_type == "single_label_classification"
    assert list(config.id2label.values()) == ["CD", "HYP", "MI", "NORM", "STTC"]


PREPARATIONS = {
    "gaps, lead order and normalisation": (
        ("mimic_raw_f16", "mimic_preprocessed_f16", 500, MIMIC_LEADS),
        {"sampling_rate": 500, "num_samples": 5000, "nan_policy": "interpolate"},
        "mimic-iv-ecg",
    ),
    "resampling": (
        ("code15_raw_f16", "code15_preprocessed_f16", 400, STANDARD_LEADS),
        {"sampling_rate": 500, "num_samples": 5120},
        "code-15",
    ),
    "removal of the baseline": (
        ("code15_raw_f16", "code15_highpass_f16", 400, STANDARD_LEADS),
        {"sampling_rate": 400, "num_samples": 4096, "highpass_hz": 0.5, "filter_order": 4},
        None,
    ),
}


@pytest.mark.parametrize(("recording", "settings", "corpus"), PREPARATIONS.values(), ids=PREPARATIONS)
def test_the_preparation_is_the_published_one(golden, recording, settings, corpus):
    before, after, sampling_rate, leads = recording
    if corpus is not None:
        means, stds = STATISTICS_MV[corpus]
        settings = settings | {"normalization": "fixed", "lead_means": means, "lead_stds": stds, "clip": 5}
    raw, expected = (golden("weimann_data")[name].T.float() for name in (before, after))
    extract = EcgFeatureExtractor(leads=STANDARD_LEADS, **settings)
    values = extract(raw.numpy(), sampling_rate=sampling_rate, leads=leads, unit="mV")["input_values"][0]
    torch.testing.assert_close(values, expected, **HALF_PRECISION)


def test_normalisation_of_fine_tuning_is_the_published_one(golden):
    data = golden("weimann_data")
    means, stds = (data[f"finetune_{name}"].flatten().tolist() for name in ("mean", "std"))
    fixed = {"normalization": "fixed", "lead_means": means, "lead_stds": stds, "clip": 5}
    extract = EcgFeatureExtractor(STANDARD_LEADS, 500, 500, **fixed)
    signals = data["finetune_x_f16"].transpose(1, 2).float().numpy()
    values = extract(signals, sampling_rate=500, leads=STANDARD_LEADS, unit="mV")["input_values"]
    torch.testing.assert_close(values, data["finetune_normalised_f16"].transpose(1, 2).float(), **HALF_PRECISION)


def test_a_corpus_may_be_named_and_its_statistics_follow_the_leads(pretraining_file):
    model = convert_weimann_checkpoint(pretraining_file)
    columns = [STANDARD_LEADS.index(lead) for lead in model.config.leads]
    feature_extractor = weimann_feature_extractor(model, pretraining_file, "cpsc-extra")
    assert feature_extractor.lead_stds == tuple(STATISTICS_MV["cpsc"][1][column] for column in columns)
