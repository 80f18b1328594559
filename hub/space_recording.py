"""Recordings that somebody uploads to the page of a Space: read in a folder of their own, which is then gone.

Nothing is guessed, nothing of the files is logged, and of what a file says of the patient nothing is kept.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_transformers.data import EcgRecord, read_header, read_recording
from ecg_transformers.data.formats.file_format import find_format
from ecg_transformers.data.formats.hdf5_file import close_files
from ecg_transformers.data.formats.limits import at_most
from ecg_transformers.data.safe_paths import inside
from ecg_transformers.modeling.recording_input import DIMENSIONLESS

MAX_MEGABYTES = 20
MAX_SECONDS = 120
MAX_RATE = 5000
MAX_VALUES = 16 * MAX_SECONDS * MAX_RATE
"""Most values (leads x samples) of an upload, before anything of that size is made."""

UNITS = ("mV", "uV", "V")
AXES = {"a row for each sample": "sample,lead", "a row for each lead": "lead,sample"}
FIELDS = {
    "sampling_rate": "Sampling rate (Hz)",
    "unit": "Unit",
    "leads": "Leads, in their order",
    "axes": "Rows of the array",
    "step": "Step",
    "dataset": "Name of the array",
}
_NEEDED = {"CSV": ("sampling_rate", "unit")}
_NEEDED |= dict.fromkeys(("npy", "npz", "HDF5", "MATLAB"), ("sampling_rate", "unit", "leads", "axes"))


@dataclass(frozen=True)
class Declaration:
    """What somebody says of a file that does not say it; empty fields are `None` or `""`. Numbers may come as text."""

    sampling_rate: float | str | None = None
    unit: str | None = None
    leads: str | None = None
    axes: str | None = None
    step: float | str | None = None
    dataset: str | None = None

    def given(self) -> dict:
        """The arguments of [`read_recording`].

        Raises:
            ValueError: for a number that is none.
        """
        stated = {name: value for name, value in vars(self).items() if value not in (None, "")}
        for name in {"sampling_rate", "step"} & set(stated):
            try:
                stated[name] = float(stated[name])
            except ValueError:
                raise ValueError(f"“{FIELDS[name]}” should be a number, such as 0.5, got {stated[name]!r}.") from None
        if "leads" in stated:
            names = [name.strip() for name in stated["leads"].replace(";", ",").split(",")]
            stated["leads"] = [name for name in names if name]
        if "axes" in stated:
            stated["axes"] = AXES.get(stated["axes"], stated["axes"])
        return stated


def read_upload(paths: Sequence[str] | None, declared: Declaration | None = None) -> EcgRecord:
    """Reads the one recording that some uploaded files are.

    Args:
        paths (`Sequence[str]`): One file, or a WFDB header with its signal files; of each only the last part counts.
        declared ([`Declaration`], *optional*): What the file does not say.

    Returns:
        the recording without name, patient and labels, in memory.

    Raises:
        ValueError: in one sentence without paths, for everything that cannot be read.
    """
    paths = [os.fspath(path) for path in paths or ()]
    _check_files(paths)
    with tempfile.TemporaryDirectory(prefix="ecg-upload-") as folder:
        for path in paths:
            shutil.copyfile(path, Path(folder, Path(path).name))
        try:
            with at_most(MAX_VALUES):
                record = _read(folder, [Path(path).name for path in paths], (declared or Declaration()).given())
            _check_size(record)
            kind = np.float32 if record.signal.dtype.kind == "f" else record.signal.dtype
            signal = np.array(record.signal, dtype=kind)  # in memory, where the file was mapped
        except ValueError as error:
            raise ValueError(_in_words(str(error), folder)) from None
        finally:
            close_files()  # or what is deleted here would be kept
    if record.unit == DIMENSIONLESS:
        raise ValueError("The values of the file are no voltage, so that they have no place on ECG paper.")
    return EcgRecord("recording", signal, record.leads, record.sampling_rate, record.unit, gain=record.gain)


def _check_size(record: EcgRecord):
    seconds = record.signal.shape[1] / record.sampling_rate
    if seconds > MAX_SECONDS:
        raise ValueError(
            f"The recording lasts {seconds:.0f} s, this page takes up to {MAX_SECONDS} s. Cut out a part of it."
        )
    if record.sampling_rate > MAX_RATE:
        raise ValueError(
            f"The recording has {record.sampling_rate:g} Hz, this page takes up to {MAX_RATE} Hz. Resample it."
        )
    if record.signal.size > MAX_VALUES:
        raise ValueError(f"The recording has {record.signal.size} values, this page takes up to {MAX_VALUES}.")


def _check_files(paths: list[str]):
    if not paths:
        raise ValueError("Choose a file first: a recording, or a WFDB header (.hea) together with its signal file.")
    names = [Path(path).name for path in paths]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"There are several files of the name {name}.")
        if os.path.getsize(path) == 0:
            raise ValueError(f"{name} is empty (0 bytes).")
    megabytes = sum(os.path.getsize(path) for path in paths) / 2**20
    if megabytes > MAX_MEGABYTES:
        raise ValueError(f"The files have {megabytes:.0f} MB, this page takes up to {MAX_MEGABYTES} MB.")


def _read(folder: str, names: list[str], given: dict) -> EcgRecord:
    headers = [name for name in names if name.lower().endswith(".hea")]
    if len(headers) == 1:
        _check_signal_files(folder, headers[0])
        main = headers[0]
    elif len(names) == 1:
        main = names[0]
        if main.lower().endswith(".dat"):
            raise ValueError(f"{main} is the signal file of a WFDB record: choose it together with its header (.hea).")
    else:
        raise ValueError(
            "Expected one recording: one file, or one WFDB header (.hea) with its signal files, got "
            f"{', '.join(names)}."
        )
    path = os.path.join(folder, main)
    missing = [FIELDS[name] for name in _NEEDED.get(find_format(path), ()) if name not in given]
    if missing:
        fields = " and ".join(f"“{field}”" for field in missing)
        raise ValueError(f"{main} does not say everything, and nothing is guessed: fill in {fields}.")
    return read_recording(path, **given)


def _check_signal_files(folder: str, header: str):
    wanted = [
        signal.file_name for signal in read_header(os.path.join(folder, header)).signals if signal.file_name != "~"
    ]
    missing = [name for name in dict.fromkeys(wanted) if not os.path.isfile(inside(folder, name))]
    if missing:
        raise ValueError(
            f"The header {header} names {', '.join(missing)}, which was not uploaded: choose the files together."
        )


def _in_words(sentence: str, folder: str) -> str:
    """An error of the library for somebody who sees a page: names of files without folders, fields by their labels."""
    sentence = sentence.replace(folder + os.sep, "").replace(folder, "the upload")
    for name, field in FIELDS.items():
        sentence = sentence.replace(f"pass ['{name}']", f"fill in “{field}”")
        sentence = re.sub(rf"\b{name}=", f"“{field}”", sentence)
    return sentence
