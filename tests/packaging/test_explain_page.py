"""Every Python snippet of docs/explain.md runs, in order, and what the page says is so."""

import numpy as np
import pytest
import torch

from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTForSequenceClassification

from .snippets import page_text, run_snippets, snippets_of

PAGE = page_text("explain.md")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the snippets leave behind, with a small classifier of untrained weights."""
    folder = tmp_path_factory.mktemp("explain")
    contract = {"leads": ["I", "II", "V1", "V5"], "sampling_rate": 100, "num_samples": 250}
    widths = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = EcgViTConfig(**contract, **widths, patch_size=50, id2label={0: "NORM", 1: "CD"})
    torch.manual_seed(0)
    EcgViTForSequenceClassification(config).save_pretrained(folder / "classifier")
    EcgFeatureExtractor(**contract, long_records="all").save_pretrained(folder / "classifier")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_snippets(snippets_of(PAGE)) | {"folder": folder}


def test_the_snippets_of_the_page_run_and_draw(names):
    assert (names["folder"] / "explain.png").stat().st_size > 10_000
    assert "raises it" not in (names["folder"] / "map.svg").read_text()  # shares
    assert names["recording"]["record_id"] == "00157"
    assert names["explanation"].target == "the output CD"


def test_the_maps_have_the_shapes_and_sums_that_the_page_states(names):
    assert names["explanation"].values.shape == (12, 1000)
    assert names["found"].attributions.shape == (4, 4, 250) and names["found"].completeness_error.shape == (4,)
    assert names["shares"].shape == (4, 4, 5) and names["falls"].shape == (4, 4, 10)
    assert np.nansum(names["rollout"].values) == pytest.approx(1.0)
    torch.testing.assert_close(names["shares"].sum(dim=(1, 2)), torch.ones(4))
