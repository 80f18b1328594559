import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from transformers import AutoConfig

from ecg_transformers.data.corpora import CORPORA
from ecg_transformers.train.checkpoints import check_there
from ecg_transformers.train.cli import COMMANDS, DATASETS, build_parser, check_call, main, preset_purposes
from ecg_transformers.train.settings import parse_flags, read_config, split_settings, training_arguments

CLI = [sys.executable, "-m", "ecg_transformers.train.cli"]


def test_help_fits_a_screen_and_imports_nothing_heavy():
    code = (
        "import sys; from ecg_transformers.train.cli import main\n"
        f"for command in {[[], *([command] for command in COMMANDS)]!r}:\n"
        "    try: main([*command, '--help'])\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "    print('\\0')\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    started = time.monotonic()
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    screens = finished.stdout.split("\0\n")[:-1]
    assert len(screens) == 1 + len(COMMANDS) and all(0 < screen.count("\n") <= 40 for screen in screens)
    assert time.monotonic() - started < 5  # well below a second on an idle machine


def test_every_preset_says_what_data_and_budget_it_is_for(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["pretrain", "--presets"])
    assert stopped.value.code == 0
    listed = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert listed == preset_purposes() and len(listed) >= 28
    page = (Path(__file__).parents[2] / "docs" / "pretrain.md").read_text("utf-8")
    for name, purpose in listed.items():
        assert f"| `{name}` | {purpose} |" in page, name
    for name in ("kim_cpu", "weimann_cpu"):
        assert "study of the published recipe, near chance on a laptop" in listed[name]


@pytest.mark.parametrize("name", sorted(preset_purposes()))
def test_the_budget_that_a_preset_names_is_that_of_its_values(name):
    settings, seen = read_config(name), re.search(r"([\d,.]+)( million)? seen", preset_purposes()[name])
    if seen is None:
        assert f"{settings['num_train_epochs']} epochs" in preset_purposes()[name]
        return
    steps = settings["max_steps"] * settings.get("gradient_accumulation_steps", 1)
    count = float(seen[1].replace(",", "")) * (1e6 if seen[2] else 1)
    assert steps * settings["per_device_train_batch_size"] == pytest.approx(count, rel=0.01)


def test_every_flag_is_listed_on_demand(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "--config", "ecg_jepa_cpu", "--help_all"]) == 0
    listed = capsys.readouterr().out
    assert all(flag in listed for flag in ("--learning_rate", "--ema_start", "--mask_ratio", "--normalization"))


def test_a_training_needs_a_folder_to_write_to(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["pretrain", "--config", "quickstart"])
    assert stopped.value.code == 2 and "required: --output_dir" in capsys.readouterr().err


def test_version_is_that_of_the_distribution(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("ecg-transformers 0.")


def test_published_presets_hold_the_published_numbers(tmp_path):
    settings = read_config("kim_multiblock")
    model_type, model, _, _ = split_settings(settings)
    config = AutoConfig.for_model(model_type, **model)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 16)
    assert settings["mask_ratio"] == [0.175, 0.225] and settings["per_device_train_batch_size"] == 64
    assert read_config("kim_random")["mask_ratio"] == [0.6, 0.7]
    _, _, _, training = split_settings(settings | {"output_dir": str(tmp_path)})
    arguments = training_arguments(training)
    assert (arguments.learning_rate, arguments.weight_decay, arguments.max_grad_norm) == (5.5e-5, 0.05, 0.0)
    assert arguments.get_warmup_steps(1000) == 50


def test_flags_become_values_of_their_kind():
    flags = parse_flags(["--learning_rate", "1e-3", "--leads", "I", "II", "--bf16", "--mask-ratio=0.5"])
    assert flags == {"learning_rate": 0.001, "leads": ["I", "II"], "bf16": True, "mask_ratio": 0.5}


@pytest.mark.parametrize("text", ["save_strategy: no", 'save_strategy: "no"'])
def test_no_is_a_strategy_in_a_file_and_on_the_command_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(f"model_type: ecg_jepa\n{text}\n")
    settings = read_config(str(tmp_path / "config.yaml"))
    for given in (settings, settings | parse_flags(["--save_strategy", "no"])):
        _, _, _, training = split_settings(given | {"output_dir": str(tmp_path)})
        assert training_arguments(training).save_strategy == "no"


def test_a_misspelt_setting_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(ValueError, match="Unknown setting 'learing_rate'. Did you mean learning_rate"):
        split_settings({"model_type": "ecg_jepa", "learing_rate": 1})


WRONG_CALLS = {
    "embed --output_dir x": "Give files or folders, or a corpus by --dataset NAME",
    "embed nosuch.csv --output_dir x": "There is no file or folder 'nosuch.csv'",
    "embed --dataset ptb_xl --output_dir x": "Unknown corpus 'ptb_xl'. Did you mean 'ptb-xl'?",
    "embed --dataset wfdb --output_dir x": "needs --data_dir",
    "embed --dataset wfdb --data_dir nosuch --output_dir x": "There is no file or folder 'nosuch'",
    "embed --dataset ptb-xl-sample --options task --output_dir x": "Expected KEY=VALUE",
    "embed --dataset ptb-xl-sample --data_dir here --output_dir x": "leave out --data_dir",
    "embed --dataset ptb-xl-sample --model nosuch --output_dir x": "There is no folder nosuch",
    "classify file.csv --output scores.xls": "Name it .csv or .parquet",
    "classify file.csv --output file.csv": "is there already",
    "classify file.csv --output no/scores.csv": "There is no folder no",
    "classify file.csv --model no/where": "the Hub cannot be asked for a model of that id: no connection to http://127.0",
    "info nosuch": "There is no file or folder 'nosuch'",
    "pretrain --config ecg_jepa_cp --output_dir x": "Unknown preset 'ecg_jepa_cp'. Did you mean 'ecg_jepa_cpu'?",
    "pretrain --config nosuch.yaml --output_dir x": "There is no file 'nosuch.yaml'",
    "pretrain --config quickstart --mix ptb-xl:nosuch:1 --output_dir x": "There is no file or folder 'nosuch'",
    "pretrain --config quickstart 1e-3 --output_dir x": "Expected a flag such as --learning_rate, got '1e-3'",
    "pretrain --config quickstart --output_dir file.csv": "Cannot write to 'file.csv'",
    "finetune --config nosuch --output_dir x": "Unknown preset 'nosuch'",
    "evaluate --protocol liner --output_dir x": "Unknown --protocol liner. Choose from linear",
    "evaluate --setting noisy --output_dir x": "Unknown --setting noisy",
    "evaluate --nstdb nosuch --output_dir x": "There is no folder 'nosuch'",
    "compare --methods nosuch --records_seen 1 --output_dir x": "Unknown preset 'nosuch'",
    "prepare --dataset nosuch --output_dir x": "Unknown corpus 'nosuch'",
    "push --folder nosuch --repo_id a/b": "There is no folder 'nosuch'",
    "push --folder . --repo_id ab": "Expected --repo_id OWNER/NAME",
    "convert --source kim --checkpoint nosuch.pth --output_dir x": "There is no file 'nosuch.pth'",
    "export --model nosuch --format onnx --output_dir x": "There is no folder nosuch",
    "space --model nosuch --output_dir x": "There is no folder nosuch",
}


def test_wrong_calls_are_told_before_torch_is_imported(tmp_path):
    (tmp_path / "file.csv").write_text("I\n0\n")
    code = (
        "import sys, time; from ecg_transformers.train.cli import main\n"
        f"for call in {list(WRONG_CALLS)!r}:\n"
        "    sys.stderr.write(call)\n"
        "    started = time.process_time()\n"
        "    assert main(call.split()) == 1, call\n"
        "    assert time.process_time() - started < 1, call\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_HUB_OFFLINE": "0", "http_proxy": ""}
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    for call, message in WRONG_CALLS.items():
        answer = finished.stderr.split(call + "\n", 1)[1].split("(--debug")[0]
        assert message in answer, answer
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "call",
    [
        "compare --methods kim_cpu:mask_ratio=[0.6,0.7],mtae_cpu --records_seen 64 --output_dir x",
        "compare --scoreboard ecg-small=ecg-small --output_dir x",
        "embed a.csv . --model random-kernels --output_dir x",
        "embed r --output_dir x",
        'embed --dataset ecgfolder --data_dir . --options leads=["I"] table=a.csv --output_dir x',
        "classify a.csv --output new.csv",
        "pretrain --config mine.yaml --dataset prepared --data_dir hf://datasets/owner/prepared --lr_scheduler cosine",
        "pretrain --config quickstart --mix ptb-xl-sample::0.5 wfdb:.:0.5 --output_dir x",
        "evaluate --protocol linear knn --setting noise --nstdb . --output_dir x",
        "info .",
        "push --folder . --repo_id owner/name --results a.csv",
    ],
)
def test_calls_that_can_work_are_let_through(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "r.hea", "mine.yaml"):
        (tmp_path / name).write_text("")
    args, rest = build_parser().parse_known_args(call.split())
    args.rest = rest
    check_call(args)


def test_the_hub_is_not_asked_where_it_is_set_to_be_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="the Hub is not asked for a model of that id, because HF_HUB_OFFLINE is set"):
        check_there("no/where")


def test_the_names_of_the_command_line_are_those_of_the_library():
    assert sorted(DATASETS) == sorted([*CORPORA, "prepared"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected .* to hold lines of `key: value`"),
        ("[1, 2]", "Expected .* to hold lines of `key: value`"),
        ("1: 2", "Expected .* to hold lines of `key: value`"),
        ("a: [1", "is no YAML"),
        ("model_type: bert", r"Expected the configuration to name a model_type of .*'lejepa'.*, got 'bert'"),
        ("model_type: ecg_jepa\nmodel: {depth: 2}", r"nests \['model'\]"),
    ],
)
def test_a_yaml_file_that_is_no_configuration_is_refused(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        split_settings(read_config(str(tmp_path / "bad.yaml")))


def test_a_value_of_the_wrong_kind_is_one_sentence(tiny_yaml, tmp_path, capsys):
    command = ["pretrain", "--config", tiny_yaml, "--learning_rate", "abc", "--output_dir", str(tmp_path / "run")]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "learning_rate" in error and len(error.strip().splitlines()) == 2


def test_a_run_that_takes_no_step_saves_nothing(tiny_yaml, tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["pretrain", "--config", tiny_yaml, "--output_dir", str(folder)]
    assert main([*command, "--max_steps", "-1", "--num_train_epochs", "0"]) == 1
    assert "Nothing was learned" in capsys.readouterr().err
    assert not (folder / "model.safetensors").exists()


def test_fewer_recordings_than_a_batch_are_said_with_a_flag(tiny_yaml, tmp_path, capsys):
    folder = tmp_path / "run"
    flags = ["--per_device_train_batch_size", "4096", "--dataloader_drop_last", "true", "--max_steps", "1"]
    assert main(["pretrain", "--config", tiny_yaml, "--output_dir", str(folder), *flags]) == 1
    error = capsys.readouterr().err
    assert "are fewer than a batch of 4096" in error and "--per_device_train_batch_size" in error


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="nosuch"):
        main(["pretrain", "--config", "nosuch", "--output_dir", str(tmp_path), "--debug"])


def test_a_pretrained_folder_goes_through_embed(tiny_yaml, tmp_path):
    checkpoint = str(tmp_path / "checkpoint")
    flags = ["--max_steps", "2", "--hidden_size", "16", "--output_dir", checkpoint]
    assert main(["pretrain", "--config", tiny_yaml, *flags]) == 0
    features = str(tmp_path / "features")
    embed = ["embed", "--model", checkpoint, "--dataset", "ptb-xl-sample", "--split", "test", "--output_dir", features]
    assert main(embed) == 0
    table = pq.read_table(tmp_path / "features" / "embeddings.parquet")
    assert len(table) == 66 and table["features"].type.list_size == 16
    assert main(embed) == 1  # a table that is there is not written over
    (tmp_path / "features" / "notes.txt").write_text("mine")
    assert main([*embed, "--format", "npz", "--overwrite_output_dir"]) == 0
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == ["embeddings.npz", "notes.txt"]


def test_pretraining_goes_on_from_a_checkpoint(tiny_yaml, tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert main(["pretrain", "--config", tiny_yaml, "--max_steps", "1", "--output_dir", first]) == 0
    again = ["pretrain", "--config", tiny_yaml, "--model", first, "--max_steps", "1", "--learning_rate", "0.0"]
    assert main([*again, "--ema_start", "1.0", "--output_dir", second]) == 0
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (first, second))
    assert all((before[name] == after[name]).all() for name in before)
