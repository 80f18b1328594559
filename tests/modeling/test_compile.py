"""Every pretraining step as one graph: what `torch.compile(fullgraph=True)` gives is what eager execution gives.

No step waits for an answer of its device, and `torch.func` differentiates encoders by record."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from .tiny_methods import METHODS, make, step_inputs


def step(model, compiled, values, number: int):
    """Loss and gradients of a training step whose draws are those of step `number`."""
    inputs = step_inputs(model, values, number)
    model.zero_grad()
    loss = compiled(**inputs).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equals_eager(name: str, backend, numbers) -> None:
    torch._dynamo.reset()
    batch = 8  # gradients through norms over a batch of fewer records are so large that rounding alone parts them
    model, values = make(name, batch)
    other, _ = make(name, batch)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for number in numbers:
        loss, gradients = step(model, compiled, values, number)
        expected_loss, expected = step(other, other, values, number)
        torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=1e-5)
        assert gradients.keys() == expected.keys() and expected
        for key in expected:
            torch.testing.assert_close(gradients[key], expected[key], atol=1e-5, rtol=1e-4, msg=key)


# Their graphs are made of parts of the others; that of kim is compiled below.
ONCE_MORE = {"kim", "weimann", "sigreg_jepa", "mtae", "mlae", "ecg_s4_jepa"} | {
    name for name in METHODS if "," in name
}


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
    model, values = make(name, batch=8)
    drawn = [step_inputs(model, values, number)["visible_patches"].shape[1] for number in range(5)]
    assert len(set(drawn)) >= 3, drawn
    assert_equals_eager(name, counter, range(5))
    assert counter.frame_count <= 2


# Other sums part gradients that are zero but for rounding, as of biases before a batch norm, beside those of size 1.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name != "lejepa, per lead"])
def test_inductor_gives_the_loss_and_gradients_of_eager_execution(name):
    assert_equals_eager(name, "inductor", range(3))


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
    inputs = {key: tensor.to("meta") for key, tensor in step_inputs(model, values).items()}
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
