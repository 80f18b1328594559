"""Runs that are killed (SIGKILL) again and again, wherever they are, end bit for bit where untouched ones do."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from ecg_transformers.data.prepare import FEWEST_SHARD_RECORDS
from ecg_transformers.train.run_folder import checkpoints_of, find_damage

from .conftest import TINY_RUN, tiny_encoder

pytestmark = pytest.mark.slow

CLI = [sys.executable, "-m", "ecg_transformers.train.cli"]
NUM_KILLS = 4
RECORDS = Path(__file__).parents[1] / "fixtures" / "wfdb" / "ptb-xl" / "records100"


def start(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [*CLI, *map(str, arguments)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(*arguments):
    process = start(*arguments)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-2000:]


def kill_and_finish(arguments, has_begun, at_least_kills=1):
    """Starts a command again and again; each time it is killed a random while after it has begun to write."""
    draws, killed = random.Random(0), 0
    for _ in range(NUM_KILLS):
        process, deadline = start(*arguments), time.monotonic() + 200
        before = has_begun()
        while has_begun() == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draws.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= at_least_kills
    finish(*arguments)


def newest(folder):
    """Something that changes whenever a run writes into its folder."""
    return sorted(path.name for path in folder.glob("checkpoint-*/*")) if folder.is_dir() else []


def assert_same_weights(first, second):
    expected, found = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert expected.keys() == found.keys()
    assert all((expected[name] == found[name]).all() for name in expected)


def test_a_pretraining_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY_RUN))
    command = ["pretrain", "--config", tmp_path / "tiny.yaml", "--max_steps", "80", "--save_strategy", "steps"]
    command += ["--save_steps", "4", "--save_total_limit", "3", "--resume_from_checkpoint", "last", "--output_dir"]
    finish(*command, tmp_path / "straight")
    folder = tmp_path / "killed"
    kill_and_finish([*command, folder], lambda: newest(folder))
    assert_same_weights(tmp_path / "straight", folder)
    assert [find_damage(checkpoint) for checkpoint in checkpoints_of(folder)][-1] is None


def test_a_fine_tuning_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    tiny_encoder(tmp_path / "encoder", leads=["I", "II"], num_samples=1000)
    command = ["finetune", "--model", tmp_path / "encoder", "--config", "finetune_cpu", "--max_steps", "40"]
    command += ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "4", "--eval_steps", "4"]
    command += ["--warmup_steps", "0", "--use_cpu", "true", "--resume_from_checkpoint", "last", "--output_dir"]
    finish(*command, tmp_path / "straight")
    folder = tmp_path / "killed"
    kill_and_finish([*command, folder], lambda: newest(folder))
    assert_same_weights(tmp_path / "straight", folder)
    scores = [json.loads((path / "metrics.json").read_text())["test"] for path in (tmp_path / "straight", folder)]
    assert scores[0]["macro_auroc"] == scores[1]["macro_auroc"]


def test_a_preparation_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    (tmp_path / "records").mkdir()
    header = sorted(RECORDS.glob("**/*.hea"))[0]
    for number in range(48 * FEWEST_SHARD_RECORDS):
        text = header.read_text().replace(header.stem, f"r{number:04d}")
        (tmp_path / "records" / f"r{number:04d}.hea").write_text(text)
        shutil.copy(header.with_suffix(".dat"), tmp_path / "records" / f"r{number:04d}.dat")
    command = ["prepare", "--dataset", "wfdb", "--data_dir", tmp_path / "records", "--output_dir"]
    finish(*command, tmp_path / "straight")
    folder = tmp_path / "killed"
    kill_and_finish([*command, folder], lambda: sorted(path.name for path in folder.glob("**/*")))
    contents = [
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "straight", folder)
    ]
    assert contents[0].keys() == contents[1].keys() and len(contents[0]) > 48
    different = [name for name in contents[0] if contents[0][name] != contents[1][name]]
    assert not different
