"""ECG-CPC against a slow forward pass on a file of the published layout, made from drawn weights.

The kernel of the reference is a Cauchy product at the nodes that the file holds, written out in complex numbers, and
the convolution a loop: nothing of it is ours. The authors' weights are not here: that the real ones come through is
not tested."""

import cmath
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ecg_transformers.hub.convert import convert_file
from ecg_transformers.hub.convert_ecg_cpc import convert_ecg_cpc_checkpoint, stored_kernel
from ecg_transformers.modeling import EcgCpcForPreTraining, EcgCpcModel
from ecg_transformers.train.cli import main

WIDTH, LAYERS, STATE, LENGTH = 16, 2, 8, 60
PREFIX = "ts_encoder.models.0."


def normal_plus_low_rank():
    """HiPPO-LegS as V (diag(w) - P P*) V*, by numpy: eigenvalues of its normal part with a positive imaginary part."""
    order = np.arange(STATE)
    root = np.sqrt(2 * order + 1)
    matrix = -np.tril(np.outer(root, root), -1) - np.diag(order + 1)
    low_rank = np.sqrt(order + 0.5)
    normal = matrix + np.outer(low_rank, low_rank)
    values, vectors = np.linalg.eigh((normal + 0.5 * np.eye(STATE)) * -1j)  # skew plus -1/2
    eigenvalues = -0.5 + 1j * values
    kept = values > 0
    return eigenvalues, vectors, vectors.conj().T @ low_rank, vectors.conj().T @ root, kept, matrix, root


def as_reals(values) -> torch.Tensor:
    return torch.view_as_real(torch.tensor(np.asarray(values), dtype=torch.complex128)).float()


def published_state(head=True, with_q=False, length=LENGTH) -> dict[str, torch.Tensor]:
    """A file's tensors; C~ is drawn as real coefficients and brought into conjugate pairs and to its length."""
    generator, random = torch.Generator().manual_seed(0), np.random.RandomState(0)
    state = {}

    def draw(key, *shape, scale=0.5, shift=0.0):
        state[PREFIX + key] = shift + scale * torch.randn(shape, generator=generator)

    for number in range(4):
        draw(f"encoder.layers.{number}.0.weight", WIDTH, 12 if number == 0 else WIDTH, 3 if number == 0 else 1)
        for name in ("weight", "bias", "running_mean"):
            draw(f"encoder.layers.{number}.1.{name}", WIDTH)
        state[f"{PREFIX}encoder.layers.{number}.1.running_var"] = torch.rand(WIDTH, generator=generator) + 0.5
        state[f"{PREFIX}encoder.layers.{number}.1.num_batches_tracked"] = torch.tensor(7)
    eigenvalues, vectors, low_rank, inputs, kept, matrix, root = normal_plus_low_rank()
    for number in range(LAYERS):
        layer = f"predictor.predictor.s4_layers.{number}."
        kernel = f"{PREFIX}{layer}kernel.kernel."
        draw(layer + "D", 1, WIDTH)
        draw(layer + "output_linear.0.weight", 2 * WIDTH, WIDTH)
        draw(layer + "output_linear.0.bias", 2 * WIDTH, 1)
        for name in ("weight", "bias"):
            draw(f"predictor.predictor.norms.{number}.{name}", WIDTH)
        log_dt = random.uniform(math.log(1e-3), math.log(1e-1), WIDTH).astype(np.float32)
        outputs = []
        for step in np.exp(log_dt.astype(np.float64)):
            left = np.eye(STATE) - step / 2 * matrix
            discrete = np.linalg.solve(left, np.eye(STATE) + step / 2 * matrix)
            truncated = random.randn(STATE) @ (np.eye(STATE) - np.linalg.matrix_power(discrete, length))
            outputs.append((truncated @ vectors)[kept])
        state[kernel + "C"] = as_reals(outputs)[None]
        state[kernel + "log_dt"] = torch.from_numpy(log_dt)
        state[kernel + "B"] = as_reals(inputs[kept])[None]
        state[kernel + "P"] = as_reals(low_rank[kept])[None, None]
        state[kernel + "w"] = as_reals(eigenvalues[kept]).expand(WIDTH, -1, -1).clone()
        if with_q:
            state[kernel + "Q"] = as_reals(low_rank[kept].conj())[None, None]
        nodes = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
        state[kernel + "omega"] = as_reals(nodes)
        state[kernel + "z"] = as_reals(2 * (1 - nodes) / (1 + nodes + 1e-300))
    if head:
        state["head_ssl.proj.0.weight"] = torch.randn(WIDTH, WIDTH, generator=generator)
    return state


def cauchy_kernel(state, number):
    """The taps of a layer's channels, `(WIDTH, LENGTH)`, node by node and pole by pole, by an inverse DFT."""
    start = f"{PREFIX}predictor.predictor.s4_layers.{number}.kernel.kernel."

    def of(name):
        return torch.view_as_complex(state[start + name].double()).reshape(-1, STATE // 2)

    poles, inputs, low_rank, outputs = of("w"), of("B")[0], of("P")[0], of("C")
    kernels = []
    for channel in range(WIDTH):
        step = math.exp(state[start + "log_dt"][channel].double().item())
        values = []
        for node in range(LENGTH):
            omega = cmath.exp(-2j * math.pi * (node + 1e-7) / LENGTH)  # a step aside: z is infinite at -1
            z = 2 * (1 - omega) / (1 + omega)

            def cauchy(first, second, z=z, step=step, channel=channel):
                total = 0
                for pole, x, y in zip(poles[channel].tolist(), first.tolist(), second.tolist(), strict=True):
                    total += x * y / (z - step * pole) + (x * y).conjugate() / (z - step * pole.conjugate())
                return step * total

            right = low_rank.conj()
            around = cauchy(outputs[channel], low_rank) * cauchy(right, inputs) / (1 + cauchy(right, low_rank))
            values.append(2 / (1 + omega) * (cauchy(outputs[channel], inputs) - around))
        taps = [
            sum(value * cmath.exp(2j * math.pi * node * tap / LENGTH) for node, value in enumerate(values)) / LENGTH
            for tap in range(LENGTH)
        ]
        kernels.append([tap.real for tap in taps])
    return torch.tensor(kernels, dtype=torch.float64)


def reference(state, values):
    """z and c, operation by operation."""

    def of(key):
        return state[PREFIX + key].double()

    x = values.double()
    for number in range(4):
        x = F.conv1d(
            x, of(f"encoder.layers.{number}.0.weight"), stride=2 if number == 0 else 1, padding=int(number == 0)
        )
        norm = f"encoder.layers.{number}.1."
        scale = of(norm + "weight") / (of(norm + "running_var") + 1e-5).sqrt()
        x = F.relu((x - of(norm + "running_mean")[:, None]) * scale[:, None] + of(norm + "bias")[:, None])
    embeddings = x
    for number in range(LAYERS):
        layer = f"predictor.predictor.s4_layers.{number}."
        kernel, y = cauchy_kernel(state, number), x * of(layer + "D").reshape(-1, 1)
        for token in range(x.shape[-1]):
            for lag in range(token + 1):
                y[..., token] += kernel[:, lag] * x[..., token - lag]
        y = F.gelu(y)
        y = of(layer + "output_linear.0.weight") @ y + of(layer + "output_linear.0.bias")
        x = x + y[:, :WIDTH] * y[:, WIDTH:].sigmoid()
        norm = f"predictor.predictor.norms.{number}."
        x = F.layer_norm(x.transpose(1, 2), (WIDTH,), of(norm + "weight"), of(norm + "bias")).transpose(1, 2)
    return embeddings.transpose(1, 2), x.transpose(1, 2)


@pytest.fixture(scope="module")
def state():
    return published_state()


def recordings():
    return torch.randn(2, 12, 2 * LENGTH, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_tokens_and_hidden_states_are_those_of_the_published_structure(state):
    model = convert_ecg_cpc_checkpoint({"state_dict": dict(state), "epoch": 10})
    assert type(model) is EcgCpcForPreTraining
    embeddings, contexts = reference(state, recordings())
    output = model.ecg_vit(recordings())
    torch.testing.assert_close(output.token_embeddings.double(), embeddings, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.last_hidden_state.double(), contexts, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.prediction.weight, state["head_ssl.proj.0.weight"])


def test_the_stored_kernel_is_the_naive_one(state):
    start = PREFIX + "predictor.predictor.s4_layers.0.kernel.kernel."
    kernel = {name: state.get(start + name) for name in ("C", "log_dt", "B", "P", "Q", "w", "omega")}
    torch.testing.assert_close(stored_kernel(kernel), cauchy_kernel(state, 0), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_stored_length_or_q_changes_nothing():
    expected = convert_ecg_cpc_checkpoint(published_state()).ecg_vit(recordings()).pooler_output
    for other in (published_state(length=2 * LENGTH), published_state(with_q=True)):
        found = convert_ecg_cpc_checkpoint(other).ecg_vit(recordings()).pooler_output
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_file_without_the_head_is_an_encoder():
    assert type(convert_ecg_cpc_checkpoint(published_state(head=False))) is EcgCpcModel


def test_the_published_size_comes_out_of_the_shapes(state):
    config = convert_ecg_cpc_checkpoint(dict(state), sampling_rate=200).config
    assert (config.hidden_size, config.num_hidden_layers, config.num_stem_layers) == (WIDTH, LAYERS, 4)
    assert (config.state_size, config.sampling_rate, config.num_samples, config.patch_size) == (8, 200, 500, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(PREFIX + "encoder.layers.0.0.weight"), "This is no ECG-CPC checkpoint"),
        (lambda state: state.pop(PREFIX + "encoder.layers.2.1.bias"), r"Missing keys: \['encoder.layers.2.1.bias'\]"),
        (lambda state: state.pop(PREFIX + "predictor.predictor.s4_layers.1.kernel.kernel.P"), r"Missing of .*\['P'\]"),
        (lambda state: state.update({"criterion.weight": torch.ones(1)}), "Unexpected keys: .*criterion"),
        (lambda state: state.update({PREFIX + "x": torch.ones(1)}), "Unexpected keys: .*'x'"),
        (lambda state: state.update({PREFIX + "encoder.layers.0.0.weight": torch.ones(16, 12, 5)}), "Expected 3 taps"),
        (
            lambda state: state[PREFIX + "predictor.predictor.s4_layers.1.kernel.kernel.w"].mul_(1.01),
            "kernels of layer 1 are not those of a HiPPO-LegS state of 8",
        ),
        (
            lambda state: state[PREFIX + "predictor.predictor.s4_layers.0.kernel.kernel.C"].fill_(float("nan")),
            "A kernel of layer 0 is not finite",
        ),
    ],
)
def test_a_file_of_another_model_is_refused(change, message):
    state = published_state()
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_ecg_cpc_checkpoint(state)


@pytest.fixture
def checkpoint(omegaconf, tmp_path):
    """A Lightning file, whose settings are objects of omegaconf that complain if any code of theirs runs."""
    file = {
        "state_dict": published_state(),
        "hyper_parameters": omegaconf({"model": {"width": 512}, "leads": ["I"], "lr": 1e-3}),
        "epoch": 10,
        "global_step": 1000,
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0), "best": np.float64(0.5)}},
        "optimizer_states": [],
    }
    torch.save(file, tmp_path / "cpc_e10.ckpt")
    return str(tmp_path / "cpc_e10.ckpt")


def test_a_lightning_file_with_objects_is_read_without_running_any(checkpoint):
    model, extractor = convert_file("ecg-cpc", checkpoint)
    assert type(model) is EcgCpcForPreTraining
    assert (extractor.sampling_rate, extractor.num_samples, extractor.normalization) == (240, 600, None)
    assert len(extractor.leads) == 12 and extractor.unit == "mV"


def test_the_command_writes_a_folder_with_a_card(checkpoint, tmp_path):
    command = ["convert", "--source", "ecg-cpc", "--checkpoint", checkpoint]
    assert main([*command, "--output_dir", str(tmp_path / "model")]) == 0
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "ecg_cpc"
    assert "ECG-CPC" in (tmp_path / "model" / "README.md").read_text()
