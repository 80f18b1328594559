"""Started by torchrun or alone: losses and gradients of each rank's part of a batch, written to a folder.

Usage: pretraining_two_processes.py FOLDER. With several ranks the models are wrapped in DistributedDataParallel, whose
averaged gradients have to be those of one process with the whole batch.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tiny_methods import make
from torch.nn.parallel import DistributedDataParallel

from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.sigreg import draw_directions, sigreg

torch.set_num_threads(1)
num_ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
if num_ranks > 1:
    dist.init_process_group("gloo")
written = {}

PROJECTOR = {"projector_hidden_size": 24, "projection_size": 8, "num_slices": 32}
FIELDS = {
    "lejepa": PROJECTOR | {"sigreg_weight": 0.2},
    "lejepa, pooled": PROJECTOR | {"num_views": 3, "sigreg_pooling": "pooled"},
    "sigreg_jepa": {},
    "kernel_response": {"lead_dropout": 0.4, "variance_weight": 0.0},
    "lenepa": {"sigreg_weight": 0.2},
    "lenepa, state spaces": {"sigreg_weight": 0.2},
    "ecg_cpc": {"num_negatives": 16, "time_reduction": "mean"},
    "ecg_s4_jepa": {},
}


def rows_of_rank(total: int) -> slice:
    """The first rank gets fewer rows than the last, where there are several."""
    cut = total // 3
    return slice(None) if num_ranks == 1 else slice(0, cut) if rank == 0 else slice(cut, None)


# The statistic alone, with unequal numbers of rows.
projections = torch.randn(3, 48, 16, generator=torch.Generator().manual_seed(0))
own = projections[:, rows_of_rank(48)].clone().requires_grad_()
value = sigreg(own, draw_directions(16, 40, torch.Generator().manual_seed(1)))
value.backward()
gradient = torch.zeros_like(projections)
gradient[:, rows_of_rank(48)] = own.grad / num_ranks  # DDP takes the mean over the ranks
if num_ranks > 1:
    dist.all_reduce(gradient)
written |= {"sigreg.value": value.detach(), "sigreg.gradient": gradient}

# Whole models.
rows = rows_of_rank(12)
for name, fields in FIELDS.items():
    model, signals = make(name.removesuffix(", pooled"), batch=12, **fields)
    lead_mask = {}
    if name == "kernel_response":
        lead_mask["lead_mask"] = torch.arange(36).reshape(12, 3)[rows] % 5 != 1
    # The directions and the ratio of the mask depend on the step alone, the rest on the records.
    values = signals[rows]
    drawn = model.draw_inputs(values, DrawKeys(3, 5, 1, tuple(range(12))[rows]))
    wrapped = DistributedDataParallel(model) if num_ranks > 1 else model
    output = wrapped(input_values=values, **drawn, **lead_mask)
    output.loss.backward()
    losses = torch.stack([output[part] for part in output if part.endswith("loss")]).detach()
    if num_ranks > 1:
        dist.all_reduce(losses)
    written[f"{name}.losses"] = losses / num_ranks
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            written[f"{name}.gradient.{key}"] = parameter.grad
    for key, buffer in model.named_buffers():
        if "running" in key:
            written[f"{name}.buffer.{key}"] = buffer

save_file({key: tensor.contiguous() for key, tensor in written.items()}, Path(sys.argv[1]) / f"{rank}.safetensors")
