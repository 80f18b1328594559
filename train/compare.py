"""`ecg-transformers compare`: methods of pretraining on equal terms.

The same records, folds, records seen and probe for a list of methods and seeds; beside each method its own encoder
before the first step (the random encoder), and the same encoder trained on the labels from scratch. `--scoreboard`
trains nothing: encoders that are there are evaluated on many terms.
"""

import argparse
import dataclasses
import logging
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from transformers.utils.logging import disable_progress_bar

from .comparison.data import ComparisonData, ExtraSource, load_comparison_data
from .comparison.report import data_facts, write_comparison
from .comparison.runs import QUIET, Run, RunFolder, SupervisedSettings, records_per_step, scratch_settings
from .comparison.scoreboard import Scoreboard
from .comparison.scoreboard_data import ScoreboardData
from .comparison.scoreboard_encoders import Features, load_rows, parse_models
from .comparison.scoreboard_report import evaluate_term, write_scoreboard
from .results import installed_versions
from .settings import extractor_field_names, parse_flags, read_config, split_settings, training_arguments

logger = logging.getLogger("ecg_transformers")

METHODS_OWN_INPUT = ("leads", "sampling_rate", "num_samples", "long_records", "window_stride_samples", "short_records")
"""What a method says of its input even where flags make one input contract for all."""

TERMS = {"dataloader_drop_last": True, "collapse_patience": 0, **QUIET}
"""Settings that are the same for all methods: whole batches, so that the budget is exact, and no early end."""


def run(args: argparse.Namespace):
    """The command."""
    torch.set_num_threads(args.num_threads)
    threadpool_limits(args.num_threads)  # of the probes: two processes that share two cores must not fight for them
    disable_progress_bar()  # dozens of small files are saved and loaded
    options = {"task": args.task, "sampling_rate": args.record_sampling_rate}
    data = load_comparison_data(
        args.dataset,
        args.data_dir,
        [ExtraSource.parse(text) for text in args.extra or ()],
        args.splits,
        {name: value for name, value in options.items() if value is not None},
    )
    logger.info(
        "%d records to learn from, %d of them with labels; %d to select on, %d to test on",
        *(len(data.pretraining), len(data.train), len(data.validation), len(data.test)),
    )
    common, command = parse_flags(args.rest), "ecg-transformers " + shlex.join(args.argv)
    if args.scoreboard is not None:
        scoreboard(args, data, common, command)
        return
    if args.methods is None or args.records_seen is None:
        raise ValueError("Give --methods and --records_seen to pretrain, or --scoreboard NAME=DIR to score encoders.")
    supervised = SupervisedSettings(records_seen=args.supervised_records_seen or args.records_seen)
    rate = args.finetune_learning_rate or supervised.learning_rate
    runs = plan_runs(
        parse_methods(args.methods),
        [int(seed) for seed in args.seeds.split(",")],
        args.records_seen,
        common,
        data.fingerprint,
        supervised,
        dataclasses.replace(supervised, learning_rate=rate) if args.finetune else None,
        args.low_shot,
        None if args.labels_for is None else [name for name in args.labels_for.split(",") if name != "none"],
    )
    fields = extractor_field_names() - set(METHODS_OWN_INPUT)
    treatment = {name: value for name, value in common.items() if name in fields}
    shared = RunFolder(Path(args.output_dir), data, treatment)

    def write():
        return write_comparison(shared, runs, args.low_shot, command)

    failed = {} if args.report_only else shared.work(runs, report=write)
    lines, path = write()
    logger.info("%s\nWrote %s", "\n".join(lines), path)
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(runs)} runs failed and are left out of the table; the same command tries them "
            f"again. {' | '.join(failed.values())}"
        )


def scoreboard(args: argparse.Namespace, data: ComparisonData, treatment: Mapping[str, Any], command: str):
    """Evaluates frozen encoders on many terms, beside untrained ones."""
    folder = Path(args.output_dir)
    rows = load_rows(parse_models(args.scoreboard), treatment)
    people, hospital = (
        None if text is None else ExtraSource.parse(text, flag)
        for text, flag in ((args.people, "--people"), (args.hospital, "--hospital"))
    )
    board = ScoreboardData.load(data, args.data_dir, people, args.ludb, hospital)
    terms = Scoreboard(Features(rows, folder / "features"), board).terms()
    facts = {
        "rows": [row.facts() for row in rows],
        "terms": [evaluate_term(term, rows) for term in terms],
        "data": data_facts(data),
        "command": command,
        "versions": installed_versions(),
    }
    lines = write_scoreboard(folder, facts, terms)
    logger.info("%s\nWrote %s", "\n".join(lines), folder / "scoreboard.md")


def parse_methods(text: str) -> dict[str, dict[str, Any]]:
    """`"kim_cpu,lejepa_cpu:augmentation=published"` as presets (or YAML files) and what is changed in each.

    Commas within brackets belong to a value (`mask_ratio=[0.6,0.7]`).
    """
    methods = {}
    for method in re.split(r",(?![^\[]*\])", text):
        preset, *changes = method.strip().split(":")
        if not preset or not all("=" in change for change in changes):
            raise ValueError(f"Expected --methods as PRESET[:setting=value...],..., got {method!r} in {text!r}.")
        if method.strip() in methods:
            raise ValueError(f"The method {method.strip()!r} comes twice in {text!r}.")
        methods[method.strip()] = {"preset": preset, "changes": parse_flags([f"--{change}" for change in changes])}
    return methods


def method_settings(
    method: Mapping[str, Any], common: Mapping[str, Any], seed: int, records_seen: int
) -> dict[str, Any]:
    """The settings of one run: the preset's, then the flags that count for all methods, then the method's own changes.

    If the flags name any treatment of the input (`--unit`, `--clip`, `--normalization`, a filter ...), they are the
    whole treatment: what the presets say of it is left out, but for leads, rate, length and windows.
    """
    settings = read_config(method["preset"])
    treatment = extractor_field_names() - set(METHODS_OWN_INPUT)
    if treatment & set(common):
        settings = {name: value for name, value in settings.items() if name not in treatment}
    settings |= dict(common) | method["changes"] | TERMS | {"seed": seed}
    for name in ("num_train_epochs", "max_steps", "save_strategy", "save_steps", "save_total_limit", "output_dir"):
        settings.pop(name, None)
    _, _, _, training = split_settings(settings)
    per_step = records_per_step(training_arguments(training | {"output_dir": "unused"}))
    return settings | {"max_steps": max(1, math.ceil(records_seen / per_step))}


def plan_runs(
    methods: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    records_seen: int,
    common: Mapping[str, Any],
    data: str,
    supervised: SupervisedSettings,
    finetuning: SupervisedSettings | None = None,
    low_shot: float | None = None,
    with_labels: Sequence[str] | None = None,
) -> list[Run]:
    """All runs, seed by seed, so that an unfinished comparison has whole seeds. Methods with the same encoder and the
    same input share its training from scratch. `with_labels` names the methods whose encoder is trained on labels
    too, from scratch and, if asked, fine-tuned; by default all."""
    unknown = sorted(set(with_labels or ()) - set(methods))
    if unknown:
        raise ValueError(f"--labels_for names {unknown}, which --methods does not: {list(methods)}.")
    runs: dict[str, Run] = {}
    fractions = [1.0] if low_shot is None else [1.0, low_shot]
    for seed in seeds:
        for name, method in methods.items():
            settings = method_settings(method, common, seed, records_seen)
            pretraining = Run("pretrain", name, seed, settings, data)
            planned = [pretraining]
            for fraction in fractions if with_labels is None or name in with_labels else ():
                planned.append(Run("supervised", name, seed, scratch_settings(settings), data, supervised, fraction))
                if finetuning is not None:
                    planned.append(Run("finetune", name, seed, settings, data, finetuning, fraction, pretraining))
            for run in planned:
                if run.name in runs:
                    run = dataclasses.replace(run, method=f"{runs[run.name].method}, {name}")
                runs[run.name] = run
    return list(runs.values())
