"""Labelled recordings for fine-tuning: which kind of task they make, who is left out, which windows are cut."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.ptb_xl import SINGLE_LABEL_TASK
from ecg_transformers.data.loading import find_corpus, locate

from ..patients import refuse_shared_patients
from ..results import MULTI_LABEL, REGRESSION, SINGLE_LABEL

logger = logging.getLogger("ecg_transformers")

SPLITS = ("train", "validation", "test")
# Corpora whose every record has exactly one class; the others list any number of labels.
SINGLE_LABEL_CORPORA = ("brugada-huca", "cinc2017")
UNDECLARED_CORPORA = ("prepared", "wfdb")
NAMED = 5  # of the records that are left out


@dataclass(frozen=True)
class LabelledSplits:
    """Training, validation and test records of a classifier.

    Args:
        train, validation, test (`Dataset`):
            Stored rows of [`load_ecg`]; for a single-label task with a column `label`, the number of the class; for a
            regression with a column `targets`, one float a target.
        label_names (`tuple[str, ...]`): The classes, or the targets with their unit, in the order of the outputs.
        problem_type (`str`): `"multi_label_classification"`, `"single_label_classification"` or `"regression"`.
        unlabelled (`dict[str, int]`): Records without any label of the task, of each split.
        left_out (`bool`): `True` where these were left out; else they count as negative for every label.
        copies (`dict[str, dict[str, str]]`, *optional*): Exact copies that were left out, with the record that stays.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    label_names: tuple[str, ...]
    problem_type: str
    unlabelled: Mapping[str, int]
    left_out: bool
    copies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def items(self) -> Iterator[tuple[str, Dataset]]:
        return ((split, vars(self)[split]) for split in SPLITS)

    def truth_of(self, split: str, record_ids: Sequence[str] | None = None) -> np.ndarray:
        """Truth of the records of a split, by default of all: `(num_records, num_labels)`, int8 of 0 and 1, or float64
        targets of a regression."""
        rows = vars(self)[split]
        if self.problem_type == REGRESSION:
            truth = np.array(rows["targets"][:], dtype=float)
        else:
            truth = np.array([[name in labels for name in self.label_names] for labels in rows["labels"]], np.int8)
        if record_ids is None:
            return truth
        positions = {record_id: position for position, record_id in enumerate(rows["record_id"])}
        if len(positions) != len(rows):
            raise ValueError(f"The split {split!r} has several records of one id: give each its own.")
        return truth[[positions[record_id] for record_id in record_ids]]


def load_labelled_splits(
    name: str,
    data_dir: str | None = None,
    options: Mapping[str, Any] | None = None,
    problem_type: str | None = None,
    unlabelled: str = "drop",
) -> LabelledSplits:
    """The three splits of a corpus of [`load_ecg`].

    Args:
        problem_type (`str`, *optional*): Type of the task, by default the declared one, see [`declared_problem_type`].
        unlabelled (`str`, *optional*, defaults to `"drop"`):
            Records without any label of the task: `"drop"`, as the benchmark of PTB-XL does, or `"keep"`, which makes
            them negative for every label.

    Raises:
        ValueError: for data that declares no kind of task, a split without records or with patients of another, or
            records of a single-label task that have several labels.
    """
    options = dict(options or {})
    if problem_type is None:
        problem_type = declared_problem_type(name, data_dir, options)
    if unlabelled == "keep" and problem_type == SINGLE_LABEL:
        raise ValueError(
            "A single-label task has no class for records without a label: unlabelled='keep' is for multi-label tasks."
        )
    names = label_names(name, data_dir=data_dir, **options)
    if problem_type == SINGLE_LABEL and len(names) < 2:
        raise ValueError(
            f"A single-label task needs two classes, the data has {list(names)}. To tell records with the label from "
            "those without: --problem_type multi_label_classification --unlabelled keep."
        )

    def load(split: str) -> tuple[Dataset, list[bool]]:
        rows = load_ecg(name, data_dir=data_dir, split=split, decode=False, **options)
        rows = numbered(rows, names) if problem_type == SINGLE_LABEL else rows
        return rows, [bool(labels) for labels in rows["labels"]]

    return collect_splits(load, tuple(names), problem_type, "label of the task", keep=unlabelled == "keep")


def collect_splits(
    load: Callable[[str], tuple[Dataset, list[bool]]],
    label_names: tuple[str, ...],
    problem_type: str,
    what: str,
    keep: bool = False,
) -> LabelledSplits:
    """The three splits with what they are learned for, no patient in two of them.

    Args:
        load (`Callable`): Function from the name of a split to its rows, and for each whether it has a target.
        label_names, problem_type: Those of [`LabelledSplits`].
        what (`str`): Name of the target in messages.
        keep (`bool`, *optional*, defaults to `False`): Keep records without a target, as negative for every label.
    """
    splits, without = {}, {}
    for split in SPLITS:
        rows, has_target = load(split)
        ids = [record_id for record_id, has in zip(rows["record_id"], has_target, strict=True) if not has]
        without[split] = len(ids)
        if ids:
            done = "kept, as negative for every label" if keep else "left out"
            named = ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
            counts = f"{len(ids)} of {len(rows)}"
            logger.info("%s: %s records have no %s and are %s: %s", split, counts, what, done, named)
        if ids and not keep:
            rows = rows.select([number for number, has in enumerate(has_target) if has])
        if not len(rows):
            raise ValueError(
                f"The split {split!r} has no record with a {what}. One learns on 'train', selects on 'validation' and "
                "tests on 'test': all three are needed. Choose data or a target that states it."
            )
        splits[split] = rows
    refuse_shared_patients(splits)
    return LabelledSplits(
        **splits, label_names=label_names, problem_type=problem_type, unlabelled=without, left_out=not keep
    )


def declared_problem_type(name: str, data_dir: str | None, options: Mapping[str, Any]) -> str:
    """The type of a task that a corpus declares: any number of labels a record (multi-label), or exactly one.

    A folder of `ecgfolder` says it by how its labels are declared: one column without `label_separator` holds one name
    a recording; a separator, or a list of columns of 0 and 1, any number.

    Raises:
        ValueError: where nothing declares it; the cure is to say it.
    """
    if name in UNDECLARED_CORPORA:
        raise ValueError(
            f"{name!r} does not declare whether a record has exactly one label or any number. Say it: --problem_type "
            f"{MULTI_LABEL} or {SINGLE_LABEL}."
        )
    corpus = find_corpus(name)
    if name == "ecgfolder":
        _, declared = locate(corpus, data_dir, corpus.complete_options(options))
        one_name = isinstance(declared["labels"] or "", str) and declared["label_separator"] is None
        return SINGLE_LABEL if one_name else MULTI_LABEL
    is_single = name in SINGLE_LABEL_CORPORA or options.get("task") == SINGLE_LABEL_TASK
    return SINGLE_LABEL if is_single else MULTI_LABEL


def task_name(name: str, options: Mapping[str, Any], target: str = "labels") -> str:
    """The corpus and the target of its records: where it has several sets of labels, the name of the set."""
    if target != "labels":
        return f"{name} {target}"
    defaults = {} if name == "prepared" else find_corpus(name).complete_options(options)
    task = options.get("task", defaults.get("task"))
    return name if task is None else f"{name} {task}"


def numbered(rows: Dataset, names: Sequence[str]) -> Dataset:
    """Rows with the number of their class in a column `label`, null for those without one.

    Before a selection of rows, not after it: `datasets` would copy every recording.
    """
    labels = rows["labels"][:]
    for record_id, of_record in zip(rows["record_id"], labels, strict=True):
        if len(of_record) > 1:
            raise ValueError(
                f"Record {record_id} has the labels {of_record}, expected exactly one: the task is single-label. Give "
                f"--problem_type {MULTI_LABEL}, or data of one label a record."
            )
    return rows.add_column("label", [names.index(of_record[0]) if of_record else None for of_record in labels])
