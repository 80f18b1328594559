"""Arrays of numbers in HDF5 files, by `h5py` (extra `hdf5`): leads, rate and unit are declared, as for `.npy`."""

import os

from .array_reader import choose
from .hdf5_file import open_dataset
from .limits import LIBRARY_ERRORS, missing_library

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_hdf5_array(path: str | os.PathLike, dataset: str | None = None):
    """One array of an HDF5 file (`h5py.Dataset`), of which only what is asked for is read.

    Args:
        dataset (`str`, *optional*): Name (`"group/name"`); may be left out where the file has only one array.

    Raises:
        ValueError: if `h5py` is missing, the file is damaged, the array is not in it or lies in another file, or
            claims to be larger than the file can hold.
    """
    path = os.fspath(path)
    try:
        import h5py
    except ImportError:
        raise missing_library("h5py", "hdf5") from None
    names = []

    def collect(name, item):  # called for what lies in this file: links to other files are not followed
        if isinstance(item, h5py.Dataset) and item.ndim and item.dtype.kind in "iuf":
            names.append(name)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except LIBRARY_ERRORS as error:
        raise ValueError(f"Cannot read HDF5 file {path}: {error}.") from error
    wanted = None if dataset is None else dataset.strip("/")
    return open_dataset(path, choose(names, wanted, path, "array"))
