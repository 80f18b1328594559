"""PTB: 12-lead recordings (1000 Hz) of 290 patients and healthy controls of Berlin, in two forms.

- PhysioNet's `ptbdb`, 549 recordings in one folder a patient (`patient001/s0010_re`), with the three Frank leads,
  which are left out unless `frank_leads=True`. The headers have a summary in words: `task="diagnosis"` makes the nine
  diagnostic classes of the database of its reason for admission. 27 recordings state none.
- That of the PhysioNet/CinC challenges, 516 of them as S0001 to S0549, with SNOMED CT codes (`task="scored"`, `"all"`
  or `"codes"`) and without patients and Frank leads.

Splits by age and sex: the headers of a patient repeat them, and what has the same age and sex goes to one split. So a
patient is never on two sides, and a recording is on the same side in both forms. Where the folders name the patients,
the first recording of each decides for all.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...modeling.leads import FRANK_LEADS
from ..corpus import IndexEntry
from ..formats.wfdb_comments import parse_comments
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord
from .cinc_snomed import SNOMED_TASKS, snomed_label_names
from .cinc_source import (
    CincSource,
    cinc_corpus,
    find_records,
    one_form,
    read_cinc_record,
    snomed_features,
)
from .splits import split_by_hash
from .tables import warn_if_partial

PTB_SOURCE = CincSource("ptb", "PTB", "S", 4, count=516, by_age_and_sex=True)
PHYSIONET_COUNT = 549

# The classes of the database's own description, in its order, by reason for admission in lower case.
_CLASSES = {
    "myocardial infarction": "Myocardial infarction",
    "cardiomyopathy": "Cardiomyopathy/Heart failure",
    "heart failure (nyha 2)": "Cardiomyopathy/Heart failure",
    "heart failure (nyha 3)": "Cardiomyopathy/Heart failure",
    "heart failure (nyha 4)": "Cardiomyopathy/Heart failure",
    "bundle branch block": "Bundle branch block",
    "dysrhythmia": "Dysrhythmia",
    "hypertrophy": "Myocardial hypertrophy",
    "myocardial hypertrophy": "Myocardial hypertrophy",
    "valvular heart disease": "Valvular heart disease",
    "myocarditis": "Myocarditis",
    "stable angina": "Miscellaneous",
    "unstable angina": "Miscellaneous",
    "palpitation": "Miscellaneous",
    "healthy control": "Healthy control",
}
_RECORD = re.compile(r"s\d{4}(_re|lre)")
_PATIENT = re.compile(r"patient\d{3}")
_SUMMARY = {"reason for admission": "reason_for_admission", "acute infarction (localization)": "acute_infarction"}


def ptb_label_names(task: str = "diagnosis") -> tuple[str, ...]:
    """The classes of a task; of `"diagnosis"` the nine of the database's own description, in its order."""
    return tuple(dict.fromkeys(_CLASSES.values())) if task == "diagnosis" else snomed_label_names(task)


def parse_summary(comments: Sequence[str]) -> dict[str, str | None]:
    """`reason_for_admission` and `acute_infarction` as a header of `ptbdb` states them; `None` for `n/a`."""
    known = dict.fromkeys(_SUMMARY.values())
    for comment in comments:
        name, _, value = comment.partition(":")
        if name.strip().lower() in _SUMMARY and value.strip().lower() not in ("", "n/a"):
            known[_SUMMARY[name.strip().lower()]] = value.strip()
    return known


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    records = find_records(data_dir, lambda record_id: _RECORD.fullmatch(record_id) is not None)
    of_challenge = find_records(data_dir, PTB_SOURCE.holds)
    if not one_form(data_dir, records, of_challenge):
        if of_challenge and (options["task"] == "diagnosis" or options["frank_leads"]):
            raise ValueError(
                f"{data_dir} is the form of PTB of the PhysioNet/CinC challenges, which has neither the reasons for "
                f"admission nor the Frank leads. Choose task from {list(SNOMED_TASKS)} and frank_leads=False, or get "
                "PhysioNet's ptbdb."
            )
        return CHALLENGE_FORM.index(data_dir, options)
    if options["task"] != "diagnosis":
        raise ValueError(f"{data_dir} is PhysioNet's form of PTB, which has no SNOMED CT codes. Use task='diagnosis'.")
    warn_if_partial(PTB, data_dir, len(records), PHYSIONET_COUNT)
    entries, keys = [], {}
    for record_id, path in records.items():
        folder = Path(path).parent.name
        patient_id = folder if _PATIENT.fullmatch(folder) else None
        key = keys.setdefault(patient_id or record_id, PTB_SOURCE.age_and_sex(path))
        columns = {"source": "ptb", "patient_id": patient_id}
        entries.append(IndexEntry(path, record_id, split_by_hash(key), columns))
    return entries


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    if PTB_SOURCE.holds(entry.record_id):
        record = read_cinc_record(entry, options)
        record.extra |= parse_summary([])
        return record
    record, comments = read_record(entry.path, entry.record_id)
    if not options["frank_leads"]:
        record = _without_frank_leads(record)
    summary = parse_summary(comments)
    reason = (summary["reason_for_admission"] or "").lower()
    stated = parse_comments(comments) | {"labels": [_CLASSES[reason]] if reason in _CLASSES else []}
    record.extra = {"snomed_codes": []} | summary
    for name, value in (stated | dict(entry.columns)).items():
        setattr(record, name, value)
    return record


def _without_frank_leads(record: EcgRecord) -> EcgRecord:
    kept = [row for row, lead in enumerate(record.leads) if lead not in FRANK_LEADS]
    gain = None if record.gain is None else record.gain[kept]
    return replace(record, signal=record.signal[kept], leads=[record.leads[row] for row in kept], gain=gain)


def ptb_features() -> dict[str, Any]:
    """Columns beside the common ones: `snomed_codes`, and `reason_for_admission` and `acute_infarction` of `ptbdb`."""
    from datasets import Value

    return snomed_features() | {name: Value("string") for name in _SUMMARY.values()}


CHALLENGE_FORM = cinc_corpus(PTB_SOURCE, other_names=("patient001/s0010_re",))
PTB = replace(
    CHALLENGE_FORM,
    description="PTB, the PTB Diagnostic ECG Database (549 recordings)",
    homepage="https://physionet.org/content/ptbdb",
    licence="other: ODC-BY 1.0; in the form of the challenges CC BY 4.0",
    citation=(
        "Bousseljot R, Kreiseler D, Schnabel A. Nutzung der EKG-Signaldatenbank CARDIODAT der PTB über das Internet. "
        "Biomed Tech 1995;40(s1):317. PhysioNet doi:10.13026/C28C71"
    ),
    options={"task": ("diagnosis", *SNOMED_TASKS), "frank_leads": (False, True)},
    index=_index,
    read=_read,
    label_names=lambda options: ptb_label_names(options["task"]),
    extra_features=ptb_features,
)
