"""Every snippet of docs/pretrain.md runs, in order, and every flag that it names is one."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from transformers import AutoConfig

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.train.cli import build_parser, main
from ecg_transformers.train.settings import parse_flags, read_config, split_settings

from .snippets import page_text, snippets_of

PAGE = page_text("pretrain.md")
SNIPPETS = snippets_of(PAGE)
RECORDINGS, MIXTURE, PARTS, LOADING = SNIPPETS
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("ecg-transformers ")]
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TINY |= {f"predictor_{name}": value for name, value in TINY.items()}
TINY |= {"per_device_train_batch_size": 8, "use_cpu": True, "disable_tqdm": True, "report_to": "none"}
STEPS = {
    '"max_steps": 1000': '"max_steps": 2',
    '"save_steps": 500': '"save_steps": 2',
    "every_steps=500": "every_steps=2",
    'split="train"), {': 'split="train").select(range(60)), {',
}


def fewer_steps(snippet: str) -> str:
    for said, instead in STEPS.items():
        assert snippet.count(said) == 1, said
        snippet = snippet.replace(said, instead)
    return snippet.replace('read_config("ecg_jepa_cpu") | {', f'read_config("ecg_jepa_cpu") | {TINY} | {{')


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pretrain")


@pytest.fixture(scope="module")
def names(folder):
    """The names that the first two snippets leave: recordings, and a run on a mixture."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for snippet in (RECORDINGS, fewer_steps(MIXTURE)):
            exec(compile(snippet, "pretrain.md", "exec"), names)
    return names


def test_the_page_pretrains_on_a_mixture_with_a_probe_and_loads_the_encoder(folder, names, monkeypatch):
    monkeypatch.chdir(folder)
    logged = [entry for entry in names["trainer"].state.log_history if "probe_ptb_xl_macro_auroc" in entry]
    assert logged[-1]["step"] == 2 and (folder / "runs" / "mine" / "checkpoint-2").is_dir()
    exec(compile(LOADING, "pretrain.md", "exec"), names)
    assert names["table"].features.shape == (40, 16)


@pytest.mark.slow
def test_the_trainer_of_the_page_is_built_from_its_parts(folder, names, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(PARTS, "pretrain.md", "exec"), names)
    assert (folder / "runs" / "jepa" / "preprocessor_config.json").exists()


@pytest.mark.slow
def test_the_commands_of_the_page_run(folder, names, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    tiny = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    info, prepare, pretrain, evaluate = (shlex.split(line, comments=True)[1:] for line in COMMANDS[:4])
    assert main([*info, "--max_records", "5"]) == 0
    assert "looked at       5 recordings" in capsys.readouterr().out
    assert main([*prepare[:-2], "--output_dir", "again"]) == 0  # --num_proc belongs to real corpora
    run = [*pretrain, *tiny, "--output_dir", "runs/commands", "--streaming", "--save_strategy", "steps"]
    run += ["--max_steps", "2", "--save_steps", "1"]
    assert main(run) == 0
    assert main(run) == 1 and "holds a finished model" in capsys.readouterr().err
    assert main([*run, "--resume_from_checkpoint", "last"]) == 0
    assert {"training.html", "README.md", "checkpoint-2"} <= {path.name for path in Path("runs/commands").iterdir()}
    assert main([*evaluate, "--model", "runs/commands"]) == 0


JOB = Path(__file__).parents[2] / "docs" / "pretrain_job.py"


def test_the_job_runs_the_command_that_its_dry_run_prints():
    written = shlex.split(re.search(r"^python docs/pretrain_job.py (.*)$", PAGE, flags=re.MULTILINE)[1])
    printed = subprocess.run(
        [sys.executable, JOB, *written, "--bf16", "true"], capture_output=True, text=True, check=True
    )
    program, *words = shlex.split(printed.stdout)
    args, rest = build_parser().parse_known_args(words)
    assert (program, args.command, args.dataset, args.streaming) == ("ecg-transformers", "pretrain", "prepared", True)
    assert args.data_dir == "hf://datasets/OWNER/prepared"
    _, _, _, training = split_settings(read_config(args.config) | parse_flags(rest))
    assert training["push_to_hub"] and training["hub_model_id"] == "OWNER/encoder" and training["bf16"]


def test_the_job_names_its_python_and_its_packages_as_pep_723_has_it():
    block = re.search(r"^# /// script\n((?:#.*\n)+?)# ///$", JOB.read_text("utf-8"), flags=re.MULTILINE)[1]
    stated = tomllib.loads(re.sub(r"^# ?", "", block, flags=re.MULTILINE))
    assert stated["requires-python"] == ">=3.11"
    assert [package.split(" ")[0] for package in stated["dependencies"]] == ["ecg-transformers", "trackio"]


@pytest.mark.slow
def test_the_job_pretrains(folder, names, monkeypatch):
    monkeypatch.chdir(folder)
    tiny = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, JOB, "--data_dir", "prepared", "--max_steps", "2", "--output_dir", "runs/job", *tiny]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert (folder / "runs" / "job" / "model.safetensors").exists()


def test_every_flag_that_the_page_names_is_one():
    """Those of a command by its parser, the others as flags of pretrain."""
    for line in COMMANDS:
        words = shlex.split(line.replace("...", "--config ecg_jepa_cpu --output_dir runs"), comments=True)[1:]
        args, rest = build_parser().parse_known_args(words)
        if args.command == "pretrain":
            split_settings(read_config(args.config) | parse_flags(rest))
        else:
            assert not rest, line
    known = build_parser()._subparsers._group_actions[0].choices["pretrain"].format_help()
    text = re.sub(r"```.*?```|`ecg-transformers push.*?`", "", PAGE, flags=re.DOTALL)
    spans = [span for span in re.findall(r"`(--[^`]+)`", text) if span not in ("--num_proc", "--private", "--dry_run")]
    assert len(spans) > 40
    for flag, *values in (span.split() for span in spans):
        if re.search(rf"{flag}\b", known):
            continue
        preset = "lejepa_cpu" if flag == "--sigreg_weight" else "ecg_jepa_cpu"
        flags = parse_flags([flag, *values])
        model_type, model, extractor, _ = split_settings(read_config(preset) | flags)
        if values:  # and takes this value
            AutoConfig.for_model(model_type, **model)
            EcgFeatureExtractor(**extractor)
