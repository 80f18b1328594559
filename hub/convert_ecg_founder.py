"""Checkpoints of ECGFounder (Hub: PKUDigitalHealth/ECGFounder, `12_lead_ECGFounder.pth`, `1_lead_ECGFounder.pth`) to
ours, tensor by tensor.

The files are `{"state_dict", ...}` of the class `Net1D` in the authors' `net1d.py`. That class creates batch norms and
their scripts for the published weights (`finetune_model.py`, `ptbxl_eval.py`) leave them out (`use_bn=False`): their
tensors are in the file, untrained, and take no part. The code is MIT.
"""

import logging
import re
from collections.abc import Sequence
from functools import partial

import torch

from ecg_transformers.modeling import EcgFeatureExtractor, EcgFounderConfig, EcgFounderForSequenceClassification
from ecg_transformers.modeling.leads import STANDARD_LEADS

from .checkpoint_keys import (
    State,
    check_tensors,
    count_blocks,
    extractor_for,
    load_renamed_state_dict,
    renamed,
    shape_of,
    state_of,
)

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
    checkpoint: dict, leads: Sequence[str] | None = None, num_hidden_layers: int | None = None
) -> EcgFounderForSequenceClassification:
    """Builds our model from a loaded checkpoint; `AutoModel` then loads its encoder without the head.

    Args:
        checkpoint (`dict`): `{"state_dict": state_dict, ...}` or the state dict itself.
        leads (`Sequence[str]`, *optional*): Input channels in order; by default the twelve, or lead I of a one-lead
            model.
        num_hidden_layers (`int`, *optional*):
            Number of blocks of the file, where its stages are as wide as the published ones and not as deep.

    Raises:
        ValueError: for a tensor that does not fit, and another number of leads or blocks.
    """
    state = state_of(checkpoint, "state_dict")
    required = ("first_conv.conv.weight", "stage_list.0.block_list.0.conv2.conv.weight", "dense.weight")
    check_tensors(state, required, "ECGFounder")
    model = EcgFounderForSequenceClassification(EcgFounderConfig(**_fields(state, leads, num_hidden_layers)))
    trained = [key for key in state if re.match(BATCH_NORM, key) and not _is_untrained(key, state[key])]
    if trained:
        logger.warning(
            f"The batch norms of the file were trained ({trained[0]} and {len(trained) - 1} more). They are left out, "
            "as by the authors' scripts; a model that was trained with them gives other features."
        )
    load_renamed_state_dict(model, state, partial(renamed, renames=RENAMES), [BATCH_NORM])
    return model


def _fields(state: State, leads: Sequence[str] | None, given_blocks: int | None) -> dict:
    stem_channels, num_leads, kernel_size = shape_of(state, "first_conv.conv.weight", "channels, leads, taps")
    leads = PUBLISHED_LEADS.get(num_leads, ()) if leads is None else leads
    if len(leads) != num_leads:
        raise ValueError(f"The file reads {num_leads} lead(s), not {list(leads)}. Give them: leads (--leads).")
    num_stages = count_blocks(state, "stage_list.")
    first = [
        shape_of(state, f"stage_list.{stage}.block_list.0.conv2.conv.weight", "channels, channels of a group, taps")
        for stage in range(num_stages)
    ]
    channels = tuple(shape[0] for shape in first)
    depths = tuple(count_blocks(state, f"stage_list.{stage}.block_list.") for stage in range(num_stages))
    published = EcgFounderConfig()
    is_published = stem_channels == published.stem_channels and channels == published.stage_channels[:num_stages]
    if given_blocks is None and is_published and depths != published.stage_depths:
        raise ValueError(
            f"The stages have {list(depths)} blocks, those of the published model {list(published.stage_depths)}. If "
            f"none is missing of yours, say so with num_hidden_layers={sum(depths)} "
            f"(--num_hidden_layers {sum(depths)})."
        )
    if given_blocks is not None and given_blocks != sum(depths):
        raise ValueError(
            f"num_hidden_layers={given_blocks} was given (--num_hidden_layers), but the file has {sum(depths)} blocks."
        )
    return {
        "leads": leads,
        "stem_channels": stem_channels,
        "stage_channels": channels,
        "stage_depths": depths,
        "kernel_size": kernel_size,
        "group_width": first[0][1],
        "num_labels": shape_of(state, "dense.weight", "labels, width")[0],
        "problem_type": "multi_label_classification",
    }


def _is_untrained(key: str, tensor: torch.Tensor) -> bool:
    return bool((tensor.double() - UNTRAINED[key.rsplit(".", 1)[1]]).abs().max() < 1e-6)


def ecg_founder_feature_extractor(config: EcgFounderConfig) -> EcgFeatureExtractor:
    """The input of the authors (`dataset.py`, `util.py`): a notch at 50 Hz, 0.67 to 40 Hz, the running median of 0.4 s
    subtracted, then one mean and one deviation over all leads and the whole 10 s."""
    return extractor_for(config, normalization="record", nan_policy="interpolate", **FILTERS)
