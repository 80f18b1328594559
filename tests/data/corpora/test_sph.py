import csv
import logging

import numpy as np
import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.sph import PRIMARY_STATEMENTS, SPH, sph_labels

h5py = pytest.importorskip("h5py")


@pytest.fixture
def published(tmp_path):
    """The layout on figshare, with a recording of 10 s, one of 11 s, and a listed one without a file."""
    (tmp_path / "records").mkdir()
    for name, length in (("A00001", 5000), ("A00002", 5500)):
        signal = np.random.default_rng(length).normal(0, 0.3, (12, length)).astype(np.float16)
        with h5py.File(tmp_path / "records" / f"{name}.h5", "w") as file:
            file["ecg"] = signal
    (tmp_path / "metadata.csv").write_text(
        "ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date\n"
        "A00001,60+310;147,S00001,55,M,5000,2020-03-04\n"
        "A00002,1;1,S00001,56,F,5500,2020-03-05\n"
        "A00003,22,S00002,31,M,5000,2020-07-14\n"
    )
    return tmp_path


def test_there_are_44_statements_with_names_of_their_own():
    assert len(PRIMARY_STATEMENTS) == len(set(PRIMARY_STATEMENTS.values())) == 44
    assert label_names("sph")[0] == "Normal ECG" and label_names("sph")[-1] == "Extensive anterior MI"


def test_modifiers_are_no_labels_and_repeated_statements_count_once():
    assert sph_labels("60+310;147") == ["Ventricular premature complex(es)", "T-wave abnormality"]
    assert sph_labels("105+346+347") == ["Incomplete right bundle-branch block"]
    assert sph_labels("1;1") == ["Normal ECG"]


@pytest.mark.parametrize("cell", ["", "310", "22;", "x"])
def test_code_that_is_no_statement_is_refused(cell):
    with pytest.raises(ValueError, match="no primary statements of SPH"):
        sph_labels(cell)


def test_row_carries_what_the_table_says(published):
    rows = {row["record_id"]: row for row in load_ecg("sph", published, split="all", streaming=True)}
    row = rows["A00001"]
    assert (row["patient_id"], row["age"], row["sex"]) == ("S00001", 55.0, "male")
    assert row["labels"] == ["Ventricular premature complex(es)", "T-wave abnormality"]
    assert row["aha_codes"] == ["60+310", "147"]
    assert rows["A00002"]["ecg"]["signal"].shape == (12, 5500)


def test_recordings_of_a_patient_share_a_split(published):
    assert len({entry.split for entry in SPH.index(published, {})}) == 1


def test_listed_recording_without_a_file_is_left_out_and_said_to_be(published, caplog):
    with caplog.at_level(logging.WARNING):
        assert [entry.record_id for entry in SPH.index(published, {})] == ["A00001", "A00002"]
    assert "holds 2 records of the 3 in its table, the corpus has 25770" in caplog.text


def test_array_of_other_shape_is_refused(published):
    with h5py.File(published / "records" / "A00001.h5", "w") as file:
        file["ecg"] = np.zeros((5000, 12), dtype=np.float16)
    with pytest.raises(ValueError, match=r"as floats \(12, N\), got float16 \(5000, 12\)"):
        SPH.read(SPH.index(published, {})[0], {})


def test_sample_is_the_stored_numbers_in_mv_with_the_labels_of_its_table(shared_data):
    entries = SPH.index(shared_data / "sph", {})
    with open(shared_data / "sph" / "metadata.csv", newline="") as file:
        table = {row["ECG_ID"]: row for row in csv.DictReader(file)}
    assert len(entries) == len(table) == 9
    for entry in entries:
        record, row = SPH.read(entry, {}), table[f"{entry.record_id}.h5"]
        with h5py.File(shared_data / "sph" / f"{entry.record_id}.h5") as file:
            assert np.array_equal(record.signal, file["ecg"][:].astype(np.float32))
        assert record.signal.shape == (12, int(row["N"])) and record.sampling_rate == float(row["fs"])
        assert record.patient_id == row["Patient_ID"] and record.sex[0].upper() == row["Sex"]
        codes = {name: str(code) for code, name in PRIMARY_STATEMENTS.items()}
        assert [codes[label] for label in record.labels] == row["AHA_Code"].split(";")


def test_limb_leads_of_the_sample_obey_einthoven(shared_data):
    for entry in SPH.index(shared_data / "sph", {}):
        one, two, three, avr, avl, avf = SPH.read(entry, {}).signal[:6]
        assert np.abs(three - (two - one)).max() < 0.02
        assert np.abs(avl - (one - three) / 2).max() < 0.02 and np.abs(avf - (two + three) / 2).max() < 0.02
