"""Results that a backward pass computes again in place of keeping them."""

from typing import NamedTuple

import torch
from torch import nn


def call_module(module: nn.Module, argument: torch.Tensor) -> torch.Tensor:
    """Calls a module; the backward pass keeps what it needs."""
    return module(argument)


def within_torch_func() -> bool:
    """True within `torch.func.grad`, `vmap`, `jvp` and the like, which need operations that they can transform."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def may_recompute() -> bool:
    """True where a backward pass may compute results again.

    A compiler, checkpointing, `save_on_cpu` and `torch.func` decide for themselves about saved tensors.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or within_torch_func():
        return False
    hooks = torch._C._autograd
    return hooks._saved_tensors_hooks_is_enabled() and hooks._top_saved_tensors_default_hooks(False) is None


class _Recipe(NamedTuple):
    module: nn.Module
    argument: torch.Tensor
    shape: torch.Size


class RecomputedInBackward:
    """Context in which `self(module, argument)` gives `module(argument)`, and operations that would save this result
    for the backward pass save the argument: the result is computed again when they need it.

    Worth it where the argument is kept anyway and the module is cheap and draws nothing, as a norm or an activation.
    """

    def __init__(self):
        self._results: dict[int, tuple[torch.Tensor, nn.Module, torch.Tensor]] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def __call__(self, module: nn.Module, argument: torch.Tensor) -> torch.Tensor:
        result = module(argument)
        # Held until the context ends: a memory that was freed would be taken for its successor.
        self._results[result.untyped_storage()._cdata] = result, module, argument
        return result

    def __enter__(self) -> "RecomputedInBackward":
        self._hooks.__enter__()
        return self

    def __exit__(self, *error):
        self._hooks.__exit__(*error)
        self._results.clear()

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor | _Recipe:
        found = self._results.get(tensor.untyped_storage()._cdata)
        if found is None:
            return tensor
        result, module, argument = found
        is_whole = tensor.numel() == result.numel() and tensor.dtype == result.dtype and tensor.is_contiguous()
        return _Recipe(module, argument, tensor.shape) if is_whole else tensor

    @staticmethod
    def _unpack(kept: torch.Tensor | _Recipe) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        return kept.module.forward(kept.argument).view(kept.shape)  # hooks have seen the forward pass
