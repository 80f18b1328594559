"""Statistics of a batch: VICReg's terms of features, and targets without what their position explains.

Variance, invariance and covariance are of Bardes, Ponce and LeCun, "VICReg", arXiv 2105.04906, section 4.1.
"""

import torch
from torch import nn
from transformers.utils.generic import maybe_autocast

from .collectives import share_of_records, sum_over_ranks


def variance_and_covariance(features: torch.Tensor, least_std: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Penalises channels that differ too little between records, and channels that repeat each other.

    Use them when nothing else keeps features from collapsing; they need a batch of independent records.

    Args:
        features (`torch.FloatTensor` of shape `(batch, width)`): Pooled features; one record alone gives zeros.
        least_std (`float`): Standard deviation between records that the first asks of each channel, and in units of
            which the second measures.

    Returns:
        `tuple` of two scalars, variance and covariance term.

    ```python
    import torch
    from ecg_transformers.modeling.vicreg import variance_and_covariance

    features = torch.randn(64, 16, requires_grad=True)
    variance, covariance = variance_and_covariance(features, least_std=1.0)
    (variance + 0.04 * covariance).backward()
    ```
    """
    if len(features) < 2:
        return features.new_zeros(()), features.new_zeros(())
    scaled = (features.float() - features.float().mean(dim=0)) / least_std
    with maybe_autocast(features.device.type, enabled=False):
        covariance = scaled.T @ scaled / (len(scaled) - 1)
    variances = covariance.diagonal()
    variance_term = nn.functional.relu(1.0 - (variances + 1e-4).sqrt()).mean()
    covariance_term = (covariance.square().sum() - variances.square().sum()) / features.shape[1]
    return variance_term, covariance_term


def invariance(projections: torch.Tensor, over_ranks: bool) -> torch.FloatTensor:
    """Mean squared distance of the views `(num_views, batch, width)` of a record from their mean.

    Use it when views of a record should get one embedding, with a term beside it that keeps records apart. Over ranks
    with unequal batches each rank's part is weighted by its records, so that the mean over the ranks is that of all.

    ```python
    import torch
    from ecg_transformers.modeling.vicreg import invariance

    projections = torch.randn(2, 64, 16, requires_grad=True)  # two views of 64 records
    invariance(projections, over_ranks=False).backward()
    ```
    """
    distance = (projections - projections.mean(dim=0)).square().mean()
    return distance * share_of_records(projections.shape[1], distance.device) if over_ranks else distance


def standardize_by_position(states: torch.Tensor, lead_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Subtracts what the position alone explains, the mean over the batch at each lead and moment; then brings every
    channel to unit variance. Statistics are those of the batch over all ranks, absent leads left out.

    Use it when a predictor could win by naming the position: the targets of [`EcgJepaForPreTraining`].

    Args:
        states (`torch.FloatTensor` of shape `(batch, rows, columns, hidden_size)`): Tensor without gradient.
        lead_mask (`torch.BoolTensor` of shape `(batch, rows)`, *optional*): `True` = present.

    ```python
    import torch
    from ecg_transformers.modeling.vicreg import standardize_by_position

    targets = standardize_by_position(torch.randn(16, 8, 25, 32))
    ```
    """
    weights = states.new_ones(states.shape[:2]) if lead_mask is None else lead_mask.to(states.dtype)
    weights = weights[..., None, None]
    count = sum_over_ranks(weights.sum(dim=0)).clamp(min=1.0)  # (rows, 1, 1)
    centred = states - sum_over_ranks((states * weights).sum(dim=0)) / count
    variance = sum_over_ranks((centred.square() * weights).sum(dim=(0, 1, 2))) / (count.sum() * states.shape[2])
    return centred * (variance + 1e-4).rsqrt()
