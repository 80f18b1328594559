"""Configurations that could not work are refused when a model is made, in words that name the field."""

import pytest

from ecg_transformers import modeling

from .tiny_methods import METHODS, S4, VIT, make

CONFIGURATIONS = {
    "vit": ("EcgViT", VIT),
    "s4": ("EcgS4", S4),
    "random_kernels": ("RandomKernels", {}),
    "ecg_fm": ("EcgFm", {}),
    "hubert_ecg": ("HubertEcg", {}),
    "ecg_founder": ("EcgFounder", {}),
}
IMPOSSIBLE = {
    "vit": [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers of at most"),
        ({"sampling_rate": float("nan")}, "sampling_rate above 0"),
        ({"hidden_size": 2**40}, "hidden_size of at most"),
        ({"leads": ["I", "V9"]}, "Unknown lead 'V9'"),
        ({"leads": ["I", "i"]}, "more than once"),
        ({"num_samples": 65}, r"num_samples \(65\) must be a multiple of patch_size \(20\)"),
        ({"patching": "per_beat"}, "Expected patching to be one of"),
        ({"sampling_rate": 0}, "Expected sampling_rate above 0"),
        ({"patch_size": 0}, "Expected patch_size of at least 1"),
        ({"drop_path_rate": 1.0}, "0 <= drop_path_rate < 1"),
        ({"num_attention_heads": 5}, "must be a multiple of num_attention_heads"),
    ],
    "st_mem": [
        ({"mask_ratio": 0.0}, "0 < mask_ratio < 1"),
        ({"mask_ratio": 0.95}, "leaves 0 of 10 patches visible"),
        ({"lead_separators": False}, "lead_separators to be left at True"),
    ],
    "mtae": [({"patching": "per_lead"}, "patching to be left at 'all_leads', got 'per_lead'")],
    "mlae": [
        ({"leads": ("II",)}, "leaves 0 of 1 patches visible"),
        ({"patch_size": 10}, "token of MLAE is a whole lead"),
    ],
    "kim": [
        ({"mask_ratio": (0.01, 0.05)}, "can hide between 0 and"),
        ({"mask_type": "multi_block", "mask_ratio": (0.3, 0.3)}, "of 10 patches; at least 1 must be hidden"),
        ({"mask_ratio": (0.7, 0.3)}, "two numbers, 0 < low <= high"),
        ({"num_mask_blocks": 0}, "num_mask_blocks of at least 1"),
        ({"prediction_loss": "l2"}, "Expected prediction_loss to be one of"),
        ({"teacher": "frozen"}, "teacher to be one of"),
        ({"teacher": "random", "evaluated_encoder": "teacher"}, "evaluated_encoder='student'"),
    ],
    "sigreg_jepa": [
        ({"teacher": "random"}, "there is no teacher here"),
        ({"teacher_drop_path": True}, "there is no teacher here"),
        ({"evaluated_encoder": "teacher"}, "there is no teacher here"),
        ({"target_normalization": "position"}, "statistics without gradient"),
        ({"sigreg_weight": 0.0}, "without SIGReg the features collapse"),
        ({"projection_size": 0}, "projection_size of at least 1"),
    ],
    "lejepa": [
        ({"augmentation": "strong"}, "Expected augmentation to be one of"),
        ({"num_views": 1}, "num_views of at least 2"),
        ({"sigreg_weight": 1.0}, "0 < sigreg_weight < 1"),
        ({"crop_scale": (0.9, 0.5)}, "crop_scale as two numbers, 0 < low <= high <= 1"),
        ({"amplitude_scale": (1.2, 0.8)}, "amplitude_scale as two factors"),
        ({"noise_std": -1.0}, "noise_std of at least 0"),
        ({"max_shift": 1.0}, "0 <= max_shift < 1"),
        ({"num_slices": 0}, "num_slices of at least 1"),
    ],
    "kernel_response": [
        ({"view_samples": 100}, "view_samples as a multiple of patch_size"),
        ({"view_samples": 208}, "view_samples as a multiple of patch_size"),
        ({"position_embedding": "sincos_2d"}, "need position_embedding='none'"),
        ({"num_kernels": 10}, "multiple of 6"),
        ({"noise_std": -0.1}, "noise_std of at least 0"),
        ({"lead_dropout": 0.6}, "lead_dropout of 0 to 0.5"),
        ({"target_size": 0}, "target_size of at least 1"),
        ({"num_views": 1, "variance_weight": 1.0}, "compare views"),
    ],
    "lenepa": [
        ({"trunk": "cnn"}, "trunk to be one of"),
        ({"bidirectional": True}, "what it is to predict"),
        ({"dropout": 0.1}, "trunk='vit' has no dropout"),
        ({"sigreg_weight": 0}, "without SIGReg the features collapse"),
        ({"hidden_size": 12, "num_attention_heads": 4}, "heads of an even width"),
        ({"num_slices": 0}, "num_slices of at least 1"),
    ],
    "ecg_cpc": [
        ({"bidirectional": True}, "what it is to predict"),
        ({"time_reduction": "max"}, "time_reduction to be one of"),
        ({"num_negatives": 0}, "num_negatives of at least 1"),
        ({"horizon_ms": 1}, "is 0 tokens ahead, of 60.*A token is 8.33333 ms"),
        ({"horizon_ms": 500}, "is 60 tokens ahead"),
    ],
    "s4": [
        ({"patching": "per_lead"}, "one row of tokens"),
        ({"num_registers": 1}, "num_registers to be left at 0"),
        ({"stem": "conv", "stem_widths": (32,), "stem_depths": (1,), "stem_strides": (2,)}, "stem to be left at"),
        ({"pooling": "mean_then_norm"}, "Choose 'mean'"),
        ({"dropout": 1.0}, "0 <= dropout < 1"),
        ({"memory_seconds": (2.0, 1.0)}, "low <= high"),
        ({"state_size": 0}, "state_size of at least 1"),
    ],
    "ecg_s4_jepa": [
        ({"teacher": "frozen"}, "teacher to be one of"),
        ({"mask_ratio": (0.3, 0.3)}, "at least 1 must be hidden and 1 visible"),
        ({"predictor_state_size": 0}, "predictor_state_size of at least 1"),
    ],
    "vqvae": [
        ({"patching": "per_lead"}, "a code stands for a moment of all leads"),
        ({"codebook": "kmeans"}, "codebook to be one of"),
        ({"features": "pixels"}, "features to be one of"),
        ({"num_codes": 1}, "num_codes of at least 2"),
        ({"codebook_decay": 1.0}, "0 <= codebook_decay < 1"),
    ],
    "random_kernels": [({"num_kernels": number}, "multiple of 6") for number in (0, 5, 100)],
    "ecg_fm": [({"leads": ()}, "Expected a lead"), ({"feat_extract_norm": "layer"}, "feat_extract_norm='group'")],
    "hubert_ecg": [({"sampling_rate": 0}, "sampling_rate above 0")],
    "ecg_founder": [
        ({"stage_depths": (1,)}, "as many stage_depths"),
        ({"group_width": 7}, "multiples of group_width"),
        ({"stem_channels": 128}, "never become fewer"),
        ({"kernel_size": 0}, "kernel_size of at least 1"),
    ],
}


@pytest.mark.parametrize(
    ("base", "fields", "message"), [(base, *case) for base, cases in IMPOSSIBLE.items() for case in cases]
)
def test_impossible_settings_are_refused(base, fields, message):
    with pytest.raises(ValueError, match=message):
        if base in METHODS:
            make(base, **fields)
        else:
            family, usual = CONFIGURATIONS[base]
            getattr(modeling, f"{family}Config")(**usual | fields)
