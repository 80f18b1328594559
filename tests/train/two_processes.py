"""Started by torchrun or alone: trains the tiny run and writes each rank's weights and losses beside the output."""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from ecg_transformers.data import load_ecg
from ecg_transformers.train.pretrain import build_trainer

settings = json.loads(sys.argv[1])
torch.set_num_threads(1)
recordings = load_ecg("ptb-xl-sample", split="train", decode=False).select(range(24))
trainer = build_trainer(settings, recordings)
trainer.train()
rank = os.environ.get("RANK", "0")
folder = Path(settings["output_dir"])
folder.mkdir(parents=True, exist_ok=True)
save_file(
    {name: tensor.contiguous().clone() for name, tensor in trainer.model.state_dict().items()},
    folder / f"weights_{rank}.safetensors",
)
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
(folder / f"losses_{rank}.json").write_text(json.dumps(losses))
trainer.accelerator.end_training()
