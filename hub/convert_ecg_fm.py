"""Checkpoints of ECG-FM (Hub: wanglab/ecg-fm) to ours, tensor by tensor.

The files are of fairseq-signals, whose trainer writes `{"args": None, "cfg": {...}, "model": state_dict,
"optimizer_history", "extra_state", ...}`: settings as plain dictionaries, beside metrics that may be scalars of numpy.
`args` as a namespace and `cfg` as an object of omegaconf, which its loader takes too, are read as their content (see
`stand_ins`). A pretrained model has quantizer, projections and mask embedding beside the encoder, which are left out;
a fine-tuned one has `encoder.*` and the head `proj.*`. The structure is
`fairseq_signals/models/{ecg_transformer,wav2vec2}` with the settings of `w2v_cmsc_rlm.yaml`; with the quantizer it has
the 90.9 million parameters that the authors state. The code of both repositories is MIT.
"""

import re
from collections.abc import Sequence

import torch

from ecg_transformers.modeling import EcgFeatureExtractor, EcgFmConfig, EcgFmForSequenceClassification, EcgFmModel
from ecg_transformers.modeling.leads import STANDARD_LEADS

from .checkpoint_keys import count_blocks, load_renamed_state_dict, with_current_weight_norm
from .stand_ins import plain_settings

PUBLISHED_HEADS = {768: 12, 1024: 16}
STRIDE = 2  # of every convolution
# What the file may say of itself and what we build; everything else is in the shapes.
SETTINGS = {"extractor_mode": "default", "layer_norm_first": False}
PRETRAINING_ONLY = (r"mask_emb$", r"quantizer\.(vars$|weight_proj\.)", r"project_q\.", r"final_proj\.")
CLASSIFIER_PREFIX = "encoder."

# Ours -> theirs, within the encoder.
RENAMES = [
    (r"^feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"^feature_extractor\.conv_layers\.0\.layer_norm\.", "feature_extractor.conv_layers.0.2."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"^encoder\.pos_conv_embed\.conv\.", "conv_pos.pos_conv.0."),
    (r"(layers\.\d+)\.attention\.", r"\1.self_attn."),
    (r"(layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
]


def convert_ecg_fm_checkpoint(
    checkpoint: dict, leads: Sequence[str] = STANDARD_LEADS, num_attention_heads: int | None = None
) -> EcgFmModel | EcgFmForSequenceClassification:
    """Builds our model from a loaded checkpoint.

    Args:
        checkpoint (`dict`): `{"model": state_dict, "cfg": ..., ...}` or the state dict itself.
        leads (`Sequence[str]`): Input channels in order; the file does not name them.
        num_attention_heads (`int`, *optional*): By default what the file says, else the published number.

    Returns:
        [`EcgFmModel`], or [`EcgFmForSequenceClassification`] of a file with `proj.weight`.

    Raises:
        ValueError: if a key is missing or unexpected, a shape does not fit, or the file says that it is built
            differently.
    """
    state = checkpoint["model"] if isinstance(checkpoint.get("model"), dict) else checkpoint
    is_classifier = "proj.weight" in state
    prefix = CLASSIFIER_PREFIX if is_classifier else ""
    for key in ("feature_extractor.conv_layers.0.0.weight", "post_extract_proj.weight", "encoder.layers.0.fc1.weight"):
        if prefix + key not in state:
            raise ValueError(
                f"This is no ECG-FM checkpoint: expected the key {prefix + key!r}, found "
                f"{sorted(map(str, state))[:6]}..."
            )
    settings = {} if checkpoint is state else _stated_settings(checkpoint)
    state = with_current_weight_norm(state)
    fields = {"leads": leads, **_fields(state, prefix, settings, num_attention_heads)}
    if is_classifier:
        head = {"num_labels": len(state["proj.weight"]), "problem_type": "multi_label_classification"}
        model = EcgFmForSequenceClassification(EcgFmConfig(**fields, **head))
    else:
        model = EcgFmModel(EcgFmConfig(**fields))
    load_renamed_state_dict(model, state, _their_key, [prefix + pattern for pattern in PRETRAINING_ONLY])
    return model


def _stated_settings(checkpoint: dict) -> dict:
    """What the file says of the model: `cfg["model"]`, or in files of old the flat `args`."""
    cfg, args = (plain_settings(checkpoint.get(key)) for key in ("cfg", "args"))
    found = cfg.get("model") if isinstance(cfg, dict) else args
    return found if isinstance(found, dict) else {}


def _fields(state: dict[str, torch.Tensor], prefix: str, settings: dict, num_attention_heads: int | None) -> dict:
    for name, built in SETTINGS.items():
        if settings.get(name, built) != built:
            raise ValueError(f"The file says {name}={settings[name]!r}; ECG-FM has {built!r}.")
    count = count_blocks(state, prefix + "feature_extractor.conv_layers.")
    weights = [state[f"{prefix}feature_extractor.conv_layers.{layer}.0.weight"] for layer in range(count)]
    stated = re.findall(r"\((\d+), *(\d+), *(\d+)\)", settings.get("conv_feature_layers", ""))
    if any(int(stride) != STRIDE for _, _, stride in stated):
        raise ValueError(
            f"The file says conv_feature_layers={settings['conv_feature_layers']!r}; every stride of ECG-FM is "
            f"{STRIDE}."
        )
    hidden_size = len(state[prefix + "post_extract_proj.weight"])
    heads = num_attention_heads or settings.get("encoder_attention_heads") or PUBLISHED_HEADS.get(hidden_size)
    if heads is None:
        raise ValueError(f"No published model has width {hidden_size}. Give num_attention_heads.")
    groups = hidden_size // state[prefix + "conv_pos.pos_conv.0.parametrizations.weight.original1"].shape[1]
    return {
        "conv_dim": tuple(len(weight) for weight in weights),
        "conv_kernel": tuple(weight.shape[-1] for weight in weights),
        "conv_stride": (STRIDE,) * count,
        "conv_bias": prefix + "feature_extractor.conv_layers.0.0.bias" in state,
        "num_conv_pos_embeddings": state[prefix + "conv_pos.pos_conv.0.parametrizations.weight.original1"].shape[2],
        "num_conv_pos_embedding_groups": groups,
        "hidden_size": hidden_size,
        "num_hidden_layers": count_blocks(state, prefix + "encoder.layers."),
        "num_attention_heads": heads,
        "intermediate_size": len(state[prefix + "encoder.layers.0.fc1.weight"]),
    }


def _their_key(key: str) -> str:
    if key.startswith("classifier."):
        return "proj." + key.removeprefix("classifier.")
    inner = key.removeprefix("ecg_fm.")
    for pattern, replacement in RENAMES:
        inner = re.sub(pattern, replacement, inner)
    return CLASSIFIER_PREFIX + inner if key.startswith("ecg_fm.") else inner


def ecg_fm_feature_extractor(config: EcgFmConfig) -> EcgFeatureExtractor:
    """The input of the authors (`scripts/preprocess/ecg/preprocess.py`, `infer_quickstart.ipynb`): no filter, z-scores
    of every lead over the whole recording, then segments of 5 s; constant leads are zeros.

    They resample linearly, we by Fourier; at 500 Hz nothing is resampled. (On the authors' own ten recordings of
    CODE-15, at 400 Hz, the two correlate by 0.998 and more.) Of a recording that is no multiple of 5 s they leave the
    rest out, we let the last segment end with it.
    """
    return EcgFeatureExtractor(
        leads=config.leads,
        sampling_rate=config.sampling_rate,
        num_samples=config.num_samples,
        normalization="lead",
        normalize_recordings=True,
        long_records="all",
    )
