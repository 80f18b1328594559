"""`ecg-transformers convert`: an authors' checkpoint becomes a folder that `from_pretrained` loads."""

import argparse
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.leads import canonical_leads
from ecg_transformers.train.publishing.model_card import Authors, CardFacts, write_card
from ecg_transformers.train.run_folder import claim_output_dir

from .checkpoint_keys import extractor_for
from .convert_ecg_cpc import convert_ecg_cpc_checkpoint, ecg_cpc_feature_extractor
from .convert_kim import convert_kim_checkpoint
from .convert_lejepa import convert_lejepa_checkpoint, lejepa_feature_extractor
from .convert_other_architectures import (
    CONFIGURATIONS,
    convert_ecg_fm_checkpoint,
    convert_ecg_founder_checkpoint,
    convert_hubert_ecg_checkpoint,
    ecg_fm_feature_extractor,
    ecg_founder_feature_extractor,
    hubert_ecg_feature_extractor,
)
from .convert_st_mem import convert_st_mem_checkpoint, st_mem_feature_extractor
from .convert_weimann import NUMPY_GLOBALS, convert_weimann_checkpoint, weimann_feature_extractor
from .stand_ins import NAMESPACE, OMEGACONF, standing_in_for

logger = logging.getLogger("ecg_transformers")


@dataclass(frozen=True)
class Source:
    """Files of some authors.

    Args:
        convert (`Callable`): `(checkpoint, **given) -> model`.
        feature_extractor (`Callable`): `(config) -> EcgFeatureExtractor`, the input of the published model; where the
            input depends on the file, `(model, checkpoint, dataset)`.
        flags (`str`): Names of what a caller can give beside `leads`.
        data (`tuple[str, str]`): Recordings that the published weights were trained on, and who states it.
        split (`str`): Records of them, for the card.
        weights_licence (`str`, *optional*): Licence of the weights.
        safe_globals (`Sequence`): Objects that a file may hold beside tensors.
        authors (`tuple[str, str, str]`, *optional*):
            Weights, code and departures of [`~ecg_transformers.train.publishing.model_card.Authors`], for a model that
            is not of our architecture.
    """

    convert: Callable[..., PreTrainedModel]
    feature_extractor: Callable[..., EcgFeatureExtractor]
    flags: str
    data: tuple[str, str]
    split: str = "as the authors of the file know; it does not say"
    weights_licence: str | None = None
    safe_globals: Sequence = tuple(NUMPY_GLOBALS)
    authors: tuple[str, str, str] | None = None


LAYERS = "num_attention_heads num_hidden_layers"
PREDICTOR = "predictor_num_attention_heads predictor_num_hidden_layers"
DECODER = "decoder_num_attention_heads decoder_num_hidden_layers"
FLAGS = ["leads", "sampling_rate", *f"{LAYERS} {PREDICTOR} {DECODER} num_registers".split()]
SETTINGS_GLOBALS = [*NUMPY_GLOBALS, *standing_in_for([*NAMESPACE, *OMEGACONF])]
SOURCES = {
    "kim": Source(
        convert_kim_checkpoint,
        extractor_for,  # raw millivolts, no filter
        f"sampling_rate {LAYERS} {PREDICTOR}",
        (
            "Chapman-Shaoxing, Ningbo and CODE-15",
            "As the authors of ECG-JEPA state: PhysioNet ecg-arrhythmia 1.0.0 and CODE-15 (Zenodo 4916206).",
        ),
        "about 176,000 unlabelled recordings, as the authors state",
        safe_globals=(),
    ),
    "weimann": Source(
        convert_weimann_checkpoint,
        weimann_feature_extractor,
        f"sampling_rate {LAYERS} {PREDICTOR} num_registers constants",
        (
            "One or several of MIMIC-IV-ECG, CODE-15, PTB-XL, PTB, CPSC, Georgia, Chapman, Ningbo and St Petersburg",
            "Weimann and Conrad, arXiv 2410.13867: the corpora that the file's configuration names.",
        ),
    ),
    "lejepa-ecg": Source(
        convert_lejepa_checkpoint,
        lejepa_feature_extractor,
        f"sampling_rate {LAYERS} num_registers constants",
        ("MIMIC-IV-ECG", "As the published settings of LeJEPA-ECG say."),
    ),
    "st-mem": Source(
        convert_st_mem_checkpoint,
        st_mem_feature_extractor,
        f"sampling_rate {LAYERS} {DECODER}",
        ("The corpora of ST-MEM", "Na et al., arXiv 2402.09450. Their weights are CC BY-NC 4.0."),
        weights_licence="cc-by-nc-4.0",
        safe_globals=(),
    ),
    "ecg-cpc": Source(
        convert_ecg_cpc_checkpoint,
        ecg_cpc_feature_extractor,
        "sampling_rate",
        (
            "Harvard-Emory ECG Database (HEEDB)",
            "Al-Masud, Lopez Alcaraz and Strodthoff, arXiv 2509.25095: about 10.7 million recordings.",
        ),
        safe_globals=SETTINGS_GLOBALS,
    ),
    "hubert-ecg": Source(
        convert_hubert_ecg_checkpoint,
        hubert_ecg_feature_extractor,
        f"sampling_rate {LAYERS}",
        (
            "9.1 million recordings of four countries",
            "Coppola et al., medRxiv 2024.11.14.24317328; a part of them is not public.",
        ),
        weights_licence="cc-by-nc-4.0",
        safe_globals=[*NUMPY_GLOBALS, *standing_in_for(CONFIGURATIONS)],
        authors=(
            "Hub: Edoardo-BS/hubert-ecg-small, -base and -large, CC BY-NC 4.0.",
            "CC BY-NC 4.0 (github.com/Edoar-do/HuBERT-ECG)",
            "They filter with a FIR of 0.05 to 47 Hz (which keeps 96 % of the slowest waves), and decimate the joined "
            "leads, so that the filter runs across the seams of two leads. The feature extractor resamples once and "
            "has a zero-phase low-pass of 40 Hz on each lead. On 20 recordings of PTB-XL the two inputs correlate by "
            "0.996 and more: close, not equal.",
        ),
    ),
    "ecg-fm": Source(
        convert_ecg_fm_checkpoint,
        ecg_fm_feature_extractor,
        LAYERS,
        (
            "MIMIC-IV-ECG 1.0 and PhysioNet 2021 1.0.3",
            "As the authors of ECG-FM state: physionet.org/content/mimic-iv-ecg/1.0 and challenge-2021/1.0.3.",
        ),
        safe_globals=SETTINGS_GLOBALS,
        authors=(
            "Hub: wanglab/ecg-fm. Their licence is what its page says.",
            "MIT (github.com/bowang-lab/ECG-FM, github.com/Jwoo5/fairseq-signals)",
            "Recordings of another rate than 500 Hz were resampled linearly, here by Fourier; and what is left after "
            "the last whole 5 s was dropped, here the last window ends with the recording. 10 s at 500 Hz are equal.",
        ),
    ),
    "ecg-founder": Source(
        convert_ecg_founder_checkpoint,
        ecg_founder_feature_extractor,
        "num_hidden_layers",
        (
            "Harvard-Emory ECG Database (HEEDB)",
            "Li et al., arXiv 2410.04133: 10.8 million recordings with 150 labels.",
        ),
        authors=(
            "Hub: PKUDigitalHealth/ECGFounder. Their licence is what its page says. The labels of the head are the "
            "lines of `tasks.txt` in the authors' repository.",
            "MIT (github.com/PKUDigitalHealth/ECGFounder)",
            "The band-pass is one filter of theirs and two of ours; on 20 recordings of PTB-XL the inputs differ by "
            "0.002 deviations on average in the median recording, by 0.03 in the worst. Gaps became zeros and are "
            "interpolated here. (Their evaluation on PTB-XL, `ptbxl_eval.py`, does not filter at all.)",
        ),
    ),
}


def run(args: argparse.Namespace):
    """The command."""
    claim_output_dir(args.output_dir, args.overwrite_output_dir, reads=args.checkpoint)
    given = {name: vars(args)[name] for name in FLAGS}
    if args.leads is not None:
        given["leads"] = canonical_leads(args.leads.split(","))
    model, feature_extractor = convert_file(args.source, args.checkpoint, args.constants, **given)
    model.save_pretrained(args.output_dir)
    feature_extractor.save_pretrained(args.output_dir)
    source, file = SOURCES[args.source], Path(args.checkpoint).name
    recordings, citation = source.data
    facts = {"kind": "pretrained", "split": source.split, "training": {"Converted from": file}}
    if source.authors is not None:
        facts = {"kind": "converted", "authors": Authors(*source.authors, file)}
    data = DataSource(recordings, None, citation)
    facts = CardFacts(data=data, weights_licence=source.weights_licence, **facts)
    write_card(args.output_dir, facts, model.config, feature_extractor)
    logger.info("Wrote %s and its feature extractor to %s", type(model).__name__, args.output_dir)


def convert_file(
    source: str, path: str, constants: str | None = None, **given: Any
) -> tuple[PreTrainedModel, EcgFeatureExtractor]:
    """Converts an authors' file.

    Args:
        source (`str`): One of `SOURCES`.
        path (`str`): `.pth`, `.pt` (read with `weights_only=True`: nothing in it is executed) or `.safetensors`.
        constants (`str`, *optional*):
            Corpus, such as `"ptb-xl"`, whose mean and deviation of each lead the input gets, for `"weimann"` and
            `"lejepa-ecg"`; by default the one that the file names.
        given: Facts that the file does not hold, such as `leads`; `None` keeps what the published model has.

    Returns:
        The model and the feature extractor of the published pretraining.

    Raises:
        ValueError: for a file that is damaged, incomplete or another model's, and for a given value that contradicts
            it or cannot be given.
    """
    found = SOURCES[source]
    checkpoint = read_checkpoint(path, found.safe_globals)
    given = {name: value for name, value in given.items() if value is not None}
    known = ["leads", *found.flags.split()]
    named = given if constants is None else given | {"constants": constants}
    if unknown := sorted(name for name in named if name not in known and name in (*FLAGS, "constants")):
        unknown, known = (", ".join(f"--{name}" for name in names) for names in (unknown, known))
        raise ValueError(f"{unknown} cannot be set for {source}: leave it out. What can be given is {known}.")
    model = found.convert(checkpoint, **given)
    if "constants" in known:
        return model, found.feature_extractor(model, checkpoint, constants)
    return model, found.feature_extractor(model.config)


def read_checkpoint(path: str, safe_globals: Sequence) -> dict:
    """Loads tensors from a `.safetensors` or torch file, and objects that it may hold beside them, without executing
    anything in it."""
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path!r}.")
    if Path(path).suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{path} is no whole file of safetensors ({error}). Download it again, or save it again."
            ) from error
    try:
        with torch.serialization.safe_globals(list(safe_globals)):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds for what is no checkpoint
        name = re.search(r"GLOBAL (\S+)", str(error))
        reason = type(error).__name__ if name is None else f"it names {name[1]}"
        raise ValueError(
            f"{path} cannot be read as tensors alone ({reason}). A file that is no checkpoint of torch "
            "or that needs code to load is refused."
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, expected a dictionary of tensors.")
    return checkpoint
