"""Runs and encoders small enough for a test: three leads of carried recordings, narrow layers."""

import pytest
import torch
import yaml
from transformers import TrainerCallback

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTModel
from ecg_transformers.train.pretrain import build_trainer

TINY_RUN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TINY_RUN |= {"predictor_hidden_size": 16, "predictor_num_hidden_layers": 1, "predictor_num_attention_heads": 2}
TINY_RUN |= {"predictor_intermediate_size": 32, "model_type": "ecg_jepa", "leads": ["I", "II", "V2"]}
TINY_RUN |= {"sampling_rate": 100, "num_samples": 1000, "patch_size": 100, "mask_type": "random"}
TINY_RUN |= {"mask_ratio": [0.4, 0.6], "learning_rate": 1e-3, "lr_scheduler_type": "cosine", "max_steps": 8}
TINY_RUN |= {"per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no"}
TINY_RUN |= {"disable_tqdm": True, "use_cpu": True}

SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
INPUT = {"leads": ("I", "II", "V2"), "sampling_rate": 100, "num_samples": 500}


def tiny_encoder(folder=None, model_class=EcgViTModel, extractor=None, seed=0, **fields):
    """Returns a model of untrained weights and its feature extractor, and saves both where a folder is given.

    `fields` are those of the configuration, and `extractor` what the feature extractor has beyond the same input.
    """
    contract = {name: fields.pop(name, value) for name, value in INPUT.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(EcgViTConfig(**contract | SIZE | {"patch_size": 100} | fields)).eval()
    feature_extractor = EcgFeatureExtractor(**contract | (extractor or {}))
    for part in (model, feature_extractor) if folder else ():
        part.save_pretrained(folder)
    return model, feature_extractor


@pytest.fixture
def tiny_run() -> dict:
    return dict(TINY_RUN)


@pytest.fixture
def tiny_yaml(tmp_path, tiny_run) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_run))
    return str(path)


@pytest.fixture(scope="session")
def recordings():
    """24 stored rows of the carried recordings."""
    return load_ecg("ptb-xl-sample", split="train", decode=False).select(range(24))


@pytest.fixture
def make_trainer(tmp_path, recordings):
    """Builds the trainer of a tiny run; keyword arguments are settings of it."""
    torch.set_num_threads(1)

    def make(dataset=None, name="run", eval_dataset=None, **settings):
        settings = TINY_RUN | {"output_dir": str(tmp_path / name)} | settings
        return build_trainer(settings, recordings if dataset is None else dataset, eval_dataset)

    return make


class StopAt(TrainerCallback):
    """Ends a run after a step without another word and without saving anything more, as a crash does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt
