"""The projector between an encoder's pooled features and SIGReg, with batch norms that see all ranks."""

import torch
import torch.distributed as dist
from torch import nn
from transformers import initialization as init
from transformers.utils.generic import maybe_autocast

from .collectives import sum_over_ranks, world_size


class Projector(nn.Module):
    """From pooled features to what SIGReg and the losses compare: three linears, batch norm and GELU between them.

    It is thrown away after pretraining; what is evaluated are the features.

    Args:
        hidden_size (`int`): Width of the features.
        intermediate_size (`int`): Width of both hidden layers.
        projection_size (`int`): Width of the projections.
        sync_statistics (`bool`): Whether the batch norms see the rows of all ranks.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, projection_size: int, sync_statistics: bool):
        super().__init__()
        norm_class = SyncedBatchNorm1d if sync_statistics else nn.BatchNorm1d
        self.fc1 = ProjectorLinear(hidden_size, intermediate_size)
        self.norm1 = norm_class(intermediate_size)
        self.fc2 = ProjectorLinear(intermediate_size, intermediate_size)
        self.norm2 = norm_class(intermediate_size)
        self.fc3 = ProjectorLinear(intermediate_size, projection_size)
        self.activation = nn.GELU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(rows, hidden_size)` to `(rows, projection_size)`."""
        hidden_states = self.activation(self.norm1(self.fc1(features)))
        return self.fc3(self.activation(self.norm2(self.fc2(hidden_states))))


class ProjectorLinear(nn.Linear):
    """A linear of a projector: it starts from torch's own distribution, unlike those of the encoder."""


@torch.no_grad()
def init_projector_weights(module: nn.Module) -> bool:
    """Initialises a part of a [`Projector`] as torch does; `False` if `module` is no such part."""
    if isinstance(module, ProjectorLinear):
        bound = module.in_features**-0.5
        init.uniform_(module.weight, -bound, bound)
        init.uniform_(module.bias, -bound, bound)
    elif isinstance(module, nn.BatchNorm1d):
        if module.affine:
            init.ones_(module.weight)
            init.zeros_(module.bias)
        init.zeros_(module.running_mean)
        init.ones_(module.running_var)
        init.zeros_(module.num_batches_tracked)
    else:
        return False
    return True


@torch.no_grad()
def projection_spread(projections: torch.Tensor) -> torch.FloatTensor:
    """Standard deviation between the records of `(..., batch, width)` projections, a mean over the rest.

    At 0 SIGReg's gradient is zero or the same for all records, so that descent cannot part them, while the loss stands
    still and looks like any other: [`EcgSslTrainer`] looks at it whenever it logs.
    """
    return projections.std(dim=-2, correction=0).mean()


class SyncedBatchNorm1d(nn.BatchNorm1d):
    """Batch norm of `(rows, channels)` whose statistics, and gradients, are those of the rows of all ranks.

    `nn.SyncBatchNorm` does this on GPUs alone. With one process it is `nn.BatchNorm1d`.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training or world_size() == 1:
            return super().forward(hidden_states)
        with maybe_autocast(hidden_states.device.type, enabled=False):
            rows = hidden_states.float()
            count = sum_over_ranks(rows.new_full((), len(rows)))
            mean = _SumOverRanks.apply(rows.sum(dim=0)) / count
            centred = rows - mean
            variance = _SumOverRanks.apply(centred.square().sum(dim=0)) / count
            normed = centred * (variance + self.eps).rsqrt()
            if self.affine:
                normed = normed * self.weight + self.bias
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
                self.num_batches_tracked += 1
        return normed.to(hidden_states.dtype)


class _SumOverRanks(torch.autograd.Function):
    """Sum over all ranks; the gradient is summed too, which with the averaging of DistributedDataParallel gives the
    parameters the gradient of the mean of the ranks' losses."""

    @staticmethod
    def forward(ctx, tensor):
        return sum_over_ranks(tensor)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad
