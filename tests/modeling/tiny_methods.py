"""A tiny model of every pretraining method, for the tests that hold for all of them."""

import torch

from ecg_transformers import modeling
from ecg_transformers.modeling.masking import DrawKeys

INPUT = {"leads": ("I", "II", "V1"), "sampling_rate": 100, "num_samples": 200, "patch_size": 20}
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VIT = INPUT | WIDTHS
PART = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
PREDICTOR = {f"predictor_{name}": value for name, value in PART.items()}
DECODER = {f"decoder_{name}": value for name, value in PART.items()} | {"head_dim": 4}
PROJECTOR = {"projector_hidden_size": 8, "projection_size": 4, "num_slices": 8}
# With the published weight of 20 gradients are of size 50, and rounding alone moves them by more than is allowed.
LOSS_OF_ONE = {"sigreg_weight": 0.5}
RANDOM_MASK = {"mask_type": "random", "mask_ratio": (0.2, 0.8), "drop_path_rate": 0.0}
SEGMENTS = {"mask_type": "segments", "mask_ratio": (0.3, 0.8), "min_segment_patches": 2}
PER_LEAD = {"patching": "per_lead", "attention_pattern": "cropa", "num_registers": 0}
SMALL = {"leads": ("I", "II", "V1"), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 64}
SMALL_PREDICTOR = {"predictor_hidden_size": 16, "predictor_num_hidden_layers": 1, "predictor_num_attention_heads": 2}
SMALL_PREDICTOR |= {"predictor_intermediate_size": 32}
"""Sizes at which the tests of one method compare it with a slow version."""
S4 = {"leads": ("I", "II", "V1"), "num_samples": 120, "patch_size": 2, "hidden_size": 16, "num_hidden_layers": 1}
S4 |= {"num_attention_heads": 2, "dropout": 0.0}
CONV = {"leads": ("I", "II", "V1"), "num_samples": 200, "stem_widths": (8, 16), "stem_depths": (1, 1)}
CONV |= {"hidden_size": 16, "view_samples": 96, "num_kernels": 12, "target_size": 5, "fitting_records": 12}
METHODS = {
    "kim": ("EcgJepa", VIT | PREDICTOR | RANDOM_MASK),
    "kim, multi-block": (
        "EcgJepa",
        VIT | PREDICTOR | RANDOM_MASK | {"mask_type": "multi_block", "mask_ratio": (0.1, 0.3)},
    ),
    "weimann": (
        "EcgJepa",
        VIT
        | PREDICTOR
        | SEGMENTS
        | {"patching": "all_leads", "evaluated_encoder": "teacher", "num_registers": 1, "attention_pattern": "full"},
    ),
    "sigreg_jepa": ("SigRegJepa", VIT | PREDICTOR | PROJECTOR | SEGMENTS | {"token_sigreg_weight": 0.1}),
    "sigreg_jepa, per lead": (
        "SigRegJepa",
        VIT | PREDICTOR | PROJECTOR | PER_LEAD | {"mask_type": "multi_block", "mask_ratio": (0.1, 0.25)},
    ),
    "lejepa": ("LeJepa", VIT | PROJECTOR | {"num_views": 2}),
    "lejepa, per lead": ("LeJepa", VIT | PROJECTOR | PER_LEAD | {"num_views": 2}),
    "st_mem": ("StMem", VIT | DECODER),
    "mtae": ("Mtae", VIT | DECODER),
    "mlae": ("Mlae", VIT | DECODER | {"patch_size": None, "mask_ratio": 0.5}),
    "vqvae": ("EcgVqVae", VIT | DECODER | {"latent_size": 8, "num_codes": 8}),
    "ecg_cpc": ("EcgCpc", S4 | {"num_negatives": 3, "horizon_ms": 40}),
    "lenepa": ("EcgLeNepa", VIT | PROJECTOR | LOSS_OF_ONE),
    "lenepa, state spaces": ("EcgLeNepa", VIT | PROJECTOR | LOSS_OF_ONE | {"trunk": "s4"}),
    "ecg_s4_jepa": ("EcgS4Jepa", S4 | {"predictor_state_size": 4}),
    "kernel_response": ("KernelResponse", CONV | {"variance_weight": 0.5, "projector_hidden_size": 8}),
}
FROZEN = {"kim": "teacher.", "weimann": "ecg_vit.", "ecg_s4_jepa": "teacher.", "kernel_response": "targets."}
"""Beginnings of the names of weights that no gradient trains."""


def make(name: str, batch: int = 4, **fields):
    """A model in training mode, and records for it."""
    family, own_fields = METHODS[name]
    torch.manual_seed(0)
    config = getattr(modeling, f"{family}Config")(**own_fields | fields)
    model = getattr(modeling, f"{family}ForPreTraining")(config).train()
    values = torch.randn(batch, len(config.leads), config.num_samples, generator=torch.Generator().manual_seed(1))
    if model.needs_fitting:
        model.fit_targets([{"input_values": torch.randn(12, *values.shape[1:])}])
    return model, values


def step_inputs(model, values, number: int = 1) -> dict[str, torch.Tensor]:
    """Everything that a training step of this number reads."""
    return model.step_inputs({"input_values": values}, DrawKeys(0, number, number, tuple(range(len(values)))))


def same_weights(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def hidden_columns(*columns: int, num_columns: int = 10) -> torch.Tensor:
    mask = torch.zeros(1, num_columns, dtype=torch.bool)
    mask[0, list(columns)] = True
    return mask
