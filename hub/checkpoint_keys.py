"""What the converters share: an authors' tensors accounted for one by one, and brought under our names."""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from transformers import PreTrainedModel

from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTForSequenceClassification


def check_fits(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    """Compares the tensors of a file with those that it should have.

    Raises:
        ValueError: names every missing key, every unexpected one, and every shape that differs.
    """
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(
            f"The checkpoint does not fit the model. Missing keys: {missing or 'none'}. "
            f"Unexpected keys: {unexpected or 'none'}."
        )
    shapes = {
        key: (tuple(expected[key].shape), tuple(state[key].shape))
        for key in expected
        if expected[key].shape != state[key].shape
    }
    if shapes:
        raise ValueError(f"The checkpoint does not fit the model. Shapes expected and found: {shapes}.")


def count_blocks(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Number of different integers that follow `prefix` in the keys."""
    return len({match.group(1) for key in state if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))})


def load_renamed_state_dict(
    model: PreTrainedModel,
    state: Mapping[str, torch.Tensor],
    their_key: Callable[[str], str],
    left_out: Sequence[str] = (),
) -> None:
    """Copies tensors that differ in their names alone; every key of the file and of the model has to be accounted for.

    Args:
        model ([`PreTrainedModel`]): Ours.
        state (`dict`): Theirs.
        their_key (`Callable`): Our name of a tensor -> theirs.
        left_out (`Sequence[str]`): Regular expressions of keys of theirs that have no place in ours.
    """
    kept = {key: tensor for key, tensor in state.items() if not any(re.match(pattern, key) for pattern in left_out)}
    ours = model.state_dict()
    check_fits({their_key(key): tensor for key, tensor in ours.items()}, kept)
    model.load_state_dict({key: kept[their_key(key)] for key in ours}, strict=True)


def with_current_weight_norm(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Magnitude and direction of a weight norm under the names that torch gives them since 2.0."""
    names = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    renamed = {}
    for key, tensor in state.items():
        stem, dot, last = key.rpartition(".")
        renamed[stem + names.get(dot + last, dot + last)] = tensor
    return renamed


# --- Weimann and LeJEPA-ECG, whose code is of one family ---------------------------------------------------------


def load_fused_state_dict(
    model: PreTrainedModel, state: Mapping[str, torch.Tensor], their_key: Callable[[str], str]
) -> None:
    """Copies the authors' tensors into `model`; every key of the file and of the model has to be accounted for.

    Args:
        model ([`PreTrainedModel`]): Ours.
        state (`dict`): Theirs.
        their_key (`Callable`): Our name of a tensor → theirs; those of q, k and v are one.
    """
    check_fits(fused_state_dict(model, their_key), state)
    ours = {}
    for our_key, tensor in model.state_dict().items():
        part, num_parts = _part_of(our_key)
        theirs = state[their_key(our_key)]
        ours[our_key] = (theirs.chunk(num_parts)[part] if num_parts > 1 else theirs).reshape(tensor.shape)
    model.load_state_dict(ours, strict=True)


def fused_state_dict(model: PreTrainedModel, their_key: Callable[[str], str]) -> dict[str, torch.Tensor]:
    """The way back: our weights under the authors' names, q, k and v fused, patch weights as those of a Conv1d."""
    parts = {}
    for our_key, tensor in model.state_dict().items():
        parts.setdefault(their_key(our_key), {})[_part_of(our_key)[0]] = tensor
    state = {
        key: torch.cat([tensors[part] for part in sorted(tensors)]) if len(tensors) > 1 else tensors[0].clone()
        for key, tensors in parts.items()
    }
    for key in (key for key in state if key.endswith("patch_embed.proj.weight")):
        state[key] = state[key].unflatten(1, (len(model.config.position_leads), -1))
    return state


def _part_of(key: str) -> tuple[int, int]:
    """Which of how many parts of their tensor ours is: q, k and v are one matrix, k and v of the pooler another."""
    if match := re.search(r"\.attention\.([qkv])_proj\.", key):
        return "qkv".index(match[1]), 3
    if match := re.search(r"attentive_pooler\.([kv])_proj\.", key):
        return "kv".index(match[1]), 2
    return 0, 1


def fixed_statistics_extractor(
    model: PreTrainedModel, means: list[float], stds: list[float], clip: float, crop_stride_seconds: float
) -> EcgFeatureExtractor:
    """Fixed mean and standard deviation (mV) of each lead, clipped; gaps interpolated; records of a classifier are cut
    into crops that start every `crop_stride_seconds`."""
    config, windows = model.config, {}
    if isinstance(model, EcgViTForSequenceClassification):
        stride = round(crop_stride_seconds * config.sampling_rate)
        windows = {"long_records": "all", "window_stride_samples": stride}
    return EcgFeatureExtractor(
        leads=config.leads,
        sampling_rate=config.sampling_rate,
        num_samples=config.num_samples,
        normalization="fixed",
        lead_means=means,
        lead_stds=stds,
        clip=clip,
        nan_policy="interpolate",
        **windows,
    )
