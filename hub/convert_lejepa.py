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
from functools import partial

import numpy as np
import torch

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgViTConfig,
    EcgViTForSequenceClassification,
    EcgViTModel,
)
from ecg_transformers.modeling.configuration_lejepa import LeJepaConfig
from ecg_transformers.modeling.leads import STANDARD_LEADS, canonical_leads
from ecg_transformers.modeling.modeling_lejepa import LeJepaForPreTraining

from .checkpoint_keys import (
    count_blocks,
    fixed_statistics_extractor,
    fused_state_dict,
    load_fused_state_dict,
)
from .convert_weimann import CLIP, PUBLISHED_EVALUATION, RENAMES, SINGLE_LABEL_TASK, SUPERCLASSES

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
    "num_heads": 6,
    "norm_eps": 1e-6,
    "num_views": 4,
    "lambda": 0.02,
    "num_slices": 1024,
    "crop_scale": (0.5, 1.0),
    "amplitude_scale": (0.8, 1.2),
    "noise_std": 0.05,
}
ATTENTIVE_POOLER_HEADS = 6  # written into the authors' code

PROJECTOR_NAMES = {"fc1": "net.0", "norm1": "net.1", "fc2": "net.3", "norm2": "net.4", "fc3": "net.6"}

Model = EcgViTModel | LeJepaForPreTraining | EcgViTForSequenceClassification


def convert_lejepa_checkpoint(checkpoint: dict, **given) -> Model:
    """Builds our model from a loaded checkpoint of LeJEPA-ECG.

    Args:
        checkpoint (`dict`): One of the three kinds of file, or a state dict of theirs.
        given: Fields of our configuration that the file lacks, such as `leads`, `sampling_rate` or
            `num_attention_heads`; they win over the file.

    Returns:
        [`LeJepaForPreTraining`], [`EcgViTForSequenceClassification`] or [`EcgViTModel`], by what the file holds.

    Raises:
        ValueError: if a key is missing or unexpected, or a shape does not fit.
    """
    state = checkpoint["model"] if isinstance(checkpoint.get("model"), dict) else checkpoint
    settings = PUBLISHED | checkpoint.get("config", checkpoint.get("encoder_config", {}))
    for key in ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "norm.weight"):
        if "encoder." + key not in state:
            raise ValueError(
                f"This is no LeJEPA-ECG checkpoint: expected the key {'encoder.' + key!r}, found "
                f"{sorted(map(str, state))[:6]}..."
            )
    fields = _encoder_fields(state, settings) | given
    if "projector.net.0.weight" in state:
        model = LeJepaForPreTraining(LeJepaConfig(**(_pretraining_fields(state, settings) | fields)))
    elif any(not key.startswith("encoder.") for key in state):
        fields = fields | _classifier_fields(state, fields, checkpoint) | given
        model = EcgViTForSequenceClassification(EcgViTConfig(**fields))
    else:
        model = EcgViTModel(EcgViTConfig(**fields))
    _check_leads(model.config, state)
    load_lejepa_state_dict(model, state)
    return model


def _encoder_fields(state: dict, settings: dict) -> dict:
    width, _, patch_size = state["encoder.patch_embed.proj.weight"].shape
    # Without LayerScale the file says 0; with it, the initial value is of no interest any more.
    has_layer_scale = "encoder.blocks.0.attn_ls.weight" in state
    return {
        "leads": canonical_leads(settings["channels"]),
        "sampling_rate": settings["sampling_frequency"],
        "num_samples": settings["channel_size"],
        "patch_size": patch_size,
        "patching": "all_leads",
        "attention_pattern": "full",
        "position_embedding": "sincos_interleaved",
        "position_every_layer": False,
        "num_registers": state["encoder.registers"].shape[1] if "encoder.registers" in state else 0,
        "hidden_size": width,
        "num_hidden_layers": count_blocks(state, "encoder.blocks."),
        "num_attention_heads": settings["num_heads"],
        "intermediate_size": state["encoder.blocks.0.mlp.fc1.weight"].shape[0],
        "use_bias": "encoder.patch_embed.proj.bias" in state,
        "qkv_bias": "encoder.blocks.0.attn.qkv.bias" in state,
        "layer_norm_bias": "encoder.norm.bias" in state,
        "layer_norm_eps": settings["norm_eps"],
        "layer_scale_init_value": (settings.get("layer_scale_eps") or 1.0) if has_layer_scale else None,
    }


def _pretraining_fields(state: dict, settings: dict) -> dict:
    return {
        "augmentation": "published",
        "sigreg_pooling": "pooled",
        "sync_statistics": False,
        "decay_all_parameters": True,
        "projector_hidden_size": state["projector.net.0.weight"].shape[0],
        "projection_size": state["projector.net.6.weight"].shape[0],
        "num_views": settings["num_views"],
        "num_slices": settings["num_slices"],
        "sigreg_weight": settings["lambda"],
        "crop_scale": settings["crop_scale"],
        "amplitude_scale": settings["amplitude_scale"],
        "noise_std": settings["noise_std"],
    }


def _classifier_fields(state: dict, fields: dict, checkpoint: dict) -> dict:
    evaluation = PUBLISHED_EVALUATION | checkpoint.get("eval_config", {})
    is_attentive = "attn_pool.query_token" in state
    head = "attn_pool.cross_attention_block.proj" if is_attentive else "fc"
    if head + ".weight" not in state:
        raise ValueError(
            "Expected a projector or a head (attn_pool.* or fc.weight) beside the encoder, found "
            f"{sorted(key for key in state if not key.startswith('encoder.'))[:6]}..."
        )
    if is_attentive and fields["num_attention_heads"] != ATTENTIVE_POOLER_HEADS:
        raise ValueError(
            f"The authors' attentive pooler has {ATTENTIVE_POOLER_HEADS} heads whatever the encoder has; ours has the "
            f"encoder's, here {fields['num_attention_heads']}. Such a head cannot be converted."
        )
    num_labels, task = state[head + ".weight"].shape[0], checkpoint.get("task")
    labels = SUPERCLASSES if task in (SINGLE_LABEL_TASK, "superdiagnostic") and num_labels == 5 else None
    names = labels or [f"LABEL_{number}" for number in range(num_labels)]
    return {
        "num_samples": round(evaluation["crop_duration"] * fields["sampling_rate"]),
        "classifier_pooling": "attentive" if is_attentive else "register" if evaluation["use_register"] else "pooled",
        "classifier_bias": head + ".bias" in state,
        "problem_type": "single_label_classification" if task == SINGLE_LABEL_TASK else "multi_label_classification",
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def _check_leads(config: EcgViTConfig, state: dict):
    num_leads = state["encoder.patch_embed.proj.weight"].shape[1]
    if len(config.leads) != num_leads:
        raise ValueError(
            f"The patches have {num_leads} leads, the configuration names {len(config.leads)}: {list(config.leads)}. "
            "Give the leads of the checkpoint with --leads."
        )


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
            Whose constants to use, `"mimic-iv-ecg"` (pretraining; the default) or `"ptb-xl"`.
    """
    config = model.config
    preprocess = checkpoint.get("preprocess")
    if preprocess is not None and dataset is None:
        means, stds = (np.asarray(preprocess[name], dtype=float).ravel().tolist() for name in ("mean", "std"))
    else:
        dataset = dataset or "mimic-iv-ecg"
        if dataset not in STATISTICS_MV:
            raise ValueError(f"No statistics are known of {dataset!r}. Expected one of {sorted(STATISTICS_MV)}.")
        order, means, stds = STATISTICS_MV[dataset]
        columns = [order.index(lead) for lead in config.leads]
        means, stds = ([values[column] for column in columns] for values in (means, stds))
    evaluation = PUBLISHED_EVALUATION | checkpoint.get("eval_config", {})
    return fixed_statistics_extractor(model, means, stds, CLIP, evaluation["crop_stride"])
