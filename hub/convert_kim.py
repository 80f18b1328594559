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

from .checkpoint_keys import check_fits, count_blocks

PUBLISHED_NUM_ATTENTION_HEADS = 16
PUBLISHED_PREDICTOR_NUM_ATTENTION_HEADS = 12
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
    num_attention_heads: int = PUBLISHED_NUM_ATTENTION_HEADS,
    predictor_num_attention_heads: int = PUBLISHED_PREDICTOR_NUM_ATTENTION_HEADS,
) -> EcgViTModel | EcgJepaForPreTraining:
    """Builds our model from a loaded checkpoint of Kim.

    Args:
        checkpoint (`dict`): `{"encoder": state_dict, ...}`, an encoder's state dict, or that of the whole model.
        leads, sampling_rate, num_attention_heads, predictor_num_attention_heads:
            What the file does not hold; the defaults are those of the published model.

    Returns:
        [`EcgViTModel`] for an encoder, [`EcgJepaForPreTraining`] for a whole model.

    Raises:
        ValueError: if a key is missing or unexpected, a shape does not fit, or a stored position table is not ours.
    """
    state = checkpoint["encoder"] if isinstance(checkpoint.get("encoder"), dict) else checkpoint
    whole = any(key.startswith("target_encoder.") for key in state)
    prefix = "encoder." if whole else ""
    for key in ("W_P.weight", "pos_embed", "encoder_blocks.blocks.0.mlp.fc1.weight"):
        if prefix + key not in state:
            raise ValueError(
                f"This is no ECG-JEPA (Kim) checkpoint: expected the key {prefix + key!r}, found "
                f"{sorted(state)[:6]}..."
            )
    hidden_size, patch_size = state[prefix + "W_P.weight"].shape
    num_columns, remainder = divmod(state[prefix + "pos_embed"].shape[0], len(leads))
    if remainder:
        raise ValueError(
            f"The position table has {state[prefix + 'pos_embed'].shape[0]} rows, no multiple of {len(leads)} leads. "
            "Give the leads of the checkpoint with --leads."
        )
    fields = {
        "leads": leads,
        "sampling_rate": sampling_rate,
        "num_samples": num_columns * patch_size,
        "patch_size": patch_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": count_blocks(state, prefix + "encoder_blocks.blocks."),
        "num_attention_heads": num_attention_heads,
        "intermediate_size": state[prefix + "encoder_blocks.blocks.0.mlp.fc1.weight"].shape[0],
    }
    if whole:
        config = EcgJepaConfig(
            **fields,
            predictor_hidden_size=state["predictor.predictor_embed.weight"].shape[0],
            predictor_num_hidden_layers=count_blocks(state, "predictor.predictor_blocks.blocks."),
            predictor_num_attention_heads=predictor_num_attention_heads,
            predictor_intermediate_size=state["predictor.predictor_blocks.blocks.0.mlp.fc1.weight"].shape[0],
        )
        model = EcgJepaForPreTraining(config)
    else:
        model = EcgViTModel(EcgViTConfig(**fields))
    load_kim_state_dict(model, state)
    return model


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
