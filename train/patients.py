"""Whose a recording is: what splits are kept apart by and intervals are drawn over."""

from collections.abc import Iterable


def patient_of(record_id: str, patient_id: str | None) -> str:
    """The patient of a record; one without a patient counts as a patient of its own."""
    return f"record {record_id}" if patient_id is None else str(patient_id)


def patients_of(record_ids: Iterable[str], patient_ids: Iterable[str | None]) -> list[str]:
    """[`patient_of`] of every record."""
    return [patient_of(*ids) for ids in zip(record_ids, patient_ids, strict=True)]
