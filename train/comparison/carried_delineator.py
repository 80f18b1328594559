"""Makes the carried delineator from `ecg-small` and LUDB (docs/carried_models.md has the command).

    python -m ecg_transformers.train.comparison.carried_delineator --data_dir LUDB --output_dir DIR

The carried model is trained on all subjects, to the last step. The recipe is tested in five folds of subjects, from
the pretrained encoder and from scratch.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoFeatureExtractor

from ecg_transformers.data import load_ecg

from ..carried_models import carried_model
from ..delineation.evaluation import evaluate_delineation, subject_folds, windows_of_folds
from ..delineation.training import DelineationSettings, token_classifier, train_delineator
from .carried import save_without_code

SETTINGS = {"frozen": False, "max_steps": 300, "altered": True}


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the model and the scores of its recipe."""
    parser = argparse.ArgumentParser(description="Make the carried delineator from `ecg-small` and LUDB.")
    parser.add_argument("--data_dir", required=True, help="folder of LUDB")
    parser.add_argument("--output_dir", required=True, help="folder to write to")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    checkpoint, folder = carried_model("ecg-small"), Path(args.output_dir)
    rows = load_ecg("ludb", data_dir=args.data_dir, split="all", decode=False)
    feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    settings = DelineationSettings(**SETTINGS)
    windows = windows_of_folds(subject_folds(rows), feature_extractor)
    model = token_classifier(checkpoint, settings)
    train_delineator(model, torch.utils.data.ConcatDataset(list(windows.values())), None, settings)
    save_without_code(model.eval(), feature_extractor, folder / "ecg-small-delineation")
    evaluate_delineation(checkpoint, rows, folder, **SETTINGS)


if __name__ == "__main__":
    main()
