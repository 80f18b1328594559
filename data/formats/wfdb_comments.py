"""Reads what the comment lines of WFDB headers say of the patient, in the forms of PhysioNet's databases."""

import re
from collections.abc import Sequence
from typing import Any

_COMMENT = re.compile(r"<?([^:>]+)>?\s*:\s*(.*)$")
_MIT_BIH_COMMENT = re.compile(r"(\d+)\s+([MF])\b")  # "69 M 1085 1629 x1"
SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}


def parse_comments(comments: Sequence[str]) -> dict[str, Any]:
    """Age in years, sex, patient and diagnosis codes from the comment lines of a header, as far as they are there.

    Knows `#Age: 47`, `#<age>: 71`, `# 69 M ...`, `#Sex: Female`, `#Patient ID: 507884` and `#Dx: 426783006,59118001`
    (SNOMED CT codes). Unknown values (`NaN`, `Unknown`, `-1`) are left out.
    """
    if not comments:
        return {"labels": []}
    fields = {}
    for comment in comments:
        match = _COMMENT.match(comment)
        if match:
            fields.setdefault(match[1].strip().lower(), match[2].strip())
    known = {}
    mit_bih = _MIT_BIH_COMMENT.match(comments[0])
    if mit_bih:
        fields.setdefault("age", mit_bih[1])
        fields.setdefault("sex", mit_bih[2])
    if re.fullmatch(r"\d+(\.\d+)?", fields.get("age", "")):
        known["age"] = float(fields["age"])
    if fields.get("sex", "").lower() in SEXES:
        known["sex"] = SEXES[fields["sex"].lower()]
    if fields.get("patient id"):
        known["patient_id"] = fields["patient id"]
    codes = [code.strip() for code in fields.get("dx", "").split(",")]
    known["labels"] = [code for code in codes if code and code.lower() != "unknown"]
    return known
