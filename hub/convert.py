"""`ecg-transformers convert`: an authors' checkpoint becomes a folder that `from_pretrained` loads."""

import argparse
import inspect
import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.leads import canonical_leads
from ecg_transformers.train.publishing.model_card import CardFacts, write_card
from ecg_transformers.train.run_folder import claim_output_dir

from . import (
    convert_ecg_cpc,
    convert_ecg_fm,
    convert_ecg_founder,
    convert_hubert_ecg,
    convert_kim,
    convert_lejepa,
    convert_st_mem,
    convert_weimann,
)
from .authors_card import ECG_FM, ECG_FOUNDER, HUBERT_ECG, PublishedModel
from .stand_ins import NAMESPACE, OMEGACONF, standing_in_for

logger = logging.getLogger("ecg_transformers")


@dataclass(frozen=True)
class Source:
    """Whose files they are and what belongs to them.

    Args:
        convert (`Callable`): `(checkpoint, **given) -> model`.
        feature_extractor (`Callable`): `(model, checkpoint) -> EcgFeatureExtractor`, the input of the published model.
        data (`DataSource`): What the published weights were trained on, as the authors state it.
        split (`str`): The same for the card.
        safe_globals (`list`): What a file may hold beside tensors.
        published ([`PublishedModel`], *optional*): For a card of a model that is not of our architecture.
    """

    convert: Callable[..., PreTrainedModel]
    feature_extractor: Callable[..., EcgFeatureExtractor]
    data: DataSource
    split: str
    safe_globals: list = field(default_factory=list)
    published: PublishedModel | None = None


UNKNOWN_SPLIT = "as the authors of the file know; it does not say"
SOURCES = {
    "kim": Source(
        convert_kim.convert_kim_checkpoint,
        lambda model, checkpoint: convert_kim.kim_feature_extractor(model.config),
        DataSource(
            "Chapman-Shaoxing, Ningbo and CODE-15",
            None,
            "As the authors of ECG-JEPA state: PhysioNet ecg-arrhythmia 1.0.0 and CODE-15 (Zenodo 4916206).",
        ),
        "about 176,000 unlabelled recordings, as the authors state",
    ),
    "weimann": Source(
        convert_weimann.convert_weimann_checkpoint,
        convert_weimann.weimann_feature_extractor,
        DataSource(
            "One or several of MIMIC-IV-ECG, CODE-15, PTB-XL, PTB, CPSC, Georgia, Chapman, Ningbo and St Petersburg",
            None,
            "Weimann and Conrad, arXiv 2410.13867: the corpora that the file's configuration names.",
        ),
        UNKNOWN_SPLIT,
        convert_weimann.NUMPY_GLOBALS,
    ),
    "lejepa-ecg": Source(
        convert_lejepa.convert_lejepa_checkpoint,
        convert_lejepa.lejepa_feature_extractor,
        DataSource("MIMIC-IV-ECG", None, "As the published settings of LeJEPA-ECG say."),
        UNKNOWN_SPLIT,
        convert_weimann.NUMPY_GLOBALS,
    ),
    "st-mem": Source(
        convert_st_mem.convert_st_mem_checkpoint,
        lambda model, checkpoint: convert_st_mem.st_mem_feature_extractor(model.config),
        DataSource("The corpora of ST-MEM", None, "Na et al., arXiv 2402.09450. Their weights are CC BY-NC 4.0."),
        UNKNOWN_SPLIT,
    ),
    "ecg-cpc": Source(
        convert_ecg_cpc.convert_ecg_cpc_checkpoint,
        lambda model, checkpoint: convert_ecg_cpc.ecg_cpc_feature_extractor(model.config),
        DataSource(
            "Harvard-Emory ECG Database (HEEDB)",
            None,
            "Al-Masud, Lopez Alcaraz and Strodthoff, arXiv 2509.25095: about 10.7 million recordings.",
        ),
        UNKNOWN_SPLIT,
        [*convert_weimann.NUMPY_GLOBALS, *standing_in_for([*NAMESPACE, *OMEGACONF])],
    ),
    "hubert-ecg": Source(
        convert_hubert_ecg.convert_hubert_ecg_checkpoint,
        lambda model, checkpoint: convert_hubert_ecg.hubert_ecg_feature_extractor(model.config),
        DataSource(
            "9.1 million recordings of four countries",
            None,
            "Coppola et al., medRxiv 2024.11.14.24317328; a part of them is not public.",
        ),
        UNKNOWN_SPLIT,
        [*convert_weimann.NUMPY_GLOBALS, *standing_in_for(convert_hubert_ecg.CONFIGURATIONS)],
        HUBERT_ECG,
    ),
    "ecg-fm": Source(
        convert_ecg_fm.convert_ecg_fm_checkpoint,
        lambda model, checkpoint: convert_ecg_fm.ecg_fm_feature_extractor(model.config),
        DataSource(
            "MIMIC-IV-ECG 1.0 and PhysioNet 2021 1.0.3",
            None,
            "As the authors of ECG-FM state: physionet.org/content/mimic-iv-ecg/1.0 and challenge-2021/1.0.3.",
        ),
        UNKNOWN_SPLIT,
        [*convert_weimann.NUMPY_GLOBALS, *standing_in_for([*NAMESPACE, *OMEGACONF])],
        ECG_FM,
    ),
    "ecg-founder": Source(
        convert_ecg_founder.convert_ecg_founder_checkpoint,
        lambda model, checkpoint: convert_ecg_founder.ecg_founder_feature_extractor(model.config),
        DataSource(
            "Harvard-Emory ECG Database (HEEDB)",
            None,
            "Li et al., arXiv 2410.04133: 10.8 million recordings with 150 labels.",
        ),
        UNKNOWN_SPLIT,
        convert_weimann.NUMPY_GLOBALS,
        ECG_FOUNDER,
    ),
}
FLAGS = (
    "leads",
    "sampling_rate",
    "num_attention_heads",
    "predictor_num_attention_heads",
    "decoder_num_attention_heads",
    "num_hidden_layers",
    "predictor_num_hidden_layers",
    "decoder_num_hidden_layers",
    "num_registers",
)
OF_A_CONFIGURATION = ("leads", "sampling_rate")  # fields that a converter of arbitrary ones takes
OWN_CONSTANTS = ("weimann", "lejepa-ecg")  # whose input depends on the corpus
LICENCES = {"st-mem": "cc-by-nc-4.0", "hubert-ecg": "cc-by-nc-4.0"}


def run(args: argparse.Namespace):
    """The command."""
    claim_output_dir(args.output_dir, args.overwrite_output_dir)
    given = {name: vars(args)[name] for name in FLAGS}
    if args.leads is not None:
        given["leads"] = canonical_leads(args.leads.split(","))
    model, feature_extractor = convert_file(args.source, args.checkpoint, args.constants, **given)
    model.save_pretrained(args.output_dir)
    feature_extractor.save_pretrained(args.output_dir)
    source, file = SOURCES[args.source], Path(args.checkpoint).name
    published = source.published
    facts = CardFacts(
        "pretrained" if published is None else "converted",
        source.data,
        split=source.split if published is None else "",
        training={"Converted from": file} if published is None else {},
        weights_licence=LICENCES.get(args.source),
        method=None if published is None else published.method,
        authors=None if published is None else published.of_file(file),
    )
    write_card(args.output_dir, facts, model.config, feature_extractor)
    logger.info("Wrote %s and its feature extractor to %s", type(model).__name__, args.output_dir)


def convert_file(
    source: str, path: str, constants: str | None = None, **given
) -> tuple[PreTrainedModel, EcgFeatureExtractor]:
    """Converts an authors' file.

    Args:
        source (`str`): One of `SOURCES`.
        path (`str`): `.pth`, `.pt` (read with `weights_only=True`: nothing in it is executed) or `.safetensors`.
        constants (`str`, *optional*):
            For `"weimann"` and `"lejepa-ecg"`, whose mean and deviation of each lead the input gets, such as
            `"ptb-xl"`; by default those of the corpus that the file names.
        given: What the file does not hold, such as `leads`; `None` keeps what the published model has.

    Returns:
        The model and the feature extractor of the published pretraining.

    Raises:
        ValueError: for a file that is damaged, incomplete or another model's, and for a given value that contradicts
            it or cannot be given.
    """
    checkpoint = read_checkpoint(path, SOURCES[source].safe_globals)
    settings = {name: value for name, value in given.items() if value is not None}
    parameters = inspect.signature(SOURCES[source].convert).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = [name for name in FLAGS if name in parameters or (takes_any and name in OF_A_CONFIGURATION)]
    unknown = sorted(name for name in settings if name not in known and (name in FLAGS or not takes_any))
    named = {} if constants is None else {"dataset": constants}
    if named and source not in OWN_CONSTANTS:
        unknown.append("constants")
    if unknown:
        flags = ", ".join(f"--{name}" for name in unknown)
        known = ", ".join(f"--{name}" for name in known)
        raise ValueError(
            f"{flags} cannot be set for {source}: leave it out. What can be given is {known or 'nothing'}."
        )
    model = SOURCES[source].convert(checkpoint, **settings)
    return model, SOURCES[source].feature_extractor(model, checkpoint, **named)


def read_checkpoint(path: str, safe_globals: list | None = None) -> dict:
    """Loads tensors from a `.safetensors` or torch file without executing anything in it.

    Args:
        path (`str`): The file.
        safe_globals (`list`, *optional*): What it may hold beside tensors (`torch.serialization.safe_globals`).
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path!r}.")
    if Path(path).suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{path} is no whole file of safetensors ({error}). Download it again, or save it again."
            ) from error
    admitted = torch.serialization.safe_globals(safe_globals) if safe_globals else nullcontext()
    try:
        with admitted:
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
