"""Patients of recordings: splits are kept apart and intervals are drawn by patient."""

from collections.abc import Iterable, Mapping

from datasets import Dataset


def patient_of(record_id: str, patient_id: str | None) -> str:
    """The patient of a record; one without a patient counts as a patient of its own."""
    return f"record {record_id}" if patient_id is None else str(patient_id)


def patients_of(record_ids: Iterable[str], patient_ids: Iterable[str | None]) -> list[str]:
    """[`patient_of`] of every record."""
    return [patient_of(*ids) for ids in zip(record_ids, patient_ids, strict=True)]


def refuse_shared_patients(splits: Mapping[str, Dataset]):
    """No patient in two splits, whatever the corpus promises."""
    seen: dict[str, str] = {}
    for split, rows in splits.items():
        for patient in {patient for patient in rows["patient_id"] if patient is not None}:
            if seen.setdefault(patient, split) != split:
                raise ValueError(
                    f"Patient {patient!r} has records in the splits {seen[patient]!r} and {split!r}: a test would be "
                    "on people that the model knows. Give all records of a patient one split."
                )
