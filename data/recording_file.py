"""`read_recording`: one call for every file format, chosen by what the file is.

Formats that state leads, rate and unit are read as they are, and an argument that contradicts them is an error. Of the
others, the missing statements are asked for by name and never guessed.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .formats.aecg_reader import read_aecg
from .formats.array_reader import STACK_AXES, ArrayDeclaration, open_npy, open_npz, record_of_array, records_of_stack
from .formats.atc_reader import read_atc
from .formats.cardiosoft_reader import read_cardiosoft
from .formats.channels import parse_renaming
from .formats.dicom_reader import read_dicom
from .formats.edf_reader import read_edf
from .formats.file_format import find_format, wfdb_path
from .formats.hdf5_reader import open_hdf5_array
from .formats.ishne_reader import read_ishne
from .formats.limits import LIBRARY_ERRORS, check_num_values
from .formats.matlab_reader import read_matlab_array
from .formats.muse_reader import read_muse
from .formats.parquet_reader import holds_stored_rows, read_lead_columns, read_stored_rows
from .formats.philips_reader import read_philips
from .formats.scp_reader import read_scp
from .formats.table_reader import holds_samples, read_csv
from .formats.wfdb_comments import parse_comments
from .formats.wfdb_reader import read_record
from .records import EcgRecord, known_lead_names, stored_unit

_READERS: Mapping[str, Callable[..., EcgRecord]] = {
    "EDF": read_edf,
    "aECG": read_aecg,
    "MUSE": read_muse,
    "Philips": read_philips,
    "ISHNE": read_ishne,
    "ATC": read_atc,
    "SCP": read_scp,
}
_READERS_OF_PARTS: Mapping[str, Callable[..., EcgRecord]] = {"CardioSoft": read_cardiosoft, "DICOM": read_dicom}
_ARRAYS: Mapping[str, Callable[[str, str | None], Any]] = {
    "npz": open_npz,
    "HDF5": open_hdf5_array,
    "MATLAB": read_matlab_array,
}


READ_ERRORS = (ValueError, OSError, MemoryError, OverflowError)
"""What reading a recording raises for one that is damaged, gone, or too large."""


def list_files(folder: Path) -> tuple[list[str], int]:
    """Names, relative to the folder and sorted, of the files in and below it that may be recordings; and how many
    files are parts of a WFDB record whose header is among them."""
    names, num_parts = [], 0
    for directory, subfolders, files in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files = [name for name in files if not name.startswith(".")]
        headers = {name.removesuffix(".hea") for name in files if name.endswith(".hea")}
        for name in files:
            if not name.endswith(".hea") and os.path.splitext(name)[0] in headers:
                num_parts += 1
            else:
                names.append(Path(directory, name).relative_to(folder).as_posix())
    return sorted(names), num_parts


def recording_format(path: str | os.PathLike) -> str | None:
    """The format of a file of recordings; `None` for an unknown one, a note or a table of labels."""
    try:
        kind = find_format(path)
    except ValueError:
        return None
    return kind if kind != "CSV" or holds_samples(os.fspath(path)) else None


def read_recording(
    path: str | os.PathLike,
    *,
    leads: Sequence[str | int] | None = None,
    sampling_rate: float | None = None,
    unit: str | None = None,
    axes: str | None = None,
    step: float | None = None,
    rename_leads: Mapping[str | int, str] | str | None = None,
    record_id: str | None = None,
    dataset: str | None = None,
    skip_lines: int | None = None,
) -> EcgRecord:
    """Reads one recording from a file of any format (`formats/file_format.py` lists them).

    Args:
        path (`str`): The file; of a WFDB record its header, its signal file, or their common path without ending.
        leads (`Sequence[str]`, *optional*):
            Names of the leads of an array, in the order of their axis. Of a file that names its channels or columns:
            which to take, in this order, by name or position (from 0).
        sampling_rate (`float`, *optional*): Rate in Hz. Needed for arrays and tables.
        unit (`str`, *optional*):
            `"mV"`, `"uV"`, `"V"` or `"dimensionless"`. Needed for arrays, tables and channels that state none.
        axes (`str`, *optional*): `"lead,sample"` or `"sample,lead"`. Needed for arrays.
        step (`float`, *optional*): `unit` per step. Needed for arrays of whole numbers and uncalibrated WFDB channels.
        rename_leads (`dict` or `str`, *optional*):
            Names as stored, or positions → lead names: `{"MLII": "II", 1: "V5"}`, or in text `"MLII:II,channel_1:V5"`.
        record_id (`str`, *optional*):
            Defaults to the name of the file without ending. Of a Parquet file with stored rows: which row to take.
        dataset (`str`, *optional*):
            Name of the array in an `.npz`, HDF5 or MATLAB file (of a MATLAB struct with the field: `"ECG.data"`), or
            label of the waveform group of a DICOM file; needed where there are several. `"MedianSamples"` reads the
            median beats of a CardioSoft file.
        skip_lines (`int`, *optional*): Lines of a text file before its table, where they are not known ones.

    Returns:
        the record, with patient id, age, sex and labels as far as the file states them.

    Raises:
        ValueError: for a file that is none of the formats, is damaged, does not state or contradicts what is declared;
            says what was expected, what came, and the cure.

    Example:

    ```python
    >>> from ecg_transformers.data import read_recording
    >>> record = read_recording("ward/0001.xml")
    >>> record = read_recording("signal.npy", leads=["I", "II"], sampling_rate=500, unit="mV", axes="lead,sample")
    ```
    """
    path = os.fspath(path)
    name = find_format(path)
    if skip_lines is not None and name != "CSV":
        raise ValueError(f"{path} is of the format {name}: skip_lines= is for tables of text. Leave it out.")
    renaming = parse_renaming(rename_leads)
    declared = ArrayDeclaration(_renamed(leads, renaming), sampling_rate, unit, axes, step)
    new_id = record_id or Path(path).stem
    if name == "WFDB":
        _refuse_dataset(name, dataset, path)
        record, comments = read_record(wfdb_path(path), new_id, renaming, leads=leads, step=step, unit=unit)
        for field, value in parse_comments(comments).items():
            setattr(record, field, value)
        _check_statements(path, record, ArrayDeclaration(sampling_rate=sampling_rate, axes=axes), set())
        return record
    if name == "Parquet" and holds_stored_rows(path):
        _refuse_dataset(name, dataset, path)
        record = _stored_row(path, record_id)
        _check_statements(path, record, declared, {record.unit})
        return record
    if name in ("CSV", "Parquet"):
        _refuse_dataset(name, dataset, path)
        table = ArrayDeclaration(leads, sampling_rate, unit, axes, step)
        if name == "CSV":
            return read_csv(path, table, new_id, renaming, skip_lines)
        return read_lead_columns(path, table, new_id, renaming)
    if name == "npy" or name in _ARRAYS:
        return _read_array(path, name, declared, new_id, dataset)
    choice = {"leads": leads, "rename_leads": renaming, "unit": unit}
    if name in _READERS_OF_PARTS:
        record = _READERS_OF_PARTS[name](path, new_id, dataset, **choice)
    else:
        _refuse_dataset(name, dataset, path)
        record = _READERS[name](path, new_id, **choice)
    _check_statements(path, record, ArrayDeclaration(None, sampling_rate, None, axes, step), set())
    return record


def read_recordings(
    path: str | os.PathLike,
    *,
    leads: Sequence[str | int] | None = None,
    sampling_rate: float | None = None,
    unit: str | None = None,
    axes: str | None = None,
    step: float | None = None,
    rename_leads: Mapping[str | int, str] | str | None = None,
    record_id: str | None = None,
    dataset: str | None = None,
    skip_lines: int | None = None,
) -> Iterator[EcgRecord]:
    """The recordings of a file, one after the other.

    Several are in arrays with the axes `"record,lead,sample"` or `"record,sample,lead"` (named `<record_id>-0` and so
    on, in the order of the array) and in Parquet files with stored rows (which have names). Of any other file, the
    one that [`read_recording`] gives. Arguments and errors are those of [`read_recording`].
    """
    path = os.fspath(path)
    name = find_format(path)
    if name == "Parquet" and record_id is None and holds_stored_rows(path):
        _refuse_dataset(name, dataset, path)
        for record in read_stored_rows(path):
            _check_statements(path, record, ArrayDeclaration(leads, sampling_rate, unit, axes, step), {record.unit})
            yield record
    elif axes in STACK_AXES and (name == "npy" or name in _ARRAYS):
        declared = ArrayDeclaration(_renamed(leads, parse_renaming(rename_leads)), sampling_rate, unit, axes, step)
        yield from records_of_stack(_open_array(path, name, dataset), declared, path, record_id or Path(path).stem)
    else:
        yield read_recording(
            path,
            leads=leads,
            sampling_rate=sampling_rate,
            unit=unit,
            axes=axes,
            step=step,
            rename_leads=rename_leads,
            record_id=record_id,
            dataset=dataset,
            skip_lines=skip_lines,
        )


def _renamed(leads: Sequence[str | int] | None, rename_leads: Mapping[str | int, str]) -> Sequence[str] | None:
    if leads is None or isinstance(leads, str) or not rename_leads:
        return leads
    return [rename_leads.get(lead, lead) for lead in leads]


def _refuse_dataset(name: str, dataset: str | None, path: str):
    if dataset is not None:
        raise ValueError(f"{path} is of the format {name}, which holds one recording: leave out dataset={dataset!r}.")


def _open_array(path: str, name: str, dataset: str | None):
    if name == "npy":
        _refuse_dataset(name, dataset, path)
        return open_npy(path)
    return _ARRAYS[name](path, dataset)


def _read_array(path: str, name: str, declared: ArrayDeclaration, record_id: str, dataset: str | None) -> EcgRecord:
    array = _open_array(path, name, dataset)
    if name == "HDF5" and array.ndim <= 2:
        check_num_values(path, array.shape)
        try:
            array = array[()]
        except LIBRARY_ERRORS as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    return record_of_array(array, declared, path, record_id)


def _stored_row(path: str, record_id: str | None) -> EcgRecord:
    names = []
    for record in read_stored_rows(path):
        if record.record_id == record_id:
            return record
        names.append(record.record_id)
        if record_id is None and len(names) > 1:
            raise ValueError(f"{path} holds several recordings. Name one by record_id=, or use read_recordings.")
    if record_id is None and names:
        return record
    raise ValueError(f"{path} holds no recording {record_id!r}; its first ones: {names[:5]}.")


def _check_statements(path: str, record: EcgRecord, declared: ArrayDeclaration, units: set[str]):
    """Raises `ValueError` if what the caller declared is not what the file states."""
    if declared.leads is not None and known_lead_names(tuple(map(str, declared.leads))) != tuple(record.leads):
        raise ValueError(
            f"{path} states the leads {list(record.leads)}, not {list(declared.leads)}. Leave out leads=; rename "
            "channels by rename_leads=, and choose or reorder leads with the EcgFeatureExtractor."
        )
    rate = declared.sampling_rate
    if rate is not None and not math.isclose(float(rate), record.sampling_rate, rel_tol=1e-6):
        raise ValueError(f"{path} states {record.sampling_rate} Hz, not {rate} Hz. Leave out sampling_rate=.")
    if declared.unit is not None and any(stored_unit(unit) != stored_unit(declared.unit) for unit in units):
        raise ValueError(f"{path} states the unit {sorted(units)}, not {declared.unit!r}. Leave out unit=.")
    given = ", ".join(f"{name}=" for name in ("axes", "step") if getattr(declared, name) is not None)
    if given:
        raise ValueError(f"{path} states how its values lie and what they are worth: leave out {given}.")
