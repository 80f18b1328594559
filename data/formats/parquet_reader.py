"""Parquet files: one recording with a column for each lead, or rows as this package stores them.

Stored rows say everything of themselves (`EcgRecord.to_row`). Columns of leads are tables like CSV ones: their names
say the leads, rate and unit are declared.
"""

import os
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..records import EcgRecord
from .array_reader import ArrayDeclaration
from .limits import LIBRARY_ERRORS, check_expansion, check_num_values, max_values
from .steps import record_of_steps
from .table_columns import choose_columns, rate_of_columns, unit_of_columns
from .table_reader import check_axes

_ROWS_AT_ONCE = 16


def holds_stored_rows(path: str | os.PathLike) -> bool:
    """Checks whether a Parquet file holds rows of this package: a struct `ecg` with the bytes of a signal.

    Raises:
        ValueError: if it is no Parquet file.
    """
    with _open(os.fspath(path)) as file:
        schema = file.schema_arrow
        if "ecg" not in schema.names or not pa.types.is_struct(schema.field("ecg").type):
            return False
        fields = {field.name for field in schema.field("ecg").type}
        return {"signal", "gain", "leads", "sampling_rate", "unit"} <= fields and "record_id" in schema.names


def read_stored_rows(path: str | os.PathLike) -> Iterator[EcgRecord]:
    """The recordings of a Parquet file with rows of this package, a few in memory at a time.

    Raises:
        ValueError: if the file or a row is damaged.
    """
    path = os.fspath(path)
    with _open(path) as file:
        _check_bytes(path, max(_group_sizes(file), default=0))
        batches = file.iter_batches(batch_size=_ROWS_AT_ONCE)
        while True:
            try:
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            except LIBRARY_ERRORS as error:
                raise ValueError(f"{path} is damaged: {error}") from error
            if batch is None:
                return
            for row in rows:
                try:
                    record = EcgRecord.from_row(row)
                except LIBRARY_ERRORS as error:
                    raise ValueError(f"{path}: the row {row.get('record_id')!r} is damaged: {error}") from error
                yield record


def read_lead_columns(
    path: str | os.PathLike,
    declared: ArrayDeclaration,
    record_id: str,
    rename_leads: Mapping[str | int, str] | str | None = None,
) -> EcgRecord:
    """Reads a recording with a column for each lead and a row for each sample.

    Args:
        declared ([`ArrayDeclaration`]):
            Rate and unit, as far as names and times of columns do not state them; `leads` chooses columns; `step` is
            needed for, and only for, columns of whole numbers.
        rename_leads (`dict`, *optional*): Names of columns → lead names.

    Returns:
        the record; nulls are missing samples.

    Raises:
        ValueError: names what is not declared, or the columns that are no leads or hold no numbers.
    """
    path = os.fspath(path)
    check_axes(path, declared)
    with _open(path) as file:
        names = file.schema_arrow.names
        columns = choose_columns(path, names, declared.leads, rename_leads)
        unit = unit_of_columns(path, columns, declared)
        num_columns, num_rows = len(columns.positions), file.metadata.num_rows
        check_num_values(path, (num_columns, num_rows))
        check_expansion(path, 8 * num_columns * num_rows, os.path.getsize(path))
        _check_bytes(path, sum(_group_sizes(file)))
        try:
            taken = [names[column] for column in columns.positions]
            clocks = [names[column] for column in columns.times]
            table = file.read(columns=[*taken, *clocks])
            values = [table.column(name).to_numpy() for name in taken]
            times = {name: table.column(name).to_numpy() for name in clocks}
        except LIBRARY_ERRORS as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    times = {name: column for name, column in times.items() if column.dtype.kind in "iufM"}
    rate, notes = rate_of_columns(path, times, declared)
    types, leads = [table.schema.field(name).type for name in taken], columns.leads
    if all(pa.types.is_floating(kind) for kind in types):
        if declared.step is not None:
            raise ValueError(f"{path} holds floats in {unit}: leave out step={declared.step}.")
        return EcgRecord(record_id, np.stack(values).astype(np.float32), leads, rate, unit, notes=notes)
    if not all(pa.types.is_integer(kind) for kind in types):
        raise ValueError(f"{path}: expected columns of numbers, all whole or all floats, got {types}.")
    if declared.step is None:
        raise ValueError(f"{path} holds whole numbers: pass step, the {unit} per step.")
    steps = np.stack(values)
    if steps.dtype.kind == "f":  # nulls have become NaN
        return EcgRecord(record_id, (steps * declared.step).astype(np.float32), leads, rate, unit, notes=notes)
    return record_of_steps(record_id, steps, leads, rate, unit, [declared.step] * len(leads), notes=notes)


def _group_sizes(file: pq.ParquetFile) -> list[int]:
    """Bytes of each group of rows, without compression, as the file states them."""
    return [file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups)]


def _check_bytes(path: str, num_bytes: int):
    check_expansion(path, num_bytes, os.path.getsize(path))
    if num_bytes > 8 * max_values():
        raise ValueError(f"{path} declares {num_bytes} bytes, more than the {8 * max_values()} of a recording.")


def _open(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except LIBRARY_ERRORS as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
