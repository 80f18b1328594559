"""The recordings of a comparison: one labelled corpus with folds, and unlabelled ones that only add to pretraining.

Everything that could let a test record into a training is checked here: folds and patients come from the corpus, or
from a table of splits that must not contradict it; a recording that comes twice, by its name or bit by bit, is used
once; patients of the folds 9 and 10 are never learned from.
"""

import csv
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value, concatenate_datasets

from ecg_transformers.data import ECG_STORAGE, EcgRecord, label_names, load_ecg
from ecg_transformers.data.corpora.npy_dump import NpyDump, read_declaration
from ecg_transformers.modeling import EcgFeatureExtractor

from ..tasks.labelled_splits import SPLITS

logger = logging.getLogger("ecg_transformers")

PRETRAINING_FEATURES = Features(
    {"record_id": Value("string"), "patient_id": Value("string"), "ecg": ECG_STORAGE, "fold": Value("int64")}
)
SPLIT_COLUMNS = ("ecg_id", "patient_id", "strat_fold")


@dataclass(frozen=True)
class ExtraSource:
    """Recordings that only add to pretraining, as `NAME:FOLDER[:HZ]`: corpus and folder of [`load_ecg`], and the rate
    of the files of a corpus that has several."""

    corpus: str
    folder: str
    sampling_rate: int | None = None

    @classmethod
    def parse(cls, text: str, flag: str = "--extra") -> "ExtraSource":
        match = re.fullmatch(r"([a-z0-9-]+):(.+?)(?::(\d+))?", text)
        if not match:
            raise ValueError(f"Expected {flag} NAME:FOLDER[:HZ], such as ptb-xl:/data/ptb-xl:500, got {text!r}.")
        return cls(match[1], match[2], None if match[3] is None else int(match[3]))

    def load(self) -> Dataset:
        """Stored rows of all splits."""
        options = {} if self.sampling_rate is None else {"sampling_rate": self.sampling_rate}
        return load_ecg(self.corpus, self.folder, split="all", decode=False, **options)

    def __str__(self):
        return f"{self.corpus}:{self.folder}" + ("" if self.sampling_rate is None else f":{self.sampling_rate}")


@dataclass(frozen=True)
class ComparisonData:
    """Recordings of every run of a comparison. All datasets hold stored rows (`decode=False`).

    Args:
        name (`str`): Name of the labelled corpus.
        pretraining (`Dataset`): Folds 1-8, and the records of the extra sources.
        train, validation, test (`Dataset`): Folds 1-8, 9 and 10 of the labelled corpus; records with a label.
        label_names (`list[str]`): The classes.
        left_out (`dict[str, int]`): Number of extra recordings that were not used, by reason.
    """

    name: str
    pretraining: Dataset
    train: Dataset
    validation: Dataset
    test: Dataset
    label_names: list[str]
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def labelled(self) -> Dataset:
        """All labelled records."""
        return concatenate_datasets([self.train, self.validation, self.test])

    @property
    def fingerprint(self) -> str:
        """A hash of the names of all records of each set and of the classes."""
        digest = hashlib.blake2b(repr((self.name, self.label_names)).encode(), digest_size=8)
        for split in ("pretraining", *SPLITS):
            digest.update(repr((split, list(vars(self)[split]["record_id"]))).encode())
        return digest.hexdigest()


def load_comparison_data(
    name: str,
    data_dir: str | None = None,
    extra: Sequence[ExtraSource] = (),
    split_table: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> ComparisonData:
    """Loads the recordings of a comparison.

    Args:
        name, data_dir, options: The labelled corpus, see [`load_ecg`]; it has to have folds.
        extra (`Sequence[ExtraSource]`, *optional*):
            Recordings that add to pretraining. To dimensionless ones of a dump, recordings in mV are added after the
            `processing` that the dump declares.
        split_table (`str`, *optional*):
            CSV of `ecg_id, patient_id, strat_fold`. Recordings without folds of their own take them from it (others
            must agree with it); those that it does not list are not used.

    Raises:
        ValueError: for a corpus without validation and test folds, a table that contradicts it, or a patient on both
            sides.
    """
    options = dict(options or {})
    splits = {} if split_table is None else read_split_table(split_table)
    whole = load_ecg(name, data_dir, split="all", decode=False, **options)
    of_split = {split: [] for split in SPLITS}
    for number, fold in enumerate(whole["fold"]):
        if fold is not None:
            of_split[{9: "validation", 10: "test"}.get(fold, "train")].append(number)
    if empty := [split for split, numbers in of_split.items() if not numbers]:
        raise ValueError(f"Corpus {name!r} has no records in {empty}. A comparison needs folds 1-8, 9 and 10.")
    parts = {split: whole.select(numbers) for split, numbers in of_split.items()}
    for rows in parts.values():
        for record_id, patient, fold in _names(rows):
            _agreed_fold(record_id, patient, fold, splits)
    try:
        names = list(label_names(name, **options))
    except ValueError:  # a corpus of any content declares no classes
        names = sorted({label for labels in parts["train"]["labels"] for label in labels})
    labelled = {
        split: rows.select([number for number, labels in enumerate(rows["labels"]) if set(labels) & set(names)])
        for split, rows in parts.items()
    }
    held_out = {patient for split in SPLITS[1:] for _, patient, _ in _names(parts[split]) if patient is not None}
    common = [column for column in PRETRAINING_FEATURES if column in parts["train"].column_names]
    pretraining = [parts["train"].select_columns(common).cast(PRETRAINING_FEATURES)]
    collection = _ExtraCollection(splits, held_out, DumpForm(read_declaration(data_dir)) if name == "npy" else None)
    collection.seen |= {record_key(record_id) for rows in parts.values() for record_id in rows["record_id"]}
    for source in extra:
        rows = list(collection.rows(source))
        logger.info("%s adds %d recordings to pretraining", source, len(rows))
        if rows:
            pretraining.append(Dataset.from_list(rows, features=PRETRAINING_FEATURES))
    if shared := held_out & {patient for rows in pretraining for _, patient, _ in _names(rows)}:
        raise ValueError(f"{len(shared)} patients are in the folds 1-8 and in 9 or 10: {sorted(shared)[:5]}.")
    left_out = dict(collection.left_out)
    return ComparisonData(name, concatenate_datasets(pretraining), **labelled, label_names=names, left_out=left_out)


def record_key(record_id: str) -> str:
    """The name by which a recording is recognised in several places: PTB-XL's number, be it written `9`, `00009` or
    `HR00009` (as in the Challenges of 2020 and 2021); other names as they are."""
    match = re.fullmatch(r"(?:HR)?0*(\d+)", record_id)
    return match[1] if match else record_id


def read_split_table(path: str) -> dict[str, tuple[str | None, int | None]]:
    """Patient and fold of each recording that a table of splits lists."""
    if not Path(path).is_file():
        raise ValueError(f"There is no table of splits {path}.")
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader, table = csv.DictReader(file), {}
        if absent := [name for name in SPLIT_COLUMNS if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path} has no columns {absent}. Expected {list(SPLIT_COLUMNS)}.")
        for number, line in enumerate(reader):
            try:
                patient, fold = (line[name].strip() for name in SPLIT_COLUMNS[1:])
                table[record_key(line["ecg_id"])] = (
                    patient.removesuffix(".0") or None,
                    int(float(fold)) if fold else None,
                )
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{path}, line {number + 2}, cannot be read: {error}") from error
    return table


def _names(rows: Dataset) -> Iterator[tuple[str, str | None, int | None]]:
    return zip(rows["record_id"], rows["patient_id"], rows["fold"], strict=True)


def _agreed_fold(
    record_id: str, patient: str | None, fold: int | None, splits: Mapping[str, tuple[str | None, int | None]]
) -> tuple[str | None, int | None]:
    """Patient and fold of a recording, of its own or from the table; they must not contradict each other."""
    listed_patient, listed_fold = splits.get(record_key(record_id), (None, None))
    for own, listed, what in ((patient, listed_patient, "patient"), (fold, listed_fold, "fold")):
        if own is not None and listed is not None and own != listed:
            raise ValueError(
                f"Record {record_id} is of {what} {own} in its corpus and of {listed} in the table of splits."
            )
    return patient if patient is not None else listed_patient, fold if fold is not None else listed_fold


class _ExtraCollection:
    """Goes through extra sources, and keeps what may be learned from and is not there yet."""

    def __init__(self, splits: Mapping, held_out: set[str], form: "DumpForm | None"):
        self.splits, self.held_out, self.form = splits, held_out, form
        self.seen: set[str] = set()
        self.signals: set[bytes] = set()
        self.left_out: Counter[str] = Counter()

    def rows(self, source: ExtraSource) -> Iterator[dict]:
        dataset = source.load()
        for number, (record_id, patient, fold) in enumerate(_names(dataset)):
            patient, fold = _agreed_fold(record_id, patient, fold, self.splits)
            if reason := self._reason_against(record_id, patient, fold):
                self.left_out[reason] += 1
                continue
            ecg = dataset[number]["ecg"]
            signal = hashlib.blake2b(ecg["signal"], digest_size=16).digest()
            if signal in self.signals:
                self.left_out["there already, bit by bit"] += 1
                continue
            try:
                ecg = ecg if self.form is None else self.form(ecg, record_id)
            except BadRecording as error:
                logger.warning("Record %s adds nothing: %s", record_id, error)
                self.left_out["not to be processed"] += 1
                continue
            self.signals.add(signal)
            self.seen.add(record_key(record_id))
            yield {"record_id": record_id, "patient_id": patient, "ecg": ecg, "fold": fold}

    def _reason_against(self, record_id: str, patient: str | None, fold: int | None) -> str | None:
        if record_key(record_id) in self.seen:
            return "there already, by its name"
        if self.splits and record_key(record_id) not in self.splits:
            return "not in the table of splits"
        if fold is None:
            return "without a fold"
        if fold > 8:
            return "of fold 9 or 10"
        return "of a patient of fold 9 or 10" if patient in self.held_out else None


class BadRecording(ValueError):
    """Says why a recording cannot be brought to the form of a dump."""


class DumpForm:
    """Brings recordings in mV to the form in which a dump holds its own, by the `processing` that it declares."""

    def __init__(self, dump: NpyDump):
        self.dump, self.processing = dump, None
        if dump.processing:
            self.processing = EcgFeatureExtractor(leads=dump.leads, **dump.processing)

    def __call__(self, ecg: dict, record_id: str) -> dict:
        """The stored recording of a row in the unit of the dump and at its rate; one of this unit stays as it is.

        Raises:
            BadRecording: for a recording that cannot be processed.
            ValueError: where the dump declares no processing.
        """
        if ecg["unit"] == self.dump.unit:
            return ecg
        if self.processing is None:
            raise ValueError(
                f"The labelled recordings are {self.dump.unit}, record {record_id} is in {ecg['unit']}. Declare in "
                "the dump's `processing` how its values were made, or leave the other recordings out."
            )
        try:
            values = self.processing([ecg])["input_values"][0].numpy()
        except ValueError as error:
            raise BadRecording(str(error)) from error
        record = EcgRecord("", values, self.dump.leads, self.processing.sampling_rate, self.dump.unit)
        rate = self.dump.sampling_rate
        num_samples = round(values.shape[1] * rate / record.sampling_rate)
        frame = {"leads": self.dump.leads, "sampling_rate": rate, "num_samples": num_samples}
        values = EcgFeatureExtractor(**frame, unit=self.dump.unit)(record)["input_values"][0].numpy()
        return EcgRecord(record.record_id, values, self.dump.leads, rate, self.dump.unit).to_row()["ecg"]
