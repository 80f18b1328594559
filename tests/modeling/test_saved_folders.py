"""Folders that an earlier version saved load as they did: the same tensors, the same input, the same output.

`tests/fixtures/saved_models` holds a tiny folder of every public model, named after its class, with what it put out
when it was saved (`outputs.safetensors`). They were made once and are never made again, or they would prove nothing;
a new class gets a folder of its own by `python tests/modeling/test_saved_folders.py`, which makes those that are
lacking.
"""

import json
import logging
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
    PreTrainedModel,
)

from ecg_transformers import modeling
from ecg_transformers.modeling import EcgFeatureExtractor, EcgProcessor, EcgVqVaeTokenizer
from ecg_transformers.modeling.masking import DrawKeys

FOLDERS = Path(__file__).parents[1] / "fixtures" / "saved_models"
MODELS = sorted(
    name
    for name in modeling.__all__
    if isinstance(getattr(modeling, name), type) and issubclass(getattr(modeling, name), PreTrainedModel)
)
AUTO_CLASSES = {
    "ForPreTraining": AutoModelForPreTraining,
    "ForSequenceClassification": AutoModelForSequenceClassification,
    "ForTokenClassification": AutoModelForTokenClassification,
    "Model": AutoModel,
}
NUM_RECORDS, NUM_LABELS, MAX_BYTES = 3, 3, 60_000
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # of float32 on another CPU

# Of new folders; those that there are keep what they were saved with.
INPUT = {"leads": ("I", "II", "V2"), "sampling_rate": 100, "num_samples": 40}
SIZE = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VIT = INPUT | SIZE | {"patch_size": 5, "embedding_size": 4, "embedding_hidden_size": 8}
PREDICTOR = {f"predictor_{name}": value for name, value in SIZE.items()}
DECODER = {f"decoder_{name}": value for name, value in SIZE.items()}
SIGREG = {"projector_hidden_size": 8, "projection_size": 4, "num_slices": 4}
PUBLISHED = INPUT | SIZE | {"num_samples": 200, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
CONV = INPUT | {"hidden_size": 8, "stem_widths": (4, 8), "stem_depths": (1, 1), "embedding_size": 4}
S4 = {name: INPUT[name] for name in ("leads", "sampling_rate")} | {"num_samples": 48, "patch_size": 2}
S4 |= {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_stem_layers": 2, "state_size": 2}
FIELDS = {
    "EcgCpc": S4 | {"num_negatives": 3, "horizon_ms": 40},
    "EcgLeNepa": VIT | {"projector_hidden_size": 8, "projection_size": 4, "num_slices": 4},
    "EcgS4Jepa": S4 | {"mask_ratio": (0.2, 0.3), "num_mask_blocks": 2, "predictor_state_size": 2},
    "EcgS4": S4,
    "EcgConv": CONV,
    "EcgFm": PUBLISHED | {"conv_dim": (8,) * 4},
    "EcgFounder": INPUT
    | {"num_samples": 200, "stem_channels": 4, "stage_channels": (4, 8), "stage_depths": (1, 1), "group_width": 2},
    "EcgJepa": VIT | PREDICTOR | {"mask_type": "random", "mask_ratio": (0.4, 0.6)},
    "EcgViT": VIT | {"num_registers": 1, "layer_scale_init_value": 0.1},
    "EcgVqVae": VIT | DECODER | {"latent_size": 8, "num_codes": 8},
    "HubertEcg": PUBLISHED | {"conv_dim": (8,) * 5},
    "KernelResponse": CONV
    | {"view_samples": 24, "num_kernels": 6, "target_size": 2, "beat_target_size": 2}
    | {"variance_weight": 0.5, "projector_hidden_size": 8, "projection_size": 4},
    "LeadStatistics": INPUT,
    "LeJepa": VIT | SIGREG | {"num_views": 2},
    "Mlae": VIT | DECODER | {"patch_size": None, "head_dim": 4, "mask_ratio": 0.5},
    "Mtae": VIT | DECODER | {"head_dim": 4},
    "RandomKernels": INPUT | {"num_kernels": 6},
    "SigRegJepa": VIT | PREDICTOR | SIGREG | {"mask_ratio": (0.5, 0.7), "min_segment_patches": 2},
    "StMem": VIT | DECODER | {"head_dim": 4},
}


def signals(num_leads: int, num_samples: int) -> torch.Tensor:
    """Records of two tones a lead, in mV: the same on every machine."""
    record, lead, time = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64) for n in (NUM_RECORDS, num_leads, num_samples)), indexing="ij"
    )
    turn = 2 * math.pi * time / 40
    return 0.8 * torch.sin((1 + record) * turn + lead) + 0.3 * torch.cos((3 + 2 * lead) * turn + record**2)


@torch.no_grad()
def outputs_of(
    model: PreTrainedModel, extractor: EcgFeatureExtractor, mask: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Every tensor that the model puts out for the records, and what the feature extractor made of these.

    Args:
        mask: What an earlier version drew from the keys below, for a model that draws other numbers since.
    """
    config, name = model.config, type(model).__name__
    declared = {"sampling_rate": config.sampling_rate, "leads": list(config.leads), "unit": "mV"}
    records = [record.float().numpy() for record in signals(len(config.leads), config.num_samples)]
    values = torch.cat([extractor(record, **declared)["input_values"] for record in records])
    inputs = {"input_values": values}
    if name.endswith("ForPreTraining"):
        inputs |= model.draw_inputs(values, DrawKeys(seed=0, step=1, epoch=2, sample_ids=(3, 4, 5)))
        if mask is not None:
            inputs = {key: value for key, value in inputs.items() if not key.endswith("_patches")}
            inputs["bool_masked_pos"] = mask
    elif name.endswith("ForSequenceClassification"):
        inputs["labels"] = torch.eye(NUM_RECORDS, NUM_LABELS)
    elif name.endswith("ForTokenClassification"):
        inputs["labels"] = (torch.arange(values.numel()) % NUM_LABELS).view(values.shape)
    elif name.endswith("ForEmbedding"):
        inputs["labels"] = torch.arange(NUM_RECORDS) % 2
    outputs = {key: value for key, value in model.eval()(**inputs).items() if isinstance(value, torch.Tensor)}
    if name == "EcgVqVaeModel":
        outputs |= {f"tokenized_{kind}": EcgVqVaeTokenizer(model, kind)(values) for kind in ("codes", "latents")}
    return outputs | inputs


def make_folder(name: str, folder: Path):
    """Saves a model whose every weight is random, so that none can change places with another, and its outputs."""
    family = next(family for family in FIELDS if name.startswith(family))
    fields = FIELDS[family]
    if name.endswith("Classification"):
        labels = {number: f"label {number}" for number in range(NUM_LABELS)}
        fields = fields | {"id2label": labels, "label2id": {label: number for number, label in labels.items()}}
    if name.endswith("ForSequenceClassification"):
        calibration = {"labels": list(labels.values()), "temperature": 1.5, "thresholds": {"label 1": 0.25}}
        fields = fields | {"problem_type": "multi_label_classification", "calibration": calibration}
    torch.manual_seed(0)
    model = getattr(modeling, name)(getattr(modeling, f"{family}Config")(**fields))
    with torch.no_grad():
        for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape))
    if name == "KernelResponseForPreTraining":
        model.fit_targets([{"input_values": signals(3, 40).float()}])
    contract = {field: fields[field] for field in INPUT}
    extractor = EcgFeatureExtractor(**contract, normalization="lead", clip=5.0)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    for source in folder.glob("*.py"):
        source.unlink()
    outputs = outputs_of(getattr(modeling, name).from_pretrained(folder), extractor)
    save_file({key: value.clone().contiguous() for key, value in outputs.items()}, folder / "outputs.safetensors")


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_folder_loads_whole_by_its_auto_class_and_puts_out_what_it_did(name):
    folder, model_class = FOLDERS / name, getattr(modeling, name)
    assert (folder / "config.json").is_file(), (
        f"There is no saved folder of {name}: add the fields of a tiny one to FIELDS if they are not there, run "
        "`python tests/modeling/test_saved_folders.py`, and commit the folder that it makes."
    )
    auto_class = next(
        (auto_class for ending, auto_class in AUTO_CLASSES.items() if name.endswith(ending)), model_class
    )
    model, loading = auto_class.from_pretrained(folder, output_loading_info=True)
    assert type(model) is model_class and not any(loading.values()), loading
    assert json.loads((folder / "config.json").read_text())["architectures"] == [name]
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    expected = load_file(folder / "outputs.safetensors")
    draws_otherwise = name.endswith("ForPreTraining") and model.random_stream is not None
    outputs = outputs_of(model, extractor, expected["bool_masked_pos"] if draws_otherwise else None)
    assert outputs.keys() >= expected.keys()  # indices of a mask travel beside it since
    for key in expected:
        torch.testing.assert_close(
            outputs[key], expected[key], **TOLERANCE, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_an_encoder_comes_out_of_the_folders_of_its_heads():
    for name in (name for name in MODELS if "For" in name):
        family = next(family for family in FIELDS if name.startswith(family))
        _, loading = getattr(modeling, f"{family}Model").from_pretrained(FOLDERS / name, output_loading_info=True)
        assert not loading["missing_keys"], name


def test_auto_processor_loads_what_auto_feature_extractor_does():
    for name in MODELS:
        processor = AutoProcessor.from_pretrained(FOLDERS / name)
        assert isinstance(processor, EcgProcessor), name
        expected = AutoFeatureExtractor.from_pretrained(FOLDERS / name).to_dict()
        assert processor.feature_extractor.to_dict() == expected, name


def test_a_stored_calibration_is_kept():
    for name in MODELS:
        if name.endswith("ForSequenceClassification"):
            config = getattr(modeling, name).config_class.from_pretrained(FOLDERS / name)
            assert config.calibration["temperature"] == 1.5, name
            assert config.calibration["thresholds"] == {"label 1": 0.25}, name


def test_the_folders_are_those_of_the_public_models_and_small():
    held = {folder.name for folder in FOLDERS.iterdir()}
    assert held == set(MODELS), (
        f"lacking: {sorted(set(MODELS) - held)}; of no public model: {sorted(held - set(MODELS))}"
    )
    sizes = {name: sum(file.stat().st_size for file in (FOLDERS / name).iterdir()) for name in MODELS}
    assert max(sizes.values()) <= MAX_BYTES, sizes
    assert not list(FOLDERS.rglob("*.py"))


def main():
    """Makes the folders that are lacking."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for name in MODELS:
        if not (FOLDERS / name).exists():
            make_folder(name, FOLDERS / name)
            logging.info("Made %s", FOLDERS / name)


if __name__ == "__main__":
    main()
