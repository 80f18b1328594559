import ast
import os
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from ecg_transformers.data import EcgRecord, read_recording, read_recordings, recording_file
from ecg_transformers.data.formats.file_format import FORMATS, find_format

VALUES = np.random.default_rng(0).normal(size=(2, 40)).astype(np.float32)
DECLARED = {"leads": ["I", "II"], "sampling_rate": 100, "unit": "mV", "axes": "lead,sample"}
MUSE = """<RestingECG><Waveform><WaveformType>Rhythm</WaveformType><SampleBase>500</SampleBase><LeadData>
  <LeadSampleCountTotal>3</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit>
  <LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>II</LeadID><WaveFormData>AQACAAMA</WaveFormData>
  </LeadData></Waveform></RestingECG>"""


def test_wfdb_records_are_read_by_header_signal_file_or_common_path(write_record):
    path = write_record(lines=["#Age: 61", "#Sex: Male", "#Dx: 426783006", "#Patient ID: 9"])
    for name in (path, f"{path}.hea", f"{path}.dat"):
        record = read_recording(name)
        assert (record.record_id, record.leads, record.sampling_rate) == ("r1", ("I", "II"), 100)
        assert (record.age, record.sex, record.labels, record.patient_id) == (61, "male", ["426783006"], "9")


def test_challenge_matrices_are_read_by_their_header(shared_data):
    path = shared_data / "cinc2017" / "A00001.mat"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    record = read_recording(path)
    assert record.sampling_rate == 300 and len(record.leads) == 1 and record.signal.dtype == np.int16


@pytest.mark.parametrize("ending", ["npy", "npz", "h5", "mat", "parquet", "csv"])
def test_arrays_and_tables_of_every_kind_give_the_same_record(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    declared = dict(DECLARED)
    if ending == "npy":
        np.save(path, VALUES)
    elif ending == "npz":
        np.savez_compressed(path, ecg=VALUES)
    elif ending == "h5":
        with h5py.File(path, "w") as file:
            file["ecg"] = VALUES
    elif ending == "mat":
        savemat(path, {"ecg": VALUES})
    elif ending == "parquet":
        pq.write_table(pa.table({"I": VALUES[0], "II": VALUES[1]}), path)
        declared["axes"] = "sample,lead"
    else:
        np.savetxt(path, VALUES.T, delimiter=",", fmt="%.9g")
        declared["axes"] = "sample,lead"
    record = read_recording(path, **declared)
    assert record.record_id == "a" and record.leads == ("I", "II") and record.unit == "mV"
    (alone,) = read_recordings(path, **declared)
    assert np.array_equal(alone.signal, VALUES)
    assert np.array_equal(record.signal, VALUES)
    if ending != "parquet":  # its columns have names
        with pytest.raises(ValueError, match=r"\['leads'\].*never guessed"):
            read_recording(path, **{**declared, "leads": None})


def test_the_content_counts_and_not_the_ending(tmp_path):
    path = tmp_path / "signal.txt"
    path.write_text(MUSE)
    assert find_format(path) == "MUSE" and read_recording(path).leads == ("II",)
    np.save(tmp_path / "a", VALUES)
    os.rename(tmp_path / "a.npy", tmp_path / "a.dcm")
    assert find_format(tmp_path / "a.dcm") == "npy"


def test_renamed_leads_count_for_every_kind_of_file(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    declared = {**DECLARED, "leads": ["x", "y"]}
    record = read_recording(tmp_path / "a.npy", rename_leads={"x": "V1", "y": "V2"}, **declared)
    assert record.leads == ("V1", "V2")
    (tmp_path / "a.xml").write_text(MUSE)
    assert read_recording(tmp_path / "a.xml", rename_leads={"II": "MLII"}).leads == ("MLII",)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"leads": ["I"]}, r"leads \['I'\] are not among its channels II"),
        ({"sampling_rate": 250}, "states 500.0 Hz, not 250 Hz"),
        ({"unit": "mV"}, r"states the unit \['uV'\], not 'mV'"),
        ({"unit": "dimensionless"}, "states the unit"),
        ({"axes": "lead,sample"}, r"leave out axes="),
        ({"step": 0.1}, r"leave out step="),
        ({"dataset": "ecg"}, "leave out dataset='ecg'"),
    ],
)
def test_what_contradicts_the_file_is_refused(tmp_path, declared, message):
    path = tmp_path / "a.xml"
    path.write_text(MUSE)
    with pytest.raises(ValueError, match=message):
        read_recording(path, **declared)


def test_what_agrees_with_the_file_may_be_said(tmp_path, write_record):
    path = tmp_path / "a.xml"
    path.write_text(MUSE)
    assert read_recording(path, leads=["ii"], sampling_rate=500, unit="µV", record_id="x").record_id == "x"
    path = write_record()
    assert read_recording(path, unit="mV", sampling_rate=100).unit == "mV"
    with pytest.raises(ValueError, match="states the unit"):
        read_recording(path, unit="uV")


def test_stacks_are_read_by_read_recordings_and_refused_by_read_recording(tmp_path):
    stack = np.stack([VALUES, VALUES + 1])
    np.save(tmp_path / "a.npy", stack)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ecg"] = stack
    np.savez(tmp_path / "a.npz", stack)
    declared = {**DECLARED, "axes": "record,lead,sample"}
    for name in ("a.npy", "a.h5", "a.npz"):
        records = list(read_recordings(tmp_path / name, record_id="d", **declared))
        assert [record.record_id for record in records] == ["d-0", "d-1"]
        assert np.array_equal([record.signal for record in records], stack)
        with pytest.raises(ValueError, match="expected axes of one recording"):
            read_recording(tmp_path / name, **declared)


def test_stored_rows_are_read_all_or_by_name(tmp_path):
    records = [EcgRecord(f"r{i}", VALUES + i, ["I", "II"], 100, patient_id=f"p{i}") for i in range(3)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([record.to_row() for record in records]), path)
    assert [record.record_id for record in read_recordings(path)] == ["r0", "r1", "r2"]
    assert read_recording(path, record_id="r2").patient_id == "p2"
    with pytest.raises(ValueError, match="holds several recordings"):
        read_recording(path)
    with pytest.raises(ValueError, match="no recording 'r9'"):
        read_recording(path, record_id="r9")
    with pytest.raises(ValueError, match="states 100.0 Hz"):
        list(read_recordings(path, sampling_rate=500))


@pytest.mark.parametrize("content", [b"", b"\x00" * 300, b"%PDF-1.7", b"PK\x03\x04" + bytes(300)])
def test_files_of_no_known_format_get_the_list(tmp_path, content):
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="none of the formats that are read") as error:
        read_recording(path)
    assert all(name in str(error.value) for name in FORMATS)


def test_unknown_xml_and_missing_files_are_said(tmp_path):
    (tmp_path / "a.xml").write_text("<html/>")
    with pytest.raises(ValueError, match="XML with the root 'html'"):
        read_recording(tmp_path / "a.xml")
    with pytest.raises(ValueError, match="There is no file"):
        read_recording(tmp_path / "b.npy", **DECLARED)
    with pytest.raises(ValueError, match="Cannot read"):
        read_recording(tmp_path / "c.hea")
    with pytest.raises(ValueError, match="is a folder. Give one file of it"):
        read_recording(tmp_path)


def test_optional_and_heavy_libraries_are_imported_only_inside_functions():
    for path in Path(recording_file.__file__).parent.glob("formats/*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            heavy = {"pydicom", "soundfile", "h5py", "scipy", "pandas"} & {name.split(".")[0] for name in modules}
            assert not heavy, f"{path.name} imports {heavy}"
