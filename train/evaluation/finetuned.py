"""The protocol `finetuned`: all weights are trained on the labels, from the pretrained and from a random encoder.

The random encoder's row is training from scratch: the same architecture, recipe, data and number of looks at the
validation split.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from ..finetune import FINETUNE_PRESETS, as_taught, build_finetuning, predict_splits
from ..predictions import ProtocolResult
from ..run_folder import claim_output_dir
from ..settings import read_config
from ..tasks.labelled_splits import LabelledSplits
from ..trainer import train_and_save


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

    The encoder is saved to `output_dir / "encoder"` first. `config` is a preset or a YAML file, `settings` are those
    that differ from it; `seed` is that of the head and of the order of the records.
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
