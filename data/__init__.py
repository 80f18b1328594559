"""Recordings: readers, corpora, storage and collators.

A name is imported when it is first used, so no module has the name of what it exports. Only `Ecg` is there as soon as
`datasets` is, which has to know it before it reads a dataset whose features name it.
"""

from importlib import import_module

from ..modeling.late_import import after_import

_EXPORTS = {
    "ECG_STORAGE": "features",
    "Ecg": "features",
    "BadRecord": "bad_record_report",
    "BadRecordError": "bad_record_report",
    "EcgDataCollator": "collators",
    "EcgPretrainingCollator": "collators",
    "EcgRecord": "records",
    "INVALID_SAMPLE": "records",
    "bad_records": "bad_record_report",
    "WfdbIndex": "formats.wfdb_index",
    "label_names": "loading",
    "load_ecg": "loading",
    "mix_ecg": "mixing",
    "mixed_label_names": "mixing",
    "prepare_corpus": "prepare",
    "read_header": "formats.wfdb_header",
    "read_record": "formats.wfdb_reader",
    "read_recording": "recording_file",
    "read_recordings": "recording_file",
    "read_report": "bad_record_report",
    "sample_id": "collators",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__():
    return sorted({*globals(), *__all__})


after_import("datasets", lambda: import_module(".features", __name__))
