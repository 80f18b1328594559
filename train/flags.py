"""Sentences of the library in the words of a command: `missing_leads='mask'` becomes `--missing_leads mask`.

The library speaks to a caller in Python, and its cures are arguments. Whoever reads them on a command line has flags,
options of a corpus (`--options`) and settings of the feature extractor (`--feature_extractor`).
"""

import argparse
import ast
import logging
import re
import shlex

from ecg_transformers.data.corpora import CORPORA

OF_FILES = ("leads", "sampling_rate", "unit", "axes", "step", "rename_leads", "skip_lines", "dataset")
"""What a file does not say; some of these are settings of the feature extractor too, for another purpose."""
_CURE = re.compile(
    r"(?P<names>(?<=: pass )\['[a-z_]+'(?:, '[a-z_]+')*\])"
    r"|(?<![\w./=-])`?(?P<name>[a-z][a-z_]+)="
    r"(?P<value>'[^']*'|\"[^\"]*\"|\[[^]]*\]|True|False|-?\d+(?:\.\d+)?|\.\.\.)?`?"
    r"(?P<where> in the feature extractor)?"
)


def in_flags(sentence: str, args: argparse.Namespace) -> str:
    """A sentence of the library for a command line.

    Args:
        sentence (`str`): With cures as arguments, `name=value` or `name=`, or as a list of names to pass.
        args (`argparse.Namespace`):
            Arguments of the command, with `flags`, all that it has, and `takes_settings`, whether it takes every
            setting as one; what it has no flag for stays as it is.
    """

    def cure(match: re.Match) -> str:
        if match["names"] is None:
            of_extractor = match["where"] is not None
            return _flag(match["name"], _for_a_shell(match["value"]), of_extractor, args) or match[0]
        names = ast.literal_eval(match["names"])
        spoken = [_flag(name, None, False, args) for name in names]
        if None in spoken:
            return match[0]
        options = [text.removeprefix("--options ") for text in spoken if text.startswith("--options ")]
        return " ".join(["--options", *options] if options else spoken)  # of files there is but one kind

    # A second --options would take the place of the first.
    return re.sub(r"(?<==\.\.\.), --options (?=\w+=)", " ", _CURE.sub(cure, sentence))


def _flag(name: str, value: str | None, of_extractor: bool, args: argparse.Namespace) -> str | None:
    """The flag with its value, or `None` where the command has none for the argument."""
    flags = args.flags
    if name == "dataset" and "--array" in flags:
        return f"--array {value or 'NAME'}"
    if name == "pooled_layer" and "--layer" in flags:
        return f"--layer {value or '...'}"
    of_corpus = "--options" in flags and args.dataset in CORPORA and name in CORPORA[args.dataset].options
    if of_corpus and not of_extractor:
        return f"--options {name}={'...' if value is None else value}"
    if f"--{name}" in flags and name != "dataset":
        return f"--{name} {value or '...'}"
    if "--feature_extractor" not in flags and not args.takes_settings:
        return None
    from .finetune import FineTuningArguments
    from .settings import extractor_field_names, training_field_names

    is_setting = name in extractor_field_names() and (of_extractor or name not in OF_FILES)
    if "--feature_extractor" in flags and is_setting:
        return f"--feature_extractor {name}={value or '...'}"
    if args.takes_settings and (is_setting or name in training_field_names(FineTuningArguments) - set(OF_FILES)):
        return f"--{name} {value or '...'}"
    return None


def _for_a_shell(value: str | None) -> str | None:
    """A value in Python's words (`'mask'`, `True`, `['I', 'II']`) as one writes it on a command line."""
    if value is None or value == "...":
        return None
    parsed = ast.literal_eval(value)
    if isinstance(parsed, list):
        return " ".join(shlex.quote(str(item)) for item in parsed)
    return str(parsed).lower() if isinstance(parsed, bool) else shlex.quote(str(parsed)) if str(parsed) else ""


class FlagFormatter(logging.Formatter):
    """Warnings of the library in the words of a command, other lines as they are."""

    def __init__(self, args: argparse.Namespace):
        super().__init__("%(message)s")
        self.args = args

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return in_flags(line, self.args) if record.levelno >= logging.WARNING else line
