"""Settings of a run: presets, YAML files and flags, sorted by what they are for."""

import argparse
import dataclasses
import difflib
import inspect
import json
from importlib import resources
from pathlib import Path

import yaml
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_PRETRAINING_MAPPING,
    AutoConfig,
    HfArgumentParser,
    PreTrainedConfig,
)

from ecg_transformers import modeling
from ecg_transformers.data.corpora.declarations import parse_options
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig
from ecg_transformers.modeling.feature_extraction_ecg import CALL_SETTINGS

from .arguments import SslTrainingArguments

PRESETS = "ecg_transformers.train.configs"
MODEL_TYPES = tuple(sorted(getattr(modeling, f"{method}Config").model_type for method in modeling.METHODS))


def extractor_changes(args: argparse.Namespace) -> dict:
    """Settings of the feature extractor that `--feature_extractor` and flags of `CALL_SETTINGS` change."""
    changes = parse_options(args.feature_extractor)
    return changes | {name: value for name, value in vars(args).items() if name in CALL_SETTINGS and value is not None}


def pooled_changes(args: argparse.Namespace) -> dict[str, int | str]:
    """Fields of a configuration that `--layer` and `--pooling` change; `best` is chosen later."""
    changes = {"pooled_layer": None if args.layer == "best" else args.layer, "pooling": args.pooling}
    if args.layer is not None and args.layer.lstrip("-").isdigit():
        changes["pooled_layer"] = int(args.layer)
    return {name: value for name, value in changes.items() if value is not None}


def read_config(name: str, package: str = PRESETS) -> dict:
    """Flat keys and values of a preset (a YAML file in `package`) or of a YAML file.

    A file with `base: PRESET` has the settings of that preset too, but for those that it gives itself; `null` leaves
    one out. Presets whose names begin with `_` are such bases alone.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        presets = [file.name for file in resources.files(package).iterdir() if file.name.endswith(".yaml")]
        if f"{name}.yaml" not in presets:
            known = sorted(preset.removesuffix(".yaml") for preset in presets if not preset.startswith("_"))
            raise ValueError(f"Unknown preset {name!r}. Expected one of {known} or a .yaml file.")
        path = resources.files(package) / f"{name}.yaml"
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
    if "base" not in settings:
        return settings
    settings = read_config(settings.pop("base"), package) | settings
    return {key: value for key, value in settings.items() if value is not None}


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
    if not _is_registered(model_type):
        raise ValueError(
            f"Expected the configuration to name a model_type of {list(MODEL_TYPES)}, or one that was registered with "
            f"AutoConfig and AutoModelForPreTraining, got {model_type!r}."
        )
    return model_type, *sort_settings(settings, model_type, SslTrainingArguments)


def _is_registered(model_type: str | None) -> bool:
    """Returns `True` for a user's method: an encoder of ours by its configuration, with a class for pretraining."""
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


def training_field_names(*kinds: type) -> set[str]:
    """Names of all that a training takes: fields of every configuration, of our arguments and of these classes."""
    fields = [field for kind in (SslTrainingArguments, *kinds) for field in dataclasses.fields(kind)]
    return {field.name for field in fields}.union(*map(model_field_names, MODEL_TYPES))


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
        if key == "fsdp" and isinstance(value, bool):  # which transformers takes bare, or as the name of an option
            tokens += ["--fsdp"] * value
            continue
        values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        tokens += [f"--{key}", *(str(item) for item in values)]
    parser = HfArgumentParser(arguments_class, exit_on_error=False)
    try:
        return parser.parse_args_into_dataclasses(args=tokens)[0]
    except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
        raise ValueError(str(error)) from error


def describe_flags(model_type: str, arguments_class: type, command: str) -> str:
    """Every flag of a command, with the help of `transformers`."""
    training_help = HfArgumentParser(arguments_class, prog=f"ecg-transformers {command}").format_help()
    model_flags = "\n".join(f"  --{name}" for name in sorted(model_field_names(model_type)))
    extractor_flags = "\n".join(f"  --{name}" for name in sorted(extractor_field_names()))
    return (
        f"{training_help}\nmodel configuration ({model_type}):\n{model_flags}\n\n"
        f"feature extractor:\n{extractor_flags}\n"
    )
