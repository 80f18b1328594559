import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoFeatureExtractor

from ecg_transformers import carried_model, modeling
from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.hub import export
from ecg_transformers.modeling import (
    METHODS,
    EcgConvConfig,
    EcgConvForTokenClassification,
    EcgFeatureExtractor,
    EcgFounderConfig,
    EcgJepaConfig,
    EcgJepaForPreTraining,
    EcgViTConfig,
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
    KernelResponseConfig,
    MlaeConfig,
)
from ecg_transformers.train.cli import main
from ecg_transformers.train.metrics import macro_auroc

from ..train.conftest import SIZE

REPOSITORY = Path(__file__).parents[2]
LEADS = ("I", "II", "V1")
TINY = SIZE | {"leads": LEADS, "sampling_rate": 100, "num_samples": 500, "patch_size": 50, "num_labels": 4}
STEM = {"stem": "conv", "stem_widths": (8, 16), "stem_depths": (0, 1), "stem_strides": (10, 5), "stem_kernel": 15}
CLASSES = [(EcgViTConfig, EcgViTModel), (EcgViTConfig, EcgViTForSequenceClassification)]
CLASSES += [
    (getattr(modeling, f"{method}Config"), getattr(modeling, f"{method}{ending}"))
    for method in METHODS
    for ending in ("Model", "ForSequenceClassification")
]


def save(folder, model_class, config_class=EcgViTConfig, **settings):
    torch.manual_seed(0)
    settings = TINY | settings
    if config_class is MlaeConfig:  # a token is a whole lead
        del settings["patch_size"]
    if config_class in (EcgConvConfig, KernelResponseConfig):
        settings |= STEM | {"num_hidden_layers": 0, "stem_depths": (1, 1)}
    if config_class is KernelResponseConfig:
        settings["view_samples"] = 250
    model_class(config_class(**settings)).save_pretrained(folder)
    contract = {key: settings[key] for key in ("leads", "sampling_rate", "num_samples")}
    EcgFeatureExtractor(
        **contract, beat_channels=("r_peaks",) if settings.get("extra_channels") else ()
    ).save_pretrained(folder)
    return str(folder)


def eager(model, input_values, **inputs):
    with torch.no_grad():
        outputs = model(input_values, **inputs)
    return [outputs[name].numpy() for name in export.output_names(model)]


def assert_parity(folder, path, largest=export.LARGEST_DIFFERENCE):
    """Against the model as everybody loads it, for batches and absent leads that the export has not seen."""
    model = export.load_for_export(folder)
    model.set_attn_implementation("sdpa")
    function = export.onnx_function(path)
    rows = len(LEADS) + model.config.extra_channels
    for batch_size in (1, 4):
        input_values = torch.randn(batch_size, rows, 500, generator=torch.Generator().manual_seed(batch_size))
        everything = torch.ones(batch_size, len(LEADS), dtype=torch.bool)
        some = everything.clone()
        some[-1, 0] = False
        for lead_mask, inputs in ((everything, {}), (some, {"lead_mask": some})):
            found = function((input_values, lead_mask))
            for output, truth in zip(found, eager(model, input_values, **inputs), strict=True):
                np.testing.assert_allclose(output, truth, rtol=0, atol=largest)


@pytest.mark.slow
@pytest.mark.parametrize(("config_class", "model_class"), CLASSES, ids=lambda value: value.__name__)
def test_onnx_says_what_the_model_says(tmp_path, config_class, model_class):
    folder = save(tmp_path / "model", model_class, config_class)
    assert_parity(folder, export.export_model(folder, "onnx", tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "settings"),
    [
        (EcgViTForSequenceClassification, {"classifier_pooling": "attentive", "num_registers": 2}),
        (EcgViTForSequenceClassification, {"patching": "all_leads", "patch_norm": True}),
        (EcgViTModel, {"extra_channels": 1}),
        (EcgViTForTokenClassification, {}),
        (EcgViTForEmbedding, {"embedding_size": 8}),
        (EcgViTModel, STEM | {"pooling": "statistics", "pooled_stages": (0,)}),
        (EcgViTModel, STEM | {"patching": "all_leads", "pooled_layer": "mean_last_half", "num_hidden_layers": 2}),
        (EcgConvForTokenClassification, {"config_class": EcgConvConfig}),
    ],
    ids=[
        "attentive",
        "all_leads",
        "extra_channels",
        "tokens",
        "embedding",
        "stem",
        "stem of all leads",
        "convolutional",
    ],
)
def test_onnx_of_other_heads_and_grids_says_what_the_model_says(tmp_path, model_class, settings):
    folder = save(tmp_path / "model", model_class, **settings)
    assert_parity(folder, export.export_model(folder, "onnx", tmp_path))


@pytest.mark.slow
def test_an_onnx_file_tells_how_to_feed_it_and_its_classes(tmp_path):
    calibration = {"labels": ["a", "b", "c", "d"], "temperature": 1.5}
    names = dict(enumerate("abcd"))
    folder = save(
        tmp_path / "model",
        EcgViTForSequenceClassification,
        id2label=names,
        label2id={name: number for number, name in names.items()},
        problem_type="multi_label_classification",
        calibration=calibration,
    )
    path = export.export_model(folder, "onnx", tmp_path / "out")
    assert str(REPOSITORY).encode() not in path.read_bytes()  # nothing of the machine that wrote it
    loaded = onnx.load(path)
    facts = {entry.key: entry.value for entry in loaded.metadata_props}
    assert json.loads(facts["leads"]) == list(LEADS)
    assert (facts["sampling_rate"], facts["num_samples"], facts["unit"]) == ("100", "500", "mV")
    assert json.loads(facts["id2label"]) == {str(number): name for number, name in names.items()}
    assert json.loads(facts["calibration"]) == calibration
    assert loaded.opset_import[0].version == export.ONNX_OPSET
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*loaded.graph.input, *loaded.graph.output)
    }
    assert shapes == {"input_values": ["batch", 3, 500], "lead_mask": ["batch", 3], "logits": ["batch", 4]}
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "out").leads == LEADS


@pytest.mark.slow
def test_a_torch_program_goes_round_without_pickles(tmp_path):
    folder = save(tmp_path / "model", EcgViTForSequenceClassification)
    path = export.export_model(folder, "torch-export", tmp_path)
    extra = {export.METADATA_FILE: ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra[export.METADATA_FILE])["torch"] == torch.__version__
    model = export.load_for_export(folder)
    input_values, lead_mask = torch.randn(5, 3, 500), torch.ones(5, 3, dtype=torch.bool)
    torch.testing.assert_close(program(input_values, lead_mask)[0], model(input_values).logits, rtol=0, atol=1e-5)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not content.startswith((b"PK", b"\x80")), name  # torch.save, pickle
            assert b'"use_pickle": true' not in content, name
            assert str(REPOSITORY).encode() not in content, name


@pytest.mark.slow
def test_int8_of_a_model_without_linear_layers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'onnx'"):
        export.export_model(carried_model("ecg-small-superdiagnostic"), "int8", tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.slow
def test_int8_is_smaller_and_loses_little_auroc(tmp_path):
    names = label_names("ptb-xl-sample")
    width = {"hidden_size": 96, "intermediate_size": 384, "initializer_range": 0.07, "num_labels": len(names)}
    folder = save(tmp_path / "model", EcgViTForSequenceClassification, **width)
    extractor, model = EcgFeatureExtractor.from_pretrained(folder), export.load_for_export(folder)
    rows = list(load_ecg("ptb-xl-sample", split="train", decode=False))
    inputs = extractor([row["ecg"] for row in rows])["input_values"]
    truth = np.array([[name in row["labels"] for name in names] for row in rows], dtype=int)
    with torch.no_grad():
        features = model.ecg_vit(inputs).pooler_output.double()
        mean, deviation = features.mean(0), features.std(0)
        for number in range(len(names)):
            head = LogisticRegression(C=0.1, max_iter=1000).fit((features - mean) / deviation, truth[:, number])
            weight = torch.from_numpy(head.coef_[0]) / deviation
            model.classifier.weight[number] = weight
            model.classifier.bias[number] = torch.from_numpy(head.intercept_)[0] - weight @ mean
    model.save_pretrained(folder)
    path = export.export_model(folder, "int8", tmp_path)
    assert path.name == "model.int8.onnx"
    assert path.stat().st_size < 0.6 * (tmp_path / "model" / "model.safetensors").stat().st_size
    (int8,) = export.onnx_function(path)((inputs, torch.ones(len(inputs), len(LEADS), dtype=torch.bool)))
    (float32,) = eager(model, inputs)
    auroc = {name: macro_auroc(truth, scores, names).value for name, scores in (("8", int8), ("32", float32))}
    assert auroc["32"] > 0.65
    assert abs(auroc["8"] - auroc["32"]) < 0.02
    assert not np.array_equal(int8, float32)


@pytest.mark.slow
def test_the_rows_of_hybrid_input_are_the_leads_and_then_the_extra_channels(tmp_path):
    folder = save(tmp_path / "model", EcgViTModel, extra_channels=1)
    path = export.export_model(folder, "onnx", tmp_path / "out")
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(facts["rows"]) == [*LEADS, "r_peaks"] and json.loads(facts["leads"]) == list(LEADS)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    signal = load_ecg("ptb-xl-sample", split="test")[0]["ecg"]
    values = extractor(signal)["input_values"]
    assert values.shape[1:] == (4, 500)
    mask = torch.ones(len(values), 3, dtype=torch.bool)  # the extra channel has no place in it
    model = export.load_for_export(folder)
    for output, truth in zip(export.onnx_function(path)((values, mask)), eager(model, values), strict=True):
        np.testing.assert_allclose(output, truth, rtol=0, atol=export.LARGEST_DIFFERENCE)


def test_a_feature_extractor_of_other_rows_is_refused(tmp_path):
    folder = save(tmp_path / "model", EcgViTModel, extra_channels=1)
    EcgFeatureExtractor(leads=LEADS, sampling_rate=100, num_samples=500).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"gives the beat_channels \[\], the model reads 1 extra_channels"):
        export.export_model(folder, "onnx", tmp_path / "out")


def test_models_that_are_no_one_graph_are_refused(tmp_path):
    EcgFounderConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="ecg_founder.*not one graph"):
        export.load_for_export(str(tmp_path))


@pytest.mark.slow
def test_the_command_exports_the_encoder_of_a_pretraining_checkpoint(tmp_path):
    mask = {"min_segment_patches": 2, "num_mask_blocks": 1}
    predictor = {f"predictor_{key}": TINY[key] for key in ("hidden_size", "num_attention_heads", "intermediate_size")}
    folder = save(tmp_path / "model", EcgJepaForPreTraining, EcgJepaConfig, **mask, **predictor)
    output = tmp_path / "out"
    assert main(["export", "--model", folder, "--format", "onnx", "--output_dir", str(output)]) == 0
    names = {path.name for path in output.iterdir()}
    assert {"model.onnx", "preprocessor_config.json"} <= names and all(map(export.WRITTEN.fullmatch, names))
    assert_parity(folder, output / "model.onnx")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="torch-export"):
        export.export_model("nowhere", "tflite", tmp_path)


def test_a_missing_library_is_named_with_its_cure(tmp_path, monkeypatch):
    folder = save(tmp_path / "model", EcgViTModel)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r'pip install "ecg-transformers\[onnx\]"'):
        export.export_model(folder, "onnx", tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_a_file_that_differs_from_its_model_is_refused(tmp_path):
    model = export.load_for_export(save(tmp_path, EcgViTForSequenceClassification))

    def exported(inputs):
        return [output + 2e-4 for output in eager(model, inputs[0], lead_mask=inputs[1])]

    with pytest.raises(ValueError, match="differs from the model by 0.0002"):
        export.check_parity(model, exported)
    assert export.check_parity(model, exported, largest=None) == pytest.approx(2e-4, rel=1e-2)


def test_a_file_without_the_lead_mask_would_be_noticed(tmp_path):
    model = export.load_for_export(save(tmp_path, EcgViTForSequenceClassification, initializer_range=0.5))
    with pytest.raises(ValueError, match="differs"):
        export.check_parity(model, lambda inputs: eager(model, inputs[0]))


@pytest.mark.slow
def test_an_executorch_file_says_what_the_model_says(tmp_path):
    pytest.importorskip("executorch", reason="needs executorch")
    path = export.export_model(carried_model("ecg-small-superdiagnostic"), "executorch", tmp_path)
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    test = load_ecg("ptb-xl-sample", split="test").select(range(4))
    values = AutoFeatureExtractor.from_pretrained(tmp_path)([row["ecg"] for row in test])["input_values"]
    mask = torch.ones(values.shape[:2], dtype=torch.bool)
    (logits,) = program.load_method("forward").execute([values, mask])
    model = export.load_for_export(carried_model("ecg-small-superdiagnostic"))
    torch.testing.assert_close(logits, model(values, lead_mask=mask).logits, rtol=0, atol=1e-4)
    assert json.loads((tmp_path / export.METADATA_FILE).read_text())["model_type"] == "kernel_response"
    assert all(map(export.WRITTEN.fullmatch, (file.name for file in tmp_path.iterdir())))
