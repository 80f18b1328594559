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

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    HubertEcgConfig,
    HubertEcgForSequenceClassification,
    HubertEcgModel,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS

from .checkpoint_keys import (
    State,
    check_stated,
    check_tensors,
    count_blocks,
    extractor_for,
    layer_fields,
    load_renamed_state_dict,
    shape_of,
    state_of,
    with_current_weight_norm,
)
from .stand_ins import plain_settings

SECONDS = 5
# By the kernels of the convolutions: their strides, and the sampling rate (Hz) that they were made for.
PUBLISHED_CONVOLUTIONS = {
    (10, 3, 3, 2, 2): ((4, 2, 2, 2, 2), 100),
    (10, 3, 3, 2): ((4, 2, 2, 2), 50),
    (10, 3, 3, 3, 3, 2, 2): ((5, 2, 2, 2, 2, 2, 2), 500),
}
PUBLISHED_SAMPLING_RATE = 100
CONFIGURATIONS = ("hubert_ecg.HuBERTECGConfig", "transformers.models.hubert.configuration_hubert.HubertConfig")
PUBLISHED_SIZES = {(512, 8): 8, (768, 12): 12, (960, 16): 12}  # width and depth -> attention heads
# Settings that shape the forward pass and are in no tensor, as the published models have them and ours is built.
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
    checkpoint: dict, leads: Sequence[str] = STANDARD_LEADS, sampling_rate: float | None = None, **sizes: int
) -> HubertEcgModel | HubertEcgForSequenceClassification:
    """Builds our model from a loaded checkpoint.

    Args:
        checkpoint (`dict`): The state dict, or `{"model_state_dict": state_dict, "model_config": ..., ...}`.
        leads (`Sequence[str]`): Leads in the order in which they were joined; the file does not name them.
        sampling_rate (`float`, *optional*):
            Rate that the convolutions were made for, 50, 100 or 500 Hz; 100 as in the published files, unless
            `model_config` of the file has the kernels of another.
        sizes (`int`): Numbers of layers and heads of a model of no published size, see [`layer_fields`].

    Returns:
        [`HubertEcgModel`], or [`HubertEcgForSequenceClassification`] of a file with `classifier.weight`: for several
        labels a record, as the authors fine-tune the published ones. No file says so; where yours was trained
        otherwise, set `config.problem_type`.

    Raises:
        ValueError: for a tensor that does not fit, convolutions of no published model, settings that contradict the
            tensors, and a size that is neither stated, published nor given.
    """
    state = state_of(checkpoint, "model_state_dict")
    stated = {} if state is checkpoint else plain_settings(checkpoint.get("model_config")) or {}
    if not isinstance(stated, dict):
        raise ValueError(f"Expected model_config of the file to be a configuration, got {type(stated).__name__}.")
    is_classifier = "classifier.weight" in state
    prefix = CLASSIFIER_PREFIX if is_classifier else ""
    required = ("feature_extractor.conv_layers.0.conv.weight", "feature_projection.projection.weight")
    check_tensors(state, [prefix + key for key in required], "HuBERT-ECG")
    state = with_current_weight_norm(state)
    kernels = _kernels(state, prefix)
    rate = PUBLISHED_CONVOLUTIONS[kernels][1]
    known = rate if stated.get("conv_kernel") is not None else PUBLISHED_SAMPLING_RATE
    if rate != (known if sampling_rate is None else sampling_rate):
        raise ValueError(
            f"The file has {len(kernels)} convolutions, {kernels}, those of a model for {rate} Hz; expected those for "
            f"{known if sampling_rate is None else sampling_rate} Hz. If none is missing of yours, say so with "
            f"sampling_rate={rate} (--sampling_rate {rate})."
        )
    fields = {"leads": leads, **_fields(state, prefix, stated, sizes)}
    if is_classifier:
        head = {"num_labels": len(state["classifier.weight"]), "problem_type": "multi_label_classification"}
        model = HubertEcgForSequenceClassification(HubertEcgConfig(**fields, **head))
    else:
        model = HubertEcgModel(HubertEcgConfig(**fields))
    # Ours and theirs have the same names, down to the prefix of a classifier.
    load_renamed_state_dict(model, state, str, [prefix + pattern for pattern in PRETRAINING_ONLY])
    return model


def _kernels(state: State, prefix: str) -> tuple[int, ...]:
    stem = prefix + "feature_extractor.conv_layers."
    layers = range(count_blocks(state, stem))
    kernels = tuple(shape_of(state, f"{stem}{layer}.conv.weight", "out, in, taps")[2] for layer in layers)
    if kernels not in PUBLISHED_CONVOLUTIONS:
        raise ValueError(
            f"The convolutions have the kernels {kernels}; the strides are known of {list(PUBLISHED_CONVOLUTIONS)}."
        )
    return kernels


def _fields(state: State, prefix: str, stated: Mapping[str, Any], sizes: Mapping[str, int]) -> dict:
    kernels = _kernels(state, prefix)
    strides, sampling_rate = PUBLISHED_CONVOLUTIONS[kernels]
    for name, built in (SETTINGS | {"conv_stride": list(strides), "conv_kernel": list(kernels)}).items():
        said = stated.get(name, built)
        if (list(said) if isinstance(said, tuple) else said) != built:
            raise ValueError(f"The file says {name}={said!r}; HuBERT-ECG has {built!r}.")
    hidden_size = shape_of(state, prefix + "feature_projection.projection.weight", "width, channels")[0]
    known = state, prefix + "encoder.layers.", hidden_size, PUBLISHED_SIZES, sizes, ""
    layers = layer_fields(*known, stated.get("num_hidden_layers"), stated.get("num_attention_heads"))
    hidden = shape_of(state, prefix + "encoder.layers.0.feed_forward.intermediate_dense.weight", "hidden, width")[0]
    shown = {"hidden_size": hidden_size, "intermediate_size": hidden}
    check_stated(stated, shown | {"num_hidden_layers": layers["num_hidden_layers"]})
    return layers | {
        "sampling_rate": sampling_rate,
        "num_samples": SECONDS * sampling_rate,
        "conv_dim": tuple(
            len(state[f"{prefix}feature_extractor.conv_layers.{layer}.conv.weight"]) for layer in range(len(kernels))
        ),
        "conv_kernel": kernels,
        "conv_stride": strides,
        "hidden_size": hidden_size,
        "intermediate_size": hidden,
    }


def hubert_ecg_feature_extractor(config: HubertEcgConfig) -> EcgFeatureExtractor:
    """The input of the authors (`utils.py`, `dataset.py`), as near as our steps come to it: every lead from -1 to 1
    over the whole recording, then its first 5 s. Gaps are interpolated; theirs become the mean of the recording."""
    lowpass_hz = LOWPASS_HZ if LOWPASS_HZ < config.sampling_rate / 2 else None
    values = {"normalization": "lead_range", "normalize_recordings": True, "nan_policy": "interpolate"}
    return extractor_for(config, lowpass_hz=lowpass_hz, **values)
