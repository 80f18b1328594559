import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from ecg_transformers.train.cli import COMMANDS, main
from ecg_transformers.train.settings import parse_flags, read_config, split_settings, training_arguments

CLI = [sys.executable, "-m", "ecg_transformers.train.cli"]


@pytest.mark.parametrize("arguments", [[], *([command] for command in COMMANDS)], ids=lambda a: "".join(a) or "none")
def test_help_fits_a_screen_and_imports_nothing_heavy(arguments):
    code = (
        "import sys; from ecg_transformers.train.cli import main\n"
        f"try: main({[*arguments, '--help']!r})\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    started = time.monotonic()
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) <= 40
    assert time.monotonic() - started < 5  # well below a second on an idle machine


def test_help_of_pretrain_says_that_training_flags_are_accepted(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    assert "transformers.TrainingArguments" in capsys.readouterr().out


def test_every_flag_is_listed_on_demand(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "--config", "quickstart", "--help_all"]) == 0
    listed = capsys.readouterr().out
    assert all(flag in listed for flag in ("--learning_rate", "--ema_start", "--mask_ratio", "--normalization"))


def test_a_training_needs_a_folder_to_write_to(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["pretrain", "--config", "quickstart"])
    assert stopped.value.code == 2 and "required: --output_dir" in capsys.readouterr().err


def test_version_is_that_of_the_distribution(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ecg-transformers 0.")


def test_published_presets_hold_the_published_numbers(tmp_path):
    settings = read_config("kim_multiblock")
    assert (settings["hidden_size"], settings["num_hidden_layers"], settings["num_attention_heads"]) == (768, 12, 16)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "--config", "nosuch", "--output_dir", "x"], "Unknown preset 'nosuch'. Expected one of"),
        (["pretrain", "--config", "nosuch.yaml", "--output_dir", "x"], "There is no file 'nosuch.yaml'"),
        (["pretrain", "--config", "quickstart", "--dataset", "ptb-xl", "--output_dir", "x"], "needs data_dir"),
        (["convert", "--source", "kim", "--checkpoint", "nosuch.pth", "--output_dir", "x"], "There is no file"),
    ],
)
def test_a_failure_is_one_sentence_and_a_status(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


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


def test_an_output_folder_that_cannot_be_made_is_found_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["quickstart", "--output_dir", str(tmp_path / "file")]) == 1
    assert "Cannot write to" in capsys.readouterr().err


def test_a_run_that_takes_no_step_saves_nothing(tiny_yaml, tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["pretrain", "--config", tiny_yaml, "--output_dir", str(folder)]
    assert main([*command, "--max_steps", "-1", "--num_train_epochs", "0"]) == 1
    assert "Nothing was learnt" in capsys.readouterr().err
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
    pretrain = [
        "pretrain",
        "--config",
        tiny_yaml,
        "--max_steps",
        "2",
        "--output_dir",
        checkpoint,
        "--hidden_size",
        "16",
    ]
    assert main(pretrain) == 0
    features = str(tmp_path / "features")
    embed = ["embed", "--model", checkpoint, "--dataset", "ptb-xl-sample", "--split", "test", "--output_dir", features]
    assert main(embed) == 0
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "features" / "embeddings.parquet")
    assert len(table) == 66 and table["features"].type.list_size == 16


def test_pretraining_goes_on_from_a_checkpoint(tiny_yaml, tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert main(["pretrain", "--config", tiny_yaml, "--max_steps", "1", "--output_dir", first]) == 0
    again = ["pretrain", "--config", tiny_yaml, "--model", first, "--max_steps", "1", "--learning_rate", "0.0"]
    assert main([*again, "--ema_start", "1.0", "--output_dir", second]) == 0
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (first, second))
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_that_was_killed_resumes_bit_for_bit(tiny_yaml, tmp_path, num_workers):
    def pretrain(name, *flags):
        folder = tmp_path / name
        command = [*CLI, "pretrain", "--config", tiny_yaml, "--output_dir", str(folder), "--max_steps", "60"]
        command += [
            "--dataloader_num_workers",
            str(num_workers),
            "--save_strategy",
            "steps",
            "--save_steps",
            "5",
            *flags,
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return folder, subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    straight, process = pretrain("straight")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-2000:]

    killed, process = pretrain("killed")
    deadline = time.monotonic() + 200
    while not (killed / "checkpoint-10" / "trainer_state.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "model.safetensors").exists()  # it did not get to its end

    _, process = pretrain("killed", "--resume_from_checkpoint", "last")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-2000:]
    expected, resumed = (load_file(folder / "model.safetensors") for folder in (straight, killed))
    assert all((expected[name] == resumed[name]).all() for name in expected)
