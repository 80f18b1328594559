"""INCART: 75 recordings of 30 minutes (12 leads, 257 Hz) from 32 Holter patients of St Petersburg, in two forms.

- PhysioNet's `incartdb`, I01 to I75. The headers state age, sex, patient and, in words, what the patient has and what
  the recording shows: the columns `diagnoses` and `findings`. There are no codes, so `labels` are empty.
- That of the PhysioNet/CinC challenges, I0001 to I0075 without I0036, whose headers state SNOMED CT codes and no
  patient. I0004 is I04, so the patients are known here too.

Split by patient, alike in both forms: 63, 5 and 7 recordings.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..corpus import IndexEntry
from ..formats.wfdb_reader import read_record
from ..records import EcgRecord
from .cinc_source import (
    CincSource,
    cinc_corpus,
    find_records,
    one_form,
    read_cinc_record,
    snomed_features,
)
from .tables import warn_if_partial

logger = logging.getLogger(__name__)

# How many recordings each of the patients 1 to 32 has; they are numbered patient by patient, from I01.
_RECORDINGS = (2, 3, 2, 1, 3, 3, 1, 2, 2, 3, 2, 2, 2, 4, 2, 3, 2, 2, 2, 3, 2, 2, 3, 3, 2, 3, 3, 3, 2, 2, 2, 2)
_PATIENTS = tuple(str(patient) for patient, count in enumerate(_RECORDINGS, start=1) for _ in range(count))

INCART_SOURCE = CincSource(
    "incart",
    "INCART",
    "I",
    4,
    count=74,
    patients={f"I{number:04d}": patient for number, patient in enumerate(_PATIENTS, start=1)},
)
PHYSIONET_FORM = CincSource(
    "incart",
    "INCART",
    "I",
    2,
    count=75,
    patients={f"I{number:02d}": patient for number, patient in enumerate(_PATIENTS, start=1)},
)

# "<age>: 65 <sex>: F <diagnoses> Coronary artery disease, arterial hypertension"; the diagnoses may be absent.
_PERSON = re.compile(r"<age>:\s*(?P<age>\d+)?\D*<sex>:\s*(?P<sex>[MF])?\s*(?:<diagnoses>\s*(?P<diagnoses>.*))?")
_PATIENT = re.compile(r"patient\s+(\d+)$")


def parse_incart_comments(comments: Sequence[str]) -> dict[str, Any]:
    """Age in years, sex, patient_id, diagnoses and findings of a header of `incartdb`; `None` is "not stated"."""
    known = dict.fromkeys(("age", "sex", "patient_id", "diagnoses", "findings"))
    others = []
    for comment in comments:
        person, patient = _PERSON.match(comment), _PATIENT.match(comment)
        if person:
            known["age"] = float(person["age"]) if person["age"] else None
            known["sex"] = {"M": "male", "F": "female"}.get(person["sex"])
            known["diagnoses"] = (person["diagnoses"] or "").strip() or None
        elif patient:
            known["patient_id"] = patient[1]
        elif comment:
            others.append(comment)
    known["findings"] = " ".join(others) or None
    return known


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    records = find_records(data_dir, PHYSIONET_FORM.holds)
    if not one_form(data_dir, records, find_records(data_dir, INCART_SOURCE.holds)):
        return CHALLENGE_FORM.index(data_dir, options)
    warn_if_partial(INCART, data_dir, len(records), PHYSIONET_FORM.count)
    logger.warning(
        "%s is PhysioNet's form of INCART, whose headers have no codes: labels are empty. See the columns `diagnoses` "
        "and `findings`, or load the form of the PhysioNet/CinC challenges.",
        data_dir,
    )
    return [PHYSIONET_FORM.entry(path, record_id) for record_id, path in records.items()]


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    if INCART_SOURCE.holds(entry.record_id):
        record = read_cinc_record(entry, options)
        record.extra |= {"diagnoses": None, "findings": None}
        return record
    record, comments = read_record(entry.path, entry.record_id)
    stated = parse_incart_comments(comments)
    record.extra = {"snomed_codes": []} | {name: stated.pop(name) for name in ("diagnoses", "findings")}
    if stated["patient_id"] not in (None, entry.columns["patient_id"]):
        raise ValueError(
            f"The header of {entry.record_id} says patient {stated['patient_id']}, the database's list of patients "
            f"{entry.columns['patient_id']}. The split by patient would be wrong."
        )
    for name, value in (stated | dict(entry.columns)).items():
        setattr(record, name, value)
    return record


def incart_features() -> dict[str, Any]:
    """Columns beside the common ones: `snomed_codes`, and the words of `incartdb`: `diagnoses` and `findings`."""
    from datasets import Value

    return snomed_features() | {"diagnoses": Value("string"), "findings": Value("string")}


CHALLENGE_FORM = cinc_corpus(INCART_SOURCE, other_names=("I01",))
INCART = replace(
    CHALLENGE_FORM,
    description="INCART, the St Petersburg 12-lead arrhythmia database (75 recordings of 30 minutes)",
    homepage="https://physionet.org/content/incartdb",
    licence="other: ODC-BY 1.0; in the form of the challenges CC BY 4.0",
    citation=(
        "Tihonenko V, Khaustov A, Ivanov S, Rivin A, Yakushenko E. St Petersburg INCART 12-lead Arrhythmia Database. "
        "PhysioNet 2008. doi:10.13026/C2V88N"
    ),
    index=_index,
    read=_read,
    extra_features=incart_features,
)
