"""The tokens of frozen encoders, computed once: in memory, or in a temporary file where they are too many for it."""

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.modeling import EcgViTConfig

from ..inference import in_evaluation, input_batches
from ..patients import patients_of

logger = logging.getLogger("ecg_transformers")


@dataclass(frozen=True)
class TokenCache:
    """Tokens of every window of a set of records.

    Args:
        tokens (`np.ndarray` of shape `(num_windows, num_tokens, hidden_size)`):
            `last_hidden_state`, registers first; a memory map where it did not fit.
        token_mask (`np.ndarray` of bool and shape `(num_windows, num_tokens)`, *optional*): `True` = present.
        window_record (`np.ndarray` of shape `(num_windows,)`): Number of the record of each window, rising.
        record_ids (`list[str]`), patient_ids (`list[str | None]`): Names and patients of the records.
    """

    tokens: np.ndarray
    token_mask: np.ndarray | None
    window_record: np.ndarray
    record_ids: list[str]
    patient_ids: list[str | None]

    def __len__(self) -> int:
        return len(self.record_ids)

    def patients(self) -> list[str]:
        """A patient for each record; a record without one counts as a patient of its own."""
        return patients_of(self.record_ids, self.patient_ids)

    @property
    def in_memory(self) -> bool:
        return not isinstance(self.tokens, np.memmap)

    @property
    def place(self) -> str:
        """`"memory"` or `"memory-mapped temporary file"`."""
        return "memory" if self.in_memory else "memory-mapped temporary file"

    def batch(self, windows: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Float32 tokens and mask of some windows, by their numbers."""
        tokens = torch.from_numpy(self.tokens[windows]).to(device).float()
        mask = None if self.token_mask is None else torch.from_numpy(self.token_mask[windows]).to(device)
        return tokens, mask


def cache_tokens(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    dataset: Iterable[dict],
    batch_size: int = 64,
    dtype: str = "float16",
    max_bytes: int = 2 << 30,
) -> TokenCache:
    """Runs the encoder once over every record. A record that cannot become input is left out and named in the log.

    Args:
        dataset (`Iterable[dict]`): Rows of [`load_ecg`]; the feature extractor makes one or several windows of each.
        dtype (`str`, *optional*, defaults to `"float16"`): Type of the tokens; float16 keeps 11 bits of each.
        max_bytes (`int`, *optional*, defaults to 2 GiB):
            Beyond this the tokens go to a file in the folder for temporary files (`TMPDIR`), which nobody else sees
            and which is gone with the cache.

    Raises:
        ValueError: for tokens that are not finite, or too large for float16.
    """
    tokens, masks, windows = _GrowingArray(np.dtype(dtype), max_bytes), [], []
    record_ids, patient_ids = [], []
    with in_evaluation(model), torch.inference_mode():
        for batch in input_batches(model, feature_extractor, dataset, batch_size, "Tokens"):
            values = model(**batch.inputs).last_hidden_state.float().cpu().numpy()
            present = present_tokens(model.config, batch.inputs.get("lead_mask"))
            window_record = batch.window_record.numpy()
            ids = [str(row["record_id"]) for row in batch.rows]
            tokens.append(_narrowed(values, window_record, ids, dtype))
            masks.append(np.ones(values.shape[:2], bool) if present is None else present.cpu().numpy())
            windows.append(window_record + len(record_ids))
            record_ids += ids
            patients = [row.get("patient_id") for row in batch.rows]
            patient_ids += [None if patient is None else str(patient) for patient in patients]
    present = np.concatenate(masks)
    mask = None if present.all() else present
    cache = TokenCache(tokens.finish(), mask, np.concatenate(windows), record_ids, patient_ids)
    logger.info("Tokens of %d records: %d bytes of %s in %s", len(cache), cache.tokens.nbytes, dtype, cache.place)
    return cache


def present_tokens(config: EcgViTConfig, lead_mask: torch.Tensor | None) -> torch.Tensor | None:
    """Tokens of `last_hidden_state` that a head may read, `(batch, num_tokens)`; `None` where it may read all.

    The rule of [`EcgViTForSequenceClassification`]: registers and extra channels are always there, tokens of absent
    leads are not, and a record without a lead shows its zeros.
    """
    if lead_mask is None or config.patching == "all_leads":
        return None
    present = nn.functional.pad(lead_mask, (0, config.extra_channels), value=True)
    present = present.repeat_interleave(config.num_columns, dim=1)
    present = nn.functional.pad(present, (config.num_registers, 0), value=True)
    return present | ~present.any(dim=1, keepdim=True)


class _GrowingArray:
    """Rows appended to an array: chunks in memory, and a temporary file from where they would exceed `max_bytes`."""

    def __init__(self, dtype: np.dtype, max_bytes: int):
        self.dtype, self.max_bytes = dtype, max_bytes
        self.chunks, self.num_rows, self.num_bytes, self.row_shape, self.file = [], 0, 0, (), None

    def append(self, rows: np.ndarray):
        self.row_shape = rows.shape[1:]
        self.num_rows += len(rows)
        self.num_bytes += rows.nbytes
        self.chunks.append(rows)
        if self.num_bytes > self.max_bytes:
            self.file = self.file or tempfile.TemporaryFile(prefix="ecg_transformers_tokens_")
            for chunk in self.chunks:
                self.file.write(np.ascontiguousarray(chunk).data)
            self.chunks.clear()

    def finish(self) -> np.ndarray:
        shape = (self.num_rows, *self.row_shape)
        if self.file is not None:
            self.file.flush()
            return np.memmap(self.file, dtype=self.dtype, mode="r", shape=shape)
        whole, start = np.empty(shape, self.dtype), 0
        self.chunks.reverse()
        while self.chunks:  # each is freed when it is copied: all together are never twice in memory
            chunk = self.chunks.pop()
            whole[start : start + len(chunk)] = chunk
            start += len(chunk)
        return whole


def _narrowed(tokens: np.ndarray, window_record: np.ndarray, record_ids: list[str], dtype: str) -> np.ndarray:
    """The tokens as `dtype`, none of them lost."""
    limit = np.finfo(dtype).max
    kept = np.abs(tokens).max(axis=(1, 2)) <= limit  # false for NaN too
    if not kept.all():
        bad = sorted({record_ids[record] for record in window_record[~kept]})
        raise ValueError(
            f"The tokens of {len(bad)} records are NaN or beyond {limit:g}, the largest {dtype}: {bad[:10]}. Check "
            "these recordings and the encoder, or cache as float32."
        )
    return tokens.astype(dtype, copy=False)
