"""`ecg-transformers export`: a checkpoint becomes one file that runs without our code (ONNX, int8, ExecuTorch) or
without Python source (`torch.export`).

All read `input_values` float32 `(batch, rows, num_samples)` and `lead_mask` bool `(batch, num_leads)`, `True` =
recorded, for any batch. Rows are the leads and then, for a model of hybrid input, its extra channels, which are always
there and have no place in the mask. Fewer leads are zeros with `False` in the mask, which takes them out of attention
and pooling as in the model itself. Recordings become that input by the feature extractor, which lies beside the file,
and whose essentials the file repeats (`metadata_props` of ONNX, extra files of `torch.export`, a JSON file beside
that of ExecuTorch).
"""

import argparse
import importlib.util
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedModel

from ecg_transformers import modeling
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.calibration import calibration_of
from ecg_transformers.train.run_folder import claim_output_dir

logger = logging.getLogger("ecg_transformers")

WRITTEN = re.compile(
    r"model(\.int8)?\.onnx(\.data)?|model\.(pt2|pte)|ecg_transformers\.json|preprocessor_config\.json|.*\.py"
)
ONNX_OPSET = 20
LARGEST_DIFFERENCE = 1e-4
"""Between the file and the model, over all outputs, before the export of a float model counts as failed."""

INPUT_NAMES = ("input_values", "lead_mask")
ENCODER_OUTPUTS = ("pooler_output", "last_hidden_state")
HEAD_OUTPUTS = {
    "ForSequenceClassification": ("logits",),
    "ForTokenClassification": ("logits",),
    "ForEmbedding": ("embeddings",),
}
METADATA_FILE = "ecg_transformers.json"  # within a .pt2 file, beside a .pte file
EXECUTORCH_BATCH = 64  # largest batch of a .pte file, whose memory is planned ahead


def run(args: argparse.Namespace):
    """The command."""
    logger.setLevel(logging.INFO)
    for chatty in (None, "torch.onnx"):  # exporter and quantiser log every node on the root logger
        logging.getLogger(chatty).setLevel(logging.ERROR)
    claim_output_dir(args.output_dir, args.overwrite_output_dir, written=WRITTEN, reads=args.model)
    path = export_model(args.model, args.format, args.output_dir)
    logger.info("Wrote %s (%.1f MB) and its feature extractor", path, path.stat().st_size / 1e6)


def export_model(checkpoint: str, file_format: str, output_dir: str | Path) -> Path:
    """Exports a checkpoint, and saves its feature extractor beside it.

    Args:
        checkpoint (`str`): Folder or id of a model with its feature extractor; of pretraining, its encoder.
        file_format (`str`):
            `"onnx"` → `model.onnx`; `"int8"` → `model.int8.onnx`, see [`quantize_onnx`]; `"torch-export"` →
            `model.pt2`, see [`save_program`]; `"executorch"` → `model.pte`, see [`write_executorch`].
        output_dir (`str`): Folder to write to.

    Returns:
        `Path` of the file. Its outputs are `pooler_output` and `last_hidden_state` of an encoder, `logits` of a
        classifier (before sigmoid and temperature, of one window each), `embeddings` of an embedding model.

    Raises:
        ValueError: for an unknown format, a missing library, a feature extractor of other rows than the model's, or a
            file whose outputs differ from the model's.
    """
    if file_format not in FORMATS:
        raise ValueError(f"Expected format of {list(FORMATS)}, got {file_format!r}.")
    feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    model = load_for_export(checkpoint)
    if len(feature_extractor.beat_channels) != model.config.extra_channels:
        raise ValueError(
            f"The feature extractor of {checkpoint} gives the beat_channels {list(feature_extractor.beat_channels)}, "
            f"the model reads {model.config.extra_channels} extra_channels: save the two that belong together."
        )
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = FORMATS[file_format](model, feature_extractor, folder)
    feature_extractor.save_pretrained(folder)
    return path


def load_for_export(checkpoint: str) -> PreTrainedModel:
    """The model of a checkpoint in float32 and evaluation mode, with the attention that every format can hold."""
    config = AutoConfig.from_pretrained(checkpoint)
    if not isinstance(config, modeling.EcgViTConfig):
        raise ValueError(
            f"{checkpoint} is of the type {config.model_type}, whose forward asks which leads are absent: it is not "
            "one graph. The export is for EcgViT and the methods built on it."
        )
    name = (config.architectures or [""])[0]
    model_class = vars(modeling).get(name) if _head(name) else AutoModel
    if model_class is None:
        raise ValueError(f"{checkpoint} was saved as {name}, which this package does not have: export it yourself.")
    model = model_class.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    return model.eval().requires_grad_(False)


def output_names(model: PreTrainedModel) -> tuple[str, ...]:
    return HEAD_OUTPUTS.get(_head(type(model).__name__), ENCODER_OUTPUTS)


def _head(class_name: str) -> str | None:
    return next((head for head in HEAD_OUTPUTS if class_name.endswith(head)), None)


def describe(model: PreTrainedModel, feature_extractor: EcgFeatureExtractor) -> dict[str, str]:
    """Facts for a reader of the file, as strings; everything but plain names and numbers is JSON."""
    config = model.config
    facts = {
        "model_type": config.model_type,
        "architecture": type(model).__name__,
        "leads": json.dumps(list(config.leads)),
        "rows": json.dumps([*config.leads, *feature_extractor.beat_channels]),
        "sampling_rate": str(config.sampling_rate),
        "num_samples": str(config.num_samples),
        "unit": feature_extractor.unit,
        "preprocessor_config": json.dumps(json.loads(feature_extractor.to_json_string())),
    }
    if output_names(model) == ("logits",):
        facts["id2label"] = json.dumps(config.id2label)
        facts["problem_type"] = config.problem_type or ""
        facts["calibration"] = json.dumps(calibration_of(config))
    return facts


class _TensorsOnly(nn.Module):
    """A model as a function of its two inputs, which gives a tuple of tensors."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model, self.names = model, output_names(model)

    def forward(self, input_values: torch.Tensor, lead_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.model(input_values, lead_mask=lead_mask)
        return tuple(outputs[name] for name in self.names)


def export_program(model: PreTrainedModel, largest_batch: int | None = None) -> torch.export.ExportedProgram:
    """The graph of a model for any batch (up to the largest, where one is given), by `torch.export`."""
    batch = torch.export.Dim("batch", max=largest_batch)
    inputs = _example_inputs(model, batch_size=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="While compiling, we found certain side effects")
        # Strict, because plain tracing takes the `len` of a tensor for a constant.
        program = torch.export.export(
            _TensorsOnly(model), inputs, dynamic_shapes=({0: batch}, {0: batch}), strict=True
        )
    for module in program.graph_module.modules():
        for node in module.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def save_program(model: PreTrainedModel, feature_extractor: EcgFeatureExtractor, folder: Path) -> Path:
    """Writes `model.pt2`: a zip file by `torch.export.save` with the graph as JSON, the weights, and our metadata.

    `torch.export.load` reads it without our code. PyTorch does not promise to read files of another of its versions:
    load it with the one that wrote it, and keep the safetensors to export again.
    """
    path = folder / "model.pt2"
    facts = describe(model, feature_extractor) | {"torch": torch.__version__}
    program = export_program(model)
    program.example_inputs = None  # the one part that would be pickled
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(facts)})
    loaded = torch.export.load(path).module()
    check_parity(model, lambda inputs: [output.numpy() for output in loaded(*inputs)])
    return path


def write_executorch(model: PreTrainedModel, feature_extractor: EcgFeatureExtractor, folder: Path) -> Path:
    """Writes `model.pte` for the runtime of ExecuTorch (phones, microcontrollers), with its portable operators and for
    batches of at most `EXECUTORCH_BATCH`, and the facts of [`describe`] beside it."""
    if importlib.util.find_spec("executorch") is None:
        raise ValueError('ExecuTorch files need executorch: pip install "ecg-transformers[executorch]"')
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    path = folder / "model.pte"
    program = export_program(model, largest_batch=EXECUTORCH_BATCH)
    path.write_bytes(to_edge_transform_and_lower(program).to_executorch().buffer)
    (folder / METADATA_FILE).write_text(json.dumps(describe(model, feature_extractor)), encoding="utf-8")
    loaded = Runtime.get().load_program(path)
    method = loaded.load_method("forward")
    check_parity(model, lambda inputs: [output.numpy() for output in method.execute(list(inputs))])
    return path


def write_onnx(model: PreTrainedModel, feature_extractor: EcgFeatureExtractor, folder: Path) -> Path:
    """Writes `model.onnx` of opset `ONNX_OPSET`, for any batch, with the facts of [`describe`]."""
    _require_onnx()
    path = folder / "model.onnx"
    program = torch.onnx.export(
        export_program(model),
        dynamo=True,
        dynamic_shapes=({0: "batch"}, {0: "batch"}),
        input_names=list(INPUT_NAMES),
        output_names=list(output_names(model)),
        opset_version=ONNX_OPSET,
        verbose=False,
    )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # for debugging the exporter; as large as a small model
    program.model.metadata_props.update(describe(model, feature_extractor))
    program.save(path)
    check_parity(model, onnx_function(path))
    return path


def write_int8(model: PreTrainedModel, feature_extractor: EcgFeatureExtractor, folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as temporary:
        source = write_onnx(model, feature_extractor, Path(temporary))
        path = quantize_onnx(source, folder / "model.int8.onnx")
    difference = check_parity(model, onnx_function(path), largest=None)
    logger.info("On noise of unit variance its outputs differ from those in float32 by up to %.2g", difference)
    return path


def quantize_onnx(source: Path, target: Path) -> Path:
    """Dynamic 8-bit quantisation of an ONNX file by onnxruntime: weights of linear layers with a scale for each output
    channel, their inputs quantised as they come; attention, norms and the head of a classifier stay in float32.

    The weights are unsigned, because sums of signed ones saturate at 16 bits on x86 processors without VNNI: measured,
    logits then move eight times as far.
    """
    _require_onnx()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source)
    # The quantiser transposes weights and then trips over the shapes that were noted for them.
    del graph.graph.value_info[:]
    heads = [f"{node.name}_MatMul" for node in graph.graph.node if node.op_type == "Gemm"]  # as it renames them
    settings = {"weight_type": QuantType.QUInt8, "per_channel": True, "op_types_to_quantize": ["MatMul"]}
    quantize_dynamic(graph, target, nodes_to_exclude=heads, **settings)
    if not any("Integer" in node.op_type for node in onnx.load(target).graph.node):
        target.unlink()
        raise ValueError(
            "int8 quantises linear layers, and this model has none but its head: a convolutional encoder gains "
            "nothing. Export it with the format 'onnx'."
        )
    return target


def onnx_function(path: str | Path) -> Callable[[tuple[torch.Tensor, ...]], list[np.ndarray]]:
    """An ONNX file as a function of the two inputs, run by onnxruntime on the CPU."""
    _require_onnx()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def call(inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
        return session.run(None, {name: value.numpy() for name, value in zip(INPUT_NAMES, inputs, strict=True)})

    return call


def check_parity(
    model: PreTrainedModel,
    exported: Callable[[tuple[torch.Tensor, ...]], list[np.ndarray]],
    largest: float | None = LARGEST_DIFFERENCE,
) -> float:
    """The largest absolute difference of a file's outputs from its model's, for batches of 1 and 3 with absent leads;
    a `ValueError` above `largest`."""
    difference = 0.0
    wrapped = _TensorsOnly(model)
    for batch_size in (1, 3):
        inputs = _example_inputs(model, batch_size)
        with torch.no_grad():
            expected = wrapped(*inputs)
        for output, truth in zip(exported(inputs), expected, strict=True):
            difference = max(difference, float(np.abs(output - truth.numpy()).max()))
    if largest is not None and not difference <= largest:
        raise ValueError(
            f"The exported file differs from the model by {difference:.2g}, more than {largest:g}: do not use it."
        )
    return difference


def _example_inputs(model: PreTrainedModel, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of unit variance; in every record but the first a lead is absent, where there are several."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    num_leads = len(config.leads)
    shape = (batch_size, num_leads + config.extra_channels, config.num_samples)
    lead_mask = torch.ones(batch_size, num_leads, dtype=torch.bool)
    if num_leads > 1:
        lead_mask[1:, -1] = False
    return torch.randn(shape, generator=generator), lead_mask


def _require_onnx():
    for name in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise ValueError(f'ONNX files need {name}: pip install "ecg-transformers[onnx]"')


FORMATS: Mapping[str, Callable[..., Any]] = {
    "onnx": write_onnx,
    "torch-export": save_program,
    "int8": write_int8,
    "executorch": write_executorch,
}
