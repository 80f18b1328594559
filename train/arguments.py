"""Arguments of a self-supervised run: those of `transformers` and what the methods of this library add."""

import os
from dataclasses import dataclass, field

import torch
from accelerate import DistributedType
from transformers import TrainingArguments
from transformers.training_args import ParallelMode

from .schedules import PUBLISHED_SCHEDULES


@dataclass
class EcgTrainingArguments(TrainingArguments):
    r"""
    [`~transformers.TrainingArguments`] with what a push to the Hub has to state. New are:

    Args:
        data_licence (`str`, *optional*):
            Licence of the training data, such as `"CC BY 4.0"`, where the corpus does not state it. Without one,
            `push_to_hub` stops before the training.
        weights_licence (`str`, *optional*):
            Licence under which the weights are published, such as `"cc-by-4.0"`; else the card says "unknown".
        hub_timeout (`float`, *optional*, defaults to 600):
            Seconds that a run waits for the Hub at the most: at its beginning, for the pushes of its checkpoints, and
            for its last push. Everything is saved by then; `ecg-transformers push` sends it later.
    """

    data_licence: str | None = field(default=None, metadata={"help": "Licence of the training data, for the card."})
    weights_licence: str | None = field(default=None, metadata={"help": "Licence of the weights, for the card."})
    hub_timeout: float = field(default=600.0, metadata={"help": "Seconds to wait for the Hub at the most."})

    def __post_init__(self):
        # What the stock defaults would do here: drop the columns that our collators read, hide NaN losses, search for
        # unused parameters.
        self.remove_unused_columns = False
        self.logging_nan_inf_filter = False
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.accelerator.is_available()
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False
        super().__post_init__()
        num_processes = int(os.environ.get("WORLD_SIZE", 1))
        if num_processes > 1 and self.parallel_mode != ParallelMode.DISTRIBUTED:
            raise ValueError(
                f"{num_processes} processes were started (WORLD_SIZE={num_processes}), and each would train alone and "
                "write to the same folder. On CPUs they train together with use_cpu (--use_cpu true); on GPUs there "
                "has to be one for each. For a run of one process start it without torchrun and unset WORLD_SIZE."
            )
        if self.fsdp and self.distributed_state.distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU):
            raise ValueError(
                "fsdp=True divides a model among the GPUs that torchrun starts a process for. On CPUs accelerate "
                "takes no notice of it, and one process has no other to divide with. Leave out fsdp (--fsdp): all "
                "weights are then in each process."
            )


@dataclass
class SslTrainingArguments(EcgTrainingArguments):
    r"""
    [`EcgTrainingArguments`] with defaults that suit self-supervised pretraining. New are:

    Args:
        ema_start (`float`, *optional*, defaults to 0.996):
            Momentum of the teacher at the first step; it rises linearly to `ema_end` at the last.
        ema_end (`float`, *optional*, defaults to 1.0):
            Momentum of the teacher at the end of training.
        weight_decay_end (`float`, *optional*):
            Weight decay at the last step, reached from `weight_decay` along half a cosine; `None` keeps it constant.
        published_schedule (`str`, *optional*):
            `"kim"` or `"weimann"`: the learning-rate curve of the authors' code instead of `lr_scheduler_type` (Kim's
            with its jump; Weimann's, which is that of LeJEPA-ECG too, with the momentum of the teacher one step later,
            as it follows at the start of a forward there).
        random_windows (`bool`, *optional*, defaults to `False`):
            Cut a random window from records that are longer than the model's input, another one each epoch, instead
            of what the feature extractor's `long_records` says.
        collapse_patience (`int`, *optional*, defaults to 5):
            After how many logs in a row with collapsed features a run is stopped; 0 never stops.
    """

    ema_start: float = field(default=0.996, metadata={"help": "Momentum of the teacher at the first step."})
    ema_end: float = field(default=1.0, metadata={"help": "Momentum of the teacher at the last step."})
    weight_decay_end: float | None = field(
        default=None, metadata={"help": "Weight decay at the last step (half a cosine from weight_decay)."}
    )
    published_schedule: str | None = field(
        default=None, metadata={"help": 'Learning-rate curve of the authors\' code: "kim" or "weimann".'}
    )
    random_windows: bool = field(
        default=False, metadata={"help": "Cut a random window from longer records, another one each epoch."}
    )
    collapse_patience: int = field(
        default=5, metadata={"help": "Logs in a row with collapsed features after which to stop; 0: never."}
    )

    def __post_init__(self):
        # The stock defaults would find no label and hence no eval loss, and broadcast batches from rank 0.
        self.prediction_loss_only = True
        if self.label_names is None:
            self.label_names = ["input_values"]
        if self.accelerator_config is None:
            self.accelerator_config = {"dispatch_batches": False}
        super().__post_init__()
        if self.published_schedule is not None and self.published_schedule not in PUBLISHED_SCHEDULES:
            raise ValueError(
                f"Expected published_schedule to be one of {list(PUBLISHED_SCHEDULES)}, got "
                f"{self.published_schedule!r}."
            )
        if not 0.0 <= self.ema_start <= self.ema_end <= 1.0:
            raise ValueError(
                f"Expected 0 <= ema_start <= ema_end <= 1, got ema_start={self.ema_start}, ema_end={self.ema_end}."
            )
