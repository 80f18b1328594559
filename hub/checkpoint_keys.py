"""Checks that the converters share: an authors' tensors accounted for one by one, and brought under our names.

Nothing of a file is guessed. What its tensors show, what its own settings say and what the caller gives must agree;
what none of them holds is that of the published model of exactly this size, or has to be given.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTForSequenceClassification

WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTERS = ("num_batches_tracked",)
"""Last parts of the names of tensors that are whole numbers: the steps that a batch norm has seen."""

# --- The file ---------------------------------------------------------------------------------------------------


def state_of(checkpoint: Mapping, *names: str) -> Mapping[str, torch.Tensor]:
    """State dict of a file: what lies under the first of `names` that the file has, else the file itself."""
    for name in names:
        if name in checkpoint and not torch.is_tensor(checkpoint[name]):
            return _mapping(checkpoint, name)
    return checkpoint


def settings_of(checkpoint: Mapping, *names: str) -> Mapping[str, Any]:
    """Settings that a file has under the first of `names`; empty where it has none of them."""
    for name in names:
        if name in checkpoint:
            return _mapping(checkpoint, name)
    return {}


def settled(published: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a file, with the published ones in their gaps.

    Raises:
        ValueError: names a setting that is of another kind than the published one, such as `None` for a number.
    """
    for name, value in published.items():
        kind = str if isinstance(value, str) else list | tuple if isinstance(value, list | tuple) else int | float
        if name in stated and (not isinstance(stated[name], kind) or isinstance(stated[name], bool)):
            raise ValueError(f"Expected the file to say {name} as it was published ({value!r}), got {stated[name]!r}.")
    return dict(published) | dict(stated)


def _mapping(checkpoint: Mapping, name: str) -> Mapping:
    if not isinstance(checkpoint[name], Mapping):
        raise ValueError(
            f"Expected {name!r} of the file to be a dictionary, got {type(checkpoint[name]).__name__}. A file without "
            "settings has no such entry: save it again without it."
        )
    return checkpoint[name]


def check_tensors(state: Mapping[str, torch.Tensor], required: Iterable[str], model_name: str) -> None:
    """Looks at every tensor of a file before anything is built of them.

    Args:
        state (`dict`): Theirs.
        required (`Iterable[str]`): Keys without which the file is of another model.
        model_name (`str`): Whose file it should be.

    Raises:
        ValueError: for a file of another model; names a tensor that is none, is not of floating-point numbers, or
            holds NaN or infinite values.
    """
    for key in required:
        if key not in state:
            raise ValueError(
                f"This is no {model_name} checkpoint: expected the key {key!r}, found {sorted(map(str, state))[:6]}..."
            )
    for key, tensor in state.items():
        if not torch.is_tensor(tensor):
            raise ValueError(
                f"Expected {key!r} of the file to be a tensor, got {type(tensor).__name__}. Save its state dict alone."
            )
        if str(key).endswith(COUNTERS):
            continue
        if tensor.dtype not in WEIGHT_DTYPES or tensor.layout != torch.strided:
            raise ValueError(
                f"Expected {key!r} of the file to hold real weights ({', '.join(map(str, WEIGHT_DTYPES))}), got "
                f"{tensor.dtype}, {tensor.layout}."
            )
        if not tensor.float().isfinite().all():
            raise ValueError(
                f"{key!r} of the file holds NaN or infinite values: the training behind it has failed, or the file is "
                "damaged. Take another checkpoint."
            )


def shape_of(state: Mapping[str, torch.Tensor], key: str, axes: str) -> tuple[int, ...]:
    """Shape of a tensor with these axes, such as `"width, leads, samples"`.

    Raises:
        ValueError: names the tensor where it is missing or has another number of axes, or an empty one.
    """
    if key not in state:
        raise ValueError(f"The checkpoint lacks the tensor {key!r}, expected of the axes ({axes}).")
    shape = tuple(state[key].shape)
    if len(shape) != len(axes.split(", ")) or 0 in shape:
        raise ValueError(f"Expected {key!r} of the checkpoint to have the axes ({axes}), got the shape {shape}.")
    return shape


# --- Sizes ------------------------------------------------------------------------------------------------------


def num_layers(
    state: Mapping[str, torch.Tensor],
    prefix: str,
    width: int,
    published: Collection[tuple[int, int]],
    given: int | None,
    flag: str = "num_hidden_layers",
) -> int:
    """Number of layers of a file, none of which may be missing.

    Args:
        state (`dict`): Theirs.
        prefix (`str`): Comes before the number of a layer.
        width (`int`): Of the layers.
        published: Pairs of width and depth of the published models; empty where the file says its own depth.
        given (`int`, *optional*): Depth that the caller gives.
        flag (`str`): Name of that argument.

    Raises:
        ValueError: for a gap between the layers, and for a depth that is neither published nor given.
    """
    count = count_blocks(state, prefix)
    if given is not None and given != count:
        raise ValueError(f"{flag}={given} was given (--{flag}), but the file has {count} layers {prefix}0, ....")
    depths = sorted(depth for known, depth in published if known == width)
    if given is None and depths and count not in depths:
        raise ValueError(
            f"The file has {count} layers {prefix}0, ...; the published model of width {width} has "
            f"{' or '.join(map(str, depths))}. If none is missing of yours, say so with {flag}={count} "
            f"(--{flag} {count})."
        )
    return count


def count_blocks(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Number of blocks whose names are `prefix` and a number.

    Raises:
        ValueError: names the first that is missing between 0 and the last.
    """
    numbers = {int(match[1]) for key in state if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))}
    missing = next((number for number in range(len(numbers)) if number not in numbers), None)
    if missing is not None or not numbers:
        raise ValueError(
            f"The block {prefix}{missing or 0} is missing: the file has the numbers {sorted(numbers)[:50]}."
        )
    return len(numbers)


def num_heads(
    width: int,
    depth: int,
    published: Mapping[tuple[int, int], int],
    stated: int | None,
    given: int | None,
    flag: str = "num_attention_heads",
) -> int:
    """Number of attention heads, which no tensor shows: the file's, else the caller's, else that of the published
    model of exactly this width and depth.

    Args:
        width, depth (`int`): Of the layers.
        published (`dict`): Width and depth -> heads.
        stated (`int`, *optional*): What the file says.
        given (`int`, *optional*): What the caller says.
        flag (`str`): Name of that argument.

    Raises:
        ValueError: where file and caller differ, and where nobody knows.
    """
    if stated is not None and given is not None and stated != given:
        raise ValueError(f"{flag}={given} was given (--{flag}), but the file says {stated}. Leave it out.")
    heads = given if stated is None else stated
    if heads is None and (width, depth) not in published:
        raise ValueError(
            f"No published model has width {width} and {depth} layers, and the file names no number of heads. "
            f"Give {flag} (--{flag})."
        )
    heads = published[width, depth] if heads is None else heads
    if not isinstance(heads, int) or heads < 1:
        raise ValueError(f"Expected a number of heads of at least 1, got {heads!r} ({flag}).")
    return heads


def check_stated(stated: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Holds the settings of a file against its tensors.

    Args:
        stated (`dict`): The file's own settings.
        shown (`dict`): What the tensors show, under the same names.

    Raises:
        ValueError: names every setting that differs, with both values.
    """
    wrong = [
        f"{name} is {stated[name]!r} in its settings and {value!r} by its tensors"
        for name, value in shown.items()
        if name in stated and stated[name] != value
    ]
    if wrong:
        raise ValueError(
            f"The file contradicts itself: {'; '.join(wrong)}. Something is missing of it, or its settings are those "
            "of another model."
        )


def with_given(fields: Mapping[str, Any], given: Mapping[str, Any], assumed: Collection[str]) -> dict[str, Any]:
    """Fields of a configuration with what the caller gives.

    Args:
        fields (`dict`): By the file.
        given (`dict`): By the caller.
        assumed: Names of the fields that the file does not hold, whose published values may be replaced.

    Raises:
        ValueError: for a given value that contradicts the file.
    """
    for name, value in given.items():
        same = value == fields.get(name) or (isinstance(value, list | tuple) and tuple(value) == fields.get(name))
        if name in fields and name not in assumed and not same:
            raise ValueError(
                f"{name}={value!r} was given (--{name}), but the file has {fields[name]!r}. Leave it out."
            )
    return dict(fields) | dict(given)


# --- Tensors ----------------------------------------------------------------------------------------------------


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
