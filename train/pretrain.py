"""`ecg-transformers pretrain`: a preset or YAML file and flags become a model, a feature extractor and a run."""

import argparse
import dataclasses
import difflib
import inspect
import json
import shlex
import sys
import time
from importlib import resources
from pathlib import Path

import torch
import yaml
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_PRETRAINING_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForPreTraining,
    HfArgumentParser,
    PreTrainedConfig,
    Trainer,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging

from ecg_transformers.data import EcgPretrainingCollator, load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig

from .arguments import SslTrainingArguments
from .corpus_options import parse_options
from .data_source import data_source
from .online_probe import follow_with_probe
from .pretraining_page import method_figures, write_card_and_page
from .report import DataSource
from .shared_folder import ARGUMENTS_NAME, shared_arguments
from .trainer import EcgSslTrainer

logger = logging.get_logger(__name__)

PRESETS = "ecg_transformers.train.configs"
MODEL_TYPES = ("ecg_jepa", "lejepa", "mlae", "mtae", "sigreg_jepa", "st_mem", "vqvae")
SHUFFLE_BUFFER_RECORDS = 1024


def run(args: argparse.Namespace):
    """The command."""
    settings = read_config(args.config)
    if args.help_all:
        sys.stdout.write(list_flags(settings))
        return
    settings |= parse_flags(args.rest)
    settings["output_dir"] = args.output_dir
    options = parse_options(args.options)
    dataset = load_ecg(
        args.dataset, data_dir=args.data_dir, split=args.split, streaming=args.streaming, decode=False, **options
    )
    if args.streaming:  # a folder comes sorted by path; the stock Trainer shuffles no stream
        dataset = dataset.shuffle(seed=int(settings.get("seed", 42)), buffer_size=SHUFFLE_BUFFER_RECORDS)
    trainer = build_trainer(settings, dataset, checkpoint=args.model, data=data_source(dataset, args.dataset))
    if args.online_probe_steps is not None:
        labelled = {
            split: load_ecg(args.dataset, data_dir=args.data_dir, split=split, **options)
            for split in ("train", "validation")
        }
        judged = {"validation": labelled["validation"]}
        names = sorted({label for labels in labelled["train"]["labels"] for label in labels})
        follow_with_probe(trainer, labelled["train"], judged, names, args.online_probe_steps)
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


def read_config(name: str, package: str = PRESETS) -> dict:
    """Flat keys and values of a preset (a YAML file in `package`) or of a YAML file."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        presets = {file.name.removesuffix(".yaml"): file for file in resources.files(package).iterdir()}
        presets = {preset: file for preset, file in presets.items() if file.name.endswith(".yaml")}
        if name not in presets:
            raise ValueError(f"Unknown preset {name!r}. Expected one of {sorted(presets)} or a .yaml file.")
        path = presets[name]
    elif not path.is_file():
        raise ValueError(f"There is no file {name!r}.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict) or not settings or not all(isinstance(key, str) for key in settings):
        raise ValueError(f"Expected {name} to hold lines of `key: value`, as the presets do.")
    nested = sorted(key for key, value in settings.items() if isinstance(value, dict))
    if nested:
        raise ValueError(f"{name} nests {nested}; write flat keys, grouped by comments.")
    return settings


def parse_flags(tokens: list[str]) -> dict:
    """`["--learning_rate", "1e-3", "--leads", "I", "II"]` as a dictionary of values; a bare flag is `True`."""
    flags, key = {}, None
    for token in tokens:
        if token.startswith("--"):
            key, equals, value = token[2:].partition("=")
            key = key.replace("-", "_")
            flags[key] = [value] if equals else []
        elif key is None:
            raise ValueError(f"Expected a flag such as --learning_rate, got {token!r}.")
        else:
            flags[key].append(token)
    parsed = {key: [_parse_value(value) for value in values] for key, values in flags.items()}
    return {key: values if len(values) > 1 else values[0] if values else True for key, values in parsed.items()}


def _parse_value(text):
    """YAML 1.1 reads `1e-3` as a string, where a learning rate is meant, and `no` as false, where a strategy is."""
    if not isinstance(text, str) or text in ("no", "yes", "on", "off"):
        return text
    try:
        return float(text) if any(mark in text for mark in ".eE") else yaml.safe_load(text)
    except ValueError:
        return yaml.safe_load(text)


def split_settings(settings: dict) -> tuple[str, dict, dict, dict]:
    """Settings by whom they are for: model type, model configuration, feature extractor, training arguments."""
    settings = dict(settings)
    model_type = settings.pop("model_type", None)
    if model_type not in MODEL_TYPES and not _is_registered(model_type):
        raise ValueError(
            f"Expected the configuration to name a model_type of {list(MODEL_TYPES)}, or one that was registered with "
            f"AutoConfig and AutoModelForPreTraining, got {model_type!r}."
        )
    return model_type, *sort_settings(settings, model_type, SslTrainingArguments)


def _is_registered(model_type: str | None) -> bool:
    """Whether it is a method of the user: an encoder of ours by its configuration, with a class for pretraining."""
    config_class = CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else None
    return config_class in MODEL_FOR_PRETRAINING_MAPPING and issubclass(config_class, EcgViTConfig)


def sort_settings(settings: dict, model_type: str, arguments_class: type) -> tuple[dict, dict, dict]:
    """Settings for the model, for the feature extractor (some for both) and for the training.

    Raises:
        ValueError: for a setting that none of them has; names those that are spelt alike.
    """
    model_fields, extractor_fields = model_field_names(model_type), extractor_field_names()
    training_fields = {field.name for field in dataclasses.fields(arguments_class)}
    known = model_fields | extractor_fields | training_fields
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=3)
            raise ValueError(f"Unknown setting {key!r}." + (f" Did you mean {', '.join(close)}?" if close else ""))
    model = {key: _parse_value(value) for key, value in settings.items() if key in model_fields}
    extractor = {key: _parse_value(value) for key, value in settings.items() if key in extractor_fields}
    for group in (model, extractor):
        if isinstance(group.get("leads"), str):
            group["leads"] = [group["leads"]]
    training = {key: value for key, value in settings.items() if key in training_fields}
    return model, extractor, training


def model_field_names(model_type: str) -> set[str]:
    """Fields that a method's configuration adds to `PreTrainedConfig`."""
    config_class = type(AutoConfig.for_model(model_type))
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    return {field.name for field in dataclasses.fields(config_class)} - inherited


def extractor_field_names() -> set[str]:
    parameters = inspect.signature(EcgFeatureExtractor.__init__).parameters.values()
    return {p.name for p in parameters if p.name != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD}


def training_arguments(settings: dict, arguments_class: type = SslTrainingArguments) -> SslTrainingArguments:
    """The training arguments of flat settings, converted by the types of their fields."""
    tokens = []
    for key, value in settings.items():
        if value is None:
            continue
        if key.endswith("_strategy") and value is False:  # an unquoted `no` in a YAML file
            value = "no"
        values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        tokens += [f"--{key}", *(str(item) for item in values)]
    parser = HfArgumentParser(arguments_class, exit_on_error=False)
    try:
        return parser.parse_args_into_dataclasses(args=tokens)[0]
    except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
        raise ValueError(str(error)) from error


def build_trainer(
    settings: dict, dataset, eval_dataset=None, checkpoint: str | None = None, data: DataSource | None = None
) -> EcgSslTrainer:
    """Model, feature extractor and Trainer of a run.

    Args:
        settings (`dict`): Flat keys of the model, the feature extractor and [`SslTrainingArguments`].
        dataset, eval_dataset: Rows of [`load_ecg`], best with `decode=False`.
        checkpoint (`str`, *optional*): A model to go on from; its own configuration and feature extractor count.
        data (`DataSource`, *optional*): Where the recordings come from; by default what `dataset` declares.
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
    return EcgSslTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        data_collator=EcgPretrainingCollator(feature_extractor),
        processing_class=feature_extractor,
        data=data,
    )


def train_and_save(trainer: Trainer):
    """Trains, goes on from `resume_from_checkpoint` if asked (a folder, or `True` for the last one), and saves."""
    resume = trainer.args.resume_from_checkpoint
    if resume is not None and str(resume).lower() in ("true", "last"):
        resume = last_complete_checkpoint(trainer.args.output_dir)
    first_step = int(Path(str(resume)).name.rpartition("-")[2]) if resume is not None else 0
    trainer.train(resume_from_checkpoint=resume)
    if trainer.state.global_step <= first_step:
        raise ValueError(
            f"Nothing was learnt: the run ended at step {trainer.state.global_step} without taking one. Either no "
            "record of the dataset can be read, or max_steps or num_train_epochs ask for no step beyond this one."
        )
    trainer.save_model(_internal_call=True)  # a push of the whole comes when card and scores are there
    trainer.save_state()
    if trainer.is_world_process_zero():
        (Path(trainer.args.output_dir) / ARGUMENTS_NAME).write_bytes(shared_arguments(trainer.args))


def last_complete_checkpoint(output_dir: str) -> str:
    """The newest checkpoint that was written to its end: the state of the Trainer comes last.

    A run that is killed while it saves leaves a folder that would not load; it is named and passed over.
    """
    checkpoints = sorted(Path(output_dir).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in reversed(checkpoints):
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning(f"{checkpoint} was not written to its end; going on from the one before.")
        else:
            return str(checkpoint)
    raise ValueError(f"There is no complete checkpoint to resume from in {output_dir}.")


def list_flags(settings: dict) -> str:
    """Every flag of `pretrain`, with the help of `transformers`."""
    return describe_flags(settings["model_type"], SslTrainingArguments, "pretrain")


def describe_flags(model_type: str, arguments_class: type, command: str) -> str:
    training_help = HfArgumentParser(arguments_class, prog=f"ecg-transformers {command}").format_help()
    model_flags = "\n".join(f"  --{name}" for name in sorted(model_field_names(model_type)))
    extractor_flags = "\n".join(f"  --{name}" for name in sorted(extractor_field_names()))
    return (
        f"{training_help}\nmodel configuration ({model_type}):\n{model_flags}\n\n"
        f"feature extractor:\n{extractor_flags}\n"
    )
