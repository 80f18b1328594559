"""Array dumps: one `.npy` of all recordings and a CSV table beside it, as repositories of the field pass them around.

An array says nothing of itself but its shape. What it holds (leads, rate, unit, order of the axes, size of a step) is
declared, by options of `load_ecg("npy", ...)` or by a file `dump.json` with the same keys, and never guessed. The
array is mapped into memory, not read; pickled objects are refused.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..corpus import Corpus, IndexEntry
from ..records import EcgRecord, known_lead_names, stored_unit
from ..safe_paths import inside
from .declarations import check_kinds, is_mapping, is_number, is_text, is_texts, read_json_object
from .ptb_xl import split_of_fold
from .tables import is_missing

DECLARATION_NAME = "dump.json"
AXES = ("record,lead,sample", "record,sample,lead")


@dataclass(frozen=True)
class NpyDump:
    """Declaration of an array of recordings. Every field but `folder` is a key of `dump.json`.

    Args:
        folder (`Path`): Folder of array and table.
        array (`str`): Name of the `.npy` file of `N` recordings: int16 steps or floats.
        table (`str`): Name of the CSV file with one line a recording.
        leads (`tuple[str, ...]`): Names of the leads, in the order of their axis.
        sampling_rate (`float`): Rate in Hz.
        unit (`str`): `"mV"`, `"uV"`, `"V"`; `"dimensionless"` for what is no voltage any more, such as z-scores.
        axes (`str`): `"record,lead,sample"` or `"record,sample,lead"`.
        record_id (`str`): Column of the names of the recordings.
        step (`float`, *optional*): `unit` per step of an int16 array. Floats have none.
        row (`str`, *optional*): Column of the position in the array, from 0; without it the lines are in its order.
        patient_id, fold (`str`, *optional*):
            Columns of patient and fold. Folds 1-8 train, 9 validates, 10 tests; without folds all recordings train.
        labels (`tuple[str, ...]`, *optional*): Columns of 0 and 1, the classes.
        processing (`dict`, *optional*):
            Settings of the [`EcgFeatureExtractor`] that made these values from raw recordings in mV. Nothing is done
            with it here; `ecg-transformers compare` brings further recordings to the same form by it.
    """

    folder: Path
    array: str
    table: str
    leads: tuple[str, ...]
    sampling_rate: float
    unit: str
    axes: str
    record_id: str
    step: float | None = None
    row: str | None = None
    patient_id: str | None = None
    fold: str | None = None
    labels: tuple[str, ...] = ()
    processing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """Options that `load_ecg` hands on to `index` and `read`."""
        return {name: vars(self)[name] for name in OPTIONS}


OPTIONS = tuple(item.name for item in fields(NpyDump) if item.name not in ("folder", "processing"))
REQUIRED = ("array", "table", "leads", "sampling_rate", "unit", "axes", "record_id")
_KINDS = dict.fromkeys(OPTIONS, is_text)
_KINDS |= {"leads": is_texts, "labels": is_texts, "sampling_rate": is_number, "step": is_number}
_KINDS |= {"processing": is_mapping}


def read_declaration(data_dir: str | os.PathLike, options: Mapping[str, Any] | None = None) -> NpyDump:
    """The declaration of a dump.

    Args:
        data_dir:
            The folder of the dump, with its `dump.json` or with all that is needed in `options`; or a declaration
            elsewhere (`.json`), whose key `folder` says where the dump lies, relative to itself; or the array.
        options (`dict`, *optional*): Keys of [`NpyDump`] that count before those of the file; `None` is "not given".

    Raises:
        ValueError: names what is missing, unknown or contradictory.
    """
    path = Path(data_dir).expanduser()
    given = {name: value for name, value in (options or {}).items() if value is not None}
    folder = path
    if path.suffix == ".npy":
        folder, given = path.parent, {"array": path.name} | given
    declared = {}
    file = path if path.suffix == ".json" else folder / DECLARATION_NAME
    if file.is_file():
        declared = {name: value for name, value in read_json_object(file).items() if value is not None}
        check_kinds(declared, {"folder": is_text}, file)
        if path.suffix == ".json":
            folder = (path.parent / declared.pop("folder", ".")).resolve()
        elif "folder" in declared:
            raise ValueError(f"{file} lies beside its array and must not name a folder. Take the key `folder` out.")
    elif path.suffix == ".json":
        raise ValueError(f"There is no declaration {file}.")
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    declared |= given
    known = {item.name for item in fields(NpyDump)} - {"folder"}
    unknown, absent = sorted(set(declared) - known), [name for name in REQUIRED if name not in declared]
    if unknown or absent:
        raise ValueError(
            f"The dump in {folder} is declared with {sorted(declared)}: "
            + (f"{unknown} are unknown. " if unknown else "")
            + (f"{absent} are missing and never guessed. " if absent else "")
            + f"Give them as options or in {DECLARATION_NAME}; the keys are {sorted(known)}."
        )
    check_kinds(declared, _KINDS, folder)
    for name in {"leads", "labels"} & set(declared):
        declared[name] = tuple(declared[name])
    if declared["axes"] not in AXES:
        raise ValueError(f"Expected axes of the dump in {folder} as one of {list(AXES)}, got {declared['axes']!r}.")
    stored_unit(declared["unit"])
    return NpyDump(folder=folder, **declared)


def _locate(data_dir: Path, options: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    dump = read_declaration(data_dir, options)
    return dump.folder, dump.options


@lru_cache(maxsize=4)
def _map_array(path: str, modified_ns: int) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no array of numbers that numpy reads without pickle: {error}") from error


def _open_array(path: str, options: Mapping[str, Any]) -> np.ndarray:
    """The array as `(N, leads, samples)`, checked against what is declared."""
    if not os.path.isfile(path):
        raise ValueError(f"There is no array {path}.")
    array = _map_array(path, os.stat(path).st_mtime_ns)
    if array.ndim != 3:
        raise ValueError(f"Expected {path} to have the axes {options['axes']}, got the shape {array.shape}.")
    num_leads = len(known_lead_names(tuple(options["leads"])))
    array = array if options["axes"] == AXES[0] else array.transpose(0, 2, 1)
    if array.shape[1] != num_leads:
        raise ValueError(
            f"{path}: with the axes {options['axes']!r} the array has {array.shape[1]} leads of {array.shape[2]} "
            f"samples, but {num_leads} leads are declared: {list(options['leads'])}. Check axes and leads."
        )
    if array.dtype == np.int16:
        if options["step"] is None:
            raise ValueError(f"{path} holds int16: declare `step`, the {options['unit']} per step.")
    elif array.dtype.kind != "f":
        raise ValueError(f"{path} holds {array.dtype}. Expected int16 with a step, or floats.")
    elif options["step"] is not None:
        raise ValueError(f"{path} holds floats in {options['unit']}: leave out step={options['step']}.")
    return array


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    path, table = (inside(os.fspath(data_dir), options[name]) for name in ("array", "table"))
    array = _open_array(path, options)
    if not os.path.isfile(table):
        raise ValueError(f"There is no table {table}.")
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        named = [options[name] for name in ("record_id", "row", "patient_id", "fold") if options[name] is not None]
        absent = [name for name in (*named, *options["labels"]) if name not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(f"{table} has no columns {absent}. It has {reader.fieldnames}.")
        lines = list(reader)
    if len(lines) != len(array):
        raise ValueError(
            f"{table} describes {len(lines)} recordings, {path} holds {len(array)}. A table that is not of this array "
            "would give every label to another recording."
        )
    entries, rows = [], set()
    for number, line in enumerate(lines):
        try:
            entry, row = _entry(path, line, number, options)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{table}, line {number + 2}, cannot be read: {error}") from error
        if not 0 <= row < len(array) or row in rows:
            raise ValueError(f"{table}, line {number + 2}: row {row} comes twice or is none of 0 to {len(array) - 1}.")
        rows.add(row)
        entries.append(entry)
    _check_names_and_patients(entries, table)
    return entries


def _entry(path: str, line: Mapping[str, str], number: int, options: Mapping[str, Any]) -> tuple[IndexEntry, int]:
    row = number if options["row"] is None else int(line[options["row"]])
    record_id = line[options["record_id"]].strip()
    if not record_id:
        raise ValueError("it has no record id")
    fold = None if options["fold"] is None else whole_number(line[options["fold"]])
    labels = []
    for name in options["labels"]:
        if float(line[name]) not in (0.0, 1.0):
            raise ValueError(f"expected 0 or 1 in the column {name!r}, got {line[name]!r}")
        labels += [name] if float(line[name]) else []
    columns = {
        "patient_id": None if options["patient_id"] is None else plain_id(line[options["patient_id"]]),
        "labels": labels,
        "fold": fold,
        "extra": {"array_row": row},
    }
    return IndexEntry(path, record_id, "train" if fold is None else split_of_fold(fold), columns), row


def whole_number(text: str) -> int:
    if float(text) != int(float(text)):
        raise ValueError(f"expected a whole number, got {text!r}")
    return int(float(text))


def plain_id(text: str) -> str | None:
    """An id as it was before a table of floats made `"18792.0"` of it; `None` where it is empty."""
    text = "" if is_missing(text) else text.strip()
    return (text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text) or None


def _check_names_and_patients(entries: Sequence[IndexEntry], table: str):
    splits, names = {}, set()
    for entry in entries:
        if entry.record_id in names:
            raise ValueError(f"{table}: the record id {entry.record_id!r} comes twice.")
        names.add(entry.record_id)
        patient = entry.columns["patient_id"]
        if patient is not None and splits.setdefault(patient, entry.split) != entry.split:
            raise ValueError(
                f"{table}: patient {patient!r} has recordings in the splits {splits[patient]} and {entry.split}. Give "
                "all recordings of a patient one fold."
            )


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    signal = np.array(_open_array(entry.path, options)[entry.columns["extra"]["array_row"]])
    is_steps = signal.dtype == np.int16
    gain = np.full(len(options["leads"]), options["step"], dtype=np.float32) if is_steps else None
    return EcgRecord(
        entry.record_id,
        signal,
        options["leads"],
        options["sampling_rate"],
        options["unit"],
        gain,
        source="npy",
        **entry.columns,
    )


def npy_features() -> dict[str, Any]:
    """The column beside the common ones: `array_row`, the position in the array."""
    from datasets import Value

    return {"array_row": Value("int64")}


NPY_DUMP = Corpus(
    name="npy",
    description="an array of recordings (.npy) with a table of them (.csv)",
    homepage="whoever made it",
    licence="that of the recordings",
    citation="",
    options={name: () for name in OPTIONS},
    splits=("train", "validation", "test"),
    index=_index,
    read=_read,
    folder_label_names=lambda data_dir, options: options["labels"],
    extra_features=npy_features,
    locate=_locate,
)
