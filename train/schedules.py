"""Schedules as pure functions of the optimiser step, so that a resumed run needs nothing but its step number."""

import math


def linear_schedule(step: int, total_steps: int, start: float, end: float) -> float:
    """From `start` at step 0 towards `end` at `total_steps`. The momentum of the teacher (Kim, Weimann)."""
    return start + min(step, total_steps) * (end - start) / max(total_steps, 1)


def cosine_schedule(step: int, total_steps: int, start: float, end: float) -> float:
    """From `start` at step 0 along half a cosine to `end` at the last step. The weight decay of Weimann."""
    progress = min(step, total_steps - 1) / max(total_steps - 1, 1)
    return end + 0.5 * (1.0 + math.cos(math.pi * progress)) * (start - end)


def kim_learning_rate(step: int, warmup_steps: int, total_steps: int, peak: float, floor: float = 1e-6) -> float:
    """The learning rate of Kim's pretraining: linear warm-up, then a cosine that is **not shifted** by the warm-up.

    Parity only: the rate falls by a jump at the end of the warm-up (to 0.9938 of the peak at 5 of 100 epochs).
    """
    if step < warmup_steps:
        return floor + step * (peak - floor) / warmup_steps
    if step >= total_steps:
        return floor
    return floor + 0.5 * (peak - floor) * (1.0 + math.cos(math.pi * step / total_steps))


def kim_probe_learning_rate(step: int, total_steps: int, peak: float = 0.01) -> float:
    """The learning rate of Kim's linear evaluation: the same cosine, one step late, because the authors step the
    scheduler after the optimiser. Steps 0 and 1 both use the floor of 0.001; the warm-up has 10 steps."""
    return kim_learning_rate(max(step - 1, 0), 10, total_steps, peak, floor=0.001)


def kim_finetune_learning_rate(
    epoch: float, peak: float = 1e-4 * 16 / 256, warmup_epochs: float = 3.0, total_epochs: float = 10.0
) -> float:
    """The learning rate of Kim's fine-tuning at a fractional epoch: warm-up from 0, then half a cosine to 0."""
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / (total_epochs - warmup_epochs)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def weimann_learning_rate(
    step: int, warmup_steps: int, total_steps: int, start: float = 1e-6, peak: float = 1e-3, floor: float = 1e-6
) -> float:
    """The learning rate of Weimann, in pretraining and fine-tuning: a linear warm-up from `start`, then half a cosine
    that reaches `floor` at the last step (`total_steps - 1`)."""
    if step < warmup_steps:
        return start + step * (peak - start) / warmup_steps
    return cosine_schedule(step - warmup_steps, total_steps - warmup_steps, peak, floor)


def weimann_momentum(step: int, total_steps: int, start: float, end: float, num_micro_batches: int = 1) -> float:
    """The teacher's momentum in the update **after** optimiser step `step`, equal to the authors' before step + 1.

    They update the teacher at the start of every training forward, from a schedule that counts forwards. In the first
    forward that changes nothing, because student and teacher are equal. With accumulation a step has several forwards
    and the student moves once: their updates are one with the product of the momenta, and the schedule ends after
    `total_steps` forwards (ViT-B, two micro-batches: at half of training). Only the targets of the first micro-batches
    differ, by a part of one update.
    """
    first = (step + 1) * num_micro_batches
    forwards = range(first, first + num_micro_batches)
    return math.prod(linear_schedule(forward, total_steps, start, end) for forward in forwards)


PUBLISHED_SCHEDULES = {"kim": kim_learning_rate, "weimann": weimann_learning_rate}
"""Learning rates of the authors' code, by the names that `published_schedule` takes."""
