"""Batch statistics over all ranks, so that several processes compute what one would on the concatenated batch."""

import torch
import torch.distributed as dist


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor without gradient over all ranks."""
    if world_size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def gather_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenates `(batch, ...)` of all ranks, equal batches, along the first axis, with gradient.

    The backward sums the gradients of all ranks. With losses that every rank computes on the gathered rows and the
    averaging of DistributedDataParallel, the parameters get the gradient that one process would compute.
    """
    return _GatherRows.apply(tensor) if world_size() > 1 else tensor


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor):
        parts = [torch.empty_like(tensor) for _ in range(world_size())]
        dist.all_gather(parts, tensor.contiguous())
        ctx.num_rows = len(tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous()
        dist.all_reduce(grad)
        start = dist.get_rank() * ctx.num_rows
        return grad[start : start + ctx.num_rows]


def share_of_records(batch_size: int, device: torch.device | str) -> torch.Tensor | float:
    """Weight of a mean over the records of this rank, so that the mean over the ranks, which DistributedDataParallel
    takes, is that of all records: 1 where all ranks have equally many."""
    if world_size() == 1:
        return 1.0
    records = torch.full((), float(batch_size), device=device)
    return records * world_size() / sum_over_ranks(records)


def mean_over_records(losses: torch.Tensor) -> torch.Tensor:
    """Mean of `(batch,)` losses, weighted by [`share_of_records`]."""
    return losses.mean() * share_of_records(len(losses), losses.device)
