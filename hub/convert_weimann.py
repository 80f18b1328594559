"""Checkpoints of ECG-JEPA (Weimann & Conrad, repository kweimann/ECG-JEPA) to ours and back, tensor by tensor.

The code of LeJEPA-ECG descends from theirs, so that `convert_lejepa` uses [`Published`] too. Three kinds of file
differ by what they hold:

* pretraining, `{"model", "optimizer", "config", "step"}` with the prefixes `encoder.` (student), `predictor.` and
  `target_encoder.` (teacher), becomes [`EcgJepaForPreTraining`];
* minified, `{"model", "config"}` with `target_encoder.` alone, becomes [`EcgViTModel`];
* classifier, `{"model", "config", "eval_config", "preprocess", "task"}` with `encoder.` and a head, becomes
  [`EcgViTForSequenceClassification`].

Commits before d7b787b (October 2025) gave layer norms a bias although `bias: False`; loaded into their later code
without `strict`, such files lose it without a word. Here the tensors decide. Position tables are in no file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgJepaForPreTraining,
    EcgViTForSequenceClassification,
    EcgViTModel,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS, canonical_leads
from ecg_transformers.modeling.modeling_lejepa import LeJepaForPreTraining

from .checkpoint_keys import (
    State,
    check_fits,
    check_stated,
    check_tensors,
    extractor_for,
    layer_fields,
    load_their_state_dict,
    renamed,
    settings_of,
    settled,
    shape_of,
    state_of,
    their_state_dict,
    unlike_the_published,
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
"""Objects of a classifier file beside tensors (mean and standard deviation of its records), for
`torch.serialization.safe_globals`."""

# Width and depth of the published predictors -> attention heads.
PUBLISHED_PREDICTOR_SIZES = {(96, 8): 4, (192, 8): 6, (384, 12): 12}
PUBLISHED_EVALUATION = {"crop_duration": 2.5, "crop_stride": 1.25, "use_register": True}
SIZES = ("num_attention_heads", "num_hidden_layers", "num_registers")
SIZES += ("predictor_num_attention_heads", "predictor_num_hidden_layers")

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
    (r"^projector\.fc1\.", "projector.net.0."),
    (r"^projector\.norm1\.", "projector.net.1."),
    (r"^projector\.fc2\.", "projector.net.3."),
    (r"^projector\.norm2\.", "projector.net.4."),
    (r"^projector\.fc3\.", "projector.net.6."),
    (r"^attentive_pooler\.query_token$", "attn_pool.query_token"),
    (r"^attentive_pooler\.q_proj\.", "attn_pool.cross_attention_block.q."),
    (r"^attentive_pooler\.[kv]_proj\.", "attn_pool.cross_attention_block.kv."),
]

Model = EcgViTModel | EcgJepaForPreTraining | LeJepaForPreTraining | EcgViTForSequenceClassification


@dataclass(frozen=True)
class Published:
    """A published recipe of this family.

    Args:
        name (`str`): Name for errors.
        encoder (`str`): Prefix of the encoder that is evaluated.
        rest (`str`): Prefix of the part that only a pretraining file has.
        settings (`Mapping`): Settings of the published presets, for a file that does not state them.
        fields (`Mapping[str, str]`): Fields of ours that no tensor shows -> their setting.
        sizes (`Mapping`): Width and depth of the published encoders -> attention heads.
        statistics (`Mapping`): Mean and standard deviation (mV) of each lead, by corpus.
        corpus (`str`): Corpus of the statistics where a file names none.
        model_type (`str`): Type of our model of a pretraining file.
        pretraining_fields (`Callable`): `(state, settings of the file and published ones, stated settings, given)` ->
            fields of that model beside the encoder's.
    """

    name: str
    encoder: str
    rest: str
    settings: Mapping[str, Any]
    fields: Mapping[str, str]
    sizes: Mapping[tuple[int, int], int]
    statistics: Mapping[str, tuple]
    corpus: str
    model_type: str
    pretraining_fields: Callable[[State, Mapping, Mapping, Mapping], dict[str, Any]]

    def build(self, checkpoint: dict, **given: Any) -> Model:
        """Builds our model of a file, one of the three kinds or a state dict of theirs: for pretraining, an encoder or
        a classifier, by its content. The caller gives what the file lacks, and sizes that are not published."""
        state, stated = state_of(checkpoint, "model"), settings_of(checkpoint, "config", "encoder_config")
        prefix = self.encoder if any(str(key).startswith(self.encoder) for key in state) else "encoder."
        required = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "norm.weight")
        check_tensors(state, [prefix + key for key in required], self.name)
        settings = settled(self.settings, stated)
        if "leads" in given and "channels" not in stated:
            settings["channels"] = given["leads"]
        others = {name: value for name, value in given.items() if name not in SIZES}
        assumed = {ours for ours, theirs in self.fields.items() if theirs not in stated}
        fields = encoder_fields(state, prefix, settings, stated, self.sizes, given)
        auto_class, model_type = AutoModel, "ecg_vit"
        if any(key.startswith(self.rest) for key in state):
            auto_class, model_type = AutoModelForPreTraining, self.model_type
            fields |= self.pretraining_fields(state, settings, stated, given)
        elif prefix != self.encoder or not all(key.startswith(prefix) for key in state):
            auto_class = AutoModelForSequenceClassification
            fields |= classifier_fields(state, given.get("sampling_rate", fields["sampling_rate"]), checkpoint)
        model = auto_class.from_config(AutoConfig.for_model(model_type, **with_given(fields, others, assumed)))
        check_fits(self.state_dict(model), state)
        load_their_state_dict(model, state, partial(self._their_key, model))
        return model

    def state_dict(self, model: Model) -> dict[str, torch.Tensor]:
        """Our weights under the authors' names, q, k and v fused, patch weights as those of a Conv1d."""
        state = their_state_dict(model, partial(self._their_key, model))
        for key in (key for key in state if key.endswith("patch_embed.proj.weight")):
            state[key] = state[key].unflatten(1, (len(model.config.position_leads), -1))
        return state

    def _their_key(self, model: PreTrainedModel, key: str) -> str:
        prefixes = {"": self.encoder}
        if isinstance(model, EcgJepaForPreTraining):
            by_teacher = model.config.evaluated_encoder == "teacher"
            prefixes = {"ecg_vit.": "target_encoder." if by_teacher else "encoder.", "student.": "encoder."}
            prefixes["teacher."] = "target_encoder."
        elif isinstance(model, LeJepaForPreTraining):
            prefixes = {"ecg_vit.": "encoder."}
        elif isinstance(model, EcgViTForSequenceClassification):
            is_attentive = model.config.classifier_pooling == "attentive"
            head = "attn_pool.cross_attention_block.proj." if is_attentive else "fc."
            prefixes = {"ecg_vit.": "encoder.", "classifier.": head}
        ours = next((ours for ours in prefixes if key.startswith(ours)), None)
        return renamed(key if ours is None else prefixes[ours] + key.removeprefix(ours), RENAMES)

    def feature_extractor(self, model: Model, checkpoint: dict, dataset: str | None = None) -> EcgFeatureExtractor:
        """The input of the authors' models: fixed mean and standard deviation of each lead, clipped at 5; gaps
        interpolated. Records of a classifier are cut into their overlapping crops, whose **logits** are averaged.

        The authors normalise every corpus by its own statistics: those of `dataset`, else those of a classifier's
        training records (`preprocess`) or of the corpus that the file names. Your recordings may need yours: give
        them as `lead_means` and `lead_stds` of the result's class. They compute in half precision, we in single.
        """
        config, preprocess = model.config, settings_of(checkpoint, "preprocess")
        if preprocess and dataset is None:
            means, stds = (lead_constants(preprocess, name, len(config.leads)) for name in ("mean", "std"))
        else:
            settings = settings_of(checkpoint, "config", "encoder_config")
            corpora = [dataset] if dataset else list(settings.get("datasets") or [self.corpus])
            known = sorted(self.statistics)
            cure = f"Give the one whose constants are to be used: dataset (--constants), one of {known}."
            if len(corpora) > 1:
                raise ValueError(f"The file was trained on {corpora}, each normalised by its own constants. {cure}")
            corpus = "cpsc" if corpora[0] == "cpsc-extra" else corpora[0]
            if corpus not in self.statistics:
                raise ValueError(f"No constants are known of {corpora[0]!r}. {cure}")
            columns = [STANDARD_LEADS.index(lead) for lead in config.leads]
            means, stds = ([values[column] for column in columns] for values in self.statistics[corpus])
        windows = {}
        if isinstance(model, EcgViTForSequenceClassification):
            stride = (PUBLISHED_EVALUATION | dict(settings_of(checkpoint, "eval_config")))["crop_stride"]
            windows = {"long_records": "all", "window_stride_samples": round(stride * config.sampling_rate)}
        values = {"normalization": "fixed", "lead_means": means, "lead_stds": stds, "clip": CLIP}
        return extractor_for(config, **values, nan_policy="interpolate", **windows)


def _pretraining_fields(state: State, settings: Mapping, stated: Mapping, given: Mapping) -> dict[str, Any]:
    width, _ = shape_of(state, "predictor.embed.weight", "predictor width, width")
    sizes = state, "predictor.blocks.", width, PUBLISHED_PREDICTOR_SIZES, given, "predictor_"
    layers = layer_fields(*sizes, stated.get("pred_depth"), stated.get("pred_num_heads"))
    check_stated(stated, {"pred_dim": width, "pred_depth": layers["predictor_num_hidden_layers"]})
    hidden, _ = shape_of(state, "predictor.blocks.0.mlp.fc1.weight", "hidden, width")
    return layers | {
        "mask_type": "segments",
        "mask_ratio": (round(1 - settings["max_keep_ratio"], 12), round(1 - settings["min_keep_ratio"], 12)),
        "min_segment_patches": settings["min_block_size"],
        "evaluated_encoder": "teacher",
        "initializer": "weimann",
        "target_normalization": "none",
        "prediction_loss": "l1",
        "predictor_hidden_size": width,
        "predictor_intermediate_size": hidden,
    }


WEIMANN = Published(
    "ECG-JEPA (Weimann)",
    encoder="target_encoder.",
    rest="predictor.",
    settings={
        "channels": STANDARD_LEADS,
        "sampling_frequency": 500,
        "channel_size": 5000,
        "min_block_size": 10,
        "min_keep_ratio": 0.15,
        "max_keep_ratio": 0.25,
        "norm_eps": 1e-6,
        "num_registers": 1,
    },
    fields={
        "leads": "channels",
        "sampling_rate": "sampling_frequency",
        "num_samples": "channel_size",
        "layer_norm_eps": "norm_eps",
        "min_segment_patches": "min_block_size",
    },
    sizes={(192, 8): 4, (384, 8): 6, (768, 12): 12},
    statistics=STATISTICS_MV,
    corpus="ptb-xl",
    model_type="ecg_jepa",
    pretraining_fields=_pretraining_fields,
)
convert_weimann_checkpoint, weimann_state_dict = WEIMANN.build, WEIMANN.state_dict
weimann_feature_extractor = WEIMANN.feature_extractor


def encoder_fields(
    state: State,
    prefix: str,
    settings: Mapping[str, Any],
    stated: Mapping[str, Any],
    published: Mapping[tuple[int, int], int],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Fields of the encoder, as Weimann and LeJEPA-ECG lay it out; `settings` are those that the file states, with the
    published ones in their gaps."""
    width, num_leads, patch_size = shape_of(state, prefix + "patch_embed.proj.weight", "width, leads, samples")
    leads = canonical_leads(settings["channels"])
    if len(leads) != num_leads:
        raise ValueError(
            f"The patches have {num_leads} leads, the configuration names {len(leads)}: {list(leads)}. Give the leads "
            "of the checkpoint: leads (--leads)."
        )
    sizes = state, prefix + "blocks.", width, published, given, ""
    layers = layer_fields(*sizes, stated.get("depth"), stated.get("num_heads"))
    registers = shape_of(state, prefix + "registers", "1, registers, width")[1] if prefix + "registers" in state else 0
    # Without LayerScale the file says 0; with it, the initial value is of no interest any more.
    has_layer_scale = prefix + "blocks.0.attn_ls.weight" in state
    hidden = shape_of(state, prefix + "blocks.0.mlp.fc1.weight", "hidden, width")[0]
    use_bias, qkv_bias = (prefix + key in state for key in ("patch_embed.proj.bias", "blocks.0.attn.qkv.bias"))
    shown = {"dim": width, "depth": layers["num_hidden_layers"], "patch_size": patch_size, "num_channels": num_leads}
    shown |= {"bias": use_bias, "qkv_bias": qkv_bias, "num_registers": registers, "mlp_ratio": hidden / width}
    if bool(stated.get("layer_scale_eps")) != has_layer_scale:
        shown["layer_scale_eps"] = "not zero" if has_layer_scale else 0.0
    check_stated(stated, shown)
    if use_bias and prefix + "norm.bias" not in state:
        raise ValueError(
            f"The file has biases and lacks {prefix + 'norm.bias'!r}: the authors' code gives layer norms a bias "
            "where it gives one to anything."
        )
    expected = given.get("num_registers", settings["num_registers"])
    if registers != expected:
        has = f"{registers} register tokens ({prefix + 'registers'!r}), expected {expected}"
        raise unlike_the_published(has, "num_registers", registers)
    return layers | {
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
        "intermediate_size": hidden,
        "use_bias": use_bias,
        "qkv_bias": qkv_bias,
        "layer_norm_bias": prefix + "norm.bias" in state,
        "layer_norm_eps": settings["norm_eps"],
        "layer_scale_init_value": (settings.get("layer_scale_eps") or 1.0) if has_layer_scale else None,
    }


def classifier_fields(state: dict, sampling_rate: float, checkpoint: dict) -> dict:
    """Fields of a classifier's head, as Weimann and LeJEPA-ECG write it."""
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


def lead_constants(preprocess: Mapping, name: str, num_leads: int) -> list[float]:
    """Mean or standard deviation of each lead, as a classifier's file states them."""
    if name not in preprocess:
        raise ValueError(f"'preprocess' of the file lacks {name!r} of the leads, found {sorted(preprocess)}.")
    values = np.asarray(preprocess[name], dtype=float).ravel()
    if len(values) != num_leads or not np.isfinite(values).all():
        raise ValueError(f"Expected {num_leads} finite numbers in {name!r} of 'preprocess', got {values.tolist()}.")
    return values.tolist()
