"""Layer-wise learning-rate decay: layers near the input learn more slowly than those near the head."""

import re

from torch import nn
from transformers import PreTrainedModel

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def parameter_depth(name: str, num_layers: int) -> int:
    """0 for the embeddings, 1 to `num_layers` for the layers, one more for everything behind them: the final norm and
    the head."""
    if name.startswith("ecg_vit.embeddings."):
        return 0
    layer = _LAYER.search(name) if name.startswith("ecg_vit.") else None
    return num_layers + 1 if layer is None else int(layer[1]) + 1


def layer_decay_groups(
    model: PreTrainedModel, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict]:
    """Optimiser groups of a classifier of this library; the schedule of the Trainer scales all of them alike.

    Args:
        model ([`PreTrainedModel`]): Its encoder is `ecg_vit`; what decays is its own rule (`has_weight_decay`).
        learning_rate (`float`): Of the head.
        weight_decay (`float`): Of what decays: matrices and tokens, not biases, norms and LayerScale.
        layer_decay (`float`, *optional*, defaults to 1.0):
            Factor from each layer to the one below it: the embeddings of 12 layers get `layer_decay ** 13`.

    Returns:
        `list[dict]` of `params`, `lr` and `weight_decay`, from the embeddings to the head; parameters that do not
        require a gradient are left out.

    Raises:
        ValueError: for a factor outside of (0, 1], one below 1 for an encoder of another kind, or a model without
            anything to train.
    """
    if not 0.0 < layer_decay <= 1.0:
        raise ValueError(f"Expected 0 < layer_decay <= 1, got {layer_decay}: 1 trains all layers alike.")
    knows_layers = model.base_model_prefix == "ecg_vit"
    if layer_decay < 1.0 and not knows_layers:
        raise ValueError(
            f"layer_decay knows the layers of EcgViT encoders, not those of {type(model).__name__}. Set layer_decay=1."
        )
    num_layers = model.config.num_hidden_layers if knows_layers else 0
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = parameter_depth(name, num_layers) if num_layers else 0, model.has_weight_decay(name, parameter)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError("The model has no parameter that requires a gradient.")
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay ** (num_layers + 1 - depth),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (depth, decays), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]
