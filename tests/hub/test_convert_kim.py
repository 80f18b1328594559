import numpy as np
import pytest
import torch

from ecg_transformers.hub.convert_kim import convert_kim_checkpoint, kim_state_dict
from ecg_transformers.modeling import EcgJepaForPreTraining, EcgViTForSequenceClassification, EcgViTModel
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS
from ecg_transformers.train.schedules import kim_learning_rate, linear_schedule

from .conftest import named_gradients, recipe_tensor

ACTIVATIONS = {"atol": 2e-5, "rtol": 1e-4}  # the tolerance that the fixtures state
HEADS = {"num_attention_heads": 4, "predictor_num_attention_heads": 3}


@pytest.fixture(scope="module")
def small(golden):
    return golden("kim_small")


@pytest.fixture(scope="module")
def state(small):
    return {key.removeprefix("state/"): tensor for key, tensor in small.items() if key.startswith("state/")}


@pytest.fixture(params=["eager", "sdpa", "axial"])
def model(request, state):
    model = convert_kim_checkpoint(state, **HEADS).eval()
    model.set_attn_implementation(request.param)
    return model


@torch.no_grad()
def test_activations_equal_the_published_ones_block_by_block(model, small):
    output = model.ecg_vit(small["input"], output_hidden_states=True)
    torch.testing.assert_close(output.hidden_states[0], small["student_tokens_plus_pos"], **ACTIVATIONS)
    for block, hidden_states in enumerate(output.hidden_states[1:]):
        torch.testing.assert_close(hidden_states, small[f"student_block{block}_out_unmasked"], **ACTIVATIONS)
    torch.testing.assert_close(output.last_hidden_state, small["student_out_unmasked"], **ACTIVATIONS)
    torch.testing.assert_close(output.pooler_output, small["representation"], **ACTIVATIONS)
    teacher = model.teacher(small["input"]).last_hidden_state
    torch.testing.assert_close(teacher, small["teacher_out"], **ACTIVATIONS)


@torch.no_grad()
@pytest.mark.parametrize("law", ["random", "block"])
def test_predictions_targets_and_loss_equal_the_published_ones(model, small, law):
    output = model(small["input"], bool_masked_pos=small[f"{law}/mask"][None])
    torch.testing.assert_close(output.last_hidden_state, small[f"{law}/student_out"], **ACTIVATIONS)
    torch.testing.assert_close(output.predictions.flatten(1, 2), small[f"{law}/pred_masked"], **ACTIVATIONS)
    torch.testing.assert_close(output.targets.flatten(1, 2), small[f"{law}/target_masked"], **ACTIVATIONS)
    torch.testing.assert_close(output.loss, small[f"{law}/loss"][0], atol=1e-6, rtol=0)
    for record, expected in enumerate(small[f"{law}/loss_per_sample"]):
        alone = model(small["input"][record : record + 1], bool_masked_pos=small[f"{law}/mask"][None])
        torch.testing.assert_close(alone.loss, expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("leads", ["1", "0", "1_2", "0_1", "6", "0_1_2_3_4_5"])
def test_fewer_leads_give_the_published_representations(model, small, leads):
    indices = [int(index) for index in leads.split("_")]
    names = [INDEPENDENT_LEADS[index] for index in indices]
    pooled = model.ecg_vit(small["input"][:, indices], leads=names).pooler_output
    torch.testing.assert_close(pooled, small[f"representation_leads_{leads}"], **ACTIVATIONS)


def test_gradient_norms_equal_the_published_ones(state, small, golden_facts):
    model = convert_kim_checkpoint(state, **HEADS).eval()
    model(small["input"], bool_masked_pos=small["random/mask"][None]).loss.backward()
    named = named_gradients(model, convert_kim_checkpoint(state, **HEADS), kim_state_dict)
    for name, norm in golden_facts("kim_small")["grad_norms_random_mask"].items():
        assert named[name].norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7), name


@torch.no_grad()
def test_the_linear_head_gives_the_published_logits(state, small):
    encoder = convert_kim_checkpoint(
        {k.removeprefix("encoder."): v for k, v in state.items() if k[:8] == "encoder."}, num_attention_heads=4
    )
    config = encoder.config
    config.num_labels = 5
    classifier = EcgViTForSequenceClassification(config).eval()
    classifier.ecg_vit.load_state_dict(encoder.state_dict())

    classifier.classifier.weight.copy_(recipe_tensor("linear_head.weight", (5, 48)))
    classifier.classifier.bias.copy_(recipe_tensor("linear_head.bias", (5,)))
    torch.testing.assert_close(classifier(small["input"]).logits, small["linear_head/logits"], **ACTIVATIONS)


def test_five_training_steps_follow_the_published_ones(golden, golden_facts):
    facts, final = golden_facts("kim_train5"), golden("kim_train5")
    state = {
        key.removeprefix("final/"): tensor if key.endswith("pos_embed") else recipe_tensor(key[6:], tensor.shape)
        for key, tensor in final.items()
        if key.startswith("final/")
    }
    model = convert_kim_checkpoint(state, **HEADS).train()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if p.ndim > 1 and "bias" not in name], "weight_decay": 0.05},
        {"params": [p for name, p in trained if p.ndim <= 1 or "bias" in name], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    for step, expected in enumerate(facts["trace"]):
        learning_rate = kim_learning_rate(step, warmup_steps=2, total_steps=8, peak=1e-2)
        assert learning_rate == pytest.approx(expected["lr"], rel=1e-9)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        inputs = 0.3 * np.random.RandomState(200 + step).standard_normal((2, 8, 2500))
        loss = model(torch.from_numpy(inputs).float(), bool_masked_pos=final[f"step{step}/mask"][None]).loss
        assert loss.item() == pytest.approx(expected["loss"], abs=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        momentum = linear_schedule(step, 8, 0.5, 1.0)
        assert momentum == pytest.approx(expected["momentum"], rel=1e-9)
        model.update_teacher(momentum)
    for name, tensor in kim_state_dict(model).items():
        torch.testing.assert_close(tensor, final["final/" + name], atol=1e-4, rtol=0, msg=name)


def test_the_published_form_gives_a_bare_encoder(state):
    encoder_state = {key[8:]: tensor for key, tensor in state.items() if key.startswith("encoder.")}
    model = convert_kim_checkpoint({"encoder": encoder_state, "epoch": 100}, num_attention_heads=4)
    assert type(model) is EcgViTModel and model.config.num_samples == 2500
    assert isinstance(convert_kim_checkpoint(state, **HEADS), EcgJepaForPreTraining)
