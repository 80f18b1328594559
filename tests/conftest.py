"""Fixtures shared by all tests. Nothing here needs a network."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

REPOSITORY = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Numbers from the published systems' own code."""
    return FIXTURES / "golden"


@pytest.fixture(scope="session")
def golden(golden_dir):
    """Loads the tensors of one golden fixture by name."""
    loaded = {}

    def load(name: str):
        if name not in loaded:
            loaded[name] = load_file(golden_dir / f"{name}.safetensors")
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def golden_facts(golden_dir):
    """Loads the description of one golden fixture by name."""
    return lambda name: json.loads((golden_dir / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def shared_data_dir() -> Path:
    """Real recordings beside the repository; tests that need them skip where they are absent."""
    path = Path(os.environ.get("ECG_TRANSFORMERS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no recordings at {path} (set ECG_TRANSFORMERS_DATA)")
    return path
