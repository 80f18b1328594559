"""An online linear probe: what the frozen features are worth while a pretraining run goes on.

A falling loss proves little in a joint-embedding method. The probe draws no random numbers and changes no weight: a
run is the same, bit by bit, with and without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets import Dataset
from transformers import Trainer, TrainerCallback

from .evaluation.protocols import FrozenTables, linear_scores
from .features import embed
from .results import MULTI_LABEL

PROBE_PREFIX = "probe_"


@dataclass(eq=False)
class OnlineProbe(TrainerCallback):
    """Every `every_steps` optimiser steps, and after the last, embeds labelled recordings with the encoder as it is,
    fits the linear model of the protocol `linear` and logs `probe_<split>_macro_auroc` for every evaluated split.

    The values go through `trainer.log`: to the trackers and into `state.log_history`, which checkpoints hold.

    Args:
        trainer ([`Trainer`]): Its model has the encoder as `ecg_vit`, its `processing_class` is the feature extractor.
        train (`Dataset`): Labelled rows of [`load_ecg`] on which the probe is fitted.
        evaluated (`Mapping[str, Dataset]`): Rows on which it is evaluated, by the name of their split.
        label_names (`Sequence[str]`): The classes.
        every_steps (`int`): Steps between two probes.
    """

    trainer: Trainer
    train: Dataset
    evaluated: Mapping[str, Dataset]
    label_names: Sequence[str]
    every_steps: int

    def __post_init__(self):
        if self.every_steps < 1:
            raise ValueError(f"Expected at least 1 step between two probes, got {self.every_steps}.")
        if self.trainer.is_fsdp_enabled:
            raise ValueError(
                "A probe embeds recordings in one process, and with FSDP none has all of the weights. Leave out the "
                "probe (--online_probe_steps) or fsdp (--fsdp)."
            )

    def on_step_end(self, args, state, control, model=None, **kwargs):
        is_due = state.global_step % self.every_steps == 0 or state.global_step == state.max_steps
        if is_due and state.is_world_process_zero:
            log_is_due = control.should_log  # logging now would count as the step's log of the loss
            self.trainer.log(self.measure(model.ecg_vit))
            control.should_log = log_is_due

    def measure(self, encoder) -> dict[str, float]:
        """The scores of an encoder, as they are logged."""
        tables = {
            name: embed(encoder, self.trainer.processing_class, rows, progress=False)
            for name, rows in ({"": self.train} | dict(self.evaluated)).items()
        }
        tables = {name or "train": table.with_any_label(self.label_names) for name, table in tables.items()}
        truth = {name: table.multi_hot(self.label_names) for name, table in tables.items()}
        frozen = FrozenTables(tables, truth, tuple(self.label_names), MULTI_LABEL)
        task = frozen.task()
        # A point on a curve: intervals, for which bootstrap resamples are drawn, come at the end of the run.
        return {
            f"{PROBE_PREFIX}{name}_macro_auroc": task.quality(found, truth[name])
            for name, found in linear_scores(frozen)[0].items()
        }


def follow_with_probe(trainer: Trainer, train, evaluated, label_names, every_steps: int) -> OnlineProbe:
    """Lets an [`OnlineProbe`] follow a run; call it before `trainer.train()`. Arguments are those of the probe."""
    probe = OnlineProbe(trainer, train, evaluated, label_names, every_steps)
    trainer.add_callback(probe)
    return probe
