"""Uploads are read in a process of their own, with little memory and little time: files of a few kilobytes can claim
to hold gigabytes, and not every library notices before it has made room for them.

A server process has imported the libraries and reads nothing itself; it is forked for each upload. Nothing is pickled:
the recording comes back as `.npy` and JSON, in a folder that is then gone.
"""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg_transformers.data import EcgRecord

from .space_recording import Declaration, read_upload

TOO_MUCH = "To read this file takes more memory or time than there is here. Is it damaged? Try another format."
_LIBRARIES = ("soundfile", "pydicom", "h5py", "scipy.io")
_SERVE = "from ecg_transformers.hub.space_reader import serve; serve()"


class UploadReader:
    """Reads uploads as [`read_upload`] does, one at a time, in a process of its own. Linux only.

    Args:
        folder (`str`): Where the folder of an upload is made, and removed when it was read.
        most_bytes (`int`, *optional*, defaults to 1 GiB): Memory for one upload, beyond what the libraries take.
        most_seconds (`float`, *optional*, defaults to 60): Time for one upload.
    """

    def __init__(self, folder: str | os.PathLike, most_bytes: int = 2**30, most_seconds: float = 60):
        self.limits = {"most_bytes": most_bytes, "most_seconds": most_seconds}
        self.folder, self.lock, self.server = Path(folder), threading.Lock(), None

    def start(self) -> None:
        """Starts the server, which takes some seconds; [`read`] does so if it does not run."""
        if self.server is not None and self.server.poll() is None:
            return
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
        environment = os.environ | one | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # others reserve much more than they use
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.server = subprocess.Popen([sys.executable, "-c", _SERVE], env=environment, cwd=self.folder, **pipes)

    def read(self, paths: Sequence[str] | None, declared: Declaration | None = None) -> EcgRecord:
        """Arguments, result and errors are those of [`read_upload`].

        Raises:
            ValueError: as there, and if reading takes more than `most_bytes` or `most_seconds`.
            RuntimeError: for any other error, by its kind alone.
        """
        folder = Path(tempfile.mkdtemp(prefix="ecg-upload-", dir=self.folder))
        job = {"folder": str(folder), "paths": [os.path.abspath(path) for path in paths or ()]}
        job |= {"declared": vars(declared or Declaration())} | self.limits
        try:
            with self.lock:
                self.start()
                if not self._send(job):  # the server is gone: once more, with a new one
                    self.start()
                    self._send(job)
            return _received(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _send(self, job: dict) -> bool:
        """Whether there was an answer."""
        try:
            self.server.stdin.write(json.dumps(job).encode() + b"\n")
            self.server.stdin.flush()
            answered = self.server.stdout.readline() != b""
        except BrokenPipeError:
            answered = False
        if not answered:
            self.close()
        return answered

    def close(self) -> None:
        """Ends the server."""
        if self.server is not None:
            self.server.kill()
            self.server.communicate()
            self.server = None


def _received(folder: Path) -> EcgRecord:
    answer = folder / "answer.json"
    if not answer.is_file():
        raise ValueError(TOO_MUCH)
    found = json.loads(answer.read_text(encoding="utf-8"))
    if "sentence" in found:
        raise ValueError(found["sentence"])
    if "failed" in found:
        raise RuntimeError(found["failed"])
    signal = np.load(folder / "signal.npy", allow_pickle=False)
    return EcgRecord("recording", signal, found["leads"], found["sampling_rate"], found["unit"], gain=found["gain"])


def serve() -> None:
    """The server: a job a line from standard input, an answer a line to standard output."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)  # libraries print
    for library in _LIBRARIES:
        if importlib.util.find_spec(library) is not None:
            importlib.import_module(library)
    for line in sys.stdin.buffer:
        child = os.fork()
        if child == 0:
            _read_and_leave(json.loads(line))
        os.waitpid(child, 0)
        answers.write(b"done\n")


def _read_and_leave(job: dict) -> None:
    """What the forked process does: it never returns."""
    import resource
    import signal

    folder = Path(job["folder"])
    try:
        signal.setitimer(signal.ITIMER_REAL, job["most_seconds"])  # ends the process, whatever it does
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + job["most_bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        tempfile.tempdir = str(folder)
        answer = _answer(folder, job)
        (folder / "unfinished.json").write_text(json.dumps(answer), encoding="utf-8")
        (folder / "unfinished.json").rename(folder / "answer.json")
    finally:
        os._exit(0)


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
