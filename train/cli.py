"""The command line.

Only the standard library is imported here, so that help answers at once; each command lives in the module that
`COMMANDS` names and is imported when it runs.
"""

import argparse
import difflib
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ecg_transformers import __version__

from .checkpoints import check_checkpoint, check_there, find_checkpoint
from .run_folder import Preempted

logger = logging.getLogger("ecg_transformers")

DATASETS = ("brugada-huca", "chapman-shaoxing", "cinc2017", "cinc2021", "code-15", "cpsc2018", "cpsc-extra")
DATASETS += ("ecgfolder", "georgia", "incart", "ludb", "mimic-iv-ecg", "mit-bih", "ningbo", "npy", "nstdb")
DATASETS += ("prepared", "ptb", "ptb-xl", "ptb-xl-sample", "sami-trop", "sph", "wfdb")
CARRIED_DATASET, OWN_DATASETS = "ptb-xl-sample", ("wfdb", "npy", "ecgfolder", "prepared")
# As in train/evaluation, which would import torch.
PROTOCOLS = ("linear", "linear-kim", "linear-weimann", "linear-st-mem", "knn", "attentive", "finetuned")
PROTOCOLS += ("zero-shot-cluster",)
SETTINGS = ("low_shot", "leads", "noise", "sampling_rate", "unit", "length")
COMPARED_DATASETS = ("ptb-xl", "ptb-xl-sample", "npy")
CONVERTED_SOURCES = ("kim", "weimann", "lejepa-ecg", "st-mem", "ecg-cpc", "hubert-ecg", "ecg-fm", "ecg-founder")
EXPORT_FORMATS = ("onnx", "int8", "torch-export", "executorch")
FREE_FLAGS = ("pretrain", "finetune", "compare")

RECORDING_FLAGS = {
    "missing_leads": ("raise", "mask"),
    "nan_policy": ("raise", "interpolate"),
    "short_records": ("raise", "zero_pad"),
    "long_records": ("first", "center", "all"),
}
"""Which recordings are taken, and which part, where the checkpoint's feature extractor is not to decide."""
RECORDINGS_TAKEN = (
    "Which recordings are taken: --missing_leads mask, --nan_policy interpolate, --short_records zero_pad; and which "
    "part of long ones: --long_records center."
)

TRAINING_FLAGS = (
    "Every flag of transformers.TrainingArguments (--learning_rate, --max_steps, --bf16, ...), every field of the "
    "model's configuration (--hidden_size, --patch_size, ...) and every setting of the feature extractor "
    "(--normalization, --highpass_hz, ...) is accepted too; --help_all lists them."
)


COMPARISON_FLAGS = (
    "Every flag of `pretrain` is accepted too and counts for all methods; those of the feature extractor (--unit, "
    "--clip, --normalization, ...) then are the whole treatment of the input. Runs that are done are not done again; "
    "the same command in several processes shares the work."
)

PRETRAINING_FLAGS = (
    "On a laptop begin with --config kernel_response_cpu or ecg_jepa_cpu; kim_cpu and weimann_cpu are studies of "
    "published recipes, near chance at that size. " + TRAINING_FLAGS
)

Add = Callable[..., Any]  # `add_argument` of the parser of a command


def _output_arguments(add: Add, default: str | None = None, required: bool = True, overwrites: bool = True):
    add("--output_dir", required=required and not default, default=default, metavar="DIR", help="folder to write to")
    if overwrites:
        add("--overwrite_output_dir", action="store_true", help="first remove an earlier run from there")


def _output_or_help_arguments(add: Add):
    _output_arguments(add, required=False)
    add("--help_all", action="store_true", help="list every flag")


def _corpus_arguments(add: Add, default: str | None = None):
    add(
        "--dataset",
        metavar="NAME",
        default=default,
        required=default is None,
        help="corpus, as in load_ecg: ptb-xl, wfdb, prepared, ...",
    )
    add("--data_dir", metavar="DIR", help="folder of the corpus (prepared: or its URL)")
    add("--options", nargs="+", default=[], metavar="KEY=VALUE", help="those of the corpus: sampling_rate=500")


def _quickstart(add: Add):
    _output_arguments(add, "ecg-transformers-quickstart")
    add("--max_steps", type=_positive, metavar="N", help="fewer steps, to try the machinery")
    add("--seed", type=int, default=0, help="seed of weights, masks and order (default 0)")


def _pretrain(add: Add):
    add("--config", required=True, metavar="NAME|FILE", help="preset or YAML file of flat keys")
    add("--presets", action=_ListPresets, nargs=0, help="list presets, each with its data and budget")
    _corpus_arguments(add, "ptb-xl-sample")
    add(
        "--mix",
        nargs="+",
        type=_part_of_mixture,
        metavar="NAME:DIR:WEIGHT",
        help="several corpora, each drawn by its weight, for --dataset",
    )
    add("--split", default="train", help="split to learn from (default: train, folds 1-8)")
    add("--streaming", action="store_true", help="read records as they come, without a cache")
    add("--model", metavar="DIR|ID", help="checkpoint to go on from instead of fresh weights")
    add("--online_probe_steps", type=_positive, metavar="N", help="log a linear probe of the features every N steps")
    _output_or_help_arguments(add)


def _declared(args: argparse.Namespace) -> dict:
    """Declarations that files lack, as `read_recording` takes them; empty for a command that reads no files."""
    if "array" not in args:
        return {}
    names = ("leads", "sampling_rate", "unit", "axes", "step", "skip_lines")
    declared = {name: vars(args)[name] for name in names if vars(args)[name] is not None}
    if args.array is not None:
        declared["dataset"] = args.array
    if args.rename_leads is not None:
        declared["rename_leads"] = ",".join(args.rename_leads)
    return declared


class _ListPresets(argparse.Action):
    """Prints the presets with the first lines of their files, and ends."""

    def __call__(self, parser, namespace, values, option_string=None):
        purposes = preset_purposes()
        width = max(map(len, purposes))
        for name, purpose in sorted(purposes.items(), key=lambda item: ("laptop" not in item[1], item[0])):
            sys.stdout.write(f"{name:<{width}}  {purpose}\n")
        parser.exit()


def preset_purposes() -> dict[str, str]:
    """Name of each preset for pretraining → the data and the budget that it is made for, by the head of its file."""
    files = sorted(Path(__file__).with_name("configs").glob("[!_]*.yaml"))
    heads = {file.stem: file.read_text("utf-8").splitlines()[0] for file in files}
    return {name: head.removeprefix("# For: ").rstrip(".") for name, head in heads.items()}


def _finetune(add: Add):
    _model_argument(add, "ecg-small")
    add("--config", default="finetune", metavar="NAME|FILE", help="preset or YAML file (finetune)")
    _corpus_arguments(add, "ptb-xl-sample")
    _task_arguments(add, ("labels", "sex", "age", "intervals"))
    add("--lead_subsets", nargs="+", metavar="NAME", help="also evaluate and calibrate on 8, 6, 2, II, ... or I,V2")
    _output_or_help_arguments(add)


def _task_arguments(add: Add, targets: tuple[str, ...]):
    add("--target", metavar="NAME", choices=targets, default="labels", help=", ".join(targets))
    add("--delineator", metavar="DIR", help="of intervals, where no waves are marked")
    add(
        "--problem_type",
        choices=("multi_label_classification", "single_label_classification"),
        help="any number of labels a record, or exactly one",
    )
    add(
        "--unlabelled", choices=("drop", "keep"), default="drop", help="records without labels: left out, or negatives"
    )


def _evaluate(add: Add):
    _model_argument(add, "ecg-small")
    _corpus_arguments(add, "ptb-xl-sample")
    _task_arguments(add, ("labels", "sex", "age", "intervals", "delineation", "identity"))
    add("--protocol", nargs="+", default=["linear"], metavar="NAME", help=f"how to evaluate: {', '.join(PROTOCOLS)}")
    add("--setting", nargs="+", default=[], metavar="NAME", help=f"on harder terms: {', '.join(SETTINGS)}")
    _recording_arguments(add)
    _pooling_arguments(add, ", best")
    add("--split", choices=("test", "all"), default="test", help="where identity searches (test)")
    add("--nstdb", metavar="DIR", help="folder of the noise database, for --setting noise")
    add("--finetune_config", default="finetune", metavar="NAME|FILE", help="preset of finetuned")
    add("--batch_size", type=_positive, default=64)
    add("--seed", type=int, default=0, help="of the random encoder, heads, draws and bootstrap")
    _output_arguments(add)


def _taken_arguments(add: Add):
    for name, choices in RECORDING_FLAGS.items():
        add(f"--{name}", choices=choices, help=argparse.SUPPRESS)  # named in other lines of the help


def _recording_arguments(add: Add):
    _taken_arguments(add)
    add(
        "--feature_extractor",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="what differs from the checkpoint's: unit=mV clip=5; also --missing_leads mask, --nan_policy "
        "interpolate, --short_records zero_pad, --long_records all",
    )


def _pooling_arguments(add: Add, best: str = ""):
    add("--layer", metavar="N", help=f"layer to pool: 0 the stem, last, mean_last_half{best}")
    add("--pooling", metavar="NAME", choices=("mean", "statistics"), help="mean or statistics")


def _compare(add: Add):
    add("--methods", metavar="M,...", help="presets or YAML files, changed by M:SETTING=VALUE")
    add("--seeds", default="0", metavar="N,...", help="of weights, order, masks (0)")
    add("--records_seen", type=_positive, metavar="N", help="budget: steps x batch")
    add("--dataset", choices=COMPARED_DATASETS, default="ptb-xl-sample", help="ptb-xl-sample is carried along")
    add("--data_dir", metavar="DIR", help="folder of the corpus (npy: or its declaration)")
    add("--record_sampling_rate", type=int, metavar="HZ", help="which files of a corpus that has several")
    add("--scoreboard", nargs="*", metavar="NAME=DIR,...", help="evaluate these encoders instead, train nothing")
    add("--people", metavar="NAME:DIR", help="scoreboard: corpus with folds, age and sex")
    add("--ludb", metavar="DIR", help="scoreboard: LUDB, with marked waves")
    add("--hospital", metavar="NAME:DIR", help="scoreboard: recordings with SNOMED CT codes")
    add("--task", help="label set of PTB-XL (default: superdiagnostic)")
    add("--extra", action="append", metavar="NAME:DIR[:HZ]", help="corpus that adds to pretraining")
    add("--splits", metavar="CSV", help="table of ecg_id, patient_id, strat_fold")
    add("--finetune", action="store_true", help="also fine-tune every pretrained encoder")
    add("--low_shot", type=_fraction, metavar="F", help="also with this fraction of the labels (0.1)")
    add("--labels_for", metavar="M,...", help="methods also trained on labels (all), or none")
    add("--supervised_records_seen", type=_positive, metavar="N", help="the same on labels")
    add("--finetune_learning_rate", type=float, metavar="X", help="if not that from scratch, 1e-3")
    add("--num_threads", type=_positive, default=1, metavar="N", help="of one process (1)")
    add("--report_only", action="store_true", help="write the table of what is done; run nothing")
    _output_arguments(add, overwrites=False)


def _embed(add: Add):
    _model_argument(add, "ecg-small")
    _recordings_arguments(add)
    _recording_arguments(add)
    _pooling_arguments(add)
    add("--windows", action="store_true", help="a row for each window of a record, with its start in s")
    add("--format", choices=("parquet", "npz"), default="parquet")
    add("--batch_size", type=_positive, default=64)
    _output_arguments(add)


def _classify(add: Add):
    _model_argument(add, "ecg-small-superdiagnostic")
    _recordings_arguments(add)
    _taken_arguments(add)
    add("--batch_size", type=_positive, default=64)
    add("--output", metavar="FILE", help="new .csv or .parquet (default: print the table)")


def _model_argument(add: Add, default: str):
    add("--model", default=default, metavar="DIR|ID", help=f"checkpoint (default {default})")


def _recordings_arguments(add: Add):
    """Files or a corpus."""
    add("files", nargs="*", metavar="PATH", help="recordings, or folders of recordings; or instead")
    _corpus_arguments(add, "")
    add("--split", default="all", help="split of the corpus (default: all that there is)")
    _file_arguments(add)


def _file_arguments(add: Add):
    add("--leads", nargs="+", metavar="LEAD", help="for files that do not say it, in their order")
    add("--sampling_rate", type=float, metavar="HZ", help="the same")
    add("--unit", metavar="mV|uV|V|dimensionless", help="the same")
    add("--axes", metavar="lead,sample|sample,lead", help="the same, of arrays")
    add("--step", type=float, metavar="X", help="the same: unit per step of whole numbers")
    add("--skip_lines", type=int, metavar="N", help="the same: lines of text before a table")
    add("--rename_leads", nargs="+", metavar="STORED:LEAD", help="what channels are: MLII:II V5:V5")
    add("--array", metavar="NAME", help="which array of an HDF5, npz, MATLAB or DICOM file")


def _prepare(add: Add):
    _corpus_arguments(add)
    add("--split", default="all", help="split to convert (default: all)")
    add("--num_proc", type=_positive, default=1, metavar="N", help="processes (1)")
    add("--shard_index", type=int, metavar="I", help="this is task I, from 0, ...")
    add("--num_shards", type=_positive, metavar="N", help="... of N; then run once without both")
    add("--engine", choices=("processes", "dask"), default="processes", help="what runs the work")
    add("--scheduler", metavar="ADDRESS", help="of a running Dask cluster")
    add("--on_bad_record", choices=("report", "raise"), default="report", help="go on, or stop")
    add("--preview_pictures", action="store_true", help="draw each, for the dataset viewer of the Hub")
    _output_arguments(add, overwrites=False)


def _push(add: Add):
    add("--folder", required=True, metavar="DIR", help="a model, or what `prepare` wrote")
    add("--repo_id", required=True, metavar="OWNER/NAME", help="repository, created if new")
    add("--private", action="store_true", help="make the new repository private")
    add("--revision", metavar="BRANCH", help="branch, created if new (default: the main one)")
    add("--licence", metavar="NAME", help="of the recordings, where the card does not state it")
    add("--weights_licence", metavar="NAME", help="of the weights of a model: cc-by-4.0, ...")
    add("--results", metavar="FILE", help="metrics.json of `evaluate`, for the card of a model")
    add("--benchmark", action="store_true", help="of a corpus: let the Hub list scores on it")


def _info(add: Add):
    add("path", metavar="PATH", help="a recording, or a folder of recordings")
    _file_arguments(add)
    add("--dataset", metavar="NAME", help="look at the folder as load_ecg(NAME) does: ecgfolder, ...")
    add("--options", nargs="+", default=[], metavar="KEY=VALUE", help="those of the corpus")
    add("--table", metavar="FILE", help="of a folder: propose what its columns are, for ecgfolder")
    add("--write", action="store_true", help="with --table: write the proposal as ecgfolder.json")
    add("--max_records", type=_positive, default=200, metavar="N", help="of a folder (200)")
    add("--json", metavar="FILE", help="also write everything here")
    add("--plot", metavar="FILE", help="draw 10 s (of a folder an overview): .png, .svg or .pdf")


def _benchmark(add: Add):
    add("--json", metavar="FILE", help="also write everything here")


def _convert(add: Add):
    add("--source", choices=CONVERTED_SOURCES, required=True, help="whose file it is")
    add("--checkpoint", required=True, metavar="FILE", help="the authors' file")
    add("--leads", metavar="I,II,...", help="leads of the checkpoint, if not the published ones")
    add("--sampling_rate", type=float, metavar="HZ", help="its rate, if not the published one")
    add("--constants", metavar="CORPUS", help="whose mean and deviation of each lead the input gets")
    add("--num_attention_heads", type=_positive, metavar="N", help="its heads, of no published size")
    add("--predictor_num_attention_heads", type=_positive, metavar="N", help="those of its predictor")
    add("--decoder_num_attention_heads", type=_positive, metavar="N", help="those of its decoder")
    add("--num_hidden_layers", type=_positive, metavar="N", help="its layers, if not as published")
    add("--predictor_num_hidden_layers", type=_positive, metavar="N", help="those of its predictor")
    add("--decoder_num_hidden_layers", type=_positive, metavar="N", help="those of its decoder")
    add("--num_registers", type=int, metavar="N", help="its register tokens, if not as published")
    _output_arguments(add)


def _export(add: Add):
    add("--model", required=True, metavar="DIR|ID", help="checkpoint with its feature extractor")
    add("--format", choices=EXPORT_FORMATS, required=True, help="of the file")
    _output_arguments(add)


def _space(add: Add):
    add("--model", required=True, metavar="DIR|ID", help="checkpoint with its feature extractor")
    _output_arguments(add)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def _fraction(text: str) -> float:
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"expected more than 0 and less than 1, got {text}")
    return number


def _part_of_mixture(text: str) -> tuple[str, str | None, float]:
    found = re.fullmatch(r"([a-z0-9-]+):(.*):(\d*\.?\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected NAME:DIR:WEIGHT, such as ptb-xl:/data/ptb-xl:0.2, got {text!r}")
    return found[1], found[2] or None, float(found[3])


# name: (module with `run(args)`, function that adds its arguments, what it does)
COMMANDS = {
    "quickstart": ("train.quickstart", _quickstart, "pretrain, probe and report on carried recordings in minutes"),
    "pretrain": ("train.pretrain", _pretrain, "self-supervised pretraining on a corpus or a folder"),
    "finetune": ("train.finetune", _finetune, "train a pretrained encoder on labels and test it once"),
    "evaluate": ("train.evaluate", _evaluate, "score an encoder by the field's protocols, beside a random one"),
    "compare": ("train.compare", _compare, "pretraining methods on equal terms: one table, one picture"),
    "embed": ("train.recordings", _embed, "write the features of recordings to Parquet or npz"),
    "classify": ("train.recordings", _classify, "scores of recordings by a classifier, as a table"),
    "prepare": ("train.prepare", _prepare, "convert a corpus once to Parquet shards that stream from anywhere"),
    "push": ("hub.push", _push, "publish a model or a prepared corpus on the Hub"),
    "info": ("train.info", _info, "what a file or folder holds and what is odd about it"),
    "convert": ("hub.convert", _convert, "turn an authors' checkpoint into one that from_pretrained loads"),
    "export": ("hub.export", _export, "write a model as ONNX, int8 ONNX or a torch.export program"),
    "space": ("hub.space", _space, "write a page for a model: a Space of the Hub that runs here too"),
    "benchmark": ("train.benchmark.run", _benchmark, "measure the fast paths on this machine, a GPU's if there"),
}
# Where the list of all flags would not leave room for what they do.
USAGES = {
    "compare": "--methods M,... --records_seen N --output_dir DIR",
    "info": "PATH",
    "embed": "PATH ... | --dataset NAME --output_dir DIR",
    "classify": "PATH ... | --dataset NAME [--output scores.csv]",
    "finetune": "[--model DIR|ID] [--dataset NAME] --output_dir DIR",
    "evaluate": "[--model DIR|ID] [--dataset NAME] --output_dir DIR",
}
EPILOGS = {
    "classify": RECORDINGS_TAKEN,
    "pretrain": PRETRAINING_FLAGS,
    "finetune": TRAINING_FLAGS,
    "compare": COMPARISON_FLAGS,
}


def build_parser() -> argparse.ArgumentParser:
    """All commands and their own arguments."""
    parser = argparse.ArgumentParser(
        prog="ecg-transformers",
        description="Self-supervised learning on electrocardiograms with transformers.",
        epilog="ecg-transformers COMMAND --help explains a command.",
    )
    version = f"ecg-transformers {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    parser.set_defaults(help_all=False, model=None, dataset=None, output_dir=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, add_arguments, summary) in COMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(
            name, help=summary, description=description, epilog=EPILOGS.get(name), allow_abbrev=False
        )
        if name in USAGES:
            command.usage = f"ecg-transformers {name} {USAGES[name]} [FLAG ...]"
        add_arguments(command.add_argument)
        command.add_argument("--debug", action="store_true", help="show the trace-back of an error")
    return parser


def _make_output_folder(path: str):
    """Before the work, not after it."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise ValueError(f"Cannot write to {path!r}: {error.strerror}. Give another --output_dir.") from error


def check_call(args: argparse.Namespace):
    """Refuses names, files and folders that do not exist, before torch is imported (seconds).

    Raises:
        ValueError, OSError: says what is wrong in the words of the command line.
    """
    given = vars(args)
    if args.command in ("embed", "classify") and bool(args.files) == bool(args.dataset):
        raise ValueError("Give files or folders, or a corpus by --dataset NAME: one of the two.")
    for path in given.get("files") or ([args.path] if args.command == "info" else []):
        _check_exists(path, "file or folder")
    if args.command == "classify" and args.output is not None:
        _check_table(args.output)
    if args.dataset and args.command != "info":
        _check_dataset(args.dataset, args.data_dir)
    for name, folder, _ in given.get("mix") or ():
        _check_dataset(name, folder)
    for word in (*given.get("options", ()), *given.get("feature_extractor", ())):
        if not word.partition("=")[0] or "=" not in word:
            raise ValueError(f"Expected KEY=VALUE, such as sampling_rate=500, got {word!r}.")
    if args.command in ("pretrain", "finetune"):
        _check_preset(args.config, "configs" if args.command == "pretrain" else "finetune_configs")
        if args.rest and not args.rest[0].startswith("--"):
            raise ValueError(f"Expected a flag such as --learning_rate, got {args.rest[0]!r}.")
    if args.command == "evaluate":
        _check_preset(args.finetune_config, "finetune_configs")
        _check_choices("--protocol", args.protocol, PROTOCOLS)
        _check_choices("--setting", args.setting, SETTINGS)
    if args.command == "compare":
        for method in re.split(r",(?![^\[]*\])", args.methods) if args.methods else ():  # not of [0.6,0.7]
            _check_preset(method.strip().split(":")[0], "configs")
    for flag, kind in (("checkpoint", "file"), ("folder", "folder"), ("results", "file"), ("nstdb", "folder")):
        if given.get(flag) is not None:
            hint = " Give the --output_dir of the command that wrote it." if args.command == "push" else ""
            _check_exists(given[flag], kind, hint)
    if args.command == "push" and not re.fullmatch(r"[\w.-]+/[\w.-]+", args.repo_id):
        raise ValueError(f"Expected --repo_id OWNER/NAME, got {args.repo_id!r}.")
    if args.model is not None:
        check_there(find_checkpoint(args.model))


def _check_exists(path: str, kind: str, hint: str = ""):
    """A path of a `"file"`, a `"folder"` or either; a WFDB record may be named without its ending."""
    expanded = os.path.expanduser(path)
    is_there = {"file": os.path.isfile, "folder": os.path.isdir}.get(kind, os.path.lexists)(expanded)
    if not is_there and not (kind == "file or folder" and os.path.isfile(f"{expanded}.hea")):
        raise ValueError(f"There is no {kind} {path!r}.{hint}")


def _check_dataset(name: str, data_dir: str | None):
    if name not in DATASETS:
        hint = _did_you_mean(name.lower().replace("_", "-"), DATASETS)
        raise ValueError(f"Unknown corpus {name!r}.{hint} Choose from {sorted(DATASETS)}.")
    where = "" if name in OWN_DATASETS else f" docs/corpora.md says where to get {name}."
    if name == CARRIED_DATASET:
        if data_dir is not None:
            raise ValueError(f"Corpus {name!r} is carried by the package: leave out --data_dir {data_dir}.")
    elif data_dir is None:
        raise ValueError(
            f"Corpus {name!r} needs --data_dir, the folder that holds it.{where} {CARRIED_DATASET!r} comes with the "
            "package."
        )
    elif "://" not in data_dir:
        _check_exists(data_dir, "file or folder", where)


def _check_preset(name: str, folder: str):
    """A preset in a folder beside this file, or a YAML file."""
    if name.endswith((".yaml", ".yml")):
        return _check_exists(name, "file")
    presets = sorted(file.stem for file in Path(__file__).with_name(folder).glob("[!_]*.yaml"))
    if name not in presets:
        raise ValueError(
            f"Unknown preset {name!r}.{_did_you_mean(name, presets)} Expected one of {presets} or a .yaml file."
        )


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check_choices(flag: str, given: list[str], known: tuple[str, ...]):
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"Unknown {flag} {' '.join(unknown)}. Choose from {', '.join(known)}.")


def _check_table(path: str):
    if not path.endswith((".csv", ".parquet")):
        raise ValueError(f"Cannot write a table to {path!r}. Name it .csv or .parquet.")
    if os.path.lexists(path):
        raise ValueError(f"{path} is there already. Give another --output, or remove it first.")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise ValueError(f"There is no folder {os.path.dirname(path)} for --output.")


def _flags_of(parser: argparse.ArgumentParser, command: str) -> set[str]:
    commands = next(action for action in parser._actions if action.dest == "command").choices
    return {flag for action in commands[command]._actions for flag in action.option_strings}


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit status. An error is one sentence on standard error, unless `--debug`."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    if rest and args.command not in FREE_FLAGS:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if args.command in ("pretrain", "finetune") and args.output_dir is None and not args.help_all:
        parser.error("the following arguments are required: --output_dir")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in ("httpx", "httpx2", "httpcore", "datasets", "filelock", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    args.rest, args.argv = rest, list(sys.argv[1:] if argv is None else argv)
    args.flags, args.takes_settings = _flags_of(parser, args.command), args.command in FREE_FLAGS
    args.declared = _declared(args)
    # Threads that spin while they wait cost 10 times the run time as soon as anything else uses a core; libgomp reads
    # this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if not args.help_all:
            check_call(args)
            if args.output_dir is not None:
                _make_output_folder(args.output_dir)
    except (ValueError, OSError) as error:
        if args.debug:
            raise
        return _say_error(args, str(error))
    try:
        args.model_name = args.model
        if args.model is not None:
            args.model = find_checkpoint(args.model)
            check_checkpoint(args.model)
        command = importlib.import_module(f"ecg_transformers.{COMMANDS[args.command][0]}")
        from .flags import FlagFormatter

        logging.getLogger().handlers[0].setFormatter(FlagFormatter(args))
        command.run(args)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 130
    except Preempted as ended:
        sys.stderr.write(f"\necg-transformers {args.command}: {ended}\n")
        return 143  # 128 + SIGTERM, as a shell reports it
    except Exception as error:  # the one place where a trace-back becomes a sentence
        if args.debug:
            raise
        from ecg_transformers.modeling.recording_input import cut

        from .flags import in_flags

        return _say_error(args, in_flags(cut(str(error)), args) or type(error).__name__)
    return 0


def _say_error(args: argparse.Namespace, sentence: str) -> int:
    sys.stderr.write(f"\necg-transformers {args.command}: {sentence}\n(--debug shows where it happened)\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
