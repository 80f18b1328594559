"""Checkpoints of ST-MEM, MTAE and MLAE (repository bakqui/ST-MEM) to ours and back, tensor by tensor.

The published files are `{"epoch", "model", "optimizer", ...}`, whole models or encoders alone (`encoder.pth`);
those of a fine-tuned classifier hold the encoder and `head.*`. The authors' weights are for non-commercial use (CC
BY-NC 4.0). The fused qkv matrix has its rows in the order q, k, v, each head by head, as ours, so the split is exact.
A patch of MTAE is flattened sample by sample there and lead by lead here: the weights are permuted, exactly.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch.nn.functional import pad
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.configuration_st_mem import MaskedAutoencoderConfig
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.modeling_st_mem import MaskedAutoencoderForPreTraining, MaskedAutoencoderPreTrainedModel

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
    shape_of,
    state_of,
    their_state_dict,
)

PUBLISHED_SAMPLING_RATE = 250
# Width and depth of the published encoders and their decoder -> attention heads, of 64 whatever the width.
PUBLISHED_SIZES = {(384, 12): 6, (768, 12): 12}
PUBLISHED_DECODER_SIZES = {(256, 4): 4}
POSITION_TOLERANCE = 1e-5  # theirs are computed in float32

# Ours -> theirs.
RENAMES = [
    (r"^classifier\.", "head."),
    (r"^decoder\.mask_token$", "mask_embedding"),
    (r"^decoder\.embedding\.", "to_decoder_embedding."),
    (r"^decoder\.layernorm\.", "decoder_norm."),
    (r"^decoder\.projection\.", "decoder_head."),
    (r"^decoder\.layers\.", "decoder_blocks."),
    (r"\blayers\.", "block"),
    (r"\blayernorm\.", "norm."),
    (r"\.layernorm_before\.", ".attn.norm."),
    (r"\.attention\.[qkv]_proj\.", ".attn.fn.to_qkv."),
    (r"\.attention\.o_proj\.", ".attn.fn.to_out.0."),
    (r"\.layernorm_after\.", ".ff.norm."),
    (r"\.mlp\.fc1\.", ".ff.fn.net.0."),
    (r"\.mlp\.fc2\.", ".ff.fn.net.3."),
    (r"\bembeddings\.patch_norm_before\.", "to_patch_embedding.1."),
    (r"\bembeddings\.projection\.", "to_patch_embedding.2."),
    (r"\bembeddings\.patch_norm_after\.", "to_patch_embedding.3."),
    (r"\bembeddings\.separator$", "sep_embedding"),
    (r"\bembeddings\.register_tokens$", "cls_embedding"),
    (r"\bembeddings\.lead_embeddings$", "lead_embeddings"),
]
# The encoder's patch embedding comes a second time under this name in a whole model.
ALIAS = "to_patch_embedding."


def convert_st_mem_checkpoint(
    checkpoint: dict,
    leads: Sequence[str] = STANDARD_LEADS,
    sampling_rate: float = PUBLISHED_SAMPLING_RATE,
    **sizes: int,
) -> MaskedAutoencoderPreTrainedModel:
    """Builds our model from a whole model, an encoder, or an encoder with a head; the shapes say which method it is
    of. The file holds neither leads nor rate; `sizes` are those of a model of no published size, see [`layer_fields`].
    """
    state = state_of(checkpoint, "model")
    is_whole = any(str(key).startswith(("encoder.", "decoder_")) for key in state)
    prefix = "encoder." if is_whole else ""
    required = ("pos_embedding", "to_patch_embedding.2.weight", "block0.attn.fn.to_qkv.weight")
    check_tensors(state, [prefix + key for key in required], "ST-MEM, MTAE or MLAE")
    method = detect_method(state, prefix, len(leads))
    fields = _encoder_fields(state, prefix, method, tuple(leads), sizes)
    if is_whole:
        fields |= _decoder_fields(state, fields["head_dim"], sizes)
    stated = settings_of(settings_of(checkpoint, "config"), "model") if state is not checkpoint else {}
    shown = {"seq_len": fields["num_samples"], "num_leads": len(leads), "patch_size": fields["patch_size"]}
    check_stated(stated, {name: value for name, value in shown.items() if (method, name) != ("mlae", "patch_size")})
    fields |= {"sampling_rate": sampling_rate, "norm_pix_loss": bool(stated.get("norm_pix_loss", True))}
    auto_class = AutoModelForPreTraining if is_whole else AutoModel
    if "head.weight" in state and not is_whole:
        auto_class = AutoModelForSequenceClassification
        fields |= {"num_labels": len(state["head.weight"]), "problem_type": "single_label_classification"}
    model = auto_class.from_config(AutoConfig.for_model(method, **fields))
    _load(model, state)
    return model


def detect_method(state: State, prefix: str, num_leads: int) -> str:
    """Name of the method: ST-MEM has separators, MTAE a position for every moment, MLAE one for every lead."""
    if prefix + "sep_embedding" in state:
        return "st_mem"
    num_tokens = shape_of(state, prefix + "pos_embedding", "1, tokens, width")[1] - 1
    num_values = shape_of(state, prefix + "to_patch_embedding.2.weight", "width, values")[1]
    can_be = {"mtae": num_values % num_leads == 0, "mlae": num_tokens == num_leads}
    methods = [method for method, possible in can_be.items() if possible]
    if len(methods) != 1:
        raise ValueError(
            f"{num_tokens} tokens of {num_values} values with {num_leads} leads can be {methods or 'no method'}. "
            "Give the leads of the checkpoint: leads (--leads)."
        )
    return methods[0]


def _encoder_fields(state: State, prefix: str, method: str, leads: tuple[str, ...], sizes: Mapping[str, int]) -> dict:
    hidden_size, num_values = shape_of(state, prefix + "to_patch_embedding.2.weight", "width, values")
    num_positions = shape_of(state, prefix + "pos_embedding", "1, tokens, width")[1]
    frames = {"mlae": (1, num_values), "mtae": (num_positions - 1, num_values // len(leads))}
    num_columns, patch_size = frames.get(method, (num_positions - 2, num_values))
    layers = layer_fields(state, prefix + "block", hidden_size, PUBLISHED_SIZES, sizes)
    return layers | {
        "leads": leads,
        "num_samples": num_columns * patch_size,
        "patch_size": patch_size,
        "hidden_size": hidden_size,
        "head_dim": _head_dim(state, prefix + "block0.", layers["num_attention_heads"]),
        "intermediate_size": shape_of(state, prefix + "block0.ff.fn.net.0.weight", "hidden, width")[0],
    }


def _decoder_fields(state: State, head_dim: int, sizes: Mapping[str, int]) -> dict:
    width = shape_of(state, "mask_embedding", "1, 1, width")[2]
    fields = layer_fields(state, "decoder_blocks.", width, PUBLISHED_DECODER_SIZES, sizes, "decoder_")
    found = _head_dim(state, "decoder_blocks.0.", fields["decoder_num_attention_heads"])
    if found != head_dim:
        raise ValueError(
            f"The encoder's heads have {head_dim} channels, those of the decoder {found}; in the authors' models they "
            "have the same. Check num_attention_heads and decoder_num_attention_heads (--num_attention_heads, "
            "--decoder_num_attention_heads)."
        )
    hidden = shape_of(state, "decoder_blocks.0.ff.fn.net.0.weight", "hidden, width")[0]
    return fields | {"decoder_hidden_size": width, "decoder_intermediate_size": hidden}


def _head_dim(state: State, block: str, heads: int) -> int:
    key = block + "attn.fn.to_qkv.weight"
    rows = shape_of(state, key, "3 x heads x channels, width")[0]
    if rows % (3 * heads):
        raise ValueError(f"{key!r} has {rows} rows, no multiple of three times {heads} heads.")
    return rows // (3 * heads)


def _load(model: MaskedAutoencoderPreTrainedModel, state: State) -> None:
    is_whole = isinstance(model, MaskedAutoencoderForPreTraining)
    expected = st_mem_state_dict(model)
    aliases = {key for key in expected if is_whole and key.startswith(ALIAS)}
    needed = expected.keys() - (aliases - state.keys())  # a copy of the whole model without the alias loses nothing
    check_fits({key: expected[key] for key in needed}, state, POSITION_TOLERANCE)
    for key in aliases & state.keys():
        if not torch.equal(state[key], state["encoder." + key]):
            raise ValueError(f"The two copies of the patch embedding, {key!r} and 'encoder.{key}', differ.")
    theirs = {key: _swap_patch_order(key, tensor, model.config) for key, tensor in state.items()}
    prefix = "encoder." if is_whole else ""
    if model.config.lead_separators:
        rows = [theirs[f"{prefix}lead_embeddings.{row}"] for row in range(len(model.config.position_leads))]
        theirs[prefix + "lead_embeddings"] = torch.stack(rows)
    load_their_state_dict(model, theirs, partial(_their_key, model))


def st_mem_state_dict(model: MaskedAutoencoderPreTrainedModel) -> dict[str, torch.Tensor]:
    """Our weights under the authors' names, with position tables and the alias of whole models."""
    state = their_state_dict(model, partial(_their_key, model))
    state = {key: _swap_patch_order(key, tensor, model.config, back=True) for key, tensor in state.items()}
    num_after = int(model.config.lead_separators)  # zero rows for the tokens around the patches
    is_whole = isinstance(model, MaskedAutoencoderForPreTraining)
    prefix = "encoder." if is_whole else ""
    if is_whole:
        state["decoder_pos_embed"] = pad(model.decoder.position_embeddings, (0, 0, 1, num_after))[None]
        state["mask_embedding"] = state["mask_embedding"].reshape(1, 1, -1)
        state |= {key.removeprefix(prefix): state[key] for key in list(state) if key.startswith(prefix + ALIAS)}
    if model.config.lead_separators:
        rows = state.pop(prefix + "lead_embeddings")
        state |= {f"{prefix}lead_embeddings.{row}": tensor for row, tensor in enumerate(rows)}
    for name in ("sep_embedding", "cls_embedding"):  # have leading axes here
        state |= {key: state[key].flatten() for key in [prefix + name] if key in state}
    table = model.base_model.embeddings.position_embeddings
    table = table[:, 0] if model.config.num_columns == 1 else table[0]
    state[prefix + "pos_embedding"] = pad(table, (0, 0, 1, num_after))[None]
    return state


def _their_key(model: MaskedAutoencoderPreTrainedModel, key: str) -> str:
    prefix = "encoder." if isinstance(model, MaskedAutoencoderForPreTraining) else ""
    return renamed(key, [(r"^ecg_vit\.", prefix), *RENAMES])


def _swap_patch_order(key: str, tensor: torch.Tensor, config: MaskedAutoencoderConfig, back: bool = False):
    """MTAE: values of a patch sample by sample (theirs) as lead by lead (ours), or back."""
    axes = {"to_patch_embedding.1": 0, "to_patch_embedding.2": 1, "decoder_head": 0}
    axis = axes.get(key.removeprefix("encoder.").rpartition(".")[0])
    if axis is None or config.patching != "all_leads" or key.endswith("to_patch_embedding.2.bias"):
        return tensor
    sizes = (config.patch_size, len(config.position_leads))
    swapped = tensor.unflatten(axis, sizes[::-1] if back else sizes).transpose(axis, axis + 1)
    return swapped.flatten(axis, axis + 1)


def st_mem_feature_extractor(config: MaskedAutoencoderConfig) -> EcgFeatureExtractor:
    """The published input: a 9 s window at 250 Hz, 0.67 to 40 Hz (two Butterworth filters of order 5, zero phase),
    then one mean and one population deviation over all leads and the whole window. As in the authors' code the
    filters run over the window, not over the recording that it is cut from."""
    filters = {"highpass_hz": 0.67, "lowpass_hz": 40.0, "filter_order": 5, "filter_windows": True}
    return extractor_for(config, **filters, normalization="record")
