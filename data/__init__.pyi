"""Recordings: readers, corpora, storage and collators. `wfdb` and `pandas` are imported only where they are needed."""

from .bad_record_report import BadRecord as BadRecord
from .bad_record_report import BadRecordError as BadRecordError
from .bad_record_report import bad_records as bad_records
from .bad_record_report import read_report as read_report
from .collators import EcgDataCollator as EcgDataCollator
from .collators import EcgPretrainingCollator as EcgPretrainingCollator
from .collators import sample_id as sample_id
from .features import ECG_STORAGE as ECG_STORAGE
from .features import Ecg as Ecg
from .formats.wfdb_header import read_header as read_header
from .formats.wfdb_index import WfdbIndex as WfdbIndex
from .formats.wfdb_reader import read_record as read_record
from .loading import label_names as label_names
from .loading import load_ecg as load_ecg
from .mixing import mix_ecg as mix_ecg
from .mixing import mixed_label_names as mixed_label_names
from .prepare import prepare_corpus as prepare_corpus
from .recording_file import read_recording as read_recording
from .recording_file import read_recordings as read_recordings
from .records import INVALID_SAMPLE as INVALID_SAMPLE
from .records import EcgRecord as EcgRecord

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
