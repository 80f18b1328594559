"""The HDF5 files of the Minas Gerais telehealth network: `tracings` (exams, 4096 samples, 12 leads) at 400 Hz.

CODE-15 and SaMi-Trop are published so. Exams of about 7 s (2934 samples) and 10 s were centred in 4096 samples and
filled up with zeros at both ends. Those zeros were never recorded, so they are cut off: what is left of an exam starts
and ends with the first and last sample at which any lead is not exactly zero.

Unit: the PhysioNet Challenge 2025 converts the stored numbers as mV, and so do we. Exams come out about twice as large
as those of PTB-XL (portable devices, much wander), and the publishers' notes on a sister corpus speak of 1e-4 V, which
fits neither. Nothing is rescaled here; normalise amplitudes in training where corpora are mixed.
"""

import numpy as np

from ..formats.hdf5_file import open_dataset
from ..formats.limits import LIBRARY_ERRORS
from ..records import EcgRecord

LEADS = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLING_RATE = 400.0
MAX_SAMPLES = 65536  # far beyond the 4096 of both corpora: a file must not decide how much memory is asked for


def _tracings(path: str):
    tracings = open_dataset(path, "tracings")
    if tracings.ndim != 3 or tracings.shape[2] != len(LEADS) or not 0 < tracings.shape[1] <= MAX_SAMPLES:
        raise ValueError(f"Expected `tracings` of {path} as (exams, 4096, {len(LEADS)}), got {tracings.shape}.")
    if tracings.dtype.kind != "f":
        raise ValueError(f"Expected `tracings` of {path} as floats in mV, got {tracings.dtype}.")
    return tracings


def count_exams(path: str) -> int:
    """Counts the tracings of the file.

    Raises:
        ValueError: if it cannot be read as what this module describes.
    """
    return len(_tracings(path))


def exam_rows(path: str) -> dict[int, int]:
    """Exam id → row of its tracing. Each part of CODE-15 ends with an empty row of the id 0, which is left out.

    Raises:
        ValueError: as `count_exams`, or if the ids do not go with the tracings or come twice.
    """
    ids = open_dataset(path, "exam_id")
    if ids.shape != (count_exams(path),) or ids.dtype.kind not in "iu":
        raise ValueError(f"Expected `exam_id` of {path} as one whole number an exam, got {ids.dtype} {ids.shape}.")
    try:
        ids = ids[:].tolist()
    except LIBRARY_ERRORS as error:
        raise ValueError(f"Cannot read `exam_id` of {path}: {error}.") from error
    rows = {exam: row for row, exam in enumerate(ids) if exam != 0}
    if len(rows) != len(ids) - ids.count(0):
        raise ValueError(f"{path} holds exams twice.")
    return rows


def read_exam(path: str, row: int, record_id: str) -> EcgRecord:
    """The exam in one row, without the zeros at its ends.

    Raises:
        ValueError: as `count_exams`, or if the row does not exist or is all zeros.
    """
    tracings = _tracings(path)
    if not 0 <= row < len(tracings):
        raise ValueError(f"{path} holds {len(tracings)} exams and no row {row}.")
    try:
        signal = tracings[row]
    except LIBRARY_ERRORS as error:
        raise ValueError(f"Cannot read exam {record_id} in {path}: {error}.") from error
    recorded = np.flatnonzero((signal != 0).any(axis=1))
    if not recorded.size:
        raise ValueError(f"Exam {record_id} in {path} is zero throughout.")
    signal = signal[recorded[0] : recorded[-1] + 1].T
    return EcgRecord(record_id, np.ascontiguousarray(signal), LEADS, SAMPLING_RATE)
