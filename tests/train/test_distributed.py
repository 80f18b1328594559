"""Two processes on CPU against one process with the whole batch, started as docs/pretrain.md says."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ecg_transformers.train import SslTrainingArguments

PAGE = Path(__file__).parents[2] / "docs" / "pretrain.md"
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
    two = run(settings | {"output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 2}, 2)

    first, second = (load_file(two / f"weights_{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = json.loads((two / "losses_0.json").read_text())
    assert losses == pytest.approx(json.loads((one / "losses_0.json").read_text()), abs=1e-5)
    for name, tensor in load_file(one / "weights_0.safetensors").items():
        torch.testing.assert_close(first[name], tensor, atol=1e-5, rtol=0, msg=name)


def command_of_the_page(num_processes, *flags):
    """The command that docs/pretrain.md gives for CPUs, by this interpreter."""
    page = PAGE.read_text(encoding="utf-8")
    stated = re.search(r"^torchrun (.*) (-m ecg_transformers\S+) pretrain \.\.\. (--use_cpu true)$", page, re.M)
    launcher = shlex.split(re.sub(r"nproc_per_node=\d+", f"nproc_per_node={num_processes}", stated[1]))
    start = [sys.executable, "-m", "torch.distributed.run", *launcher, *shlex.split(stated[2]), "pretrain"]
    return [*start, *flags, *shlex.split(stated[3])]


def train(command, folder):
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return load_file(folder / "model.safetensors")


def assert_as_near_as_sums(weights, expected):
    """Sums of float32 in another order, through some steps of Adam."""
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-5, rtol=0, msg=name)


@pytest.mark.slow
def test_the_command_of_the_page_trains_two_processes_as_one(tmp_path, tiny_yaml):
    weights = {}
    for num_processes, batch in ((1, 4), (2, 2)):
        folder = tmp_path / str(num_processes)
        flags = ["--config", tiny_yaml, "--max_steps", "3", "--per_device_train_batch_size", str(batch)]
        weights[num_processes] = train(command_of_the_page(num_processes, *flags, "--output_dir", str(folder)), folder)
        assert "| Batch (recordings) | 4 |" in (folder / "README.md").read_text()
    assert_as_near_as_sums(weights[2], weights[1])


@pytest.mark.slow
@pytest.mark.parametrize(("num_before", "num_after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_ends_where_the_run_would_have(tmp_path, tiny_yaml, num_before, num_after):
    """Masks, windows and the order of records, in the second epoch too, are those of the uninterrupted run."""

    def flags(num_processes, folder):
        batch = ["--per_device_train_batch_size", str(48 // num_processes), "--dataloader_drop_last", "true"]
        drawn = ["--mask_type", "segments", "--num_samples", "500", "--patch_size", "50", "--random_windows", "true"]
        saved = ["--max_steps", "9", "--save_strategy", "steps", "--save_steps", "3", "--output_dir", str(folder)]
        return ["--config", tiny_yaml, "--long_records", "all", *batch, *drawn, *saved]

    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    expected = train(command_of_the_page(num_before, *flags(num_before, straight)), straight)
    resume = ["--resume_from_checkpoint", str(straight / "checkpoint-3")]
    weights = train(command_of_the_page(num_after, *flags(num_after, resumed), *resume), resumed)
    then, now = (json.loads((folder / "trainer_state.json").read_text()) for folder in (straight, resumed))
    assert now["epoch"] == then["epoch"] > 1
    assert now["log_history"][:3] == then["log_history"][:3]  # it has gone on and not begun anew
    assert not (resumed / "checkpoint-3").exists() and (resumed / "checkpoint-6").exists()
    assert_as_near_as_sums(weights, expected)


@pytest.mark.slow
def test_two_processes_save_together_on_sigterm_and_go_on(tmp_path, tiny_yaml):
    folder = tmp_path / "run"
    flags = ["--config", tiny_yaml, "--max_steps", "2000", "--resume_from_checkpoint", "last"]
    flags += ["--save_strategy", "steps", "--save_steps", "20", "--save_total_limit", "2"]
    command = command_of_the_page(2, *flags, "--output_dir", str(folder))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (folder / "checkpoint-20" / "checkpoint.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    stopped = re.findall(r"Ended by SIGTERM at step (\d+) of 2000", errors)
    assert len(stopped) == 2 and stopped[0] == stopped[1], errors[-3000:]
    checkpoint = folder / f"checkpoint-{stopped[0]}"
    assert {"rng_state_0.pth", "rng_state_1.pth", "checkpoint.json"} <= set(os.listdir(checkpoint))
    assert not (folder / "model.safetensors").exists()


def test_processes_that_would_train_alone_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started .* each would train alone.*--use_cpu true"):
        SslTrainingArguments(str(tmp_path))


@pytest.mark.slow
def test_torchrun_without_the_flag_is_refused_on_cpus(tmp_path, tiny_run):
    settings = {name: value for name, value in tiny_run.items() if name != "use_cpu"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    command = [sys.executable, *launcher, json.dumps(settings | {"output_dir": str(tmp_path / "run")})]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode != 0 and "each would train alone" in finished.stderr
