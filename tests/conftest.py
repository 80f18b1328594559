"""Fixtures shared by all tests. Nothing here needs a network."""

import gc
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
gc.disable()  # until all is imported: nothing of that is garbage


CARRIED_GOLDEN = FIXTURES / "golden"
SHARED_GOLDEN = Path(os.environ.get("ECG_TRANSFORMERS_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
"""Numbers from the published systems' own code: the smaller ones are carried, the others lie beside the repository."""


def golden_file(name: str) -> Path:
    for folder in (CARRIED_GOLDEN, SHARED_GOLDEN):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"golden file {name} is neither carried nor at {SHARED_GOLDEN} (set ECG_TRANSFORMERS_GOLDEN)")


def pytest_collection_finish():
    """Keeps the collector, which each `Trainer.train` runs, from reading modules and tests again and again."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "golden file" in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests against golden files that are not carried were skipped.")


@pytest.fixture(scope="session")
def golden():
    """Loads the tensors of one golden fixture by name."""
    loaded = {}

    def load(name: str):
        if name not in loaded:
            loaded[name] = load_file(golden_file(f"{name}.safetensors"))
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def golden_facts():
    """Loads the description of one golden fixture by name."""
    return lambda name: json.loads(golden_file(f"{name}.json").read_text())


@pytest.fixture(scope="session")
def shared_data_dir() -> Path:
    """Real recordings beside the repository; tests that need them skip where they are absent."""
    path = Path(os.environ.get("ECG_TRANSFORMERS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no recordings at {path} (set ECG_TRANSFORMERS_DATA)")
    return path
