"""Arrays of numbers in MATLAB files (`.mat`): version 4 by `scipy`, 5 by `matlab5_struct`, 7.3 as HDF5.

Leads, rate and unit are declared, as for `.npy`; the axes are those that MATLAB shows. Challenge records, a `.mat`
file beside a WFDB header, are read by the header instead.
"""

import math
import os
from io import BytesIO

import numpy as np

from .array_reader import choose
from .hdf5_reader import open_hdf5_array
from .limits import LIBRARY_ERRORS, check_num_values, max_values, read_bytes
from .matlab5_struct import read_array

MAX_BYTES = 2**31
_NUMERIC = {"double", "single", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}


def read_matlab_array(path: str | os.PathLike, dataset: str | None = None) -> np.ndarray:
    """One numeric variable of a MATLAB file, or field of a struct. Cells, objects and functions are not read.

    Args:
        dataset (`str`, *optional*):
            Its name, of a field with the structs around it: `"ECG.data"`. May be left out where there is only one.

    Raises:
        ValueError: if the file is damaged, the variable is not in it, or is larger than the bounds of a recording.
    """
    path = os.fspath(path)
    content = read_bytes(path, MAX_BYTES, "MATLAB file")
    head = content[:128]
    if head.startswith(b"MATLAB 7.3"):
        try:
            array = open_hdf5_array(path, None if dataset is None else dataset.replace(".", "/"))
            check_num_values(path, array.shape)
            return array[()].T  # stored column by column
        except LIBRARY_ERRORS as error:
            raise ValueError(f"{path} cannot be read as a MATLAB 7.3 file: {error}") from error
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        if head[126:128] in (b"IM", b"MI"):
            return read_array(
                content, lambda names: choose(names, dataset, path, "numeric variable"), 8 * max_values()
            )
        shapes = {name: shape for name, shape, kind in whosmat(BytesIO(content)) if kind in _NUMERIC}
        name = choose(list(shapes), dataset, path, "numeric variable")
        if not 0 < math.prod(shapes[name]) <= len(content):  # version 4 is not compressed
            raise ValueError(f"the variable {name!r} declares the shape {shapes[name]}")
        return loadmat(BytesIO(content), variable_names=[name])[name]
    except (*LIBRARY_ERRORS, MatReadError) as error:
        raise ValueError(f"{path} cannot be read as a MATLAB file: {error}") from error
