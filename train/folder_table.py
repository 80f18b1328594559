"""A folder of recordings and a table of them: which column is what, and all that is missing, at once.

The proposal is what `load_ecg("ecgfolder")` takes, as the file `ecgfolder.json`.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecg_transformers.data.corpora.ecg_folder import DECLARATION_NAME, FileNames, read_table
from ecg_transformers.data.formats.array_reader import MissingDeclaration
from ecg_transformers.data.formats.file_format import find_format
from ecg_transformers.data.recording_file import read_recording
from ecg_transformers.data.safe_paths import inside

NUM_TRIED = 5
"""Files of each format that are read to learn what they do not say."""
_NAMES = {
    "patient_id": r"(patient|subject|person|case|participant|mrn|pid|pat)[\s_-]*(id|no|nr|number|code|name)?",
    "labels": r"labels?|diagnos[ie]s|dx|class(es)?|rhythms?|findings?|targets?|categor(y|ies)|condition|scp_codes",
    "age": r"(patient[\s_-]*)?age([\s_-]*(years?|at.*))?",
    "sex": r"(patient[\s_-]*)?(sex|gender)",
    "split": r"split|subset|partition",
    "fold": r"(strat[\s_-]*)?fold",
}
_SEXES = {"male", "female", "m", "f", ""}
_SPLITS = {"train", "validation", "val", "valid", "dev", "test"}
_SEPARATORS = (";", "|", ",")
_MAX_CLASSES = 100


@dataclass
class Proposal:
    """Keys and values of `ecgfolder.json`, a sentence on the column of each key, and sentences on all that has to be
    declared or mended."""

    declaration: dict[str, Any]
    found: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def propose(folder: Path, table: str, declared: Mapping[str, Any]) -> Proposal:
    """Proposes columns by their names and what is in them, and looks at files of each format.

    `declared` is what the caller states of all files, as for [`read_recording`]. A table that is not in the folder or
    cannot be read is a `ValueError`.
    """
    columns, lines, name = _read(folder, table)
    proposal = Proposal({"table": name})
    files = FileNames(folder)
    path = _path_column(columns, lines, files)
    if path is None:
        proposal.missing.append(f"no column of {name} names files of the folder; its columns: {list(columns)}")
    else:
        _add_files(proposal, path, lines, files, declared)
    rest = [column for column in columns if column != path]
    for key, pattern in _NAMES.items():
        chosen = next((column for column in rest if re.fullmatch(pattern, column.strip(), re.IGNORECASE)), None)
        cells = [line[chosen].strip() for line in lines] if chosen else []
        if chosen and _fits(key, cells, proposal, chosen):
            proposal.declaration[key] = chosen
            rest.remove(chosen)
    _add_labels(proposal, rest, lines)
    if "patient_id" not in proposal.declaration:
        proposal.missing.append("no column of patients: recordings of one person may lie on both sides of a split")
    proposal.declaration |= dict(declared)
    return proposal


def write(folder: Path, proposal: Proposal) -> Path:
    """Writes the proposal as `ecgfolder.json`, if a column names files and the folder has no other such file."""
    path = folder / DECLARATION_NAME
    if "path" not in proposal.declaration:
        raise ValueError(f"Nothing to write to {path}: no column of the table names the files.")
    text = json.dumps(proposal.declaration, indent=2, ensure_ascii=False) + "\n"
    if path.is_file() and path.read_text("utf-8") != text:
        raise ValueError(f"{path} is already there and says something else. Remove or rename it first.")
    path.write_text(text, "utf-8")
    return path


def proposal_text(folder: Path, proposal: Proposal) -> str:
    """The proposal for people."""
    lines = [f"{folder} with {proposal.declaration['table']}", ""]
    lines += [f"  {key:<12} {sentence}" for key, sentence in proposal.found.items()]
    lines += ["", "Missing:" if proposal.missing else "Nothing is missing."]
    lines += [f"  - {sentence}" for sentence in proposal.missing]
    lines += ["", f"{DECLARATION_NAME} (--write makes it):", json.dumps(proposal.declaration, indent=2)]
    lines += ["", f"Then: ecg-transformers finetune --dataset ecgfolder --data_dir {folder} --output_dir DIR"]
    return "\n".join(lines) + "\n"


def _read(folder: Path, table: str) -> tuple[list[str], list[dict[str, str]], str]:
    path = folder / table if (folder / table).is_file() else Path(table)
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        tables = sorted(item.name for item in folder.iterdir() if item.suffix.lower() in (".csv", ".tsv"))
        raise ValueError(f"There is no table {table} in {folder}. It holds {tables[:10]}; copy the table into it.")
    name = path.resolve().relative_to(folder.resolve()).as_posix()
    _, columns, lines = read_table(folder, {"table": name})
    if len(set(columns)) != len(columns):
        raise ValueError(f"{path}: expected different names of the columns, got {columns}.")
    return columns, lines, name


def _path_column(columns: Sequence[str], lines: Sequence[Mapping[str, str]], files: FileNames) -> str | None:
    """The column whose cells most often name a file, at least half of them."""
    shares = {}
    for column in columns:
        cells = [line[column].strip() for line in lines]
        shares[column] = sum(bool(cell) and bool(files.find(cell)) for cell in cells) / len(cells)
    best = max(shares, key=shares.get)
    return best if shares[best] >= 0.5 else None


def _add_files(
    proposal: Proposal, column: str, lines: Sequence[Mapping[str, str]], files: FileNames, declared: Mapping[str, Any]
):
    cells = [line[column].strip() for line in lines]
    found = {cell: files.find(cell) for cell in cells}
    proposal.declaration["path"] = column
    num_found = sum(len(names) == 1 for names in found.values())
    proposal.found["path"] = f"{column!r}: {num_found} files, such as {cells[0]!r}"
    if lost := [cell for cell in cells if not found[cell]]:
        proposal.missing.append(f"{len(lost)} lines name no file: {lost[:3]}")
    if unclear := [cell for cell in cells if len(found[cell]) > 1]:
        proposal.missing.append(
            f"{len(unclear)} lines name several files, such as {found[unclear[0]][:2]}: write ending or folder"
        )
    twice = [cell for cell, count in Counter(cells).items() if count > 1]
    if twice:
        proposal.missing.append(f"{len(twice)} files are named more than once: {twice[:3]}")
    by_format, problems = defaultdict(list), defaultdict(list)
    for names in found.values():
        if len(names) == 1:
            path = inside(os.fspath(files.folder), names[0])
            try:
                by_format[find_format(path)].append(path)
            except ValueError as error:
                problems[str(error).replace(path, "it")].append(names[0])
    for kind, paths in sorted(by_format.items()):
        undeclared = set()
        for path in paths[:: max(1, len(paths) // NUM_TRIED)][:NUM_TRIED]:
            try:
                read_recording(path, **declared)
            except MissingDeclaration as error:
                undeclared.update(error.names)
            except (ValueError, OSError) as error:
                problems[str(error).replace(path, "it")].append(Path(path).name)
        if undeclared:
            flags = " ".join(f"--{name} ..." for name in sorted(undeclared))
            proposal.missing.append(f"{sorted(undeclared)} of {len(paths)} {kind} files: give {flags}")
    proposal.missing += [f"{names[0]} cannot be read: {reason}" for reason, names in problems.items()]


def _fits(key: str, cells: Sequence[str], proposal: Proposal, column: str) -> bool:
    """Checks that the cells are what the name of their column promises, and notes what they hold, or why not."""
    values = Counter(cell for cell in cells if cell)
    numbers = [number for cell in values if (number := _number(cell)) is not None]
    odd = {
        "age": len(numbers) < len(values) or not all(0 <= number <= 130 for number in numbers),
        "sex": not {cell.lower() for cell in values} <= _SEXES,
        "split": not {cell.lower() for cell in values} <= _SPLITS,
        "fold": not set(values) <= {str(number) for number in range(1, 11)},
        "labels": len(values) > _MAX_CLASSES,
    }.get(key, False)
    if odd or not values:
        if key == "sex" and values:
            codes = {cell: "..." for cell in list(values)[:4]}
            proposal.declaration |= {"sex": ""}
            proposal.missing.append(
                f"the column {column!r} holds codes of the sex: {list(codes)}. If it is to be read, write in "
                f"{DECLARATION_NAME} \"sex\": {column!r} and sex_codes, such as {{'0': 'female', '1': 'male'}}"
            )
            return False
        if key in ("age", "sex"):
            proposal.declaration[key] = ""
        proposal.missing.append(f"the column {column!r} is not taken as {key}: it holds {list(values)[:4]}")
        return False
    most = ", ".join(f"{value} ({count})" for value, count in values.most_common(4))
    what = f"{len(values)} values" if key in ("patient_id", "age") else most
    proposal.found[key] = f"{column!r}: {what}"
    return True


def _add_labels(proposal: Proposal, columns: Sequence[str], lines: Sequence[Mapping[str, str]]):
    """Separator of a column of names, or, where there is no such column, those of 0 and 1."""
    chosen = proposal.declaration.get("labels")
    if chosen is not None:
        cells = [line[chosen] for line in lines]
        separator = next((sign for sign in _SEPARATORS if any(sign in cell for cell in cells)), None)
        if separator is not None:
            proposal.declaration["label_separator"] = separator
            proposal.found["labels"] += f", separated by {separator!r}"
        return
    binary = [c for c in columns if {line[c].strip() for line in lines} <= {"0", "1", "0.0", "1.0"}]
    if binary:
        proposal.declaration["labels"] = binary
        proposal.found["labels"] = f"columns of 0 and 1: {', '.join(binary[:6])}" + ", ..." * (len(binary) > 6)
    else:
        proposal.missing.append(f"no column of labels among {list(columns)}: name it in {DECLARATION_NAME}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
