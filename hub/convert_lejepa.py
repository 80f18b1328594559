"""Checkpoints of LeJEPA-ECG to ours and back, tensor by tensor.

Three kinds of file differ by what they hold:

* pretraining, `chkpt_{step}.pt` (and `best_ckpt.pt`, which is documented and never written), `{"model", "optimizer",
  "config", "step", ...}` with the prefixes `encoder.` and `projector.`, becomes [`LeJepaForPreTraining`] with the
  published settings (`augmentation="published"`, `sigreg_pooling="pooled"`, ...);
* linear probe, `{task}_best_chkpt.pt`, `{"model", "encoder_config", "eval_config", "preprocess", "task", ...}` with
  `encoder.` and a head, becomes [`EcgViTForSequenceClassification`];
* an encoder alone becomes [`EcgViTModel`].

The encoder is laid out as that of ECG-JEPA (Weimann), of whose code this is a descendant; the names of the head are
theirs too. Position tables are in no file.
"""

from collections.abc import Mapping
from typing import Any

from ecg_transformers.modeling.leads import STANDARD_LEADS

from .checkpoint_keys import State, check_stated, shape_of
from .convert_weimann import STATISTICS_MV, ZEROS, Model, Published

# Fields of ours that no tensor shows -> their setting.
PRETRAINING_FIELDS = {
    "num_views": "num_views",
    "num_slices": "num_slices",
    "sigreg_weight": "lambda",
    "crop_scale": "crop_scale",
    "amplitude_scale": "amplitude_scale",
    "noise_std": "noise_std",
}
ATTENTIVE_POOLER_HEADS = 6  # written into the authors' code


def _pretraining_fields(state: State, settings: Mapping, stated: Mapping, given: Mapping) -> dict[str, Any]:
    hidden_size, _ = shape_of(state, "projector.net.0.weight", "hidden, width")
    projection_size, _ = shape_of(state, "projector.net.6.weight", "projection, hidden")
    check_stated(stated, {"proj_hidden_dim": hidden_size, "proj_dim": projection_size})
    return {ours: settings[theirs] for ours, theirs in PRETRAINING_FIELDS.items()} | {
        "augmentation": "published",
        "sigreg_pooling": "pooled",
        "sync_statistics": False,
        "decay_all_parameters": True,
        "projector_hidden_size": hidden_size,
        "projection_size": projection_size,
    }


LEJEPA = Published(
    "LeJEPA-ECG",
    encoder="encoder.",
    rest="projector.",
    settings={
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
    },
    fields=PRETRAINING_FIELDS
    | {
        "leads": "channels",
        "sampling_rate": "sampling_frequency",
        "num_samples": "channel_size",
        "layer_norm_eps": "norm_eps",
    },
    sizes={(384, 8): 6},
    # They take the means of MIMIC-IV-ECG as 0.
    statistics={"mimic-iv-ecg": (ZEROS, STATISTICS_MV["mimic-iv-ecg"][1]), "ptb-xl": STATISTICS_MV["ptb-xl"]},
    corpus="mimic-iv-ecg",
    model_type="lejepa",
    pretraining_fields=_pretraining_fields,
)
lejepa_state_dict, lejepa_feature_extractor = LEJEPA.state_dict, LEJEPA.feature_extractor


def convert_lejepa_checkpoint(checkpoint: dict, **given: Any) -> Model:
    """Builds our model from one of the three kinds of file, or a state dict of theirs; see [`Published.build`]."""
    model = LEJEPA.build(checkpoint, **given)
    config = model.config
    if config.classifier_pooling == "attentive" and config.num_attention_heads != ATTENTIVE_POOLER_HEADS:
        raise ValueError(
            f"The authors' attentive pooler has {ATTENTIVE_POOLER_HEADS} heads whatever the encoder has; ours has the "
            f"encoder's, here {config.num_attention_heads}. Such a head cannot be converted."
        )
    return model
