"""The folder of a page for uploads: its own, emptied of old files all the time, and gone with the page.

gradio and the server of uploads write there, nowhere else. A page that was killed leaves its folder, which the next
page on that machine removes.
"""

import atexit
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "ecg-space-"
LOCK_NAME = ".lock"


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
    """Removes the folders of pages that are no more, those that nobody holds the lock of."""
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
