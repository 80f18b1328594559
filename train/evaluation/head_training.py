"""Training of a head of logits by gradient steps on cached inputs, for `attentive` and the published linear forms.

Order and initial weights come from generators of a seed; the global generators are never touched.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import nn


class TrainedHead(NamedTuple):
    """End of a training: `steps` that were done, `best_step` whose weights the head has."""

    steps: int
    best_step: int


def train_head(
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    learning_rate: Callable[[int], float],
    batches: Iterable,
    num_steps: int,
    loss_of: Callable[..., torch.Tensor],
    look: Callable[[], float] | None = None,
    look_every: int = 1,
    patience: int | None = None,
    gradient_clip: float | None = None,
) -> TrainedHead:
    """Trains a head in place.

    Args:
        learning_rate (`Callable[[int], float]`): Function from a step, numbered from 0, to its rate.
        batches (`Iterable`): At least `num_steps` of them.
        loss_of (`Callable`): Function from a batch to its loss.
        look (`Callable[[], float]`, *optional*):
            Quality on the validation split, every `look_every` steps and after the last. The head ends with the
            weights of the best look (the first of equals); without it, with the last ones.
        patience (`int`, *optional*): Looks without a gain after which the training stops.
        gradient_clip (`float`, *optional*): Largest norm of the gradient.

    Raises:
        ValueError: for a loss that is not finite.
    """
    best, best_step, best_weights, looks_without_gain, step = -math.inf, 0, None, 0, 0
    for step, batch in enumerate(islice(batches, num_steps), start=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step - 1)
        loss = loss_of(batch)
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss of step {step} is {loss.item()}. Lower the learning rate, or check the targets."
            )
        optimizer.zero_grad()
        loss.backward()
        if gradient_clip is not None:
            nn.utils.clip_grad_norm_(head.parameters(), gradient_clip)
        optimizer.step()
        if look is None or (step % look_every and step != num_steps):
            continue
        quality = look()
        looks_without_gain += 1
        if quality > best:
            best, best_step, looks_without_gain = quality, step, 0
            best_weights = {name: value.detach().clone() for name, value in head.state_dict().items()}
        if patience is not None and looks_without_gain >= patience:
            break
    if look is None:
        return TrainedHead(step, step)
    head.load_state_dict(best_weights)
    return TrainedHead(step, best_step)


def drawn_head(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A new head, whose weights, a truncated normal of deviation 0.02, depend on the seed alone; its biases are 0."""
    with torch.device("meta"):  # the constructors would draw from the global generator
        head = make()
    head.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
    return head


def shuffled_batches(
    num_records: int, batch_size: int, generator: torch.Generator, drop_last: bool
) -> Iterator[torch.Tensor]:
    """Numbers of the records of each batch, without an end: every record once an epoch, in a new order each time.

    Batches are never larger than the set. With `drop_last`, what remains of an epoch is left out.
    """
    batch_size = min(batch_size, num_records)
    while True:
        order = torch.randperm(num_records, generator=generator)
        end = num_records - num_records % batch_size if drop_last else num_records
        yield from order[:end].split(batch_size)


def batches_an_epoch(num_records: int, batch_size: int, drop_last: bool) -> int:
    """Number of batches of [`shuffled_batches`] in an epoch."""
    batch_size = min(batch_size, num_records)
    return num_records // batch_size if drop_last else math.ceil(num_records / batch_size)
