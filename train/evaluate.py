"""`ecg-transformers evaluate`: scores of an encoder by the field's protocols, beside a random one like it.

Writes `metrics.json`, `predictions.parquet` (every score of every record, to score again), `evaluation.html` and
`card_section.md`, what the model's README.md may say; in a checkpoint folder that was evaluated nothing changes.
"""

import argparse
import datetime
import logging
import re
import shlex
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpora.declarations import parse_options
from ecg_transformers.data.corpus import data_source

from .delineation.evaluation import evaluate_delineation
from .evaluation.identity import compare_identity
from .evaluation.protocols import choose_layer
from .evaluation.published import comparable_numbers, is_complete_test
from .evaluation.run import Evaluation, ProtocolOptions, evaluate_encoder
from .explain.recordings import explain_recording
from .features import load_encoder
from .inference import find_quality, log_quality, records_by_finding
from .publishing.shared_folder import DIGEST_KEY, model_digest
from .report.card_section import results_markdown
from .report.evaluation_page import encoder_facts, evaluation_page
from .report.examples import examples_of
from .report.page import ReportFigure, write_page
from .results import Result, installed_versions, write_json
from .run_folder import claim_output_dir
from .settings import extractor_changes, pooled_changes
from .tasks.labelled_splits import LabelledSplits, task_name
from .tasks.targets import load_task

logger = logging.getLogger("ecg_transformers")

WRITTEN = re.compile(
    r"metrics\.json|predictions\.parquet|evaluation\.html|card_section\.md|finetuned"
    r"|(linear|finetuned)(\.json|_waves\.parquet|_delineator)"
)
NUM_EXPLAINED = 3
FOLDS_OF_DELINEATION = "five folds by subject: each tests once, another one selects, three train"


def run(args: argparse.Namespace):
    """The command."""
    started = time.monotonic()
    check_flags(args)
    claim_output_dir(args.output_dir, args.overwrite_output_dir, written=WRITTEN, reads=args.model)
    changes = extractor_changes(args)
    model, feature_extractor = load_encoder(args.model, pooled=pooled_changes(args), **changes)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    options = parse_options(args.options)
    folder = Path(args.output_dir)
    if args.target in ("delineation", "identity"):
        split = "all" if args.target == "delineation" else args.split
        rows = load_ecg(args.dataset, data_dir=args.data_dir, split=split, decode=False, **options)
        found = (
            delineation(args, rows, changes, folder)
            if args.target == "delineation"
            else identity(args, rows, options, model, feature_extractor)
        )
        page = {}
    else:
        splits = load_task(
            *(args.dataset, args.data_dir, options, args.target, args.problem_type, args.unlabelled), args.delineator
        )
        rows = splits.test
        choices = ProtocolOptions(
            folder,
            finetune_config=args.finetune_config,
            nstdb_dir=args.nstdb,
            batch_size=args.batch_size,
            seed=args.seed,
        )
        if args.layer == "best":
            layer = choose_layer(model, feature_extractor, splits, args.batch_size)
            logger.info("Layer %d, chosen on the validation split", layer)
        evaluation = evaluate_encoder(model, feature_extractor, splits, args.protocol, args.setting, choices)
        quality = find_quality(splits.test, feature_extractor)
        log_quality(quality)
        found = {
            "problem_type": splits.problem_type,
            "label_names": list(splits.label_names),
            "splits": describe_splits(splits, evaluation),
            "copies_left_out": {split: dict(copies) for split, copies in splits.copies.items()},
            "quality_of_test": records_by_finding(quality),
            **evaluation.facts,
        }
        page = {
            "predictions": evaluation.results,
            "features": {encoder: tables.tables["test"] for encoder, tables in evaluation.tables.items()},
            "rows": splits.test,
        }
        if evaluation.results:
            evaluation.write_predictions(folder / "predictions.parquet")
    metrics = {
        "task": task_name(args.dataset, options, args.target),
        "model": args.model_name,
        DIGEST_KEY: model_digest(args.model),
        **found,
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["ecg-transformers", *args.argv]),
        "versions": installed_versions(),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(metrics, folder / "metrics.json")
    result = Result.from_json(metrics)
    if page:
        drawn = {example.record_id for example in examples_of(result, page["predictions"])[1]}
        page["explanations"] = explanation_figures(model, feature_extractor, rows, drawn)
    published, notes = published_beside(result)
    report = evaluation_page(
        result,
        data_source(rows, args.dataset),
        encoder_facts(model, feature_extractor) | pooled_changes(args),
        published=published,
        published_notes=notes,
        **page,
    )
    path = write_page(report, folder / "evaluation.html")
    (folder / "card_section.md").write_text(results_markdown(result) + "\n", encoding="utf-8")
    for line in result.summary():
        logger.info(line)
    logger.info("Wrote metrics.json and %s", path)


def check_flags(args: argparse.Namespace):
    """Raises `ValueError` for flags that the target does not read: what is not done must not seem done."""
    given = {
        "--layer best": args.layer == "best",
        "--setting": bool(args.setting),
        "--problem_type": args.problem_type is not None,
        "--unlabelled": args.unlabelled != "drop",
        "--delineator": args.delineator is not None,
    }
    if args.target in ("delineation", "identity"):
        unread = [flag for flag, is_given in given.items() if is_given]
        unread += ["--protocol"] if args.target == "identity" and args.protocol != ["linear"] else []
        if unread:
            raise ValueError(f"The target {args.target} does not read {', '.join(unread)}: leave it out.")
    if args.split != "test" and args.target != "identity":
        raise ValueError(f"--split is for --target identity; {args.target} is tested on the test split.")
    if args.target == "delineation":
        others = [protocol for protocol in args.protocol if protocol not in ("linear", "finetuned")]
        if others:
            raise ValueError(f"Delineation has the protocols linear and finetuned, got {others}.")
        if args.dataset != "ludb" or args.options:
            raise ValueError("Delineation is evaluated on LUDB: --dataset ludb --data_dir DIR, without --options.")


def delineation(args: argparse.Namespace, rows: Dataset, changes: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Delineation by the frozen encoder, and with `--protocol finetuned` by all weights."""
    found: dict[str, Any] = {"problem_type": "token_classification", "label_names": ["P", "QRS", "T"]}
    found |= {part: {} for part in ("random_encoder", "pretrained", "difference")}
    for protocol in args.protocol:
        result = evaluate_delineation(
            args.model, rows, folder, frozen=protocol == "linear", extractor_settings=changes, seed=args.seed
        )
        for part, of_protocol in result.items():
            found[part] |= of_protocol
    return found | {"splits": {"all": {"which": FOLDS_OF_DELINEATION}}}


def identity(
    args: argparse.Namespace, rows: Dataset, options: Mapping[str, Any], model, feature_extractor
) -> dict[str, Any]:
    """Among the rows of `--split`, features standardised by the training split."""
    train = load_ecg(args.dataset, data_dir=args.data_dir, split="train", decode=False, **options)
    compared = compare_identity(model, feature_extractor, rows, train, batch_size=args.batch_size, seed=args.seed)
    splits = {"train": {"records": len(train)}, args.split: {"records": len(rows)}}
    return {"problem_type": "retrieval", "label_names": [], "splits": splits, **compared}


def describe_splits(splits: LabelledSplits, evaluation: Evaluation) -> dict[str, dict]:
    """Records and patients of each split that were embedded, its folds where it has some, and who was left out (of
    exact copies their number; `copies_left_out` of the metrics names them)."""
    described = {}
    for split, rows in splits.items():
        table = evaluation.tables["pretrained"].tables[split]
        folds = sorted({fold for fold in table.folds if fold is not None})
        described[split] = {
            "which": name_folds(folds),
            "records": len(table),
            "patients": len(set(table.patients())),
            "without_label": splits.unlabelled[split],
            "not_readable": len(rows) - len(table),
        }
        if split in splits.copies:  # training keeps its copies
            described[split]["exact_copies"] = len(splits.copies[split])
    return described


def name_folds(folds: list[int]) -> str:
    """`"folds 1-8"`, `"fold 9"`, `"folds 1, 3"`; of none `"its own"`."""
    if not folds:
        return "its own"
    if len(folds) == 1:
        return f"fold {folds[0]}"
    consecutive = folds == list(range(folds[0], folds[-1] + 1))
    return f"folds {folds[0]}-{folds[-1]}" if consecutive else f"folds {', '.join(map(str, folds))}"


def published_beside(result: Result) -> tuple[list[dict], list[str]]:
    """Numbers of others of the same task, protocol and complete test, and how to read them or why there are none."""
    numbers, notes = [], []
    for outcome in result.outcomes:
        protocol, evaluated = outcome.protocol, outcome.scores
        if outcome.kind.name != "classification":
            continue
        for name in (protocol, "from_scratch") if protocol == "finetuned" else (protocol,):
            found, note = comparable_numbers(
                result.task,
                name,
                result.splits["train"]["which"],
                result.splits["test"]["which"],
                is_complete_test(result.task, evaluated["num_test_records"]),
                list(evaluated["excluded"]),
            )
            numbers += found
            notes.append(note)
    return numbers, list(dict.fromkeys(notes))


def explanation_figures(model, feature_extractor, rows, drawn: Collection[str] = ()) -> list[ReportFigure]:
    """Attention rollout over leads and time in the first test records of different labels, where they are voltages.

    Records that are `drawn` elsewhere on the page are left out.
    """
    figures, seen, failed = [], set(), 0
    for number, labels in enumerate(rows["labels"]):
        row = rows[number]
        if tuple(labels) in seen or row["record_id"] in drawn or row["ecg"]["unit"] != "mV":
            continue
        try:
            found = explain_recording(model, feature_extractor, row, method="attention_rollout")
        except ValueError as error:
            logger.warning("Record %s: no picture of the attention: %s", row["record_id"], error)
            failed += 1
            if failed == NUM_EXPLAINED:  # most likely the encoder, not the records
                break
            continue
        seen.add(tuple(labels))
        title = f"Record {row['record_id']}: {', '.join(labels) or 'no label'}"
        alt = f"An electrocardiogram on ECG paper; colour shows the attention of the encoder. {title}"
        drawing = found.plot(title=title)
        figures.append(ReportFigure(drawing, title, found.caption, alt, image_format="png", wide=True))
        if len(figures) == NUM_EXPLAINED:
            break
    return figures
