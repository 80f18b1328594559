"""Checkpoints of ECG-JEPA (Weimann & Conrad, repository kweimann/ECG-JEPA) to ours and back, tensor by tensor.

Three kinds of file, told apart by what they hold:

* pretraining, `{"model", "optimizer", "config", "step"}` with the prefixes `encoder.` (student), `predictor.` and
  `target_encoder.` (teacher), becomes [`EcgJepaForPreTraining`];
* minified, `{"model", "config"}` with `target_encoder.` alone, becomes [`EcgViTModel`];
* classifier, `{"model", "config", "eval_config", "preprocess", "task"}` with `encoder.` and a head, becomes
  [`EcgViTForSequenceClassification`].

Commits before d7b787b (October 2025) gave layer norms a bias although `bias: False`; loaded into their later code
without `strict`, such files lose it without a word. Here the tensors decide. Position tables are in no file.
"""

import re
from functools import partial

import numpy as np
import torch
from numpy._core import multiarray

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgViTConfig,
    EcgViTForSequenceClassification,
    EcgViTModel,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS, canonical_leads

from .checkpoint_keys import (
    count_blocks,
    fixed_statistics_extractor,
    fused_state_dict,
    load_fused_state_dict,
)

NUMPY_GLOBALS = [
    np.ndarray,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    multiarray.scalar,
    multiarray._reconstruct,
    (multiarray.scalar, "numpy.core.multiarray.scalar"),
    (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
]
"""What a classifier file holds beside tensors (the mean and standard deviation of its records), for
`torch.serialization.safe_globals`."""

# What the published presets say where a file without `config` does not.
PUBLISHED = {
    "channels": STANDARD_LEADS,
    "sampling_frequency": 500,
    "channel_size": 5000,
    "min_block_size": 10,
    "min_keep_ratio": 0.15,
    "max_keep_ratio": 0.25,
    "norm_eps": 1e-6,
}
NUM_HEADS_BY_WIDTH = {192: 4, 384: 6, 768: 12}
PREDICTOR_NUM_HEADS_BY_WIDTH = {96: 4, 192: 6, 384: 12}
PUBLISHED_EVALUATION = {"crop_duration": 2.5, "crop_stride": 1.25, "use_register": True}

SUPERCLASSES = ("CD", "HYP", "MI", "NORM", "STTC")
SINGLE_LABEL_TASK = "ST-MEM"

# Mean and standard deviation of each lead in millivolts, as the authors fixed them for each corpus; here in the order
# of STANDARD_LEADS. CPSC-Extra uses those of CPSC (a slip of the authors' registry); baseline was removed from CODE-15
# and St Petersburg before.
ZEROS = (0.0,) * 12
STATISTICS_MV = {
    "mimic-iv-ecg": (
        (0.023, 0.015, -0.007, -0.019, 0.014, 0.004, -0.018, -0.004, 0.002, 0.017, 0.022, 0.022),
        (0.155, 0.158, 0.166, 0.133, 0.141, 0.143, 0.207, 0.282, 0.284, 0.253, 0.222, 0.197),
    ),
    "ptb-xl": (
        (-0.002, -0.002, 0.0, 0.002, -0.001, -0.001, 0.0, -0.001, -0.002, -0.001, -0.001, -0.001),
        (0.191, 0.166, 0.173, 0.142, 0.149, 0.147, 0.235, 0.338, 0.335, 0.299, 0.294, 0.242),
    ),
    "code-15": (ZEROS, (0.488, 0.450, 0.437, 0.416, 0.405, 0.370, 0.548, 0.639, 0.719, 0.695, 0.676, 0.639)),
    "chapman-shaoxing": (
        (0.002, 0.005, 0.003, -0.002, -0.002, 0.003, 0.0, 0.003, 0.004, 0.004, 0.003, -0.001),
        (0.140, 0.171, 0.145, 0.138, 0.114, 0.143, 0.218, 0.355, 0.366, 0.365, 0.332, 0.299),
    ),
    "ningbo": (
        (0.002, 0.004, 0.002, -0.001, -0.001, 0.002, 0.0, 0.003, 0.003, 0.004, 0.003, 0.0),
        (0.145, 0.179, 0.159, 0.142, 0.123, 0.153, 0.228, 0.368, 0.377, 0.394, 0.405, 0.444),
    ),
    "georgia": (
        (-0.003, -0.002, 0.001, 0.003, -0.002, -0.001, -0.004, -0.004, -0.003, -0.003, -0.003, -0.003),
        (0.157, 0.178, 0.164, 0.147, 0.134, 0.153, 0.213, 0.285, 0.272, 0.245, 0.224, 0.209),
    ),
    "cpsc": (ZEROS, (0.214, 0.236, 0.221, 0.209, 0.196, 0.214, 0.336, 0.417, 0.449, 0.483, 0.523, 0.561)),
    "ptb": (ZEROS, (0.642, 0.975, 0.953, 0.674, 0.651, 0.909, 0.643, 0.658, 0.668, 0.688, 0.648, 0.622)),
    "st-petersburg": (ZEROS, (0.132, 0.370, 0.353, 0.215, 0.191, 0.356, 0.234, 0.320, 0.328, 0.290, 0.317, 0.337)),
}
CLIP = 5.0

# Ours -> theirs, part after part of a name.
RENAMES = [
    (r"embeddings\.register_tokens$", "registers"),
    (r"embeddings\.projection\.", "patch_embed.proj."),
    (r"attention\.[qkv]_proj\.", "attn.qkv."),
    (r"attention\.o_proj\.", "attn.proj."),
    (r"attention_residual\.layer_scale$", "attn_ls.weight"),
    (r"mlp_residual\.layer_scale$", "mlp_ls.weight"),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"layernorm\.", "norm."),
    (r"layers\.", "blocks."),
    (r"^predictor\.embedding\.", "predictor.embed."),
    (r"^predictor\.projection\.", "predictor.proj."),
    (r"^attentive_pooler\.query_token$", "attn_pool.query_token"),
    (r"^attentive_pooler\.q_proj\.", "attn_pool.cross_attention_block.q."),
    (r"^attentive_pooler\.[kv]_proj\.", "attn_pool.cross_attention_block.kv."),
]

Model = EcgViTModel | EcgJepaForPreTraining | EcgViTForSequenceClassification


def convert_weimann_checkpoint(
    checkpoint: dict, num_attention_heads: int | None = None, predictor_num_attention_heads: int | None = None, **given
) -> Model:
    """Builds our model from a loaded checkpoint of Weimann & Conrad.

    Args:
        checkpoint (`dict`): One of the three kinds of file, or a state dict of theirs.
        num_attention_heads, predictor_num_attention_heads (`int`, *optional*):
            By default those of the file's `config`, else those of the published model of this width.
        given: Fields of our configuration that the file's `config` lacks, such as `leads` or `sampling_rate`.

    Returns:
        [`EcgJepaForPreTraining`], [`EcgViTModel`] or [`EcgViTForSequenceClassification`], by what the file holds.

    Raises:
        ValueError: if a key is missing or unexpected, or a shape does not fit.
    """
    state, settings = _state_of(checkpoint), PUBLISHED | checkpoint.get("config", {})
    settings["channels"] = given.get("leads", settings["channels"])
    whole = "predictor.mask_token" in state
    prefix = "target_encoder." if "target_encoder.norm.weight" in state else "encoder."
    for key in ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "norm.weight"):
        if prefix + key not in state:
            raise ValueError(
                f"This is no ECG-JEPA (Weimann) checkpoint: expected the key {prefix + key!r}, found "
                f"{sorted(map(str, state))[:6]}..."
            )
    fields = _encoder_fields(state, prefix, settings, num_attention_heads)
    if whole:
        fields |= _pretraining_fields(state, settings, predictor_num_attention_heads)
        model = EcgJepaForPreTraining(EcgJepaConfig(**(fields | given)))
    elif prefix == "target_encoder.":
        model = EcgViTModel(EcgViTConfig(**(fields | given)))
    else:
        fields |= _classifier_fields(state, settings, checkpoint)
        model = EcgViTForSequenceClassification(EcgViTConfig(**(fields | given)))
    load_weimann_state_dict(model, state)
    return model


def _state_of(checkpoint: dict) -> dict[str, torch.Tensor]:
    return checkpoint["model"] if isinstance(checkpoint.get("model"), dict) else checkpoint


def _encoder_fields(state: dict, prefix: str, settings: dict, num_attention_heads: int | None) -> dict:
    width, num_leads, patch_size = state[prefix + "patch_embed.proj.weight"].shape
    leads = canonical_leads(settings["channels"])
    if len(leads) != num_leads:
        raise ValueError(
            f"The patches of the checkpoint have {num_leads} leads, not {len(leads)}: {list(leads)}. Give the leads "
            "of the checkpoint with --leads."
        )
    # Without LayerScale the file says 0; with it, the initial value is of no interest any more.
    has_layer_scale = prefix + "blocks.0.attn_ls.weight" in state
    return {
        "leads": leads,
        "sampling_rate": settings["sampling_frequency"],
        "num_samples": settings["channel_size"],
        "patch_size": patch_size,
        "patching": "all_leads",
        "attention_pattern": "full",
        "position_embedding": "sincos_interleaved",
        "position_every_layer": False,
        "num_registers": state[prefix + "registers"].shape[1] if prefix + "registers" in state else 0,
        "hidden_size": width,
        "num_hidden_layers": count_blocks(state, prefix + "blocks."),
        "num_attention_heads": num_attention_heads
        or settings.get("num_heads")
        or _published_heads(NUM_HEADS_BY_WIDTH, width, "num_attention_heads"),
        "intermediate_size": state[prefix + "blocks.0.mlp.fc1.weight"].shape[0],
        "use_bias": prefix + "patch_embed.proj.bias" in state,
        "qkv_bias": prefix + "blocks.0.attn.qkv.bias" in state,
        "layer_norm_bias": prefix + "norm.bias" in state,
        "layer_norm_eps": settings["norm_eps"],
        "layer_scale_init_value": (settings.get("layer_scale_eps") or 1.0) if has_layer_scale else None,
    }


def _pretraining_fields(state: dict, settings: dict, num_attention_heads: int | None) -> dict:
    width = state["predictor.embed.weight"].shape[0]
    return {
        "mask_type": "segments",
        "mask_ratio": (round(1 - settings["max_keep_ratio"], 12), round(1 - settings["min_keep_ratio"], 12)),
        "min_segment_patches": settings["min_block_size"],
        "evaluated_encoder": "teacher",
        "initializer": "weimann",
        "target_normalization": "none",
        "prediction_loss": "l1",
        "predictor_hidden_size": width,
        "predictor_num_hidden_layers": count_blocks(state, "predictor.blocks."),
        "predictor_num_attention_heads": num_attention_heads
        or settings.get("pred_num_heads")
        or _published_heads(PREDICTOR_NUM_HEADS_BY_WIDTH, width, "predictor_num_attention_heads"),
        "predictor_intermediate_size": state["predictor.blocks.0.mlp.fc1.weight"].shape[0],
    }


def _classifier_fields(state: dict, settings: dict, checkpoint: dict) -> dict:
    evaluation = PUBLISHED_EVALUATION | checkpoint.get("eval_config", {})
    is_attentive = "attn_pool.query_token" in state
    head = "attn_pool.cross_attention_block.proj" if is_attentive else "fc"
    if head + ".weight" not in state:
        raise ValueError(
            f"Expected a head (attn_pool.* or fc.weight) beside the encoder, found only {sorted(state)[:6]}..."
        )
    num_labels, task = state[head + ".weight"].shape[0], checkpoint.get("task")
    labels = SUPERCLASSES if task in (SINGLE_LABEL_TASK, "superdiagnostic") and num_labels == 5 else None
    names = labels or [f"LABEL_{number}" for number in range(num_labels)]
    return {
        "num_samples": round(evaluation["crop_duration"] * settings["sampling_frequency"]),
        "classifier_pooling": "attentive" if is_attentive else "register" if evaluation["use_register"] else "pooled",
        "classifier_bias": head + ".bias" in state,
        "problem_type": "single_label_classification" if task == SINGLE_LABEL_TASK else "multi_label_classification",
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def _published_heads(by_width: dict[int, int], width: int, field: str) -> int:
    if width not in by_width:
        raise ValueError(f"No published model has width {width}, and the file names no number of heads. Give {field}.")
    return by_width[width]


def load_weimann_state_dict(model: Model, state: dict[str, torch.Tensor]) -> None:
    """Copies Weimann's tensors into `model`; every key of the file and of the model has to be accounted for."""
    load_fused_state_dict(model, state, partial(_their_key, model))


def weimann_state_dict(model: Model) -> dict[str, torch.Tensor]:
    """The way back: our weights under Weimann's names, q, k and v fused, patch weights as those of a Conv1d."""
    return fused_state_dict(model, partial(_their_key, model))


def _their_key(model: Model, key: str) -> str:
    if isinstance(model, EcgJepaForPreTraining):
        by_teacher = model.config.evaluated_encoder == "teacher"
        prefixes = {"ecg_vit.": "target_encoder." if by_teacher else "encoder.", "student.": "encoder."}
        prefixes["teacher."] = "target_encoder."
    elif isinstance(model, EcgViTForSequenceClassification):
        is_attentive = model.config.classifier_pooling == "attentive"
        head = "attn_pool.cross_attention_block.proj." if is_attentive else "fc."
        prefixes = {"ecg_vit.": "encoder.", "classifier.": head}
    else:
        prefixes = {"": "target_encoder."}
    for ours, theirs in prefixes.items():
        if key.startswith(ours):
            key = theirs + key.removeprefix(ours)
            break
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def weimann_feature_extractor(model: Model, checkpoint: dict, dataset: str | None = None) -> EcgFeatureExtractor:
    """The input of the authors' models: fixed mean and standard deviation of each lead, clipped at 5; gaps
    interpolated. Records of a classifier are cut into their overlapping crops, whose **logits** are averaged.

    The authors normalise every corpus by its own statistics, so what is right depends on the recordings to come: give
    your own as `lead_means` and `lead_stds` of the result's class where they differ. They compute in half precision,
    we in single.

    Args:
        model: What [`convert_weimann_checkpoint`] made of `checkpoint`.
        checkpoint (`dict`): The file. A classifier's `preprocess` has the statistics of its training records.
        dataset (`str`, *optional*):
            Corpus whose statistics to use: `"ptb-xl"`, `"mimic-iv-ecg"`, ... By default the one that the file was
            pretrained on, PTB-XL if they were several.
    """
    config = model.config
    preprocess = checkpoint.get("preprocess")
    if preprocess is not None and dataset is None:
        means, stds = (np.asarray(preprocess[name], dtype=float).ravel().tolist() for name in ("mean", "std"))
    else:
        corpora = list(checkpoint.get("config", {}).get("datasets", {}))
        dataset = dataset or (corpora[0] if len(corpora) == 1 else "ptb-xl")
        dataset = "cpsc" if dataset == "cpsc-extra" else dataset
        if dataset not in STATISTICS_MV:
            raise ValueError(f"No statistics are known of {dataset!r}. Expected one of {sorted(STATISTICS_MV)}.")
        columns = [STANDARD_LEADS.index(lead) for lead in config.leads]
        means, stds = ([values[column] for column in columns] for values in STATISTICS_MV[dataset])
    evaluation = PUBLISHED_EVALUATION | checkpoint.get("eval_config", {})
    return fixed_statistics_extractor(model, means, stds, CLIP, evaluation["crop_stride"])
