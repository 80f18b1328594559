"""Checkpoints of ECG-JEPA (Kim, repository sehunfromdaegu/ECG_JEPA) to ours and back, tensor by tensor.

The published files are `{"encoder": state_dict, "epoch": int}` and hold the student alone; a `state_dict` of the whole
model (prefixes `encoder.`, `target_encoder.`, `predictor.`) converts too. The fused qkv matrix has its rows in the
order q, k, v, each head by head, as ours, so the split is exact.
"""

from collections.abc import Sequence

import torch

from ecg_transformers.modeling import EcgJepaConfig, EcgJepaForPreTraining, EcgViTConfig, EcgViTModel
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS

from .checkpoint_keys import (
    check_fits,
    check_tensors,
    layer_fields,
    load_their_state_dict,
    renamed,
    shape_of,
    state_of,
    their_state_dict,
)

# Width and depth of the published encoder and predictor -> attention heads.
PUBLISHED_SIZES = {(768, 12): 16}
PUBLISHED_PREDICTOR_SIZES = {(384, 6): 12}
PUBLISHED_SAMPLING_RATE = 250
POSITION_TOLERANCE = 1e-6

# Ours -> theirs.
LAYERS = [
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.[qkv]_proj\.", ".attn.qkv."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
]
PREDICTOR = [
    (r"\.layers\.", ".predictor_blocks.blocks."),
    (r"\.embedding\.", ".predictor_embed."),
    (r"\.layernorm\.", ".predictor_norm."),
    (r"\.projection\.", ".predictor_proj."),
]
ENCODER = [
    (r"^ecg_vit\.", "encoder."),
    (r"^teacher\.", "target_encoder."),
    (r"\blayers\.", "encoder_blocks.blocks."),
    (r"\bembeddings\.projection\.", "W_P."),
    (r"\blayernorm\.", "norm."),
]


def convert_kim_checkpoint(
    checkpoint: dict,
    leads: Sequence[str] = INDEPENDENT_LEADS,
    sampling_rate: float = PUBLISHED_SAMPLING_RATE,
    **sizes: int,
) -> EcgViTModel | EcgJepaForPreTraining:
    """Builds our model from an encoder or a whole model of Kim. The file holds neither leads nor rate; `sizes` are
    those of a model of no published size, see [`layer_fields`]."""
    state = state_of(checkpoint, "encoder")
    whole = any(str(key).startswith(("target_encoder.", "predictor.")) for key in state)
    prefix = "encoder." if whole else ""
    required = ("W_P.weight", "pos_embed", "encoder_blocks.blocks.0.mlp.fc1.weight")
    check_tensors(state, [prefix + key for key in required], "ECG-JEPA (Kim)")
    hidden_size, patch_size = shape_of(state, prefix + "W_P.weight", "width, samples")
    num_positions, _ = shape_of(state, prefix + "pos_embed", "leads x patches, width")
    num_columns, remainder = divmod(num_positions, len(leads))
    if remainder:
        raise ValueError(
            f"The position table has {num_positions} rows, no multiple of {len(leads)} leads. Give the leads of the "
            "checkpoint: leads (--leads)."
        )
    blocks = prefix + "encoder_blocks.blocks."
    fields = {
        "leads": leads,
        "sampling_rate": sampling_rate,
        "num_samples": num_columns * patch_size,
        "patch_size": patch_size,
        "hidden_size": hidden_size,
        "intermediate_size": shape_of(state, blocks + "0.mlp.fc1.weight", "hidden, width")[0],
        **layer_fields(state, blocks, hidden_size, PUBLISHED_SIZES, sizes),
    }
    if whole:
        width, _ = shape_of(state, "predictor.predictor_embed.weight", "predictor width, width")
        blocks = "predictor.predictor_blocks.blocks."
        fields |= layer_fields(state, blocks, width, PUBLISHED_PREDICTOR_SIZES, sizes, "predictor_")
        hidden = shape_of(state, blocks + "0.mlp.fc1.weight", "hidden, width")[0]
        fields |= {"predictor_hidden_size": width, "predictor_intermediate_size": hidden}
        model = EcgJepaForPreTraining(EcgJepaConfig(**fields))
    else:
        model = EcgViTModel(EcgViTConfig(**fields))
    check_fits(kim_state_dict(model), state, POSITION_TOLERANCE)
    load_their_state_dict(model, state, _their_key)
    return model


def kim_state_dict(model: EcgViTModel | EcgJepaForPreTraining) -> dict[str, torch.Tensor]:
    """Our weights under Kim's names, q, k and v fused, position tables included."""
    state, encoders = their_state_dict(model, _their_key), {"": model}
    if isinstance(model, EcgJepaForPreTraining):
        encoders = {"encoder.": model.ecg_vit, "target_encoder.": model.teacher}
        state["predictor.pos_embed"] = model.predictor.position_embeddings.clone()
    for prefix, encoder in encoders.items():
        state[prefix + "pos_embed"] = encoder.embeddings.position_embeddings.flatten(0, 1).clone()
    return state


def _their_key(key: str) -> str:
    return renamed(key, LAYERS + (PREDICTOR if key.startswith("predictor.") else ENCODER))
