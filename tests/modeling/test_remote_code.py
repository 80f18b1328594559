import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForPreTraining

from ecg_transformers.modeling import (
    EcgCpcConfig,
    EcgCpcForPreTraining,
    EcgFeatureExtractor,
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgLeNepaConfig,
    EcgLeNepaForPreTraining,
    EcgS4JepaConfig,
    EcgS4JepaForPreTraining,
    KernelResponseConfig,
    KernelResponseForPreTraining,
)

LOAD_EVERYTHING = """
import sys
sys.modules["ecg_transformers"] = None  # importing the package fails, as if it were not installed
import numpy as np
import torch
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification,
    AutoModelForTokenClassification, AutoProcessor,
)
folder, again = sys.argv[1:]
torch.set_num_threads(1)
kwargs = {"trust_remote_code": True}
config = AutoConfig.from_pretrained(folder, **kwargs)
extractor = AutoFeatureExtractor.from_pretrained(folder, **kwargs)
processor = AutoProcessor.from_pretrained(folder, **kwargs)
encoder = AutoModel.from_pretrained(folder, **kwargs)
pretraining = AutoModelForPreTraining.from_pretrained(folder, **kwargs)
classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, **kwargs)
delineator = AutoModelForTokenClassification.from_pretrained(folder, num_labels=4, **kwargs)
for loaded in (config, extractor, processor, encoder, pretraining, classifier, delineator):
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded).__module__
signal = np.sin(np.arange(3000).reshape(3, 1000) / 20)
inputs = extractor(signal, sampling_rate=100, leads=["II", "I", "V1"], unit="mV")
again_inputs = processor(signal, sampling_rate=100, leads=["II", "I", "V1"], unit="mV")
assert torch.equal(again_inputs.input_values, inputs.input_values)
print("feature", encoder(**inputs).pooler_output.sum().item())
print("loss", pretraining.eval()(**inputs).loss.item())
print("logits", tuple(classifier(**inputs).logits.shape))
print("sample_logits", tuple(delineator(**inputs).logits.shape))
classifier.save_pretrained(again)  # what was loaded as remote code ships its code too
AutoModelForSequenceClassification.from_pretrained(again, **kwargs)
processor.save_pretrained(again)
AutoProcessor.from_pretrained(again, **kwargs)
"""


INPUT = {"leads": ("I", "II", "V1"), "sampling_rate": 100, "num_samples": 1000}
JEPA = {
    "patch_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "predictor_hidden_size": 16,
    "predictor_num_hidden_layers": 1,
    "predictor_num_attention_heads": 2,
    "predictor_intermediate_size": 32,
}


@pytest.fixture(params=["jepa", "kernel response"])
def folder(tmp_path, request):
    torch.manual_seed(0)
    if request.param == "jepa":
        model = EcgJepaForPreTraining(EcgJepaConfig(**INPUT, **JEPA))
    else:
        model = KernelResponseForPreTraining(KernelResponseConfig(**INPUT, num_kernels=6, beat_target_size=2))
    model.save_pretrained(tmp_path)
    EcgFeatureExtractor(**INPUT).save_pretrained(tmp_path)
    return tmp_path


def test_one_folder_serves_every_auto_class_without_this_package(folder, tmp_path):
    command = [sys.executable, "-c", LOAD_EVERYTHING, str(folder), str(tmp_path / "again")]
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert finished.returncode == 0, finished.stderr[-3000:]
    printed = dict(line.split(" ", 1) for line in finished.stdout.splitlines())
    model = AutoModelForPreTraining.from_pretrained(folder).eval()
    signal = torch.sin(torch.arange(3000, dtype=torch.float64).reshape(1, 3, 1000) / 20)[:, [1, 0, 2]].float()
    assert float(printed["feature"]) == pytest.approx(model.ecg_vit(signal).pooler_output.sum().item(), abs=1e-4)
    assert float(printed["loss"]) == pytest.approx(model(signal).loss.item(), abs=1e-5)
    assert printed["logits"] == "(1, 3)"
    assert printed["sample_logits"] == "(1, 3, 1000, 4)"


def test_the_configuration_names_every_auto_class(folder):
    config = json.loads((folder / "config.json").read_text())
    module, family = config["model_type"], {"ecg_jepa": "EcgJepa"}.get(config["model_type"], "KernelResponse")
    assert config["auto_map"] == {
        "AutoConfig": f"configuration_{module}.{family}Config",
        "AutoModel": f"modeling_{module}.{family}Model",
        "AutoModelForPreTraining": f"modeling_{module}.{family}ForPreTraining",
        "AutoModelForSequenceClassification": f"modeling_{module}.{family}ForSequenceClassification",
        "AutoModelForTokenClassification": f"modeling_{module}.{family}ForTokenClassification",
    }
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    assert preprocessor["auto_map"] == {
        "AutoFeatureExtractor": "feature_extraction_ecg.EcgFeatureExtractor",
        "AutoProcessor": "feature_extraction_ecg.EcgProcessor",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [
        (EcgCpcForPreTraining, EcgCpcConfig),
        (EcgLeNepaForPreTraining, EcgLeNepaConfig),
        (EcgS4JepaForPreTraining, EcgS4JepaConfig),
    ],
)
def test_folders_of_state_space_methods_serve_every_auto_class_without_this_package(
    tmp_path, model_class, config_class
):
    contract = {"leads": ("I", "II", "V1"), "sampling_rate": 100, "num_samples": 1000}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    model = model_class(config_class(**contract, **sizes)).eval()
    model.save_pretrained(tmp_path)
    EcgFeatureExtractor(**contract).save_pretrained(tmp_path)
    command = [sys.executable, "-c", LOAD_EVERYTHING, str(tmp_path), str(tmp_path / "again")]
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert finished.returncode == 0, finished.stderr[-3000:]
    printed = dict(line.split(" ", 1) for line in finished.stdout.splitlines())
    signal = torch.sin(torch.arange(3000, dtype=torch.float64).reshape(1, 3, 1000) / 20)[:, [1, 0, 2]].float()
    assert float(printed["feature"]) == pytest.approx(model.ecg_vit(signal).pooler_output.sum().item(), abs=1e-3)
    assert float(printed["loss"]) == pytest.approx(model(signal).loss.item(), rel=1e-5)
