"""Weights that a checkpoint has to hold: all of the encoder that its configuration describes, and no further layer."""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedModel

NUM_NAMED = 4


def check_encoder_is_whole(model: PreTrainedModel, loading: dict[str, Any]) -> None:
    """Looks at what `from_pretrained` has found. A head may begin anew, an encoder may not.

    Args:
        model ([`PreTrainedModel`]): Loaded.
        loading (`dict`): Report that `from_pretrained` returns with `output_loading_info=True`.

    Raises:
        ValueError: where weights of the encoder are missing, of another shape, or left over.
    """
    prefix = f"{model.base_model_prefix}."
    outer = "" if model.base_model is model else prefix
    parts = {name.split(".")[0] for name in model.base_model.state_dict()}

    def of_encoder(names: Iterable[str]) -> list[str]:
        inner = {name: name.removeprefix(outer) for name in names if name.startswith(outer)}
        return sorted(name for name, short in inner.items() if short.removeprefix(prefix).split(".")[0] in parts)

    faults = {
        "are missing": of_encoder(loading["missing_keys"]),
        "have another shape": of_encoder(name for name, *_ in loading["mismatched_keys"]),
        "have no place in it": of_encoder(loading["unexpected_keys"]),
    }
    found = [
        f"{len(names)} {what} ({', '.join(names[:NUM_NAMED])}{', ...' if len(names) > NUM_NAMED else ''})"
        for what, names in faults.items()
        if names
    ]
    if found:
        raise ValueError(
            f"The checkpoint does not hold the encoder that its configuration describes: of its weights "
            f"{'; '.join(found)}. They would be random or left out. The folder is damaged, or a setting of the "
            "encoder was changed (number of layers, widths, patch): use the checkpoint with its own config.json."
        )
