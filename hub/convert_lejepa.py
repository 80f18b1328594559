"""Checkpoints of LeJEPA-ECG to ours and back, tensor by tensor.

Three kinds of file, told apart by what they hold:

* pretraining, `chkpt_{step}.pt` (and `best_ckpt.pt`, which is documented and never written), `{"model", "optimizer",
  "config", "step", ...}` with the prefixes `encoder.` and `projector.`, becomes [`LeJepaForPreTraining`] with the
  published settings (`augmentation="published"`, `sigreg_pooling="pooled"`, ...);
* linear probe, `{task}_best_chkpt.pt`, `{"model", "encoder_config", "eval_config", "preprocess", "task", ...}` with
  `encoder.` and a head, becomes [`EcgViTForSequenceClassification`];
* an encoder alone becomes [`EcgViTModel`].

The encoder is laid out as that of ECG-JEPA (Weimann), of whose code this is a descendant; the names of the head are
theirs too. Position tables are in no file.
"""

import re
from collections.abc import Mapping
from functools import partial

import torch

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgViTConfig,
    EcgViTForSequenceClassification,
    EcgViTModel,
)
from ecg_transformers.modeling.configuration_lejepa import LeJepaConfig
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.modeling_lejepa import LeJepaForPreTraining

from .checkpoint_keys import (
    check_stated,
    check_tensors,
    fixed_statistics_extractor,
    fused_state_dict,
    load_fused_state_dict,
    settings_of,
    settled,
    shape_of,
    state_of,
    with_given,
)
from .convert_weimann import (
    CLIP,
    PUBLISHED_EVALUATION,
    RENAMES,
    classifier_fields,
    encoder_fields,
    lead_constants,
    stated_corpus,
)

# Standard deviation of each lead in millivolts, by which the authors divide; the means of MIMIC-IV-ECG are taken as 0.
# In the order of their files, of which MIMIC's has aVF before aVL.
MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
MIMIC_STDS_MV = (0.155, 0.158, 0.166, 0.133, 0.143, 0.141, 0.207, 0.282, 0.284, 0.253, 0.222, 0.197)
PTB_XL_MEANS_MV = (-0.002, -0.002, 0.0, 0.002, -0.001, -0.001, 0.0, -0.001, -0.002, -0.001, -0.001, -0.001)
PTB_XL_STDS_MV = (0.191, 0.166, 0.173, 0.142, 0.149, 0.147, 0.235, 0.338, 0.335, 0.299, 0.294, 0.242)
STATISTICS_MV = {
    "mimic-iv-ecg": (MIMIC_LEADS, (0.0,) * 12, MIMIC_STDS_MV),
    "ptb-xl": (STANDARD_LEADS, PTB_XL_MEANS_MV, PTB_XL_STDS_MV),
}

# What the published settings say where a file's `config` does not.
PUBLISHED = {
    "channels": STANDARD_LEADS,
    "sampling_frequency": 500,
    "channel_size": 5000,
    "norm_eps": 1e-6,
    "num_registers": 1,
    "num_views": 4,
    "lambda": 0.02,
    "num_slices": 1024,
    "crop_scale": (0.5, 1.0),
    "amplitude_scale": (0.8, 1.2),
    "noise_std": 0.05,
}
# Fields of ours that no tensor shows -> their setting.
SETTINGS = {
    "leads": "channels",
    "sampling_rate": "sampling_frequency",
    "num_samples": "channel_size",
    "layer_norm_eps": "norm_eps",
    "num_views": "num_views",
    "num_slices": "num_slices",
    "sigreg_weight": "lambda",
    "crop_scale": "crop_scale",
    "amplitude_scale": "amplitude_scale",
    "noise_std": "noise_std",
}
PUBLISHED_SIZES = {(384, 8): 6}  # width and depth of the encoder -> attention heads
ATTENTIVE_POOLER_HEADS = 6  # written into the authors' code

PROJECTOR_NAMES = {"fc1": "net.0", "norm1": "net.1", "fc2": "net.3", "norm2": "net.4", "fc3": "net.6"}

Model = EcgViTModel | LeJepaForPreTraining | EcgViTForSequenceClassification


def convert_lejepa_checkpoint(
    checkpoint: dict,
    num_attention_heads: int | None = None,
    num_hidden_layers: int | None = None,
    num_registers: int | None = None,
    **given,
) -> Model:
    """Builds our model from a loaded checkpoint of LeJEPA-ECG.

    Args:
        checkpoint (`dict`): One of the three kinds of file, or a state dict of theirs.
        num_attention_heads (`int`, *optional*):
            By default that of the file's settings, else that of the published model of this width and depth.
        num_hidden_layers, num_registers (`int`, *optional*):
            Sizes of a file without settings, where they are not the published ones.
        given: Fields of our configuration that the file lacks, such as `leads` or `sampling_rate`.

    Returns:
        [`LeJepaForPreTraining`], [`EcgViTForSequenceClassification`] or [`EcgViTModel`], by what the file holds.

    Raises:
        ValueError: if a key is missing or unexpected, a shape does not fit, the file's settings contradict its
            tensors, a given value contradicts either, or a size is neither stated, published nor given.
    """
    state, stated = state_of(checkpoint, "model"), settings_of(checkpoint, "config", "encoder_config")
    required = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "norm.weight")
    check_tensors(state, ["encoder." + key for key in required], "LeJEPA-ECG")
    settings = settled(PUBLISHED, stated)
    if "leads" in given and "channels" not in stated:
        settings["channels"] = given["leads"]
    fields = encoder_fields(
        *(state, "encoder.", settings, stated, PUBLISHED_SIZES, num_attention_heads, num_hidden_layers, num_registers)
    )
    assumed = {ours for ours, theirs in SETTINGS.items() if theirs not in stated}
    if any(key.startswith("projector.") for key in state):
        fields |= _pretraining_fields(state, settings, stated)
        model = LeJepaForPreTraining(LeJepaConfig(**with_given(fields, given, assumed)))
    elif any(not key.startswith("encoder.") for key in state):
        fields |= classifier_fields(state, given.get("sampling_rate", fields["sampling_rate"]), checkpoint)
        if fields["classifier_pooling"] == "attentive" and fields["num_attention_heads"] != ATTENTIVE_POOLER_HEADS:
            raise ValueError(
                f"The authors' attentive pooler has {ATTENTIVE_POOLER_HEADS} heads whatever the encoder has; ours has "
                f"the encoder's, here {fields['num_attention_heads']}. Such a head cannot be converted."
            )
        model = EcgViTForSequenceClassification(EcgViTConfig(**with_given(fields, given, assumed)))
    else:
        model = EcgViTModel(EcgViTConfig(**with_given(fields, given, assumed)))
    load_lejepa_state_dict(model, state)
    return model


def _pretraining_fields(state: dict, settings: dict, stated: Mapping) -> dict:
    hidden_size, _ = shape_of(state, "projector.net.0.weight", "hidden, width")
    projection_size, _ = shape_of(state, "projector.net.6.weight", "projection, hidden")
    check_stated(stated, {"proj_hidden_dim": hidden_size, "proj_dim": projection_size})
    return {
        "augmentation": "published",
        "sigreg_pooling": "pooled",
        "sync_statistics": False,
        "decay_all_parameters": True,
        "projector_hidden_size": hidden_size,
        "projection_size": projection_size,
        "num_views": settings["num_views"],
        "num_slices": settings["num_slices"],
        "sigreg_weight": settings["lambda"],
        "crop_scale": settings["crop_scale"],
        "amplitude_scale": settings["amplitude_scale"],
        "noise_std": settings["noise_std"],
    }


def load_lejepa_state_dict(model: Model, state: dict[str, torch.Tensor]) -> None:
    """Copies LeJEPA-ECG's tensors into `model`; every key of the file and of the model has to be accounted for."""
    load_fused_state_dict(model, state, partial(_their_key, model))


def lejepa_state_dict(model: Model) -> dict[str, torch.Tensor]:
    """The way back: our weights under the authors' names, q, k and v fused, patch weights as those of a Conv1d."""
    return fused_state_dict(model, partial(_their_key, model))


def _their_key(model: Model, key: str) -> str:
    if key.startswith("projector."):
        _, name, tensor = key.split(".")
        return f"projector.{PROJECTOR_NAMES[name]}.{tensor}"
    if key.startswith("classifier."):
        is_attentive = model.config.classifier_pooling == "attentive"
        return key.replace("classifier.", "attn_pool.cross_attention_block.proj." if is_attentive else "fc.")
    if not key.startswith("attentive_pooler."):
        key = "encoder." + key.removeprefix("ecg_vit.")
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def lejepa_feature_extractor(model: Model, checkpoint: dict, dataset: str | None = None) -> EcgFeatureExtractor:
    """The input of the authors' models: fixed mean and standard deviation of each lead, clipped at 5; gaps
    interpolated. Records of a classifier are cut into their overlapping crops, whose **logits** are averaged.

    The authors compute in half precision (steps of 0.004 at 5), we in single.

    Args:
        model: What [`convert_lejepa_checkpoint`] made of `checkpoint`.
        checkpoint (`dict`): The file. A linear probe's `preprocess` has the statistics of its training records.
        dataset (`str`, *optional*):
            Whose constants to use, `"mimic-iv-ecg"` or `"ptb-xl"`. By default the corpus that the file was pretrained
            on (`datasets` of its settings), MIMIC-IV-ECG if it names none.

    Raises:
        ValueError: for a file of several corpora, or of one without known constants, unless `dataset` says whose.
    """
    config = model.config
    preprocess = settings_of(checkpoint, "preprocess")
    if preprocess and dataset is None:
        means, stds = (lead_constants(preprocess, name, len(config.leads)) for name in ("mean", "std"))
    else:
        dataset = dataset or stated_corpus(checkpoint, STATISTICS_MV, "mimic-iv-ecg")
        if dataset not in STATISTICS_MV:
            raise ValueError(f"No statistics are known of {dataset!r}. Expected one of {sorted(STATISTICS_MV)}.")
        order, means, stds = STATISTICS_MV[dataset]
        columns = [order.index(lead) for lead in config.leads]
        means, stds = ([values[column] for column in columns] for values in (means, stds))
    evaluation = PUBLISHED_EVALUATION | dict(settings_of(checkpoint, "eval_config"))
    return fixed_statistics_extractor(model, means, stds, CLIP, evaluation["crop_stride"])
