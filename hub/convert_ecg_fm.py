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
from collections.abc import Mapping, Sequence

from ecg_transformers.modeling import EcgFeatureExtractor, EcgFmConfig, EcgFmForSequenceClassification, EcgFmModel
from ecg_transformers.modeling.leads import STANDARD_LEADS

from .checkpoint_keys import (
    State,
    check_stated,
    check_tensors,
    count_blocks,
    extractor_for,
    layer_fields,
    load_renamed_state_dict,
    renamed,
    shape_of,
    state_of,
    with_current_weight_norm,
)
from .stand_ins import plain_settings

PUBLISHED_SIZES = {(768, 12): 12}  # width and depth -> attention heads
STRIDE = 2  # of every convolution
NUM_CONVOLUTIONS = 4
# Settings that a file may state, and what we build; everything else is in the shapes.
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
    checkpoint: dict, leads: Sequence[str] = STANDARD_LEADS, **sizes: int
) -> EcgFmModel | EcgFmForSequenceClassification:
    """Builds our model from a loaded checkpoint.

    Args:
        checkpoint (`dict`): `{"model": state_dict, "cfg": ..., ...}` or the state dict itself.
        leads (`Sequence[str]`): Input channels in order; the file does not name them.
        sizes (`int`): Numbers of layers and heads of a model of no published size, see [`layer_fields`].

    Returns:
        [`EcgFmModel`], or [`EcgFmForSequenceClassification`] of a file with `proj.weight`.

    Raises:
        ValueError: for a tensor that does not fit, a file that says that it is built differently, and a size that is
            neither stated, published nor given.
    """
    state = state_of(checkpoint, "model")
    is_classifier = "proj.weight" in state
    prefix = CLASSIFIER_PREFIX if is_classifier else ""
    required = ("feature_extractor.conv_layers.0.0.weight", "post_extract_proj.weight", "encoder.layers.0.fc1.weight")
    check_tensors(state, [prefix + key for key in required], "ECG-FM")
    settings = {} if checkpoint is state else _stated_settings(checkpoint)
    state = with_current_weight_norm(state)
    fields = {"leads": leads, **_fields(state, prefix, settings, sizes)}
    if is_classifier:
        head = {"num_labels": len(state["proj.weight"]), "problem_type": "multi_label_classification"}
        model = EcgFmForSequenceClassification(EcgFmConfig(**fields, **head))
    else:
        model = EcgFmModel(EcgFmConfig(**fields))
    load_renamed_state_dict(model, state, _their_key, [prefix + pattern for pattern in PRETRAINING_ONLY])
    return model


def _stated_settings(checkpoint: dict) -> dict:
    """Settings of the model: `cfg["model"]`, or in files of old the flat `args`."""
    cfg, args = (plain_settings(checkpoint.get(key)) for key in ("cfg", "args"))
    found = cfg.get("model") if isinstance(cfg, dict) else args
    return found if isinstance(found, dict) else {}


def _fields(state: State, prefix: str, settings: dict, sizes: Mapping[str, int]) -> dict:
    for name, built in SETTINGS.items():
        if settings.get(name, built) != built:
            raise ValueError(f"The file says {name}={settings[name]!r}; ECG-FM has {built!r}.")
    count = count_blocks(state, prefix + "feature_extractor.conv_layers.")
    convolutions = [
        shape_of(state, f"{prefix}feature_extractor.conv_layers.{layer}.0.weight", "out, in, taps")
        for layer in range(count)
    ]
    stated = re.findall(r"\((\d+), *(\d+), *(\d+)\)\](?: *\* *(\d+))?", str(settings.get("conv_feature_layers", "")))
    if any(int(stride) != STRIDE for _, _, stride, _ in stated):
        raise ValueError(
            f"The file says conv_feature_layers={settings['conv_feature_layers']!r}; every stride of ECG-FM is "
            f"{STRIDE}."
        )
    expected = [(int(width), int(taps)) for width, taps, _, times in stated for _ in range(min(int(times or 1), 100))]
    if expected and expected != [(width, taps) for width, _, taps in convolutions]:
        raise ValueError(
            f"The file contradicts itself: conv_feature_layers is {settings['conv_feature_layers']!r} in its settings "
            f"and its convolutions have the shapes {convolutions}."
        )
    if not expected and count != NUM_CONVOLUTIONS:
        raise ValueError(
            f"The file has {count} convolutions, the published model {NUM_CONVOLUTIONS}. If none is missing of yours, "
            "convert the whole file, whose `cfg` says how many there are."
        )
    hidden_size = shape_of(state, prefix + "post_extract_proj.weight", "width, channels")[0]
    known = state, prefix + "encoder.layers.", hidden_size, PUBLISHED_SIZES, sizes, ""
    layers = layer_fields(*known, settings.get("encoder_layers"), settings.get("encoder_attention_heads"))
    hidden = shape_of(state, prefix + "encoder.layers.0.fc1.weight", "hidden, width")[0]
    position_weight = prefix + "conv_pos.pos_conv.0.parametrizations.weight.original1"
    _, group_width, taps = shape_of(state, position_weight, "width, width of a group, taps")
    shown = {"encoder_layers": layers["num_hidden_layers"], "encoder_embed_dim": hidden_size}
    shown |= {
        "encoder_ffn_embed_dim": hidden,
        "conv_pos": taps,
        "conv_pos_groups": hidden_size // group_width,
        "in_d": convolutions[0][1],
    }
    check_stated(settings, shown)
    return layers | {
        "conv_dim": tuple(shape[0] for shape in convolutions),
        "conv_kernel": tuple(shape[2] for shape in convolutions),
        "conv_stride": (STRIDE,) * count,
        "conv_bias": prefix + "feature_extractor.conv_layers.0.0.bias" in state,
        "num_conv_pos_embeddings": taps,
        "num_conv_pos_embedding_groups": hidden_size // group_width,
        "hidden_size": hidden_size,
        "intermediate_size": hidden,
    }


def _their_key(key: str) -> str:
    if key.startswith("classifier."):
        return "proj." + key.removeprefix("classifier.")
    inner = renamed(key.removeprefix("ecg_fm."), RENAMES)
    return CLASSIFIER_PREFIX + inner if key.startswith("ecg_fm.") else inner


def ecg_fm_feature_extractor(config: EcgFmConfig) -> EcgFeatureExtractor:
    """The input of the authors (`scripts/preprocess/ecg/preprocess.py`, `infer_quickstart.ipynb`): no filter, z-scores
    of every lead over the whole recording, then segments of 5 s; constant leads are zeros. The authors' own ten
    recordings of CODE-15, resampled from 400 Hz, correlate by 0.998 and more with theirs."""
    return extractor_for(config, normalization="lead", normalize_recordings=True, long_records="all")
