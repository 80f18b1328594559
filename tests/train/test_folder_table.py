import json

import numpy as np
import pytest

from ecg_transformers.data import load_ecg
from ecg_transformers.train.cli import main
from ecg_transformers.train.folder_table import propose

RNG = np.random.default_rng(0)
FACTS = {"sampling_rate": 100, "unit": "mV"}


@pytest.fixture
def folder(tmp_path):
    """Twelve tables of samples in sub-folders, a licence and a table of labels that names files without an ending."""
    for number in range(12):
        path = tmp_path / "recordings" / f"ward{number % 2}" / f"{number:04d}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(path, RNG.normal(size=(300, 3)), delimiter=",", header="I,II,V1", comments="")
    folder = tmp_path / "recordings"
    (folder / "LICENSE.txt").write_text("Licence: CC BY\nBy nobody, of nothing.\n\n1 word\n")
    write_table(
        folder,
        "FileName,PatientID,Diagnosis,Age,Gender",
        lambda n: f"{n:04d},P{n // 2},{'AFIB;LBBB' * (n % 2) or 'NORM'},{50 + n},{'MF'[n % 2]}",
    )
    return folder


def write_table(folder, header, line, count=12):
    (folder / "labels.csv").write_text("\n".join([header, *map(line, range(count))]) + "\n")


def test_columns_are_found_by_name_and_content_in_one_go(folder, capsys):
    flags = ["--table", "labels.csv", "--sampling_rate", "100", "--unit", "mV", "--write"]
    assert main(["info", str(folder), *flags]) == 0
    assert "Nothing is missing." in capsys.readouterr().out
    declared = json.loads((folder / "ecgfolder.json").read_text())
    columns = {"path": "FileName", "patient_id": "PatientID", "labels": "Diagnosis", "age": "Age", "sex": "Gender"}
    assert declared == {"table": "labels.csv", "label_separator": ";"} | columns | FACTS
    rows = load_ecg("ecgfolder", folder, split="all", on_bad_record="raise")
    assert len(rows) == 12 and rows[1]["labels"] == ["AFIB", "LBBB"] and rows[1]["sex"] == "female"


def test_all_that_is_missing_is_listed_at_once(folder):
    write_table(folder, "file,Diagnosis,sex", lambda n: f"{n:04d},NORM,{n % 3}", count=14)
    (folder / "ward0" / "0001.npy").write_bytes((folder / "ward1" / "0001.csv").read_bytes())
    missing = "\n".join(propose(folder, "labels.csv", {}).missing)
    for part in ("['sampling_rate', 'unit'] of 11 CSV files", "2 lines name no file: ['0012', '0013']"):
        assert part in missing
    assert "1 lines name several files, such as ['ward0/0001.npy', 'ward1/0001.csv']" in missing
    assert "the column 'sex' holds codes of the sex: ['0', '1', '2']" in missing and "no column of patients" in missing


def test_columns_of_0_and_1_are_labels_where_no_column_of_names_is(folder):
    write_table(folder, "path,subject,NORM,AFIB", lambda n: f"ward{n % 2}/{n:04d}.csv,{n},{n % 2},{1 - n % 2}")
    proposal = propose(folder, "labels.csv", FACTS)
    assert proposal.declaration["labels"] == ["NORM", "AFIB"] and proposal.declaration["path"] == "path"
    assert proposal.missing == []


def test_another_declaration_is_not_overwritten_and_a_missing_table_is_named(folder, capsys):
    (folder / "ecgfolder.json").write_text("{}")
    assert main(["info", str(folder), "--table", "labels.csv", "--write"]) == 1
    assert "already there" in capsys.readouterr().err and (folder / "ecgfolder.json").read_text() == "{}"
    with pytest.raises(ValueError, match=r"no table x.csv .* It holds \['labels.csv'\]"):
        propose(folder, "x.csv", {})


def test_the_table_of_the_folder_counts_where_the_working_folder_has_one_of_that_name(folder, tmp_path, monkeypatch):
    (tmp_path / "labels.csv").write_text("nothing,of it\n1,2\n")
    monkeypatch.chdir(tmp_path)
    by_name, by_path = (propose(folder, table, FACTS) for table in ("labels.csv", "recordings/labels.csv"))
    assert by_name == by_path and by_name.declaration["labels"] == "Diagnosis"


def test_licences_and_tables_of_labels_are_no_unreadable_recordings(folder, tmp_path, capsys):
    arguments = [str(folder), "--sampling_rate", "100", "--unit", "mV", "--json", str(tmp_path / "a.json")]
    assert main(["info", *arguments, "--plot", str(tmp_path / "a.png")]) == 0
    content = json.loads((tmp_path / "a.json").read_text())
    assert (content["num_examined"], content["num_unreadable"], content["num_other"]) == (12, 0, 2)
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_files_of_one_name_with_different_endings_name_a_cure(folder):
    write_table(folder, "path,labels", lambda n: ["ward0/0000.csv,NORM", "ward0/0000.npy,NORM"][n], count=2)
    np.save(folder / "ward0/0000.npy", RNG.normal(size=(3, 300)))
    with pytest.raises(ValueError, match="comes twice. Name each in a column, and say which by record_id="):
        load_ecg("ecgfolder", folder)


def test_empty_cells_of_labels_are_no_class(folder):
    write_table(folder, "path,labels", lambda n: f"{n:04d},{['NORM', 'nan', 'NaN', ''][n % 4]}")
    rows = load_ecg("ecgfolder", folder, split="all", **FACTS)
    assert sorted({tuple(labels) for labels in rows["labels"]}) == [(), ("NORM",)]
