"""Checkpoints of the three encoders that are not of our architecture to ours, tensor by tensor.

**HuBERT-ECG** (Hub: Edoardo-BS/hubert-ecg-small, -base, -large; code and weights CC BY-NC 4.0). The weights are those
of transformers' HuBERT, with what their pretraining predicts beside it (`final_proj.*`, `label_embedding.*`,
`masked_spec_embed`), which an encoder leaves out. Take `model.safetensors` of the Hub. The `.pt` files of the
authors' scripts (`code/pretrain.py`, `code/finetune.py`) hold their configuration as an object, `model_config`, which
is read as its values alone (see `stand_ins`). Strides and heads are in no tensor: where no `model_config` states
them, they are those of the published models, by the number of convolutions and by the width.

**ECG-FM** (Hub: wanglab/ecg-fm; code MIT). The files are of fairseq-signals, whose trainer writes `{"args": None,
"cfg": {...}, "model": state_dict, "optimizer_history", "extra_state", ...}`: settings as plain dictionaries, beside
metrics that may be scalars of numpy. `args` as a namespace and `cfg` as an object of omegaconf, which its loader
takes too, are read as their content. A pretrained model has quantizer, projections and mask embedding beside the
encoder, which are left out; a fine-tuned one has `encoder.*` and the head `proj.*`. The structure is
`fairseq_signals/models/{ecg_transformer,wav2vec2}` with the settings of `w2v_cmsc_rlm.yaml`; with the quantizer it
has the 90.9 million parameters that the authors state.

**ECGFounder** (Hub: PKUDigitalHealth/ECGFounder, `12_lead_ECGFounder.pth`, `1_lead_ECGFounder.pth`; code MIT). The
files are `{"state_dict", ...}` of the class `Net1D` in the authors' `net1d.py`. That class creates batch norms and
their scripts for the published weights (`finetune_model.py`, `ptbxl_eval.py`) leave them out (`use_bn=False`): their
tensors are in the file, untrained, and take no part.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial

from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgFmConfig,
    EcgFounderConfig,
    EcgFounderForSequenceClassification,
    HubertEcgConfig,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS

from .checkpoint_keys import (
    State,
    block_shapes,
    check_built,
    check_stated,
    check_tensors,
    count_blocks,
    extractor_for,
    layer_fields,
    load_renamed_state_dict,
    refuse_contradictions,
    renamed,
    shape_of,
    state_of,
    unlike_the_published,
    with_current_weight_norm,
)
from .stand_ins import plain_settings

logger = logging.getLogger("ecg_transformers")

CONVOLUTIONS = "feature_extractor.conv_layers."
SEVERAL_LABELS = "multi_label_classification"

# --- HuBERT-ECG ---------------------------------------------------------------------------------------------------

SECONDS = 5
# By the kernels of the convolutions: their strides, and the sampling rate (Hz) that they were made for.
PUBLISHED_CONVOLUTIONS = {
    (10, 3, 3, 2, 2): ((4, 2, 2, 2, 2), 100),
    (10, 3, 3, 2): ((4, 2, 2, 2), 50),
    (10, 3, 3, 3, 3, 2, 2): ((5, 2, 2, 2, 2, 2, 2), 500),
}
PUBLISHED_SAMPLING_RATE = 100
CONFIGURATIONS = ("hubert_ecg.HuBERTECGConfig", "transformers.models.hubert.configuration_hubert.HubertConfig")
HUBERT_SIZES = {(512, 8): 8, (768, 12): 12, (960, 16): 12}  # width and depth -> attention heads
# Settings that shape the forward pass and are in no tensor, as the published models have them and ours is built.
HUBERT_SETTINGS = {
    "do_stable_layer_norm": False,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_pos_batch_norm": False,
    "num_conv_pos_embedding_groups": 16,
}
HUBERT_PRETRAINING_ONLY = (r"masked_spec_embed$", r"final_proj\.\d+\.", r"label_embedding\.\d+\.")
LOWPASS_HZ = 40.0  # of scipy.signal.decimate by 5, the last filter before the model


def convert_hubert_ecg_checkpoint(
    checkpoint: dict, leads: Sequence[str] = STANDARD_LEADS, sampling_rate: float | None = None, **sizes: int
) -> PreTrainedModel:
    """Builds our model from an encoder, or from a classifier: for several labels a record, as the authors fine-tune
    the published ones. No file says so; where yours was trained otherwise, set `config.problem_type`.

    Args:
        checkpoint (`dict`): The state dict, or `{"model_state_dict": state_dict, "model_config": ..., ...}`.
        leads (`Sequence[str]`): Leads in the order in which they were joined; the file does not name them.
        sampling_rate (`float`, *optional*):
            Rate that the convolutions were made for, 50, 100 or 500 Hz; 100 as in the published files, unless
            `model_config` of the file has the kernels of another.
        sizes (`int`): Numbers of layers and heads of a model of no published size, see [`layer_fields`].
    """
    state = state_of(checkpoint, "model_state_dict")
    stated = {} if state is checkpoint else plain_settings(checkpoint.get("model_config")) or {}
    if not isinstance(stated, dict):
        raise ValueError(f"Expected model_config of the file to be a configuration, got {type(stated).__name__}.")
    is_classifier = "classifier.weight" in state
    prefix = "hubert_ecg." if is_classifier else ""
    required = (CONVOLUTIONS + "0.conv.weight", "feature_projection.projection.weight")
    check_tensors(state, [prefix + key for key in required], "HuBERT-ECG")
    state = with_current_weight_norm(state)
    convolutions = block_shapes(state, prefix + CONVOLUTIONS, ".conv.weight", "out, in, taps")
    kernels = tuple(taps for _, _, taps in convolutions)
    if kernels not in PUBLISHED_CONVOLUTIONS:
        raise ValueError(
            f"The convolutions have the kernels {kernels}; the strides are known of {list(PUBLISHED_CONVOLUTIONS)}."
        )
    strides, rate = PUBLISHED_CONVOLUTIONS[kernels]
    known = rate if stated.get("conv_kernel") is not None else PUBLISHED_SAMPLING_RATE
    expected = known if sampling_rate is None else sampling_rate
    if rate != expected:
        has = (
            f"{len(kernels)} convolutions, {kernels}, those of a model for {rate} Hz; expected those for {expected} Hz"
        )
        raise unlike_the_published(has, "sampling_rate", rate)
    built = HUBERT_SETTINGS | {"conv_stride": list(strides), "conv_kernel": list(kernels)}
    check_built(stated, built, "HuBERT-ECG")
    width = shape_of(state, prefix + "feature_projection.projection.weight", "width, channels")[0]
    known = state, prefix + "encoder.layers.", width, HUBERT_SIZES, sizes, ""
    layers = layer_fields(*known, stated.get("num_hidden_layers"), stated.get("num_attention_heads"))
    hidden = shape_of(state, prefix + "encoder.layers.0.feed_forward.intermediate_dense.weight", "hidden, width")[0]
    shown = {"hidden_size": width, "intermediate_size": hidden}
    check_stated(stated, shown | {"num_hidden_layers": layers["num_hidden_layers"]})
    fields = {
        "leads": leads,
        "sampling_rate": rate,
        "num_samples": SECONDS * rate,
        "conv_dim": tuple(channels for channels, _, _ in convolutions),
        "conv_kernel": kernels,
        "conv_stride": strides,
        **(layers | shown),
    }
    if is_classifier:
        fields |= {"num_labels": len(state["classifier.weight"]), "problem_type": SEVERAL_LABELS}
    model = (AutoModelForSequenceClassification if is_classifier else AutoModel).from_config(HubertEcgConfig(**fields))
    # Ours and theirs have the same names, down to the prefix of a classifier.
    load_renamed_state_dict(model, state, str, [prefix + pattern for pattern in HUBERT_PRETRAINING_ONLY])
    return model


def hubert_ecg_feature_extractor(config: HubertEcgConfig) -> EcgFeatureExtractor:
    """The input of the authors (`utils.py`, `dataset.py`), as near as our steps come to it: every lead from -1 to 1
    over the whole recording, then its first 5 s. Gaps are interpolated; theirs become the mean of the recording."""
    lowpass_hz = LOWPASS_HZ if LOWPASS_HZ < config.sampling_rate / 2 else None
    values = {"normalization": "lead_range", "normalize_recordings": True, "nan_policy": "interpolate"}
    return extractor_for(config, lowpass_hz=lowpass_hz, **values)


# --- ECG-FM -------------------------------------------------------------------------------------------------------

FM_SIZES = {(768, 12): 12}  # width and depth -> attention heads
STRIDE = 2  # of every convolution
NUM_FM_CONVOLUTIONS = 4
# Settings that a file may state, and what we build; everything else is in the shapes.
FM_SETTINGS = {"extractor_mode": "default", "layer_norm_first": False}
FM_PRETRAINING_ONLY = (r"mask_emb$", r"quantizer\.(vars$|weight_proj\.)", r"project_q\.", r"final_proj\.")

# Ours -> theirs, within the encoder.
FM_RENAMES = [
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
) -> PreTrainedModel:
    """Builds our model from an encoder or a classifier. The file does not name its leads; `sizes` are those of a model
    of no published size, see [`layer_fields`]."""
    state = state_of(checkpoint, "model")
    is_classifier = "proj.weight" in state
    prefix = "encoder." if is_classifier else ""
    required = (CONVOLUTIONS + "0.0.weight", "post_extract_proj.weight", "encoder.layers.0.fc1.weight")
    check_tensors(state, [prefix + key for key in required], "ECG-FM")
    settings = {} if checkpoint is state else _stated_settings(checkpoint)
    state = with_current_weight_norm(state)
    fields = {"leads": leads, **_fm_fields(state, prefix, settings, sizes)}
    if is_classifier:
        fields |= {"num_labels": len(state["proj.weight"]), "problem_type": SEVERAL_LABELS}
    model = (AutoModelForSequenceClassification if is_classifier else AutoModel).from_config(EcgFmConfig(**fields))
    load_renamed_state_dict(model, state, _their_fm_key, [prefix + pattern for pattern in FM_PRETRAINING_ONLY])
    return model


def _stated_settings(checkpoint: dict) -> dict:
    """Settings of the model: `cfg["model"]`, or in files of old the flat `args`."""
    cfg, args = (plain_settings(checkpoint.get(key)) for key in ("cfg", "args"))
    found = cfg.get("model") if isinstance(cfg, dict) else args
    return found if isinstance(found, dict) else {}


def _fm_fields(state: State, prefix: str, settings: dict, sizes: Mapping[str, int]) -> dict:
    check_built(settings, FM_SETTINGS, "ECG-FM")
    convolutions = block_shapes(state, prefix + CONVOLUTIONS, ".0.weight", "out, in, taps")
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
    if not expected and len(convolutions) != NUM_FM_CONVOLUTIONS:
        raise ValueError(
            f"The file has {len(convolutions)} convolutions, the published model {NUM_FM_CONVOLUTIONS}. If none is "
            "missing of yours, convert the whole file, whose `cfg` says how many there are."
        )
    hidden_size = shape_of(state, prefix + "post_extract_proj.weight", "width, channels")[0]
    known = state, prefix + "encoder.layers.", hidden_size, FM_SIZES, sizes, ""
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
        "conv_stride": (STRIDE,) * len(convolutions),
        "conv_bias": prefix + CONVOLUTIONS + "0.0.bias" in state,
        "num_conv_pos_embeddings": taps,
        "num_conv_pos_embedding_groups": hidden_size // group_width,
        "hidden_size": hidden_size,
        "intermediate_size": hidden,
    }


def _their_fm_key(key: str) -> str:
    if key.startswith("classifier."):
        return "proj." + key.removeprefix("classifier.")
    inner = renamed(key.removeprefix("ecg_fm."), FM_RENAMES)
    return "encoder." + inner if key.startswith("ecg_fm.") else inner


def ecg_fm_feature_extractor(config: EcgFmConfig) -> EcgFeatureExtractor:
    """The input of the authors (`scripts/preprocess/ecg/preprocess.py`, `infer_quickstart.ipynb`): no filter, z-scores
    of every lead over the whole recording, then segments of 5 s; constant leads are zeros. The authors' own ten
    recordings of CODE-15, resampled from 400 Hz, correlate by 0.998 and more with theirs."""
    return extractor_for(config, normalization="lead", normalize_recordings=True, long_records="all")


# --- ECGFounder ---------------------------------------------------------------------------------------------------

PUBLISHED_LEADS = {12: STANDARD_LEADS, 1: ("I",)}
FOUNDER_FILTERS = {
    "notch_hz": 50.0,
    "highpass_hz": 0.67,
    "lowpass_hz": 40.0,
    "filter_order": 4,
    "median_baseline_seconds": 0.4,
}
BATCH_NORM = r"(first_bn|stage_list\.\d+\.block_list\.\d+\.bn\d)\."
UNTRAINED = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}

# Ours -> theirs.
FOUNDER_RENAMES = [
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
    """Builds our model; `AutoModel` then loads its encoder without the head. Leads are by default the twelve, or lead
    I of a one-lead model; the number of blocks is given where stages are as wide as the published ones and not as
    deep."""
    state = state_of(checkpoint, "state_dict")
    required = ("first_conv.conv.weight", "stage_list.0.block_list.0.conv2.conv.weight", "dense.weight")
    check_tensors(state, required, "ECGFounder")
    model = EcgFounderForSequenceClassification(EcgFounderConfig(**_founder_fields(state, leads, num_hidden_layers)))
    norms = {
        key: tensor.double() - UNTRAINED[key.rsplit(".")[-1]]
        for key, tensor in state.items()
        if re.match(BATCH_NORM, key)
    }
    if trained := [key for key, change in norms.items() if change.abs().max() >= 1e-6]:
        logger.warning(
            f"The batch norms of the file were trained ({trained[0]} and {len(trained) - 1} more). They are left out, "
            "as by the authors' scripts; a model that was trained with them gives other features."
        )
    load_renamed_state_dict(model, state, partial(renamed, renames=FOUNDER_RENAMES), [BATCH_NORM])
    return model


def _founder_fields(state: State, leads: Sequence[str] | None, given_blocks: int | None) -> dict:
    stem_channels, num_leads, kernel_size = shape_of(state, "first_conv.conv.weight", "channels, leads, taps")
    leads = PUBLISHED_LEADS.get(num_leads, ()) if leads is None else leads
    if len(leads) != num_leads:
        raise ValueError(f"The file reads {num_leads} lead(s), not {list(leads)}. Give them: leads (--leads).")
    axes = "channels, channels of a group, taps"
    first = block_shapes(state, "stage_list.", ".block_list.0.conv2.conv.weight", axes)
    channels = tuple(shape[0] for shape in first)
    depths = tuple(count_blocks(state, f"stage_list.{stage}.block_list.") for stage in range(len(first)))
    published = EcgFounderConfig()
    is_published = stem_channels == published.stem_channels and channels == published.stage_channels[: len(first)]
    refuse_contradictions({"num_hidden_layers": sum(depths)}, {"num_hidden_layers": given_blocks})
    if given_blocks is None and is_published and depths != published.stage_depths:
        has = f"stages of {list(depths)} blocks, those of the published model {list(published.stage_depths)}"
        raise unlike_the_published(has, "num_hidden_layers", sum(depths))
    return {
        "leads": leads,
        "stem_channels": stem_channels,
        "stage_channels": channels,
        "stage_depths": depths,
        "kernel_size": kernel_size,
        "group_width": first[0][1],
        "num_labels": shape_of(state, "dense.weight", "labels, width")[0],
        "problem_type": SEVERAL_LABELS,
    }


def ecg_founder_feature_extractor(config: EcgFounderConfig) -> EcgFeatureExtractor:
    """The input of the authors (`dataset.py`, `util.py`): a notch at 50 Hz, 0.67 to 40 Hz, the running median of 0.4 s
    subtracted, then one mean and one deviation over all leads and the whole 10 s."""
    return extractor_for(config, normalization="record", nan_policy="interpolate", **FOUNDER_FILTERS)
