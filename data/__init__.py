"""Recordings: readers, corpora, storage and collators. `wfdb` and `pandas` are imported only where they are needed."""

from .bad_records import BadRecord, BadRecordError, bad_records, read_report
from .collators import EcgDataCollator, EcgPretrainingCollator, sample_id
from .features import ECG_STORAGE, Ecg
from .formats.wfdb_header import read_header
from .formats.wfdb_index import WfdbIndex
from .formats.wfdb_reader import read_record
from .loading import label_names, load_ecg
from .mixing import mix_ecg, mixed_label_names
from .prepare import prepare_corpus
from .recording_file import read_recording, read_recordings
from .records import INVALID_SAMPLE, EcgRecord

__all__ = [
    "BadRecord",
    "BadRecordError",
    "ECG_STORAGE",
    "Ecg",
    "EcgDataCollator",
    "EcgPretrainingCollator",
    "EcgRecord",
    "INVALID_SAMPLE",
    "WfdbIndex",
    "bad_records",
    "label_names",
    "load_ecg",
    "mix_ecg",
    "mixed_label_names",
    "prepare_corpus",
    "read_header",
    "read_record",
    "read_recording",
    "read_recordings",
    "read_report",
    "sample_id",
]
