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
from pathlib import Path

from .checkpoints import check_there, find_checkpoint
from .run_folder import Preempted

logger = logging.getLogger("ecg_transformers")

# name: (module with `run(args)`, what it does)
COMMANDS = {
    "quickstart": ("ecg_transformers.train.quickstart", "pretrain, probe and report on carried recordings in minutes"),
    "pretrain": ("ecg_transformers.train.pretrain", "self-supervised pretraining on a corpus or a folder"),
    "finetune": ("ecg_transformers.train.finetune", "train a pretrained encoder on labels and test it once"),
    "evaluate": ("ecg_transformers.train.evaluate", "score an encoder by the field's protocols, beside a random one"),
    "compare": ("ecg_transformers.train.compare", "pretraining methods on equal terms: one table, one picture"),
    "embed": ("ecg_transformers.train.recordings", "write the features of recordings to Parquet or npz"),
    "classify": ("ecg_transformers.train.recordings", "scores of recordings by a classifier, as a table"),
    "prepare": ("ecg_transformers.train.prepare", "convert a corpus once to Parquet shards that stream from anywhere"),
    "push": ("ecg_transformers.hub.push", "publish a model or a prepared corpus on the Hub"),
    "info": ("ecg_transformers.train.info", "what a file or folder holds and what is odd about it"),
    "convert": ("ecg_transformers.hub.convert", "turn an authors' checkpoint into one that from_pretrained loads"),
    "export": ("ecg_transformers.hub.export", "write a model as ONNX, int8 ONNX or a torch.export program"),
    "space": ("ecg_transformers.hub.space", "write a page for a model: a Space of the Hub that runs here too"),
    "benchmark": ("ecg_transformers.train.benchmark.run", "measure the fast paths on this machine, a GPU's if there"),
}

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

# Where the list of all flags would not leave room for what they do.
USAGES = {
    "compare": "ecg-transformers compare --methods M,... --records_seen N --output_dir DIR [FLAG ...]",
    "info": "ecg-transformers info PATH [FLAG ...]",
    "embed": "ecg-transformers embed PATH ... | --dataset NAME --output_dir DIR [FLAG ...]",
    "classify": "ecg-transformers classify PATH ... | --dataset NAME [--output scores.csv] [FLAG ...]",
    "finetune": "ecg-transformers finetune [--model DIR|ID] [--dataset NAME] --output_dir DIR [FLAG ...]",
    "evaluate": "ecg-transformers evaluate [--model DIR|ID] [--dataset NAME] --output_dir DIR [FLAG ...]",
}

PRETRAINING_FLAGS = (
    "On a laptop begin with --config kernel_response_cpu or ecg_jepa_cpu; kim_cpu and weimann_cpu are studies of "
    "published recipes, near chance at that size. " + TRAINING_FLAGS
)

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
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(help_all=False, model=None, dataset=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add_arguments = {
        "quickstart": _quickstart_arguments,
        "pretrain": _pretrain_arguments,
        "finetune": _finetune_arguments,
        "evaluate": _evaluate_arguments,
        "compare": _compare_arguments,
        "embed": _embed_arguments,
        "classify": _classify_arguments,
        "prepare": _prepare_arguments,
        "push": _push_arguments,
        "info": _info_arguments,
        "convert": _convert_arguments,
        "export": _export_arguments,
        "space": _space_arguments,
        "benchmark": _benchmark_arguments,
    }
    for name, (_, summary) in COMMANDS.items():
        description = summary[0].upper() + summary[1:] + "."
        command = commands.add_parser(
            name, help=summary, description=description, epilog=EPILOGS.get(name), allow_abbrev=False
        )
        command.usage = USAGES.get(name)
        add_arguments[name](command)
        command.add_argument("--debug", action="store_true", help="show the trace-back of an error")
    return parser


def _output_argument(parser: argparse.ArgumentParser, default: str | None = None):
    parser.add_argument(
        "--output_dir", required=default is None, default=default, metavar="DIR", help="folder to write to"
    )


def _overwrite_argument(parser: argparse.ArgumentParser):
    parser.add_argument("--overwrite_output_dir", action="store_true", help="first remove an earlier run from there")


def _output_or_help_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--output_dir", metavar="DIR", help="folder to write to")
    _overwrite_argument(parser)
    parser.add_argument("--help_all", action="store_true", help="list every flag")


def _corpus_arguments(parser: argparse.ArgumentParser, default: str | None = None):
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        default=default,
        required=default is None,
        help="corpus, as in load_ecg: ptb-xl, wfdb, prepared, ...",
    )
    parser.add_argument("--data_dir", metavar="DIR", help="folder of the corpus (prepared: or its URL)")
    parser.add_argument(
        "--options", nargs="+", default=[], metavar="KEY=VALUE", help="those of the corpus: sampling_rate=500"
    )


def _labelled_corpus_arguments(parser: argparse.ArgumentParser, datasets: tuple[str, ...]):
    parser.add_argument("--dataset", choices=datasets, default="ptb-xl-sample", help="ptb-xl-sample is carried along")
    parser.add_argument("--data_dir", metavar="DIR", help="folder of the corpus (npy: or its declaration)")
    parser.add_argument(
        "--record_sampling_rate", type=int, metavar="HZ", help="which files of a corpus that has several"
    )


def _quickstart_arguments(parser: argparse.ArgumentParser):
    _output_argument(parser, "ecg-transformers-quickstart")
    _overwrite_argument(parser)
    parser.add_argument("--max_steps", type=_positive, metavar="N", help="fewer steps, to try the machinery")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, masks and order (default 0)")


def _pretrain_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="preset or YAML file of flat keys")
    parser.add_argument("--presets", action=_ListPresets, nargs=0, help="list presets, each with its data and budget")
    _corpus_arguments(parser, "ptb-xl-sample")
    parser.add_argument(
        "--mix",
        nargs="+",
        type=_part_of_mixture,
        metavar="NAME:DIR:WEIGHT",
        help="several corpora, each drawn by its weight, for --dataset",
    )
    parser.add_argument("--split", default="train", help="split to learn from (default: train, folds 1-8)")
    parser.add_argument("--streaming", action="store_true", help="read records as they come, without a cache")
    parser.add_argument("--model", metavar="DIR|ID", help="checkpoint to go on from instead of fresh weights")
    parser.add_argument(
        "--online_probe_steps", type=_positive, metavar="N", help="log a linear probe of the features every N steps"
    )
    _output_or_help_arguments(parser)


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
    files = sorted(Path(__file__).with_name("configs").glob("*.yaml"))
    heads = {file.stem: file.read_text("utf-8").splitlines()[0] for file in files}
    return {name: head.removeprefix("# For: ").rstrip(".") for name, head in heads.items()}


def _finetune_arguments(parser: argparse.ArgumentParser):
    _model_argument(parser, "ecg-small")
    parser.add_argument("--config", default="finetune", metavar="NAME|FILE", help="preset or YAML file (finetune)")
    _corpus_arguments(parser, "ptb-xl-sample")
    _task_arguments(parser, ("labels", "sex", "age", "intervals"))
    parser.add_argument(
        "--lead_subsets", nargs="+", metavar="NAME", help="also evaluate and calibrate on 8, 6, 2, II, ... or I,V2"
    )
    _output_or_help_arguments(parser)


def _task_arguments(parser: argparse.ArgumentParser, targets: tuple[str, ...]):
    parser.add_argument("--target", metavar="NAME", choices=targets, default="labels", help=", ".join(targets))
    parser.add_argument("--delineator", metavar="DIR", help="of intervals, where no waves are marked")
    parser.add_argument(
        "--problem_type",
        choices=("multi_label_classification", "single_label_classification"),
        help="any number of labels a record, or exactly one",
    )
    parser.add_argument(
        "--unlabelled",
        choices=("drop", "keep"),
        default="drop",
        help="records without labels: left out, or negatives",
    )


def _evaluate_arguments(parser: argparse.ArgumentParser):
    _model_argument(parser, "ecg-small")
    _corpus_arguments(parser, "ptb-xl-sample")
    _task_arguments(parser, ("labels", "sex", "age", "intervals", "delineation", "identity"))
    parser.add_argument(
        "--protocol", nargs="+", default=["linear"], metavar="NAME", help=f"how to evaluate: {', '.join(PROTOCOLS)}"
    )
    parser.add_argument(
        "--setting", nargs="+", default=[], metavar="NAME", help=f"on harder terms: {', '.join(SETTINGS)}"
    )
    _recording_arguments(parser)
    _pooling_arguments(parser, ", best")
    parser.add_argument("--split", choices=("test", "all"), default="test", help="where identity searches (test)")
    parser.add_argument("--nstdb", metavar="DIR", help="folder of the noise database, for --setting noise")
    parser.add_argument("--finetune_config", default="finetune", metavar="NAME|FILE", help="preset of finetuned")
    parser.add_argument("--batch_size", type=_positive, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the random encoder, heads, draws and bootstrap")
    _output_argument(parser)
    _overwrite_argument(parser)


def _recording_arguments(parser: argparse.ArgumentParser):
    for name, choices in RECORDING_FLAGS.items():
        parser.add_argument(f"--{name}", choices=choices, help=argparse.SUPPRESS)  # named below
    parser.add_argument(
        "--feature_extractor",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="what differs from the checkpoint's: unit=mV clip=5; also --missing_leads mask, --nan_policy "
        "interpolate, --short_records zero_pad, --long_records all",
    )


def _pooling_arguments(parser: argparse.ArgumentParser, best: str = ""):
    parser.add_argument("--layer", metavar="N", help=f"layer to pool: 0 the stem, last, mean_last_half{best}")
    parser.add_argument("--pooling", metavar="NAME", choices=("mean", "statistics"), help="mean or statistics")


def _compare_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--methods", metavar="M,...", help="presets or YAML files, changed by M:SETTING=VALUE")
    parser.add_argument("--seeds", default="0", metavar="N,...", help="of weights, order, masks (0)")
    parser.add_argument("--records_seen", type=_positive, metavar="N", help="budget: steps x batch")
    _labelled_corpus_arguments(parser, COMPARED_DATASETS)
    parser.add_argument(
        "--scoreboard", nargs="*", metavar="NAME=DIR,...", help="evaluate these encoders instead, train nothing"
    )
    parser.add_argument("--people", metavar="NAME:DIR", help="scoreboard: corpus with folds, age and sex")
    parser.add_argument("--ludb", metavar="DIR", help="scoreboard: LUDB, with marked waves")
    parser.add_argument("--hospital", metavar="NAME:DIR", help="scoreboard: recordings with SNOMED CT codes")
    parser.add_argument("--task", help="label set of PTB-XL (default: superdiagnostic)")
    parser.add_argument("--extra", action="append", metavar="NAME:DIR[:HZ]", help="corpus that adds to pretraining")
    parser.add_argument("--splits", metavar="CSV", help="table of ecg_id, patient_id, strat_fold")
    parser.add_argument("--finetune", action="store_true", help="also fine-tune every pretrained encoder")
    parser.add_argument("--low_shot", type=_fraction, metavar="F", help="also with this fraction of the labels (0.1)")
    parser.add_argument("--labels_for", metavar="M,...", help="methods also trained on labels (all), or none")
    parser.add_argument("--supervised_records_seen", type=_positive, metavar="N", help="the same on labels")
    parser.add_argument("--finetune_learning_rate", type=float, metavar="X", help="if not that from scratch, 1e-3")
    parser.add_argument("--probe_every", type=_positive, metavar="N", help="records between points of the curves")
    parser.add_argument("--num_threads", type=_positive, default=1, metavar="N", help="of one process (1)")
    parser.add_argument("--report_only", action="store_true", help="write the table of what is done; run nothing")
    _output_argument(parser)


def _embed_arguments(parser: argparse.ArgumentParser):
    _model_argument(parser, "ecg-small")
    _recordings_arguments(parser)
    _recording_arguments(parser)
    _pooling_arguments(parser)
    parser.add_argument(
        "--windows", action="store_true", help="a row for each window of a record, with its start in s"
    )
    parser.add_argument("--format", choices=("parquet", "npz"), default="parquet")
    parser.add_argument("--batch_size", type=_positive, default=64)
    _output_argument(parser)
    _overwrite_argument(parser)


def _classify_arguments(parser: argparse.ArgumentParser):
    _model_argument(parser, "ecg-small-superdiagnostic")
    _recordings_arguments(parser)
    for name, choices in RECORDING_FLAGS.items():
        parser.add_argument(f"--{name}", choices=choices, help=argparse.SUPPRESS)  # in RECORDINGS_TAKEN
    parser.add_argument("--batch_size", type=_positive, default=64)
    parser.add_argument("--output", metavar="FILE", help="new .csv or .parquet (default: print the table)")
    parser.set_defaults(output_dir=None)


def _model_argument(parser: argparse.ArgumentParser, default: str):
    parser.add_argument("--model", default=default, metavar="DIR|ID", help=f"checkpoint (default {default})")


def _recordings_arguments(parser: argparse.ArgumentParser):
    """Files or a corpus."""
    parser.add_argument("files", nargs="*", metavar="PATH", help="recordings, or folders of recordings; or instead")
    _corpus_arguments(parser, "")
    parser.add_argument("--split", default="all", help="split of the corpus (default: all that there is)")
    _file_arguments(parser)


def _file_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--leads", nargs="+", metavar="LEAD", help="for files that do not say it, in their order")
    parser.add_argument("--sampling_rate", type=float, metavar="HZ", help="the same")
    parser.add_argument("--unit", metavar="mV|uV|V|dimensionless", help="the same")
    parser.add_argument("--axes", metavar="lead,sample|sample,lead", help="the same, of arrays")
    parser.add_argument("--step", type=float, metavar="X", help="the same: unit per step of whole numbers")
    parser.add_argument("--skip_lines", type=int, metavar="N", help="the same: lines of text before a table")
    parser.add_argument("--rename_leads", nargs="+", metavar="STORED:LEAD", help="what channels are: MLII:II V5:V5")
    parser.add_argument("--array", metavar="NAME", help="which array of an HDF5, npz, MATLAB or DICOM file")


def _prepare_arguments(parser: argparse.ArgumentParser):
    _corpus_arguments(parser)
    parser.add_argument("--split", default="all", help="split to convert (default: all)")
    parser.add_argument("--num_proc", type=_positive, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--shard_index", type=int, metavar="I", help="this is task I, from 0, ...")
    parser.add_argument("--num_shards", type=_positive, metavar="N", help="... of N; then run once without both")
    parser.add_argument("--engine", choices=("processes", "dask"), default="processes", help="what runs the work")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask cluster")
    parser.add_argument("--on_bad_record", choices=("report", "raise"), default="report", help="go on, or stop")
    parser.add_argument("--preview_pictures", action="store_true", help="draw each, for the dataset viewer of the Hub")
    _output_argument(parser)


def _push_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--folder", required=True, metavar="DIR", help="a model, or what `prepare` wrote")
    parser.add_argument("--repo_id", required=True, metavar="OWNER/NAME", help="repository, created if new")
    parser.add_argument("--private", action="store_true", help="make the new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch, created if new (default: the main one)")
    parser.add_argument("--licence", metavar="NAME", help="of the recordings, where the card does not state it")
    parser.add_argument("--weights_licence", metavar="NAME", help="of the weights of a model: cc-by-4.0, ...")
    parser.add_argument("--results", metavar="FILE", help="metrics.json of `evaluate`, for the card of a model")
    parser.add_argument("--benchmark", action="store_true", help="of a corpus: let the Hub list scores on it")
    parser.set_defaults(output_dir=None)


def _info_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("path", metavar="PATH", help="a recording, or a folder of recordings")
    _file_arguments(parser)
    parser.add_argument("--dataset", metavar="NAME", help="look at the folder as load_ecg(NAME) does: ecgfolder, ...")
    parser.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="those of the corpus")
    parser.add_argument("--table", metavar="FILE", help="of a folder: propose what its columns are, for ecgfolder")
    parser.add_argument("--write", action="store_true", help="with --table: write the proposal as ecgfolder.json")
    parser.add_argument("--max_records", type=_positive, default=200, metavar="N", help="of a folder (200)")
    parser.add_argument("--json", metavar="FILE", help="also write everything here")
    parser.add_argument("--plot", metavar="FILE", help="draw 10 s (of a folder an overview): .png, .svg or .pdf")
    parser.set_defaults(output_dir=None)


def _benchmark_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--json", metavar="FILE", help="also write everything here")
    parser.set_defaults(output_dir=None)


def _convert_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--source", choices=CONVERTED_SOURCES, required=True, help="whose file it is")
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="the authors' file")
    parser.add_argument("--leads", metavar="I,II,...", help="leads of the checkpoint, if not the published ones")
    parser.add_argument("--sampling_rate", type=float, metavar="HZ", help="its rate, if not the published one")
    parser.add_argument("--constants", metavar="CORPUS", help="whose mean and deviation of each lead the input gets")
    parser.add_argument("--num_attention_heads", type=_positive, metavar="N", help="its heads, of no published size")
    parser.add_argument("--predictor_num_attention_heads", type=_positive, metavar="N", help="those of its predictor")
    parser.add_argument("--decoder_num_attention_heads", type=_positive, metavar="N", help="those of its decoder")
    parser.add_argument("--num_hidden_layers", type=_positive, metavar="N", help="its layers, if not as published")
    parser.add_argument("--predictor_num_hidden_layers", type=_positive, metavar="N", help="those of its predictor")
    parser.add_argument("--decoder_num_hidden_layers", type=_positive, metavar="N", help="those of its decoder")
    parser.add_argument("--num_registers", type=int, metavar="N", help="its register tokens, if not as published")
    _output_argument(parser)
    _overwrite_argument(parser)


def _export_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--model", required=True, metavar="DIR|ID", help="checkpoint with its feature extractor")
    parser.add_argument("--format", choices=EXPORT_FORMATS, required=True, help="of the file")
    _output_argument(parser)
    _overwrite_argument(parser)


def _space_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--model", required=True, metavar="DIR|ID", help="checkpoint with its feature extractor")
    _output_argument(parser)
    _overwrite_argument(parser)


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
        close = difflib.get_close_matches(name.lower().replace("_", "-"), DATASETS, n=1, cutoff=0.7)
        hint = f" Did you mean {close[0]!r}?" if close else ""
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
    presets = sorted(file.stem for file in Path(__file__).with_name(folder).glob("*.yaml"))
    if name not in presets:
        close = difflib.get_close_matches(name, presets, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown preset {name!r}.{hint} Expected one of {presets} or a .yaml file.")


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
    if args.version:
        from importlib.metadata import version

        sys.stdout.write(f"ecg-transformers {version('ecg-transformers')}\n")
        return 0
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
            from .checkpoints import check_checkpoint

            args.model = find_checkpoint(args.model)
            check_checkpoint(args.model)
        command = importlib.import_module(COMMANDS[args.command][0])
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
