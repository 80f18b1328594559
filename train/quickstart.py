"""`ecg-transformers quickstart`: the whole path on carried recordings, without network or data, in minutes.

Pretrains the preset `quickstart`, probes the frozen features of the pretrained encoder beside those of a random
encoder and of random kernels, and writes checkpoint, feature extractor, card, `report.json` and a page with plots.
"""

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpus import data_source

from .evaluation.run import ProtocolOptions, evaluate_encoder
from .pretrain import build_trainer
from .publishing.model_card import CardFacts, ShownResult, run_costs, write_card
from .report.card_section import caveats_of, results_markdown
from .report.ecg_paper import plot_ecg_paper
from .report.kinds import outcome_section
from .report.page import Page, ReportFigure, Section, write_page
from .report.plots import plot_training_curve
from .results import Result, installed_versions, write_json
from .run_folder import claim_output_dir
from .settings import read_config
from .tasks.targets import load_task
from .trainer import train_and_save

logger = logging.getLogger("ecg_transformers")

CORPUS = "ptb-xl-sample"
TASK = "PTB-XL superdiagnostic (5 superclasses, multi-label), cross-validated by patient over the carried recordings"


def run(args: argparse.Namespace):
    """The command."""
    started = time.monotonic()
    claim_output_dir(args.output_dir, args.overwrite_output_dir)
    torch.set_num_threads(1)  # tensors this small: a second thread waits longer than it works
    folder = Path(args.output_dir)
    train, test = load_ecg(CORPUS, split="train", decode=False), load_ecg(CORPUS, split="test")
    source = data_source(train, CORPUS)
    num_more = len(test) + len(load_ecg(CORPUS, split="validation"))
    logger.info(
        "%d recordings to pretrain on, %d more for the evaluation, which leaves out those without a label of the task",
        len(train),
        num_more,
    )

    settings = read_config("quickstart") | {"output_dir": args.output_dir, "seed": args.seed}
    if args.max_steps is not None:
        settings["max_steps"] = args.max_steps
    trainer = build_trainer(settings, train)
    logger.info("Pretraining on the unlabelled signals of folds 1-8 ...")
    train_and_save(trainer)
    pretraining_seconds = time.monotonic() - started

    logger.info("Probing its frozen features, those of a random encoder and of random kernels ...")
    encoder = AutoModel.from_pretrained(args.output_dir)
    options = ProtocolOptions(folder, seed=args.seed, cross_validate=True)
    evaluation = evaluate_encoder(encoder, trainer.processing_class, load_task(CORPUS), ["linear"], [], options)
    comparison = {name: found for name, found in evaluation.facts.items() if name != "settings"}
    probe = comparison["pretrained"]["linear"]
    facts = {
        "Recordings to learn from, without labels": len(train),
        "Labelled recordings, in 8 folds by patient": probe["num_test_records"],
        "Pretraining (steps)": trainer.state.global_step,
        "Batch (recordings)": trainer.args.train_batch_size,
        "Parameters of the encoder": sum(parameter.numel() for parameter in encoder.parameters()),
        "Pretraining (s)": round(pretraining_seconds),
        "Seed": args.seed,
    }
    seconds = time.monotonic() - started
    facts["Whole run (s)"] = round(seconds)
    report = {
        "task": TASK,
        **comparison,
        "seconds": round(seconds, 1),
        "seed": args.seed,
        "max_steps": trainer.state.max_steps,
        "num_pretraining_records": len(train),
        "versions": installed_versions(),
    }
    write_json(report, folder / "report.json")
    result = Result.from_json(report)
    card = CardFacts(
        "pretrained",
        source,
        split=f"folds 1-8, {len(train)} recordings, without their labels",
        training=facts | {"Learning rate": trainer.args.learning_rate, "Weight decay": trainer.args.weight_decay},
        weights_licence="cc-by-4.0",
        costs=run_costs(facts["Pretraining (s)"], trainer.args),
    )
    shown = ShownResult(result, results_markdown(result))
    write_card(folder, card, trainer.model.config, trainer.processing_class, [shown])
    next_commands = commands_to_try(args.output_dir)
    view, training = draw_figures(trainer, test)
    page = write_page(
        Page(
            title="ecg-transformers quickstart",
            summary=(
                "A small encoder trained on unlabelled recordings to predict what random kernels answer; a linear "
                "probe evaluates its frozen features beside those of a random encoder and of the kernels themselves."
            ),
            verdicts=result.verdicts(),
            sections=[
                *(outcome_section(outcome, result) for outcome in result.outcomes),
                Section("Pretraining", figures=[view]),
                Section("Course of the training", figures=[training], folded=True),
            ],
            caveats=caveats_of(result),
            facts={"Task": TASK} | facts,
            data=source,
            command=f"ecg-transformers quickstart --seed {args.seed} --output_dir {args.output_dir}",
            next_commands=next_commands,
        ),
        folder / "report.html",
    )
    for line in result.summary():
        logger.info(line)
    logger.info("%.0f s. Checkpoint, report.json and the report: %s", seconds, page)
    logger.info("\nNext:")
    for why, command in next_commands:
        logger.info("  # %s\n  %s", why, command)


def draw_figures(trainer, test) -> list[ReportFigure]:
    """One altered window as the encoder sees it, and the loss and rank of the training."""
    model, extractor, row = trainer.model, trainer.processing_class, test[0]
    values = extractor(row["ecg"])["input_values"]
    view = model.draw_missing(values, views=None, view_leads=None)["views"][0, 0].numpy()
    scale, offset = (np.asarray(values)[:, None] for values in (extractor.lead_stds, extractor.lead_means))
    paper = plot_ecg_paper(
        view * scale + offset, extractor.leads, extractor.sampling_rate, title=f"PTB-XL record {row['record_id']}"
    )
    return [
        ReportFigure(
            paper,
            "An altered window",
            "25 mm/s, 10 mm/mV. A window of 5 s with other gains, noise, and time or leads set to zero: from it the "
            "encoder predicts what random kernels answer to the whole recording.",
            "An electrocardiogram on ECG paper, noisy, with parts set to zero",
            image_format="png",
            wide=True,
        ),
        ReportFigure(
            plot_training_curve(trainer.state.log_history),
            "Training",
            "The loss is 1 for a constant prediction; the rank counts the features that differ between recordings.",
            "Loss, effective rank and standard deviation of the features over the steps",
        ),
    ]


def commands_to_try(model: str) -> list[tuple[str, str]]:
    return [
        (
            "features of your own WFDB records",
            f"ecg-transformers embed --model {model} --dataset wfdb --data_dir YOUR_RECORDS --output_dir features",
        ),
        (
            "probe on the whole of PTB-XL",
            f"ecg-transformers evaluate --model {model} --dataset ptb-xl --data_dir PTB_XL --output_dir evaluation",
        ),
        (
            "pretrain the published size on it",
            "ecg-transformers pretrain --config kim_multiblock --dataset ptb-xl --data_dir PTB_XL --output_dir kim",
        ),
    ]
