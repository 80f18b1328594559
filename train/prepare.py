"""`ecg-transformers prepare`: convert a corpus once to Parquet shards that stream from a disk, a server or the Hub."""

import argparse
import logging

from ecg_transformers.data.corpora.declarations import parse_options
from ecg_transformers.data.prepare import prepare_corpus

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace):
    """Runs the command with the arguments of `cli.py`."""
    draw_preview = None
    if args.preview_pictures:
        from .report.ecg_paper import draw_preview
    manifest = prepare_corpus(
        args.dataset,
        args.data_dir,
        args.output_dir,
        split=args.split,
        num_proc=args.num_proc,
        shard_index=args.shard_index,
        num_shards=args.num_shards,
        engine=args.engine,
        scheduler=args.scheduler,
        on_bad_record=args.on_bad_record,
        draw_preview=draw_preview,
        **parse_options(args.options),
    )
    if manifest is not None:
        counts = {split: sum(shard.num_records for shard in shards) for split, shards in manifest.splits.items()}
        logger.info('%s: %s. Load it: load_ecg("prepared", %r)', args.output_dir, counts, args.output_dir)
