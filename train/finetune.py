"""`ecg-transformers finetune`: a pretrained encoder and labelled recordings become a classifier, tested once.

The stock [`~transformers.Trainer`] trains; what is ours is data, metric, optimiser groups and the loss of weighted
classes. The weights with the best macro AUROC on the validation split are kept, and the test split is looked at once,
with them. Our encoders have no dropout (stochastic depth, `drop_path_rate`, is there) and no augmentation of labelled
recordings: where a published recipe uses them, this one is not the same.
"""

import argparse
import dataclasses
import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForSequenceClassification,
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    set_seed,
)

from ecg_transformers.data import EcgDataCollator
from ecg_transformers.data.corpora.declarations import parse_options
from ecg_transformers.data.corpus import DataSource, data_source, declared_source
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.calibration import names_classifier

from .arguments import EcgTrainingArguments
from .callbacks import RunRecord
from .explain.preview import complete_push
from .features import decoded
from .finetune_objective import (
    HeadTask,
    ScaledTargets,
    ValidationMetrics,
    WeightedLoss,
    WindowRows,
    class_weights,
    freeze_encoder,
    layer_decay_groups,
)
from .inference import predict, readable_dataset
from .metrics import excluded_labels
from .predictions import (
    Predictions,
    ProtocolResult,
    evaluate_groups,
    evaluate_predictions,
    groups_of_people,
    stored_calibration,
    write_predictions,
)
from .publishing.model_card import CardFacts, ShownResult, run_costs, write_card
from .publishing.pushing_trainer import PushingTrainer
from .report.card_section import results_markdown
from .report.evaluation_page import finetune_page
from .report.page import write_page
from .results import MULTI_LABEL, REGRESSION, Result, installed_versions, write_json
from .run_folder import claim_output_dir
from .settings import describe_flags, parse_flags, read_config, sort_settings, training_arguments
from .tasks.labelled_splits import LabelledSplits, task_name
from .tasks.lead_subsets import chosen_subsets, given_leads, keep_leads, usual_input
from .tasks.targets import load_task
from .trainer import train_and_save

logger = logging.getLogger("ecg_transformers")

FINETUNE_PRESETS = "ecg_transformers.train.finetune_configs"
CLASS_WEIGHTS = ("none", "balanced")


@dataclass
class FineTuningArguments(EcgTrainingArguments):
    r"""
    [`~transformers.TrainingArguments`] with defaults that select on the validation split. `layer_decay` is that of
    [`layer_decay_groups`], `class_weights="balanced"` of [`class_weights`]; `random_windows` is by default so where
    the feature extractor takes all windows of a record (`long_records="all"`).
    """

    eval_strategy: str = field(default="epoch", metadata={"help": "When to look at the validation split."})
    save_strategy: str = field(default="best", metadata={"help": "When to save; the best weights are always kept."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep."})
    layer_decay: float = field(default=1.0, metadata={"help": "Factor of the learning rate from a layer to the next."})
    class_weights: str = field(default="none", metadata={"help": 'Weights of the loss: "none" or "balanced".'})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Looks at the validation split without gain after which to stop."}
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the head alone."})
    random_windows: bool | None = field(
        default=None, metadata={"help": "Cut a random window from longer records in training."}
    )

    def __post_init__(self):
        self.label_names = ["labels", "sample_id"]
        if self.eval_strategy == "no" or self.save_strategy == "no":
            raise ValueError(
                "Fine-tuning keeps the weights that do best on the validation split: eval_strategy and save_strategy "
                "cannot be 'no'. Choose 'epoch' or 'steps', and 'best' to save."
            )
        if self.fsdp:
            raise ValueError(
                "Fine-tuning has whole weights in each process: leave out fsdp (--fsdp), which `pretrain` takes."
            )
        if self.dataloader_drop_last:
            raise ValueError(
                "dataloader_drop_last would drop the last batch of the validation split too (the Trainer uses it for "
                "both): leave it out."
            )
        self.load_best_model_at_end, self.metric_for_best_model, self.greater_is_better = True, "macro_auroc", True
        super().__post_init__()
        if self.class_weights not in CLASS_WEIGHTS:
            raise ValueError(f"Expected class_weights to be one of {list(CLASS_WEIGHTS)}, got {self.class_weights!r}.")


def run(args: argparse.Namespace):
    """The command."""
    settings = read_config(args.config, FINETUNE_PRESETS)
    if args.help_all:
        sys.stdout.write(
            describe_flags(AutoConfig.from_pretrained(args.model).model_type, FineTuningArguments, "finetune")
        )
        return
    settings |= parse_flags(args.rest) | {"output_dir": args.output_dir}
    resumed = settings.get("resume_from_checkpoint")
    claim_output_dir(args.output_dir, args.overwrite_output_dir, resumed, reads=args.model)
    options = parse_options(args.options)
    splits = load_task(
        *(args.dataset, args.data_dir, options, args.target, args.problem_type, args.unlabelled), args.delineator
    )
    source = data_source(splits.train, args.dataset, settings.get("data_licence"))
    logger.info("%s, decided by %s", splits.problem_type, "--problem_type" if args.problem_type else "the data")
    subsets = chosen_subsets(args.lead_subsets)
    trainer = build_finetuning(args.model, splits, settings, source)
    check_lead_subsets(trainer, splits, subsets)
    started = time.monotonic()
    train_and_save(trainer)
    trainer.accelerator.end_training()  # threads of a process group that is not ended may abort the process
    if not trainer.is_world_process_zero():
        return
    metrics, predictions = finish_with_predictions(trainer, splits, subsets)
    metrics = {
        "task": task_name(args.dataset, options, args.target),
        "problem_type": splits.problem_type,
        "protocol": "linear head on a frozen encoder" if trainer.args.freeze_encoder else "finetuned",
        "model": args.model_name,
        "config": args.config,
        "seconds": round(time.monotonic() - started, 1),
        **metrics,
        "command": shlex.join(["ecg-transformers", *args.argv]),
        "versions": installed_versions(),
    }
    folder = Path(args.output_dir)
    write_json(metrics, folder / "metrics.json")
    result = Result.from_json(metrics)
    sizes = {split: len(rows) for split, rows in as_taught(splits, trainer).items()}
    facts = card_facts(trainer, Path(args.model).name, source)
    stated = {name: value for name, value in metrics["training"].items() if not isinstance(value, Mapping)}
    facts = dataclasses.replace(
        facts,
        split=f"{sizes['train']} recordings to train, {sizes['validation']} to select the step on, {sizes['test']} to "
        "test once; no patient in two of them where patients are stated",
        training={name.replace("_", " ").capitalize(): value for name, value in stated.items() if value is not None},
        costs=run_costs(metrics["seconds"], trainer.args),
    )
    shown = ShownResult(result, results_markdown(result))
    write_card(folder, facts, trainer.model.config, trainer.processing_class, [shown])
    page = finetune_page(result, predictions, splits.test, source, facts.training, trainer.state.log_history)
    write_page(page, folder / "finetuning.html")
    for split, evaluated in (("validation", result.validation), ("test", result.outcomes[0].scores)):
        logger.info("%10s  %s", split, result.outcomes[0].headline(evaluated))
    for label, reason in metrics["test"].get("excluded", {}).items():
        logger.info("%10s  not evaluated: %s (%s)", "test", label, reason)
    logger.info("Wrote the classifier, README.md, metrics.json, predictions.parquet and finetuning.html to %s", folder)
    if isinstance(trainer, FineTuningTrainer):
        trainer.facts = facts
        trainer.publish()


def card_facts(trainer: Trainer, start: str, source: DataSource) -> CardFacts:
    """Facts of a classifier as far as they are known while it trains."""
    licence = trainer.args.weights_licence
    return CardFacts("finetuned", source, start=start, weights_licence=licence)


def build_finetuning(
    checkpoint: str, splits: LabelledSplits, settings: Mapping, data: DataSource | None = None
) -> Trainer:
    """Model, data and Trainer of a fine-tuning.

    Args:
        checkpoint (`str`): Folder or id of a model of this library, with its feature extractor.
        splits (`LabelledSplits`): See [`load_labelled_splits`].
        settings (`Mapping`): Flat keys: of the model and the feature extractor, where they are to differ from the
            checkpoint's, and of [`FineTuningArguments`].
        data (`DataSource`, *optional*): For the card of a push; by default what the corpus declares.

    Returns:
        [`~transformers.Trainer`]: the stock one, with `push_to_hub` a [`FineTuningTrainer`];
        `trainer.processing_class` is the feature extractor.
    """
    stored = AutoConfig.from_pretrained(checkpoint)
    model_settings, extractor_settings, training = sort_settings(
        dict(settings), stored.model_type, FineTuningArguments
    )
    args = training_arguments(training, FineTuningArguments)
    set_seed(args.seed)
    model = load_classifier(checkpoint, splits.label_names, splits.problem_type, model_settings)
    if args.freeze_encoder:
        freeze_encoder(model.base_model)
    feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    feature_extractor = EcgFeatureExtractor(**(feature_extractor.to_dict() | extractor_settings))
    splits = dataclasses.replace(  # a batch without input would be an error
        splits,
        train=readable_dataset(splits.train, feature_extractor),
        validation=readable_dataset(splits.validation, feature_extractor),
    )
    if splits.problem_type != REGRESSION:
        for split, _ in splits.items():
            _check_labels(split, splits)
    train = splits.train
    all_windows = feature_extractor.long_records == "all"
    if args.random_windows or (args.random_windows is None and all_windows):
        train = WindowRows(train, feature_extractor, random=True)
    elif all_windows:
        train = WindowRows(train, feature_extractor, random=False)
    label2id = model.config.label2id if splits.problem_type == MULTI_LABEL else None
    task = HeadTask(splits.truth_of("train"), splits.label_names, splits.problem_type)
    loss, callbacks = None, [RunRecord(splits.train, None if data is None else data.name)]
    if splits.problem_type == REGRESSION:
        if args.class_weights != "none":
            raise ValueError("A regression has no classes to weight: leave class_weights out.")
        loss = ScaledTargets(task)
        callbacks.append(loss)
        args.metric_for_best_model, args.greater_is_better = "macro_zmae", False
    elif args.class_weights == "balanced":
        loss = WeightedLoss(class_weights(splits.train, splits.label_names, splits.problem_type), splits.problem_type)
    optimizer_class, optimizer_options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    groups = layer_decay_groups(model, args.learning_rate, args.weight_decay, args.layer_decay)
    if args.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
    trainer_class = Trainer
    if args.push_to_hub:
        trainer_class = partial(FineTuningTrainer, data=data or declared_source(splits.train))
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=WindowRows(splits.validation, feature_extractor, random=False),
        data_collator=EcgDataCollator(feature_extractor, label2id=label2id, return_sample_id=True),
        processing_class=feature_extractor,
        compute_metrics=ValidationMetrics(task, loss if splits.problem_type == REGRESSION else None),
        compute_loss_func=loss,
        optimizers=(optimizer_class(groups, **optimizer_options), None),
        callbacks=callbacks,
    )
    if args.push_to_hub:
        trainer.complete_push = complete_push
    return trainer


def load_classifier(
    checkpoint: str, label_names: Sequence[str], problem_type: str, settings: Mapping
) -> PreTrainedModel:
    """The encoder of a checkpoint with a head of these classes: a new one, unless the checkpoint has it already."""
    stored = AutoConfig.from_pretrained(checkpoint)
    id2label = dict(enumerate(label_names))
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        num_labels=len(label_names),
        id2label=id2label,
        label2id={name: number for number, name in id2label.items()},
        problem_type=problem_type,
        ignore_mismatched_sizes=True,  # the head of another task
        **dict(settings) | {"calibration": None},  # that was of other weights; `finish` stores that of the new ones
    )
    if problem_type == REGRESSION and model.classifier.bias is None:
        raise ValueError("A regression needs a bias, which holds the mean of the targets: set classifier_bias=True.")
    is_classifier = any(map(names_classifier, stored.architectures or ()))
    # That of a regression speaks in the unit of its target; training wants deviations from the mean.
    if is_classifier and (stored.id2label != id2label or problem_type == REGRESSION):
        logger.info("The head of %s begins anew.", checkpoint)
        nn.init.normal_(model.classifier.weight, std=model.config.initializer_range)
        if model.classifier.bias is not None:
            nn.init.zeros_(model.classifier.bias)
    return model


def _check_labels(split: str, splits: LabelledSplits):
    """Says which classes a split cannot evaluate (or teach), before hours of training, and stops if it is all of
    them."""
    names = splits.label_names
    excluded = excluded_labels(splits.truth_of(split), names)
    if len(excluded) == len(names):
        raise ValueError(f"No class can be evaluated on {split!r}: {excluded}. Give it records with and without them.")
    for name, reason in excluded.items():
        logger.warning("%s: class %s has %s", split, name, reason)


def as_taught(splits: LabelledSplits, trainer: Trainer) -> LabelledSplits:
    """The splits with those training records that a Trainer of [`build_finetuning`] learns from: the readable ones."""
    train = trainer.train_dataset
    return dataclasses.replace(splits, train=train.rows if isinstance(train, WindowRows) else train)


def check_lead_subsets(trainer: Trainer, splits: LabelledSplits, subsets: Mapping[str, Sequence[str]]) -> None:
    """Raises `ValueError` for a subset that the recordings lack or the model cannot take, before it is trained."""
    if subsets and splits.problem_type == REGRESSION:
        raise ValueError(
            "Lead subsets are calibrated, and a regression has no probabilities: leave --lead_subsets out."
        )
    if subsets:
        row = readable_dataset(splits.validation.select([0]), trainer.processing_class)
        for leads in subsets.values():
            _predict(trainer, row, splits.label_names, leads)


def _predict(
    trainer: Trainer,
    rows: Dataset,
    names: Sequence[str],
    leads: Sequence[str] | None = None,
    left_out: dict[str, str] | None = None,
) -> Predictions:
    """Predictions for records, or for these leads of them alone, with the other leads masked."""
    extractor = trainer.processing_class
    if leads is not None:
        rows, extractor = (keep_leads(row, leads) for row in decoded(rows)), extractor.changed(missing_leads="mask")
    return predict(trainer.model, extractor, rows, names, trainer.args.eval_batch_size, left_out)


def finish(trainer: Trainer, splits: LabelledSplits, lead_subsets: Mapping[str, Sequence[str]] | None = None) -> dict:
    """Scores of the selected weights on validation and, for the first time, test; writes `predictions.parquet`.

    Args:
        trainer ([`~transformers.Trainer`]): Trainer of [`build_finetuning`], after `train()`.
        splits ([`LabelledSplits`]): The task.
        lead_subsets (`Mapping`, *optional*):
            Leads by the name of a subset, on which the classifier is evaluated and calibrated too, with the other
            leads masked.
    """
    return finish_with_predictions(trainer, splits, lead_subsets)[0]


def finish_with_predictions(
    trainer: Trainer, splits: LabelledSplits, lead_subsets: Mapping[str, Sequence[str]] | None = None
) -> tuple[dict, ProtocolResult]:
    """Scores as [`finish`] returns them, and the predictions that they were evaluated from."""
    splits = as_taught(splits, trainer)
    names, args, state = splits.label_names, trainer.args, trainer.state
    found, left_out = predict_splits(trainer, splits)
    about = (names, splits.problem_type, splits.truth_of("train"))
    facts = {
        "validation": evaluate_predictions(found["validation"], *about, seed=args.seed),
        "test": evaluate_predictions(found["test"], *about, validation=found["validation"], seed=args.seed),
    }
    of_subsets = {}
    for name, leads in (lead_subsets or {}).items():
        said = {split: _predict(trainer, vars(splits)[split], names, leads, {}) for split in ("validation", "test")}
        evaluated = evaluate_predictions(said["test"], *about, validation=said["validation"], seed=args.seed)
        of_subsets[name] = {"leads": given_leads(trainer.processing_class, leads)} | evaluated
    measured_on = usual_input(splits.validation, trainer.processing_class)
    trainer.model.config.calibration = stored_calibration(facts["test"], names, measured_on, of_subsets)
    trainer.model.config.save_pretrained(args.output_dir)
    write_predictions(found, names, Path(args.output_dir) / "predictions.parquet")
    groups = groups_of_people(found["test"].record_ids, splits.test)
    truth = splits.truth_of("train")
    metrics = {
        "label_names": list(names),
        **facts,
        **({"lead_subsets": of_subsets} if of_subsets else {}),
        "subgroups": evaluate_groups(found["test"], groups, *about, seed=args.seed),
        "training": {
            "num_train_records": len(splits.train),
            "unlabelled_records": dict(splits.unlabelled),
            "unlabelled_left_out": splits.left_out,
            "not_judged_records": left_out,
            "copies_left_out": {split: dict(copies) for split, copies in splits.copies.items()},
            "steps": state.global_step,
            "epochs": state.epoch,
            "best_step": state.best_global_step,
            "batch": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "learning_rate": args.learning_rate,
            "weight_decay": args.weight_decay,
            "layer_decay": args.layer_decay,
            "class_weights": args.class_weights,
            "frozen_encoder": args.freeze_encoder,
            "seed": args.seed,
        },
    }
    return metrics, ProtocolResult("finetuned", names, splits.problem_type, truth, found["validation"], found["test"])


def predict_splits(
    trainer: Trainer, splits: LabelledSplits
) -> tuple[dict[str, Predictions], dict[str, dict[str, str]]]:
    """Predictions for validation and test, and the reasons why records are left out of them, which the log names."""
    left_out: dict[str, dict[str, str]] = {"validation": {}, "test": {}}
    found = {
        split: _predict(trainer, vars(splits)[split], splits.label_names, left_out=reasons)
        for split, reasons in left_out.items()
    }
    return found, left_out


class FineTuningTrainer(PushingTrainer):
    """[`~transformers.Trainer`] for `finetune` with `push_to_hub=True`: nothing but the pushes differs."""

    def draft_facts(self) -> CardFacts:
        return card_facts(self, Path(self.model.name_or_path).name, self.recordings())
