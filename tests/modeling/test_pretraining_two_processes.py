"""Two gloo processes with unequal parts of a batch against one process with the whole batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("pretraining_two_processes.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process and each of two write."""
    written = []
    for num_processes in (1, 2):
        folder = tmp_path_factory.mktemp("ranks")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"] if num_processes > 1 else []
        command = [sys.executable, *launcher, str(SCRIPT), str(folder)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 0, finished.stderr[-3000:]
        written += [load_file(folder / f"{rank}.safetensors") for rank in range(num_processes)]
    return written


def of(runs, prefix):
    one, first, second = ({key: run[key] for key in run if key.startswith(prefix + ".")} for run in runs)
    assert one.keys() == first.keys() == second.keys() and one
    return one, first, second


def test_sigreg_of_two_processes_is_that_of_one(runs):
    one, first, second = of(runs, "sigreg")
    for key, expected in one.items():
        torch.testing.assert_close(first[key], expected, atol=1e-6, rtol=1e-6, msg=key)
        assert torch.equal(first[key], second[key]), key


@pytest.mark.parametrize(
    "name",
    ["lejepa", "lejepa, pooled", "sigreg_jepa", "kernel_response", "lenepa", "lenepa, state spaces"]
    + ["ecg_cpc", "ecg_s4_jepa"],
)
def test_losses_gradients_and_batch_norms_of_two_processes_are_those_of_one(runs, name):
    one, first, second = of(runs, name)
    assert any("buffer" in key for key in one)
    for key, expected in one.items():
        torch.testing.assert_close(first[key], expected, atol=1e-6, rtol=1e-6, msg=key)
        assert torch.equal(first[key], second[key]), key
