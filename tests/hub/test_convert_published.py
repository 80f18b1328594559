"""`ecg-transformers convert` for the encoders of other authors: a folder that loads, with its card and its input."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, AutoModel

from ecg_transformers.hub.convert import SOURCES
from ecg_transformers.modeling import EcgFmModel, EcgFounderModel, HubertEcgModel
from ecg_transformers.modeling.method import method_of
from ecg_transformers.train.cli import CONVERTED_SOURCES, main

from .test_convert_ecg_fm import published_state as ecg_fm_state
from .test_convert_ecg_founder import published_state as ecg_founder_state
from .test_convert_hubert_ecg import published as hubert_ecg


def write_hubert_ecg(folder):
    save_file({key: tensor.contiguous() for key, tensor in hubert_ecg()[1].items()}, folder / "model.safetensors")
    return folder / "model.safetensors", ["--num_attention_heads", "4"]


def write_ecg_fm(folder):
    """As the trainer of fairseq-signals writes it: settings, history and numpy scalars beside the tensors."""
    cfg = {"model": {"_name": "wav2vec2_cmsc", "encoder_attention_heads": 4}, "task": {"normalize": False}}
    extra = {"best": np.float64(0.5), "metrics": [("default", [{"value": 1.0}])]}
    checkpoint = {"args": None, "cfg": cfg, "model": ecg_fm_state(), "criterion": None, "extra_state": extra}
    torch.save(checkpoint, folder / "mimic_iv_ecg_physionet_pretrained.pt")
    return folder / "mimic_iv_ecg_physionet_pretrained.pt", []


def write_ecg_founder(folder):
    checkpoint = {"epoch": 3, "step": 100, "state_dict": ecg_founder_state(), "val_auroc": np.float64(0.9)}
    torch.save(checkpoint, folder / "12_lead_ECGFounder.pth")
    return folder / "12_lead_ECGFounder.pth", []


FILES = {
    "hubert-ecg": (write_hubert_ecg, HubertEcgModel, (100, 500), "license: cc-by-nc-4.0"),
    "ecg-fm": (write_ecg_fm, EcgFmModel, (500, 2500), "license_name: unknown"),
    "ecg-founder": (write_ecg_founder, EcgFounderModel, (500, 5000), "license_name: unknown"),
}


@pytest.mark.parametrize("source", FILES)
@torch.no_grad()
def test_the_command_writes_a_folder_that_loads(source, tmp_path):
    write, model_class, frame, licence = FILES[source]
    path, flags = write(tmp_path)
    folder = tmp_path / "converted"
    command = ["convert", "--source", source, "--checkpoint", str(path), "--output_dir", str(folder), *flags]
    assert main(command) == 0
    model, extractor = AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    assert type(model) is model_class and extractor.leads == model.config.leads
    assert (extractor.sampling_rate, extractor.num_samples) == (model.config.sampling_rate, model.config.num_samples)
    assert (extractor.sampling_rate, extractor.num_samples) == frame
    signal = np.random.default_rng(0).normal(size=(12, 5000)).cumsum(-1) / 50
    inputs = extractor(signal, sampling_rate=500, leads=model.config.leads, unit="mV")
    features = model(inputs["input_values"]).pooler_output
    assert features.shape == (len(inputs["input_values"]), model.config.pooled_size) and features.isfinite().all()
    card = (folder / "README.md").read_text(encoding="utf-8")
    method = method_of(model.config)
    assert licence in card and path.name in card and method.name in card and method.url in card
    assert "No results were measured for this checkpoint." in card and "not a medical device" in card


@pytest.mark.slow
def test_the_snippet_of_a_card_runs(tmp_path, monkeypatch):
    path, _ = write_ecg_founder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "--source", "ecg-founder", "--checkpoint", str(path), "--output_dir", "founder"]) == 0
    card = (tmp_path / "founder" / "README.md").read_text(encoding="utf-8")
    names = {}
    snippet = card.split("```python\n")[1].split("```")[0].replace(", trust_remote_code=True", "")
    exec(compile(snippet, "README.md", "exec"), names)
    assert len(names["scores"]) == names["model"].num_labels
    assert all(0 < score < 1 for score in names["scores"].values())


def test_the_command_line_knows_every_source():
    assert set(CONVERTED_SOURCES) == set(SOURCES)


def test_a_file_of_other_authors_is_refused_in_a_sentence(tmp_path, capsys):
    path, _ = write_ecg_founder(tmp_path)
    for source in ("hubert-ecg", "ecg-fm"):
        command = ["convert", "--source", source, "--checkpoint", str(path), "--output_dir", str(tmp_path / "out")]
        assert main(command) == 1
        assert "This is no " in capsys.readouterr().err
    command = ["convert", "--source", "ecg-founder", "--checkpoint", str(path), "--output_dir", str(tmp_path / "out")]
    assert main([*command, "--num_attention_heads", "4"]) == 1
    said = capsys.readouterr().err
    assert (
        "--num_attention_heads cannot be set for ecg-founder" in said
        and "What can be given is --leads, --num_hidden_layers." in said
    )
