"""Recordings that somebody uploads to the page of a Space: read by a process of its own, and gone soon after.

Nothing is guessed, nothing of the files is logged, and of what a file says of the patient nothing is kept. Files of a
few kilobytes can claim to hold gigabytes, and not every library notices before it has made room for them, so that a
process with little memory and little time reads each upload. Nothing is pickled: the recording comes back as `.npy`
and JSON, in a folder that is then removed.

gradio and these processes write to the folder of the page, nowhere else. A page that was killed leaves its folder,
which the next page on that machine removes."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

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
TOO_MUCH = "To read this file takes more memory or time than there is here. Is it damaged? Try another format."
_READ = "import json, sys; from ecg_transformers.hub.space_uploads import read_job; read_job(json.load(sys.stdin))"
_ONE_AT_A_TIME = threading.Lock()
PREFIX = "ecg-space-"
LOCK_NAME = ".lock"


@dataclass(frozen=True)
class Declaration:
    """Facts that a file does not hold, stated by its owner; empty fields are `None` or `""`, numbers may be text."""

    sampling_rate: float | str | None = None
    unit: str | None = None
    leads: str | None = None
    axes: str | None = None
    step: float | str | None = None
    dataset: str | None = None

    def given(self) -> dict:
        """The arguments of [`read_recording`]."""
        stated = {name: value for name, value in asdict(self).items() if value not in (None, "")}
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


# --- Reading ------------------------------------------------------------------------------------------------------


def read_upload(paths: Sequence[str] | None, declared: Declaration | None = None) -> EcgRecord:
    """Reads the one recording that some uploaded files are (one file, or a WFDB header with its signal files; of each
    only the last part of its path counts) into memory, without name, patient and labels. What cannot be read is a
    `ValueError` of one sentence without paths."""
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
    seconds, rate, values = record.signal.shape[1] / record.sampling_rate, record.sampling_rate, record.signal.size
    limits = f"this page takes up to {MAX_SECONDS} s, {MAX_RATE} Hz and {MAX_VALUES} values"
    if seconds > MAX_SECONDS or rate > MAX_RATE or values > MAX_VALUES:
        raise ValueError(
            f"The recording lasts {seconds:.0f} s at {rate:g} Hz and has {values} values; {limits}. Cut out a part of "
            "it, or resample it."
        )


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
    if len(headers) != 1 and len(names) != 1:
        raise ValueError(
            "Expected one recording: one file, or one WFDB header (.hea) with its signal files, got "
            f"{', '.join(names)}."
        )
    main = headers[0] if len(headers) == 1 else names[0]
    path = os.path.join(folder, main)
    if headers:
        files = dict.fromkeys(signal.file_name for signal in read_header(path).signals if signal.file_name != "~")
        if missing := [name for name in files if not os.path.isfile(inside(folder, name))]:
            raise ValueError(
                f"The header {main} names {', '.join(missing)}, which was not uploaded: choose the files together."
            )
    elif main.lower().endswith(".dat"):
        raise ValueError(f"{main} is the signal file of a WFDB record: choose it together with its header (.hea).")
    if missing := [FIELDS[name] for name in _NEEDED.get(find_format(path), ()) if name not in given]:
        fields = " and ".join(f"“{field}”" for field in missing)
        raise ValueError(f"{main} does not say everything, and nothing is guessed: fill in {fields}.")
    return read_recording(path, **given)


def _in_words(sentence: str, folder: str) -> str:
    """An error of the library for somebody who sees a page: names of files without folders, fields by their labels."""
    sentence = sentence.replace(folder + os.sep, "").replace(folder, "the upload")
    for name, field in FIELDS.items():
        sentence = sentence.replace(f"pass ['{name}']", f"fill in “{field}”")
        sentence = re.sub(rf"\b{name}=", f"“{field}”", sentence)
    return sentence


# --- The process that reads ---------------------------------------------------------------------------------------


def read_apart(
    folder: str | os.PathLike,
    paths: Sequence[str] | None,
    declared: Declaration | None = None,
    most_bytes: int = 2**30,
    most_seconds: float = 60,
) -> EcgRecord:
    """Reads an upload as [`read_upload`] does, one at a time, in a new process and a new folder, which are gone
    afterwards. Linux only.

    What takes more than a memory (beyond what the libraries take) or a time is a `ValueError`; an error that is no
    sentence is a `RuntimeError` that names its kind alone.
    """
    own = Path(tempfile.mkdtemp(prefix="ecg-upload-", dir=folder))
    job = {"folder": str(own), "paths": [os.path.abspath(path) for path in paths or ()]}
    job |= {"declared": vars(declared or Declaration()), "most_bytes": most_bytes, "most_seconds": most_seconds}
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
    environment = os.environ | one | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # others reserve much more than they use
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # libraries print
    try:
        with _ONE_AT_A_TIME:
            command = [sys.executable, "-c", _READ]
            subprocess.run(command, input=json.dumps(job).encode(), env=environment, cwd=folder, **silent)
        return _received(own)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _received(folder: Path) -> EcgRecord:
    if not (folder / "answer.json").is_file():
        raise ValueError(TOO_MUCH)
    found = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    if "sentence" in found:
        raise ValueError(found["sentence"])
    if "failed" in found:
        raise RuntimeError(found["failed"])
    return EcgRecord("recording", np.load(folder / "signal.npy", allow_pickle=False), **found)


def read_job(job: dict) -> None:
    """Reads an upload in the process that was made for it."""
    import resource
    import signal

    folder = Path(job["folder"])
    signal.setitimer(signal.ITIMER_REAL, job["most_seconds"])  # ends the process, whatever it does
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + job["most_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tempfile.tempdir = str(folder)
    (folder / "unfinished.json").write_text(json.dumps(_answer(folder, job)), encoding="utf-8")
    (folder / "unfinished.json").rename(folder / "answer.json")


def _answer(folder: Path, job: dict) -> dict:
    try:
        record = read_upload(job["paths"], Declaration(**job["declared"]))
    except ValueError as error:
        return {"sentence": str(error)}
    except MemoryError:
        return {"sentence": TOO_MUCH}
    except Exception as error:  # of which the page says only that it was there
        return {"failed": type(error).__name__}
    np.save(folder / "signal.npy", record.signal)
    gain = None if record.gain is None else [float(value) for value in record.gain]
    stated = {"leads": list(record.leads), "sampling_rate": float(record.sampling_rate), "unit": record.unit}
    return stated | {"gain": gain}


# --- The folder of the page ---------------------------------------------------------------------------------------


def make_folder(keep_seconds: float) -> Path:
    """A new folder, from which files that are older than `keep_seconds` are removed until the process ends."""
    remove_left_folders()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    lock = FileLock(folder / LOCK_NAME, is_singleton=False)
    lock.acquire()
    atexit.register(_remove, folder, lock)
    threading.Thread(target=_keep_sweeping, args=(folder, keep_seconds), daemon=True).start()
    return folder


def remove_left_folders() -> None:
    """Removes the folders of pages that are no more: nobody holds their lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if folder.is_symlink() or not (folder / LOCK_NAME).is_file() or not os.access(folder, os.W_OK):
            continue
        lock = FileLock(folder / LOCK_NAME, is_singleton=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _remove(folder, lock)


def sweep(folder: Path, keep_seconds: float) -> None:
    """Removes all files that were last written more than `keep_seconds` ago, and folders that are empty then."""
    oldest = time.time() - keep_seconds
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place, name)
            if name != LOCK_NAME and path.lstat().st_mtime < oldest:
                path.unlink(missing_ok=True)
        if Path(place) != folder and os.lstat(place).st_mtime < oldest and not os.listdir(place):
            os.rmdir(place)


def _keep_sweeping(folder: Path, keep_seconds: float) -> None:
    while folder.is_dir():
        time.sleep(min(60.0, keep_seconds / 4))
        try:
            sweep(folder, keep_seconds)
        except OSError:  # a file that somebody else removed first; the next round goes on
            continue


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
