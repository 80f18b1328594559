"""Features of recordings: each record embedded once by a frozen encoder, in a table with what is known of it."""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    FeatureExtractionMixin,
    PreTrainedConfig,
    PreTrainedModel,
)

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    LeadStatisticsConfig,
    LeadStatisticsModel,
    RandomKernelsConfig,
    RandomKernelsModel,
)
from ecg_transformers.modeling.feature_extraction_ecg import average_windows
from ecg_transformers.modeling.input_checks import window_seconds
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.recording_input import read_recordings

from .checkpoints import UNTRAINED_ENCODERS, find_checkpoint
from .inference import in_evaluation, input_batches, outputs_of
from .patients import patients_of

INPUT_FIELDS = ("leads", "sampling_rate", "num_samples", "long_records", "window_stride_samples", "short_records")
INPUT_FIELDS += ("missing_leads", "derive_limb_leads")
"""Settings of a feature extractor that stay an encoder's own where one treatment of the input holds for several."""
COLUMNS = {
    "record_ids": ("record_id", pa.string()),
    "patient_ids": ("patient_id", pa.string()),
    "folds": ("fold", pa.int32()),
    "labels": ("labels", pa.list_(pa.string())),
    "quality": ("quality", pa.list_(pa.string())),
    "start_seconds": ("start_seconds", pa.float64()),
}
"""Facts of the records of an [`EmbeddingTable`]: name and type in a Parquet file."""
MISSING = {"patient_ids": "", "folds": -1}
"""An unknown value in an array of numpy."""


@dataclass(frozen=True)
class EmbeddingTable:
    """Features of a set of records, with what a probe and a reader need to know about each.

    Args:
        features (`np.ndarray` of shape `(num_records, hidden_size)`): float32, finite.
        record_ids (`list[str]`): Names of the records.
        patient_ids (`list[str | None]`): Patient of each record, where known.
        labels (`list[list[str]]`): Label names of each record; none is an empty list.
        folds (`list[int | None]`): Fold of each record, where the corpus has folds.
        quality (`list[list[str]]`, *optional*):
            Findings of each record, by the names of [`EcgFeatureExtractor.check`]; of a clean one an empty list.
        start_seconds (`list[float]`, *optional*):
            Where the window of a row begins in its record, if rows are windows and not records.
    """

    features: np.ndarray
    record_ids: list[str]
    patient_ids: list[str | None]
    labels: list[list[str]]
    folds: list[int | None]
    quality: list[list[str]] | None = None
    start_seconds: list[float] | None = None

    def __post_init__(self):
        lengths = [len(column) for column in self.columns().values()]
        if self.features.ndim != 2 or set(lengths) != {len(self.features)}:
            raise ValueError(f"Expected one row of features a record, got {self.features.shape}, {lengths} records.")
        bad = [self.record_ids[row] for row in np.flatnonzero(~np.isfinite(self.features).all(axis=1))]
        if bad:
            raise ValueError(
                f"The features of {len(bad)} of {len(self)} records are NaN or infinite: {bad[:10]}. Check these "
                "recordings, or the training (a diverged encoder gives NaN for every record)."
            )

    def __len__(self) -> int:
        return len(self.record_ids)

    def columns(self) -> dict[str, list]:
        """Facts of the records that are known, by the names of `COLUMNS`."""
        return {name: vars(self)[name] for name in COLUMNS if vars(self)[name] is not None}

    def multi_hot(self, label_names: Sequence[str]) -> np.ndarray:
        """The labels as int8 of shape `(num_records, len(label_names))`; labels of other names are left out."""
        return np.array([[name in labels for name in label_names] for labels in self.labels], dtype=np.int8)

    def patients(self) -> list[str]:
        """A patient for each record; a record without one counts as a patient of its own."""
        return patients_of(self.record_ids, self.patient_ids)

    def select_folds(self, folds: Iterable[int]) -> "EmbeddingTable":
        """The records of some folds, in their order."""
        folds = set(folds)
        return self.take([row for row, fold in enumerate(self.folds) if fold in folds])

    def with_any_label(self, label_names: Sequence[str]) -> "EmbeddingTable":
        """The records that have at least one of the labels. PTB-XL's benchmark leaves the others out of a task."""
        names = set(label_names)
        return self.take([row for row, labels in enumerate(self.labels) if names & set(labels)])

    def take(self, rows: list[int]) -> "EmbeddingTable":
        """The records of these numbers, in this order."""
        columns = {name: [column[row] for row in rows] for name, column in self.columns().items()}
        return EmbeddingTable(self.features[rows], **columns)

    @classmethod
    def joined(cls, tables: Iterable["EmbeddingTable"]) -> "EmbeddingTable":
        """The rows of several tables, one table after the other."""
        tables = list(tables)
        columns = {name: sum((vars(table)[name] for table in tables), []) for name in tables[0].columns()}
        return cls(np.concatenate([table.features for table in tables]), **columns)

    def save(self, path: str | Path) -> Path:
        """Writes `.parquet` (one row a record; `features` is a list of float32) or `.npz` (labels as JSON strings, a
        missing patient as `""`, a missing fold as -1), readable without this package; `quality` where it is known."""
        path, features = Path(path), self.features.astype(np.float32)
        if path.suffix == ".parquet":
            columns = {COLUMNS[name][0]: pa.array(column, COLUMNS[name][1]) for name, column in self.columns().items()}
            columns["features"] = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
            pq.write_table(pa.table(columns), path, compression="zstd")
        elif path.suffix == ".npz":
            arrays = {}
            for name, column in self.columns().items():
                if name in ("labels", "quality"):
                    arrays[name] = np.array([json.dumps(names) for names in column], dtype=str)
                else:
                    missing = MISSING.get(name)
                    arrays[name] = np.array([missing if value is None else value for value in column])
            np.savez_compressed(path, features=features, **arrays)
        else:
            raise ValueError(f"Cannot write features to {path.name!r}. Name it .parquet or .npz.")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "EmbeddingTable":
        """Reads what [`~EmbeddingTable.save`] wrote."""
        if Path(path).suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                columns = {name: arrays[name].tolist() for name in COLUMNS if name in arrays}
                for name in {"labels", "quality"} & set(columns):
                    columns[name] = [json.loads(names) for names in columns[name]]
                for name, missing in MISSING.items():
                    columns[name] = [None if value == missing else value for value in columns[name]]
                return cls(arrays["features"], **columns)
        table = pq.read_table(path)
        columns = {
            name: table[stored].to_pylist() for name, (stored, _) in COLUMNS.items() if stored in table.column_names
        }
        features = table["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return cls(features.reshape(len(table), -1), **columns)


def embed(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    dataset: Iterable[dict],
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = True,
    check_quality: bool = False,
    windows: bool = False,
    left_out: dict[str, str] | None = None,
) -> EmbeddingTable:
    """Pools the features of every record of a dataset, in its order; those of several windows are averaged, unless
    each is to be a row.

    A record that cannot become input is left out, named with the reason in the log, and counted.

    Args:
        model ([`PreTrainedModel`]):
            An encoder whose output has `pooler_output` of shape `(batch, hidden_size)`. It runs without gradient in
            evaluation mode; every module is then put back into the mode that it had.
        feature_extractor ([`EcgFeatureExtractor`]): Turns a row into the input of the model.
        dataset (`Iterable[dict]`): Rows of [`load_ecg`], decoded or not: stored, streaming, or a list.
        batch_size (`int`, *optional*, defaults to 64): Windows in a forward pass, and most records read at a time.
        device (`torch.device` or `str`, *optional*): Where the model runs; by default where it is.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.
        check_quality (`bool`, *optional*, defaults to `False`): Whether to check the recordings, for `quality`.
        windows (`bool`, *optional*, defaults to `False`):
            Whether every window of the feature extractor (`long_records="all"`) is a row, with `start_seconds`.
        left_out (`dict[str, str]`, *optional*): Gets the ids of the records that are left out, with the reasons.
    """
    starts: list[float] = []
    quality: list[list[str]] = []
    model.to(model.device if device is None else device)
    features, columns = [], {"record_id": [], "patient_id": [], "labels": [], "fold": []}
    with in_evaluation(model), torch.inference_mode():
        for batch in input_batches(model, feature_extractor, dataset, batch_size, "Embedding", progress, left_out):
            pooled = outputs_of(model, batch.inputs, "pooler_output", batch_size)
            features.append((pooled if windows else average_windows(pooled, batch.window_record)).numpy())
            numbers = batch.window_record.tolist() if windows else range(len(batch.rows))
            for name, values in columns.items():
                values.extend(batch.rows[number].get(name) for number in numbers)
            if windows:
                for recording in read_recordings([row["ecg"] for row in batch.rows]):
                    starts += window_seconds(feature_extractor, recording)
            if check_quality:
                checks = feature_extractor.check([row["ecg"] for row in batch.rows])
                found = [[finding["name"] for finding in of["findings"]] for of in checks]
                quality += [found[number] for number in numbers]
    return EmbeddingTable(
        features=np.concatenate(features),
        record_ids=[str(record) for record in columns["record_id"]],
        patient_ids=[None if patient is None else str(patient) for patient in columns["patient_id"]],
        labels=[list(labels or ()) for labels in columns["labels"]],
        folds=columns["fold"],
        quality=quality if check_quality else None,
        start_seconds=starts if windows else None,
    )


def load_encoder(
    checkpoint: str, treatment: Mapping[str, Any] | None = None, pooled: Mapping[str, Any] | None = None, **settings
) -> tuple[PreTrainedModel, EcgFeatureExtractor]:
    """An encoder in evaluation mode with its feature extractor.

    Args:
        checkpoint (`str`):
            A folder, an id of the Hub, a carried model, or one of `UNTRAINED_ENCODERS`, which read twelve leads
            (missing ones are masked), 10 s windows of 100 Hz, 0.5 to 40 Hz.
        treatment (`Mapping`, *optional*):
            Settings that make one treatment of the input for several encoders: of the stored ones, only `INPUT_FIELDS`
            count beside these. By default, or empty, all stored ones count.
        pooled (`Mapping`, *optional*): Fields of the configuration that differ: `pooled_layer`, `pooling`.
        settings: Settings of the feature extractor that differ from the stored ones.
    """
    if treatment:
        model, extractor = load_encoder(checkpoint, pooled=pooled)
        own = {name: value for name, value in extractor.to_dict().items() if name in INPUT_FIELDS}
        return model, EcgFeatureExtractor(**(own | dict(treatment) | settings))
    if checkpoint not in UNTRAINED_ENCODERS:
        checkpoint = find_checkpoint(checkpoint)
        model = AutoModel.from_pretrained(checkpoint, config=_config_pooled_by(checkpoint, pooled) if pooled else None)
        extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
        return model.eval(), EcgFeatureExtractor(**(extractor.to_dict() | settings))
    if pooled:
        raise ValueError(
            f"{checkpoint} has no layers to choose from. Leave out {' and '.join(f'{name}=' for name in pooled)}."
        )
    num_kernels = UNTRAINED_ENCODERS[checkpoint]
    contract = {"leads": STANDARD_LEADS, "sampling_rate": 100, "num_samples": 1000, "missing_leads": "mask"}
    contract |= {"highpass_hz": 0.5, "lowpass_hz": 40, "filter_order": 4, "long_records": "all"}
    extractor = EcgFeatureExtractor(**(contract | {"normalization": "lead" if num_kernels else None} | settings))
    if num_kernels is not None:
        return random_kernels_like(extractor, num_kernels, "cpu"), extractor
    read = {"leads": extractor.leads, "sampling_rate": extractor.sampling_rate, "num_samples": extractor.num_samples}
    return LeadStatisticsModel(LeadStatisticsConfig(**read)).eval(), extractor


def _config_pooled_by(checkpoint: str, pooled: Mapping[str, Any]) -> PreTrainedConfig:
    values = AutoConfig.from_pretrained(checkpoint).to_dict()
    if refused := " and ".join(f"{name}=" for name in pooled if name not in values):
        raise ValueError(f"A {values['model_type']} pools in one way only. Leave out {refused}.")
    return AutoConfig.for_model(**(values | pooled))


def random_encoder_like(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """An encoder of the same class and configuration with fresh weights, on the same device and in evaluation mode.

    The weights depend on the seed alone; the global generators are left as they were.
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        torch.default_generator.manual_seed(seed)
        encoder = type(model)(copy.deepcopy(model.config))
    return encoder.to(device=model.device, dtype=model.dtype).eval()


def random_kernels_like(
    feature_extractor: FeatureExtractionMixin, num_kernels: int, device: torch.device | str
) -> RandomKernelsModel:
    """Random kernels on the input of another encoder: what is known of a recording without any training."""
    read = {name: getattr(feature_extractor, name) for name in ("leads", "sampling_rate", "num_samples")}
    return RandomKernelsModel(RandomKernelsConfig(**read, num_kernels=num_kernels)).to(device).eval()


def refuse_patients_in_two_tables(tables: dict[str, EmbeddingTable]) -> None:
    """No patient in two tables; nor a record without one, which counts as a patient of its own."""
    for (name, table), (other, compared) in combinations(tables.items(), 2):
        if shared := sorted(set(table.patients()) & set(compared.patients())):
            raise ValueError(
                f"{len(shared)} patients are in both the {name} and the {other} table: {shared[:5]}. Split by "
                "patient, otherwise the probe recognises people."
            )


def decoded(rows):
    """Stored rows of [`load_ecg`] with float signals in mV."""
    from ecg_transformers.data import Ecg

    return rows.cast_column("ecg", Ecg())
