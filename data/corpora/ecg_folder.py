"""Your own recordings: a folder of files and a CSV table with one line a recording.

```
recordings/
  records.csv          path,patient_id,labels,age
  ward/0001.hea        "ward/0001.hea,17,AFIB;LBBB,71"
  ward/0001.dat
  export/0002.csv
```

What the columns are called, and what the files do not say of themselves, are options of `load_ecg("ecgfolder", ...)`
or keys of a file `ecgfolder.json` in the folder; options count before the file.

- `table`: name of the CSV (separated by tabs, semicolons or commas). By default the only CSV in the folder itself.
- Columns, by default those of the same name as the option where the table has them; an empty text means "none":
  `path` (needed: relative to the folder, or the name of a file below it, with or without ending, if only one has it;
  any file that `read_recording` reads), `record_id` (default: the path without
  ending), `patient_id`, `split` (train, validation, test), `fold` (1 to 10: 9 validates, 10 tests; `split` counts
  before it), `age` (years), `sex` (male, female, m or f; of other codes `sex_codes` says what they mean:
  `{"0": "female", "1": "male"}` or `"0:female,1:male"`).
- `labels`: one column of names, by default `labels`; several names in a cell need `label_separator`. Or a list of
  columns of 0 and 1, whose names are the labels. A cell that is empty or `nan`, `NA`, `<NA>`, `null` or `None` (in any
  case of letters) holds no label; so it is with every other column.
- `leads`, `sampling_rate`, `unit`, `axes`, `step`: for files that do not say it of themselves (CSV, npy, ...), for the
  whole folder; a file that says otherwise is a bad record. Where the files differ, the columns `leads_column`,
  `sampling_rate_column`, `unit_column`, `axes_column`, `step_column`, empty for files that say it themselves; names of
  leads in a cell are separated by blanks, commas or semicolons. By default the columns `leads`, `sampling_rate`, ...
- `rename_leads` (`{name in the file: lead}` or `"name:lead,..."`), `dataset` (inside HDF5, npz and MATLAB files),
  `skip_lines` (before the table of a text file): handed to the reader.

Without `split` and `fold` the patients, or, where no patient is stated, the recordings are split 80/10/10 by a hash of
their id, which never changes.
"""

import csv
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..corpus import SPLITS, Corpus, IndexEntry
from ..formats.channels import parse_renaming
from ..formats.file_format import wfdb_path
from ..formats.limits import MAX_TEXT_BYTES, check_file
from ..formats.wfdb_comments import SEXES
from ..recording_file import read_recording
from ..records import EcgRecord
from ..safe_paths import inside
from .declarations import (
    check_kinds,
    is_number,
    is_renaming,
    is_text,
    is_text_or_texts,
    is_texts,
    read_json_object,
)
from .npy_dump import plain_id, whole_number
from .ptb_xl import split_of_fold
from .splits import split_by_hash
from .tables import is_missing, walk

logger = logging.getLogger(__name__)

DECLARATION_NAME = "ecgfolder.json"
COLUMNS = ("path", "record_id", "patient_id", "split", "fold", "age", "sex")
FILE_FACTS = ("leads", "sampling_rate", "unit", "axes", "step")
READER_OPTIONS = ("rename_leads", "dataset", "skip_lines")
OPTIONS = (
    *("table", *COLUMNS, "sex_codes", "labels", "label_separator"),
    *FILE_FACTS,
    *(f"{name}_column" for name in FILE_FACTS),
    *READER_OPTIONS,
)
_KINDS = dict.fromkeys(OPTIONS, is_text)
_KINDS |= {"labels": is_text_or_texts, "leads": is_texts, "rename_leads": is_renaming, "sex_codes": is_renaming}
_KINDS |= {"sampling_rate": is_number, "step": is_number, "skip_lines": is_number}
_SPLIT_NAMES = {name: name for name in SPLITS} | {"val": "validation", "valid": "validation", "dev": "validation"}
_SEXES = SEXES | {"": None}
_LIKELY_SEPARATORS = (";", "|")


def _locate(data_dir: Path, options: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder, and the options with those of its declaration and the name of its table."""
    given = {name: value for name, value in options.items() if value is not None}
    folder = data_dir
    if folder.suffix.lower() == ".csv" and folder.is_file():
        folder, given = folder.parent, {"table": folder.name} | given
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}. Expected one that holds recordings and a CSV table of them.")
    declared = {}
    if (folder / DECLARATION_NAME).is_file():
        declared = read_json_object(folder / DECLARATION_NAME)
        unknown = sorted(set(declared) - set(OPTIONS))
        if unknown:
            raise ValueError(f"{folder / DECLARATION_NAME} has unknown keys {unknown}. Its keys: {sorted(OPTIONS)}.")
    declared = dict.fromkeys(OPTIONS) | declared | given
    if isinstance(declared["leads"], str):
        raise ValueError(
            f"Expected leads as a list of names, got {declared['leads']!r}. The name of a column goes to leads_column."
        )
    check_kinds(declared, _KINDS, folder)
    if declared["table"] is None:
        declared["table"] = _only_table(folder)
    return folder, declared


def _only_table(folder: Path) -> str:
    tables = sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(".csv"))
    if len(tables) != 1:
        named = f" ({', '.join(tables[:5])}{', ...' if len(tables) > 5 else ''})" if tables else ""
        raise ValueError(
            f"{folder} holds {len(tables)} CSV files{named}. Say by table=... which of them lists the recordings; "
            "one line for each, with a column `path`."
        )
    return tables[0]


def read_table(folder: Path, options: Mapping[str, Any]) -> tuple[str, list[str], list[dict[str, str]]]:
    """Path, column names and lines of the table."""
    table = inside(os.fspath(folder), options["table"])
    if not os.path.isfile(table):
        raise ValueError(f"There is no table {table}.")
    check_file(table, MAX_TEXT_BYTES)
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=next((sign for sign in "\t;" if sign in header), ","))
            columns, lines = list(reader.fieldnames or ()), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} is no CSV table in UTF-8: {error}") from error
    if not lines:
        raise ValueError(f"{table} lists no recordings: it has no line below its header.")
    for number, line in enumerate(lines):
        if None in line or None in line.values():
            raise ValueError(f"{table}, line {number + 2}, has not as many cells as the header, {len(columns)}.")
    return table, columns, lines


class _Layout:
    """Meaning of the columns of a table."""

    def __init__(self, table: str, columns: Sequence[str], options: Mapping[str, Any]):
        self.table, self.options = table, options
        self.columns = {name: self._column(name, options[name], columns) for name in COLUMNS}
        if self.columns["path"] is None:
            raise ValueError(
                f"{table} has no column `path`: say by path=... which one names the files: {list(columns)}."
            )
        self.facts = {}
        for name in FILE_FACTS:
            if options[name] is not None and options[f"{name}_column"]:
                raise ValueError(f"Give {name}, for the whole folder, or {name}_column, not both.")
            if options[name] is None:
                self.facts[name] = self._column(name, options[f"{name}_column"], columns)
        codes = parse_renaming(options["sex_codes"], "sex_codes as code:sex, such as 0:female,1:male")
        self.sex_codes = _SEXES | {code.lower(): _SEXES.get(str(sex).strip().lower()) for code, sex in codes.items()}
        if None in (self.sex_codes[code.lower()] for code in codes):
            raise ValueError(f"Expected sex_codes as code:sex, such as 0:female,1:male, got {options['sex_codes']!r}.")
        labels = options["labels"]
        self.label_columns = None if labels is None or isinstance(labels, str) else tuple(labels)
        self.labels = self._column("labels", labels, columns) if self.label_columns is None else None
        absent = [name for name in self.label_columns or () if name not in columns]
        if absent:
            raise ValueError(f"{table} has no columns {absent} of labels. It has {list(columns)}.")

    def _column(self, name: str, declared: str | None, columns: Sequence[str]) -> str | None:
        if declared is None:
            return name if name in columns else None
        if declared and declared not in columns:
            raise ValueError(f"{self.table} has no column {declared!r}, declared as {name}. It has {list(columns)}.")
        return declared or None

    def cell(self, line: Mapping[str, str], name: str) -> str:
        """The text of a cell; empty where it is missing."""
        text = line[self.columns[name]].strip() if self.columns[name] else ""
        return "" if is_missing(text) else text

    def read_labels(self, line: Mapping[str, str]) -> list[str]:
        """The labels of a recording, each once, in the order of cell or columns."""
        if self.label_columns is not None:
            for name in self.label_columns:
                if line[name].strip() not in ("0", "1", "0.0", "1.0"):
                    raise ValueError(f"expected 0 or 1 in the column {name!r} of labels, got {line[name]!r}")
            return [name for name in self.label_columns if float(line[name])]
        text, separator = line[self.labels].strip() if self.labels else "", self.options["label_separator"]
        if separator is None:
            likely = [sign for sign in _LIKELY_SEPARATORS if sign in text]
            if likely:
                raise ValueError(
                    f"the labels {text!r} look like several: declare label_separator={likely[0]!r} (or another "
                    "character, if it belongs to the name)"
                )
            return [] if is_missing(text) else [text]
        return list(dict.fromkeys(label.strip() for label in text.split(separator) if not is_missing(label)))

    def read_facts(self, line: Mapping[str, str]) -> dict[str, Any]:
        """Reads what is declared of the file of a line, as `read_recording` takes it."""
        facts = {name: self.options[name] for name in (*FILE_FACTS, *READER_OPTIONS)}
        for name, column in self.facts.items():
            text = line[column].strip() if column else ""
            text = "" if is_missing(text) else text
            if text and name == "leads":
                facts[name] = [lead for lead in re.split(r"[\s,;]+", text) if lead]
            elif text:
                facts[name] = _number(text, column) if name in ("sampling_rate", "step") else text
        return {name: value for name, value in facts.items() if value is not None}

    def read_split(self, line: Mapping[str, str], key: str) -> tuple[str, int | None]:
        """Split and fold of a line; `key` is hashed where the table states neither."""
        text, fold = self.cell(line, "split"), self.cell(line, "fold")
        fold = whole_number(fold) if fold else None
        if self.columns["split"]:
            if text.lower() not in _SPLIT_NAMES:
                raise ValueError(f"expected the split as one of {list(_SPLIT_NAMES)}, got {text!r}")
            return _SPLIT_NAMES[text.lower()], fold
        if self.columns["fold"]:
            if fold is None or not 1 <= fold <= 10:
                raise ValueError(f"expected a fold from 1 to 10, got {fold}: give a column `split`, or fold=''")
            return split_of_fold(fold), fold
        return split_by_hash(key), None


class FileNames:
    """Finds files of a folder, and of those below it, by what a table calls them.

    Args:
        folder (`Path`): Folder of the files. It is listed when a name is first asked for that is no path.
    """

    def __init__(self, folder: Path):
        self.folder, self._by_name = folder, None

    def find(self, name: str) -> list[str]:
        """Paths relative to the folder of the files that a name means: a path, with or without ending, or the end of
        one, such as the name of a file in a sub-folder. A WFDB record is one file, its header."""
        name = name.replace("\\", "/").removeprefix("./")
        try:
            path = inside(os.fspath(self.folder), name)
        except ValueError:
            return []
        if os.path.isfile(path) or wfdb_path(path) is not None:
            return [name]
        if self._by_name is None:
            self._by_name = self._list()
        return self._by_name.get(name.lower(), [])

    def _list(self) -> dict[str, list[str]]:
        by_name: dict[str, list[str]] = {}
        for directory, names in walk(self.folder):
            headers = {name.removesuffix(".hea") for name in names if name.endswith(".hea")}
            for name in names:
                stem, ending = os.path.splitext(name)
                if stem in headers and ending != ".hea":
                    continue
                relative = Path(directory, name).relative_to(self.folder)
                for start in range(len(relative.parts)):
                    tail = PurePosixPath(*relative.parts[start:])
                    for called in {str(tail), str(tail.with_suffix(""))}:
                        by_name.setdefault(called.lower(), []).append(relative.as_posix())
        return by_name


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    table, columns, lines = read_table(data_dir, options)
    layout = _Layout(table, columns, options)
    entries, splits, known, files = [], {}, set(), FileNames(data_dir)
    for number, line in enumerate(lines):
        try:
            entry = _entry(files, line, layout)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{table}, line {number + 2}, cannot be read: {str(error).removesuffix('.')}.") from error
        for name in (("record", entry.record_id), ("file", entry.path)):
            if name in known:
                cure = " Name each in a column, and say which by record_id=." if name[0] == "record" else ""
                raise ValueError(f"{table}, line {number + 2}: the {name[0]} {name[1]!r} comes twice.{cure}")
            known.add(name)
        patient = entry.columns["patient_id"]
        if patient is not None and splits.setdefault(patient, entry.split) != entry.split:
            raise ValueError(
                f"{table}: patient {patient!r} has recordings in the splits {splits[patient]} and {entry.split}. A "
                "model would be tested on people that it knows: give all recordings of a patient one split."
            )
        entries.append(entry)
    without = sum(entry.columns["patient_id"] is None for entry in entries)
    if without and not (layout.columns["split"] or layout.columns["fold"]):
        logger.warning(
            "%s states no patient for %d of %d recordings (option patient_id). They are split by recording: several "
            "of one person may lie on both sides of a split, and results then look better than they are.",
            *(table, without, len(entries)),
        )
    if not (layout.labels or layout.label_columns or options["labels"] == ""):
        logger.warning("%s has no column `labels`, so no recording has one. It has %s.", table, list(columns))
    return entries


def _entry(files: FileNames, line: Mapping[str, str], layout: _Layout) -> IndexEntry:
    name = layout.cell(line, "path").replace("\\", "/")
    if not name:
        raise ValueError("it names no file")
    path = inside(os.fspath(files.folder), name)
    if not os.path.isfile(path) and len(found := files.find(name)) > 1:
        raise ValueError(f"{name!r} may be {found[:3]}: write the ending or the folder of the one that is meant")
    elif not os.path.isfile(path) and found:
        path = inside(os.fspath(files.folder), found[0])
    record_id = layout.cell(line, "record_id") or str(PurePosixPath(name).with_suffix(""))
    patient = plain_id(layout.cell(line, "patient_id"))
    age, sex = layout.cell(line, "age"), layout.cell(line, "sex")
    if sex.lower() not in layout.sex_codes:
        raise ValueError(
            f"expected the sex as male, female, m, f or nothing, got {sex!r}: say what codes mean by sex_codes=..., "
            "such as 0:female,1:male, or leave the column out by sex=''"
        )
    split, fold = layout.read_split(line, patient or record_id)
    columns = {
        "patient_id": patient,
        "labels": layout.read_labels(line),
        "fold": fold,
        "age": _number(age, layout.columns["age"]) if age else None,
        "sex": layout.sex_codes[sex.lower()],
        "extra": {"path": name},
        "declared": layout.read_facts(line),
    }
    return IndexEntry(path, record_id, split, columns)


def _number(text: str, column: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number in the column {column!r}, got {text!r}") from None


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    record = read_recording(entry.path, record_id=entry.record_id, **entry.columns["declared"])
    for name in ("patient_id", "labels", "fold", "age", "sex"):
        # The table counts before the file; labels are those of the table alone, so that all have one vocabulary.
        if entry.columns[name] is not None:
            setattr(record, name, entry.columns[name])
    record.extra, record.source = dict(entry.columns["extra"]), "ecgfolder"
    return record


def _label_names(data_dir: Path, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of labels in the order in which they are declared, or all names in the column, sorted."""
    table, columns, lines = read_table(data_dir, options)
    layout = _Layout(table, columns, options)
    return layout.label_columns or tuple(sorted({label for line in lines for label in layout.read_labels(line)}))


def ecg_folder_features() -> dict[str, Any]:
    """The column beside the common ones: `path`, as the table names the file."""
    from datasets import Value

    return {"path": Value("string")}


ECG_FOLDER = Corpus(
    name="ecgfolder",
    description="a folder of recordings of any format with a CSV table of them",
    homepage="whoever made it",
    licence="that of the recordings",
    citation="",
    options={name: () for name in OPTIONS},
    splits=SPLITS,
    index=_index,
    read=_read,
    folder_label_names=_label_names,
    extra_features=ecg_folder_features,
    locate=_locate,
)
