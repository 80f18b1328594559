"""Every pretraining step as one graph: what `torch.compile(fullgraph=True)` gives is what eager execution gives.

No step waits for an answer of its device, and `torch.func` differentiates encoders by record."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from ecg_transformers import modeling
from ecg_transformers.modeling.masking import DrawKeys

BATCH = 4
INPUT = {"leads": ("I", "II", "V1"), "sampling_rate": 100, "num_samples": 200, "patch_size": 20}
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VIT = INPUT | WIDTHS
PREDICTOR = {
    "predictor_hidden_size": 8,
    "predictor_num_hidden_layers": 1,
    "predictor_num_attention_heads": 2,
    "predictor_intermediate_size": 16,
}
DECODER = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
}
PROJECTOR = {"projector_hidden_size": 8, "projection_size": 4, "num_slices": 8}
# With the published weight of 20 gradients are of size 50, and rounding alone moves them by more than is allowed here.
LOSS_OF_ONE = {"sigreg_weight": 0.5}
SEGMENTS = {"mask_type": "segments", "mask_ratio": (0.3, 0.8), "min_segment_patches": 2}
S4 = {"leads": ("I", "II", "V1"), "num_samples": 120, "patch_size": 2, "hidden_size": 16, "num_hidden_layers": 1}
S4 |= {"num_attention_heads": 2, "dropout": 0.0}
CONV = {
    "leads": ("I", "II", "V1"),
    "num_samples": 200,
    "stem_widths": (8, 16),
    "stem_depths": (1, 1),
    "hidden_size": 16,
    "view_samples": 96,
    "num_kernels": 12,
    "target_size": 5,
    "fitting_records": 12,
}
METHODS = {
    "kim": ("EcgJepa", VIT | PREDICTOR | {"mask_type": "random", "mask_ratio": (0.2, 0.8), "drop_path_rate": 0.0}),
    "kim, multi-block": (
        "EcgJepa",
        VIT | PREDICTOR | {"mask_type": "multi_block", "mask_ratio": (0.1, 0.3), "drop_path_rate": 0.0},
    ),
    "weimann": (
        "EcgJepa",
        VIT
        | PREDICTOR
        | SEGMENTS
        | {"patching": "all_leads", "evaluated_encoder": "teacher", "num_registers": 1, "attention_pattern": "full"},
    ),
    "sigreg_jepa": ("SigRegJepa", VIT | PREDICTOR | PROJECTOR | SEGMENTS | {"token_sigreg_weight": 0.1}),
    "lejepa": ("LeJepa", VIT | PROJECTOR | {"num_views": 2}),
    "st_mem": ("StMem", VIT | DECODER | {"head_dim": 4}),
    "mtae": ("Mtae", VIT | DECODER | {"head_dim": 4}),
    "mlae": ("Mlae", VIT | DECODER | {"patch_size": None, "head_dim": 4, "mask_ratio": 0.5}),
    "vqvae": ("EcgVqVae", VIT | DECODER | {"latent_size": 8, "num_codes": 8}),
    "ecg_cpc": ("EcgCpc", S4 | {"num_negatives": 3, "horizon_ms": 40}),
    "lenepa": ("EcgLeNepa", VIT | PROJECTOR | LOSS_OF_ONE),
    "lenepa, state spaces": ("EcgLeNepa", VIT | PROJECTOR | LOSS_OF_ONE | {"trunk": "s4"}),
    "ecg_s4_jepa": ("EcgS4Jepa", S4 | {"predictor_state_size": 4}),
    "kernel_response": ("KernelResponse", CONV | {"variance_weight": 0.5, "projector_hidden_size": 8}),
}


def make(name: str):
    family, fields = METHODS[name]
    torch.manual_seed(0)
    config = getattr(modeling, f"{family}Config")(**fields)
    model = getattr(modeling, f"{family}ForPreTraining")(config).train()
    values = torch.randn(BATCH, len(config.leads), config.num_samples, generator=torch.Generator().manual_seed(1))
    if model.needs_fitting:
        model.fit_targets([{"input_values": torch.randn(12, *values.shape[1:])}])
    return model, values


def step(model, compiled, values, number: int):
    """Loss and gradients of a training step whose draws are those of step `number`."""
    inputs = model.step_inputs({"input_values": values}, DrawKeys(0, number, number, tuple(range(len(values)))))
    model.zero_grad()
    loss = compiled(**inputs).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equals_eager(name: str, backend, numbers) -> None:
    torch._dynamo.reset()
    model, values = make(name)
    other, _ = make(name)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for number in numbers:
        loss, gradients = step(model, compiled, values, number)
        expected_loss, expected = step(other, other, values, number)
        torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=1e-5)
        assert gradients.keys() == expected.keys() and expected
        for key in expected:
            torch.testing.assert_close(gradients[key], expected[key], atol=1e-5, rtol=1e-4, msg=key)


# Their graphs differ little from those of others; that of kim is compiled below.
ONCE_MORE = ("kim", "kim, multi-block", "weimann", "mtae", "mlae", "lenepa, state spaces")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ONCE_MORE)) for name in METHODS]
)
def test_a_pretraining_step_is_one_graph_with_the_loss_and_gradients_of_eager_execution(name):
    assert_equals_eager(name, "eager", [1])


@pytest.mark.parametrize(
    "name",
    ["kim", *(pytest.param(name, marks=pytest.mark.slow) for name in ("kim, multi-block", "weimann", "sigreg_jepa"))],
)
def test_other_numbers_of_visible_patches_are_compiled_once_more_at_the_most(name):
    counter = CompileCounterWithBackend("eager")
    model, values = make(name)
    drawn = [
        model.draw_inputs(values, DrawKeys(0, number, number, tuple(range(BATCH))))["visible_patches"].shape[1]
        for number in range(5)
    ]
    assert len(set(drawn)) >= 3, drawn
    assert_equals_eager(name, counter, range(5))
    assert counter.frame_count <= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_inductor_gives_the_loss_and_gradients_of_eager_execution(name):
    assert_equals_eager(name, "inductor", range(3))


# --- no host reads ------------------------------------------------------------------------------------------------


class PageableCopies(TorchDispatchMode):
    """Counts copies between the host and the device of a step."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        given = [tensor.device.type for tensor in args if isinstance(tensor, torch.Tensor)]
        if isinstance(output, torch.Tensor) and given and set(given) == {"cpu"} and output.device.type == "meta":
            self.operations.append(str(function))
        return output


@pytest.mark.parametrize("name", METHODS)
def test_a_step_asks_a_device_nothing_and_copies_nothing_to_it_but_what_was_drawn(name):
    """On the meta device, which has no values: `.item()`, `tolist`, `nonzero`, indexing by booleans and branches on
    tensors all raise there."""
    model, values = make(name)
    inputs = model.step_inputs({"input_values": values}, DrawKeys(0, 1, 1, tuple(range(BATCH))))
    inputs = {key: tensor.to("meta") for key, tensor in inputs.items()}
    model.to("meta")
    with PageableCopies() as copies:
        model(**inputs).loss.backward()
        if model.has_teacher:
            model.update_teacher(0.99)
    assert not copies.operations


@pytest.mark.parametrize("name", ["kim", "st_mem", "vqvae", "ecg_cpc", "lenepa", "ecg_s4_jepa", "kernel_response"])
def test_torch_func_gives_the_gradients_of_each_record(name):
    model, values = make(name)
    encoder, values = getattr(model, model.base_model_prefix).double().eval(), values.double()
    parameters = {key: parameter for key, parameter in encoder.named_parameters() if parameter.requires_grad}

    def loss(parameters, values):
        return torch.func.functional_call(encoder, parameters, (values,)).last_hidden_state.square().sum()

    by_record = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, values[:, None])
    loss(parameters, values).backward()
    for key, parameter in parameters.items():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(by_record[key].sum(dim=0), expected, atol=1e-9, rtol=1e-9, msg=key)
