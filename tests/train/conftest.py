"""A run small enough for a test: three leads of carried recordings, a model of two narrow layers."""

import pytest
import torch
import yaml

from ecg_transformers.data import load_ecg
from ecg_transformers.train.pretrain import build_trainer

TINY_RUN = {
    "model_type": "ecg_jepa",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "predictor_hidden_size": 16,
    "predictor_num_hidden_layers": 1,
    "predictor_num_attention_heads": 2,
    "predictor_intermediate_size": 32,
    "leads": ["I", "II", "V2"],
    "sampling_rate": 100,
    "num_samples": 1000,
    "patch_size": 100,
    "mask_type": "random",
    "mask_ratio": [0.4, 0.6],
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "per_device_train_batch_size": 4,
    "max_steps": 8,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}


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
