"""`ecg-transformers quickstart`: the whole path on carried recordings, without network or data, in minutes.

Pretrains the preset `quickstart`, probes the frozen features of the pretrained and of a randomly initialised encoder,
and writes checkpoint, feature extractor, card, `report.json` and a page with plots.
"""

import argparse
import logging
import time
from pathlib import Path

import torch
from transformers import AutoModel

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling.masking import keyed_generator

from .evaluation.run import ProtocolOptions, evaluate_encoder
from .pretrain import build_trainer
from .publishing.model_card import CardFacts, ShownResult, run_costs, write_card
from .report.card_section import results_markdown
from .report.caveats import caveats_of
from .report.ecg_paper import plot_ecg_paper
from .report.kinds import Shown, outcome_section
from .report.page import Page, ReportFigure, Section, write_page
from .report.plots import plot_training_curve
from .results import Result, installed_versions, write_json
from .run_folder import claim_output_dir
from .settings import read_config
from .tasks.targets import load_task
from .trainer import train_and_save

logger = logging.getLogger("ecg_transformers")

CORPUS = "ptb-xl-sample"
TASK = "PTB-XL superdiagnostic (5 superclasses, multi-label), train folds 1-8, test fold 10"
PTB_XL = DataSource(
    name="PTB-XL, the records carried by this package",
    licence="CC BY 4.0",
    citation=(
        "Wagner P, Strodthoff N, Bousseljot R-D, et al. PTB-XL, a large publicly available electrocardiography "
        "dataset. Scientific Data 2020;7:154. doi:10.1038/s41597-020-0495-6"
    ),
    url="https://physionet.org/content/ptb-xl/",
    dataset_id="ptb-xl",
)


def run(args: argparse.Namespace):
    """The command."""
    started = time.monotonic()
    claim_output_dir(args.output_dir, args.overwrite_output_dir)
    torch.set_num_threads(1)  # tensors this small: a second thread waits longer than it works
    folder = Path(args.output_dir)
    train, test = load_ecg(CORPUS, split="train"), load_ecg(CORPUS, split="test")
    logger.info(
        "%d recordings to learn from, %d to test on; those without a label of the task are not judged",
        len(train),
        len(test),
    )

    settings = read_config("quickstart") | {"output_dir": args.output_dir, "seed": args.seed}
    if args.max_steps is not None:
        settings["max_steps"] = args.max_steps
    trainer = build_trainer(settings, load_ecg(CORPUS, split="train", decode=False))
    logger.info("Pretraining on the unlabelled signals of folds 1-8 ...")
    train_and_save(trainer)
    pretraining_seconds = time.monotonic() - started

    logger.info("Probing the frozen features of the pretrained and of a random encoder ...")
    encoder = AutoModel.from_pretrained(args.output_dir)
    options = ProtocolOptions(folder, seed=args.seed)
    evaluation = evaluate_encoder(encoder, trainer.processing_class, load_task(CORPUS), ["linear"], [], options)
    comparison = {name: found for name, found in evaluation.facts.items() if name != "settings"}
    probe = comparison["pretrained"]["linear"]
    facts = {
        "Recordings to learn from, without labels": len(train),
        "Labelled recordings the probe learns from": probe["num_train_records"],
        "Labelled recordings the probe is tested on": probe["num_test_records"],
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
    write_facts(trainer, folder, result, facts, len(train))
    next_commands = commands_to_try(args.output_dir)
    mask, training = draw_figures(trainer, test)
    page = write_page(
        Page(
            title="ecg-transformers quickstart",
            summary=(
                "A small ECG-JEPA with Cross-Pattern Attention learnt from unlabelled recordings; a linear probe "
                "shows how much its frozen features know, beside those of a randomly initialised encoder."
            ),
            verdicts=result.verdicts(),
            sections=[
                *(outcome_section(outcome, result, Shown()) for outcome in result.outcomes),
                Section("Pretraining", figures=[mask]),
                Section("Course of the training", figures=[training], folded=True),
            ],
            caveats=caveats_of(result),
            facts={"Task": TASK} | facts,
            data=PTB_XL,
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


def write_facts(trainer, folder: Path, result: Result, facts: dict, num_records: int):
    args = trainer.args
    more = {
        "Learning rate": args.learning_rate,
        "Weight decay": args.weight_decay,
        "Momentum of the teacher": f"{args.ema_start} to {args.ema_end}",
    }
    of_card = CardFacts(
        "pretrained",
        PTB_XL,
        split=f"folds 1-8, {num_records} recordings, without their labels",
        training=facts | more,
        weights_licence="cc-by-4.0",
        costs=run_costs(facts["Pretraining (s)"], args),
    )
    shown = ShownResult(result, results_markdown(result))
    write_card(folder, of_card, trainer.model.config, trainer.processing_class, [shown])


def draw_figures(trainer, test) -> list[ReportFigure]:
    """One ECG with the patches that a mask hides, and the loss and rank of the training."""
    config = trainer.model.config
    row = test[0]
    ecg = row["ecg"]
    order = [ecg["leads"].index(lead) for lead in config.leads]
    mask = trainer.model.draw_mask(keyed_generator(trainer.args.seed, "mask", 0))[0]
    hidden_share = mask.float().mean().item()
    patch_seconds = config.patch_size / config.sampling_rate
    num_shown = round(config.num_samples / config.sampling_rate * ecg["sampling_rate"])
    paper = plot_ecg_paper(
        ecg["signal"][order, :num_shown],
        config.leads,
        ecg["sampling_rate"],
        hidden=mask.numpy(),
        patch_size=round(patch_seconds * ecg["sampling_rate"]),
        title=f"PTB-XL record {row['record_id']}",
    )
    return [
        ReportFigure.draw(
            paper,
            "What the student has to infer",
            f"25 mm/s, 10 mm/mV. Shaded patches ({hidden_share:.0%}) are hidden from the student in all leads.",
            "An electrocardiogram on ECG paper with hidden patches shaded",
            image_format="png",
            wide=True,
        ),
        ReportFigure.draw(
            plot_training_curve(trainer.state.log_history),
            "Training",
            "The loss alone proves little in a joint-embedding method: watch the rank of the features.",
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
