import logging
from collections import Counter

import numpy as np
import pytest

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpora.mit_bih import AAMI_CLASSES, DS1, DS2, MIT_BIH, PACED

OPTIONS = {"paced": "exclude", "rename_leads": None}


@pytest.fixture
def headers(tmp_path):
    """The names of all 48 recordings."""
    for name in (*DS1, *DS2, *PACED):
        (tmp_path / f"{name}.hea").touch()
    return tmp_path


@pytest.fixture(scope="module")
def records(shared_data):
    return {entry.record_id: MIT_BIH.read(entry, OPTIONS) for entry in MIT_BIH.index(shared_data / "mitdb", OPTIONS)}


def test_split_of_de_chazal_has_22_recordings_a_side_and_none_twice():
    assert len(DS1) == len(DS2) == 22 and len({*DS1, *DS2, *PACED}) == 48


def test_paced_recordings_are_left_out_unless_asked_for(headers):
    names = {entry.record_id: entry.split for entry in MIT_BIH.index(headers, OPTIONS)}
    assert len(names) == 44 and not set(names) & {"102", "104", "107", "217"}
    assert (names["101"], names["100"]) == ("train", "test")
    everything = {e.record_id: e.split for e in MIT_BIH.index(headers, OPTIONS | {"paced": "include"})}
    assert len(everything) == 48 and {everything[name] for name in PACED} == {"train"}


def test_201_and_202_are_one_patient(headers):
    patients = {entry.record_id: entry.columns["patient_id"] for entry in MIT_BIH.index(headers, OPTIONS)}
    assert patients["201"] == patients["202"]
    assert len(set(patients.values())) == 43


def test_full_copy_is_not_called_partial(headers, caplog):
    with caplog.at_level(logging.WARNING):
        MIT_BIH.index(headers, OPTIONS)
        assert not caplog.text
        (headers / "100.hea").unlink()
        MIT_BIH.index(headers, OPTIONS)
    assert "holds 47 records, the corpus has 48" in caplog.text


def test_beats_are_those_of_wfdb_and_of_the_literature(shared_data, records):
    import wfdb

    theirs = wfdb.rdann(str(shared_data / "mitdb" / "100"), "atr")
    extra = records["100"].extra
    assert extra["annotation_sample"] == theirs.sample.tolist()
    assert extra["annotation_symbol"] == list(theirs.symbol)
    assert extra["annotation_note"][0] == "(N"
    counts = Counter(extra["annotation_class"])
    assert counts == {"N": 2239, "S": 33, "V": 1, "": 1}  # 2239 normal, 33 atrial premature, 1 ventricular premature
    assert Counter(records["208"].extra["annotation_class"])["F"] == 373


def test_every_beat_symbol_has_one_of_five_classes():
    assert set(AAMI_CLASSES.values()) == {"N", "S", "V", "F", "Q"}
    assert (AAMI_CLASSES["L"], AAMI_CLASSES["e"], AAMI_CLASSES["A"], AAMI_CLASSES["E"]) == ("N", "N", "S", "V")
    assert "+" not in AAMI_CLASSES and "~" not in AAMI_CLASSES


def test_modified_lead_keeps_its_name_unless_renamed(shared_data, records):
    assert records["100"].leads == ("MLII", "V5")
    entry = MIT_BIH.index(shared_data / "mitdb", OPTIONS)[0]
    assert MIT_BIH.read(entry, OPTIONS | {"rename_leads": {"MLII": "II"}}).leads == ("II", "V5")


def test_half_an_hour_is_one_row_with_its_annotations(shared_data):
    row = next(iter(load_ecg("mit-bih", shared_data / "mitdb", split="test", streaming=True)))
    assert row["record_id"] == "100" and row["ecg"]["signal"].shape == (2, 650_000)
    assert (row["age"], row["sex"], row["source"]) == (69.0, "male", "mit-bih")
    assert len(row["annotation_sample"]) == len(row["annotation_class"]) == 2274


def test_annotations_beyond_the_end_are_refused(write_record, tmp_path):
    import wfdb

    path = write_record("100", folder="mitdb")
    wfdb.wrann("100", "atr", np.array([10, 60]), ["N", "N"], write_dir=str(path.parent))
    with pytest.raises(ValueError, match="outside its 50 samples"):
        MIT_BIH.read(MIT_BIH.index(path.parent, OPTIONS)[0], OPTIONS)
