"""`ecg-transformers embed`: the features of recordings as a table, one row a record."""

import argparse
import logging
from pathlib import Path

from ecg_transformers.data import load_ecg

from .checkpoints import load_encoder
from .features import embed
from .settings import parse_options

logger = logging.getLogger("ecg_transformers")


def run(args: argparse.Namespace):
    """The command."""
    model, feature_extractor = load_encoder(args.model)
    dataset = load_ecg(args.dataset, data_dir=args.data_dir, split=args.split, **parse_options(args.options))
    table = embed(model, feature_extractor, dataset, args.batch_size)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = table.save(folder / f"embeddings.{args.format}")
    logger.info("Wrote %d features of %d numbers to %s", len(table), table.features.shape[1], path)
