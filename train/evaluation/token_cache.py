"""The tokens of frozen encoders, computed once and kept in a temporary file, however many they are."""

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.modeling import EcgViTConfig
from ecg_transformers.modeling.feature_extraction_ecg import average_windows

from ..inference import in_evaluation, input_batches
from ..patients import patients_of

logger = logging.getLogger("ecg_transformers")

WINDOWS_AT_ONCE = 256  # in evaluation


@dataclass(frozen=True)
class TokenCache:
    """Tokens of every window of a set of records.

    Args:
        tokens (`np.ndarray` of shape `(num_windows, num_tokens, hidden_size)`):
            `last_hidden_state`, registers first; a memory map.
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

    def drawn_logits(self, head: nn.Module, records: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Logits of some records by one of the windows of each, drawn anew every time."""
        counts = torch.bincount(torch.from_numpy(self.window_record), minlength=len(self))
        first = counts.cumsum(0) - counts
        drawn = torch.randint(2**62, (len(records),), generator=generator) % counts[records]
        return self.logits_of_windows(head, (first[records] + drawn).numpy())

    def logits(self, head: nn.Module) -> torch.Tensor:
        """Logits of every record, `(num_records, num_outputs)` on the CPU, the mean over those of its windows."""
        numbers = np.arange(len(self.tokens))
        chunks = [numbers[start : start + WINDOWS_AT_ONCE] for start in range(0, len(numbers), WINDOWS_AT_ONCE)]
        logits = torch.cat([self.logits_of_windows(head, chunk).cpu() for chunk in chunks])
        return average_windows(logits, torch.from_numpy(self.window_record))

    def logits_of_windows(self, head: nn.Module, windows: np.ndarray) -> torch.Tensor:
        """Logits of some windows, by their numbers."""
        device = next(head.parameters()).device
        tokens = torch.from_numpy(self.tokens[windows]).to(device).float()
        mask = None if self.token_mask is None else torch.from_numpy(self.token_mask[windows]).to(device)
        return head(tokens, mask)


def cache_tokens(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    dataset: Iterable[dict],
    batch_size: int = 64,
    dtype: str = "float16",
) -> TokenCache:
    """Runs the encoder once over every record. A record that cannot become input is left out and named in the log.

    The tokens lie in a file in the folder for temporary files (`TMPDIR`), which nobody else sees and which is gone
    with the cache; what fits in memory is read from there.

    Args:
        dataset (`Iterable[dict]`): Rows of [`load_ecg`]; the feature extractor makes one or several windows of each.
        dtype (`str`, *optional*, defaults to `"float16"`): Type of the tokens; float16 keeps 11 bits of each.

    Raises:
        ValueError: for tokens that are not finite, or too large for float16.
    """
    masks, windows, record_ids, patient_ids = [], [], [], []
    file = tempfile.TemporaryFile(prefix="ecg_transformers_tokens_")
    with in_evaluation(model), torch.inference_mode():
        for batch in input_batches(model, feature_extractor, dataset, batch_size, "Tokens"):
            values = model(**batch.inputs).last_hidden_state.float().cpu().numpy()
            present = present_tokens(model.config, batch.inputs.get("lead_mask"))
            window_record = batch.window_record.numpy()
            ids = [str(row["record_id"]) for row in batch.rows]
            file.write(_narrowed(values, window_record, ids, dtype).tobytes())
            masks.append(np.ones(values.shape[:2], bool) if present is None else present.cpu().numpy())
            windows.append(window_record + len(record_ids))
            record_ids += ids
            patients = [row.get("patient_id") for row in batch.rows]
            patient_ids += [None if patient is None else str(patient) for patient in patients]
    file.flush()
    present = np.concatenate(masks)
    tokens = np.memmap(file, dtype=dtype, mode="r", shape=(*present.shape, values.shape[-1]))
    mask = None if present.all() else present
    logger.info("Tokens of %d records: %d bytes of %s", len(record_ids), tokens.nbytes, dtype)
    return TokenCache(tokens, mask, np.concatenate(windows), record_ids, patient_ids)


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
