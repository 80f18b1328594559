"""Records that are read together, against the same records read one by one."""

import os
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ecg_transformers.data.bad_record_report import BadRecordError, MissingFiles
from ecg_transformers.data.builder import corpus_features, tables_of
from ecg_transformers.data.corpora.mimic_iv_ecg import MIMIC_IV_ECG
from ecg_transformers.data.corpora.ptb_xl import PTB_XL
from ecg_transformers.data.corpora.wfdb_folder import WFDB_FOLDER
from ecg_transformers.data.corpus import IndexEntry
from ecg_transformers.data.formats.wfdb_reader import read_group
from ecg_transformers.data.records import INVALID_SAMPLE

RECORD_BYTES = 200  # of two leads and 50 samples


def write_sound(write_record, name, **layout):
    steps = np.random.default_rng(len(name) + sum(name.encode())).integers(-900, 900, (2, 50))
    return write_record(name, steps=steps, **layout)


def write_gap(write_record, name):
    steps = np.ones((2, 50), dtype=int)
    steps[1, 7] = INVALID_SAMPLE
    return write_record(name, steps=steps)


def change_header(old, new):
    def write(write_record, name):
        header = write_sound(write_record, name).with_suffix(".hea")
        header.write_text(header.read_text().replace(old.format(name=name), new.format(name=name)))

    return write


def leave_as_link(write_record, name):
    signal = write_sound(write_record, name).with_suffix(".dat")
    signal.rename(signal.with_suffix(".moved"))
    signal.symlink_to(signal.with_suffix(".moved"))


KINDS = {
    "sound": write_sound,
    "commented": lambda write, name: write_sound(write, name, lines=("#Age: 47", "#Sex: Female", "#Dx: 426783006")),
    "link": leave_as_link,
    "other_gain": lambda write, name: write_sound(write, name, gain="500(0)/mV"),
    "baseline": lambda write, name: write_sound(write, name, gain="1000(12)/mV"),
    "other_leads": lambda write, name: write_sound(write, name, leads=("V1", "V2")),
    "other_length": lambda write, name: write(name, steps=np.ones((2, 31), dtype=int)),
    "no_checksums": lambda write, name: write_sound(write, name, checksums=[0, 0]),
    "negative_checksums": lambda write, name: write(name, steps=-np.ones((2, 50), dtype=int), checksums=[-50, -50]),
    "gap": write_gap,
    "damaged": lambda write, name: write_sound(write, name, checksums=[1, 2]),
    "truncated": lambda write, name: write_sound(write, name).with_suffix(".dat").write_bytes(bytes(199)),
    "longer": lambda write, name: write(name, steps=np.zeros((2, 50))).with_suffix(".dat").write_bytes(bytes(300)),
    "lost": lambda write, name: write_sound(write, name).with_suffix(".dat").unlink(),
    "empty": lambda write, name: write_sound(write, name).with_suffix(".hea").write_text(""),
    "escaping": change_header("{name}.dat", "../{name}.dat"),
    "of_unknown_length": change_header(" 100 50\n", " 100\n"),
}


def entries_of(folder, names):
    return [IndexEntry(os.fspath(folder / name), name) for name in names]


def read(corpus, entries, num_bytes, on_bad_record="report", **options):
    """Tables, bad records and number of counted records."""
    features, bad, missing, tables = corpus_features(corpus), [], MissingFiles(".", 10_000), []
    facts = features, features.arrow_schema, num_bytes
    try:
        options = corpus.complete_options(options)
        for table in tables_of(corpus, entries, options, on_bad_record, bad, missing, *facts):
            tables.append(table)
    except BadRecordError as error:
        bad.append(str(error))
    return tables, bad, (missing.num_tried, missing.num_missing)


def assert_equal_to_one_by_one(corpus, entries, num_bytes, **options):
    tables, *others = read(corpus, entries, num_bytes, **options)
    expected, *expected_others = read(replace(corpus, read_group=None), entries, num_bytes, **options)
    assert others == expected_others
    assert len(tables) == len(expected) and all(a.equals(b) for a, b in zip(tables, expected, strict=True))
    return tables


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("on_bad_record", ["report", "raise"])
def test_groups_give_the_tables_and_bad_records_of_records_read_one_by_one(
    write_record, tmp_path, seed, on_bad_record
):
    draw = random.Random(seed)
    kinds = draw.choices([*KINDS], k=12) + ["sound"] * 20
    draw.shuffle(kinds)
    names = [f"{number:02d}_{kind}" for number, kind in enumerate(kinds)]
    for name, kind in zip(names, kinds, strict=True):
        KINDS[kind](write_record, name)
    entries = entries_of(tmp_path / "records", names)
    for num_bytes in (1, 5 * RECORD_BYTES, 7 * RECORD_BYTES + 1, 1 << 20):
        assert_equal_to_one_by_one(WFDB_FOLDER, entries, num_bytes, on_bad_record=on_bad_record)


def test_a_bad_record_of_a_group_is_named_and_its_neighbours_are_there(write_record, tmp_path):
    names = ["a", "b", "c", "d"]
    for name in names:
        (KINDS["damaged"] if name == "c" else write_sound)(write_record, name)
    tables, bad, _ = read(WFDB_FOLDER, entries_of(tmp_path / "records", names), 1 << 20)
    assert pa.concat_tables(tables)["record_id"].to_pylist() == ["a", "b", "d"]
    assert [record.record_id for record in bad] == ["c"] and "Checksum of channel 'I'" in bad[0].reason


USUAL = {"sound", "commented", "link", "no_checksums", "negative_checksums", "longer"}


@pytest.mark.parametrize("kind", list(KINDS))
def test_only_what_is_usual_is_read_in_groups(write_record, tmp_path, kind):
    write_sound(write_record, "0")
    KINDS[kind](write_record, "1")
    entries, options = entries_of(tmp_path / "records", "01"), WFDB_FOLDER.complete_options({})
    assert WFDB_FOLDER.read_group(entries[:1], 1 << 20, options) is not None
    assert (WFDB_FOLDER.read_group(entries, 1 << 20, options) is not None) is (kind in USUAL)


@pytest.mark.parametrize(("num_samples", "sizes"), [(50, [1, 1, 2, 3, 4]), (60_000, [1, 1, 1, 1, 1, 2])])
def test_groups_hold_as_much_as_is_asked_for_and_as_caches_hold(write_record, tmp_path, num_samples, sizes):
    steps = np.ones((2, num_samples), dtype=int)
    paths = [os.fspath(write_record(name, steps=steps)) for name in "0123"]
    asked = (1, 200, 201, 600, 10_000, 10_000_000)
    assert [len(read_group(paths, num_bytes).steps) for num_bytes in asked[: len(sizes)]] == sizes


def test_names_that_no_table_can_hold_are_reported(write_record, tmp_path):
    for name in "ab":
        write_sound(write_record, name)
    entries = entries_of(tmp_path / "records", "ab")
    entries[1] = replace(entries[1], record_id=os.fsdecode(b"\xff"))
    _, bad, _ = read(WFDB_FOLDER, entries, 1 << 20)
    assert ["UTF-8" in record.reason for record in bad] == [True]


@pytest.mark.parametrize(
    ("corpus", "columns"),
    [
        (PTB_XL, {"patient_id": "7", "labels": ["NORM"], "fold": 3, "age": 61.0, "sex": "male"}),
        (MIMIC_IV_ECG, {"patient_id": "7", "measured": (("Sinus rhythm",), "0.005-150 Hz", None)}),
    ],
)
def test_columns_of_a_corpus_are_those_of_records_read_one_by_one(write_record, tmp_path, corpus, columns):
    if corpus is PTB_XL:
        columns["extra"] = {"scp_codes": ["NORM"], "scp_likelihoods": [80.0]}
    for name in "0123":
        write_sound(write_record, name)
    entries = [replace(entry, columns=columns) for entry in entries_of(tmp_path / "records", "0123")]
    (table,) = assert_equal_to_one_by_one(corpus, entries, 1 << 20)
    assert table["source"].to_pylist() == [corpus.name] * 4 and table["patient_id"][0].as_py() == "7"


@pytest.mark.parametrize(
    "options",
    [{"rename_leads": "I:V1"}, {"rename_leads": {0: "V2"}}, {"leads": ["II"]}, {"step": 0.005, "unit": "mV"}],
)
def test_options_of_the_reader_count_for_groups_too(write_record, tmp_path, options):
    for name in "0123":
        write_sound(write_record, name)
    assert_equal_to_one_by_one(WFDB_FOLDER, entries_of(tmp_path / "records", "0123"), 1 << 20, **options)
