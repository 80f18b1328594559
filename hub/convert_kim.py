"""Checkpoints of ECG-JEPA (Kim, repository sehunfromdaegu/ECG_JEPA) to ours and back, tensor by tensor.

The published files are `{"encoder": state_dict, "epoch": int}` and hold the student alone; a `state_dict` of the whole
model (prefixes `encoder.`, `target_encoder.`, `predictor.`) converts too. The fused qkv matrix has its rows in the
order q, k, v, each head by head, as ours, so the split is exact.
"""

from collections.abc import Sequence

import torch

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgViTConfig,
    EcgViTModel,
)
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS

from .checkpoint_keys import check_fits, check_tensors, num_heads, num_layers, shape_of, state_of

# Width and depth of the published encoder and predictor -> attention heads.
PUBLISHED_SIZES = {(768, 12): 16}
PUBLISHED_PREDICTOR_SIZES = {(384, 6): 12}
PUBLISHED_SAMPLING_RATE = 250

POSITION_TOLERANCE = 1e-6

# Ours -> theirs, inside an encoder; blocks first.
LAYER_KEYS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "attention.o_proj": "attn.proj",
}
ENCODER_KEYS = {"embeddings.projection": "W_P", "layernorm": "norm"}
PREDICTOR_KEYS = {"embedding": "predictor_embed", "layernorm": "predictor_norm", "projection": "predictor_proj"}
QKV = ("q_proj", "k_proj", "v_proj")


def convert_kim_checkpoint(
    checkpoint: dict,
    leads: Sequence[str] = INDEPENDENT_LEADS,
    sampling_rate: float = PUBLISHED_SAMPLING_RATE,
    num_attention_heads: int | None = None,
    predictor_num_attention_heads: int | None = None,
    num_hidden_layers: int | None = None,
    predictor_num_hidden_layers: int | None = None,
) -> EcgViTModel | EcgJepaForPreTraining:
    """Builds our model from a loaded checkpoint of Kim.

    Args:
        checkpoint (`dict`): `{"encoder": state_dict, ...}`, an encoder's state dict, or that of the whole model.
        leads, sampling_rate: What the file does not hold; the defaults are those of the published model.
        num_attention_heads, predictor_num_attention_heads (`int`, *optional*):
            What the file does not hold either; known of the published size, needed for every other.
        num_hidden_layers, predictor_num_hidden_layers (`int`, *optional*):
            Number of layers of the file, where it has the published width and another depth.

    Returns:
        [`EcgViTModel`] for an encoder, [`EcgJepaForPreTraining`] for a whole model.

    Raises:
        ValueError: if a key is missing or unexpected, a shape does not fit, a stored position table is not ours, or a
            size is neither published nor given.
    """
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
    depth = num_layers(state, blocks, hidden_size, PUBLISHED_SIZES, num_hidden_layers)
    fields = {
        "leads": leads,
        "sampling_rate": sampling_rate,
        "num_samples": num_columns * patch_size,
        "patch_size": patch_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": depth,
        "num_attention_heads": num_heads(hidden_size, depth, PUBLISHED_SIZES, None, num_attention_heads),
        "intermediate_size": shape_of(state, blocks + "0.mlp.fc1.weight", "hidden, width")[0],
    }
    if whole:
        predictor = _predictor_fields(state, predictor_num_hidden_layers, predictor_num_attention_heads)
        model = EcgJepaForPreTraining(EcgJepaConfig(**fields, **predictor))
    else:
        model = EcgViTModel(EcgViTConfig(**fields))
    load_kim_state_dict(model, state)
    return model


def _predictor_fields(state: dict, given_layers: int | None, given_heads: int | None) -> dict:
    flags, blocks = (
        ("predictor_num_hidden_layers", "predictor_num_attention_heads"),
        "predictor.predictor_blocks.blocks.",
    )
    width, _ = shape_of(state, "predictor.predictor_embed.weight", "predictor width, width")
    depth = num_layers(state, blocks, width, PUBLISHED_PREDICTOR_SIZES, given_layers, flags[0])
    return {
        "predictor_hidden_size": width,
        "predictor_num_hidden_layers": depth,
        "predictor_num_attention_heads": num_heads(
            width, depth, PUBLISHED_PREDICTOR_SIZES, None, given_heads, flags[1]
        ),
        "predictor_intermediate_size": shape_of(state, blocks + "0.mlp.fc1.weight", "hidden, width")[0],
    }


def load_kim_state_dict(model: EcgViTModel | EcgJepaForPreTraining, state: dict[str, torch.Tensor]) -> None:
    """Copies Kim's tensors into `model`; every key of the file and of the model has to be accounted for."""
    expected = kim_state_dict(model)
    check_fits(expected, state)
    for key in (key for key in expected if key.endswith("pos_embed")):
        difference = (expected[key] - state[key]).abs().max().item()
        if not difference <= POSITION_TOLERANCE:
            raise ValueError(
                f"The stored position table {key!r} differs from ours by {difference:.2g}. It belongs to another "
                "model, to another order of leads or to `pos_type='learnable'`, which was never published."
            )
    ours = {}
    for our_key, kim_key, part in _key_map(model):
        tensor = state[kim_key]
        ours[our_key] = tensor if part is None else tensor.chunk(3, dim=0)[part]
    model.load_state_dict(ours, strict=True)


def kim_state_dict(model: EcgViTModel | EcgJepaForPreTraining) -> dict[str, torch.Tensor]:
    """The way back: our weights under Kim's names, q, k and v fused, position tables included."""
    ours, parts = model.state_dict(), {}
    for our_key, kim_key, part in _key_map(model):
        parts.setdefault(kim_key, {})[part or 0] = ours[our_key]
    state = {key: torch.cat([tensors[part] for part in sorted(tensors)]) for key, tensors in parts.items()}
    encoders = {"": model}
    if isinstance(model, EcgJepaForPreTraining):
        encoders = {"encoder.": model.ecg_vit, "target_encoder.": model.teacher}
        state["predictor.pos_embed"] = model.predictor.position_embeddings.clone()
    for prefix, encoder in encoders.items():
        state[prefix + "pos_embed"] = encoder.embeddings.position_embeddings.flatten(0, 1).clone()
    return state


def _key_map(model) -> list[tuple[str, str, int | None]]:
    """`(our key, Kim's key, part of the fused qkv or None)` for every tensor of the model."""
    if isinstance(model, EcgJepaForPreTraining):
        keys = _stack_keys(model.config.num_hidden_layers, "ecg_vit.", "encoder.", "encoder_blocks", ENCODER_KEYS)
        keys += _stack_keys(
            model.config.num_hidden_layers, "teacher.", "target_encoder.", "encoder_blocks", ENCODER_KEYS
        )
        layers = model.config.predictor_num_hidden_layers
        keys += _stack_keys(layers, "predictor.", "predictor.", "predictor_blocks", PREDICTOR_KEYS)
        return keys + [("predictor.mask_token", "predictor.mask_token", None)]
    return _stack_keys(model.config.num_hidden_layers, "", "", "encoder_blocks", ENCODER_KEYS)


def _stack_keys(num_layers, our_prefix, kim_prefix, kim_blocks, outer) -> list[tuple[str, str, int | None]]:
    modules = [(ours, theirs) for ours, theirs in outer.items()]
    keys = []
    for layer in range(num_layers):
        ours, theirs = f"layers.{layer}.", f"{kim_blocks}.blocks.{layer}."
        modules += [(ours + our_name, theirs + kim_name) for our_name, kim_name in LAYER_KEYS.items()]
        for part, name in enumerate(QKV):
            keys.append((f"{our_prefix}{ours}attention.{name}.weight", f"{kim_prefix}{theirs}attn.qkv.weight", part))
    for ours, theirs in modules:
        for tensor in ("weight", "bias"):
            keys.append((f"{our_prefix}{ours}.{tensor}", f"{kim_prefix}{theirs}.{tensor}", None))
    return keys


def kim_feature_extractor(config: EcgViTConfig) -> EcgFeatureExtractor:
    """The input of the published pretraining: raw millivolts, no filter."""
    return EcgFeatureExtractor(leads=config.leads, sampling_rate=config.sampling_rate, num_samples=config.num_samples)
