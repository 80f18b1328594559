"""Two processes on CPU against one process with the whole batch, started as docs/pretrain.md says."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ecg_transformers.train import SslTrainingArguments, configs
from ecg_transformers.train.settings import MODEL_TYPES, parse_flags, read_config, training_arguments

PAGE = Path(__file__).parents[2] / "docs" / "pretrain.md"
SCRIPT = Path(__file__).with_name("two_processes.py")


def run(num_processes, *settings):
    launcher = []
    if num_processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    command = [sys.executable, *launcher, str(SCRIPT), json.dumps(settings)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return Path(settings[-1]["output_dir"])


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
    one = run(1, settings | {"output_dir": str(tmp_path / "one"), "per_device_train_batch_size": 4})
    two = run(2, settings | {"output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 2})

    first, second = (load_file(two / f"weights_{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = json.loads((two / "losses_0.json").read_text())
    assert losses == pytest.approx(json.loads((one / "losses_0.json").read_text()), abs=1e-5)
    assert_as_near_as_sums(first, load_file(one / "weights_0.safetensors"))


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
    assert expected.keys() == weights.keys()
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


SLURM = {
    "scontrol": "#!/bin/sh\necho localhost\n",
    "srun": '#!/bin/sh\nfor node in 0 1; do SLURM_NNODES=2 SLURM_NODEID=$node "$@" & nodes="$nodes $!"; done\n'
    "for node in $nodes; do wait $node || exit 1; done\n",
}


@pytest.mark.slow
def test_the_script_of_the_page_trains_two_machines_as_one_process(tmp_path, tiny_yaml):
    """Both machines are this one, each with an agent of torchrun and a process."""
    for name, script in SLURM.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    (script,) = re.findall(r"^```bash\n(#!/bin/bash\n#SBATCH --nodes=2 .*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    flags = ["--config", tiny_yaml, "--max_steps", "3", "--use_cpu", "true"]
    here = ["--per_device_train_batch_size", "2", "--output_dir", str(tmp_path / "two")]
    for stated, changed in {
        "--nproc_per_node=8": "--nproc_per_node=1",
        "29500": str(port),
        "pretrain ...": shlex.join(["pretrain", *flags, *here]),
    }.items():
        assert script.count(stated) == 1
        script = script.replace(stated, changed)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    finished = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=300, env=os.environ | {"PATH": path}
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    alone = ["--per_device_train_batch_size", "4", "--output_dir", str(tmp_path / "one")]
    expected = train(command_of_the_page(1, *flags, *alone), tmp_path / "one")
    assert_as_near_as_sums(load_file(tmp_path / "two" / "model.safetensors"), expected)
    assert "| Batch (recordings) | 4 |" in (tmp_path / "two" / "README.md").read_text()


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


@pytest.mark.slow
def test_fsdp2_trains_every_objective_as_one_process_does_and_resumes_it_bit_for_bit(tmp_path):
    """The presets for CPUs: EMA teachers, statistics by position, SIGReg, codebooks, fitted targets, batch norms."""
    few_steps = {"max_steps": 3, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2, "use_cpu": True}
    # With a small epsilon Adam would turn the rounding noise of a vanishing gradient into a whole step.
    few_steps |= {"adam_epsilon": 0.1, "learning_rate": 0.02, "lr_scheduler_type": "constant", "warmup_steps": 0}
    runs = {}
    for path in sorted(Path(configs.__path__[0]).glob("*_cpu.yaml")):
        settings = read_config(path.stem)
        changes = {"dropout": 0.0, "ema_start": 0.5}  # each process draws its own dropout
        runs[path.stem] = settings | few_steps | {name: changes[name] for name in changes if name in settings}
    assert {settings["model_type"] for settings in runs.values()} == set(MODEL_TYPES)

    def placed(folder, num_processes, **changes):
        changes |= {"per_device_train_batch_size": 8 // num_processes, "max_grad_norm": 1.0}
        return [settings | changes | {"output_dir": str(tmp_path / folder / name)} for name, settings in runs.items()]

    fsdp = {"fsdp": True}
    resumed = [
        settings | {"resume_from_checkpoint": str(tmp_path / "two" / name / "checkpoint-2")}
        for name, settings in zip(runs, placed("resumed", 2, **fsdp), strict=True)
    ]
    run(1, *placed("one", 1))
    run(2, *placed("two", 2, **fsdp), *resumed)
    for name in runs:
        expected, weights, again = (
            load_file(tmp_path / kind / name / "model.safetensors") for kind in ("one", "two", "resumed")
        )
        assert_as_near_as_sums(weights, expected)
        assert all(torch.equal(again[key], tensor) for key, tensor in weights.items()), name
        losses = [json.loads((tmp_path / kind / name / "losses_0.json").read_text()) for kind in ("one", "two")]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5), name


@pytest.mark.parametrize("settings", [{"fsdp": True}, parse_flags(["--fsdp"]), parse_flags(["--fsdp", "true"])])
def test_fsdp_without_gpus_is_refused(tmp_path, settings):
    with pytest.raises(ValueError, match=r"divides a model among the GPUs .* Leave out fsdp \(--fsdp\)"):
        training_arguments(settings | {"output_dir": str(tmp_path), "use_cpu": True})
    assert not training_arguments({"fsdp": False, "output_dir": str(tmp_path), "use_cpu": True}).fsdp


def test_processes_that_would_train_alone_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started .* each would train alone.*--use_cpu true"):
        SslTrainingArguments(str(tmp_path))


@pytest.mark.slow
def test_torchrun_without_the_flag_is_refused_on_cpus(tmp_path, tiny_run):
    settings = {name: value for name, value in tiny_run.items() if name != "use_cpu"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    command = [sys.executable, *launcher, json.dumps([settings | {"output_dir": str(tmp_path / "run")}])]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode != 0 and "each would train alone" in finished.stderr
