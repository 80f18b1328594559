"""Predictions of a model for the records of a split, and their scores.

Every protocol of the evaluation, and fine-tuning, ends in predictions of the validation and the test split. They are
scored in one place, [`evaluate_predictions`], and written to one kind of file, from which anybody can score them
again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from scipy.special import expit, logit

from .evaluate_metrics.calibration_scores import calibration_scores
from .evaluate_metrics.challenge_scores import challenge_scores, challenge_weights
from .evaluate_metrics.classification_scores import classification_scores, one_hot
from .metrics import (
    ResampledScore,
    auroc_interval,
    chunks_of_counts,
    excluded_labels,
    macro_auprc,
    macro_auroc,
    macro_f1,
    paired_facts,
    percentile_interval,
    resample_counts,
    resampled_macro_auroc,
)
from .patients import patients_of
from .results import MULTI_LABEL, REGRESSION, SINGLE_LABEL

FEW_POSITIVES = 10
"""Least number for a label in the test split: below it, an area under a curve is hardly more than an anecdote."""
CLOSEST_PROBABILITY = 1e-6
"""Distance to 0 and 1: neighbours that all agree give 1, which has no logit."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model for the records of one split.

    Args:
        scores (`np.ndarray` of shape `(num_records, num_labels)`):
            Probabilities; for a regression, values in the unit of the target.
        labels (`np.ndarray` of shape `(num_records, num_labels)`): Truth, 0 or 1; for a regression, the targets.
        record_ids (`list[str]`), patient_ids (`list[str | None]`): Names and patients of the records.
    """

    scores: np.ndarray
    labels: np.ndarray
    record_ids: list[str]
    patient_ids: list[str | None]

    def patients(self) -> list[str]:
        """A patient for each record; a record without one counts as a patient of its own."""
        return patients_of(self.record_ids, self.patient_ids)

    def take(self, rows: Sequence[int]) -> "Predictions":
        """The predictions of some records, by their numbers, in this order."""
        ids, patients = ([column[row] for row in rows] for column in (self.record_ids, self.patient_ids))
        return Predictions(self.scores[rows], self.labels[rows], ids, patients)

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """The records of several splits, one after the other."""
        scores, labels = (np.concatenate([vars(part)[name] for part in parts]) for name in ("scores", "labels"))
        ids = [record_id for part in parts for record_id in part.record_ids]
        return cls(scores, labels, ids, [patient for part in parts for patient in part.patient_ids])


@dataclass(frozen=True)
class ProtocolResult:
    """Result of a protocol with one encoder.

    Args:
        protocol (`str`), problem_type (`str`): Name of the protocol; one of `PROBLEM_TYPES`.
        label_names (`tuple[str, ...]`): Columns of scores and labels; for a regression, targets with their unit.
        train_labels (`np.ndarray` of shape `(num_train_records, num_labels)`): Truth of the training records.
        validation, test ([`Predictions`]): Predictions of the two other splits; `validation` may be `None`.
        details (`dict`, *optional*): Choices and counts, ready for JSON: `C`, `k`, steps.
    """

    protocol: str
    label_names: tuple[str, ...]
    problem_type: str
    train_labels: np.ndarray
    validation: Predictions | None
    test: Predictions
    details: dict[str, Any] = field(default_factory=dict)

    def evaluate(self, num_resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
        """The test split by [`evaluate_predictions`], with thresholds and temperature from the validation split."""
        about = (self.label_names, self.problem_type, self.train_labels, self.validation)
        found = evaluate_predictions(self.test, *about, num_resamples, seed)
        counts = {
            "num_train_records": len(self.train_labels),
            "num_test_records": found.pop("num_records"),
            "num_test_patients": found.pop("num_patients"),
        }
        return found | counts | {"details": dict(self.details)}

    def resampled(
        self, counts: np.ndarray | Iterable[np.ndarray], deviations: np.ndarray | None = None
    ) -> ResampledScore:
        """The score that decides of the test split, and of its resamples, for differences that are paired.

        That is the macro AUROC of the labels that both training and test records have, or for a regression the mean
        absolute error over `deviations` `(num_targets,)`, by default those of the training targets. `counts` are those
        of [`~ecg_transformers.train.metrics.resample_counts`], or for labels the chunks of them.
        """
        if self.problem_type == REGRESSION:
            deviations = self.train_labels.std(axis=0) if deviations is None else deviations
            errors = np.abs(self.test.scores - self.test.labels) / deviations
            means = errors.mean(axis=1)
            by_name = dict(zip(self.label_names, errors.mean(axis=0).tolist(), strict=True))
            return ResampledScore(float(means.mean()), by_name, counts @ means / counts.sum(axis=1))
        lost = unusable_labels([self])
        columns = [column for column, name in enumerate(self.label_names) if name not in lost]
        if not columns:
            raise ValueError(f"No label can be learned and evaluated: {lost}. Give more records.")
        names = [self.label_names[column] for column in columns]
        return resampled_macro_auroc(self.test.labels[:, columns], self.test.scores[:, columns], names, counts)


def unusable_labels(results: Sequence[ProtocolResult]) -> dict[str, str]:
    """Labels that no training set of these results can teach, or that their test split cannot evaluate, with the
    reason."""
    names = results[0].label_names
    not_learned = [excluded_labels(result.train_labels, names) for result in results]
    reasons = {
        name: f"training set: {not_learned[0][name]}"
        for name in names
        if all(name in of_result for of_result in not_learned)
    }
    of_test = excluded_labels(results[0].test.labels, names)
    return reasons | {name: why for name, why in of_test.items() if name not in reasons}


def evaluate_predictions(
    found: Predictions,
    label_names: Sequence[str],
    problem_type: str,
    train_labels: np.ndarray,
    validation: Predictions | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores with 95 % intervals from a bootstrap over patients, ready for JSON.

    Labels that training never saw (or always), or that the split cannot evaluate, are left out and named under
    `excluded`.

    Args:
        found ([`Predictions`]): Predictions to score.
        validation ([`Predictions`], *optional*):
            Predictions that choose thresholds and temperature; without it, `*_tuned` and `*_scaled` are missing.

    Returns:
        `dict`: for classification `macro_auroc`, `macro_auroc_ci95`, `per_class`, `per_class_ci95` (areas under the
        ROC curve), `macro_auprc`, `per_class_auprc`, F1 (`macro_f1_at_0.5` and `macro_f1_tuned` with `thresholds`;
        with one label a record `macro_f1_argmax` and `accuracy`), `ece`, `brier`, `nll` and after temperature scaling
        `temperature`, `ece_scaled`, `brier_scaled`, `nll_scaled`, `excluded`; `without_rare_labels`, the macro AUROC
        over the labels with at least `FEW_POSITIVES` positives, where some have fewer; `challenge_metric` where the
        labels are the 26 classes of CinC 2021. For regression see [`evaluate_regression`]. `num_records` and
        `num_patients` of both.
    """
    counts = {"num_records": len(found.record_ids), "num_patients": len(set(found.patients()))}
    if problem_type == REGRESSION:
        return evaluate_regression(found, label_names, train_labels, num_resamples, seed) | counts
    not_learned = {name: f"training set: {why}" for name, why in excluded_labels(train_labels, label_names).items()}
    columns = [column for column, name in enumerate(label_names) if name not in not_learned]
    if not columns:
        raise ValueError(f"No label can be learned: {not_learned}. Train on more records.")
    names = [label_names[column] for column in columns]
    labels, scores = found.labels[:, columns], found.scores[:, columns]
    auroc, auprc = macro_auroc(labels, scores, names), macro_auprc(labels, scores, names)
    facts = {
        "macro_auroc": auroc.value,
        "per_class": auroc.per_class,
        "macro_auprc": auprc.value,
        "per_class_auprc": auprc.per_class,
    }
    if problem_type == SINGLE_LABEL:
        facts |= _single_label_facts(found, validation, label_names, columns)
    else:
        facts |= _multi_label_facts(found, validation, names, columns)
    interval = auroc_interval(labels, scores, names, num_resamples, seed, found.patients())
    facts["macro_auroc_ci95"] = list(interval.macro)
    facts["per_class_ci95"] = {name: list(bounds) for name, bounds in interval.per_class.items()}
    facts["excluded"] = not_learned | auroc.excluded
    rare = excluded_labels(labels, names, FEW_POSITIVES).keys() - auroc.excluded.keys()
    if 0 < len(rare) < len(auroc.per_class):
        frequent = [area for name, area in auroc.per_class.items() if name not in rare]
        facts["without_rare_labels"] = {
            "min_positives": FEW_POSITIVES,
            "left_out": sorted(rare),
            "macro_auroc": float(np.mean(frequent)),
        }
    if problem_type == MULTI_LABEL and set(label_names) == set(challenge_weights()[0]):
        facts |= _challenge_facts(found, label_names, facts.get("thresholds", {}), set(not_learned))
    return facts | counts


def evaluate_regression(
    found: Predictions,
    target_names: Sequence[str],
    train_targets: np.ndarray,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Errors of predicted values, in their unit and in standard deviations of the training targets.

    Returns:
        `dict`: `macro_zmae` (mean absolute error over the deviation of the training targets, mean over targets) with
        `macro_zmae_ci95`, and `per_target`: name → `mae`, `mae_ci95`, `bias` and `sd` (of the error), `pearson`, and
        `train_mean_mae`, the error of always saying the mean of the training targets.
    """
    train_targets = np.asarray(train_targets, dtype=float)
    deviations = train_targets.std(axis=0)
    if (deviations == 0).any():
        constant = [name for name, deviation in zip(target_names, deviations, strict=True) if deviation == 0]
        raise ValueError(f"The targets {constant} are the same in every training record: nothing can be learned.")
    errors = found.scores - found.labels
    if not np.isfinite(errors).all():
        raise ValueError("Expected finite targets and predictions. Leave records without a target out of the split.")
    counts = resample_counts(len(errors), num_resamples, seed, found.patients()).astype(float)
    resampled = counts @ np.abs(errors) / counts.sum(axis=1, keepdims=True)
    per_target = {}
    for column, name in enumerate(target_names):
        error, truth = errors[:, column], found.labels[:, column]
        varies = truth.std() > 0 and found.scores[:, column].std() > 0
        per_target[name] = {
            "mae": float(np.abs(error).mean()),
            "mae_ci95": list(percentile_interval(resampled[:, column])),
            "bias": float(error.mean()),
            "sd": float(error.std(ddof=1)) if len(error) > 1 else None,
            "pearson": float(np.corrcoef(truth, found.scores[:, column])[0, 1]) if varies else None,
            "train_mean_mae": float(np.abs(truth - train_targets[:, column].mean()).mean()),
        }
    return {
        "macro_zmae": float((np.abs(errors) / deviations).mean()),
        "macro_zmae_ci95": list(percentile_interval((resampled / deviations).mean(axis=1))),
        "per_target": per_target,
    }


def compare_results(
    pretrained: ProtocolResult, random_encoder: ProtocolResult, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The difference between two encoders on the same test records, by the same resamples of patients for both:
    `macro_auroc` (for a regression `macro_zmae`; pretrained minus random), `ci95` and `p_value`, see
    [`~ecg_transformers.train.metrics.paired_facts`]."""
    first, second = (
        (result.protocol, result.label_names, result.test.record_ids) for result in (pretrained, random_encoder)
    )
    if first != second:
        raise ValueError("Two results compare only by one protocol, on the same labels and test records.")
    test = pretrained.test
    draw_counts = resample_counts if pretrained.problem_type == REGRESSION else chunks_of_counts
    ours, theirs = (  # the seed gives both the same resamples
        result.resampled(draw_counts(len(test.record_ids), num_resamples, seed, test.patients()))
        for result in (pretrained, random_encoder)
    )
    score = "macro_zmae" if pretrained.problem_type == REGRESSION else "macro_auroc"
    return {score: ours.value - theirs.value} | paired_facts(ours.resampled - theirs.resampled)


def evaluate_groups(
    found: Predictions,
    groups: Mapping[str, Sequence[bool]],
    label_names: Sequence[str],
    problem_type: str,
    train_labels: np.ndarray,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """The score that decides for groups of the test records, such as women or an age.

    `groups` names the members of each group among the records; the other arguments are those of
    [`evaluate_predictions`].

    Returns:
        `dict[str, dict]`: for each group, `macro_auroc` or `macro_zmae` with its interval, `num_records`,
        `num_patients` and the number of labels that it can evaluate, `num_labels`; or `refused`, with the reason.
    """
    evaluated = {}
    for name, members in groups.items():
        rows = np.flatnonzero(members)
        if len(rows) < FEW_POSITIVES:
            evaluated[name] = {"refused": f"{len(rows)} records are too few (at least {FEW_POSITIVES})"}
            continue
        try:
            facts = evaluate_predictions(
                found.take(rows), label_names, problem_type, train_labels, num_resamples=num_resamples, seed=seed
            )
        except ValueError as error:
            evaluated[name] = {"refused": str(error)}
            continue
        score = "macro_zmae" if problem_type == REGRESSION else "macro_auroc"
        kept = (score, f"{score}_ci95", "num_records", "num_patients")
        evaluated[name] = {key: facts[key] for key in kept}
        if problem_type != REGRESSION:
            evaluated[name]["num_labels"] = len(facts["per_class"])
    return evaluated


AGE_YEARS = (0, 40, 60, 80)


def groups_of_people(record_ids: Sequence[str], rows: Dataset) -> dict[str, np.ndarray]:
    """Members of each sex and of each age of `AGE_YEARS` among records, for [`evaluate_groups`], where their rows
    state these; empty groups are left out."""
    stated = rows.select_columns([name for name in ("record_id", "age", "sex") if name in rows.column_names])
    people = stated.to_pandas().set_index("record_id").reindex(index=record_ids, columns=["age", "sex"])
    groups = {"women": people["sex"] == "female", "men": people["sex"] == "male"}
    years = people["age"].astype(float)
    for low, high in zip(AGE_YEARS, [*AGE_YEARS[1:], np.inf], strict=True):
        name = f"{low} to {high - 1:.0f} years" if low else f"younger than {high}"
        name = f"{low} years and older" if high == np.inf else name
        groups[name] = (years >= low) & (years < high)
    return {name: members.to_numpy() for name, members in groups.items() if members.any()}


def write_predictions(
    found: Mapping[Any, Predictions], label_names: Sequence[str], path: Path, keys=("split",)
) -> Path:
    """One row a record, so that anybody can score again.

    Args:
        found (`Mapping`): Predictions by the values of `keys`: one string, or a tuple of them.
        label_names (`Sequence[str]`): Columns `label/NAME` (0 or 1, or the target) and `score/NAME`.
        path (`Path`): `.parquet`. The other columns are `keys`, `record_id` and `patient_id`.
    """
    tables = []
    for values, part in found.items():
        values = (values,) if isinstance(values, str) else values
        columns = {key: [value] * len(part.record_ids) for key, value in zip(keys, values, strict=True)}
        columns |= {"record_id": part.record_ids, "patient_id": pa.array(part.patient_ids, pa.string())}
        for column, name in enumerate(label_names):
            columns[f"label/{name}"] = pa.array(part.labels[:, column])
            columns[f"score/{name}"] = pa.array(part.scores[:, column], pa.float64())
        tables.append(pa.table(columns))
    pq.write_table(pa.concat_tables(tables), path, compression="zstd")
    return path


def _multi_label_facts(found: Predictions, validation: Predictions | None, names, columns) -> dict[str, Any]:
    """F1 and calibration of the labels that training has."""
    labels, scores, of_validation, logits_of_validation = found.labels[:, columns], found.scores[:, columns], {}, {}
    if validation is not None:
        truth, said = validation.labels[:, columns], validation.scores[:, columns]
        of_validation = {"validation_labels": truth, "validation_probabilities": said}
        logits_of_validation = {"validation_labels": truth, "validation_logits": _logits(said)}
    scored = classification_scores(labels, scores, names, **of_validation)
    facts = {"macro_f1_at_0.5": scored["macro_f1_at_0.5"]}
    if validation is not None:
        thresholds = {name: row["threshold"] for name, row in scored["per_class"].items() if "threshold" in row}
        facts |= {"macro_f1_tuned": scored["macro_f1_tuned"], "thresholds": thresholds}
        facts["excluded_from_f1_tuned"] = scored["excluded_from_f1_tuned"]
    calibrated = calibration_scores(
        labels, _logits(scores), names, may_lie_in_unit_interval=True, **logits_of_validation
    )
    return facts | _calibration_facts(calibrated)


def _single_label_facts(found: Predictions, validation: Predictions | None, label_names, columns) -> dict[str, Any]:
    """F1 of the most probable class, over the classes that training has; accuracy and calibration over all."""
    classes, chosen = found.labels.argmax(axis=1), found.scores.argmax(axis=1)
    names = [label_names[column] for column in columns]
    f1 = macro_f1(found.labels[:, columns], one_hot(chosen, len(label_names))[:, columns], names)
    of_validation = {}
    if validation is not None:
        of_validation["validation_labels"] = validation.labels.argmax(axis=1)
        of_validation["validation_logits"] = _log(validation.scores)
    calibrated = calibration_scores(classes, _log(found.scores), label_names, **of_validation)
    facts = {"macro_f1_argmax": f1.value, "accuracy": float((classes == chosen).mean())}
    return facts | _calibration_facts(calibrated)


def _calibration_facts(calibrated: Mapping) -> dict[str, float]:
    names = ("ece", "brier", "nll", "temperature", "ece_scaled", "brier_scaled", "nll_scaled")
    return {name: calibrated[name] for name in names if name in calibrated}


def _challenge_facts(found: Predictions, label_names, thresholds, not_learned) -> dict[str, Any]:
    """The metric of the challenge at the thresholds of the validation split, or why there is none."""
    limits = np.array([np.inf if name in not_learned else thresholds.get(name, 0.5) for name in label_names])
    try:
        scores = challenge_scores(found.labels, (found.scores >= limits).astype(int), label_names)
    except ValueError as error:
        return {"challenge_metric": None, "challenge_metric_missing": str(error)}
    return {"challenge_metric": scores["challenge_metric"]}


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return logit(np.clip(probabilities, CLOSEST_PROBABILITY, 1 - CLOSEST_PROBABILITY))


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, CLOSEST_PROBABILITY))


def stored_calibration(
    evaluated: Mapping[str, Any],
    label_names: Sequence[str],
    measured_on: Mapping[str, Any] | None = None,
    subsets: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any] | None:
    """`config.calibration` of a classifier, for `pipeline("ecg-classification")`.

    Args:
        evaluated (`Mapping`): Scores by [`evaluate_predictions`] with a validation split, which give `temperature`
            and `thresholds`.
        label_names (`Sequence[str]`): All labels of the model, in their order.
        measured_on (`Mapping`, *optional*): See [`~ecg_transformers.train.tasks.lead_subsets.usual_input`].
        subsets (`Mapping`, *optional*): Scores of records of fewer leads, with the `leads` that the model gets.

    Returns:
        `dict`: `labels`, `temperature`, and `thresholds` where the evaluation has some: those of probabilities before
        the temperature become those after it, which split the same records. `None` for a regression, or without a
        validation split.
    """
    if "temperature" not in evaluated:
        return None
    calibration = {"labels": list(label_names), **_measured(evaluated)}
    if measured_on is not None:
        calibration["input"] = dict(measured_on)
    if subsets:
        calibration["subsets"] = [{"leads": list(of["leads"]), **_measured(of)} for of in subsets.values()]
    return calibration


def _measured(evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """Temperature, and thresholds after it."""
    measured: dict[str, Any] = {"temperature": float(evaluated["temperature"])}
    if thresholds := evaluated.get("thresholds"):
        scaled = expit(logit(np.array(list(thresholds.values()), dtype=float)) / measured["temperature"])
        measured["thresholds"] = dict(zip(thresholds, scaled.tolist(), strict=True))
    return measured
