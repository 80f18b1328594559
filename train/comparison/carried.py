"""Makes the carried models from a pretraining of `compare` (docs/carried_models.md has the commands).

    python -m ecg_transformers.train.comparison.carried --run comparison/runs/... --data_dir DECLARATION \
        --splits SPLITS --ludb LUDB --output_dir DIR

The encoder is that of the run. The classifier is a logistic regression for each label on its frozen features, folded
with their standardisation into one linear layer. It is trained on the records of folds 1-8, each four times: with all
leads, with I and II, with I alone, with II alone. Penalty, temperature and thresholds are chosen by cross-validation
by patient in folds 1-8; folds 9 and 10 are the test. The delineator is trained on all subjects of LUDB, to the last
step; its recipe is tested in five folds of subjects, from the pretrained encoder and from scratch.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import concatenate_datasets
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoModelForSequenceClassification

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor

from ..delineation.evaluation import evaluate_delineation, subject_folds, windows_of_folds
from ..delineation.training import DelineationSettings, token_classifier, train_delineator
from ..evaluation.linear_models import C_GRID, cross_validated_C, fit_linear, folds_of_patients
from ..features import EmbeddingTable, decoded, embed
from ..finetune_objective import HeadTask
from ..predictions import Predictions, evaluate_predictions, stored_calibration
from ..results import MULTI_LABEL, write_json
from ..tasks.lead_subsets import keep_leads
from .data import load_comparison_data

LEAD_SETS = {"12": None, "2": ("I", "II"), "I": ("I",), "II": ("II",)}
MILLIVOLTS = {
    "unit": "mV",
    "highpass_hz": 0.5,
    "lowpass_hz": 40,
    "filter_order": 4,
    "normalization": "lead",
    "missing_leads": "mask",
    "long_records": "all",
}
"""What makes of a recording what the processed recordings of the pretraining are."""
DELINEATION = {"frozen": False, "max_steps": 300, "altered": True}
INPUT_MEASURED = {"electrode_placement": "standard", "long_records": "all"}


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the models, `scores.json` of the classifier and the scores of the delineator's recipe."""
    parser = argparse.ArgumentParser(description="Make the carried models from a pretraining of `compare`.")
    parser.add_argument("--run", required=True, help="folder of the run, with `model`")
    parser.add_argument("--data_dir", required=True, help="declaration of the processed recordings")
    parser.add_argument("--splits", required=True, help="table of folds")
    parser.add_argument("--ludb", help="folder of LUDB, for the delineator")
    parser.add_argument("--output_dir", required=True, help="folder to write to")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    folder = Path(args.output_dir)
    encoder = AutoModel.from_pretrained(Path(args.run) / "model", dtype=torch.float32).eval()
    processed = EcgFeatureExtractor.from_pretrained(Path(args.run) / "model").changed(missing_leads="mask")
    extractor = EcgFeatureExtractor(**(processed.to_dict() | MILLIVOLTS))
    save_without_code(encoder, extractor, folder / "ecg-small")
    data = load_comparison_data("npy", args.data_dir, split_table=args.splits)
    names = list(data.label_names)
    tables = {name: tables_of(encoder, processed, data, leads) for name, leads in LEAD_SETS.items()}
    classifier, scores = linear_classifier(folder / "ecg-small", tables, names)
    save_without_code(classifier, extractor, folder / "ecg-small-superdiagnostic")
    write_json(scores, folder / "scores.json")
    if args.ludb is not None:
        make_delineator(folder / "ecg-small", extractor, args.ludb, folder)


def make_delineator(checkpoint: Path, extractor: EcgFeatureExtractor, ludb: str, folder: Path) -> None:
    """Fine-tunes the encoder to find P, QRS and T, and tests the recipe."""
    rows, settings = load_ecg("ludb", data_dir=ludb, split="all", decode=False), DelineationSettings(**DELINEATION)
    windows = windows_of_folds(subject_folds(rows), extractor)
    model = token_classifier(str(checkpoint), settings)
    train_delineator(model, torch.utils.data.ConcatDataset(list(windows.values())), None, settings)
    save_without_code(model.eval(), extractor, folder / "ecg-small-delineation")
    evaluate_delineation(str(checkpoint), rows, folder, **DELINEATION)


def save_without_code(model, feature_extractor: EcgFeatureExtractor, folder: Path) -> None:
    """Saves weights, configuration and feature extractor; the code is that of the package which carries them."""
    model.save_pretrained(folder)
    feature_extractor.save_pretrained(folder)
    for source in folder.glob("*.py"):
        source.unlink()


def tables_of(encoder, extractor: EcgFeatureExtractor, data, leads: Sequence[str] | None) -> dict[str, EmbeddingTable]:
    """Features of the training records and of the test records (folds 9 and 10) with these leads, `None` = all."""
    found = {}
    for name, rows in {"train": data.train, "test": concatenate_datasets([data.validation, data.test])}.items():
        rows = decoded(rows)
        kept = rows if leads is None else (keep_leads(row, leads) for row in rows)
        found[name] = embed(encoder, extractor, kept, progress=False)
    return found


def linear_classifier(checkpoint: Path, tables: Mapping[str, Mapping[str, EmbeddingTable]], names: Sequence[str]):
    """The classifier, calibrated for each lead set, and its scores on the test records."""
    train = {name: table["train"] for name, table in tables.items()}
    truth = train["12"].multi_hot(names)
    folds = folds_of_patients(train["12"].patients())
    together = np.concatenate([table.features for table in train.values()])
    labels = np.concatenate([truth] * len(train))
    scaler = StandardScaler().fit(together)
    patients = train["12"].patients() * len(train)
    task, standardised = HeadTask(labels, names, MULTI_LABEL), scaler.transform(together)
    C = cross_validated_C(standardised, labels, patients, task, C_GRID)
    unseen = {name: np.zeros(truth.shape) for name in train}
    for fold in range(folds.max() + 1):
        rest, of_fold = np.tile(folds != fold, len(train)), folds == fold
        fit = fit_linear(standardised[rest], labels[rest], HeadTask(labels[rest], names, MULTI_LABEL), C)
        for name, table in train.items():
            unseen[name][of_fold] = fit(scaler.transform(table.features[of_fold]))
    fit = fit_linear(standardised, labels, task, C)
    evaluations = {}
    for name, table in tables.items():
        scores = {"train": unseen[name], "test": fit(scaler.transform(table["test"].features))}
        chosen, test = (
            Predictions(scores[split], of_split.multi_hot(names), of_split.record_ids, of_split.patient_ids)
            for split, of_split in table.items()
        )
        evaluations[name] = evaluate_predictions(test, names, MULTI_LABEL, truth, validation=chosen)
        evaluations[name]["cross_validated"] = evaluate_predictions(chosen, names, MULTI_LABEL, truth)["macro_auroc"]
    classifier = AutoModelForSequenceClassification.from_pretrained(
        checkpoint,
        id2label=dict(enumerate(names)),
        label2id={label: number for number, label in enumerate(names)},
        problem_type=MULTI_LABEL,
    )
    weights = fit.coefficients[:-1] / scaler.scale_[:, None]
    with torch.no_grad():
        classifier.classifier.weight.copy_(torch.from_numpy(weights.T))
        classifier.classifier.bias.copy_(torch.from_numpy(fit.coefficients[-1] - scaler.mean_ @ weights))
    subsets = {name: {"leads": list(leads)} | evaluations[name] for name, leads in LEAD_SETS.items() if leads}
    measured: dict[str, Any] = {"leads": list(classifier.config.leads), **INPUT_MEASURED}
    classifier.config.calibration = stored_calibration(evaluations["12"], names, measured, subsets)
    return classifier.eval(), {"C": C, "lead_sets": evaluations}


if __name__ == "__main__":
    main()
