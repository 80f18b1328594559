"""Callbacks of self-supervised runs. Each is a pure function of the step, so a checkpoint holds nothing of theirs."""

import json
import signal
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from transformers import FeatureExtractionMixin, PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.utils import logging

from ecg_transformers.modeling.pretraining import PretrainingMixin

from .run_folder import differences, find_damage, keep_checkpoints, seal_checkpoint, sealed_run
from .schedules import cosine_schedule, linear_schedule, weimann_momentum

logger = logging.get_logger(__name__)

MONITOR_WINDOW = 512
"""Records over which the spread and the rank of the features are measured."""

MIN_RELATIVE_SPREAD = 1e-3
MIN_EFFECTIVE_RANK = 1.5
COLLAPSED_PROJECTIONS = 1e-4
"""Spread of projections below which the gradient of SIGReg does not part records any more."""


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
    """Lets a model take from recordings, before its first step, what its targets are measured with; `batches` gives
    them, the same on every rank."""

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
        if logs.get("projection_std", 1.0) < COLLAPSED_PROJECTIONS:
            logger.warning_once(
                f"The projections have collapsed: they differ between records by {logs['projection_std']:.1e}, where "
                "SIGReg wants 1. Its gradient vanishes there, so that training will not recover. Lower the learning "
                "rate, raise sigreg_weight, or look for records that are all alike."
            )
        if args.collapse_patience and self.collapsed_logs >= args.collapse_patience:
            raise RuntimeError(
                f"The features have collapsed: at step {state.global_step} they differ between records by "
                f"{logs['feature_spread']:.1e} of their size, with an effective rank of {logs['effective_rank']:.1f}. "
                "Nothing is learned any more. Lower the learning rate, start the teacher's momentum (ema_start) "
                "higher, or hide less; collapse_patience=0 goes on regardless."
            )


class LossWatch:
    """Finds the first loss that is no number, without a wait in each step: on the device it is kept which it was, on
    the host the steps and records since the last look."""

    LONGEST = 1000
    """Losses after which to look even where nothing is logged."""

    def __init__(self):
        self.batches = []
        self.first_bad = None

    def observe(self, loss: torch.Tensor, step: int, record_ids: Sequence[str]):
        """Takes the loss `()` of one micro-batch."""
        number = torch.full((), float(len(self.batches)), device=loss.device)
        bad = torch.where(torch.isfinite(loss), torch.inf, number)
        self.first_bad = bad if self.first_bad is None else torch.minimum(self.first_bad, bad)
        self.batches.append((step, record_ids))
        if len(self.batches) >= self.LONGEST:
            self.check()

    def check(self):
        """Looks at the losses since the last look.

        Raises:
            RuntimeError: names the step and the records of the first that is NaN or infinite.
        """
        if not self.batches:
            return
        first, batches = self.first_bad.item(), self.batches
        self.batches, self.first_bad = [], None
        if first == float("inf"):
            return
        step, record_ids = batches[int(first)]
        records = ", ".join(map(str, record_ids[:8])) + (", ..." if len(record_ids) > 8 else "")
        raise RuntimeError(
            f"The loss is NaN or infinite at step {step}, first seen on the records {records or 'of its batch'}. "
            "Lower the learning rate, add warm-up or train in float32; if it comes in the first step, look for absurd "
            "amplitudes in these records."
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


# --- What a run began with, and how it ends -----------------------------------------------------------------------

# Training arguments that decide what a run learns; the others say where and how often it writes.
DECISIVE = (
    *("max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "seed"),
    *("data_seed", "dataloader_drop_last", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs"),
    *("warmup_steps", "weight_decay", "max_grad_norm", "optim", "optim_args", "adam_beta1", "adam_beta2"),
    *("adam_epsilon", "bf16", "fp16", "label_smoothing_factor", "ema_start", "ema_end", "weight_decay_end"),
    *("published_schedule", "random_windows", "layer_decay", "class_weights", "freeze_encoder"),
)
# Fields of a configuration that say nothing of the method.
INCIDENTAL = (
    *("transformers_version", "_name_or_path", "architectures", "auto_map", "custom_pipelines", "dtype"),
    *("calibration", "_attn_implementation"),
)


class RunRecord(TrainerCallback):
    """Seals every checkpoint with what the run began with, so that only the same run goes on from it.

    Args:
        dataset: Rows that the run learns from, as the caller gave them.
        name (`str`, *optional*): Name of the corpus.
    """

    def __init__(self, dataset: Any, name: str | None = None):
        self.dataset, self.name = dataset, name
        self._data: dict[str, Any] | None = None
        self.first_step, self.is_at_end = 0, False
        self.save_total_limit: int | None = None
        """Number of checkpoints to keep, where `train_and_save` has taken it from the Trainer."""

    def began_with(
        self, args: TrainingArguments, model: PreTrainedModel, feature_extractor: FeatureExtractionMixin
    ) -> dict[str, Any]:
        """Configuration, input, training and data of a run, as JSON holds them."""
        if self._data is None:
            self._data = describe_data(self.dataset, self.name)
        training = {name: value for name, value in vars(args).items() if name in DECISIVE}
        if "records" not in self._data:  # who reads which part of a stream
            training["dataloader_num_workers"] = args.dataloader_num_workers
        fields, settings = (
            {name: value for name, value in part.to_dict().items() if name not in INCIDENTAL}
            for part in (model.config, feature_extractor)
        )
        run = {
            "model": fields,
            "input": settings,
            "training": training,
            "data": self._data,
            "processes": args.world_size,
        }
        if args.fsdp:  # whose checkpoints hold other files
            run["fsdp"] = True
        if isinstance(model, PretrainingMixin) and model.random_stream is not None:
            run["random_stream"] = model.random_stream
        return json.loads(json.dumps(run, default=str))

    def check_checkpoint(self, checkpoint: str, *run: Any) -> None:
        """Raises `ValueError` where a checkpoint is damaged or of another run; names every field that differs."""
        damage = find_damage(checkpoint)
        if damage is not None:
            raise ValueError(f"{checkpoint} cannot be resumed from: {damage}. Take another checkpoint.")
        then = sealed_run(checkpoint)
        changed = [] if then is None else differences(*map(_of_all_processes, (then, self.began_with(*run))))
        if changed:
            raise ValueError(
                f"{checkpoint} is of another run: {'; '.join(changed)}. A run goes on with what it began with: give "
                "these their values of then, or begin a new run in another output_dir (--output_dir) from these "
                "weights (--model CHECKPOINT)."
            )

    def on_save(self, args, state, control, model=None, processing_class=None, **kwargs):
        if torch.distributed.is_initialized():  # every process writes its own random state
            torch.distributed.barrier()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():  # a search for hyperparameters saves elsewhere
            seal_checkpoint(folder, self.began_with(args, model, processing_class))
            keep_checkpoints(args.output_dir, self.save_total_limit, state.best_model_checkpoint)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.first_step = state.global_step

    def on_epoch_end(self, args, state, control, **kwargs):
        # The Trainer stops where a whole epoch had no batch: a stream that cannot be read a second time.
        is_empty = state.global_step == self.first_step and control.should_training_stop
        if is_empty and state.global_step < state.max_steps:
            self.is_at_end = True
            control.should_save = state.global_step > 0


def _of_all_processes(run: dict[str, Any]) -> dict[str, Any]:
    """Facts that a run began with, in the form that counts where another number of processes may go on: of records in
    memory the batch of all together, of a stream, of which each process reads a part, everything."""
    if "records" not in run["data"] or "per_device_train_batch_size" not in run["training"]:
        return run
    training = dict(run["training"])
    batch = training.pop("per_device_train_batch_size") * run["processes"]
    others = {name: value for name, value in run.items() if name != "processes"}
    return others | {"training": training | {"per_device_train_batch_size x processes": batch}}


def describe_data(dataset: Any, name: str | None = None) -> dict[str, Any]:
    """Facts that distinguish sets of training records: their number and names, of a stream its shards."""
    rows = dataset.rows if isinstance(dataset, torch.utils.data.Dataset) and "rows" in vars(dataset) else dataset
    facts = {"name": name}
    if isinstance(rows, IterableDataset):
        facts["shards"] = rows.num_shards
    elif isinstance(rows, Dataset) and "record_id" in rows.column_names:
        checksum = 0
        for table in rows.select_columns("record_id").with_format("arrow").iter(batch_size=10_000):
            names = "".join(f"{record}\n" for record in table["record_id"].to_pylist())
            checksum = zlib.crc32(names.encode(), checksum)
        facts |= {"records": len(rows), "record_ids": checksum}
    elif isinstance(rows, Sized):
        facts["records"] = len(rows)
    return facts


class Preemption(TrainerCallback):
    """Saves and stops at the end of the step in which SIGTERM comes; of several processes all stop at one step.

    (`enable_jit_checkpoint` of transformers waits three seconds, lets each process decide for itself, and then ends
    as if the training were done.)
    """

    def __init__(self):
        self.is_asked, self.is_stopping = False, False
        self._asked_before, self._handler = None, None
        self._group = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.is_asked = self.is_stopping = False
        if threading.current_thread() is threading.main_thread():  # only there can a signal be caught
            self._handler = signal.signal(signal.SIGTERM, self._ask)
        if torch.distributed.is_initialized():  # on the host: to ask a GPU is to wait for all that it has to do
            self._group = torch.distributed.new_group(backend="gloo")

    def _ask(self, number, frame):
        self.is_asked = True

    def on_step_end(self, args, state, control, **kwargs):
        if self._all_stop():
            self.is_stopping = control.should_save = control.should_training_stop = True

    def _all_stop(self) -> bool:
        if not torch.distributed.is_initialized():
            return self.is_asked
        # What was asked a step ago has come round meanwhile, so that no step waits for it.
        before, asked = self._asked_before, torch.tensor(int(self.is_asked))
        work = torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True)
        self._asked_before = (asked, work)
        if before is None:
            return False
        before[1].wait()
        return bool(before[0].item())

    def on_train_end(self, args, state, control, **kwargs):
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None
        if self._asked_before is not None:
            self._asked_before[1].wait()
            self._asked_before = None
