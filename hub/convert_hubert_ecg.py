"""Checkpoints of HuBERT-ECG (Hub: Edoardo-BS/hubert-ecg-small, -base, -large) to ours, tensor by tensor.

Their weights are those of transformers' HuBERT, with what their pretraining predicts beside it (`final_proj.*`,
`label_embedding.*`, `masked_spec_embed`), which an encoder leaves out. Take `model.safetensors` of the Hub. The `.pt`
files of the authors' scripts (`code/pretrain.py`, `code/finetune.py`) hold their configuration as an object,
`model_config`, which is read as its values alone (see `stand_ins`). Strides and heads are in no tensor: where no
`model_config` says them, they are those of the published models, by the number of convolutions and by the width. Code
and weights are CC BY-NC 4.0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    HubertEcgConfig,
    HubertEcgForSequenceClassification,
    HubertEcgModel,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS

from .checkpoint_keys import count_blocks, load_renamed_state_dict, with_current_weight_norm
from .stand_ins import plain_settings

SECONDS = 5
# By the kernels of the convolutions: their strides, and the sampling rate (Hz) that they were made for.
PUBLISHED_CONVOLUTIONS = {
    (10, 3, 3, 2, 2): ((4, 2, 2, 2, 2), 100),
    (10, 3, 3, 2): ((4, 2, 2, 2), 50),
    (10, 3, 3, 3, 3, 2, 2): ((5, 2, 2, 2, 2, 2, 2), 500),
}
CONFIGURATIONS = ("hubert_ecg.HuBERTECGConfig", "transformers.models.hubert.configuration_hubert.HubertConfig")
PUBLISHED_HEADS = {512: 8, 768: 12, 960: 12}
# What shapes the forward pass and is in no tensor, as the published models have it and ours is built.
SETTINGS = {
    "do_stable_layer_norm": False,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_pos_batch_norm": False,
    "num_conv_pos_embedding_groups": 16,
}
PRETRAINING_ONLY = (r"masked_spec_embed$", r"final_proj\.\d+\.", r"label_embedding\.\d+\.")
CLASSIFIER_PREFIX = "hubert_ecg."
LOWPASS_HZ = 40.0  # of scipy.signal.decimate by 5, the last filter before the model


def convert_hubert_ecg_checkpoint(
    checkpoint: dict, leads: Sequence[str] = STANDARD_LEADS, num_attention_heads: int | None = None
) -> HubertEcgModel | HubertEcgForSequenceClassification:
    """Builds our model from a loaded checkpoint.

    Args:
        checkpoint (`dict`): The state dict, or `{"model_state_dict": state_dict, "model_config": ..., ...}`.
        leads (`Sequence[str]`): In the order in which they were joined; the file does not say.
        num_attention_heads (`int`, *optional*):
            By default what the file says, else those of the published model of this width.

    Returns:
        [`HubertEcgModel`], or [`HubertEcgForSequenceClassification`] of a file with `classifier.weight`: for several
        labels a record, as the authors fine-tune the published ones. No file says so; where yours was trained
        otherwise, set `config.problem_type`.

    Raises:
        ValueError: if a key is missing or unexpected, a shape does not fit, or the convolutions are of no published
            model.
    """
    state = checkpoint.get("model_state_dict", checkpoint)
    stated = {} if state is checkpoint else plain_settings(checkpoint.get("model_config")) or {}
    if not isinstance(stated, dict):
        raise ValueError(f"Expected model_config of the file to be a configuration, got {type(stated).__name__}.")
    is_classifier = "classifier.weight" in state
    prefix = CLASSIFIER_PREFIX if is_classifier else ""
    for key in ("feature_extractor.conv_layers.0.conv.weight", "feature_projection.projection.weight"):
        if prefix + key not in state:
            raise ValueError(
                f"This is no HuBERT-ECG checkpoint: expected the key {prefix + key!r}, found "
                f"{sorted(map(str, state))[:6]}..."
            )
    state = with_current_weight_norm(state)
    fields = {"leads": leads, **_fields(state, prefix, stated, num_attention_heads)}
    if is_classifier:
        head = {"num_labels": len(state["classifier.weight"]), "problem_type": "multi_label_classification"}
        model = HubertEcgForSequenceClassification(HubertEcgConfig(**fields, **head))
    else:
        model = HubertEcgModel(HubertEcgConfig(**fields))
    # Ours and theirs have the same names, down to the prefix of a classifier.
    load_renamed_state_dict(model, state, str, [prefix + pattern for pattern in PRETRAINING_ONLY])
    return model


def _fields(
    state: dict[str, torch.Tensor], prefix: str, stated: Mapping[str, Any], num_attention_heads: int | None
) -> dict:
    count = count_blocks(state, prefix + "feature_extractor.conv_layers.")
    weights = [state.get(f"{prefix}feature_extractor.conv_layers.{layer}.conv.weight") for layer in range(count)]
    kernels = tuple(weight.shape[-1] for weight in weights if weight is not None)
    if kernels not in PUBLISHED_CONVOLUTIONS:
        raise ValueError(
            f"The convolutions have the kernels {kernels}; the strides are known of {list(PUBLISHED_CONVOLUTIONS)}."
        )
    strides, sampling_rate = PUBLISHED_CONVOLUTIONS[kernels]
    for name, built in (SETTINGS | {"conv_stride": list(strides)}).items():
        said = stated.get(name, built)
        if (list(said) if isinstance(said, tuple) else said) != built:
            raise ValueError(f"The file says {name}={said!r}; HuBERT-ECG has {built!r}.")
    hidden_size = len(state[prefix + "feature_projection.projection.weight"])
    heads = num_attention_heads or stated.get("num_attention_heads") or PUBLISHED_HEADS.get(hidden_size)
    if heads is None:
        raise ValueError(f"No published model has width {hidden_size}. Give num_attention_heads.")
    return {
        "sampling_rate": sampling_rate,
        "num_samples": SECONDS * sampling_rate,
        "conv_dim": tuple(len(weight) for weight in weights),
        "conv_kernel": kernels,
        "conv_stride": strides,
        "hidden_size": hidden_size,
        "num_hidden_layers": count_blocks(state, prefix + "encoder.layers."),
        "num_attention_heads": heads,
        "intermediate_size": len(state[prefix + "encoder.layers.0.feed_forward.intermediate_dense.weight"]),
    }


def hubert_ecg_feature_extractor(config: HubertEcgConfig) -> EcgFeatureExtractor:
    """The input of the authors, as near as our steps come to it: every lead from -1 to 1 over the whole recording,
    then its first 5 s.

    Theirs (`utils.py`, `dataset.py`) filters with a FIR of 0.05 to 47 Hz, whose order of 0.3 s leaves 96 % of the
    slowest waves, resamples to 500 Hz, scales, joins the leads, and decimates the sequence behind a low-pass of 40 Hz.
    Ours resamples once, has that low-pass alone (Butterworth, zero phase), and no filter runs across the seams of two
    leads. On 20 recordings of PTB-XL the inputs differ by 0.02 on average and correlate by 0.996 and more. Gaps are
    interpolated; theirs become the mean of the recording.
    """
    lowpass_hz = LOWPASS_HZ if LOWPASS_HZ < config.sampling_rate / 2 else None
    return EcgFeatureExtractor(
        leads=config.leads,
        sampling_rate=config.sampling_rate,
        num_samples=config.num_samples,
        lowpass_hz=lowpass_hz,
        normalization="lead_range",
        normalize_recordings=True,
        nan_policy="interpolate",
    )
