"""The digest by which scores and weights know each other."""

import hashlib

import pytest

from ecg_transformers.train.publishing.shared_folder import model_digest

from ..conftest import tiny_encoder


@pytest.fixture
def model():
    return tiny_encoder(leads=["I"], num_samples=200)[0]


def test_of_one_file_it_is_the_checksum_that_the_hub_shows(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert model_digest(tmp_path) == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()


def test_one_changed_weight_of_weights_in_parts_changes_it(model, tmp_path):
    model.save_pretrained(tmp_path / "a", max_shard_size="5KB")
    assert len(list((tmp_path / "a").glob("model-*.safetensors"))) > 1
    model.save_pretrained(tmp_path / "b", max_shard_size="5KB")
    next(model.parameters()).data += 1
    model.save_pretrained(tmp_path / "c", max_shard_size="5KB")
    a, b, c = (model_digest(tmp_path / name) for name in "abc")
    assert a == b != c


def test_weights_that_are_no_safetensors_have_none(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"0")
    assert model_digest(tmp_path) is None
