"""Two gloo processes on CPU against one process with the whole batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")


def run(settings, num_processes):
    launcher = []
    if num_processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    command = [sys.executable, *launcher, str(SCRIPT), json.dumps(settings)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return Path(settings["output_dir"])


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"gradient_accumulation_steps": 3}, marks=pytest.mark.slow),
        pytest.param(
            {"target_normalization": "position", "variance_weight": 0.5, "covariance_weight": 0.5, "num_samples": 500}
            # Adam would turn the rounding noise of a vanishing gradient into a whole step.
            | {"long_records": "all", "random_windows": True, "patch_size": 50, "optim": "sgd", "learning_rate": 0.1},
            marks=pytest.mark.slow,
            id="statistics of the batch",
        ),
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_two_processes_train_as_one_with_the_whole_batch(tmp_path, tiny_run, settings):
    settings = tiny_run | {"max_steps": 4} | settings
    one = run(settings | {"output_dir": str(tmp_path / "one"), "per_device_train_batch_size": 4}, 1)
    two = run(
        settings | {"output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 2, "ddp_backend": "gloo"}, 2
    )

    first, second = (load_file(two / f"weights_{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = json.loads((two / "losses_0.json").read_text())
    assert losses == pytest.approx(json.loads((one / "losses_0.json").read_text()), abs=1e-5)
    for name, tensor in load_file(one / "weights_0.safetensors").items():
        torch.testing.assert_close(first[name], tensor, atol=1e-5, rtol=0, msg=name)
