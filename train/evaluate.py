"""`ecg-transformers evaluate`: probe a checkpoint beside a randomly initialised encoder of the same configuration."""

import argparse
import json
import logging
from pathlib import Path

from transformers import AutoFeatureExtractor, AutoModel

from ecg_transformers.data import label_names, load_ecg

from .probes import compare_with_random
from .report import format_interval, format_score, installed_versions

logger = logging.getLogger("ecg_transformers")


def run(args: argparse.Namespace):
    """The command."""
    model = AutoModel.from_pretrained(args.model)
    feature_extractor = AutoFeatureExtractor.from_pretrained(args.model)
    options = {"task": args.task}
    if args.record_sampling_rate is not None:
        options["sampling_rate"] = args.record_sampling_rate
    train, test = (
        load_ecg(args.dataset, data_dir=args.data_dir, split=split, **options) for split in ("train", "test")
    )
    comparison = compare_with_random(
        model,
        feature_extractor,
        train,
        test,
        label_names(args.dataset, task=args.task),
        batch_size=args.batch_size,
        seed=args.seed,
    )
    metrics = {
        "task": f"{args.dataset} {args.task}",
        "protocol": args.protocol,
        "splits": {"train": "folds 1-8", "test": "fold 10"},
        "model": args.model,
        **comparison,
        "versions": installed_versions(),
    }
    path = write_json(metrics, Path(args.output_dir) / "metrics.json")
    for line in summarize(comparison, args.protocol):
        logger.info(line)
    logger.info("Wrote %s", path)


def write_json(content: dict, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def summarize(comparison: dict, protocol: str) -> list[str]:
    """The result in three lines for a terminal."""
    lines = []
    for encoder, name in (("random_encoder", "random encoder"), ("pretrained", "pretrained")):
        result = comparison[encoder][protocol]
        score, interval = format_score(result["macro_auroc"]), format_interval(result["macro_auroc_ci95"])
        lines.append(f"{name:>15}  {protocol} macro AUROC {score}  95 % {interval}")
    difference = comparison["difference"][protocol]
    interval = format_interval(difference["ci95"], signed=True)
    lines.append(f"{'difference':>15}  {difference['macro_auroc']:+.3f}  95 % {interval} (paired bootstrap)")
    return lines
