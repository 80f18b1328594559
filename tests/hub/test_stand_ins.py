"""Files that hold objects beside their tensors: what the objects say is read, and none of their code."""

import argparse

import pytest
import torch

from ecg_transformers.hub.convert import SOURCES, convert_file, read_checkpoint
from ecg_transformers.hub.stand_ins import StandIn, plain_settings

from .conftest import instance
from .test_convert_ecg_fm import published_state as ecg_fm_state
from .test_convert_hubert_ecg import published as hubert_ecg

SETTINGS = {"encoder_attention_heads": 4, "layer_norm_first": False, "conv_feature_layers": "[(24, 2, 2)] * 4"}


def write_ecg_fm(path, **settings):
    torch.save({"args": None, "model": ecg_fm_state()} | settings, path)
    return str(path)


def test_settings_of_omegaconf_are_read_without_its_code(omegaconf, tmp_path):
    stated = {"model": SETTINGS, "task": {"leads": [0, 1]}}
    path = write_ecg_fm(tmp_path / "a.pt", cfg=omegaconf(stated))
    model, _ = convert_file("ecg-fm", path)
    assert model.config.num_attention_heads == 4  # of this width only the file says it
    assert plain_settings(read_checkpoint(path, SOURCES["ecg-fm"].safe_globals)["cfg"]) == stated
    other = omegaconf({"model": SETTINGS | {"extractor_mode": "layer_norm"}})
    with pytest.raises(ValueError, match="The file says extractor_mode='layer_norm'"):
        convert_file("ecg-fm", write_ecg_fm(tmp_path / "b.pt", cfg=other))


def test_settings_in_a_namespace_are_read(tmp_path):
    path = write_ecg_fm(tmp_path / "a.pt", args=argparse.Namespace(**SETTINGS))
    model, _ = convert_file("ecg-fm", path)
    assert model.config.num_attention_heads == 4
    other = argparse.Namespace(**SETTINGS | {"layer_norm_first": True})
    with pytest.raises(ValueError, match="The file says layer_norm_first=True"):
        convert_file("ecg-fm", write_ecg_fm(tmp_path / "b.pt", args=other))


def test_the_configuration_in_a_file_of_hubert_ecg_is_read(foreign, tmp_path):
    kind = foreign("hubert_ecg.HuBERTECGConfig")
    _, state = hubert_ecg()
    said = {"num_attention_heads": 2, "conv_stride": (4, 2, 2, 2, 2), "torch_dtype": torch.float32, "vocab_sizes": [9]}
    file = {"global_step": 5, "model_state_dict": state, "model_config": instance(kind, **said)}
    torch.save(file, tmp_path / "hubert.pt")
    assert convert_file("hubert-ecg", str(tmp_path / "hubert.pt"))[0].config.num_attention_heads == 2
    with pytest.raises(ValueError, match="num_attention_heads=4 was given"):
        convert_file("hubert-ecg", str(tmp_path / "hubert.pt"), num_attention_heads=4)


@pytest.mark.parametrize(
    "other", [{"conv_stride": (5, 2, 2, 2, 2)}, {"conv_stride": 4}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}]
)
def test_a_hubert_ecg_that_computes_otherwise_is_refused(foreign, tmp_path, other):
    file = {"model_state_dict": hubert_ecg()[1]}
    file["model_config"] = instance(foreign("hubert_ecg.HuBERTECGConfig"), num_attention_heads=2, **other)
    torch.save(file, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=f"The file says {next(iter(other))}=.*; HuBERT-ECG has"):
        convert_file("hubert-ecg", str(tmp_path / "other.pt"))


def test_settings_that_hold_themselves_many_times_are_refused_at_once():
    settings = [1]
    for _ in range(40):
        settings = [settings, settings]
    with pytest.raises(ValueError, match="hold more than 100000 values"):
        plain_settings(settings)


@pytest.mark.parametrize("name", ["omegaconf.omegaconf.OmegaConf", "os.system", "builtins.eval"])
def test_every_other_name_is_refused_and_told(name, tmp_path):
    module, attribute = name.rsplit(".", 1)
    call = f"c{module}\n{attribute}\n(Vtouch {tmp_path / 'executed'}\ntR.".encode()  # a pickle that calls it
    (tmp_path / "evil.pt").write_bytes(b"\x80\x02" + call)
    with pytest.raises(ValueError, match="needs code to load is refused"):
        convert_file("ecg-fm", str(tmp_path / "evil.pt"))
    assert not (tmp_path / "executed").exists()


def test_a_class_that_nobody_named_is_refused_by_its_name(foreign, tmp_path):
    path = write_ecg_fm(tmp_path / "a.pt", cfg=instance(foreign("fairseq_signals.dataclass.configs.Config")))
    with pytest.raises(ValueError, match="it names fairseq_signals.dataclass.configs.Config"):
        convert_file("ecg-fm", path)


def test_settings_that_hold_themselves_are_refused():
    endless = StandIn()
    endless.state = {"_content": [endless]}
    with pytest.raises(ValueError, match="nested more than"):
        plain_settings(endless)
