import numpy as np
import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.sami_trop import SAMI_TROP

h5py = pytest.importorskip("h5py")

OPTIONS = {"task": "chagas"}


@pytest.fixture
def published(tmp_path):
    """The layout on Zenodo: one array of float64 without ids, in the order of the table."""
    rng = np.random.default_rng(0)
    tracings = np.zeros((3, 4096, 12))
    tracings[:, 581:3515] = rng.normal(0, 1, (3, 2934, 12))
    with h5py.File(tmp_path / "exams.hdf5", "w") as file:
        file["tracings"] = tracings
    (tmp_path / "exams.csv").write_text(
        "exam_id,age,is_male,normal_ecg,death,timey,nn_predicted_age\n"
        "3629,54,True,False,False,1.93,60.1\n"
        "1175,61,False,True,True,0.5,59.0\n"
        "20122,88,False,False,False,2.07,85.2\n"
    )
    return tmp_path


def test_exams_lie_in_the_order_of_the_table(published):
    with h5py.File(published / "exams.hdf5") as file:
        expected = file["tracings"][:, 581:3515].astype(np.float32)
    entries = SAMI_TROP.index(published, OPTIONS)
    assert [entry.record_id for entry in entries] == ["3629", "1175", "20122"]
    for row, entry in enumerate(entries):
        record = SAMI_TROP.read(entry, OPTIONS)
        assert np.array_equal(record.signal, expected[row].T)
        assert (record.sampling_rate, record.unit, record.leads[1]) == (400.0, "mV", "II")


def test_row_carries_what_the_table_says(published, tmp_path):
    rows = {row["record_id"]: row for row in load_ecg("sami-trop", published, split="all", streaming=True)}
    row = rows["1175"]
    assert (row["labels"], row["age"], row["sex"], row["patient_id"]) == (["chagas-positive"], 61.0, "female", None)
    assert (row["chagas"], row["normal_ecg"], row["death"], row["timey"]) == (True, True, True, 0.5)
    assert row["source"] == "sami-trop"


def test_table_of_other_length_than_the_file_is_refused(published):
    table = published / "exams.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="lists 2 exams, .*exams.hdf5 holds 3"):
        SAMI_TROP.index(published, OPTIONS)


def test_converted_records_carry_their_headers(shared_data):
    entries = SAMI_TROP.index(shared_data / "sami-trop", OPTIONS)
    records = {entry.record_id: SAMI_TROP.read(entry, OPTIONS) for entry in entries}
    assert len(records) == 5
    assert {label for record in records.values() for label in record.labels} == {"chagas-positive"}
    record = records["3629"]
    assert (record.age, record.sex, record.source) == (54.0, "male", "sami-trop")
    assert (record.signal.shape, record.sampling_rate) == ((12, 2934), 400.0)


def test_both_classes_exist_so_that_other_corpora_can_be_mixed_in():
    assert label_names("sami-trop") == label_names("code-15", task="chagas")
