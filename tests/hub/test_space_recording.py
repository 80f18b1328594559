import dataclasses
import os
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecg_transformers.data import EcgRecord
from ecg_transformers.hub import space_uploads
from ecg_transformers.hub.space_model import SpaceModel
from ecg_transformers.hub.space_uploads import Declaration, read_upload

from .space_inputs import bad_uploads, csv_file, drawn_model, edf_file, millivolts, text_file, wfdb_pair

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return bad_uploads(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def model():
    return SpaceModel(*drawn_model())


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(space_uploads.tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_a_bad_upload_is_one_sentence_without_paths_and_leaves_nothing(uploads, model, temporary):
    for name, (paths, declared, words) in uploads.items():
        with pytest.raises(ValueError) as caught:
            model.check(read_upload(paths, Declaration(**declared)), mask_missing_leads=False)
        sentence = str(caught.value)
        assert words in sentence, name
        assert (
            str(temporary) not in sentence
            and "upload/" not in sentence
            and "\n" not in sentence
            and "root:" not in sentence
        ), name
    assert not list(temporary.iterdir())


def test_a_wfdb_pair_a_table_and_edf_are_the_same_recording(tmp_path, temporary):
    expected = millivolts()
    declared = Declaration(sampling_rate=100, unit="mV")
    for paths, stated in ((wfdb_pair(tmp_path), None), (csv_file(tmp_path), declared), (edf_file(tmp_path), None)):
        record = read_upload(paths, stated)
        assert record.sampling_rate == 100 and record.leads[:3] == ("I", "II", "III")
        np.testing.assert_allclose(record.to_millivolts(), expected, atol=1e-3)
    assert not list(temporary.iterdir())


def test_arrays_are_read_as_they_are_declared_and_not_mapped(tmp_path, temporary):
    np.save(tmp_path / "visit.npy", millivolts().T * 1e3)
    leads = "I, II, III, aVR, aVL, aVF; V1, V2, V3, V4, V5, V6"
    record = read_upload([tmp_path / "visit.npy"], Declaration(100, "uV", leads, "a row for each sample"))
    np.testing.assert_allclose(record.to_millivolts(), millivolts(), atol=1e-5)
    assert type(record.signal) is np.ndarray and record.signal.base is None


def test_nothing_of_the_patient_is_kept(tmp_path):
    paths = [*wfdb_pair(tmp_path)]
    Path(paths[0]).write_text(Path(paths[0]).read_text() + "#Age: 61\n#Sex: Male\n#Dx: 426783006\n")
    for files in (paths, edf_file(tmp_path)):
        record = read_upload(files)
        kept = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        assert (record.record_id, record.age, record.sex, record.patient_id) == ("recording", None, None, None)
        assert not record.labels and not record.extra and "Jane" not in str(kept)


def test_what_is_too_large_or_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(space_uploads, "MAX_MEGABYTES", 0.01)
    with pytest.raises(ValueError, match="takes up to 0.01 MB"):
        read_upload(wfdb_pair(tmp_path))
    monkeypatch.setattr(space_uploads, "MAX_MEGABYTES", 20)
    monkeypatch.setattr(space_uploads, "MAX_SECONDS", 9)
    with pytest.raises(ValueError, match="lasts 10 s .* takes up to 9 s"):
        read_upload(wfdb_pair(tmp_path))


def test_several_files_that_are_no_record_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"one WFDB header .* got visit.csv, b.txt"):
        read_upload([*csv_file(tmp_path), *text_file(tmp_path, "b.txt", "1,2\n")])
    with pytest.raises(ValueError, match="several files of the name visit.hea"):
        read_upload([*wfdb_pair(tmp_path), *wfdb_pair(tmp_path / "other")])


def test_segments_outside_of_the_upload_are_refused(tmp_path):
    paths = text_file(tmp_path, "long.hea", "long/2 1 100 200\n../../secret 100\n../../secret 100\n")
    with pytest.raises(ValueError, match="not inside the folder"):
        read_upload(paths)


def test_files_that_claim_to_be_huge_are_refused_before_they_are_read(tmp_path, monkeypatch):
    few = 50_000  # of the page: 9.6 million
    monkeypatch.setattr(space_uploads, "MAX_VALUES", few)
    zeros = np.zeros((12, few), np.float32)
    columns = {lead: pa.array(zeros[0]) for lead in LEADS}
    pq.write_table(pa.table(columns), tmp_path / "columns.parquet", compression="zstd")
    row = EcgRecord("a", np.zeros((12, 500), np.int16), LEADS, 500.0, gain=[0.005] * 12).to_row()
    row["ecg"]["signal"] = bytes(9 * few)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "row.parquet", use_dictionary=False)
    np.savez_compressed(tmp_path / "array.npz", a=zeros)
    with h5py.File(tmp_path / "array.h5", "w") as file:
        file.create_dataset("a", data=zeros, compression="gzip")
    names = "".join(f"flac.dat 516 200/mV 16 0 0 0 0 {lead}\n" for lead in LEADS)
    text_file(tmp_path, "flac.hea", f"flac 12 500 {few}\n{names}")
    text_file(tmp_path, "flac.dat", b"fLaC" + bytes(100))
    declared = Declaration(500, "mV", ", ".join(LEADS), "a row for each lead")
    for names, stated, words in (
        (["columns.parquet"], Declaration(500, "mV"), "expected 1 to 50000 values"),
        (["row.parquet"], None, "declares .* bytes, more than the 400000"),
        (["array.npz"], declared, "declares 2400128 bytes"),
        (["array.h5"], declared, "expected 1 to 50000 values"),
        (["flac.hea", "flac.dat"], None, "expected 1 to 50000 values"),
    ):
        with pytest.raises(ValueError, match=words):
            read_upload([str(tmp_path / name) for name in names], stated)


def test_a_rate_beyond_all_recorders_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at 6000 Hz .* 5000 Hz"):
        read_upload(csv_file(tmp_path), Declaration(6000, "mV"))


def test_no_file_stays_open(tmp_path, temporary):
    with h5py.File(tmp_path / "array.h5", "w") as file:
        file["a"] = millivolts()
    read_upload([str(tmp_path / "array.h5")], Declaration(100, "mV", ", ".join(LEADS), "a row for each lead"))
    opened = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    assert not [path for path in opened if path.endswith("array.h5") or "(deleted)" in path and "ecg-upload" in path]


def test_names_of_fields_are_replaced_as_whole_words():
    sentence = "Leave out leads=; rename channels by rename_leads=, and pass step=."
    expected = "Leave out “Leads, in their order”; rename channels by rename_leads=, and pass “Step”."
    assert space_uploads._in_words(sentence, "/nowhere") == expected
