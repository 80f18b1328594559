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
from collections.abc import Collection, Mapping
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
    check_stated,
    check_tensors,
    fixed_statistics_extractor,
    fused_state_dict,
    load_fused_state_dict,
    num_heads,
    num_layers,
    settings_of,
    settled,
    shape_of,
    state_of,
    with_given,
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
    "num_registers": 1,
}
# Fields of ours that no tensor shows -> their setting.
SETTINGS = {
    "leads": "channels",
    "sampling_rate": "sampling_frequency",
    "num_samples": "channel_size",
    "layer_norm_eps": "norm_eps",
    "min_segment_patches": "min_block_size",
}
# Width and depth of the published encoders and predictors -> attention heads.
PUBLISHED_SIZES = {(192, 8): 4, (384, 8): 6, (768, 12): 12}
PUBLISHED_PREDICTOR_SIZES = {(96, 8): 4, (192, 8): 6, (384, 12): 12}
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
    checkpoint: dict,
    num_attention_heads: int | None = None,
    predictor_num_attention_heads: int | None = None,
    num_hidden_layers: int | None = None,
    predictor_num_hidden_layers: int | None = None,
    num_registers: int | None = None,
    **given,
) -> Model:
    """Builds our model from a loaded checkpoint of Weimann & Conrad.

    Args:
        checkpoint (`dict`): One of the three kinds of file, or a state dict of theirs.
        num_attention_heads, predictor_num_attention_heads (`int`, *optional*):
            By default those of the file's `config`, else those of the published model of this width and depth.
        num_hidden_layers, predictor_num_hidden_layers, num_registers (`int`, *optional*):
            Sizes of a file without `config`, where they are not the published ones.
        given: Fields of our configuration that the file's `config` lacks, such as `leads` or `sampling_rate`.

    Returns:
        [`EcgJepaForPreTraining`], [`EcgViTModel`] or [`EcgViTForSequenceClassification`], by what the file holds.

    Raises:
        ValueError: if a key is missing or unexpected, a shape does not fit, the file's `config` contradicts its
            tensors, a given value contradicts either, or a size is neither stated, published nor given.
    """
    state, stated = state_of(checkpoint, "model"), settings_of(checkpoint, "config")
    whole = any(str(key).startswith("predictor.") for key in state)
    prefix = "target_encoder." if any(str(key).startswith("target_encoder.") for key in state) else "encoder."
    required = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "norm.weight")
    check_tensors(state, [prefix + key for key in required], "ECG-JEPA (Weimann)")
    settings = settled(PUBLISHED, stated)
    if "leads" in given and "channels" not in stated:
        settings["channels"] = given["leads"]
    fields = encoder_fields(
        state, prefix, settings, stated, PUBLISHED_SIZES, num_attention_heads, num_hidden_layers, num_registers
    )
    assumed = {ours for ours, theirs in SETTINGS.items() if theirs not in stated}
    if whole:
        sizes = (predictor_num_attention_heads, predictor_num_hidden_layers)
        fields |= _pretraining_fields(state, settings, stated, *sizes)
        model = EcgJepaForPreTraining(EcgJepaConfig(**with_given(fields, given, assumed)))
    elif prefix == "target_encoder.":
        model = EcgViTModel(EcgViTConfig(**with_given(fields, given, assumed)))
    else:
        fields |= classifier_fields(state, given.get("sampling_rate", fields["sampling_rate"]), checkpoint)
        model = EcgViTForSequenceClassification(EcgViTConfig(**with_given(fields, given, assumed)))
    load_weimann_state_dict(model, state)
    return model


def encoder_fields(
    state: dict,
    prefix: str,
    settings: dict,
    stated: Mapping,
    published: Mapping[tuple[int, int], int],
    given_heads: int | None,
    given_layers: int | None,
    given_registers: int | None,
) -> dict:
    """Fields of the encoder, as Weimann and LeJEPA-ECG lay it out.

    Args:
        state (`dict`): Theirs.
        prefix (`str`): Of the encoder's keys.
        settings (`dict`): The file's settings, with the published ones in their gaps.
        stated (`dict`): The file's settings alone.
        published (`dict`): Width and depth of the published encoders -> heads.
        given_heads, given_layers, given_registers (`int`, *optional*): What the caller gives.

    Raises:
        ValueError: where the settings contradict the tensors or the caller.
    """
    width, num_leads, patch_size = shape_of(state, prefix + "patch_embed.proj.weight", "width, leads, samples")
    leads = canonical_leads(settings["channels"])
    if len(leads) != num_leads:
        raise ValueError(
            f"The patches have {num_leads} leads, the configuration names {len(leads)}: {list(leads)}. Give the leads "
            "of the checkpoint: leads (--leads)."
        )
    depth = num_layers(state, prefix + "blocks.", width, () if "depth" in stated else published, given_layers)
    registers = shape_of(state, prefix + "registers", "1, registers, width")[1] if prefix + "registers" in state else 0
    # Without LayerScale the file says 0; with it, the initial value is of no interest any more.
    has_layer_scale = prefix + "blocks.0.attn_ls.weight" in state
    hidden = shape_of(state, prefix + "blocks.0.mlp.fc1.weight", "hidden, width")[0]
    use_bias, qkv_bias = (prefix + key in state for key in ("patch_embed.proj.bias", "blocks.0.attn.qkv.bias"))
    shown = {"dim": width, "depth": depth, "patch_size": patch_size, "num_channels": num_leads, "bias": use_bias}
    shown |= {"qkv_bias": qkv_bias, "num_registers": registers, "mlp_ratio": hidden / width}
    check_stated(stated, shown)
    if "layer_scale_eps" in stated and bool(stated["layer_scale_eps"]) != has_layer_scale:
        raise ValueError(
            f"The file contradicts itself: layer_scale_eps is {stated['layer_scale_eps']!r} in its settings, and it "
            f"has {'a' if has_layer_scale else 'no'} LayerScale."
        )
    if use_bias and prefix + "norm.bias" not in state:
        raise ValueError(
            f"The file has biases and lacks {prefix + 'norm.bias'!r}: the authors' code gives layer norms a bias "
            "where it gives one to anything."
        )
    expected_registers = settings["num_registers"] if given_registers is None else given_registers
    if registers != expected_registers:
        raise ValueError(
            f"The file has {registers} register tokens ({prefix + 'registers'!r}), expected {expected_registers}. If "
            f"none is missing of yours, say so with num_registers={registers} (--num_registers {registers})."
        )
    return {
        "leads": leads,
        "sampling_rate": settings["sampling_frequency"],
        "num_samples": settings["channel_size"],
        "patch_size": patch_size,
        "patching": "all_leads",
        "attention_pattern": "full",
        "position_embedding": "sincos_interleaved",
        "position_every_layer": False,
        "num_registers": registers,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": num_heads(width, depth, published, stated.get("num_heads"), given_heads),
        "intermediate_size": hidden,
        "use_bias": use_bias,
        "qkv_bias": qkv_bias,
        "layer_norm_bias": prefix + "norm.bias" in state,
        "layer_norm_eps": settings["norm_eps"],
        "layer_scale_init_value": (settings.get("layer_scale_eps") or 1.0) if has_layer_scale else None,
    }


def _pretraining_fields(
    state: dict, settings: dict, stated: Mapping, given_heads: int | None, given_layers: int | None
) -> dict:
    width, _ = shape_of(state, "predictor.embed.weight", "predictor width, width")
    published = () if "pred_depth" in stated else PUBLISHED_PREDICTOR_SIZES
    depth = num_layers(state, "predictor.blocks.", width, published, given_layers, "predictor_num_hidden_layers")
    heads = num_heads(
        *(width, depth, PUBLISHED_PREDICTOR_SIZES, stated.get("pred_num_heads"), given_heads),
        "predictor_num_attention_heads",
    )
    check_stated(stated, {"pred_dim": width, "pred_depth": depth})
    return {
        "mask_type": "segments",
        "mask_ratio": (round(1 - settings["max_keep_ratio"], 12), round(1 - settings["min_keep_ratio"], 12)),
        "min_segment_patches": settings["min_block_size"],
        "evaluated_encoder": "teacher",
        "initializer": "weimann",
        "target_normalization": "none",
        "prediction_loss": "l1",
        "predictor_hidden_size": width,
        "predictor_num_hidden_layers": depth,
        "predictor_num_attention_heads": heads,
        "predictor_intermediate_size": shape_of(state, "predictor.blocks.0.mlp.fc1.weight", "hidden, width")[0],
    }


def classifier_fields(state: dict, sampling_rate: float, checkpoint: dict) -> dict:
    """Fields of a classifier's head, as Weimann and LeJEPA-ECG write it.

    Raises:
        ValueError: where there is no head, or `eval_config` names another one.
    """
    stated = settings_of(checkpoint, "eval_config")
    evaluation = settled({name: PUBLISHED_EVALUATION[name] for name in ("crop_duration", "crop_stride")}, stated)
    evaluation = PUBLISHED_EVALUATION | evaluation
    is_attentive = "attn_pool.query_token" in state
    head = "attn_pool.cross_attention_block.proj" if is_attentive else "fc"
    if head + ".weight" not in state:
        raise ValueError(
            "Expected a teacher, a projector or a head (attn_pool.* or fc.weight) beside the encoder, found "
            f"{sorted(key for key in state if not key.startswith('encoder.'))[:6]}..."
        )
    check_stated(stated, {"attn_pooling": is_attentive})
    num_labels, task = shape_of(state, head + ".weight", "labels, width")[0], checkpoint.get("task")
    labels = SUPERCLASSES if task in (SINGLE_LABEL_TASK, "superdiagnostic") and num_labels == 5 else None
    names = labels or [f"LABEL_{number}" for number in range(num_labels)]
    return {
        "num_samples": round(evaluation["crop_duration"] * sampling_rate),
        "classifier_pooling": "attentive" if is_attentive else "register" if evaluation["use_register"] else "pooled",
        "classifier_bias": head + ".bias" in state,
        "problem_type": "single_label_classification" if task == SINGLE_LABEL_TASK else "multi_label_classification",
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def stated_corpus(checkpoint: dict, known: Collection[str], default: str) -> str:
    """Corpus whose constants a file needs: the one of its `datasets`, or `default` where it names none.

    Raises:
        ValueError: for several, and for one without known constants.
    """
    corpora = list(settings_of(checkpoint, "config", "encoder_config").get("datasets") or [default])
    cure = f"Give the one whose constants are to be used: dataset (--constants), one of {sorted(known)}."
    if len(corpora) > 1:
        raise ValueError(f"The file was trained on {corpora}, each normalised by its own constants. {cure}")
    corpus = "cpsc" if corpora[0] == "cpsc-extra" else corpora[0]
    if corpus not in known:
        raise ValueError(f"No constants are known of {corpora[0]!r}, which the file was trained on. {cure}")
    return corpus


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
            pretrained on (`datasets` of its `config`), PTB-XL if it names none.

    Raises:
        ValueError: for a file of several corpora, unless `dataset` says whose statistics to use.
    """
    config = model.config
    preprocess = settings_of(checkpoint, "preprocess")
    if preprocess and dataset is None:
        means, stds = (lead_constants(preprocess, name, len(config.leads)) for name in ("mean", "std"))
    else:
        dataset = dataset or stated_corpus(checkpoint, STATISTICS_MV, "ptb-xl")
        dataset = "cpsc" if dataset == "cpsc-extra" else dataset
        if dataset not in STATISTICS_MV:
            raise ValueError(f"No statistics are known of {dataset!r}. Expected one of {sorted(STATISTICS_MV)}.")
        columns = [STANDARD_LEADS.index(lead) for lead in config.leads]
        means, stds = ([values[column] for column in columns] for values in STATISTICS_MV[dataset])
    evaluation = PUBLISHED_EVALUATION | dict(settings_of(checkpoint, "eval_config"))
    return fixed_statistics_extractor(model, means, stds, CLIP, evaluation["crop_stride"])


def lead_constants(preprocess: Mapping, name: str, num_leads: int) -> list[float]:
    """Mean or standard deviation of each lead, as a classifier's file states them."""
    if name not in preprocess:
        raise ValueError(f"'preprocess' of the file lacks {name!r} of the leads, found {sorted(preprocess)}.")
    values = np.asarray(preprocess[name], dtype=float).ravel()
    if len(values) != num_leads or not np.isfinite(values).all():
        raise ValueError(f"Expected {num_leads} finite numbers in {name!r} of 'preprocess', got {values.tolist()}.")
    return values.tolist()
