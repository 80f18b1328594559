"""`ecg-transformers embed`: the features of recordings as a table, one row a record or a window."""

import argparse
import logging
from pathlib import Path

from ecg_transformers.data import load_ecg

from .checkpoints import load_encoder
from .features import embed
from .inference import log_quality
from .settings import extractor_changes, parse_options

logger = logging.getLogger("ecg_transformers")


def run(args: argparse.Namespace):
    """The command."""
    model, feature_extractor = load_encoder(args.model, **extractor_changes(args))
    dataset = load_ecg(args.dataset, data_dir=args.data_dir, split=args.split, **parse_options(args.options))
    if args.windows:
        feature_extractor.long_records = "all"
    batch_size = 1 if args.windows else args.batch_size  # a day of ECG is thousands of windows
    table = embed(model, feature_extractor, dataset, batch_size, check_quality=True, windows=args.windows)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = table.save(folder / f"embeddings.{args.format}")
    log_quality(dict(zip(table.record_ids, table.quality, strict=True)))
    logger.info("Wrote %d features of %d numbers to %s", len(table), table.features.shape[1], path)
