import csv
import shutil

import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.brugada_huca import BRUGADA_HUCA


def test_sample_carries_the_diagnoses_of_its_table(shared_data):
    folder = shared_data / "brugada-huca"
    with open(folder / "metadata.csv", newline="") as file:
        table = {row["patient_id"]: row for row in csv.DictReader(file)}
    rows = list(load_ecg("brugada-huca", folder, split="all", streaming=True))
    assert len(rows) == 10
    for row in rows:
        known = table[row["record_id"]]
        assert row["labels"] == [label_names("brugada-huca")[int(known["brugada"])]]
        assert (row["basal_pattern"], row["sudden_death"]) == (
            known["basal_pattern"] == "1",
            known["sudden_death"] == "1",
        )
        assert row["ecg"]["signal"].shape == (12, 1200) and row["ecg"]["sampling_rate"] == 100.0
        assert row["patient_id"] == row["record_id"]


def test_atypical_cases_have_a_class_of_their_own():
    assert label_names("brugada-huca") == ("no Brugada", "Brugada", "atypical")


def test_unknown_diagnosis_is_refused(shared_data, tmp_path):
    folder = tmp_path / "brugada"
    shutil.copytree(shared_data / "brugada-huca" / "files" / "188981", folder / "files" / "188981")
    (folder / "metadata.csv").write_text("patient_id,basal_pattern,sudden_death,brugada\n188981,1,0,3\n")
    with pytest.raises(ValueError, match="row 1 .patient_id 188981.*got '3'"):
        BRUGADA_HUCA.index(folder, {})
