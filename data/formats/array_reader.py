"""Arrays of numbers (`.npy`, `.npz`): they say nothing of leads, rate and unit, so all of it is declared.

`.npy` files are mapped into memory, not read. Pickled objects are refused. The sizes that an `.npz` archive declares
are checked before anything is decompressed, and nothing is extracted to disk.
"""

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..records import EcgRecord, known_lead_names, stored_unit
from .hdf5_file import MAX_EXPANSION
from .limits import LIBRARY_ERRORS, check_num_values, max_values
from .steps import record_of_steps

AXES = ("lead,sample", "sample,lead")
STACK_AXES = ("record,lead,sample", "record,sample,lead")


class MissingDeclaration(ValueError):
    """Raised for a file that does not say something that was not declared either; `names` are its arguments."""

    def __init__(self, path: str, names: Sequence[str]):
        cure = ", ".join(f"{name}=" for name in names)
        super().__init__(f"{path} does not say its {list(names)}, and they are never guessed: pass {cure}.")
        self.names = tuple(names)


@dataclass(frozen=True)
class ArrayDeclaration:
    """Statements that an array of numbers needs.

    Args:
        leads (`Sequence[str]`): Names of the leads, in the order of their axis.
        sampling_rate (`float`): Rate in Hz.
        unit (`str`): `"mV"`, `"uV"`, `"V"`, or `"dimensionless"`.
        axes (`str`): One of `AXES`; of several recordings one of `STACK_AXES`.
        step (`float`, *optional*): `unit` per step of whole numbers, be they stored as integers or floats.
    """

    leads: Sequence[str] | None = None
    sampling_rate: float | None = None
    unit: str | None = None
    axes: str | None = None
    step: float | None = None

    def require(self, path: str, *names: str):
        """Raises `ValueError` if one of the named fields was not given; checks the unit."""
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise MissingDeclaration(path, missing)
        if isinstance(self.leads, str):
            raise ValueError(f"Expected leads as a list of names, got the string {self.leads!r}.")
        if self.unit is not None:
            stored_unit(self.unit)


def record_of_array(array: np.ndarray, declared: ArrayDeclaration, path: str, record_id: str) -> EcgRecord:
    """One recording from an array with two axes (or, of a single lead, one).

    Raises:
        ValueError: if the declaration is incomplete or does not fit shape and type of the array.
    """
    whole = ("step",) if array.dtype.kind in "iu" else ()
    declared.require(path, "leads", "sampling_rate", "unit", "axes", *whole)
    if declared.axes not in AXES:
        raise ValueError(f"{path}: expected axes of one recording as one of {list(AXES)}, got {declared.axes!r}.")
    if array.ndim == 1 and len(declared.leads) == 1:
        array = array[None, :] if declared.axes == AXES[0] else array[:, None]
    if array.ndim != 2:
        raise ValueError(
            f"{path}: expected an array with the axes {declared.axes!r}, got the shape {array.shape}."
            + (f" Several recordings are read by read_recordings with axes {list(STACK_AXES)}." * (array.ndim == 3))
        )
    signal = array if declared.axes == AXES[0] else array.T
    leads = known_lead_names(tuple(declared.leads))
    if signal.shape[0] != len(leads):
        raise ValueError(
            f"{path}: with the axes {declared.axes!r} the array has {signal.shape[0]} leads of {signal.shape[1]} "
            f"samples, but {len(leads)} leads are declared: {list(leads)}. Check axes and leads."
        )
    check_num_values(path, signal.shape)
    rate, unit = float(declared.sampling_rate), declared.unit
    if array.dtype.kind == "f":
        if declared.step is None:
            return EcgRecord(record_id, signal, leads, rate, unit)
        if not (np.isnan(signal) | (signal == np.rint(signal))).all():
            raise ValueError(f"{path} holds floats in {unit}: leave out step={declared.step}.")
        return EcgRecord(record_id, signal * declared.step, leads, rate, unit)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{path} holds {array.dtype}. Expected whole numbers with a step, or floats.")
    gain = [declared.step] * len(leads)
    if array.dtype == np.int16:  # as in all our stored rows, -32768 is a missing sample
        return EcgRecord(record_id, signal, leads, rate, unit, gain)
    return record_of_steps(record_id, signal, leads, rate, unit, gain)


def records_of_stack(array: np.ndarray, declared: ArrayDeclaration, path: str, record_id: str) -> Iterator[EcgRecord]:
    """The recordings of an array with three axes, one after the other, named `<record_id>-0`, `<record_id>-1`, ...

    Raises:
        ValueError: as in [`record_of_array`].
    """
    declared.require(path, "leads", "sampling_rate", "unit", "axes")
    if declared.axes not in STACK_AXES or array.ndim != 3:
        raise ValueError(
            f"{path}: expected three axes, one of {list(STACK_AXES)}, got axes {declared.axes!r} and the shape "
            f"{tuple(array.shape)}."
        )
    of_one = ArrayDeclaration(
        declared.leads, declared.sampling_rate, declared.unit, declared.axes.removeprefix("record,"), declared.step
    )
    check_num_values(path, array.shape[1:])
    for row in range(array.shape[0]):
        try:
            one = np.array(array[row])
        except LIBRARY_ERRORS as error:
            raise ValueError(f"{path}: recording {row} cannot be read: {error}") from error
        yield record_of_array(one, of_one, f"{path}, recording {row}", f"{record_id}-{row}")


def open_npy(path: str) -> np.ndarray:
    """The array of an `.npy` file, mapped into memory.

    Raises:
        ValueError: if it is no array, truncated, or holds pickled objects.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except LIBRARY_ERRORS as error:
        raise ValueError(f"{path} is no array of numbers that numpy reads without pickle: {error}") from error


def open_npz(path: str, dataset: str | None = None) -> np.ndarray:
    """One array of an `.npz` archive, decompressed into memory.

    Args:
        dataset (`str`, *optional*): Name of the array; may be left out where there is only one.

    Raises:
        ValueError: if the archive is damaged, the array is not in it, or its declared size is beyond bounds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            member = members[choose(list(members), dataset, path, "array")]
            if not member.filename.endswith(".npy"):
                raise ValueError(f"its member {member.filename!r} is no array (.npy)")
            if member.file_size > min(8 * max_values() + 2**16, MAX_EXPANSION * (member.compress_size + 1)):
                raise ValueError(f"its member {member.filename!r} declares {member.file_size} bytes")
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, _, dtype = read_header(stream)
                if dtype.hasobject or dtype.itemsize * int(np.prod(shape, dtype=object)) > member.file_size:
                    raise ValueError(
                        f"the array {member.filename!r} declares {shape} of {dtype}, which it cannot hold"
                    )
            with archive.open(member) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
    except (*LIBRARY_ERRORS, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as an archive of arrays (.npz): {error}") from error


def choose(names: Sequence[str], dataset: str | None, path: str | os.PathLike, what: str) -> str:
    """The one name that is meant: `dataset`, or the only one there is.

    Raises:
        ValueError: if it is not there, or not clear; lists what there is.
    """
    if dataset is None and len(names) == 1:
        return names[0]
    if dataset is None or dataset not in names:
        asked = "several" if dataset is None and names else f"no {what} {dataset!r}" if dataset else "none"
        raise ValueError(f"{os.fspath(path)} holds {asked}; its {what}s: {sorted(names)[:50]}. Name one by dataset=.")
    return dataset
