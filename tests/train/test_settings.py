"""Every preset is a run that starts: `ecg-transformers pretrain --config NAME`."""

from importlib import resources

import pytest

from ecg_transformers.train.cli import main
from ecg_transformers.train.settings import PRESETS, read_config, split_settings, training_arguments

FILES = [file for file in resources.files(PRESETS).iterdir() if file.suffix == ".yaml"]
NAMES = sorted(file.stem for file in FILES if not file.stem.startswith("_"))
ONE_STEP = (
    "--max_steps 1 --per_device_train_batch_size 2 --gradient_accumulation_steps 1 --logging_steps 1 --use_cpu true "
    "--disable_tqdm true --save_strategy no --dataloader_num_workers 0"
).split()


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_says_model_input_and_training(name, tmp_path):
    model_type, model, extractor, training = split_settings(read_config(name) | {"output_dir": str(tmp_path)})
    assert model["leads"] == extractor["leads"] and model["num_samples"] == extractor["num_samples"]
    assert training_arguments(training).learning_rate == float(training["learning_rate"])


def test_a_file_has_the_settings_of_its_base_but_for_its_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: kim_cpu\nlearning_rate: 0.5\nclip: null\n")
    base = read_config("kim_cpu")
    expected = {name: value for name, value in base.items() if name != "clip"} | {"learning_rate": 0.5}
    assert read_config(str(tmp_path / "mine.yaml")) == expected and base["clip"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_takes_a_step_and_leaves_a_checkpoint(name, tmp_path):
    assert main(["pretrain", "--config", name, *ONE_STEP, "--output_dir", str(tmp_path)]) == 0
    assert (tmp_path / "model.safetensors").is_file() and (tmp_path / "preprocessor_config.json").is_file()
