import pytest
import torch
from transformers import AutoConfig, AutoModelForPreTraining

from ecg_transformers.hub.convert_weimann import STATISTICS_MV
from ecg_transformers.train.settings import read_config, split_settings


def parts_of(preset):
    model_type, model, extractor, training = split_settings(read_config(preset))
    with torch.device("meta"):
        return AutoModelForPreTraining.from_config(AutoConfig.for_model(model_type, **model)), extractor, training


@pytest.mark.parametrize(
    ("size", "num_encoder_parameters", "num_predictor_parameters"),
    [("xs", 3_600_000, 923_328), ("s", 14_277_888, 3_689_856), ("b", 85_185_024, 21_833_472)],
)
def test_presets_have_the_published_size_input_and_batch(size, num_encoder_parameters, num_predictor_parameters):
    model, extractor, training = parts_of(f"weimann_{size}")
    assert sum(parameter.numel() for parameter in model.student.parameters()) == num_encoder_parameters
    assert sum(parameter.numel() for parameter in model.predictor.parameters()) == num_predictor_parameters
    assert (tuple(extractor["lead_means"]), tuple(extractor["lead_stds"])) == STATISTICS_MV["ptb-xl"]
    accumulation = training.get("gradient_accumulation_steps", 1)
    assert (training["per_device_train_batch_size"], accumulation) == ((512, 2) if size == "b" else (2048, 1))


def test_the_small_preset_is_of_the_size_that_was_measured():
    model, extractor, _ = parts_of("weimann_cpu")
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_columns) == (128, 4, 50)
    assert config.patch_size / config.sampling_rate == 0.2
    assert (len(extractor["leads"]), config.evaluated_encoder) == (12, "teacher")
