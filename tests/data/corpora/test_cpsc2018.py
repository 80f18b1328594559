import logging
import shutil

import numpy as np
import pytest

from ecg_transformers.data import bad_records, label_names, load_ecg
from ecg_transformers.data.corpora.cpsc2018 import CPSC2018

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
NINE = ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")


@pytest.fixture
def original(shared_data_dir, tmp_path):
    """Four real recordings and the real table of labels, as the challenge of 2018 published them."""
    folder = tmp_path / "data" / "TrainingSet1"
    shutil.copytree(shared_data_dir / "cpsc2018-original", folder)
    shutil.copy(shared_data_dir / "metadata" / "cpsc2018" / "REFERENCE.csv", folder)
    return folder


def load(tmp_path, **options):
    return load_ecg("cpsc2018", tmp_path / "data", split="all", cache_dir=tmp_path / "cache", **options)


def write_original(folder, record_id, signal, sex="Female", age=60):
    import scipy.io

    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / f"{record_id}.mat", {"ECG": {"sex": sex, "age": age, "data": signal}})


def test_real_recordings_have_the_labels_of_the_table_and_the_values_of_scipy(original, tmp_path):
    import scipy.io

    rows = {row["record_id"]: row for row in load(tmp_path)}
    assert {name: row["labels"] for name, row in rows.items()} == {
        "A1980": ["PAC"],
        "A1981": ["STD"],
        "A1982": ["I-AVB"],
        "A1983": ["NORM"],
    }
    assert {name: (row["age"], row["sex"]) for name, row in rows.items()} == {
        "A1980": (52.0, "male"),
        "A1981": (48.0, "female"),
        "A1982": (89.0, "male"),
        "A1983": (49.0, "male"),
    }
    for name, row in rows.items():
        expected = scipy.io.loadmat(original / f"{name}.mat")["ECG"]["data"][0, 0]
        bound = np.abs(expected).max(axis=1, keepdims=True) / 65534 * 1.001  # stored in 16 bits a lead
        assert (np.abs(row["ecg"]["signal"] - expected) <= bound + 1e-7).all()
        assert (row["ecg"]["leads"], row["ecg"]["sampling_rate"], row["ecg"]["unit"]) == (LEADS, 500.0, "mV")


def test_the_limb_leads_of_real_recordings_obey_einthoven_so_their_order_is_right(original, tmp_path):
    for row in load(tmp_path):
        signal = dict(zip(LEADS, row["ecg"]["signal"], strict=True))
        np.testing.assert_allclose(signal["III"], signal["II"] - signal["I"], atol=0.005)
        np.testing.assert_allclose(signal["aVR"], -(signal["I"] + signal["II"]) / 2, atol=0.005)
        np.testing.assert_allclose(signal["aVF"], (signal["II"] + signal["III"]) / 2, atol=0.005)


def test_a_partial_copy_is_said_to_be_one(original, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load(tmp_path)
    assert "partial copy of cpsc2018" in caplog.text and "holds 4 records, the corpus has 6877" in caplog.text


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("cpsc2018", ["RBBB", "PVC"]),
        ("scored", ["CRBBB|RBBB"]),
        ("all", ["RBBB", "VEB"]),
        ("codes", ["59118001", "164884008"]),
    ],
)
def test_both_forms_give_the_same_labels_and_splits(write_cinc_record, tmp_path, task, labels):
    write_original(tmp_path / "original", "A0001", np.zeros((12, 50)))
    (tmp_path / "original" / "REFERENCE.csv").write_text(
        "Recording,First_label,Second_label,Third_label\nA0001,5,7,\n"
    )
    write_cinc_record("training/cpsc_2018/g1/A0001", "59118001,164884008")
    found = []
    for folder in ("original", "data"):
        (row,) = load_ecg("cpsc2018", tmp_path / folder, split="all", task=task, cache_dir=tmp_path / "cache")
        assert (row["record_id"], row["source"]) == ("A0001", "cpsc2018")
        (entry,) = CPSC2018.index(tmp_path / folder, {"task": task})
        found.append((row["labels"], row["snomed_codes"], entry.split))
    assert found[0] == found[1]
    assert found[0][0] == labels and set(labels) <= set(label_names("cpsc2018", task=task))


def test_the_nine_classes_come_in_the_order_of_their_numbers(tmp_path):
    assert label_names("cpsc2018") == NINE
    for number in range(1, 10):
        write_original(tmp_path / "data", f"A000{number}", np.zeros((12, 50)))
    lines = [f"A000{number},{number},," for number in range(1, 10)]
    (tmp_path / "data" / "REFERENCE.csv").write_text("\n".join(lines))
    assert [row["labels"] for row in load(tmp_path)] == [[name] for name in NINE]


def test_a_class_that_is_named_twice_counts_once(tmp_path):
    write_original(tmp_path / "data", "A0001", np.zeros((12, 50)))
    (tmp_path / "data" / "REFERENCE.csv").write_text("A0001,6,6,\n")
    assert load(tmp_path)[0]["labels"] == ["PAC"]


@pytest.mark.parametrize("age", [np.nan, -1, []])
def test_an_unknown_age_is_none(tmp_path, age):
    write_original(tmp_path / "data", "A0001", np.zeros((12, 50)), age=np.array(age, dtype=float))
    (tmp_path / "data" / "REFERENCE.csv").write_text("A0001,1,,\n")
    assert load(tmp_path)[0]["age"] is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("A0001,1,,\nA0002,2,,\n", "A0003, are in no REFERENCE.csv"),
        ("A0001,10,,\n", "line 1: expected a record and numbers 1 to 9"),
        ("A0001,,,\n", "line 1: expected a record and numbers 1 to 9"),
        ("A0001,1,,\nA0001,2,,\n", "line 2: A0001 has other labels than before"),
        ("", "3 recordings .* are in no REFERENCE.csv"),
    ],
)
def test_a_table_that_does_not_label_the_recordings_is_refused(tmp_path, table, message):
    for number in (1, 2, 3):
        write_original(tmp_path / "data", f"A000{number}", np.zeros((12, 50)))
    (tmp_path / "data" / "REFERENCE.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_a_recording_of_other_leads_is_reported(tmp_path):
    for number, num_leads in ((1, 12), (2, 8)):
        write_original(tmp_path / "data", f"A000{number}", np.zeros((num_leads, 50)))
    (tmp_path / "data" / "REFERENCE.csv").write_text("A0001,1,,\nA0002,1,,\n")
    rows = load(tmp_path)
    assert rows["record_id"][:] == ["A0001"]
    assert "num_leads=12" in bad_records(rows)[0].reason
