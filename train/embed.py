"""`ecg-transformers embed`: the features of recordings as a table, one row a record."""

import argparse
import logging
from pathlib import Path

from transformers import AutoModel

from ecg_transformers.data import load_ecg

from .features import embed
from .inference import log_quality
from .settings import parse_options, read_extractor

logger = logging.getLogger("ecg_transformers")


def run(args: argparse.Namespace):
    """The command."""
    model = AutoModel.from_pretrained(args.model)
    feature_extractor = read_extractor(args)
    dataset = load_ecg(args.dataset, data_dir=args.data_dir, split=args.split, **parse_options(args.options))
    table = embed(model, feature_extractor, dataset, args.batch_size, check_quality=True)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = table.save(folder / f"embeddings.{args.format}")
    log_quality(dict(zip(table.record_ids, table.quality, strict=True)))
    logger.info("Wrote %d features of %d numbers to %s", len(table), table.features.shape[1], path)
