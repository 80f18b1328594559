"""Targets of a task: labels of a recording, age or sex of the person, or intervals of the waves."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoFeatureExtractor, AutoModelForTokenClassification

from ecg_transformers.data import load_ecg

from ..checkpoints import find_checkpoint
from ..delineation.evaluation import delineate
from ..delineation.intervals import TARGETS as INTERVALS
from ..delineation.intervals import interval_targets
from ..delineation.masks import RecordWaves
from ..results import REGRESSION, SINGLE_LABEL
from .duplicates import one_of_each, refuse_shared_recordings
from .labelled_splits import LabelledSplits, collect_splits, load_labelled_splits, numbered

SEXES = ("female", "male")
TARGETS = {
    "sex": (SEXES, SINGLE_LABEL),
    "age": (("age_years",), REGRESSION),
    "intervals": (INTERVALS, REGRESSION),
}
"""Targets beside the labels of a corpus: names of the outputs and type of the task."""
OLDEST_YEARS = 120  # PTB-XL writes 300 for "older than 89"


def load_task(
    name: str,
    data_dir: str | None = None,
    options: Mapping[str, Any] | None = None,
    target: str = "labels",
    problem_type: str | None = None,
    unlabelled: str = "drop",
    delineator: str | None = None,
) -> LabelledSplits:
    """The three splits of a corpus of [`load_ecg`] with the target of each record.

    Args:
        target (`str`, *optional*, defaults to `"labels"`):
            `"labels"` of the corpus; `"sex"` (two classes); `"age"` in years; or `"intervals"`: heart rate, QRS
            duration, PR, QT and QTc (Fridericia) of the waves, see [`interval_targets`]. Records without the target,
            or without one of the intervals, are left out and counted.
        problem_type (`str`, *optional*), unlabelled (`str`): Settings of `"labels"`, see [`load_labelled_splits`].
        delineator (`str`, *optional*):
            A trained delineator for `"intervals"` of corpora in which nobody marked the waves:
            `"ecg-small-delineation"`, which the package carries, or a folder (see `docs/delineation.md`). Such
            targets carry its errors, for both encoders alike.

    Raises:
        ValueError: for a split without records, with patients or recordings of another, or a target that the corpus
            does not have.
    """
    if target != "labels" and target not in TARGETS:
        raise ValueError(f"Expected target of {['labels', *TARGETS]}, got {target!r}.")
    if delineator is not None and target != "intervals":
        raise ValueError(f"A delineator makes the target 'intervals'; the target is {target!r}.")
    if target == "labels":
        return _one_of_each(load_labelled_splits(name, data_dir, options, problem_type, unlabelled))
    if problem_type is not None or unlabelled != "drop":
        raise ValueError(f"problem_type and unlabelled are settings of labels; the target is {target!r}.")

    def load(split: str) -> tuple[Dataset, list[bool]]:
        rows = load_ecg(name, data_dir=data_dir, split=split, decode=False, **(options or {}))
        if target == "sex":
            labels = [[sex] if sex in SEXES else [] for sex in rows["sex"]]
            rows = numbered(rows.remove_columns("labels").add_column("labels", labels), SEXES)
            return rows, [bool(of_record) for of_record in labels]
        if target == "intervals":
            values = _intervals(rows, delineator)
        else:
            values = [[age] if age is not None and 0 <= age <= OLDEST_YEARS else None for age in rows["age"]]
        return rows.add_column("targets", values), [value is not None for value in values]

    names, problem_type = TARGETS[target]
    return _one_of_each(collect_splits(load, names, problem_type, f"target {target!r}"))


def _one_of_each(splits: LabelledSplits) -> LabelledSplits:
    """No recording in two splits, and none that counts twice in a score."""
    refuse_shared_recordings(dict(splits.items()))
    evaluated, copies = {}, {}
    for split in ("validation", "test"):
        evaluated[split], copies[split] = one_of_each(vars(splits)[split])
    return dataclasses.replace(splits, **evaluated, copies=copies)


def _intervals(rows: Dataset, delineator: str | None) -> list[list[float] | None]:
    """The intervals of each record, where all of them could be measured."""
    if delineator is None:
        if "wave_kind" not in rows.column_names:
            raise ValueError(
                "No waves are marked in this corpus, expected the columns wave_lead, wave_kind, ... of LUDB. Give a "
                "trained delineator (--delineator ecg-small-delineation)."
            )
        waves = list(rows)
    else:
        delineator = find_checkpoint(delineator)
        model = AutoModelForTokenClassification.from_pretrained(delineator)
        waves = delineate(model, AutoFeatureExtractor.from_pretrained(delineator), rows, left_out={})
    table = np.column_stack(list(interval_targets(waves).values()))
    ids = [row.record_id if isinstance(row, RecordWaves) else row["record_id"] for row in waves]
    measured = {
        record_id: values.tolist() for record_id, values in zip(ids, table, strict=True) if np.isfinite(values).all()
    }
    return [measured.get(record_id) for record_id in rows["record_id"]]
