"""Every Python snippet of the README runs, in order, beside a checkpoint as the quickstart leaves one."""

import re
from pathlib import Path

import torch

from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTModel

README = Path(__file__).parents[2] / "README.md"


def test_the_snippets_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = EcgViTConfig(
        sampling_rate=100,
        num_samples=500,
        patch_size=50,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
    )
    EcgViTModel(config).save_pretrained("ecg-transformers-quickstart")
    extractor = EcgFeatureExtractor(sampling_rate=100, num_samples=500, long_records="all")
    extractor.save_pretrained("ecg-transformers-quickstart")
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(snippets) >= 4
    names = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["features"].shape == (2, 32)
    assert names["inputs"]["input_values"].shape == (2, 8, 500)
    assert (tmp_path / "runs" / "jepa" / "preprocessor_config.json").exists()


def test_every_command_of_the_readme_exists():
    from ecg_transformers.train.cli import COMMANDS

    named = set(re.findall(r"^ecg-transformers (\w+)", README.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert named and named <= set(COMMANDS)
