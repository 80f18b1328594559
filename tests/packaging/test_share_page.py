"""Every Python snippet of docs/share.md runs, in order, against a Hub on 127.0.0.1; commands and files are real."""

from pathlib import Path

import pytest
import torch

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTModel
from ecg_transformers.train.publishing.model_card import CardFacts, write_card

from ..hub.conftest import hub as hub  # the fixture
from .snippets import page_text, run_snippets, snippets_of

REPOSITORY = Path(__file__).parents[2]
PAGE = page_text("share.md").replace("OWNER/", "owner/")
RECORDS = REPOSITORY / "tests" / "fixtures" / "wfdb" / "ptb-xl"
INPUT = {"leads": ("I", "II", "V2"), "sampling_rate": 100, "num_samples": 400}


@pytest.mark.slow
def test_the_snippets_of_the_page_run(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    (tmp_path / "records").symlink_to(RECORDS)
    config = EcgViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=100, **INPUT)
    EcgViTModel(config).save_pretrained("encoder")
    extractor = EcgFeatureExtractor(**INPUT)
    extractor.save_pretrained("encoder")
    write_card("encoder", CardFacts("pretrained", DataSource("PTB-XL", "CC BY 4.0", "Wagner")), config, extractor)
    torch.set_num_threads(1)
    snippets = snippets_of(PAGE)
    assert len(snippets) == 5
    names = run_snippets(snippets)
    assert {repo_id for _, repo_id in hub.repos} == {"owner/encoder", "owner/run", "owner/recordings"}
    assert hub.repos["models", "owner/encoder"].private and hub.repos["datasets", "owner/recordings"].private
    messages = list(hub.repos["models", "owner/run"].messages.values())
    assert "Training in progress, step 1" in messages and messages[-1] == "End of training"
    assert names["encoder"].config.hidden_size == 16 and names["row"]["ecg"]["sampling_rate"] == 100
