"""Started by torchrun or alone: trains tiny runs and writes each rank's weights and losses beside their output.

Usage: two_processes.py SETTINGS, a list of runs as JSON. With `fsdp` in their settings they are divided on CPUs too.
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import DistributedType
from accelerate.state import PartialState
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from ecg_transformers.data import load_ecg
from ecg_transformers.train.pretrain import build_trainer, method_figures
from ecg_transformers.train.trainer import train_and_save

set_device = PartialState.set_device


def set_device_as_of_gpus(state: PartialState):
    """accelerate divides models among GPUs alone, though torch does so on CPUs as well: call these processes GPUs."""
    set_device(state)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


torch.set_num_threads(1)
recordings = load_ecg("ptb-xl-sample", split="train", decode=False).select(range(24))
rank = os.environ.get("RANK", "0")
for settings in json.loads(sys.argv[1]):
    if settings.get("fsdp"):
        PartialState.set_device = set_device_as_of_gpus
    trainer = build_trainer(settings, recordings)
    train_and_save(trainer)
    assert trainer.is_fsdp_enabled == bool(settings.get("fsdp"))
    folder = Path(settings["output_dir"])
    if rank == "0":
        method_figures(trainer, recordings, 1)
    weights = trainer.model.state_dict()
    whole = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in weights.items()}
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in whole.items()}, folder / f"weights_{rank}.safetensors"
    )
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    (folder / f"losses_{rank}.json").write_text(json.dumps(losses))
trainer.accelerator.end_training()
