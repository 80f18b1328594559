"""Tables of one recording: a column for each lead and a line for each sample, as CSV or Parquet.

The names of the columns say which leads they are; rate and unit are declared. Columns that are no known lead (a time,
a counter) are never taken for one: the caller names the leads to take, or renames them.
"""

import csv
import os
from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from ...modeling.leads import canonical_lead
from ..records import EcgRecord, known_lead_names
from .array_reader import ArrayDeclaration
from .limits import MAX_TEXT_BYTES, check_num_values, max_values

MISSING = ("", "nan")


def read_csv(
    path: str | os.PathLike,
    declared: ArrayDeclaration,
    record_id: str,
    rename_leads: Mapping[str, str] | None = None,
) -> EcgRecord:
    """Reads a table of numbers, separated by tabs, semicolons or commas.

    Args:
        declared ([`ArrayDeclaration`]):
            Rate and unit; `leads` names the columns of a table without a header line, and chooses columns of a table
            with one. `step`, where given, is what 1 in the table is worth. `axes` can only be `"sample,lead"`.
        rename_leads (`dict`, *optional*): Names in the header line → lead names.

    Returns:
        a float record. Empty cells and `nan` are missing samples.

    Raises:
        ValueError: names the line of a cell that is no number (decimal commas among them), of a line that is too
            short or too long, or what is not declared.
    """
    path = os.fspath(path)
    declared.require(path, "sampling_rate", "unit")
    check_axes(path, declared)
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path}.")
    if os.path.getsize(path) > MAX_TEXT_BYTES:
        raise ValueError(f"{path} is larger than {MAX_TEXT_BYTES} bytes. Store it as .npy, Parquet or WFDB.")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            delimiter = next((sign for sign in "\t;" if sign in first), ",")
            file.seek(0)
            lines = csv.reader(file, delimiter=delimiter)
            names, cells, first_line = None, next(lines, None), 1
            if cells is None:
                raise ValueError(f"{path} is empty.")
            if not all(_is_number(cell) for cell in cells):
                names, first_line = [cell.strip() for cell in cells], 2
                lines_of_values = lines
            else:
                declared.require(path, "leads")
                lines_of_values = _with_first(cells, lines)
            values = _read_values(path, lines_of_values, first_line, len(cells), delimiter)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of text: {error}.") from error
    table = np.frombuffer(values, dtype=np.float64).reshape(-1, len(cells))
    if names is None:
        if len(declared.leads) != len(cells):
            raise ValueError(f"{path} has {len(cells)} columns, but {len(declared.leads)} leads are declared.")
        columns, leads = list(range(len(cells))), known_lead_names(tuple(declared.leads))
    else:
        columns, leads = choose_columns(path, names, declared.leads, rename_leads)
    signal = table[:, columns].T * (1.0 if declared.step is None else declared.step)
    return EcgRecord(record_id, signal.astype(np.float32), leads, float(declared.sampling_rate), declared.unit)


def check_axes(path: str, declared: ArrayDeclaration):
    if declared.axes not in (None, "sample,lead"):
        raise ValueError(
            f"{path}: a table has a line for each sample and a column for each lead; axes={declared.axes!r} does not "
            "fit. Transpose the table, or store it as .npy."
        )


def choose_columns(
    path: str, names: Sequence[str], wanted: Sequence[str] | None, rename_leads: Mapping[str, str] | None
) -> tuple[list[int], tuple[str, ...]]:
    """Positions and lead names of the columns that are leads: those wanted, or all if all are known leads.

    Raises:
        ValueError: if a wanted lead is not there, or nobody said what a column is.
    """
    renamed = [(rename_leads or {}).get(name, name) for name in names]
    if wanted is None:
        unknown = [
            name
            for name, new in zip(names, renamed, strict=True)
            if not (_is_lead(new) or name in (rename_leads or {}))
        ]
        if unknown:
            raise ValueError(
                f"{path}: the columns {unknown} are no known leads. Name the leads to take by leads=, or say what the "
                "columns are by rename_leads=."
            )
        return list(range(len(names))), known_lead_names(tuple(renamed))
    leads = known_lead_names(tuple(wanted))
    stored = [canonical_lead(name) if _is_lead(name) else name for name in renamed]
    absent = [lead for lead in leads if lead not in stored]
    twice = [lead for lead in leads if stored.count(lead) > 1]
    if absent or twice:
        raise ValueError(
            f"{path}: the leads {absent or twice} {'are not' if absent else 'come twice'} in {list(names)}."
        )
    return [stored.index(lead) for lead in leads], leads


def _is_lead(name: str) -> bool:
    try:
        canonical_lead(name)
    except ValueError:
        return False
    return True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.strip() == ""
    return True


def _with_first(cells: list[str], lines):
    yield cells
    yield from lines


def _read_values(path: str, lines, first_line: int, num_columns: int, delimiter: str) -> array:
    values, most = array("d"), max_values()
    for number, cells in enumerate(lines, start=first_line):
        if not cells:
            continue
        if len(cells) != num_columns:
            raise ValueError(f"{path}, line {number}: expected {num_columns} values, got {len(cells)}.")
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            row = [_number(cell, path, number, delimiter) for cell in cells]
        if float("inf") in row or float("-inf") in row:
            raise ValueError(f"{path}, line {number}: infinite values are no samples. Mark missing ones by 'nan'.")
        values.extend(row)
        if len(values) > most:
            raise ValueError(f"{path} holds more than {most} values.")
    check_num_values(path, (len(values),))
    return values


def _number(cell: str, path: str, number: int, delimiter: str) -> float:
    if cell.strip().lower() in MISSING:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        comma = "," in cell and delimiter != ","
        cure = " Write decimals with a point, not with a comma." if comma else " Missing samples are empty or 'nan'."
        raise ValueError(f"{path}, line {number}: {cell!r} is no number.{cure}") from None
