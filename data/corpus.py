"""Declaration of a corpus: one `Corpus` in one short file each (`corpora/ptb_xl.py` is the model)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .records import EcgRecord

# Licence names as corpora state them → identifiers of the Hub; all others are "other", with their name.
HUB_LICENCES = {
    "cc by 4.0": "cc-by-4.0",
    "cc by-nc 4.0": "cc-by-nc-4.0",
    "cc by-sa 4.0": "cc-by-sa-4.0",
    "cc0 1.0": "cc0-1.0",
    "cc0": "cc0-1.0",
    "odc-by 1.0": "odc-by",
    "odbl 1.0": "odbl",
}

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class IndexEntry:
    """One record as the corpus lists it, before its signal is read.

    Args:
        path (`str`): Place at which the reader finds the record.
        record_id (`str`): Unique in the corpus.
        split (`str`): One of `SPLITS`.
        columns (`dict`): Facts known without the signal: patient_id, labels, fold, age, sex and further columns.
    """

    path: str
    record_id: str
    split: str = "train"
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Corpus:
    """A declared corpus.

    Args:
        name (`str`): Name in `load_ecg(name)`.
        description, licence, citation (`str`): Shown by `dataset.info`.
        homepage (`str`): Address to get it from.
        options (`dict`): Name of each option of `load_ecg` that belongs to the corpus → its admitted values, the
            default first; an empty tuple admits any value and defaults to `None`.
        splits (`tuple`): The splits that the corpus defines.
        index (`Callable`): `(data_dir, options) -> list[IndexEntry]`; reads tables, never signals.
        read (`Callable`): `(entry, options) -> EcgRecord`; raises `ValueError` for a record that cannot be read.
        read_group (`Callable`, *optional*):
            `(entries, num_bytes, options) -> (record, steps, columns) | None`: the first entries read together, what
            they share, int16 `(num_records, num_leads, num_samples)` and fields of each; `None`: read one by one.
        label_names (`Callable`, *optional*): `(options) -> tuple[str, ...]`, all classes of the chosen task in order.
        folder_label_names (`Callable`, *optional*):
            `(data_dir, options) -> tuple[str, ...]`, the same for a corpus whose folder says which classes it has.
        extra_features (`Callable`, *optional*): `() -> dict` of the `datasets` features of further columns.
        stored_rows (`Callable`, *optional*):
            `(split, options) -> pyarrow.Table` of stored rows, for a corpus that the package carries; it has no folder
            to index and read.
        locate (`Callable`, *optional*):
            `(data_dir, options) -> (folder, options)`, for a corpus whose `data_dir` may be a file, or whose options
            are declared by a file of its own; by default `data_dir` is the folder.
        file_options (`tuple[str, ...]`): Those options whose value is the path of a file.
    """

    name: str
    description: str
    homepage: str
    licence: str
    citation: str
    options: Mapping[str, tuple]
    splits: tuple[str, ...]
    index: Callable[[Path, Mapping[str, Any]], list[IndexEntry]] | None = None
    read: Callable[[IndexEntry, Mapping[str, Any]], EcgRecord] | None = None
    read_group: Callable[[Sequence[IndexEntry], int, Mapping[str, Any]], tuple | None] | None = None
    label_names: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None
    folder_label_names: Callable[[Path, Mapping[str, Any]], tuple[str, ...]] | None = None
    extra_features: Callable[[], dict[str, Any]] | None = None
    stored_rows: Callable[[str, Mapping[str, Any]], Any] | None = None
    locate: Callable[[Path, Mapping[str, Any]], tuple[Path, dict[str, Any]]] | None = None
    file_options: tuple[str, ...] = ()

    def complete_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The corpus's options with defaults filled in.

        Raises:
            ValueError: for an unknown option or value; lists those that exist.
        """
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            raise ValueError(
                f"Unknown options {unknown} for corpus {self.name!r}. Its options: {sorted(self.options)}."
            )
        complete = {}
        for name, admitted in self.options.items():
            complete[name] = given.get(name, admitted[0] if admitted else None)
            if admitted and complete[name] not in admitted:
                raise ValueError(
                    f"Unknown {name}={complete[name]!r} for corpus {self.name!r}. Choose from {list(admitted)}."
                )
        return complete

    def stored_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options as they are stored with what was made from the corpus, and published with it: a file by its
        name and SHA-256 in place of its path, which is of one machine alone."""
        stored = dict(options)
        for name in self.file_options:
            if stored[name] is not None:
                file = Path(stored[name])
                stored[name] = f"{file.name}, SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}"
        return stored

    def classes(self, data_dir: Path, options: Mapping[str, Any]) -> tuple[str, ...]:
        """All classes in order, of the folder where the corpus leaves it to that; empty if none are declared."""
        if self.folder_label_names is not None:
            return tuple(self.folder_label_names(data_dir, options))
        return tuple(self.label_names(options)) if self.label_names is not None else ()

    def where_to_get(self) -> str:
        return f"Get {self.description} from {self.homepage} (licence: {self.licence})."


@dataclass(frozen=True)
class DataSource:
    """Origin of the recordings, and the terms of their use.

    Args:
        name, citation (`str`): Statements of the corpus.
        licence (`str`, *optional*): Licence as the corpus states it; `None` where it is unknown, which is then said.
        url (`str`, *optional*): Address of the corpus.
        dataset_id (`str`, *optional*): Id on the Hub, or the short name of [`load_ecg`], for metadata.
    """

    name: str
    licence: str | None
    citation: str
    url: str | None = None
    dataset_id: str | None = None


def data_source(dataset, name: str, licence: str | None = None) -> DataSource:
    """Origin of the recordings of a dataset of [`load_ecg`], as its corpus declares it, or with this licence."""
    info = dataset.info
    return DataSource(
        name=info.description or name,
        licence=licence or info.license or None,
        citation=info.citation or "No citation is known.",
        url=info.homepage or None,
        dataset_id=name,
    )


def mixed_source(sources: Sequence[DataSource]) -> DataSource:
    """The source of a mixture: every name and citation; where licences differ none, and each beside its name."""
    licences = {source.licence for source in sources}
    names = [source.name for source in sources]
    if len(licences) > 1:
        names = [f"{source.name} ({source.licence or 'licence unknown'})" for source in sources]
    return DataSource(
        name=" + ".join(names),
        licence=licences.pop() if len(licences) == 1 else None,
        citation=" ".join(dict.fromkeys(source.citation for source in sources)),
    )


def declared_source(dataset) -> DataSource:
    """The same where nobody names the corpus; a dataset that declares nothing has no licence."""
    import datasets

    if isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        source = data_source(dataset, dataset.info.dataset_name or "own recordings")
        return source if dataset.info.dataset_name else DataSource(source.name, source.licence, source.citation)
    return DataSource("Own recordings", None, "No citation is known.")
