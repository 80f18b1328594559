"""The `Trainer` of self-supervised runs: the stock one, told what belongs to a batch and what to a step."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets
import torch
from accelerate import FullyShardedDataParallelPlugin
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset
from transformers import Trainer, TrainerState
from transformers.trainer_utils import has_length
from transformers.utils import ModelOutput

from ecg_transformers.data.bad_record_report import CorpusGoneError
from ecg_transformers.modeling import EcgJepaForPreTraining
from ecg_transformers.modeling.masking import DrawKeys, keyed_generator, on_device
from ecg_transformers.modeling.teacher import TeacherStudentMixin

from .callbacks import (
    CollapseMonitor,
    FittingCallback,
    LossWatch,
    Preemption,
    RunRecord,
    TeacherCallback,
    WeightDecayCallback,
)
from .publishing.model_card import CardFacts
from .publishing.pushing_trainer import PushingTrainer
from .publishing.shared_folder import ARGUMENTS_NAME, shared_arguments
from .run_folder import (
    TRAINER_STATE_NAME,
    Preempted,
    check_no_other_run,
    checkpoints_of,
    is_last,
    last_complete_checkpoint,
)
from .schedules import PUBLISHED_SCHEDULES


class EcgSslTrainer(PushingTrainer):
    """Runs any `ForPreTraining` model of this library.

    What it adds to [`~transformers.Trainer`]: int16 batches become float32 input on the device; what a method shares
    over a batch is drawn from a generator keyed by (seed, optimiser step), hence equal on all ranks, in all
    micro-batches of a step and after a resume, and what belongs to a record from one keyed by (seed, epoch, record);
    the teacher follows; the parts of a loss are logged; collapse and NaN losses stop the run; a push holds the
    card, and no pickle ([`PushingTrainer`]). Between two logs the host reads nothing of the device, but for records
    with gaps: what stops a run is kept there and looked at when logs are written.
    Accumulation equals one large batch for losses that are means over records (Kim's, with all leads present); what
    an objective takes from the batch as a whole (position statistics, variance and covariance, the number of present
    leads) is taken from a micro-batch. `processing_class` is the [`EcgFeatureExtractor`], saved with every
    checkpoint.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.processing_class is None:
            raise ValueError(
                "Expected processing_class=EcgFeatureExtractor(...): it makes the input and is saved with the weights."
            )
        if self.model.has_teacher and any(p.dtype.itemsize < 4 for p in self.model.parameters()):
            raise ValueError(
                f"The model is in {self.model.dtype}: in half precision a teacher stands still, because its small "
                "steps round to nothing. Load it with dtype=torch.float32 and train with bf16=True."
            )
        self._parts = {}
        self._records = ()
        self.loss_watch = LossWatch()
        self.collapse_monitor = CollapseMonitor()
        self.add_callback(self.collapse_monitor)
        if self.model.has_teacher:
            self.add_callback(TeacherCallback())
        if self.model.needs_fitting:
            self.add_callback(FittingCallback(self._fitting_batches))
        if self.args.weight_decay_end is not None:
            self.add_callback(WeightDecayCallback())
        self.add_callback(RunRecord(self.train_dataset, None if self.data is None else self.data.name))

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled:
            self._choose_shards(self.accelerator.state.fsdp_plugin)

    def _choose_shards(self, plugin: FullyShardedDataParallelPlugin):
        """FSDP gathers and frees a layer at a time, and nothing that works outside of the forward pass, as measured
        targets do. In bf16 it computes by autocast, as one process does, and not in weights and losses of bf16."""
        from torch.distributed.fsdp import MixedPrecisionPolicy  # a torch without processes lacks it

        model = self.model
        plugin.mixed_precision_policy = MixedPrecisionPolicy()
        if plugin.transformer_cls_names_to_wrap is None:
            there = {type(module).__name__ for module in model.modules()}
            plugin.transformer_cls_names_to_wrap = [name for name in model._no_split_modules if name in there]
        teacher = model.target_encoder if isinstance(model, TeacherStudentMixin) else None
        plugin.ignored_modules = [
            part
            for part in model.children()
            if part is not teacher and not any(parameter.requires_grad for parameter in part.parameters())
        ]

    def autocast_smart_context_manager(self, *args, **kwargs):
        usual = super().autocast_smart_context_manager(*args, **kwargs)
        return self.accelerator.autocast() if self.is_fsdp_enabled else usual

    def _prepare_for_training(self, *args):
        if not self.is_fsdp_enabled:
            return super()._prepare_for_training(*args)
        # accelerate would shard the input projection a second time, within the embeddings.
        model = self.model
        model.get_input_embeddings = lambda: None
        try:
            return super()._prepare_for_training(*args)
        finally:
            del model.get_input_embeddings

    def get_train_dataloader(self) -> DataLoader:
        """Keeps to `dataloader_drop_last` in streams too, whose last, short batch the stock Trainer would train on."""
        if has_length(self.train_dataset):
            return super().get_train_dataloader()
        args = self.args
        loader = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            drop_last=args.dataloader_drop_last,
        )
        return self.accelerator.prepare(loader)

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, *rest) -> tuple[int, int]:
        """Adds for a stream in which of its epochs a checkpoint lies: the stock Trainer takes all of it for one."""
        place = super()._init_training_state(max_steps, num_update_steps_per_epoch, *rest)
        if has_length(self.train_dataset) or not self.state.epoch:
            return place
        epoch = int(self.state.epoch)
        return epoch, round((self.state.epoch - epoch) * max_steps * self.args.gradient_accumulation_steps)

    def _fitting_batches(self) -> Iterator[dict]:
        """Input of the recordings in an order drawn once from the seed, equal on all ranks; a stream as it comes."""
        dataset = self.train_dataset
        if not isinstance(dataset, IterableDataset | datasets.IterableDataset):
            order = torch.randperm(len(dataset), generator=keyed_generator(self.args.seed, "fitting"))
            dataset = Subset(dataset, order.tolist())
        batches = DataLoader(dataset, batch_size=self.args.per_device_train_batch_size, collate_fn=self.data_collator)
        for batch in batches:
            yield self._as_floats(super()._prepare_inputs(batch))

    def _as_floats(self, batch: dict, window_starts: torch.Tensor | None = None) -> dict:
        """Batch with `input_values` in the place of stored steps; others as they are."""
        if "signal" not in batch:
            return batch
        values, lead_mask = self.processing_class.process_batch(
            batch.pop("signal"),
            batch.pop("gain"),
            sampling_rate=batch.pop("sampling_rate"),
            window_starts=window_starts,
            is_complete=batch.pop("is_complete", False),
        )
        return batch | {"input_values": values} | ({} if lead_mask is None else {"lead_mask": lead_mask})

    def _prepare_inputs(self, inputs: dict) -> dict:
        inputs = super()._prepare_inputs(inputs)
        sample_ids = inputs.pop("sample_id").tolist() if "sample_id" in inputs else []
        self._records = inputs.pop("record_id", self._records)
        training = self.model.training
        if "signal" in inputs:
            window_starts = None
            if self.args.random_windows and training:
                num_samples, rate = inputs["signal"].shape[-1], inputs["sampling_rate"]
                window_starts = self._draw_window_starts(sample_ids, num_samples, rate)
            inputs = self._as_floats(inputs, window_starts)
        elif self.args.random_windows and training:
            chosen = self._choose_windows(sample_ids)
            rows = on_device(torch.tensor(chosen), self.args.device)
            inputs = {name: value[rows] for name, value in inputs.items()}
            sample_ids = [sample_ids[row] for row in chosen]
        if sample_ids:  # all windows of a record draw alike
            num_windows = len(inputs["input_values"]) // len(sample_ids)
            sample_ids = [record for record in sample_ids for _ in range(num_windows)]
        if sample_ids or training:  # the stock Trainer prepares a batch of an evaluation twice
            inputs = self.model.step_inputs(inputs, self._draw_keys(sample_ids))
        return inputs

    def _draw_keys(self, sample_ids: list[int]) -> DrawKeys:
        """In evaluation always the same, so that losses of different steps compare."""
        step, epoch = (self.state.global_step, int(self.state.epoch or 0)) if self.model.training else (0, 0)
        return DrawKeys(self.args.seed, step, epoch, tuple(sample_ids))

    def _choose_windows(self, sample_ids: list[int]) -> list[int]:
        """One of the windows of each record, where the feature extractor has cut them (records of several layouts)."""
        windows = {}
        for row, record in enumerate(sample_ids):
            windows.setdefault(record, []).append(row)
        return [rows[self._draw(len(rows), record)] for record, rows in windows.items()]

    def _draw_window_starts(self, sample_ids: list[int], num_samples: int, sampling_rate: float) -> torch.Tensor:
        last = self.processing_class.resampled_length(num_samples, sampling_rate) - self.processing_class.num_samples
        starts = [self._draw(max(last, 0) + 1, record) for record in sample_ids]
        return on_device(torch.tensor(starts), self.args.device)

    def _draw(self, count: int, record: int) -> int:
        """A number below `count`, keyed by (seed, epoch, record): the same after a resume and on any rank."""
        generator = keyed_generator(self.args.seed, int(self.state.epoch or 0), record)
        return int(torch.randint(count, (1,), generator=generator))

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        # The stock method looks for the labels (our input_values) before it prepares the inputs.
        return super().prediction_step(model, self._prepare_inputs(inputs), prediction_loss_only, ignore_keys)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        self.loss_watch.observe(loss.detach(), self.state.global_step, self._records)
        if self.model.training:
            self.collapse_monitor.observe(outputs.pooler_output)
            self._observe_parts(outputs)
        return (loss, outputs) if return_outputs else loss

    def _observe_parts(self, outputs: ModelOutput):
        """Sums the scalars that a model returns beside its loss (parts of it, perplexity) until the next log."""
        for name, value in outputs.items():
            if name != "loss" and torch.is_tensor(value) and value.ndim == 0:
                total, count = self._parts.get(name, (0.0, 0))
                self._parts[name] = (total + value.detach().float(), count + 1)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self.loss_watch.check()
        if "loss" in logs:
            logs |= self.collapse_monitor.measure()
            logs |= {name: (total / count).item() for name, (total, count) in self._parts.items()}
            self._parts.clear()
        super().log(logs, start_time)

    def _save_checkpoint(self, model, trial):
        self.loss_watch.check()  # nothing is saved that has learned from a loss of NaN
        super()._save_checkpoint(model, trial)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Parameters that decay, by the method's own rule (`has_weight_decay`)."""
        return [name for name, parameter in model.named_parameters() if self.model.has_weight_decay(name, parameter)]

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        if self.args.published_schedule is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        curve = PUBLISHED_SCHEDULES[self.args.published_schedule]
        peak, warmup_steps = self.args.learning_rate, self.args.get_warmup_steps(num_training_steps)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer if optimizer is None else optimizer,
            lambda step: curve(step, warmup_steps, num_training_steps, peak=peak) / peak,
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def draft_facts(self) -> CardFacts:
        return CardFacts(
            "pretrained",
            self.recordings(),
            split="without labels",
            training=training_facts(self),
            weights_licence=self.args.weights_licence,
        )


def training_facts(trainer: Trainer) -> dict[str, str | int | float]:
    """Size, batch and schedule of a pretraining, by readable names."""
    args = trainer.args
    facts = {
        "Training (steps)": trainer.state.global_step,
        "Batch (recordings)": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "Parameters of the encoder": sum(parameter.numel() for parameter in trainer.model.ecg_vit.parameters()),
        "Learning rate": args.learning_rate,
        "Weight decay": args.weight_decay,
        "Seed": args.seed,
    }
    if isinstance(trainer.model, EcgJepaForPreTraining):
        facts["Momentum of the teacher"] = f"{args.ema_start} to {args.ema_end}"
    return facts


def train_and_save(trainer: Trainer):
    """Trains, goes on from a checkpoint if asked, and saves the model.

    Args:
        trainer ([`~transformers.Trainer`]): Trainer of [`build_trainer`] or `build_finetuning`. Its
            `args.resume_from_checkpoint` is a folder, or `"last"` (`True`): the newest whole checkpoint of its own
            folder, and from the beginning where there is none yet.

    Raises:
        ValueError: where the folder holds another run, the checkpoint is damaged or of another run, or nothing was
            learned.
        RuntimeError: where the data ends before the training does, with the step that was reached.
        Preempted: after SIGTERM, when everything is saved.
    """
    args, record = trainer.args, record_of(trainer)
    resume = args.resume_from_checkpoint or None
    if is_last(resume):
        resume = last_complete_checkpoint(args.output_dir)
    if resume is None:
        check_no_other_run(args.output_dir, is_last(args.resume_from_checkpoint))
    else:
        record.check_checkpoint(resume, args, trainer.model, trainer.processing_class)
    state = None if resume is None else _state_of(resume)
    if state is not None and state.global_step >= state.max_steps:
        _load_finished_run(trainer, resume)
    else:
        _train(trainer, record, resume, 0 if state is None else state.global_step)
    trainer.save_model(_internal_call=True)  # a push of the whole comes when card and scores are there
    trainer.save_state()
    if trainer.is_world_process_zero():
        (Path(args.output_dir) / ARGUMENTS_NAME).write_bytes(shared_arguments(args))


def _train(trainer: Trainer, record: RunRecord, resume: str | None, first_step: int):
    """Trains, and says how it ended where that is not at the last step."""
    args, preemption = trainer.args, Preemption()
    batch = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and has_length(trainer.train_dataset) and len(trainer.train_dataset) < batch:
        count = len(trainer.train_dataset)
        raise ValueError(
            f"{count} recordings are fewer than a batch of {batch}, and a short batch is left out. Set "
            f"per_device_train_batch_size={max(1, count // args.world_size)}, or give more recordings."
        )
    record.save_total_limit, args.save_total_limit = args.save_total_limit, None
    trainer.add_callback(preemption)
    if isinstance(trainer, PushingTrainer):
        trainer.leaves_pushes = True  # the model is saved before anybody waits for the Hub
    try:
        trainer.train(resume_from_checkpoint=resume)
    except CorpusGoneError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix(f"{CorpusGoneError.__module__}.CorpusGoneError: ")
        raise RuntimeError(
            f"{reason} The run has reached step {trainer.state.global_step} of {trainer.state.max_steps}; with "
            "--resume_from_checkpoint last it goes on from its last checkpoint, if it has saved one."
        ) from error
    finally:
        trainer.remove_callback(preemption)
        args.save_total_limit = record.save_total_limit
    step, last = trainer.state.global_step, trainer.state.max_steps
    saved = f"{args.output_dir}/checkpoint-{step} is saved"
    if preemption.is_stopping and step < last:
        raise Preempted(
            f"Ended by SIGTERM at step {step} of {last}; {saved}. The same command with --resume_from_checkpoint last "
            "goes on."
        )
    if record.is_at_end and step:
        raise RuntimeError(
            f"The data ended at step {step} of {last}: no further recording could be read. {saved}, and no final "
            "model. Give the run data that can be read again, and --resume_from_checkpoint last."
        )
    if step <= first_step:
        raise ValueError(
            f"Nothing was learned: the run ended at step {step} without taking one. Either no record of the dataset "
            "can be read, or max_steps or num_train_epochs ask for no step beyond this one."
        )
    best = trainer.state.best_model_checkpoint
    if args.save_total_limit == 1 and best is not None and trainer.is_world_process_zero():
        for checkpoint in checkpoints_of(args.output_dir):
            if checkpoint.name != Path(best).name:
                shutil.rmtree(checkpoint, ignore_errors=True)


def record_of(trainer: Trainer) -> RunRecord:
    """The record of what a run began with."""
    return next(callback for callback in trainer.callback_handler.callbacks if isinstance(callback, RunRecord))


def _state_of(checkpoint: str) -> TrainerState:
    return TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))


def _load_finished_run(trainer: Trainer, checkpoint: str) -> None:
    """Brings a Trainer to the end of a run that was stopped between its last step and its last save."""
    trainer.state = _state_of(checkpoint)
    trainer._load_from_checkpoint(checkpoint)
    best = trainer.state.best_model_checkpoint
    if trainer.args.load_best_model_at_end and best is not None and os.path.isdir(best):
        trainer._load_best_model()
