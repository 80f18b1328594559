"""Parts that every class for pretraining shares: the beginning of its output and of its forward pass."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from .masking import DrawKeys


@dataclass
class PretrainingOutput(ModelOutput):
    """Fields of every output of a class for pretraining; a scalar that a subclass adds is logged by the Trainer.

    Args:
        loss (`torch.FloatTensor` of shape `()`): Number that the training minimises.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, pooled_size)`):
            Pooled feature of each record, for monitoring collapse.
        last_hidden_state (`torch.FloatTensor` of shape `(rows, tokens, hidden_size)`):
            Hidden states of the trained encoder, registers first; a row for each record, or for each view of one.
    """

    loss: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class PretrainingMixin:
    """First base of a [`PreTrainedModel`] that has `draw_inputs(input_values, keys)`, the random part of a batch."""

    _keys_to_ignore_on_load_unexpected = None  # nothing of a pretraining checkpoint is left in the file
    random_stream: str | None = None
    """Name of the random numbers that records draw, where a version of this package drew others from equal keys: a
    checkpoint of then is not resumed from."""

    def draw_missing(self, input_values: torch.Tensor | None, **given: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Returns the arguments that were given; if one is `None`, draws it with keys of the model's own: the same in
        every evaluation, others each time in training."""
        if input_values is None:
            raise ValueError("Expected input_values of shape (batch, num_leads, num_samples), got None.")
        present = {name: tensor for name, tensor in given.items() if tensor is not None}
        if len(present) < len(given):
            present = self.draw_inputs(input_values, self.own_keys(len(input_values))) | present
        return present

    def check_several_records(self, batch_size: int) -> None:
        """Refuses to train on a batch of one record, between which and others there is no spread."""
        if self.training and batch_size < 2:
            raise ValueError(
                "A batch of one record has no spread between records, which this objective needs. Set "
                "dataloader_drop_last=True, or a larger batch."
            )

    def generators_of_records(self, keys: DrawKeys, purpose: str, batch_size: int) -> list[torch.Generator]:
        """Returns a generator for each record of the batch.

        Raises:
            ValueError: for keys with another number of records.
        """
        self.check_num_ids(keys, purpose, batch_size)
        return keys.per_record(purpose)

    @staticmethod
    def check_num_ids(keys: DrawKeys, purpose: str, batch_size: int) -> None:
        """Raises `ValueError` for keys with another number of records than the batch."""
        if len(keys.sample_ids) != batch_size:
            raise ValueError(
                f"Expected a sample id for each of {batch_size} records, got {len(keys.sample_ids)}: every record has "
                f"its own {purpose}. Use EcgPretrainingCollator, which gives the ids."
            )
