"""Stand-ins for the objects of other libraries that an authors' file holds beside its tensors.

`torch.load(weights_only=True)` refuses a file that names a class it does not know. Settings often are such objects.
Here a few names, and no others, stand for [`StandIn`], which keeps what the file says of an object and has no code
that could run: the classes themselves are never imported, and need not be installed.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import torch

DEEPEST = 50  # nested settings
MOST_VALUES = 100_000  # of all settings, one that is held twice counted twice


class StandIn:
    """State of an object as a file has it, and nothing that the object could do."""

    state: Any = None

    def __init__(self, *_: Any):
        """Takes any arguments and keeps none."""

    def __setstate__(self, state: Any):
        self.state = state


def standing_in_for(names: Iterable[str]) -> list[tuple[type, str]]:
    """For `torch.serialization.safe_globals`: objects of these full names are read as [`StandIn`]."""
    return [(StandIn, name) for name in names]


NAMESPACE = ("argparse.Namespace",)
# A configuration of omegaconf below 2.1, which fairseq-signals asks for.
OMEGACONF = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Enum", "Float", "Integer", "String")),
    "collections.defaultdict",
    "typing.Any",
    *(f"builtins.{kind}" for kind in ("bool", "dict", "float", "int", "list", "str")),
)


def plain_settings(value: Any) -> Any:
    """Settings of a file that was read with [`standing_in_for`], as dictionaries, lists and plain values. The state of
    a namespace is its attributes; that of a container of omegaconf lies in `_content`, that of a node in `_val`."""
    counter = count(1)

    def plain(value: Any, depth: int) -> Any:
        if depth > DEEPEST or next(counter) > MOST_VALUES:
            raise ValueError(
                f"The settings of the file are nested more than {DEEPEST} times or hold more than {MOST_VALUES} "
                "values: no published model has such settings."
            )
        if isinstance(value, StandIn):
            state = value.state
            if isinstance(state, Mapping):
                state = state.get("_content", state.get("_val", state))
            return plain(state, depth + 1)
        if isinstance(value, Mapping):
            return {key: plain(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes | torch.Size):
            return [plain(inner, depth + 1) for inner in value]
        return value

    return plain(value, 0)
