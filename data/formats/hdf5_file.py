"""Opens the arrays of HDF5 files: a few files stay open in every process, and nothing outside the file is touched.

HDF5 can point to other files (external links, external and virtual storage). Such arrays are refused.
"""

import os
from functools import lru_cache

from .limits import LIBRARY_ERRORS, missing_library

NUM_OPEN_FILES = 4  # in a process; CODE-15's index goes through its 18 parts one after the other
MAX_EXPANSION = 1100  # deflate, the usual compression, cannot do better


def open_dataset(path: str | os.PathLike, name: str):
    """The array `name` (`h5py.Dataset`) of the HDF5 file at `path`; indexing it reads only what is asked for.

    Raises:
        ValueError: if `h5py` is not installed, or there is no such file or array, or it is damaged, or the array lies
            in another file, or claims to be much larger than the file can hold.
    """
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except OSError as error:
        raise ValueError(f"Cannot read HDF5 file {path}: {error.strerror}.") from None
    try:
        import h5py
    except ImportError:
        raise missing_library("h5py", "hdf5") from None
    try:
        file = _open(path, status.st_mtime_ns, os.getpid())
        dataset = file
        for part in name.strip("/").split("/"):
            link = dataset.get(part, getlink=True) if isinstance(dataset, h5py.Group) else None
            if link is None:
                raise ValueError(f"it has no array {name!r}, but {sorted(file)}")
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{name!r} is no array that lies in the file itself")
            dataset = dataset[part]
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
            raise ValueError(f"{name!r} is no array that lies in the file itself")
        chunk = dataset.dtype.itemsize
        for length in dataset.chunks or (0,):
            chunk *= length
        if max(dataset.nbytes, chunk) > MAX_EXPANSION * status.st_size:
            raise ValueError(f"{name!r} of shape {dataset.shape} cannot lie in {status.st_size} bytes")
    except LIBRARY_ERRORS as error:
        raise ValueError(f"Cannot read HDF5 file {path}: {error}.") from error
    return dataset


def close_files():
    """Closes the files that stay open for their next reader, so that what was deleted is gone."""
    _open.cache_clear()


# The process is part of the key: a worker that was forked must not share the position of its parent's open file.
@lru_cache(maxsize=NUM_OPEN_FILES)
def _open(path: str, modified_ns: int, process_id: int):
    import h5py

    return h5py.File(path, "r", locking="best-effort")  # some network file systems cannot lock
