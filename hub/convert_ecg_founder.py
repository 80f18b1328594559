"""Checkpoints of ECGFounder (Hub: PKUDigitalHealth/ECGFounder, `12_lead_ECGFounder.pth`, `1_lead_ECGFounder.pth`) to
ours, tensor by tensor.

The files are `{"state_dict", ...}` of the class `Net1D` in the authors' `net1d.py`. That class creates batch norms and
their scripts for the published weights (`finetune_model.py`, `ptbxl_eval.py`) leave them out (`use_bn=False`): their
tensors are in the file, untrained, and take no part. The code is MIT.
"""

import logging
import re
from collections.abc import Sequence

import torch

from ecg_transformers.modeling import EcgFeatureExtractor, EcgFounderConfig, EcgFounderForSequenceClassification
from ecg_transformers.modeling.leads import STANDARD_LEADS

from .checkpoint_keys import count_blocks, load_renamed_state_dict

logger = logging.getLogger("ecg_transformers")

PUBLISHED_LEADS = {12: STANDARD_LEADS, 1: ("I",)}
FILTERS = {
    "notch_hz": 50.0,
    "highpass_hz": 0.67,
    "lowpass_hz": 40.0,
    "filter_order": 4,
    "median_baseline_seconds": 0.4,
}
BATCH_NORM = r"(first_bn|stage_list\.\d+\.block_list\.\d+\.bn\d)\."
UNTRAINED = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}

# Ours -> theirs.
RENAMES = [
    (r"^ecg_founder\.", ""),
    (r"^stem\.", "first_conv.conv."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stage_list.\1.block_list.\2."),
    (r"\.conv(\d)\.", r".conv\1.conv."),
    (r"\.gate\.fc(\d)\.", r".se_fc\1."),
    (r"^classifier\.", "dense."),
]


def convert_ecg_founder_checkpoint(
    checkpoint: dict, leads: Sequence[str] | None = None
) -> EcgFounderForSequenceClassification:
    """Builds our model from a loaded checkpoint; `AutoModel` then loads its encoder without the head.

    Args:
        checkpoint (`dict`): `{"state_dict": state_dict, ...}` or the state dict itself.
        leads (`Sequence[str]`, *optional*): Input channels in order; by default the twelve, or lead I of a one-lead
            model.

    Raises:
        ValueError: if a key is missing or unexpected, a shape does not fit, or the number of leads is another.
    """
    state = checkpoint["state_dict"] if isinstance(checkpoint.get("state_dict"), dict) else checkpoint
    for key in ("first_conv.conv.weight", "stage_list.0.block_list.0.conv2.conv.weight", "dense.weight"):
        if key not in state:
            raise ValueError(
                f"This is no ECGFounder checkpoint: expected the key {key!r}, found {sorted(map(str, state))[:6]}..."
            )
    model = EcgFounderForSequenceClassification(EcgFounderConfig(**_fields(state, leads)))
    trained = [key for key in state if re.match(BATCH_NORM, key) and not _is_untrained(key, state[key])]
    if trained:
        logger.warning(
            f"The batch norms of the file were trained ({trained[0]} and {len(trained) - 1} more). They are left out, "
            "as by the authors' scripts; a model that was trained with them gives other features."
        )
    load_renamed_state_dict(model, state, _their_key, [BATCH_NORM])
    return model


def _fields(state: dict[str, torch.Tensor], leads: Sequence[str] | None) -> dict:
    stem_channels, num_leads, kernel_size = state["first_conv.conv.weight"].shape
    leads = PUBLISHED_LEADS.get(num_leads, ()) if leads is None else leads
    if len(leads) != num_leads:
        raise ValueError(f"The file reads {num_leads} lead(s), not {list(leads)}. Give them with --leads.")
    num_stages = count_blocks(state, "stage_list.")
    first = [state.get(f"stage_list.{stage}.block_list.0.conv2.conv.weight") for stage in range(num_stages)]
    return {
        "leads": leads,
        "stem_channels": stem_channels,
        "stage_channels": tuple(len(weight) for weight in first if weight is not None),
        "stage_depths": tuple(count_blocks(state, f"stage_list.{stage}.block_list.") for stage in range(num_stages)),
        "kernel_size": kernel_size,
        "group_width": first[0].shape[1],
        "num_labels": len(state["dense.weight"]),
        "problem_type": "multi_label_classification",
    }


def _is_untrained(key: str, tensor: torch.Tensor) -> bool:
    return bool((tensor.double() - UNTRAINED[key.rsplit(".", 1)[1]]).abs().max() < 1e-6)


def _their_key(key: str) -> str:
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def ecg_founder_feature_extractor(config: EcgFounderConfig) -> EcgFeatureExtractor:
    """The input of the authors (`dataset.py`, `util.py`): a notch at 50 Hz, 0.67 to 40 Hz, the running median of 0.4 s
    subtracted, then one mean and one deviation over all leads and the whole 10 s.

    They design the band-pass as one filter, we as a high-pass and a low-pass. On 20 recordings of PTB-XL the inputs
    differ by 0.002 deviations on average in the median recording, by 0.03 in the worst. Gaps are interpolated;
    theirs are zeros.
    """
    return EcgFeatureExtractor(
        leads=config.leads,
        sampling_rate=config.sampling_rate,
        num_samples=config.num_samples,
        normalization="record",
        nan_policy="interpolate",
        **FILTERS,
    )
