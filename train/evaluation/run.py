"""Protocols and settings by name, for the pretrained encoder and its baselines, on the same records and draws."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import FeatureExtractionMixin, PreTrainedModel
from transformers.utils import logging

from ..features import random_encoder_like, random_kernels_like
from ..finetune import FINETUNE_PRESETS, as_taught, build_finetuning, predict_splits
from ..predictions import ProtocolResult, compare_results, write_predictions
from ..results import REGRESSION, difference_key
from ..run_folder import claim_output_dir
from ..settings import read_config
from ..tasks.labelled_splits import LabelledSplits
from ..trainer import train_and_save
from .clusters import PROTOCOL as CLUSTERS
from .clusters import Clustering, cluster_test_split, compare_clusters
from .heads import LINEAR_FORMS, attentive_protocol, linear_head_protocol
from .protocols import FrozenTables, cross_validated_linear, embed_splits, knn_protocol, linear_protocol
from .settings import ENCODERS, EncoderPair, check_settings, run_settings

logger = logging.get_logger(__name__)

ON_FEATURES: dict[str, Callable[..., ProtocolResult]] = {
    "linear": linear_protocol,
    **{f"linear-{name}": partial(linear_head_protocol, form=form) for name, form in LINEAR_FORMS.items()},
    "knn": knn_protocol,
}
PROTOCOLS = (*ON_FEATURES, "attentive", "finetuned", CLUSTERS)
KERNELS = {"random_kernels_126": 126, "random_kernels": 1200}
"""Baselines for protocols on frozen features, and their number of random kernels; settings have the last one."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that the protocols found: `facts` for JSON (`random_encoder`, `pretrained`, `difference`, each by
    protocol, and `settings`), results by encoder and protocol, and cached features by encoder."""

    facts: dict[str, Any]
    results: dict[tuple[str, str], ProtocolResult]
    tables: dict[str, FrozenTables]

    def write_predictions(self, path: Path) -> Path:
        """One row a record, encoder, protocol and split."""
        found = {
            (split, encoder, protocol): vars(result)[split]
            for (encoder, protocol), result in self.results.items()
            for split in ("validation", "test")
        }
        names = next(iter(self.results.values())).label_names
        return write_predictions(found, names, path, keys=("split", "encoder", "protocol"))


@dataclass(frozen=True)
class ProtocolOptions:
    """Options of protocols and settings beside the task.

    Args:
        output_dir (`Path`): Folder of fine-tuned classifiers.
        finetune_config (`str`): Preset of `finetuned`.
        nstdb_dir (`str`, *optional*): Folder of the noise database, for the setting `noise`.
        batch_size (`int`): Records that are embedded at once.
        seed (`int`): Seed of random encoder, heads, draws and bootstrap.
        cross_validate (`bool`): Cross-validate `linear` by patient over the records of all splits.
    """

    output_dir: Path
    finetune_config: str = "finetune"
    nstdb_dir: str | None = None
    batch_size: int = 64
    seed: int = 0
    cross_validate: bool = False


def evaluate_encoder(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    splits: LabelledSplits,
    protocols: Sequence[str],
    settings: Sequence[str],
    options: ProtocolOptions,
) -> Evaluation:
    """Evaluates an encoder beside a random one of the same configuration and, on frozen features, random kernels.

    Args:
        model ([`PreTrainedModel`]): An encoder with `pooler_output`.
        feature_extractor ([`EcgFeatureExtractor`]): The input contract of the encoder.
        splits ([`LabelledSplits`]): The task.
        protocols (`Sequence[str]`): Some of `PROTOCOLS`.
        settings (`Sequence[str]`): Some of `SETTINGS`, each by the protocol `linear`.
        options ([`ProtocolOptions`]): Folders, batch size and seed.
    """
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown or not protocols:
        raise ValueError(f"Expected protocols of {list(PROTOCOLS)}, got {list(protocols)}.")
    if CLUSTERS in protocols and splits.problem_type == REGRESSION:
        raise ValueError(f"{CLUSTERS} compares clusters with classes; a regression has none. Leave it out.")
    check_settings(settings, options.nstdb_dir)
    models = {"random_encoder": random_encoder_like(model, options.seed), "pretrained": model}
    if settings or any(protocol in ON_FEATURES for protocol in protocols):
        if feature_extractor.beat_channels:
            logger.warning("No random kernels beside this encoder: they read leads, not channels of beats.")
        else:
            for name, num_kernels in KERNELS.items():
                models[name] = random_kernels_like(feature_extractor, num_kernels, model.device)
    facts: dict[str, Any] = {encoder: {} for encoder in models}
    facts |= {difference_key(encoder): {} for encoder in models if encoder != "pretrained"}
    results, tables = {}, {}
    for encoder, of_model in models.items():
        logger.info(f"{encoder}: embedding")
        tables[encoder] = embed_splits(of_model, feature_extractor, splits, options.batch_size)
        for protocol in protocols:
            if encoder not in ENCODERS and protocol not in ON_FEATURES:
                continue
            logger.info(f"{encoder}: {protocol}")
            result = _run(protocol, encoder, of_model, feature_extractor, splits, tables[encoder], options)
            results[encoder, protocol] = result
            facts[encoder][protocol] = result.evaluate(seed=options.seed)
    for (encoder, protocol), result in results.items():
        if encoder != "pretrained":
            compare = compare_clusters if protocol == CLUSTERS else compare_results
            difference = compare(results["pretrained", protocol], result, seed=options.seed)
            facts[difference_key(encoder)][protocol] = difference
    in_settings = [name for name in models if name in (*ENCODERS, *list(KERNELS)[-1:])]
    pair = EncoderPair(
        {encoder: models[encoder] for encoder in in_settings},
        feature_extractor,
        splits,
        tables,
        options.batch_size,
        seed=options.seed,
        linear={encoder: results[encoder, "linear"] for encoder in in_settings} if "linear" in protocols else None,
    )
    facts["settings"] = run_settings(settings, pair, options.nstdb_dir)
    predicted = {key: result for key, result in results.items() if isinstance(result, ProtocolResult)}
    return Evaluation(facts, predicted, tables)


def _run(
    protocol, encoder, model, feature_extractor, splits, tables, options: ProtocolOptions
) -> ProtocolResult | Clustering:
    if protocol == CLUSTERS:
        return cluster_test_split(tables.tables["train"], tables.tables["test"], splits.label_names, options.seed)
    if protocol == "linear" and options.cross_validate:
        return cross_validated_linear(tables)
    if protocol in ON_FEATURES:
        seed = {"seed": options.seed} if protocol.startswith("linear-") else {}
        return ON_FEATURES[protocol](tables, **seed)
    if protocol == "attentive":
        return attentive_protocol(model, feature_extractor, splits, seed=options.seed, batch_size=options.batch_size)
    return finetuned_protocol(
        model,
        feature_extractor,
        splits,
        options.output_dir / "finetuned" / encoder,
        options.finetune_config,
        seed=options.seed,
    )


def finetuned_protocol(
    model: PreTrainedModel,
    feature_extractor,
    splits: LabelledSplits,
    output_dir: Path,
    config: str = "finetune",
    settings: Mapping | None = None,
    seed: int = 0,
) -> ProtocolResult:
    """Fine-tunes an encoder with the stock Trainer and a preset of `ecg-transformers finetune`.

    Of a random encoder this is training from scratch: the same architecture, recipe, data and number of looks at the
    validation split. The encoder is saved to `output_dir / "encoder"` first. `config` is a preset or a YAML file,
    `settings` are those that differ from it; `seed` is that of the head and of the order of the records.
    """
    claim_output_dir(str(output_dir), overwrite=True)  # of an earlier evaluation
    encoder = Path(output_dir) / "encoder"
    model.save_pretrained(encoder)
    feature_extractor.save_pretrained(encoder)
    chosen = read_config(config, FINETUNE_PRESETS) | dict(settings or {})
    trainer = build_finetuning(str(encoder), splits, chosen | {"output_dir": str(output_dir), "seed": seed})
    if trainer.args.freeze_encoder:
        raise ValueError(f"The preset {config!r} freezes the encoder: that is another protocol, attentive or linear.")
    started = time.monotonic()
    train_and_save(trainer)
    found, _ = predict_splits(trainer, splits)
    details = {
        "config": config,
        "learning_rate": trainer.args.learning_rate,
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
    }
    truth = as_taught(splits, trainer).truth_of("train")
    return ProtocolResult("finetuned", splits.label_names, splits.problem_type, truth, **found, details=details)
