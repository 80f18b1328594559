import csv
import hashlib
import logging
from collections import Counter

import pytest

from ecg_transformers.data import load_ecg, prepare_corpus
from ecg_transformers.data.corpora.cinc2021 import CINC2021, SOURCES, SOURCES_2020

RECORDS = {  # one of each source, where the challenge has it
    "cpsc_2018/g1/A0001": "cpsc2018",
    "cpsc_2018_extra/g1/Q0001": "cpsc-extra",
    "st_petersburg_incart/g1/I0001": "incart",
    "ptb/g1/S0001": "ptb",
    "ptb-xl/g1/HR00001": "ptb-xl",
    "georgia/g1/E00001": "georgia",
    "chapman_shaoxing/g1/JS00001": "chapman-shaoxing",
    "ningbo/g30/S23074": "ningbo",
}


def load(folder, tmp_path, **options):
    return load_ecg("cinc2021", folder, split="all", cache_dir=tmp_path / "cache", **options)


@pytest.fixture
def folder(write_cinc_record, tmp_path):
    for name in RECORDS:
        write_cinc_record(f"training/{name}", "426783006")
    return tmp_path / "data"


def write_table(path, rows):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("ecg_id", "patient_id", "strat_fold"), *rows])
    return path


def test_each_record_names_its_source(folder, tmp_path):
    rows = load(folder, tmp_path)
    expected = {name.split("/")[-1]: source for name, source in RECORDS.items()}
    assert dict(zip(rows["record_id"], rows["source"], strict=True)) == expected
    assert all(labels == ["NSR"] for labels in rows["labels"])


def test_the_counts_are_those_of_both_challenges():
    assert sum(source.count for source in SOURCES) == 88_253
    assert sum(source.count for source in SOURCES_2020) == 43_101


def test_a_partial_copy_is_said_to_be_one_source_by_source(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load(folder, tmp_path)
    assert "partial copy of CinC2021: it holds 8 records, the corpus has 88253" in caplog.text
    assert "georgia 1 of 10344" in caplog.text


def test_each_source_is_split_as_its_own_corpus_splits_it(folder):
    entries = {entry.record_id: entry for entry in CINC2021.index(folder, {"task": "scored", "ptb_xl_table": None})}
    for source in SOURCES:
        for record_id in filter(source.holds, entries):
            assert entries[record_id].split == source.entry(entries[record_id].path, record_id).split


def test_with_the_table_the_folds_and_patients_of_ptb_xl_count(write_cinc_record, tmp_path, caplog):
    for number in (1, 2, 3, 4):
        write_cinc_record(f"HR0000{number}", "426783006")
    table = write_table(tmp_path / "ptbxl_database.csv", [(1, "15709.0", 3), (2, "13243.0", 9), (3, "20372.0", 10)])
    with caplog.at_level(logging.WARNING):
        rows = load(tmp_path / "data", tmp_path, ptb_xl_table=table)
    assert [(row["record_id"], row["patient_id"], row["fold"]) for row in rows] == [
        ("HR00001", "15709", 3),
        ("HR00002", "13243", 9),
        ("HR00003", "20372", 10),
    ]
    assert "1 recordings of PTB-XL are left out" in caplog.text
    entries = CINC2021.index(tmp_path / "data", {"task": "scored", "ptb_xl_table": table})
    assert [entry.split for entry in entries] == ["train", "validation", "test"]


def test_another_table_is_not_served_from_the_cache(write_cinc_record, tmp_path):
    write_cinc_record("HR00001", "426783006")
    for fold in (3, 9):
        table = write_table(tmp_path / "table.csv", [(1, "15709.0", fold)])
        assert load(tmp_path / "data", tmp_path, ptb_xl_table=table)["fold"][:] == [fold]


def test_a_prepared_folder_names_the_table_by_content_and_not_by_its_place(write_cinc_record, tmp_path):
    write_cinc_record("HR00001", "426783006")
    table = write_table(tmp_path / "mine" / "ptbxl_database.csv", [(1, "15709.0", 3)])
    manifest = prepare_corpus("cinc2021", tmp_path / "data", tmp_path / "out", ptb_xl_table=table)
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    assert manifest.options["ptb_xl_table"] == f"ptbxl_database.csv, SHA-256 {digest}"
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    elsewhere = write_table(tmp_path / "yours" / table.name, [(1, "15709.0", 3)])
    assert prepare_corpus("cinc2021", tmp_path / "data", tmp_path / "out", ptb_xl_table=elsewhere) == manifest
    write_table(table, [(1, "15709.0", 3), (2, "13243.0", 9)])  # says the same of the record that is there
    with pytest.raises(ValueError, match="holds another conversion"):
        prepare_corpus("cinc2021", tmp_path / "data", tmp_path / "out", ptb_xl_table=table)


def test_without_the_table_the_log_says_that_patients_lie_in_several_splits(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load(folder, tmp_path)
    assert "Give ptb_xl_table, the path of ptbxl_database.csv" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"), [([(1, "x", 3)], "line 2, cannot be read"), ([(1, "5", 11)], "Expected a fold from 1 to 10")]
)
def test_a_broken_table_is_refused_with_the_line(folder, tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load(folder, tmp_path, ptb_xl_table=write_table(tmp_path / "table.csv", rows))


def test_a_table_that_is_not_there_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="There is no table .*nosuch.csv"):
        load(folder, tmp_path, ptb_xl_table=tmp_path / "nosuch.csv")


def test_the_real_records_load_with_the_labels_of_their_headers(shared_data_dir, tmp_path):
    rows = load(shared_data_dir / "cinc2021", tmp_path, decode=False)
    assert Counter(rows["source"]) == {"ningbo": 66, "ptb-xl": 39, "chapman-shaoxing": 19, "ptb": 2}
    by_id = {row["record_id"]: row for row in rows.select_columns(["record_id", "labels", "snomed_codes"])}
    assert by_id["JS00001"]["snomed_codes"] == ["164889003", "59118001", "164934002"]
    assert by_id["JS00001"]["labels"] == ["AF", "CRBBB|RBBB", "TAb"]
    assert by_id["JS20005"]["snomed_codes"] == ["284470004", "89792004", "427084000", "427172004"]
    assert by_id["JS20005"]["labels"] == ["PAC|SVPB", "PVC|VPB", "STach"]
    assert "251238007" in by_id["JS20006"]["snomed_codes"]  # in no table of the challenge
    assert by_id["JS20006"]["labels"] == ["PAC|SVPB", "PVC|VPB", "STach"]
    for header in (shared_data_dir / "cinc2021").glob("*/*.hea"):
        (line,) = (line for line in header.read_text().splitlines() if line.startswith("#Dx:"))
        assert by_id[header.stem]["snomed_codes"] == [code for code in line[4:].strip().split(",") if code]
