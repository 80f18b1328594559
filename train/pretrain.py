"""`ecg-transformers pretrain`: a preset or YAML file and flags become a model, a feature extractor and a run."""

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset, IterableDataset
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForPreTraining,
    set_seed,
)
from transformers.utils import logging

from ecg_transformers.data import EcgPretrainingCollator, load_ecg, mix_ecg
from ecg_transformers.data.corpora.declarations import parse_options
from ecg_transformers.data.corpus import DataSource, data_source, mixed_source
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.method import method_of
from ecg_transformers.modeling.modeling_st_mem import MaskedAutoencoderForPreTraining

from .arguments import SslTrainingArguments
from .explain.preview import complete_push
from .explain.reconstructions import reconstruction_figures
from .online_probe import PROBE_PREFIX, follow_with_probe
from .publishing.model_card import run_costs, write_card
from .report.page import Page, ReportFigure, Section, write_page
from .report.plots import plot_training_curve
from .run_folder import claim_output_dir
from .settings import describe_flags, parse_flags, read_config, split_settings, training_arguments
from .trainer import EcgSslTrainer, train_and_save, training_facts

logger = logging.get_logger(__name__)

SHUFFLE_BUFFER_RECORDS = 1024


def run(args: argparse.Namespace):
    """The command."""
    settings = read_config(args.config)
    if args.help_all:
        sys.stdout.write(describe_flags(settings["model_type"], SslTrainingArguments, "pretrain"))
        return
    settings |= parse_flags(args.rest)
    settings["output_dir"] = args.output_dir
    resumed = settings.get("resume_from_checkpoint")
    claim_output_dir(args.output_dir, args.overwrite_output_dir, resumed, reads=args.model)
    options = parse_options(args.options)
    if args.mix:
        dataset, source = mix_corpora(args, options, int(settings.get("seed", 42)))
    else:
        dataset = load_ecg(
            args.dataset, data_dir=args.data_dir, split=args.split, streaming=args.streaming, decode=False, **options
        )
        source = data_source(dataset, args.dataset)
    if args.streaming:  # a folder comes sorted by path; the stock Trainer shuffles no stream
        dataset = dataset.shuffle(seed=int(settings.get("seed", 42)), buffer_size=SHUFFLE_BUFFER_RECORDS)
    trainer = build_trainer(settings, dataset, checkpoint=args.model, data=source)
    if args.online_probe_steps is not None:
        labelled = {
            split: load_ecg(args.dataset, data_dir=args.data_dir, split=split, **options)
            for split in ("train", "validation")
        }
        evaluated = {"validation": labelled["validation"]}
        names = sorted({label for labels in labelled["train"]["labels"] for label in labels})
        follow_with_probe(trainer, labelled["train"], evaluated, names, args.online_probe_steps)
    started = time.monotonic()
    train_and_save(trainer)
    if trainer.is_world_process_zero():
        page = write_card_and_page(
            trainer,
            trainer.recordings(),
            f"split {args.split!r}, without labels",
            time.monotonic() - started,
            shlex.join(["ecg-transformers", *args.argv]),
            method_figures(trainer, dataset),
        )
        logger.info("Wrote the checkpoint, its card and %s", page)
        if trainer.args.push_to_hub:
            trainer.publish()
    trainer.accelerator.end_training()  # threads of a process group that is not ended may abort the process


def mix_corpora(args: argparse.Namespace, options: dict, seed: int) -> tuple[Dataset | IterableDataset, DataSource]:
    """Loads the corpora of `--mix NAME:DIR:WEIGHT`, and draws from each by its weight."""
    if args.data_dir or args.online_probe_steps:
        raise ValueError("--mix names folders itself and has no probe: leave out --data_dir and --online_probe_steps.")
    corpora, weights, sources = [], [], []
    for name, folder, weight in args.mix:
        corpora.append(
            load_ecg(name, data_dir=folder, split=args.split, streaming=args.streaming, decode=False, **options)
        )
        weights.append(weight)
        sources.append(data_source(corpora[-1], name))
    return mix_ecg(corpora, weights, seed=seed, stopping="all_exhausted"), mixed_source(sources)


def build_trainer(
    settings: dict, dataset, eval_dataset=None, checkpoint: str | None = None, data: DataSource | None = None
) -> EcgSslTrainer:
    """Model, feature extractor and Trainer of a run.

    Args:
        settings (`dict`): Flat keys of the model, the feature extractor and [`SslTrainingArguments`].
        dataset, eval_dataset: Rows of [`load_ecg`], best with `decode=False`.
        checkpoint (`str`, *optional*): A model to go on from; its own configuration and feature extractor count.
        data (`DataSource`, *optional*): Source of the recordings; by default what `dataset` declares.
    """
    model_type, model_settings, extractor_settings, training_settings = split_settings(settings)
    args = training_arguments(training_settings)
    set_seed(args.seed)
    if checkpoint is None:
        config = AutoConfig.for_model(model_type, **model_settings)
        model = AutoModelForPreTraining.from_config(config)
        feature_extractor = EcgFeatureExtractor(**extractor_settings)
    else:
        model = AutoModelForPreTraining.from_pretrained(checkpoint, dtype=torch.float32)
        feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    trainer = EcgSslTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        data_collator=EcgPretrainingCollator(feature_extractor),
        processing_class=feature_extractor,
        data=data,
    )
    trainer.complete_push = complete_push
    return trainer


def method_figures(trainer: EcgSslTrainer, dataset: Iterable[dict], num_records: int = 2) -> list[ReportFigure]:
    """Draws the reconstruction of the first recordings, for methods that reconstruct the signal."""
    if not isinstance(trainer.model, MaskedAutoencoderForPreTraining):
        return []
    recordings = [row["ecg"] for row in islice(iter(dataset), num_records)]
    model = trainer.model
    if trainer.is_fsdp_enabled:  # no process has all of its weights
        model = AutoModelForPreTraining.from_pretrained(trainer.args.output_dir)
    return reconstruction_figures(model, trainer.processing_class, recordings)


def write_card_and_page(
    trainer: EcgSslTrainer,
    data: DataSource,
    split: str,
    seconds: float,
    command: str,
    figures: Sequence[ReportFigure] = (),
) -> Path:
    """Writes `README.md`, the card, and the page `training.html` into the output folder of a finished run; returns the
    path of the page. `figures` are pictures besides the curves, such as reconstructions."""
    args, state, config = trainer.args, trainer.state, trainer.model.config
    folder = Path(args.output_dir)
    trainer.facts = dataclasses.replace(trainer.draft_facts(), data=data, split=split, costs=run_costs(seconds, args))
    write_card(folder, trainer.facts, config, trainer.processing_class)
    curves = ReportFigure(
        plot_training_curve(state.log_history),
        "Training",
        "The loss alone proves little: watch the rank of the features and their spread between records.",
        "Loss, effective rank and standard deviation of the features over the steps",
    )
    facts = training_facts(trainer) | {"Training (s)": round(seconds)} | last_parts(state.log_history)
    page = Page(
        title=f"{method_of(config).name}: pretraining",
        summary=method_of(config).description,
        sections=[Section("Course of the training", figures=[curves])]
        + ([Section("What the model makes of recordings", figures=figures)] if figures else []),
        caveats=["A loss says little about features. Evaluate them beside those of a random encoder before any use."],
        facts=facts,
        data=data,
        command=command,
        next_commands=[
            (
                "Evaluate the frozen features beside those of a random encoder:",
                f"ecg-transformers evaluate --model {args.output_dir} --dataset ptb-xl-sample --output_dir evaluation",
            )
        ],
    )
    return write_page(page, folder / "training.html")


def last_parts(log_history: list[dict]) -> dict[str, float]:
    """The last value of everything that training logs beside the schedule, by a readable name."""
    known = {"grad_norm", "learning_rate", "epoch", "step"}
    last = {}
    for entry in log_history:
        if "loss" in entry or any(name.startswith(PROBE_PREFIX) for name in entry):
            last |= {name: value for name, value in entry.items() if name not in known}
    return {f"{name.replace('_', ' ').capitalize()} (last)": value for name, value in last.items()}
