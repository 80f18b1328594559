import json

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgViTConfig,
    EcgViTForSequenceClassification,
    HubertEcgConfig,
)
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


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(params=["encoder of a classifier", "pretraining"])
def folder(request, tmp_path):
    if request.param == "pretraining":
        EcgJepaForPreTraining(
            EcgJepaConfig(**SIZES, **{f"predictor_{name}": value for name, value in SIZES.items()})
        ).save_pretrained(tmp_path)
    else:
        EcgViTForSequenceClassification(EcgViTConfig(**SIZES)).save_pretrained(tmp_path)
    EcgFeatureExtractor().save_pretrained(tmp_path)
    return tmp_path


def drop(folder, part):
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if part not in name}
    assert len(kept) < len(state)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification])
@pytest.mark.parametrize("part", ["ecg_vit.layers.1.", "ecg_vit.layernorm.bias", "ecg_vit."])
def test_an_encoder_without_all_its_weights_is_not_a_random_one(folder, part, auto_class):
    assert auto_class.from_pretrained(folder)
    drop(folder, part)
    with pytest.raises(ValueError, match=r"of its weights \d+ are missing .*layer.*would be random"):
        auto_class.from_pretrained(folder)


def test_a_head_may_begin_anew_and_a_teacher_come_from_its_student(tmp_path):
    EcgViTForSequenceClassification(EcgViTConfig(**SIZES)).save_pretrained(tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    drop(tmp_path, "classifier")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=7)
    EcgJepaForPreTraining(
        EcgJepaConfig(**SIZES, **{f"predictor_{name}": value for name, value in SIZES.items()})
    ).ecg_vit.save_pretrained(tmp_path / "base")
    assert AutoModelForPreTraining.from_pretrained(tmp_path / "base").has_teacher


@pytest.mark.parametrize(("field", "value"), [("num_hidden_layers", 1), ("num_hidden_layers", 3), ("patch_size", 25)])
def test_a_configuration_of_another_encoder_is_refused(folder, field, value):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(
        (ValueError, RuntimeError), match="have no place in it|are missing|size mismatch|ignore_mismatched"
    ):
        AutoModel.from_pretrained(folder)
    with pytest.raises(ValueError, match="of its weights"):
        AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("config_class", [EcgViTConfig, HubertEcgConfig])
def test_a_negative_number_of_layers_is_no_encoder(config_class):
    with pytest.raises(ValueError, match="num_hidden_layers"):
        config_class(num_hidden_layers=-1)


def test_embed_refuses_a_checkpoint_without_an_encoder(folder, tmp_path, capsys):
    drop(folder, "ecg_vit.")
    command = ["embed", "--model", str(folder), "--dataset", "ptb-xl-sample", "--split", "test"]
    assert main([*command, "--output_dir", str(tmp_path / "features")]) == 1
    assert "does not hold the encoder that its configuration describes" in capsys.readouterr().err
    assert not list((tmp_path / "features").iterdir())
