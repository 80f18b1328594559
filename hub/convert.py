"""`ecg-transformers convert`: an authors' checkpoint becomes a folder that `from_pretrained` loads."""

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS, canonical_leads
from ecg_transformers.train.model_card import render_model_card
from ecg_transformers.train.report import DataSource

from . import convert_kim

logger = logging.getLogger("ecg_transformers")

KIM_DATA = DataSource(
    name="Chapman-Shaoxing, Ningbo and CODE-15",
    licence=None,
    citation="As the authors of ECG-JEPA state: PhysioNet ecg-arrhythmia 1.0.0 and CODE-15 (Zenodo 4916206).",
)


def run(args: argparse.Namespace):
    """The command."""
    model, feature_extractor = convert_kim_file(
        args.checkpoint,
        leads=INDEPENDENT_LEADS if args.leads is None else canonical_leads(args.leads.split(",")),
        sampling_rate=args.sampling_rate,
        num_attention_heads=args.num_attention_heads,
        predictor_num_attention_heads=args.predictor_num_attention_heads,
    )
    model.save_pretrained(args.output_dir)
    feature_extractor.save_pretrained(args.output_dir)
    card = render_model_card(
        config=model.config,
        feature_extractor=feature_extractor,
        model_id=Path(args.output_dir).name,
        data=KIM_DATA,
        split="about 176,000 unlabelled recordings, as the authors state",
        training={"Converted from": Path(args.checkpoint).name},
    )
    card.save(Path(args.output_dir) / "README.md")
    logger.info("Wrote %s and its feature extractor to %s", type(model).__name__, args.output_dir)


def convert_kim_file(path: str, **published) -> tuple[torch.nn.Module, EcgFeatureExtractor]:
    """Converts a file of ECG-JEPA (Kim).

    Args:
        path (`str`): `.pth` (read with `weights_only=True`: nothing in it is executed) or `.safetensors`.
        published: Arguments of [`~ecg_transformers.hub.convert_kim.convert_kim_checkpoint`]; `None` keeps a default.

    Returns:
        The model and the feature extractor of the published pretraining: raw millivolts, no filter.
    """
    settings = {name: value for name, value in published.items() if value is not None}
    model = convert_kim.convert_kim_checkpoint(read_checkpoint(path), **settings)
    config = model.config
    feature_extractor = EcgFeatureExtractor(
        leads=config.leads, sampling_rate=config.sampling_rate, num_samples=config.num_samples
    )
    return model, feature_extractor


def read_checkpoint(path: str) -> dict:
    """Loads tensors from a `.safetensors` or torch file without executing anything in it."""
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path!r}.")
    if Path(path).suffix == ".safetensors":
        return load_file(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds for what is no checkpoint
        raise ValueError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}). A file that is no checkpoint of torch "
            "or that needs code to load is refused."
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, expected a dictionary of tensors.")
    return checkpoint
