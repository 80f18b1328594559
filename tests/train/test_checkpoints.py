import json

import pytest

from ecg_transformers.modeling import EcgViTConfig
from ecg_transformers.train.checkpoints import check_checkpoint
from ecg_transformers.train.cli import main


def test_a_model_of_a_known_type_may_be_loaded(tmp_path):
    EcgViTConfig().save_pretrained(tmp_path)
    check_checkpoint(str(tmp_path))


@pytest.mark.parametrize("place", ["nowhere", "no/such/folder", "./nowhere", "/nowhere/model", "~/nowhere"])
def test_a_folder_that_is_not_there_is_named_and_no_hub_is_asked(place):
    with pytest.raises(ValueError, match=f"There is no folder {place}, and it is no id OWNER/NAME"):
        check_checkpoint(place)


def test_a_folder_without_configuration_is_no_model(tmp_path):
    with pytest.raises(ValueError, match="it has no config.json. Expected a folder that `pretrain`"):
        check_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "command",
    [["embed", "--dataset", "ptb-xl-sample"], ["evaluate"], ["finetune"], ["export", "--format", "onnx"], ["space"]],
    ids=lambda command: command[0],
)
def test_code_beside_the_weights_is_neither_executed_nor_asked_about(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    stated = {"model_type": "theirs", "auto_map": {"AutoModel": "theirs.Model", "AutoConfig": "theirs.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    (tmp_path / "theirs.py").write_text("raise SystemExit(3)")
    assert main([*command, "--model", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 1
    assert "is a model of the type 'theirs', which nothing installed or imported knows" in capsys.readouterr().err
