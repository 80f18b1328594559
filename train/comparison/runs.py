"""The runs of a comparison: pretraining, training on labels, fine-tuning; each in a folder of its own, done once.

Training on labels is the protocol `finetuned`: the weights of the step that did best on the validation fold are kept,
and the test fold is looked at once, afterwards. Our encoders have no dropout (stochastic depth, `drop_path_rate`, is
there): where a published recipe uses dropout, this one is not the same.

A run is finished when its `result.json` is there; the file appears whole or not at all. The name of the folder holds a
hash of everything that the result depends on, so that another budget or setting is another run. A lock, which the
operating system takes away from a process that dies, lets several processes share the runs of one folder; pretraining
goes on from its last checkpoint.
"""

import dataclasses
import hashlib
import io
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, set_seed

from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTModel
from ecg_transformers.modeling.masking import keyed_generator

from ..evaluation.protocols import FrozenTables, linear_scores
from ..evaluation.run import finetuned_protocol
from ..features import EmbeddingTable, embed, load_encoder
from ..patients import patients_of
from ..predictions import Predictions
from ..pretrain import build_trainer
from ..results import MULTI_LABEL
from ..run_folder import claim_output_dir, last_complete_checkpoint
from ..settings import split_settings
from ..tasks.labelled_splits import SPLITS, LabelledSplits
from ..trainer import EcgSslTrainer, train_and_save
from .data import ComparisonData

logger = logging.getLogger("ecg_transformers")

KERNELS = ("random-kernels-126", "random-kernels")
"""Rows of a comparison that need no training."""
RESULT, CHECKPOINTS, NUM_CHECKPOINTS = "result.json", "training", 8
FINAL_LOGS = 5
QUIET = {"report_to": "none", "disable_tqdm": True}


@dataclass(frozen=True)
class SupervisedSettings:
    """Settings of a training on labels: the learning rate has its peak after a tenth of the steps, then falls along a
    cosine; the validation fold is looked at `num_selections` times in all `records_seen`, and the best step is kept.
    """

    records_seen: int
    learning_rate: float = 1e-3
    batch_size: int = 64
    weight_decay: float = 0.05
    num_selections: int = 20

    def trainer_settings(self, num_records: int) -> dict[str, Any]:
        """Settings of `finetune` for a number of labelled records; what is not here is that of its preset."""
        return {
            "num_train_epochs": self.records_seen / num_records,
            "per_device_train_batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "layer_decay": 1.0,
            "early_stopping_patience": None,
            "eval_strategy": "steps",
            "eval_steps": 1 / self.num_selections,
            **QUIET,
        }


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Args:
        kind (`str`): `"pretrain"`, `"supervised"` (from scratch) or `"finetune"` (from the pretrained checkpoint).
        method (`str`): Name on the command line; for `"supervised"` all methods that have this encoder.
        seed (`int`): Seed of weights, order and masks, and of the labels that are known.
        settings (`dict`): Flat settings of the pretraining; for `"supervised"` those of [`scratch_settings`].
        supervised (`SupervisedSettings`, *optional*): Settings of the training on labels.
        labelled_fraction (`float`, *optional*, defaults to 1.0): Share of the training records with known labels.
        data (`str`): Fingerprint of the recordings.
        start (`Run`, *optional*): The pretraining that a fine-tuning starts from.
    """

    kind: str
    method: str
    seed: int
    settings: Mapping[str, Any]
    data: str
    supervised: SupervisedSettings | None = None
    labelled_fraction: float = 1.0
    start: "Run | None" = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Name of the folder. The method's own spelling is for the reader only; the hash speaks of what counts."""
        what = {name: value for name, value in vars(self).items() if name not in ("method", "supervised", "start")}
        what["supervised"] = None if self.supervised is None else dataclasses.asdict(self.supervised)
        what["start"] = None if self.start is None else self.start.name
        digest = hashlib.blake2b(json.dumps(what, sort_keys=True, default=list).encode(), digest_size=5).hexdigest()
        method = "" if self.kind == "supervised" else re.sub(r"[^\w.=-]+", "_", Path(self.method).name)[:60] + "-"
        part = "" if self.labelled_fraction == 1 else f"-{self.labelled_fraction:g}"
        return f"{method}{self.kind}{part}-seed{self.seed}-{digest}"

    def __str__(self):
        part = "" if self.labelled_fraction == 1 else f" with {self.labelled_fraction:.0%} of the labels"
        return f"{self.method}: {self.kind}{part}, seed {self.seed}"


@dataclass
class RunFolder:
    """The folder in which processes share the runs of a comparison.

    Args:
        folder (`Path`): Folder of the comparison.
        data ([`ComparisonData`]): Recordings of all runs.
        treatment (`Mapping`, *optional*): Settings of the feature extractor for all, which random kernels read by too.
    """

    folder: Path
    data: ComparisonData
    treatment: Mapping[str, Any] = field(default_factory=dict)

    def path(self, run: Run) -> Path:
        return self.folder / "runs" / run.name

    def result(self, run: Run) -> dict | None:
        """The result of a run; `None` if it is not finished."""
        try:
            return json.loads((self.path(run) / RESULT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def work(
        self, runs: Sequence[Run], report: Callable[[], Any], report_seconds: float = 60.0, poll_seconds: float = 2.0
    ) -> dict[str, str]:
        """Does the runs that are not done, except those that another process does, and waits for these.

        `report()` is called now and then, after a run of this process, `report_seconds` apart or more. Returns the
        reasons of the runs that failed here; a failed run does not stop the others.
        """
        failed: dict[str, str] = {}
        reported = time.monotonic()
        while True:
            busy = []
            for run in runs:
                if run.name in failed or self.result(run) is not None:
                    continue
                if run.start is not None and run.start.name in failed:
                    failed[run.name] = f"{run}: its pretraining failed"
                elif run.start is not None and self.result(run.start) is None:
                    busy.append(run)
                elif not self._claim_and_do(run, failed):
                    busy.append(run)
                elif time.monotonic() - reported > report_seconds:
                    report()
                    reported = time.monotonic()
            if not busy:
                return failed
            time.sleep(poll_seconds)

    def _claim_and_do(self, run: Run, failed: dict[str, str]) -> bool:
        """Tries a run; `False` where another process does it."""
        path = self.path(run)
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = filelock.FileLock(path / "lock").acquire(timeout=0)
        except filelock.Timeout:
            return False
        with lock:
            if self.result(run) is not None:
                return True
            logger.info("%s ...", run)
            started = time.monotonic()
            try:
                result = (self._pretrain if run.kind == "pretrain" else self._train)(run)
            except (RuntimeError, ValueError) as error:  # one method that fails leaves the others their table
                failed[run.name] = f"{run}: {error}"
                logger.warning("Failed. %s", failed[run.name])
                return True
            facts = {"kind": run.kind, "method": run.method, "seed": run.seed, "settings": dict(run.settings)}
            seconds = round(time.monotonic() - started, 1)
            write_atomically(path / RESULT, json.dumps({**facts, **result, "seconds": seconds}, default=list))
            shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
        return True

    # --- work of a run ----------------------------------------------------------------------------------------

    def _pretrain(self, run: Run) -> dict:
        path = self.path(run)
        max_steps = run.settings["max_steps"]
        settings = run.settings | {"output_dir": str(path / CHECKPOINTS), "save_total_limit": 1}
        settings |= {"save_strategy": "steps", "save_steps": max(1, max_steps // NUM_CHECKPOINTS)}
        trainer = build_trainer(settings, self.data.pretraining)
        per_step = records_per_step(trainer.args)
        if per_step > len(self.data.pretraining):
            raise ValueError(
                f"A step takes {per_step} records, there are {len(self.data.pretraining)} to learn from. Give a "
                "smaller per_device_train_batch_size."
            )
        extractor = trainer.processing_class
        before = embed(trainer.model.ecg_vit, extractor, self.data.labelled, progress=False)
        train_or_go_on(trainer)
        encoder = trainer.model.ecg_vit
        after = embed(encoder, extractor, self.data.labelled, progress=False)
        for name, table in (("random", before), ("pretrained", after)):
            table.save(path / f"{name}.parquet")
        trainer.save_model(str(path / "model"))
        losses = [entry for entry in trainer.state.log_history if "loss" in entry]
        return {
            "steps": trainer.state.global_step,
            "records_seen": trainer.state.global_step * per_step,
            "encoder": encoder_facts(trainer.model.config) | {"parameters": encoder.num_parameters()},
            "pretraining_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            "last_logs": losses[-FINAL_LOGS:],
        }

    def _train(self, run: Run) -> dict:
        """Trains all weights on the labels, from scratch or from the pretrained ones, by the protocol `finetuned`."""
        if run.start is None:
            set_seed(run.seed)
            config = AutoConfig.for_model(run.settings["model_type"], **run.settings["encoder"])
            model, extractor = AutoModel.from_config(config), EcgFeatureExtractor(**run.settings["input"])
        else:
            model, extractor = load_encoder(str(self.path(run.start) / "model"))
        names = tuple(self.data.label_names)
        known = labelled_subset(self.data.train, run.labelled_fraction, run.seed)
        rows = (self.data.train.select(known), self.data.validation, self.data.test)
        splits = LabelledSplits(*rows, names, MULTI_LABEL, unlabelled=dict.fromkeys(SPLITS, 0), left_out=True)
        settings = run.supervised.trainer_settings(len(known))
        found = finetuned_protocol(
            model, extractor, splits, self.path(run) / CHECKPOINTS, settings=settings, seed=run.seed
        )
        return {
            "steps": found.details["steps"],
            "best_step": found.details["best_step"],
            "records_seen": run.supervised.records_seen,
            "num_labelled_records": len(known),
            "encoder": encoder_facts(model.config) | {"parameters": model.num_parameters()},
            "judged": as_json(found.test, names),
        }

    # --- probes of a finished pretraining ----------------------------------------------------------------------

    def probes(self, run: Run, labelled_fraction: float = 1.0) -> dict[str, dict]:
        """The linear probes of the random and of the pretrained encoder of a finished pretraining, fitted once and
        kept beside it: the penalty, the predictions and the number of labelled records of each encoder."""
        return kept_json(
            self.path(run) / f"linear-{labelled_fraction:g}.json",
            lambda: {
                encoder: self.probe(
                    EmbeddingTable.load(self.path(run) / f"{encoder}.parquet"), labelled_fraction, run.seed
                )
                for encoder in ("random", "pretrained")
            },
        )

    def kernel_probes(self, seed: int, labelled_fraction: float = 1.0) -> dict[str, dict]:
        """The same for random kernels, on the same known labels, with sizes of the `encoder` for the table."""
        probes = {}
        for name in KERNELS:
            model, extractor = load_encoder(name, treatment=self.treatment)
            what = repr((name, extractor.to_dict(), self.data.fingerprint)).encode()
            path = self.folder / "kernels" / hashlib.blake2b(what, digest_size=5).hexdigest()
            compute = partial(embed, model, extractor, self.data.labelled, progress=False)
            table = kept_table(path.with_suffix(".parquet"), compute)
            of_seed = "" if labelled_fraction == 1 else f"-seed{seed}"  # all labels are the same ones for every seed
            encoder = {"hidden_size": model.config.hidden_size, "num_hidden_layers": 1}
            encoder |= {"parameters": model.num_parameters(), "num_leads": len(extractor.leads), "tokens": 1}
            encoder["patch_ms"] = 1000 * extractor.num_samples / extractor.sampling_rate
            found = kept_json(
                path.with_name(f"{path.name}-linear-{labelled_fraction:g}{of_seed}.json"),
                partial(self.probe, table, labelled_fraction, seed),
            )
            probes[name] = found | {"encoder": encoder}
        return probes

    def probe(self, table: EmbeddingTable, labelled_fraction: float, seed: int) -> dict[str, Any]:
        """The protocol `linear`, which looks at neither of the folds 9 and 10 until it is tested on both."""
        names = tuple(self.data.label_names)
        known = self.data.train.select(labelled_subset(self.data.train, labelled_fraction, seed))["record_id"]
        tables = {"train": of_records(table, known), "test": table.select_folds([9, 10])}
        truth = {split: of_split.multi_hot(names) for split, of_split in tables.items()}
        frozen = FrozenTables(tables, truth, names, MULTI_LABEL)
        scores, C = linear_scores(frozen)
        evaluated = as_json(frozen.predictions("test", scores["test"]), names)
        return {"C": C, "judged": evaluated, "num_labelled_records": len(tables["train"])}


def train_or_go_on(trainer: EcgSslTrainer):
    """Trains to the end, from the last complete checkpoint in the output folder if there is one."""
    try:
        checkpoint = last_complete_checkpoint(trainer.args.output_dir)
    except ValueError:  # none of them is whole
        checkpoint = None
    if checkpoint is None:
        claim_output_dir(trainer.args.output_dir, overwrite=True)
    trainer.args.resume_from_checkpoint = checkpoint
    train_and_save(trainer)


def as_json(found: Predictions, label_names: Sequence[str]) -> dict[str, list]:
    """Predictions of single test records, ready for JSON."""
    labels, scores = found.labels.astype(int).tolist(), found.scores.astype(float).tolist()
    ids = {"record_ids": found.record_ids, "patient_ids": found.patient_ids}
    return {"label_names": list(label_names), "labels": labels, "scores": scores} | ids


def predictions_of(kept: Mapping[str, list]) -> Predictions:
    """Predictions that [`as_json`] kept."""
    arrays = (np.array(kept[name]) for name in ("scores", "labels"))
    return Predictions(*arrays, kept["record_ids"], kept["patient_ids"])


def of_records(table: EmbeddingTable, record_ids: Iterable[str]) -> EmbeddingTable:
    """The rows of a table that belong to some records."""
    kept = set(record_ids)
    return table.take([row for row, record_id in enumerate(table.record_ids) if record_id in kept])


def labelled_subset(train: Dataset, fraction: float, seed: int) -> list[int]:
    """Positions of the records whose labels are known: those of randomly drawn patients until `fraction` of the
    records is reached. The same for every method of a seed; all records for a fraction of 1."""
    if fraction == 1:
        return list(range(len(train)))
    of_patient: dict[str, list[int]] = {}
    for number, patient in enumerate(patients_of(train["record_id"], train["patient_id"])):
        of_patient.setdefault(patient, []).append(number)
    patients = sorted(of_patient)
    chosen: list[int] = []
    for number in torch.randperm(len(patients), generator=keyed_generator(seed, "labelled subset")).tolist():
        if len(chosen) >= fraction * len(train):
            break
        chosen += of_patient[patients[number]]
    return sorted(chosen)


def records_per_step(args) -> int:
    """Records that one optimiser step sees, over all devices and micro-batches."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def scratch_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that training a method's encoder from scratch depends on: `{"model_type", "encoder", "input"}`.

    The encoder of a method is that of the library (`ecg_vit`) unless its class computes something else, so that
    methods with the same encoder and the same input get the same settings, and share the run.
    """
    model_type, model, extractor, _ = split_settings(dict(settings))
    config = AutoConfig.for_model(model_type, **model)
    if MODEL_MAPPING[type(config)].forward is EcgViTModel.forward:
        inherited = {item.name for item in dataclasses.fields(PreTrainedConfig)}
        names = sorted({item.name for item in dataclasses.fields(EcgViTConfig)} - inherited)
        model_type, model = EcgViTConfig.model_type, {name: vars(config)[name] for name in names}
    return {"model_type": model_type, "encoder": model, "input": extractor}


def encoder_facts(config: PreTrainedConfig) -> dict[str, Any]:
    """Sizes of an encoder for a table."""
    rows = len(config.leads) if config.patching == "per_lead" else 1
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_leads": len(config.leads),
        "patch_ms": 1000 * config.patch_size / config.sampling_rate,
        "tokens": rows * config.num_columns,
    }


def write_atomically(path: Path, content: str | bytes):
    """Writes a file that others see whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def write_table(path: Path, table: pa.Table):
    """Writes Parquet that others see whole or not at all."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue())


def kept_json(path: Path, compute: Callable[[], Any]) -> Any:
    """The content of a file, computed and written where it is not there."""
    if not path.is_file():
        write_atomically(path, json.dumps(compute()))
    return json.loads(path.read_text(encoding="utf-8"))


def kept_table(path: Path, compute: Callable[[], EmbeddingTable]) -> EmbeddingTable:
    """Features from a file, computed and written where it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        compute().save(path.with_name(f".{path.stem}-{os.getpid()}.parquet")).replace(path)
    return EmbeddingTable.load(path)
