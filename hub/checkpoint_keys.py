"""Checks that the converters share: an authors' tensors accounted for one by one, and brought under our names.

Nothing of a file is guessed. What its tensors show, what its own settings say and what the caller gives must agree;
what none of them holds is that of the published model of exactly this size, or has to be given. Every function here
raises `ValueError` with the name of the tensor or setting that does not fit.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ecg_transformers.modeling import EcgFeatureExtractor

State = Mapping[str, torch.Tensor]
WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTERS = ("num_batches_tracked",)
"""Last parts of the names of tensors that are whole numbers: the steps that a batch norm has seen."""

# --- The file ---------------------------------------------------------------------------------------------------


def state_of(checkpoint: Mapping, *names: str) -> State:
    """State dict of a file: the content of the first of `names` that the file has, else the file itself."""
    found = [name for name in names if name in checkpoint and not torch.is_tensor(checkpoint[name])]
    return settings_of(checkpoint, *found) if found else checkpoint


def settings_of(checkpoint: Mapping, *names: str) -> Mapping[str, Any]:
    """Mapping that a file has under the first of `names`; empty where it has none of them."""
    name = next((name for name in names if name in checkpoint), None)
    if name is None:
        return {}
    if not isinstance(checkpoint[name], Mapping):
        raise ValueError(
            f"Expected {name!r} of the file to be a dictionary, got {type(checkpoint[name]).__name__}. A file without "
            "settings has no such entry: save it again without it."
        )
    return checkpoint[name]


def settled(published: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a file, each of the kind of the published one, with the published ones in their gaps."""
    for name, value in published.items():
        kind = str if isinstance(value, str) else list | tuple if isinstance(value, list | tuple) else int | float
        if name in stated and (not isinstance(stated[name], kind) or isinstance(stated[name], bool)):
            raise ValueError(f"Expected the file to say {name} as it was published ({value!r}), got {stated[name]!r}.")
    return dict(published) | dict(stated)


def check_tensors(state: State, required: Iterable[str], model_name: str) -> None:
    """Looks at every tensor of a file before anything is built of them; without the required keys the file is of
    another model than the one that it should be."""
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


def shape_of(state: State, key: str, axes: str) -> tuple[int, ...]:
    """Shape of a tensor that has to be there, with these axes, such as `"width, leads, samples"`."""
    if key not in state:
        raise ValueError(f"The checkpoint lacks the tensor {key!r}, expected of the axes ({axes}).")
    shape = tuple(state[key].shape)
    if len(shape) != len(axes.split(", ")) or 0 in shape:
        raise ValueError(f"Expected {key!r} of the checkpoint to have the axes ({axes}), got the shape {shape}.")
    return shape


# --- Sizes ------------------------------------------------------------------------------------------------------


def layer_fields(
    state: State,
    prefix: str,
    width: int,
    published: Mapping[tuple[int, int], int],
    given: Mapping[str, Any],
    part: str = "",
    stated_layers: int | None = None,
    stated_heads: int | None = None,
) -> dict[str, int]:
    """Number of layers, none of which may be missing, and of attention heads, which no tensor shows: the file's, else
    the caller's, else that of the published model of exactly this width and depth.

    Args:
        state (`dict`): Tensors of the authors.
        prefix (`str`): Text before the number of a layer.
        width (`int`): Width of the layers.
        published (`dict`): Width and depth -> heads, of the published models.
        given (`Mapping`): Fields that the caller gives; `None` is none.
        part (`str`, *optional*): `"predictor_"` or `"decoder_"`, before the names of both fields.
        stated_layers, stated_heads (`int`, *optional*): Numbers that the file states.
    """
    flag, heads_flag = f"{part}num_hidden_layers", f"{part}num_attention_heads"
    depth = count_blocks(state, prefix)
    refuse_contradictions({flag: depth}, given)
    depths = sorted(depth for known, depth in published if known == width)
    if given.get(flag) is None and stated_layers is None and depths and depth not in depths:
        has = (
            f"{depth} layers {prefix}0, ...; the published model of width {width} has {' or '.join(map(str, depths))}"
        )
        raise unlike_the_published(has, flag, depth)
    if stated_heads is not None:
        refuse_contradictions({heads_flag: stated_heads}, given)
    known = (stated_heads, given.get(heads_flag), published.get((width, depth)))
    heads = next((number for number in known if number is not None), None)
    if heads is None:
        raise ValueError(
            f"No published model has width {width} and {depth} layers, and the file names no number of heads. "
            f"Give {heads_flag} (--{heads_flag})."
        )
    if not isinstance(heads, int) or heads < 1:
        raise ValueError(f"Expected a number of heads of at least 1, got {heads!r} ({heads_flag}).")
    return {flag: depth, heads_flag: heads}


def unlike_the_published(has: str, name: str, value: Any) -> ValueError:
    """The error of a file that may lack a part, with the setting that says that it lacks none."""
    cure = f"If none is missing of yours, say so with {name}={value} (--{name} {value})."
    return ValueError(f"The file has {has}. {cure}")


def refuse_contradictions(found: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a value that the caller gives and the file contradicts; `None` is none."""
    for name in found.keys() & given.keys():
        value = tuple(given[name]) if isinstance(given[name], list | tuple) else given[name]
        if value not in (None, found[name]):
            raise ValueError(
                f"{name}={given[name]!r} was given (--{name}), but the file has {found[name]!r}. Leave it out."
            )


def count_blocks(state: State, prefix: str) -> int:
    """Number of blocks whose names are `prefix` and a number, from 0 without a gap."""
    numbers = {int(match[1]) for key in state if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))}
    missing = next((number for number in range(len(numbers)) if number not in numbers), None)
    if missing is not None or not numbers:
        raise ValueError(
            f"The block {prefix}{missing or 0} is missing: the file has the numbers {sorted(numbers)[:50]}."
        )
    return len(numbers)


def block_shapes(state: State, prefix: str, suffix: str, axes: str) -> list[tuple[int, ...]]:
    """Shape of one tensor of every block, see [`count_blocks`] and [`shape_of`]."""
    return [shape_of(state, f"{prefix}{number}{suffix}", axes) for number in range(count_blocks(state, prefix))]


def check_stated(stated: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Compares the settings of a file with those that its tensors show, under the same names."""
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
    """Fields by the file with those that the caller gives, which may replace the `assumed` ones alone: published
    values that the file does not hold."""
    refuse_contradictions({name: value for name, value in fields.items() if name not in assumed}, given)
    return dict(fields) | dict(given)


# --- Tensors ----------------------------------------------------------------------------------------------------


def renamed(key: str, renames: Iterable[tuple[str, str]]) -> str:
    """A name after all replacements (regular expression, text), one after the other."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def check_fits(expected: State, state: State, position_tolerance: float = 0.0) -> None:
    """Compares the tensors of a file with those that it should have: names all that are missing, unexpected or of
    another shape, and position tables that differ by more than a tolerance."""
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(
            f"The checkpoint does not fit the model. Missing keys: {missing or 'none'}. "
            f"Unexpected keys: {unexpected or 'none'}."
        )
    shapes = {key: (tuple(tensor.shape), tuple(state[key].shape)) for key, tensor in expected.items()}
    if different := {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}:
        raise ValueError(f"The checkpoint does not fit the model. Shapes expected and found: {different}.")
    for key in (key for key in expected if key.endswith(("pos_embed", "pos_embedding"))):
        difference = (expected[key] - state[key]).abs().max().item()
        if not difference <= position_tolerance:
            raise ValueError(
                f"The stored position table {key!r} differs from ours by {difference:.2g}. It belongs to another "
                "model, to another order of leads or to learned positions, which were never published."
            )


def their_state_dict(model: PreTrainedModel, their_key: Callable[[str], str]) -> dict[str, torch.Tensor]:
    """Our weights under the authors' names; those of one name, such as q, k and v, are fused."""
    ours = model.state_dict()
    return {
        their: torch.cat([ours[key] for key in keys]) if len(keys) > 1 else ours[keys[0]].clone()
        for their, keys in _our_keys(model, their_key).items()
    }


def load_their_state_dict(model: PreTrainedModel, state: State, their_key: Callable[[str], str]) -> None:
    """Copies the authors' tensors, which [`check_fits`] has seen, into a model, in the shapes that it has."""
    ours = {}
    for their, keys in _our_keys(model, their_key).items():
        ours |= zip(keys, state[their].chunk(len(keys)) if len(keys) > 1 else [state[their]], strict=True)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    model.load_state_dict({key: tensor.reshape(shapes[key]) for key, tensor in ours.items()}, strict=True)


def load_renamed_state_dict(
    model: PreTrainedModel, state: State, their_key: Callable[[str], str], left_out: Sequence[str]
) -> None:
    """Checks and copies tensors that differ in their names alone; `left_out` are regular expressions of keys of theirs
    that have no place in ours."""
    kept = {key: tensor for key, tensor in state.items() if not any(re.match(pattern, key) for pattern in left_out)}
    check_fits(their_state_dict(model, their_key), kept)
    load_their_state_dict(model, kept, their_key)


def _our_keys(model: PreTrainedModel, their_key: Callable[[str], str]) -> dict[str, list[str]]:
    """Our keys of each tensor of theirs, q before k before v."""
    keys: dict[str, list[str]] = {}
    for key in model.state_dict():
        keys.setdefault(their_key(key), []).append(key)
    order = re.compile(r"\.([qkv])_proj\.")
    return {
        their: sorted(ours, key=lambda key: "qkv".index(order.search(key)[1])) if len(ours) > 1 else ours
        for their, ours in keys.items()
    }


def with_current_weight_norm(state: State) -> dict[str, torch.Tensor]:
    """Magnitude and direction of a weight norm under the names that torch gives them since 2.0."""
    names = [(rf"\.weight_{old}$", f".parametrizations.weight.original{n}") for n, old in enumerate("gv")]
    return {renamed(key, names): tensor for key, tensor in state.items()}


def check_built(stated: Mapping[str, Any], built: Mapping[str, Any], model_name: str) -> None:
    """Raises `ValueError` where a file states another setting than ours is built with. Such settings shape the forward
    pass and are in no tensor."""
    for name, value in built.items():
        said = stated.get(name, value)
        if (list(said) if isinstance(said, tuple) else said) != value:
            raise ValueError(f"The file says {name}={said!r}; {model_name} has {value!r}.")


def extractor_for(config: PreTrainedConfig, **settings: Any) -> EcgFeatureExtractor:
    """A feature extractor for the leads, rate and length of a configuration."""
    frame = {name: getattr(config, name) for name in ("leads", "sampling_rate", "num_samples")}
    return EcgFeatureExtractor(**frame, **settings)
