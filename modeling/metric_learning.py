"""Triplet losses: records of one class closer to each other than to those of other classes, by a margin.

    loss = mean over triplets of relu(|a - p|^2 - |a - n|^2 + margin)

with squared Euclidean distances (Schroff et al., arXiv 1503.03832; Hermans et al., arXiv 1703.07737). This is the
intended loss of the SMILES project. Its code computes another one: its positives and negatives carry an axis too many,
so that each positive is compared with all anchors, coordinate by coordinate (1.309 instead of 0.759 on the same batch;
`tests/modeling/test_metric_learning.py` keeps the number). That form is not offered.
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import logging
from transformers.utils.generic import maybe_autocast

logger = logging.get_logger(__name__)


class EmbeddingProjection(nn.Sequential):
    """Linear, ReLU, linear: from a pooled feature to an embedding that is still to be normalised (SMILES: 64, 9).

    Weights start in proportion to their inputs, as PyTorch's own do: from N(0, 0.02) the embeddings would be so small
    before they are normalised that the first steps throw all of them onto one point.
    """

    def __init__(self, in_features: int, hidden_features: int, out_features: int):
        super().__init__(nn.Linear(in_features, hidden_features), nn.ReLU(), nn.Linear(hidden_features, out_features))

    @torch.no_grad()
    def reset_parameters(self):
        for layer in (self[0], self[2]):
            init.kaiming_uniform_(layer.weight, a=5**0.5)
            init.zeros_(layer.bias)


def triplet_loss(
    anchors: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, margin: float = 1.0
) -> torch.Tensor:
    """Mean over triplets of `relu(|a - p|^2 - |a - n|^2 + margin)`, in float32.

    Use it when the triplets are known; [`mined_triplet_loss`] takes them from a batch.

    Args:
        anchors, positives, negatives (`torch.FloatTensor` of shape `(num_triplets, embedding_size)`): Embeddings.
        margin (`float`, *optional*, defaults to 1.0): Margin in units of squared distance.

    ```python
    import torch
    from ecg_transformers.modeling.metric_learning import triplet_loss

    anchors, positives, negatives = torch.randn(3, 16, 9, requires_grad=True)
    triplet_loss(anchors, positives, negatives).backward()
    ```
    """
    shapes = [tuple(part.shape) for part in (anchors, positives, negatives)]
    if len(set(shapes)) > 1 or anchors.dim() != 2:
        raise ValueError(
            f"Expected three tensors of one shape (num_triplets, embedding_size), got {shapes}. With an axis too "
            "many, every positive would be compared with all anchors."
        )
    with maybe_autocast(anchors.device.type, enabled=False):
        anchors, positives, negatives = anchors.float(), positives.float(), negatives.float()
        to_positive = (anchors - positives).square().sum(dim=1)
        to_negative = (anchors - negatives).square().sum(dim=1)
        return nn.functional.relu(to_positive - to_negative + margin).mean()


def matching_pairs(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Finds the pairs of a batch that are of one class, and those of different classes.

    Classes (`(batch,)` integers): equal or not. Several labels (`(batch, num_labels)`, 0 or 1): pairs that share **at
    least one** label are positive and pairs that share **none** negative, so that a record with infarction and
    hypertrophy is never pushed away from one with infarction alone. A record without a label (no 1 in its row, or a
    negative class) is in no pair: nothing is known of it.

    Returns:
        Two bool tensors of shape `(batch, batch)`, positive and negative, symmetric, `False` on the diagonal.
    """
    if labels.dim() == 1 and not labels.is_floating_point():
        same = labels[:, None] == labels
        known = labels >= 0
    elif labels.dim() == 2:
        same = (labels.float() @ labels.float().T) > 0
        known = (labels > 0).any(dim=1)
    else:
        raise ValueError(
            "Expected labels as integer classes (batch,) or as 0 and 1 of shape (batch, num_labels), got "
            f"{labels.dtype} of shape {tuple(labels.shape)}."
        )
    pairs = known[:, None] & known & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return pairs & same, pairs & ~same


def batch_hard_triplets(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For each record its farthest positive and its nearest negative (Hermans et al., section 2).

    Args:
        embeddings (`torch.FloatTensor` of shape `(batch, embedding_size)`).
        labels: see [`matching_pairs`].

    Returns:
        `torch.LongTensor` of shape `(num_triplets, 3)`: anchor, positive, negative. Records without a positive or
        without a negative are no anchors.
    """
    distances = squared_distances(embeddings)
    positive, negative = matching_pairs(labels)
    farthest = distances.masked_fill(~positive, -torch.inf).argmax(dim=1)
    nearest = distances.masked_fill(~negative, torch.inf).argmin(dim=1)
    anchors = _anchors(positive, negative)
    return torch.stack((anchors, farthest[anchors], nearest[anchors]), dim=1)


def semi_hard_triplets(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For each positive pair the nearest negative that is farther from the anchor than the positive; where there is
    none, the farthest negative, which is the easiest of those too near (Schroff et al., section 3.2). Shapes as in
    [`batch_hard_triplets`]."""
    distances = squared_distances(embeddings)
    positive, negative = matching_pairs(labels)
    anchors, positives = (positive & negative.any(dim=1, keepdim=True)).nonzero(as_tuple=True)
    from_anchor, allowed = distances[anchors], negative[anchors]
    farther = allowed & (from_anchor > distances[anchors, positives][:, None])
    nearest_farther = from_anchor.masked_fill(~farther, torch.inf).argmin(dim=1)
    farthest = from_anchor.masked_fill(~allowed, -torch.inf).argmax(dim=1)
    return torch.stack((anchors, positives, torch.where(farther.any(dim=1), nearest_farther, farthest)), dim=1)


def random_triplets(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """For each record one positive and one negative, uniformly (the SMILES project).

    Args:
        labels: see [`matching_pairs`].
        generator (`torch.Generator`): Generator on the CPU. It gives two uniforms a record, whatever its class.

    Returns:
        As [`batch_hard_triplets`].
    """
    positive, negative = matching_pairs(labels)
    uniforms = torch.rand(len(labels), 2, generator=generator).to(labels.device)
    anchors = _anchors(positive, negative)
    chosen = [_choose(pairs, uniforms[:, column])[anchors] for column, pairs in enumerate((positive, negative))]
    return torch.stack((anchors, *chosen), dim=1)


def mined_triplet_loss(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    mining: str = "batch_hard",
    margin: float = 1.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """[`triplet_loss`] of the triplets that a batch gives.

    Use it when records of one class should lie near each other, for search and clustering: [`EcgViTForEmbedding`].

    Args:
        embeddings (`torch.FloatTensor` of shape `(batch, embedding_size)`).
        labels: see [`matching_pairs`].
        mining (`str`, *optional*, defaults to `"batch_hard"`): `"batch_hard"`, `"semi_hard"` or `"random"`.
        margin (`float`, *optional*, defaults to 1.0): Margin in units of squared distance; unit vectors have one
            that lies between 0 and 4.
        generator (`torch.Generator`, *optional*): for `"random"`, which needs it.

    Returns:
        Loss of shape `()`; 0 with a gradient of zeros for a batch without any triplet.

    ```python
    import torch
    from ecg_transformers.modeling.metric_learning import mined_triplet_loss

    embeddings = torch.nn.functional.normalize(torch.randn(32, 9, requires_grad=True), dim=1)
    mined_triplet_loss(embeddings, labels=torch.arange(32) % 4).backward()
    ```
    """
    if mining == "random" and generator is None:
        raise ValueError("Random mining needs a generator: nothing here draws from the global one.")
    if mining not in MINING:
        raise ValueError(f"Expected mining to be one of {list(MINING)}, got {mining!r}.")
    if len(labels) != len(embeddings):
        raise ValueError(f"Expected one label a record, got {len(labels)} for {len(embeddings)} embeddings.")
    with torch.no_grad():
        if mining == "random":
            triplets = random_triplets(labels, generator)
        elif mining == "semi_hard":
            triplets = semi_hard_triplets(embeddings, labels)
        else:
            triplets = batch_hard_triplets(embeddings, labels)
    if len(triplets) == 0:
        logger.warning_once(
            f"A batch of {len(labels)} records holds no triplet (two records of one class, one of another): its loss "
            "is 0. Take larger batches or mix the classes. (Said once.)"
        )
        return embeddings.float().sum() * 0.0
    return triplet_loss(*(embeddings[triplets[:, part]] for part in range(3)), margin=margin)


MINING = ("batch_hard", "semi_hard", "random")


@torch.no_grad()
def squared_distances(embeddings: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances `(batch, batch)` in float32, 0 on the diagonal."""
    with maybe_autocast(embeddings.device.type, enabled=False):
        values = embeddings.float()
        squares = values.square().sum(dim=1)
        distances = (squares[:, None] + squares - 2.0 * values @ values.T).clamp(min=0.0)
        return distances.fill_diagonal_(0.0)


def _anchors(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    return (positive.any(dim=1) & negative.any(dim=1)).nonzero()[:, 0]


def _choose(pairs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """For each row of a bool matrix the column of one of its `True`s; 0 where there is none."""
    counts = pairs.sum(dim=1)
    rank = (uniforms * counts).long().clamp(max=counts.clamp(min=1) - 1)
    return (pairs.cumsum(dim=1) > rank[:, None]).to(torch.uint8).argmax(dim=1)
