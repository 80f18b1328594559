"""The SNOMED CT codes of the PhysioNet/CinC challenges 2020 and 2021, their abbreviations and the scored classes.

`cinc2021_labels.csv` is made from the tables of the challenge's own scoring (its licence lies beside it): 133 codes,
all that occur in the training data, of which 30 are scored as 26 classes. Four pairs are scored as one class each and
bear both names, as in the challenge's table of weights: `"CLBBB|LBBB"`, `"CRBBB|RBBB"`, `"PAC|SVPB"`, `"PVC|VPB"`.
"""

import csv
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

SNOMED_TASKS = ("scored", "all", "codes")
LABEL_TABLE = Path(__file__).parent / "cinc2021_labels.csv"


@lru_cache(maxsize=len(SNOMED_TASKS))
def _classes_by_code(task: str) -> dict[str, str]:
    """SNOMED CT code → class of the task, for the codes that have one."""
    column = {"scored": "scored_class", "all": "abbreviation", "codes": "code"}[task]
    with open(LABEL_TABLE, newline="", encoding="utf-8") as file:
        return {row["code"]: row[column] for row in csv.DictReader(file) if row[column]}


def snomed_label_names(task: str = "scored") -> tuple[str, ...]:
    """The classes of a task: `"scored"`, 26 in the order of the challenge's weights; `"all"`, the abbreviations of all
    133 codes, scored ones first; `"codes"`, the codes themselves in the same order."""
    return tuple(dict.fromkeys(_classes_by_code(task).values()))


def snomed_labels(codes: Iterable[str], task: str = "scored") -> list[str]:
    """The classes of a record, in the order of [`snomed_label_names`]; codes without a class are left out."""
    classes = _classes_by_code(task)
    found = {classes[code] for code in codes if code in classes}
    return [name for name in snomed_label_names(task) if name in found]
