"""Callbacks of self-supervised runs. Each is a pure function of the step, so a checkpoint holds nothing of theirs."""

from collections import deque
from collections.abc import Callable, Iterable

import torch
from transformers import TrainerCallback
from transformers.utils import logging

from .schedules import cosine_schedule, linear_schedule, weimann_momentum

logger = logging.get_logger(__name__)

MONITOR_WINDOW = 512
"""Records over which the spread and the rank of the features are measured."""

MIN_RELATIVE_SPREAD = 1e-3
MIN_EFFECTIVE_RANK = 1.5


class TeacherCallback(TrainerCallback):
    """Lets the teacher follow the student after every optimiser step (Kim, section 3.1)."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        step, last = state.global_step, state.max_steps
        if args.published_schedule == "weimann":
            momentum = weimann_momentum(step, last, args.ema_start, args.ema_end, args.gradient_accumulation_steps)
        else:
            momentum = linear_schedule(step, last, args.ema_start, args.ema_end)
        model.update_teacher(momentum)


class FittingCallback(TrainerCallback):
    """Lets a model take from recordings, before its first step, what its targets are measured with.

    Args:
        batches (`Callable`): Gives the batches, the same on every rank.
    """

    def __init__(self, batches: Callable[[], Iterable[dict]]):
        self.batches = batches

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if model.needs_fitting:  # a run that is resumed does not
            model.fit_targets(self.batches())


class WeightDecayCallback(TrainerCallback):
    """Moves the weight decay along half a cosine; groups without decay stay without."""

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        decay = cosine_schedule(state.global_step, state.max_steps, args.weight_decay, args.weight_decay_end)
        for group in optimizer.param_groups:
            if group["weight_decay"] > 0:
                group["weight_decay"] = decay


class CollapseMonitor(TrainerCallback):
    """Watches the pooled features of the last records: a loss can fall to nothing while the features die.

    Logs `feature_std` (spread between records, a mean over the channels), `feature_spread` (the same in units of the
    features' own size) and `effective_rank` (RankMe, arXiv 2210.02885, of the centred features). Stops a run whose
    features have collapsed for `collapse_patience` logs in a row.
    """

    def __init__(self):
        self.features = deque()
        self.num_features = 0
        self.collapsed_logs = 0

    def observe(self, features: torch.Tensor):
        """Takes the pooled features of one micro-batch, `(batch, hidden)`."""
        self.features.append(features.detach())
        self.num_features += len(features)
        while self.num_features - len(self.features[0]) >= MONITOR_WINDOW:
            self.num_features -= len(self.features.popleft())

    def measure(self) -> dict[str, float]:
        if self.num_features < 2:
            return {}
        features = torch.cat(list(self.features)).float()
        std = features.std(dim=0).mean().item()
        size = features.pow(2).mean().sqrt().item()
        return {
            "feature_std": std,
            "feature_spread": std / max(size, 1e-12),
            "effective_rank": effective_rank(features),
        }

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not logs or "effective_rank" not in logs:
            return
        dead = (
            logs["feature_spread"] < MIN_RELATIVE_SPREAD
            or logs["effective_rank"] < MIN_EFFECTIVE_RANK
            or logs.get("projection_std", 1.0) < MIN_RELATIVE_SPREAD  # of methods with a projector: no gradient there
        )
        self.collapsed_logs = self.collapsed_logs + 1 if dead else 0
        if args.collapse_patience and self.collapsed_logs >= args.collapse_patience:
            raise RuntimeError(
                f"The features have collapsed: at step {state.global_step} they differ between records by "
                f"{logs['feature_spread']:.1e} of their size, with an effective rank of {logs['effective_rank']:.1f}. "
                "Nothing is learned any more. Lower the learning rate, start the teacher's momentum (ema_start) "
                "higher, or hide less; collapse_patience=0 goes on regardless."
            )


def effective_rank(features: torch.Tensor) -> float:
    """RankMe of centred features `(records, hidden)`: the exponential of the entropy of the singular values."""
    features = features.cpu().double()
    centred = features - features.mean(dim=0)
    singular_values = torch.linalg.svdvals(centred)
    total = singular_values.sum()
    if total <= 0:
        return 0.0
    shares = singular_values / total
    return torch.exp(-torch.special.xlogy(shares, shares).sum()).item()


MIN_CODES_IN_USE = 0.5


class CodebookMonitor(TrainerCallback):
    """Says at the end of a run with a codebook (VQ-VAE) how much of it is alive, and why if it is less than half."""

    def on_train_end(self, args, state, control, **kwargs):
        logs = next((entry for entry in reversed(state.log_history) if "codes_in_use" in entry), None)
        if logs is None or logs["codes_in_use"] >= MIN_CODES_IN_USE:
            return
        reason = "the recordings need no more: take fewer codes, or shorter patches"
        if logs.get("feature_spread", 1.0) < MIN_RELATIVE_SPREAD:
            reason = "the encoder gives almost the same for every recording: lower the learning rate, or train longer"
        logger.warning(
            f"Only {logs['codes_in_use']:.0%} of the codes are in use, with a perplexity of {logs['perplexity']:.1f}. "
            f"Unused codes are restarted from the data while training goes on, so that most likely {reason}."
        )
