"""Published numbers that may stand beside ours: those of the same task, protocol and split, and no others.

In this field numbers of different things stand in one column: "PTB-XL" is six tasks; "linear" of one paper is an
attentive probe; "fine-tuned" may mean the best epoch on the test fold; a part of fold 10 is an easier or harder test
than all of it. `published.yaml` holds what was printed, with the protocol it truly belongs to, and names what was left
out with the reason; [`comparable_numbers`] hands out exact matches.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

TABLES = Path(__file__).with_name("published.yaml")
TRAIN_SPLIT, TEST_SPLIT = "folds 1-8", "fold 10"
"""Split of all published numbers that are kept."""
COMPLETE_TEST_RECORDS = {
    "ptb-xl all": 2198,
    "ptb-xl diagnostic": 2158,
    "ptb-xl subdiagnostic": 2158,
    "ptb-xl superdiagnostic": 2158,
    "ptb-xl form": 880,
    "ptb-xl rhythm": 2098,
    "ptb-xl superdiagnostic_single": 1650,
}
"""Records of fold 10 with a label of the task, in version 1.0.3 of PTB-XL."""


@lru_cache(maxsize=1)
def published_tables() -> dict[str, Any]:
    """Content of `published.yaml`: `numbers`, as their authors printed them, and `left_out`, reasons for some
    tasks and protocols.

    A number has `model`, `task` and `protocol` (by our names), `value`, `interval` (bootstrap over test records) or
    `deviation` (over runs: no uncertainty of the test records), `source` and `note`.
    """
    content = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    numbers = []
    for table in content["tables"]:
        about = {name: table.get(name) for name in ("protocol", "source", "note")}
        for model, cells in table["rows"].items():
            for task, cell in zip(table["tasks"], cells, strict=True):
                value, spread = cell if isinstance(cell, list) else (cell, None)
                facts = {"model": model, "task": task, "value": value, **about, "interval": None, "deviation": spread}
                if table.get("spread") == "interval":
                    low, high = round(value - spread, 4), round(value + spread, 4)
                    facts |= {"interval": (low, high), "deviation": None}
                numbers.append(facts)
    return {"numbers": numbers, "left_out": content["left_out"]}


def comparable_numbers(
    task: str,
    protocol: str,
    train_split: str,
    test_split: str,
    test_is_complete: bool,
    excluded_labels: Sequence[str] = (),
) -> tuple[list[dict], str]:
    """The published macro AUROCs that may stand beside one of ours, the best first.

    Args:
        task (`str`): Name of the task, see [`task_name`].
        protocol (`str`): Protocol of ours; `"from_scratch"` for `finetuned` without pretraining.
        train_split, test_split (`str`): `"folds 1-8"` and `"fold 10"`; folds that only choose do not count.
        test_is_complete (`bool`): `True` where every record of the test split was scored, see [`is_complete_test`].
        excluded_labels (`Sequence[str]`, *optional*): Labels that our test left out: a mean over fewer is another.

    Returns:
        `tuple[list[dict], str]`: numbers, ready for JSON, and a sentence on them, or on why there are none.
    """
    published = published_tables()
    if all(number["task"] != task for number in published["numbers"]):
        return [], f"We know no published number of the task {task!r} that could stand beside these."
    if not test_is_complete:
        return [], (
            f"No published number stands beside these: the test is only a part of {test_split}, which is another test "
            "than all of it."
        )
    if excluded_labels:
        named = f"{', '.join(excluded_labels[:5])}{', ...' if len(excluded_labels) > 5 else ''}"
        return [], (
            f"No published number stands beside these: {len(excluded_labels)} labels are left out of the mean "
            f"({named}), and the published means are over all."
        )
    found = [number for number in published["numbers"] if (number["task"], number["protocol"]) == (task, protocol)]
    of_both = (of for of in published["left_out"] if task in of["tasks"] and protocol in of["protocols"])
    reasons = "; ".join(of["reason"] for of in of_both)
    left_out = f" Left out of this protocol: {reasons}." if reasons else ""
    if not found or (train_split, test_split) != (TRAIN_SPLIT, TEST_SPLIT):
        return [], (
            f"We know no published number of the task {task!r}, the protocol {protocol!r}, training on {train_split} "
            f"and a test on {test_split}.{left_out}"
        )
    return sorted(found, key=lambda number: number["value"], reverse=True), (
        f"{len(found)} published numbers have the same task, protocol and split. Window, rate, pretraining data and "
        f"optimiser are those of their authors.{left_out}"
    )


def is_complete_test(task: str, num_test_records: int) -> bool:
    """Checks that so many labelled test records are all of fold 10, for the tasks of PTB-XL; else `False`."""
    return num_test_records == COMPLETE_TEST_RECORDS.get(task)
