"""Variance, invariance and covariance of features (VICReg: Bardes, Ponce and LeCun, arXiv 2105.04906, section 4.1)."""

import torch
from torch import nn

from .collectives import sum_over_ranks, world_size


def variance_and_covariance(features: torch.Tensor, least_std: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Penalties on channels that differ too little between records, and on channels that repeat each other.

    Args:
        features (`torch.FloatTensor` of shape `(batch, width)`): of at least two records; one gives zeros.
        least_std (`float`): Standard deviation between records that the first asks of each channel, and in units of
            which the second measures.

    Returns:
        A tuple of two scalars, variance and covariance term.
    """
    if len(features) < 2:
        return features.new_zeros(()), features.new_zeros(())
    scaled = (features.float() - features.float().mean(dim=0)) / least_std
    covariance = scaled.T @ scaled / (len(scaled) - 1)
    variances = covariance.diagonal()
    variance_term = nn.functional.relu(1.0 - (variances + 1e-4).sqrt()).mean()
    covariance_term = (covariance.square().sum() - variances.square().sum()) / features.shape[1]
    return variance_term, covariance_term


def invariance(projections: torch.Tensor, over_ranks: bool) -> torch.FloatTensor:
    """Mean squared distance of the views `(num_views, batch, width)` of a record from their mean.

    Over ranks with unequal batches each rank's part is weighted by its records, so that the mean over the ranks is
    that of all records.
    """
    distance = (projections - projections.mean(dim=0)).square().mean()
    return distance * share_of_records(projections.shape[1], distance.device) if over_ranks else distance


def share_of_records(batch: int, device: torch.device | str) -> torch.Tensor | float:
    """Weight of a mean over the records of this rank, 1 where all ranks have equally many."""
    if world_size() == 1:
        return 1.0
    records = torch.tensor(float(batch), device=device)
    return records * world_size() / sum_over_ranks(records)
