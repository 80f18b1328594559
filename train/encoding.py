"""Running frozen encoders over sets of recordings: evaluation mode and back, batch after batch of input."""

import logging
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.data import EcgDataCollator

logger = logging.getLogger("ecg_transformers")


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Sets a model to evaluation, and each of its modules back to what it was."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training


@dataclass(frozen=True)
class InputBatch:
    """Some records of a dataset as input.

    Args:
        inputs (`dict[str, torch.Tensor]`): `input_values` and, where there is one, `lead_mask`, as the model takes
            them.
        rows (`list[dict]`): The rows that became input, in their order.
        window_record (`torch.LongTensor` of shape `(num_windows,)`): Number in `rows` of each window.
    """

    inputs: dict[str, torch.Tensor]
    rows: list[dict]
    window_record: torch.Tensor


def input_batches(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    dataset: Iterable[dict],
    batch_size: int,
    description: str,
    progress: bool = False,
) -> Iterator[InputBatch]:
    """Every record of a dataset as input on the device and in the precision of the model.

    A record that cannot become input is left out, named with the reason in the log, and counted at the end.

    Args:
        model ([`PreTrainedModel`]): Where and in which precision the input is wanted; it is not run.
        feature_extractor ([`EcgFeatureExtractor`]): Makes one or several windows of a record.
        dataset (`Iterable[dict]`): Rows of [`load_ecg`], decoded or not: stored, streaming, or a list.
        batch_size (`int`): Records in a batch.
        description (`str`): Of the progress bar.
        progress (`bool`, *optional*, defaults to `False`): Whether to show it.

    Raises:
        ValueError: at the end, if there was no record or none could become input.
    """
    collator = EcgDataCollator(feature_extractor)
    iterator, num_records = iter(dataset), 0
    total = len(dataset) if isinstance(dataset, Sized) else None
    with tqdm(total=total, desc=description, unit="rec", disable=not progress) as bar:
        while rows := list(islice(iterator, batch_size)):
            batch = _collated(model, collator, rows)
            if batch is not None:
                num_records += len(batch.rows)
                yield batch
            bar.update(len(rows))
    left_out = list(collator.bad_records)
    if left_out:
        logger.warning("%d records were left out: %s.", len(left_out), left_out[:10])
    if not num_records:
        raise ValueError(f"The dataset holds no records to encode ({len(left_out)} were left out).")


def _collated(model: PreTrainedModel, collator: EcgDataCollator, rows: list[dict]) -> InputBatch | None:
    """`None` where no row could become input."""
    numbered = [{"record_id": row["record_id"], "ecg": row["ecg"], "label": number} for number, row in enumerate(rows)]
    try:
        batch = collator(numbered)
    except ValueError:
        if all(row["record_id"] in collator.bad_records for row in rows):
            return None
        raise
    inputs = {name: batch[name].to(model.device) for name in ("input_values", "lead_mask") if name in batch}
    inputs["input_values"] = inputs["input_values"].to(model.dtype)
    kept, window_record = torch.unique(batch["labels"], return_inverse=True)
    return InputBatch(inputs, [rows[number] for number in kept.tolist()], window_record)
