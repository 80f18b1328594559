import pickle

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForPreTraining

from ecg_transformers.train.cli import main

FLAGS = ["--num_attention_heads", "4", "--predictor_num_attention_heads", "3"]


@pytest.fixture
def state(golden):
    return {key[6:]: tensor for key, tensor in golden("kim_small").items() if key.startswith("state/")}


def test_the_command_writes_a_folder_that_loads_and_matches(tmp_path, state, golden):
    encoder = {key[8:]: tensor for key, tensor in state.items() if key.startswith("encoder.")}
    torch.save({"encoder": encoder, "epoch": 100}, tmp_path / "epoch100.pth")
    folder = str(tmp_path / "converted")
    command = ["convert", "--source", "kim", "--checkpoint", str(tmp_path / "epoch100.pth"), "--output_dir", folder]
    assert main([*command, *FLAGS]) == 0
    model = AutoModel.from_pretrained(folder)
    signal = golden("kim_small")["input"]
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(signal, sampling_rate=250, leads=model.config.leads, unit="mV")
    features = model(**inputs).pooler_output
    torch.testing.assert_close(features, golden("kim_small")["representation"], atol=2e-5, rtol=1e-4)
    card = (tmp_path / "converted" / "README.md").read_text()
    assert "ECG" in card and "epoch100.pth" in card


def test_a_whole_model_becomes_a_pretraining_checkpoint(tmp_path, state, golden):
    torch.save(state, tmp_path / "model.pth")
    folder = str(tmp_path / "converted")
    command = ["convert", "--source", "kim", "--checkpoint", str(tmp_path / "model.pth"), "--output_dir", folder]
    assert main([*command, *FLAGS]) == 0
    model = AutoModelForPreTraining.from_pretrained(folder).eval()
    small = golden("kim_small")
    loss = model(small["input"], bool_masked_pos=small["block/mask"][None]).loss
    torch.testing.assert_close(loss, small["block/loss"][0], atol=1e-6, rtol=0)


def test_a_broken_file_of_safetensors_is_named_in_a_sentence(tmp_path, capsys):
    save_file({"encoder": torch.zeros(100)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    command = ["convert", "--source", "kim", "--checkpoint", str(tmp_path / "model.safetensors")]
    for content in (whole[:-100], b"", b"<html>404</html>"):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert main([*command, "--output_dir", str(tmp_path / "converted")]) == 1
        said = capsys.readouterr().err
        assert "model.safetensors is no whole file of safetensors" in said and "Download it again" in said


def test_a_file_that_needs_code_to_load_is_refused(tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    with open(tmp_path / "evil.pth", "wb") as file:
        pickle.dump({"encoder": Payload()}, file)
    command = ["convert", "--source", "kim", "--checkpoint", str(tmp_path / "evil.pth")]
    assert main([*command, "--output_dir", str(tmp_path / "converted")]) == 1
    assert "needs code to load is refused" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
