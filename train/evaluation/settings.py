"""The settings of the evaluation by name: few labels, fewer leads, noise, other rates, units and lengths.

Each is judged with the protocol `linear` on frozen features, for the pretrained and the random encoder, on the same
draws; the shape of their entries is that of `encoder_pair`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import FeatureExtractionMixin, PreTrainedModel
from transformers.utils import logging

from ..predictions import ProtocolResult
from ..tasks.labelled_splits import LabelledSplits
from .encoder_pair import EncoderPair, refused
from .lead_subsets import lead_subset_scores
from .low_shot import low_shot
from .noise import NoiseRecordings, noise_scores
from .protocols import FrozenTables
from .robustness import length_scores, rate_scores, unit_scores

logger = logging.get_logger(__name__)

SETTINGS = ("low_shot", "leads", "noise", "sampling_rate", "unit", "length")


def check_settings(names: Sequence[str], nstdb_dir: str | Path | None = None):
    """Raises `ValueError` for an unknown name, or noise without its recordings."""
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise ValueError(f"Unknown settings {unknown}. Choose from {list(SETTINGS)}.")
    if "noise" in names:
        NoiseRecordings(nstdb_dir)


def run_settings(
    names: Sequence[str],
    model_by_encoder: Mapping[str, PreTrainedModel],
    feature_extractor: FeatureExtractionMixin,
    splits: LabelledSplits,
    tables_by_encoder: Mapping[str, FrozenTables],
    nstdb_dir: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    num_resamples: int = 1000,
    linear_by_encoder: Mapping[str, ProtocolResult] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Runs settings one after the other.

    `low_shot` embeds nothing; `leads` embeds all splits once a subset; the others embed the test split once a change
    (18 for `noise`), by both encoders.

    Args:
        names (`Sequence[str]`): Some of `SETTINGS`.
        model_by_encoder (`Mapping[str, PreTrainedModel]`): `pretrained` and `random_encoder`.
        feature_extractor ([`EcgFeatureExtractor`]): The input contract of both.
        splits ([`LabelledSplits`]): The task.
        tables_by_encoder (`Mapping[str, FrozenTables]`): Features of the unchanged splits.
        nstdb_dir (`str`, *optional*): Folder of the noise database; `noise` needs it.
        seed (`int`, *optional*, defaults to 0): Of draws, noise and bootstrap.
        batch_size, device, num_resamples: Of embedding and of the bootstrap.
        linear_by_encoder (`Mapping[str, ProtocolResult]`, *optional*):
            The protocol `linear` on these tables, where it was run already.

    Returns:
        `dict[str, list[dict]]`: entries by setting, ready for JSON; see `encoder_pair`.

    Raises:
        ValueError: before anything is run, for an unknown name, or noise without its recordings.
    """
    check_settings(names, nstdb_dir)
    if not names:
        return {}
    options = {"batch_size": batch_size, "device": device, "num_resamples": num_resamples, "seed": seed}
    pair = EncoderPair(
        model_by_encoder, feature_extractor, splits, tables_by_encoder, linear=linear_by_encoder, **options
    )
    bootstrap = {"num_resamples": num_resamples, "seed": seed}
    runs = {
        "low_shot": lambda: low_shot(tables_by_encoder, linear=pair.clean, **bootstrap),
        "leads": lambda: lead_subset_scores(model_by_encoder, feature_extractor, splits, linear=pair.clean, **options),
        "noise": lambda: noise_scores(pair, nstdb_dir),
        "sampling_rate": lambda: rate_scores(pair),
        "unit": lambda: unit_scores(pair),
        "length": lambda: length_scores(pair),
    }
    found = {}
    for name in names:
        started = time.monotonic()
        try:
            found[name] = runs[name]()
        except ValueError as error:  # the other settings and all protocols are worth keeping
            logger.warning(f"Setting {name} cannot be had: {error}")
            found[name] = [refused(name, name, name.replace("_", " "), str(error))]
        logger.info(f"Setting {name}: {len(found[name])} entries in {time.monotonic() - started:.1f} s.")
    return found
