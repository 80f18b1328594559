import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForPreTraining

from ecg_transformers import modeling

LOAD_EVERYTHING = """
import json, sys
sys.modules["ecg_transformers"] = None  # importing the package fails, as if it were not installed
import numpy as np
import torch
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification,
    AutoModelForTokenClassification, AutoProcessor,
)
torch.set_num_threads(1)
kwargs = {"trust_remote_code": True}
signal = np.sin(np.arange(3000).reshape(3, 1000) / 20)
found = {}
for folder in sys.argv[1:]:
    config = AutoConfig.from_pretrained(folder, **kwargs)
    extractor = AutoFeatureExtractor.from_pretrained(folder, **kwargs)
    processor = AutoProcessor.from_pretrained(folder, **kwargs)
    encoder = AutoModel.from_pretrained(folder, **kwargs)
    pretraining = AutoModelForPreTraining.from_pretrained(folder, **kwargs)
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, **kwargs)
    delineator = AutoModelForTokenClassification.from_pretrained(folder, num_labels=4, **kwargs)
    for loaded in (config, extractor, processor, encoder, pretraining, classifier, delineator):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded).__module__
    inputs = extractor(signal, sampling_rate=100, leads=["II", "I", "V1"], unit="mV")
    again_inputs = processor(signal, sampling_rate=100, leads=["II", "I", "V1"], unit="mV")
    assert torch.equal(again_inputs.input_values, inputs.input_values)
    found[folder] = {
        "feature": encoder(**inputs).pooler_output.sum().item(),
        "loss": pretraining.eval()(**inputs).loss.item(),
        "logits": classifier(**inputs).logits.shape,
        "sample_logits": delineator(**inputs).logits.shape,
    }
    classifier.save_pretrained(f"{folder}/again")  # what was loaded as remote code ships its code too
    AutoModelForSequenceClassification.from_pretrained(f"{folder}/again", **kwargs)
    processor.save_pretrained(f"{folder}/again")
    AutoProcessor.from_pretrained(f"{folder}/again", **kwargs)
print(json.dumps(found))
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


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
DECODER = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
DECODER |= {"decoder_intermediate_size": 32, "mask_ratio": 0.4, "head_dim": 8}
FAMILIES = {
    "EcgJepa": JEPA,
    "KernelResponse": {"num_kernels": 6, "beat_target_size": 2},
    "EcgCpc": SIZES,
    "EcgLeNepa": SIZES,
    "EcgS4Jepa": SIZES,
    "StMem": SIZES | DECODER | {"patch_size": 50},
    "Mtae": SIZES | DECODER | {"patch_size": 50},
    "Mlae": SIZES | DECODER,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    for family, fields in FAMILIES.items():
        torch.manual_seed(0)
        config = getattr(modeling, f"{family}Config")(**INPUT, **fields)
        getattr(modeling, f"{family}ForPreTraining")(config).save_pretrained(root / family)
        modeling.EcgFeatureExtractor(**INPUT).save_pretrained(root / family)
    return root


@pytest.mark.parametrize(
    "families",
    [
        ("EcgJepa",),
        pytest.param(("KernelResponse", "EcgCpc", "EcgLeNepa", "EcgS4Jepa"), marks=pytest.mark.slow),
        pytest.param(("StMem", "Mtae", "Mlae"), marks=pytest.mark.slow),
    ],
)
def test_one_folder_serves_every_auto_class_without_this_package(folders, families, tmp_path):
    command = [sys.executable, "-c", LOAD_EVERYTHING, *(str(folders / family) for family in families)]
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert finished.returncode == 0, finished.stderr[-3000:]
    signal = torch.sin(torch.arange(3000, dtype=torch.float64).reshape(1, 3, 1000) / 20)[:, [1, 0, 2]].float()
    for folder, found in json.loads(finished.stdout).items():
        model = AutoModelForPreTraining.from_pretrained(folder).eval()
        assert found["feature"] == pytest.approx(model.ecg_vit(signal).pooler_output.sum().item(), abs=1e-3)
        assert found["loss"] == pytest.approx(model(signal).loss.item(), abs=1e-5, rel=1e-5)
        assert (found["logits"], found["sample_logits"]) == ([1, 3], [1, 3, 1000, 4])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_configuration_names_every_auto_class(folders, family):
    config = json.loads((folders / family / "config.json").read_text())
    module = {"mtae": "st_mem", "mlae": "st_mem"}.get(config["model_type"], config["model_type"])
    assert config["auto_map"] == {
        "AutoConfig": f"configuration_{module}.{family}Config",
        "AutoModel": f"modeling_{module}.{family}Model",
        "AutoModelForPreTraining": f"modeling_{module}.{family}ForPreTraining",
        "AutoModelForSequenceClassification": f"modeling_{module}.{family}ForSequenceClassification",
        "AutoModelForTokenClassification": f"modeling_{module}.{family}ForTokenClassification",
    }
    preprocessor = json.loads((folders / family / "preprocessor_config.json").read_text())
    assert preprocessor["auto_map"] == {
        "AutoFeatureExtractor": "feature_extraction_ecg.EcgFeatureExtractor",
        "AutoProcessor": "feature_extraction_ecg.EcgProcessor",
    }
