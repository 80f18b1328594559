"""Checkpoints of ST-MEM, MTAE and MLAE (repository bakqui/ST-MEM) to ours and back, tensor by tensor.

The published files are `{"epoch", "model", "optimizer", ...}`, whole models or encoders alone (`encoder.pth`);
those of a fine-tuned classifier hold the encoder and `head.*`. The authors' weights are for non-commercial use (CC
BY-NC 4.0). The fused qkv matrix has its rows in the order q, k, v, each head by head, as ours, so the split is exact.
A patch of MTAE is flattened sample by sample there and lead by lead here: the weights are permuted, exactly.
"""

from collections.abc import Sequence

import torch

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.configuration_st_mem import (
    MaskedAutoencoderConfig,
    MlaeConfig,
    MtaeConfig,
    StMemConfig,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.modeling_st_mem import (
    MaskedAutoencoderForPreTraining,
    MaskedAutoencoderPreTrainedModel,
    MlaeForPreTraining,
    MlaeForSequenceClassification,
    MlaeModel,
    MtaeForPreTraining,
    MtaeForSequenceClassification,
    MtaeModel,
    StMemForPreTraining,
    StMemForSequenceClassification,
    StMemModel,
)

from .checkpoint_keys import (
    check_fits,
    check_stated,
    check_tensors,
    num_heads,
    num_layers,
    settings_of,
    shape_of,
    state_of,
)

PUBLISHED_SAMPLING_RATE = 250
# Width and depth of the published encoders and their decoder -> attention heads, of 64 whatever the width.
PUBLISHED_SIZES = {(384, 12): 6, (768, 12): 12}
PUBLISHED_DECODER_SIZES = {(256, 4): 4}
POSITION_TOLERANCE = 1e-5  # theirs are computed in float32

CONFIGS = {"st_mem": StMemConfig, "mtae": MtaeConfig, "mlae": MlaeConfig}
WHOLE_MODELS = {"st_mem": StMemForPreTraining, "mtae": MtaeForPreTraining, "mlae": MlaeForPreTraining}
ENCODERS = {"st_mem": StMemModel, "mtae": MtaeModel, "mlae": MlaeModel}
CLASSIFIERS = {
    "st_mem": StMemForSequenceClassification,
    "mtae": MtaeForSequenceClassification,
    "mlae": MlaeForSequenceClassification,
}

# Ours -> theirs.
LAYER_KEYS = {
    "layernorm_before": "attn.norm",
    "attention.o_proj": "attn.fn.to_out.0",
    "layernorm_after": "ff.norm",
    "mlp.fc1": "ff.fn.net.0",
    "mlp.fc2": "ff.fn.net.3",
}
ENCODER_KEYS = {
    "embeddings.patch_norm_before": "to_patch_embedding.1",
    "embeddings.projection": "to_patch_embedding.2",
    "embeddings.patch_norm_after": "to_patch_embedding.3",
    "layernorm": "norm",
}
DECODER_KEYS = {"embedding": "to_decoder_embedding", "layernorm": "decoder_norm", "projection": "decoder_head"}
QKV = ("q_proj", "k_proj", "v_proj")
TENSORS = ("weight", "bias")
# The encoder's patch embedding comes a second time under this name in a whole model.
ALIAS = "to_patch_embedding."


def convert_st_mem_checkpoint(
    checkpoint: dict,
    method: str | None = None,
    leads: Sequence[str] = STANDARD_LEADS,
    sampling_rate: float = PUBLISHED_SAMPLING_RATE,
    norm_pix_loss: bool | None = None,
    mask_ratio: float = 0.75,
    num_attention_heads: int | None = None,
    num_hidden_layers: int | None = None,
    decoder_num_attention_heads: int | None = None,
    decoder_num_hidden_layers: int | None = None,
) -> MaskedAutoencoderPreTrainedModel:
    """Builds our model from a loaded checkpoint.

    Args:
        checkpoint (`dict`): `{"model": state_dict, ...}` or the state dict itself.
        method (`str`, *optional*): `"st_mem"`, `"mtae"` or `"mlae"`; by default what the shapes say.
        leads, sampling_rate, norm_pix_loss, mask_ratio:
            What the file does not hold; the defaults are those of the published models.
        num_attention_heads, decoder_num_attention_heads (`int`, *optional*):
            What the file does not hold either; known of the published sizes, needed for every other.
        num_hidden_layers, decoder_num_hidden_layers (`int`, *optional*):
            Number of layers of the file, where it has a published width and another depth.

    Returns:
        The method's `ForPreTraining` for a whole model, its encoder for `encoder.pth`, its
        `ForSequenceClassification` for an encoder with a head.

    Raises:
        ValueError: if a key is missing or unexpected, a shape does not fit, a stored position table is not ours, or
            the two copies of the patch embedding differ, the file's `config` contradicts its tensors, or a size is
            neither published nor given.
    """
    state = state_of(checkpoint, "model")
    is_whole = any(str(key).startswith(("encoder.", "decoder_")) for key in state)
    prefix = "encoder." if is_whole else ""
    required = [
        prefix + key for key in ("pos_embedding", "to_patch_embedding.2.weight", "block0.attn.fn.to_qkv.weight")
    ]
    check_tensors(state, required, "ST-MEM, MTAE or MLAE")
    method = method or detect_method(state, prefix, len(leads))
    if method not in CONFIGS:
        raise ValueError(f"Expected method to be one of {list(CONFIGS)}, got {method!r}.")
    config = _configuration(state, prefix, method, tuple(leads), num_attention_heads, num_hidden_layers)
    if is_whole:
        config |= _decoder_fields(state, config["head_dim"], decoder_num_attention_heads, decoder_num_hidden_layers)
    stated = settings_of(settings_of(checkpoint, "config"), "model") if state is not checkpoint else {}
    shown = {"seq_len": config["num_samples"], "num_leads": len(leads)}
    check_stated(stated, shown if method == "mlae" else shown | {"patch_size": config["patch_size"]})
    if norm_pix_loss is None:
        norm_pix_loss = bool(stated.get("norm_pix_loss", True))
    config.update({"sampling_rate": sampling_rate, "norm_pix_loss": norm_pix_loss, "mask_ratio": mask_ratio})
    if is_whole:
        model = WHOLE_MODELS[method](CONFIGS[method](**config))
    elif "head.weight" in state:
        head = {"num_labels": len(state["head.weight"]), "problem_type": "single_label_classification"}
        model = CLASSIFIERS[method](CONFIGS[method](**config, **head))
    else:
        model = ENCODERS[method](CONFIGS[method](**config))
    load_st_mem_state_dict(model, state)
    return model


def detect_method(state: dict[str, torch.Tensor], prefix: str, num_leads: int) -> str:
    """ST-MEM by its separators; MTAE has a position for every moment, MLAE one for every lead."""
    if prefix + "sep_embedding" in state:
        return "st_mem"
    num_tokens = shape_of(state, prefix + "pos_embedding", "1, tokens, width")[1] - 1
    num_values = shape_of(state, prefix + "to_patch_embedding.2.weight", "width, values")[1]
    can_be = {"mtae": num_values % num_leads == 0, "mlae": num_tokens == num_leads}
    methods = [method for method, possible in can_be.items() if possible]
    if len(methods) != 1:
        raise ValueError(
            f"{num_tokens} tokens of {num_values} values with {num_leads} leads can be {methods or 'no method'}. "
            "Give the method, or the leads of the checkpoint."
        )
    return methods[0]


def _configuration(
    state, prefix: str, method: str, leads: tuple[str, ...], given_heads: int | None, given_layers: int | None
) -> dict:
    hidden_size, num_values = shape_of(state, prefix + "to_patch_embedding.2.weight", "width, values")
    num_positions = shape_of(state, prefix + "pos_embedding", "1, tokens, width")[1]
    depth = num_layers(state, prefix + "block", hidden_size, PUBLISHED_SIZES, given_layers)
    heads = num_heads(hidden_size, depth, PUBLISHED_SIZES, None, given_heads)
    if method == "mlae":
        num_columns, patch_size = 1, num_values
    elif method == "mtae":
        num_columns, patch_size = num_positions - 1, num_values // len(leads)
    else:
        num_columns, patch_size = num_positions - 2, num_values
    return {
        "leads": leads,
        "num_samples": num_columns * patch_size,
        "patch_size": patch_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "head_dim": _head_dim(state, prefix + "block0.", heads),
        "intermediate_size": shape_of(state, prefix + "block0.ff.fn.net.0.weight", "hidden, width")[0],
    }


def _decoder_fields(state, head_dim: int, given_heads: int | None, given_layers: int | None) -> dict:
    width, flags = (
        shape_of(state, "mask_embedding", "1, 1, width")[2],
        ("decoder_num_hidden_layers", "decoder_num_attention_heads"),
    )
    depth = num_layers(state, "decoder_blocks.", width, PUBLISHED_DECODER_SIZES, given_layers, flags[0])
    heads = num_heads(width, depth, PUBLISHED_DECODER_SIZES, None, given_heads, flags[1])
    if _head_dim(state, "decoder_blocks.0.", heads) != head_dim:
        raise ValueError(
            f"The encoder's heads have {head_dim} channels, those of the decoder "
            f"{_head_dim(state, 'decoder_blocks.0.', heads)}; in the authors' models they have the same. Check "
            "num_attention_heads and decoder_num_attention_heads (--num_attention_heads, "
            "--decoder_num_attention_heads)."
        )
    return {
        "decoder_hidden_size": width,
        "decoder_num_hidden_layers": depth,
        "decoder_num_attention_heads": heads,
        "decoder_intermediate_size": shape_of(state, "decoder_blocks.0.ff.fn.net.0.weight", "hidden, width")[0],
    }


def _head_dim(state, block: str, heads: int) -> int:
    key = block + "attn.fn.to_qkv.weight"
    rows = shape_of(state, key, "3 x heads x channels, width")[0]
    if rows % (3 * heads):
        raise ValueError(f"{key!r} has {rows} rows, no multiple of three times {heads} heads.")
    return rows // (3 * heads)


def load_st_mem_state_dict(model: MaskedAutoencoderPreTrainedModel, state: dict[str, torch.Tensor]) -> None:
    """Copies the authors' tensors into `model`; every key of the file and of the model has to be accounted for."""
    expected = st_mem_state_dict(model)
    # A copy of the whole model without the alias loses nothing.
    check_fits({key: tensor for key, tensor in expected.items() if key in state or not _is_alias(model, key)}, state)
    for key, tensor in state.items():
        if _is_alias(model, key) and not torch.equal(tensor, state["encoder." + key]):
            raise ValueError(f"The two copies of the patch embedding, {key!r} and 'encoder.{key}', differ.")
        if key.endswith(("pos_embedding", "pos_embed")):
            difference = (expected[key] - tensor).abs().max().item()
            if not difference <= POSITION_TOLERANCE:
                raise ValueError(
                    f"The stored position table {key!r} differs from ours by {difference:.2g}: it belongs to another "
                    "model."
                )
    parts = {}
    for our_key, their_key, part in _key_map(model):
        parts.setdefault(our_key, []).append(_take_part(state[their_key], their_key, part, model))
    shaped = {key: torch.stack(tensors) if len(tensors) > 1 else tensors[0] for key, tensors in parts.items()}
    ours = {key: shaped[key].reshape(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict(ours, strict=True)


def st_mem_state_dict(model: MaskedAutoencoderPreTrainedModel) -> dict[str, torch.Tensor]:
    """The way back: our weights under the authors' names, with position tables and the alias of whole models."""
    ours, parts = model.state_dict(), {}
    for our_key, their_key, part in _key_map(model):
        tensor = ours[our_key]
        if isinstance(part, str):  # a token on its own, or a row of the lead embeddings
            tensor = tensor[int(part)] if part else tensor.flatten()
        parts.setdefault(their_key, []).append(tensor)
    state = {key: torch.cat(tensors) for key, tensors in parts.items()}
    if model.config.patching == "all_leads":
        state = {key: _swap_patch_order(key, tensor, model.config, back=True) for key, tensor in state.items()}
    num_after = int(model.config.lead_separators)  # zero rows for the tokens around the patches
    prefix = ""
    if isinstance(model, MaskedAutoencoderForPreTraining):
        prefix = "encoder."
        table = model.decoder.position_embeddings
        state["decoder_pos_embed"] = torch.nn.functional.pad(table, (0, 0, 1, num_after))[None]
        state |= {key[8:]: tensor for key, tensor in state.items() if key.startswith(prefix + ALIAS)}
        state["mask_embedding"] = state["mask_embedding"].reshape(1, 1, -1)
    table = _encoder(model).embeddings.position_embeddings
    table = table[:, 0] if model.config.num_columns == 1 else table[0]
    state[prefix + "pos_embedding"] = torch.nn.functional.pad(table, (0, 0, 1, num_after))[None]
    return state


def _encoder(model: MaskedAutoencoderPreTrainedModel):
    return model if isinstance(model, tuple(ENCODERS.values())) else model.ecg_vit


def _is_alias(model, key: str) -> bool:
    return isinstance(model, MaskedAutoencoderForPreTraining) and key.startswith(ALIAS)


def _take_part(tensor: torch.Tensor, key: str, part: int | str | None, model) -> torch.Tensor:
    if isinstance(part, int):
        return tensor.chunk(3, dim=0)[part]
    return _swap_patch_order(key, tensor, model.config) if model.config.patching == "all_leads" else tensor


def _swap_patch_order(key: str, tensor: torch.Tensor, config: MaskedAutoencoderConfig, back: bool = False):
    """MTAE: values of a patch sample by sample (theirs) as lead by lead (ours), or back."""
    name = key.removeprefix("encoder.")
    if name.startswith(("to_patch_embedding.1.", "decoder_head.")):
        axis = 0
    elif name == "to_patch_embedding.2.weight":
        axis = 1
    else:
        return tensor
    sizes = (config.patch_size, len(config.position_leads))
    swapped = tensor.unflatten(axis, sizes[::-1] if back else sizes).transpose(axis, axis + 1)
    return swapped.flatten(axis, axis + 1)


def _key_map(model) -> list[tuple[str, str, int | str | None]]:
    """`(our key, their key, part)` for every tensor of the model. The part is the third of a fused qkv, the row of the
    lead embeddings as a string, or `""` for a lone token, which has leading axes here."""
    config, ours, theirs = model.config, "", ""
    keys = []
    if isinstance(model, MaskedAutoencoderForPreTraining):
        ours, theirs = "ecg_vit.", "encoder."
        keys += _stack_keys(config.decoder_num_hidden_layers, "decoder.", "", "decoder_blocks.{}.", DECODER_KEYS)
        keys.append(("decoder.mask_token", "mask_embedding", ""))
    elif _encoder(model) is not model:
        ours = "ecg_vit."
        keys += [(f"classifier.{tensor}", f"head.{tensor}", None) for tensor in TENSORS]
    keys += _stack_keys(config.num_hidden_layers, ours, theirs, "block{}.", ENCODER_KEYS)
    if config.lead_separators:
        keys.append((ours + "embeddings.separator", theirs + "sep_embedding", ""))
        for row in range(len(config.position_leads)):
            keys.append((ours + "embeddings.lead_embeddings", f"{theirs}lead_embeddings.{row}", str(row)))
    else:
        keys.append((ours + "embeddings.register_tokens", theirs + "cls_embedding", ""))
    return keys


def _stack_keys(num_layers: int, our_prefix: str, their_prefix: str, block: str, outer: dict) -> list:
    modules, keys = list(outer.items()), []
    for layer in range(num_layers):
        ours, theirs = f"layers.{layer}.", block.format(layer)
        modules += [(ours + our_name, theirs + their_name) for our_name, their_name in LAYER_KEYS.items()]
        for part, name in enumerate(QKV):
            fused = f"{their_prefix}{theirs}attn.fn.to_qkv"
            keys += [(f"{our_prefix}{ours}attention.{name}.{tensor}", f"{fused}.{tensor}", part) for tensor in TENSORS]
    for ours, theirs in modules:
        keys += [(f"{our_prefix}{ours}.{tensor}", f"{their_prefix}{theirs}.{tensor}", None) for tensor in TENSORS]
    return keys


def st_mem_feature_extractor(config: MaskedAutoencoderConfig) -> EcgFeatureExtractor:
    """The published input: a 9 s window at 250 Hz, 0.67 to 40 Hz (two Butterworth filters of order 5, zero phase),
    then one mean and one population deviation over all leads and the whole window. As in the authors' code the
    filters run over the window, not over the recording that it is cut from.
    """
    return EcgFeatureExtractor(
        leads=config.leads,
        sampling_rate=config.sampling_rate,
        num_samples=config.num_samples,
        highpass_hz=0.67,
        lowpass_hz=40.0,
        filter_order=5,
        filter_windows=True,
        normalization="record",
    )


__all__ = [
    "convert_st_mem_checkpoint",
    "detect_method",
    "load_st_mem_state_dict",
    "st_mem_feature_extractor",
    "st_mem_state_dict",
]
