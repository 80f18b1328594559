import pytest
import torch
from transformers import AutoModelForTokenClassification

from ecg_transformers import modeling
from ecg_transformers.modeling import (
    METHODS,
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgJepaForTokenClassification,
    EcgViTConfig,
    EcgViTForTokenClassification,
    KernelResponseConfig,
)
from ecg_transformers.modeling.configuration_st_mem import MlaeConfig
from ecg_transformers.modeling.remote_code import auto_map_of

TINY = {"leads": ("I", "II", "V1"), "sampling_rate": 50, "num_samples": 40, "patch_size": 10, "hidden_size": 16}
TINY |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 4}


def model_of(**fields) -> EcgViTForTokenClassification:
    torch.manual_seed(0)
    return EcgViTForTokenClassification(EcgViTConfig(**TINY | fields)).eval()


def signals(num_leads: int = 3) -> torch.Tensor:
    return torch.randn(2, num_leads, 40, generator=torch.Generator().manual_seed(1))


def random_labels(num_leads: int = 3) -> torch.Tensor:
    return torch.randint(-1, 4, (2, num_leads, 40), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
@pytest.mark.parametrize("num_registers", [0, 2])
def test_the_logits_of_a_sample_are_those_of_its_token(patching, num_registers):
    model = model_of(patching=patching, num_registers=num_registers)
    outputs = model(signals())
    assert outputs.logits.shape == (2, 3, 40, 4)
    tokens = model.ecg_vit(signals()).last_hidden_state[:, num_registers:]
    weight, bias = model.token_classifier.weight, model.token_classifier.bias
    for lead, sample, label in ((0, 0, 0), (1, 17, 3), (2, 39, 2)):
        column, place = divmod(sample, 10)
        token = tokens[:, 4 * lead + column] if patching == "per_lead" else tokens[:, column]
        row = (place if patching == "per_lead" else 10 * lead + place) * 4 + label
        torch.testing.assert_close(outputs.logits[:, lead, sample, label], token @ weight[row] + bias[row])


@pytest.mark.parametrize("absent", [False, True])
def test_the_loss_is_the_mean_over_annotated_samples_of_present_leads(absent):
    lead_mask = torch.tensor([[True, True, True], [True, not absent, True]])
    labels = random_labels()
    model = model_of()
    with torch.no_grad():
        outputs = model(signals(), labels=labels, lead_mask=lead_mask)
    total, count = 0.0, 0
    for record in range(2):
        for lead in range(3):
            for sample in range(40):
                label = int(labels[record, lead, sample])
                if label >= 0 and lead_mask[record, lead]:
                    total -= float(outputs.logits[record, lead, sample].log_softmax(-1)[label])
                    count += 1
    assert float(outputs.loss) == pytest.approx(total / count, rel=1e-5)
    ignored = torch.where(labels < 0, -100, labels)
    assert torch.equal(model(signals(), labels=ignored, lead_mask=lead_mask).loss, outputs.loss)


def test_a_batch_without_any_annotation_costs_nothing():
    loss = model_of()(signals(), labels=torch.full((2, 3, 40), -100)).loss
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
def test_leads_may_come_in_another_order_or_be_fewer(patching):
    model, values = model_of(patching=patching), signals()
    swapped = model(values[:, [2, 0, 1]], leads=["V1", "I", "II"]).logits
    torch.testing.assert_close(swapped, model(values).logits[:, [2, 0, 1]])
    mask = torch.tensor([[True, False, True]]).expand(2, -1)
    fewer = model(values[:, [0, 2]], leads=["I", "V1"]).logits
    torch.testing.assert_close(fewer, model(values, lead_mask=mask).logits[:, [0, 2]])


def test_labels_of_another_shape_are_refused():
    of_more_rows = model_of(extra_channels=1)  # which have no logits
    assert of_more_rows(signals(4), labels=random_labels()).logits.shape == (2, 3, 40, 4)
    with pytest.raises(ValueError, match=r"Expected labels of shape \(2, 3, 40\), got \(2, 40\)"):
        model_of()(signals(), labels=torch.zeros(2, 40, dtype=torch.long))


def test_ten_steps_lower_the_loss_and_reach_every_parameter(losses_of_ten_steps):
    model = model_of(patching="all_leads").train()
    losses = losses_of_ten_steps(model, 3e-3, signals(), labels=random_labels())
    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_pretrained_encoder_gets_a_head_and_comes_back_with_it(tmp_path):
    predictor = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    predictor = {f"predictor_{name}": value for name, value in predictor.items()}
    config = EcgJepaConfig(**TINY, **predictor, mask_type="random", mask_ratio=(0.4, 0.6))
    pretrained = EcgJepaForPreTraining(config)
    pretrained.save_pretrained(tmp_path / "pretrained")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "pretrained", num_labels=4).eval()
    assert isinstance(model, EcgJepaForTokenClassification)
    assert torch.equal(model.ecg_vit.layers[0].mlp.fc1.weight, pretrained.ecg_vit.layers[0].mlp.fc1.weight)
    model.save_pretrained(tmp_path / "delineator")
    again = AutoModelForTokenClassification.from_pretrained(tmp_path / "delineator").eval()
    assert torch.equal(again(signals()).logits, model(signals()).logits)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_head(method):
    torch.manual_seed(0)
    fields = dict(TINY)
    config_class = getattr(modeling, f"{method}Config")
    if config_class is EcgJepaConfig:
        fields |= {"mask_type": "random", "mask_ratio": (0.4, 0.6)}
    if method == "EcgS4Jepa":
        fields |= {"mask_ratio": (0.3, 0.6), "num_mask_blocks": 1}
    if config_class is MlaeConfig:  # a token is a whole lead
        fields["patch_size"] = 40
    if config_class is KernelResponseConfig:
        fields |= {"stem_widths": (8, 16), "stem_strides": (5, 2), "view_samples": 40}
    model = AutoModelForTokenClassification.from_config(config_class(**fields))
    outputs = model(signals(), labels=random_labels())
    assert outputs.logits.shape == (2, 3, 40, 4) and outputs.loss > 0
    assert auto_map_of(config_class)["AutoModelForTokenClassification"].endswith(f".{type(model).__name__}")
