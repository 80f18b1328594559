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
from torch.nn.parallel import DistributedDataParallel

from ecg_transformers.modeling.configuration_ecg_cpc import EcgCpcConfig
from ecg_transformers.modeling.configuration_ecg_s4_jepa import EcgS4JepaConfig
from ecg_transformers.modeling.configuration_kernel_response import KernelResponseConfig
from ecg_transformers.modeling.configuration_lejepa import LeJepaConfig
from ecg_transformers.modeling.configuration_lenepa import EcgLeNepaConfig
from ecg_transformers.modeling.configuration_sigreg_jepa import SigRegJepaConfig
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_ecg_cpc import EcgCpcForPreTraining
from ecg_transformers.modeling.modeling_ecg_s4_jepa import EcgS4JepaForPreTraining
from ecg_transformers.modeling.modeling_kernel_response import KernelResponseForPreTraining
from ecg_transformers.modeling.modeling_lejepa import LeJepaForPreTraining
from ecg_transformers.modeling.modeling_lenepa import EcgLeNepaForPreTraining
from ecg_transformers.modeling.modeling_sigreg_jepa import SigRegJepaForPreTraining
from ecg_transformers.modeling.sigreg import draw_directions, sigreg

torch.set_num_threads(1)
num_ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
if num_ranks > 1:
    dist.init_process_group("gloo")
written = {}

TINY = {
    "leads": ("I", "II", "V1"),
    "sampling_rate": 100,
    "num_samples": 200,
    "patch_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "projector_hidden_size": 24,
    "projection_size": 8,
    "num_slices": 32,
}
MASKED = {
    "mask_type": "segments",
    "mask_ratio": (0.4, 0.6),
    "min_segment_patches": 2,
    "predictor_hidden_size": 16,
    "predictor_num_hidden_layers": 1,
    "predictor_num_attention_heads": 2,
    "predictor_intermediate_size": 32,
    "token_sigreg_weight": 0.1,
}
RESPONSES = {
    "leads": ("I", "II", "V1"),
    "num_samples": 200,
    "stem_widths": (8, 16),
    "stem_depths": (1, 1),
    "hidden_size": 16,
    "view_samples": 96,
    "num_kernels": 12,
    "target_size": 5,
    "fitting_records": 12,
    "lead_dropout": 0.4,
}
STATE_SPACES = {name: TINY[name] for name in TINY if name[:5] not in ("proje", "num_s")} | {
    "num_samples": 120,
    "patch_size": 2,
    "dropout": 0.0,
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
signals = torch.randn(12, 3, 200, generator=torch.Generator().manual_seed(7))
rows = rows_of_rank(12)
for name, (model_class, config) in {
    "lejepa": (LeJepaForPreTraining, LeJepaConfig(**TINY, num_views=2, sigreg_weight=0.2)),
    "lejepa pooled": (LeJepaForPreTraining, LeJepaConfig(**TINY, num_views=3, sigreg_pooling="pooled")),
    "sigreg_jepa": (SigRegJepaForPreTraining, SigRegJepaConfig(**TINY, **MASKED)),
    "kernel_response": (KernelResponseForPreTraining, KernelResponseConfig(**RESPONSES)),
    "lenepa": (EcgLeNepaForPreTraining, EcgLeNepaConfig(**TINY, sigreg_weight=0.2)),
    "lenepa s4": (EcgLeNepaForPreTraining, EcgLeNepaConfig(**TINY, trunk="s4", sigreg_weight=0.2)),
    "ecg_cpc": (EcgCpcForPreTraining, EcgCpcConfig(**STATE_SPACES, num_negatives=16, time_reduction="mean")),
    "ecg_s4_jepa": (EcgS4JepaForPreTraining, EcgS4JepaConfig(**STATE_SPACES, predictor_state_size=4)),
}.items():
    torch.manual_seed(0)
    model = model_class(config).train()
    lead_mask = {}
    if name == "kernel_response":
        model.fit_targets([{"input_values": signals}])
        lead_mask["lead_mask"] = torch.arange(36).reshape(12, 3)[rows] % 5 != 1
    # The directions and the ratio of the mask depend on the step alone, the rest on the records.
    values = signals[rows][..., : config.num_samples]
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
