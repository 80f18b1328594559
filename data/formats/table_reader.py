"""Tables of one recording as text: a column for each lead and a line for each sample.

The names of the columns say which leads they are (`table_columns.py`); what is not stated is declared. Lines before
the table are skipped where the caller says how many, and read where they are those of a known export: `#` lines
(OpenSignals, BioSPPy) and the head of the ECGs that Apple Health exports.
"""

import csv
import json
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ...modeling.leads import canonical_lead
from ..records import EcgRecord
from .array_reader import ArrayDeclaration
from .channels import is_lead, is_voltage
from .limits import MAX_TEXT_BYTES, check_num_values, max_values, read_bytes
from .table_columns import choose_columns, parse_times, rate_of_columns, unit_of_columns
from .wfdb_header import decode_text

MISSING = ("", "nan")
_HERTZ = r"(\d+(?:[.,]\d+)?)\s*(?:hertz|hz|hercios?|herz|герц|赫兹|赫|ヘルツ|헤르츠)"
_MAX_HEAD_LINES = 100
_LOOKED_AT_BYTES, _LOOKED_AT_LINES = 2**16, 50
# Names of columns in tables that list recordings.
_OF_RECORDINGS = re.compile(
    r"(patient|subject)[\s_-]*(id|no|nr|name)?|file[\s_-]*name|path|age|sex|gender|labels?|diagnos[ie]s|split|\w*fold",
    re.IGNORECASE,
)


class _Head(NamedTuple):
    """Lines before a table, and what they state: names of the columns, or of the one lead."""

    num_lines: int = 0
    names: tuple[str, ...] | None = None
    sampling_rate: float | None = None
    unit: str | None = None
    one_column: bool = False


def read_csv(
    path: str,
    declared: ArrayDeclaration,
    record_id: str,
    rename_leads: Mapping[str | int, str] | str | None = None,
    skip_lines: int | None = None,
) -> EcgRecord:
    """Reads a table of numbers, separated by tabs, semicolons, commas or blanks.

    Args:
        declared ([`ArrayDeclaration`]):
            Rate and unit, as far as the table does not state them; `leads` names the columns of a table without a
            line of names, and chooses columns of a table with one. `step`, where given, is what 1 in the table is
            worth. `axes` can only be `"sample,lead"`.
        rename_leads: Names of columns (or positions) → lead names.
        skip_lines (`int`, *optional*): Lines before the table, or before the line of its names.

    Returns:
        a float record. Empty cells and `nan` are missing samples. Columns that are not chosen are not looked at.

    Raises:
        ValueError: names the line of a cell that is no number, of a line that is too short or too long, or what is
            not declared, or contradicts what the table states.
    """
    check_axes(path, declared)
    content = read_bytes(path, MAX_TEXT_BYTES, "table")
    try:
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        lines = content.decode(encoding).splitlines()
    except UnicodeDecodeError as error:
        if b"\xb5V" not in content and b"\xb0" not in content:
            raise ValueError(f"{path} is no table of text: {error}.") from error
        lines = content.decode("latin-1").splitlines()
    head = _read_head(lines) if skip_lines is None else _Head(skip_lines)
    first = next((n for n in range(head.num_lines, len(lines)) if lines[n].strip()), None)
    if first is None:
        raise ValueError(f"{path} is empty" + (f" after its first {head.num_lines} lines." if head.num_lines else "."))
    declared = _with_head(path, declared, head)
    delimiter = "\0" if head.one_column else _delimiter(lines[first])
    cells = _split(lines[first], delimiter)
    names, start = head.names, first
    if not all(_is_value(cell, delimiter) for cell in cells):
        names, start = tuple(cell.strip() for cell in cells), first + 1
    elif names is None:
        declared.require(path, "leads")
        if len(declared.leads) != len(_trimmed(cells)):
            raise ValueError(
                f"{path} has {len(_trimmed(cells))} columns and no line of names, but {len(declared.leads)} leads are "
                "declared. Name every column by leads=; one named 'time' is read as times."
            )
        names, declared = tuple(map(str, declared.leads)), replace(declared, leads=None)
        columns = choose_columns(path, names, None, rename_leads, all_named=True)
    if start != first or head.names is not None:
        columns = choose_columns(path, names, declared.leads, rename_leads)
    unit = unit_of_columns(path, columns, declared)
    values, times = _read_values(path, lines, start, len(names), delimiter, columns.positions, columns.times)
    rate, notes = rate_of_columns(path, {names[p]: column for p, column in times.items()}, declared)
    check_num_values(path, (len(values),))
    table = np.frombuffer(values, dtype=np.float64).reshape(-1, len(columns.positions))
    signal = table.T * (1.0 if declared.step is None else declared.step)
    return EcgRecord(record_id, signal.astype(np.float32), columns.leads, rate, unit, notes=(*columns.notes, *notes))


def holds_samples(path: str) -> bool:
    """Tells by its first lines whether a text file may be a table of samples: no licence, note or table of labels."""
    with open(path, "rb") as file:
        lines = [line for line in decode_text(file.read(_LOOKED_AT_BYTES)).splitlines() if line.strip()]
    last = lines[-_LOOKED_AT_LINES - 1 : -1] if len(lines) > 2 else lines[1:] or lines
    if not last:
        return False
    delimiter = _delimiter(last[-1])
    if len(lines) > 1 and any(_OF_RECORDINGS.fullmatch(cell.strip()) for cell in _split(lines[0], delimiter)):
        return False
    rows = [_trimmed(_split(line, delimiter)) for line in last]
    numeric = [sum(bool(c.strip()) and _is_value(c, delimiter) for c in cells) >= len(cells) / 2 for cells in rows]
    return sum(numeric) >= len(rows) / 2


def check_axes(path: str, declared: ArrayDeclaration):
    if declared.axes not in (None, "sample,lead"):
        raise ValueError(
            f"{path}: a table has a line for each sample and a column for each lead; axes={declared.axes!r} does not "
            "fit. Transpose the table, or store it as .npy."
        )


def _with_head(path: str, declared: ArrayDeclaration, head: _Head) -> ArrayDeclaration:
    """The declaration and what the head states; one that contradicts the head is refused."""
    for name in ("sampling_rate", "unit"):
        stated, said = getattr(head, name), getattr(declared, name)
        if stated is not None and said not in (None, stated) and not (name == "unit" and is_voltage(said)):
            raise ValueError(f"{path} states the {name} {stated}, not {said}. Leave out {name}=.")
        if stated is not None and said is None:
            declared = replace(declared, **{name: stated})
    return declared


def _read_head(lines: Sequence[str]) -> _Head:
    """The lines before a table, of exports whose layout is known."""
    marked = 0
    while marked < min(len(lines), _MAX_HEAD_LINES) and lines[marked].lstrip().startswith("#"):
        marked += 1
    if marked:
        return _read_marked_lines([line.lstrip().lstrip("#").strip() for line in lines[:marked]], marked)
    pairs, num_lines = [], 0
    for line in lines[:_MAX_HEAD_LINES]:
        cells = [cell.strip() for cell in _split(line, ",")]
        if len(cells) > 1 and not _is_value(cells[0], ","):
            pairs.append((cells[0], ",".join(cells[1:]).strip()))
        elif line.strip():
            break
        num_lines += 1
    rates = [match[1] for _, value in pairs if (match := re.fullmatch(_HERTZ, value, re.IGNORECASE))]
    units = [value for _, value in pairs if is_voltage(value)]
    leads = [value for key, value in pairs if value.startswith(key) and is_lead(value.split()[-1])]
    if len(rates) != 1 or len(units) != 1:
        return _Head()
    name = canonical_lead(leads[0].split()[-1]) if len(leads) == 1 else "ECG"
    return _Head(num_lines, (name,), float(rates[0].replace(",", ".")), units[0], one_column=True)


def _read_marked_lines(lines: Sequence[str], num_lines: int) -> _Head:
    """Reads lines with `#`: JSON of OpenSignals, or `Sampling Rate (Hz):= 1000` and `Labels:= ECG` of BioSPPy."""
    for line in lines:
        if line.startswith("{"):
            try:
                (device,) = json.loads(line).values()
                names = list(device["column"])
                for label, sensor in zip(device["label"], device["sensor"], strict=True):
                    place = next(
                        (names.index(name) for name in (label, label.replace("CH", "A")) if name in names), None
                    )
                    if place is not None and sensor:
                        names[place] = sensor
                return _Head(num_lines, tuple(map(str, names)), float(device["sampling rate"]))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                return _Head(num_lines)
    stated = dict(line.split(":=", 1) for line in lines if ":=" in line)
    rate = next((value for name, value in stated.items() if name.lower().startswith("sampling rate (hz)")), None)
    labels = stated.get("Labels", "").split("\t" if "\t" in stated.get("Labels", "") else ",")
    names = tuple(label.strip() for label in labels if label.strip()) or None
    try:
        return _Head(num_lines, names, None if rate is None else float(rate))
    except ValueError:
        return _Head(num_lines, names)


def _delimiter(line: str) -> str:
    """`" "` stands for any blanks."""
    return next(
        (sign for sign in "\t;," if sign in line),
        " " if len(line.split()) > 1 and _is_value(line.split()[0], " ") else ",",
    )


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter == "\0":
        return [line.strip()]
    if '"' in line:
        try:
            return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            return line.split(delimiter)
    return line.split() if delimiter == " " else line.split(delimiter)


def _trimmed(cells: list[str]) -> list[str]:
    """Without the empty cell behind a delimiter at the end of a line."""
    return cells[:-1] if len(cells) > 1 and not cells[-1].strip() else cells


def _is_value(cell: str, delimiter: str) -> bool:
    """Checks whether a cell is no name: a number, nothing, or a date and time."""
    text = cell.strip()
    try:
        float(text.replace(",", ".") if delimiter != "," else text)
    except ValueError:
        return text == "" or re.match(r"\d{4}-\d\d-\d\d|\d{1,2}:\d\d:", text) is not None
    return True


def _read_values(
    path: str,
    lines: Sequence[str],
    start: int,
    num_columns: int,
    delimiter: str,
    positions: Sequence[int],
    time_positions: Sequence[int],
) -> tuple[array, dict[int, np.ndarray]]:
    """Values of the columns at these positions, line by line, and the columns of times."""
    values, most, marks = array("d"), max_values(), set()
    texts: dict[int, list[str]] = {position: [] for position in time_positions}
    for number, cells in _rows(path, lines, start, num_columns, delimiter):
        try:
            row = [float(cells[position]) for position in positions]
            if "," in marks and any("." in cells[position] for position in positions):
                marks.add(".")
        except ValueError:
            row = [_number(cells[position], path, number, delimiter, marks) for position in positions]
        if float("inf") in row or float("-inf") in row:
            raise ValueError(f"{path}, line {number}: infinite values are no samples. Mark missing ones by 'nan'.")
        values.extend(row)
        for position, column in texts.items():
            column.append(cells[position])
        if len(values) > most:
            raise ValueError(f"{path} holds more than {most} values.")
        if len(marks) > 1:
            raise ValueError(f"{path}, line {number}: expected one decimal mark, got points and commas.")
    return values, {position: _times(column) for position, column in texts.items()}


def _rows(
    path: str, lines: Sequence[str], start: int, num_columns: int, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines[start:], start=start + 1):
        if not line.strip(" \t" if delimiter != "\t" else " "):
            continue
        cells = _split(line, delimiter)
        if len(cells) != num_columns:
            cells = _trimmed(cells) if len(cells) == num_columns + 1 else cells
            if len(cells) != num_columns:
                cure = " Decimals with commas need another sign between columns." if delimiter == "," else ""
                raise ValueError(
                    f"{path}, line {number}: expected {num_columns} values, got {len(cells)}.{cure} Lines before the "
                    "table are left out by skip_lines=."
                )
        yield number, cells


def _number(cell: str, path: str, number: int, delimiter: str, marks: set[str]) -> float:
    text = cell.strip()
    if text.lower() in MISSING:
        return float("nan")
    if delimiter != "," and re.fullmatch(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?", text):
        marks.add(",")
        return float(text.replace(",", "."))
    try:
        value = float(text)
    except ValueError:
        raise ValueError(
            f"{path}, line {number}: {cell[:80]!r} is no number. Missing samples are empty or 'nan'; columns are "
            "chosen by leads=, and lines before the table left out by skip_lines=."
        ) from None
    marks.update(sign for sign in "." if sign in text)
    return value


def _times(cells: Sequence[str]) -> np.ndarray:
    try:
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        return np.array([float(cell.replace(",", ".")) for cell in cells])
    except ValueError:
        return parse_times(cells)
