"""Codes of classes in words: nobody has to know what STTC means."""

from functools import lru_cache

from ecg_transformers.data.corpora.ptb_xl import statement_descriptions

SUPERCLASSES = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
"""Superclasses of PTB-XL. `scp_statements.csv` describes statements, not these."""
SUBCLASSES = {
    "AMI": "anterior myocardial infarction",
    "IMI": "inferior myocardial infarction",
    "LMI": "lateral myocardial infarction",
    "PMI": "posterior myocardial infarction",
    "STTC": "non-specific ST/T change",
    "NST_": "non-specific ST change",
    "_AVB": "AV block",
    "LAFB/LPFB": "left anterior or posterior fascicular block",
    "LAO/LAE": "left atrial overload or enlargement",
    "RAO/RAE": "right atrial overload or enlargement",
    "ISCA": "ischaemia in anterior leads",
    "ISCI": "ischaemia in inferior leads",
    "ISC_": "non-specific ischaemia",
}


@lru_cache(maxsize=8)
def label_words(task: str) -> dict[str, str]:
    """Codes of a task of PTB-XL in words; empty for tasks of other corpora, whose names are words already."""
    if not task.lower().startswith(("ptb-xl", "ptb_xl")):
        return {}
    if "super" in task:
        return SUPERCLASSES
    return statement_descriptions() | (SUBCLASSES if "subdiagnostic" in task else {})


def spelled_out(label: str, task: str) -> str:
    """`"MI (myocardial infarction)"`; a label without words stays as it is."""
    words = label_words(task).get(label)
    return label if words is None else f"{label} ({words})"
