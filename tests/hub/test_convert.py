"""`ecg-transformers convert` on the files of every source: a folder that loads, with its card and its input."""

import pickle

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    pipeline,
)

from ecg_transformers.hub.convert import SOURCES
from ecg_transformers.hub.convert_st_mem import st_mem_state_dict
from ecg_transformers.hub.convert_weimann import weimann_state_dict
from ecg_transformers.modeling import (
    EcgFmModel,
    EcgFounderModel,
    EcgViTForSequenceClassification,
    HubertEcgModel,
    StMemConfig,
    StMemForSequenceClassification,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.method import method_of
from ecg_transformers.train.cli import CONVERTED_SOURCES, main

from ..train.conftest import SIZE, tiny_encoder
from .test_convert_ecg_fm import WIDTH
from .test_convert_ecg_fm import published_state as ecg_fm_state
from .test_convert_ecg_founder import published_state as ecg_founder_state
from .test_convert_hubert_ecg import published as hubert_ecg
from .test_convert_lejepa import probe_file

FLAGS = ["--num_attention_heads", "4", "--predictor_num_attention_heads", "3"]


def run(source, path, *flags):
    """Status of the command, and the folder that it writes beside the file."""
    folder = path.parent / "converted"
    command = ["convert", "--source", source, "--checkpoint", str(path), "--output_dir", str(folder)]
    return main([*command, *flags]), folder


def converted(path, source, checkpoint, *flags):
    """The folder that is made of a file with this content."""
    torch.save(checkpoint, path)
    status, folder = run(source, path, *flags)
    assert status == 0
    return folder


def made_up_signal():
    return np.random.default_rng(0).normal(size=(12, 5000)).cumsum(-1) / 50


@pytest.fixture
def state(golden):
    return {key[6:]: tensor for key, tensor in golden("kim_small").items() if key.startswith("state/")}


def test_the_command_writes_a_folder_that_loads_and_matches(tmp_path, state, golden):
    encoder = {key[8:]: tensor for key, tensor in state.items() if key.startswith("encoder.")}
    folder = converted(tmp_path / "epoch100.pth", "kim", {"encoder": encoder, "epoch": 100}, *FLAGS)
    model, extractor = AutoModel.from_pretrained(folder), AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(golden("kim_small")["input"], sampling_rate=250, leads=model.config.leads, unit="mV")
    features = model(**inputs).pooler_output
    torch.testing.assert_close(features, golden("kim_small")["representation"], atol=2e-5, rtol=1e-4)
    card = (folder / "README.md").read_text()
    assert "ECG" in card and "epoch100.pth" in card


def test_a_whole_model_becomes_a_pretraining_checkpoint(tmp_path, state, golden):
    folder, small = converted(tmp_path / "model.pth", "kim", state, *FLAGS), golden("kim_small")
    model = AutoModelForPreTraining.from_pretrained(folder).eval()
    loss = model(small["input"], bool_masked_pos=small["block/mask"][None]).loss
    torch.testing.assert_close(loss, small["block/loss"][0], atol=1e-6, rtol=0)


def ecg_fm_file():
    """As the trainer of fairseq-signals writes it: settings, history and numpy scalars beside the tensors."""
    cfg = {"model": {"_name": "wav2vec2_cmsc", "encoder_attention_heads": 4}, "task": {"normalize": False}}
    extra = {"best": np.float64(0.5), "metrics": [("default", [{"value": 1.0}])]}
    return {"args": None, "cfg": cfg, "model": ecg_fm_state(), "criterion": None, "extra_state": extra}


def ecg_founder_file():
    return {"epoch": 3, "step": 100, "state_dict": ecg_founder_state(), "val_auroc": np.float64(0.9)}


ENCODERS = {
    "hubert-ecg": (lambda: hubert_ecg()[1], HubertEcgModel, (100, 500), "license: cc-by-nc-4.0"),
    "ecg-fm": (ecg_fm_file, EcgFmModel, (500, 2500), "license_name: unknown"),
    "ecg-founder": (ecg_founder_file, EcgFounderModel, (500, 5000), "license_name: unknown"),
}


@pytest.mark.parametrize("source", ENCODERS)
@torch.no_grad()
def test_the_encoders_of_other_authors_load_with_their_input_and_card(source, tmp_path):
    file, model_class, frame, licence = ENCODERS[source]
    if source == "hubert-ecg":
        save_file({key: tensor.contiguous() for key, tensor in file().items()}, tmp_path / "model.safetensors")
        status, folder = run(source, tmp_path / "model.safetensors", "--num_attention_heads", "4")
        assert status == 0
    else:
        folder = converted(tmp_path / "model.pt", source, file())
    model, extractor = AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    assert type(model) is model_class and extractor.leads == model.config.leads
    assert (extractor.sampling_rate, extractor.num_samples) == (model.config.sampling_rate, model.config.num_samples)
    assert (extractor.sampling_rate, extractor.num_samples) == frame
    inputs = extractor(made_up_signal(), sampling_rate=500, leads=model.config.leads, unit="mV")
    features = model(inputs["input_values"]).pooler_output
    assert features.shape == (len(inputs["input_values"]), model.config.pooled_size) and features.isfinite().all()
    card = (folder / "README.md").read_text(encoding="utf-8")
    method = method_of(model.config)
    assert licence in card and "model." in card and method.name in card and method.url in card
    assert "No results were measured for this checkpoint." in card and "not a medical device" in card


@pytest.mark.slow
def test_the_snippet_of_a_card_runs(tmp_path, monkeypatch):
    folder = converted(tmp_path / "model.pth", "ecg-founder", ecg_founder_file())
    monkeypatch.chdir(tmp_path)
    card = (folder / "README.md").read_text(encoding="utf-8")
    names = {}
    snippet = card.split("```python\n")[1].split("```")[0].replace(", trust_remote_code=True", "")
    exec(compile(snippet, "README.md", "exec"), names)
    assert len(names["scores"]) == names["model"].num_labels
    assert all(0 < score < 1 for score in names["scores"].values())


def st_mem_classifier():
    sizes = SIZE | {"hidden_size": 24, "head_dim": 64, "decoder_hidden_size": 16}
    config = StMemConfig(**sizes, num_samples=750, patch_size=75, num_labels=5)
    return {"model": st_mem_state_dict(StMemForSequenceClassification(config))}, ["--num_attention_heads", "2"]


def hubert_classifier():
    head = {"classifier.weight": torch.randn(3, 32), "classifier.bias": torch.zeros(3)}
    encoder = {key: value for key, value in hubert_ecg()[1].items() if not key.startswith(("final_proj", "label_emb"))}
    return {"hubert_ecg." + key: value for key, value in encoder.items()} | head, ["--num_attention_heads", "4"]


def ecg_fm_classifier():
    pretraining = ("mask_emb", "quantizer", "project_q", "final_proj")
    state = {"encoder." + key: value for key, value in ecg_fm_state().items() if not key.startswith(pretraining)}
    head = {"proj.weight": torch.randn(17, WIDTH), "proj.bias": torch.zeros(17)}
    return {"model": state | head}, ["--num_attention_heads", "4"]


def weimann_classifier():
    published = {"patching": "all_leads", "attention_pattern": "full", "position_embedding": "sincos_interleaved"}
    published |= {"position_every_layer": False, "num_registers": 1, "use_bias": False, "layer_norm_bias": False}
    published |= {"layer_norm_eps": 1e-6, "classifier_pooling": "register", "num_labels": 5}
    read = {"leads": STANDARD_LEADS, "sampling_rate": 500, "num_samples": 1250, "patch_size": 25}
    sizes = {"hidden_size": 24, "num_attention_heads": 3}
    model, _ = tiny_encoder(None, EcgViTForSequenceClassification, **published, **read, **sizes)
    return {"model": weimann_state_dict(model)}, ["--num_attention_heads", "3"]


CLASSIFIERS = {
    "ecg-fm": ecg_fm_classifier,
    "ecg-founder": lambda: ({"state_dict": ecg_founder_state()}, []),
    "hubert-ecg": hubert_classifier,
    "lejepa-ecg": lambda: (probe_file("register"), []),
    "st-mem": st_mem_classifier,
    "weimann": weimann_classifier,
}
KINDS = {"st-mem": "single_label_classification"}  # the others have several labels a record


def test_every_source_is_on_the_command_line_and_those_with_classifiers_are_here():
    assert set(CONVERTED_SOURCES) == set(SOURCES) == set(CLASSIFIERS) | {"kim", "ecg-cpc"}


@pytest.mark.parametrize("source", CLASSIFIERS)
def test_a_converted_classifier_says_what_it_is_and_gives_scores(source, tmp_path):
    checkpoint, flags = CLASSIFIERS[source]()
    folder = converted(tmp_path / "theirs.pth", source, checkpoint, *flags)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.problem_type == KINDS.get(source, "multi_label_classification")
    # It is no feature extractor, and the Hub has no tag for its task.
    assert ModelCard.load(folder / "README.md").data.pipeline_tag is None
    recording = {"array": made_up_signal(), "sampling_rate": 500, "leads": list(STANDARD_LEADS), "unit": "mV"}
    scores = [row["score"] for row in pipeline("ecg-classification", model=str(folder), device="cpu")(recording)]
    assert len(scores) == model.config.num_labels and all(0 <= score <= 1 for score in scores)


def test_a_converted_encoder_is_for_features(tmp_path):
    folder = converted(tmp_path / "theirs.pt", "ecg-fm", {"model": ecg_fm_state()}, "--num_attention_heads", "4")
    assert ModelCard.load(folder / "README.md").data.pipeline_tag == "feature-extraction"


def test_a_broken_file_of_safetensors_is_named_in_a_sentence(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    save_file({"encoder": torch.zeros(100)}, path)
    whole = path.read_bytes()
    for content in (whole[:-100], b"", b"<html>404</html>"):
        path.write_bytes(content)
        assert run("kim", path)[0] == 1
        said = capsys.readouterr().err
        assert "model.safetensors is no whole file of safetensors" in said and "Download it again" in said


def test_a_file_that_needs_code_to_load_is_refused(tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    with open(tmp_path / "evil.pth", "wb") as file:
        pickle.dump({"encoder": Payload()}, file)
    assert run("kim", tmp_path / "evil.pth")[0] == 1
    assert "needs code to load is refused" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_a_file_of_other_authors_is_refused_in_a_sentence(tmp_path, capsys):
    torch.save(ecg_founder_file(), tmp_path / "founder.pth")
    for source in ("hubert-ecg", "ecg-fm"):
        assert run(source, tmp_path / "founder.pth")[0] == 1
        assert "This is no " in capsys.readouterr().err
    assert run("ecg-founder", tmp_path / "founder.pth", "--num_attention_heads", "4")[0] == 1
    said = capsys.readouterr().err
    assert "--num_attention_heads cannot be set for ecg-founder" in said
    assert "What can be given is --leads, --num_hidden_layers." in said
