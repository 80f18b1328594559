import csv
import logging
import multiprocessing
import shutil
import sys

import numpy as np
import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.code15 import CODE15, DIAGNOSES
from ecg_transformers.data.corpus import IndexEntry
from ecg_transformers.data.formats.hdf5_file import NUM_OPEN_FILES, open_dataset

h5py = pytest.importorskip("h5py")

COLUMNS = "exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,death,timey,normal_ecg,trace_file"
LENGTHS = {101: 4096, 102: 2934, 103: 2934, 201: 4096}


def tracing(exam: int) -> np.ndarray:
    """(4096, 12), centred in zeros; no two exams, leads or samples are alike."""
    rng = np.random.default_rng(exam)
    padded = np.zeros((4096, 12), dtype=np.float32)
    start = (4096 - LENGTHS[exam]) // 2
    padded[start : start + LENGTHS[exam]] = rng.normal(0, 2, (LENGTHS[exam], 12))
    padded[start + 100] = 0  # a zero that was recorded
    return padded


def write_part(path, exams):
    with h5py.File(path, "w") as file:
        file["exam_id"] = np.array([*exams, 0])
        file["tracings"] = np.stack([*map(tracing, exams), np.zeros((4096, 12), dtype=np.float32)])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The layout on Zenodo: two of the 18 parts, the table in another order than their rows."""
    folder = tmp_path_factory.mktemp("code-15")
    write_part(folder / "exams_part0.hdf5", [101, 102, 103])
    write_part(folder / "exams_part1.hdf5", [201])
    rows = [
        "201,63,False,61.5,False,True,False,True,False,False,7,True,1.25,False,exams_part1.hdf5",
        "103,40,True,41.0,False,False,False,False,False,False,9,,,True,exams_part0.hdf5",
        "101,51,True,50.0,True,False,False,False,False,True,7,,,False,exams_part0.hdf5",
        "102,30,False,33.0,False,False,False,False,False,False,8,False,3.5,False,exams_part0.hdf5",
        "999,77,True,70.0,False,False,False,False,False,False,10,,,False,exams_part2.hdf5",
    ]
    (folder / "exams.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
    return folder


def read_all(folder, **options):
    dataset = load_ecg("code-15", folder, split="all", on_bad_record="raise", **options)
    return {row["record_id"]: row for row in dataset}


@pytest.fixture(scope="module")
def rows(published, tmp_path_factory):
    return read_all(published, cache_dir=tmp_path_factory.mktemp("cache"))


def index(folder, task="diagnosis"):
    return CODE15.index(folder, {"task": task})


def test_exam_is_found_by_its_id_and_not_by_its_line(rows):
    assert sorted(rows) == ["101", "102", "103", "201"]  # the empty row at the end of a part is none
    for exam, length in LENGTHS.items():
        start = (4096 - length) // 2
        expected = tracing(exam)[start : start + length].T
        assert np.abs(rows[str(exam)]["ecg"]["signal"] - expected).max() < 2e-4


def test_zeros_around_an_exam_are_cut_off_and_those_within_stay(rows):
    assert {exam: row["ecg"]["signal"].shape for exam, row in rows.items()} == {
        str(exam): (12, length) for exam, length in LENGTHS.items()
    }
    assert (rows["102"]["ecg"]["signal"][:, 100] == 0).all()


def test_amplitude_unit_rate_and_leads_are_those_stored(published):
    entry = next(entry for entry in index(published) if entry.record_id == "101")
    record = CODE15.read(entry, {"task": "diagnosis"})
    assert np.array_equal(record.signal, tracing(101).T)
    assert (record.unit, record.sampling_rate, record.source) == ("mV", 400.0, "code-15")
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def test_row_carries_what_the_table_says(rows):
    row = rows["201"]
    assert (row["labels"], row["age"], row["sex"], row["patient_id"]) == (["RBBB", "SB"], 63.0, "female", "7")
    assert (row["death"], row["timey"], row["normal_ecg"], row["chagas"]) == (True, 1.25, False, None)
    assert rows["101"]["labels"] == ["1dAVb", "AF"]
    assert (rows["103"]["labels"], rows["103"]["normal_ecg"], rows["103"]["sex"]) == ([], True, "male")


def test_patient_without_follow_up_is_not_said_to_live(rows):
    assert rows["103"]["death"] is None and rows["103"]["timey"] is None
    assert rows["102"]["death"] is False


def test_parts_that_are_absent_are_left_out_and_said_to_be(published, caplog):
    with caplog.at_level(logging.WARNING):
        entries = index(published)
    assert "999" not in [entry.record_id for entry in entries]
    assert "holds 4 records of the 5 in its table, the corpus has 345779" in caplog.text


def test_exams_of_a_patient_share_a_split_and_all_splits_are_filled(tmp_path):
    write_part(tmp_path / "exams_part0.hdf5", [101])
    with h5py.File(tmp_path / "exams_part0.hdf5", "a") as file:
        del file["exam_id"], file["tracings"]
        file["exam_id"] = np.arange(1, 401)
        file["tracings"] = np.zeros((400, 1, 12), dtype=np.float32)
    lines = [f"{i},50,True,50,0,0,0,0,0,0,{i % 100},,,0,exams_part0.hdf5" for i in range(1, 401)]
    (tmp_path / "exams.csv").write_text("\n".join([COLUMNS, *lines]))
    splits = {}
    for entry in index(tmp_path):
        splits.setdefault(entry.columns["patient_id"], set()).add(entry.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "validation", "test"}


def test_classes_are_the_six_diagnoses_or_the_two_of_chagas():
    assert label_names("code-15") == DIAGNOSES == ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")
    assert label_names("code-15", task="chagas") == ("chagas-negative", "chagas-positive")


def test_chagas_labels_of_published_files_come_from_the_table_of_the_challenge(published, tmp_path):
    with pytest.raises(ValueError, match="no code15_chagas_labels.csv"):
        index(published, "chagas")
    table = published / "code15_chagas_labels.csv"
    table.write_text("exam_id,patient_id,chagas\n101,7,True\n102,8,False\n")
    try:
        labels = {entry.record_id: entry.columns["labels"] for entry in index(published, "chagas")}
    finally:
        table.unlink()
    assert labels == {"101": ["chagas-positive"], "102": ["chagas-negative"], "103": [], "201": []}


def test_exam_that_is_zero_throughout_is_reported(tmp_path, caplog):
    with h5py.File(tmp_path / "exams_part0.hdf5", "w") as file:
        file["exam_id"] = [101, 102]
        file["tracings"] = np.stack([tracing(101), np.zeros((4096, 12), dtype=np.float32)])
    lines = [f"{i},50,True,50,0,0,0,0,0,0,7,,,0,exams_part0.hdf5" for i in (101, 102)]
    (tmp_path / "exams.csv").write_text("\n".join([COLUMNS, *lines]))
    with caplog.at_level(logging.WARNING):
        rows = list(load_ecg("code-15", tmp_path, split="all", streaming=True))
    assert [row["record_id"] for row in rows] == ["101"]
    assert "102 (Exam 102 in" in caplog.text and "zero throughout" in caplog.text


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("0,0,0,0,0,0,7,,,0,../other/exams_part0.hdf5", "row 1 .exam_id 101. cannot be read.*not inside"),
        ("maybe,0,0,0,0,0,7,,,0,exams_part0.hdf5", "row 1 .exam_id 101.*got 'maybe'"),
    ],
)
def test_a_row_that_names_a_file_elsewhere_or_no_truth_is_refused(tmp_path, cells, message):
    write_part(tmp_path / "exams_part0.hdf5", [101])
    (tmp_path / "exams.csv").write_text(f"{COLUMNS}\n101,50,True,50,{cells}\n")
    with pytest.raises(ValueError, match=message):
        index(tmp_path)


def test_few_files_stay_open_however_many_parts_there_are(published, tmp_path):
    for part in range(10):
        write_part(tmp_path / f"exams_part{part}.hdf5", [101])
        open_dataset(tmp_path / f"exams_part{part}.hdf5", "tracings")
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) <= NUM_OPEN_FILES


def test_file_is_opened_once_for_all_its_exams(published, tmp_path, monkeypatch):
    shutil.copytree(published, tmp_path / "copy")
    opened, real = [], h5py.File
    monkeypatch.setattr(h5py, "File", lambda path, *args, **kwargs: opened.append(path) or real(path, *args, **kwargs))
    for _ in range(3):
        for entry in index(tmp_path / "copy"):
            CODE15.read(entry, {"task": "diagnosis"})
    assert len(opened) == len(set(opened)) == 2


def _read_in_child(entry: IndexEntry, queue):
    queue.put(CODE15.read(entry, {"task": "diagnosis"}).signal)


def test_worker_that_was_forked_opens_the_file_for_itself(published):
    entries = [entry for entry in index(published) if entry.record_id in ("101", "102")]
    CODE15.read(entries[0], {"task": "diagnosis"})  # open in this process
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(entries[1], queue))
    child.start()
    assert np.array_equal(queue.get(timeout=60), tracing(102)[581 : 581 + 2934].T)
    child.join()


def test_missing_library_is_named_with_its_extra(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r'needs h5py. Install it by pip install "ecg-transformers\[hdf5\]"'):
        open_dataset(published / "exams_part0.hdf5", "tracings")


def test_converted_folder_carries_labels_patients_age_and_sex_of_its_headers(shared_data):
    with open(shared_data / "code-15" / "records.csv", newline="") as file:
        expected = {row["exam_id"]: row for row in csv.DictReader(file)}
    dataset = load_ecg("code-15", shared_data / "code-15", split="all", streaming=True, task="chagas", decode=False)
    rows = {row["record_id"]: row for row in dataset}
    assert rows.keys() == expected.keys() and len(rows) == 308
    for exam, row in rows.items():
        known = expected[exam]
        assert row["labels"] == ["chagas-positive" if known["chagas"] == "True" else "chagas-negative"]
        assert (row["patient_id"], row["age"]) == (known["patient_id"], float(known["age"]))
        assert row["sex"] == known["sex"].lower() and row["ecg"]["sampling_rate"] == 400.0
        assert len(row["ecg"]["signal"]) / 24 / 400 == pytest.approx(float(known["sec"]), abs=0.001)


def test_converted_folder_without_the_table_has_no_diagnoses_to_give(shared_data):
    with pytest.raises(ValueError, match='exams.csv into .* or load it with task="chagas"'):
        index(shared_data / "code-15")


def test_converted_folder_with_the_table_has_diagnoses(write_record):
    lines = ("# Exam ID: 101", "# Patient ID: 7", "# Age: 51", "# Sex: Male", "# Chagas label: True")
    path = write_record("101", folder="wfdb/sub", lines=lines)
    write_record("102", folder="wfdb/sub", lines=("# Chagas label: False", "# Source: SaMi-Trop"))
    folder = path.parents[1]
    row = "101,51,True,50.0,True,False,False,False,False,True,7,,,False,exams_part0.hdf5"
    (folder / "exams.csv").write_text(f"{COLUMNS}\n{row}\n")
    records = {e.record_id: CODE15.read(e, {"task": "diagnosis"}) for e in index(folder)}
    assert list(records) == ["101"]  # the other exam's diagnoses are unknown, which is not the same as none
    assert (records["101"].labels, records["101"].extra["chagas"]) == (["1dAVb", "AF"], True)
    assert (records["101"].patient_id, records["101"].extra["normal_ecg"]) == ("7", False)
    other = {e.record_id: CODE15.read(e, {"task": "chagas"}) for e in index(folder, "chagas")}["102"]
    assert (other.labels, other.source, other.patient_id) == (["chagas-negative"], "sami-trop", None)


def test_files_of_ecg_fm_are_the_stored_numbers_with_the_labels_of_its_table(shared_data):
    import scipy.io

    folder = shared_data / "code-15-ecgfm"
    entries = index(folder)
    assert len(entries) == 10
    with open(folder / "labels.csv", newline="") as file:
        labels = list(csv.DictReader(file))
    for entry, row in zip(entries, labels, strict=True):
        record = CODE15.read(entry, {"task": "diagnosis"})
        assert record.labels == [name for name in DIAGNOSES if row[name] == "True"]
        assert record.sex == ("male" if row["is_male"] == "True" else "female")
        assert np.array_equal(record.signal, scipy.io.loadmat(entry.path)["feats"])
        assert (record.unit, record.sampling_rate, record.leads[3]) == ("mV", 400.0, "aVR")
