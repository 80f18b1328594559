import struct

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from ecg_transformers.data import read_recording
from ecg_transformers.data.formats.matlab_reader import read_matlab_array

VALUES = np.random.default_rng(0).integers(-500, 500, (3, 40)).astype(np.int16)


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}], ids=["5", "5 packed", "4"])
def test_a_numeric_variable_is_read_with_the_axes_that_matlab_shows(tmp_path, options):
    savemat(tmp_path / "a.mat", {"val": VALUES}, **options)
    assert np.array_equal(read_matlab_array(tmp_path / "a.mat"), VALUES)
    assert np.array_equal(read_matlab_array(tmp_path / "a.mat", "val"), VALUES)


def test_version_7_3_is_hdf5_with_the_axes_that_matlab_shows(tmp_path):
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["val"] = VALUES.T  # as MATLAB writes it
    content = bytearray(path.read_bytes())
    content[:19] = b"MATLAB 7.3 MAT-file"
    path.write_bytes(content)
    assert np.array_equal(read_matlab_array(path, "val"), VALUES)


def test_several_variables_are_listed_and_none_is_chosen(tmp_path):
    savemat(tmp_path / "a.mat", {"ecg": VALUES, "age": 61, "note": "text", "info": {"a": 1}})
    with pytest.raises(ValueError, match=r"holds several; its numeric variables: \['age', 'ecg', 'info.a'\]"):
        read_matlab_array(tmp_path / "a.mat")
    with pytest.raises(ValueError, match="no numeric variable 'info'"):
        read_matlab_array(tmp_path / "a.mat", "info")
    assert np.array_equal(read_matlab_array(tmp_path / "a.mat", "ecg"), VALUES)


def test_huge_declared_shapes_are_refused(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(struct.pack("<5i", 30, 2**20, 2**10, 0, 4) + b"val\0" + bytes(100))  # version 4, int16
    with pytest.raises(ValueError, match="declares the shape|cannot be read"):
        read_matlab_array(path)
    savemat(path, {"val": VALUES})
    content = path.read_bytes().replace(struct.pack("<2i", 3, 40), struct.pack("<2i", 2**20, 2**12))
    path.write_bytes(content)
    with pytest.raises(ValueError, match="declares the shape"):
        read_matlab_array(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_fields_of_structs_are_named_by_their_path(tmp_path, compressed):
    values = np.arange(10.0).reshape(2, 5)
    savemat(
        tmp_path / "a.mat",
        {"ECG": {"sex": "Male", "age": 60.0, "data": values, "part": {"deep": values + 1}}, "val": values + 2},
        do_compression=compressed,
    )
    assert np.array_equal(read_matlab_array(tmp_path / "a.mat", "ECG.data"), values)
    assert np.array_equal(read_matlab_array(tmp_path / "a.mat", "ECG.part.deep"), values + 1)
    assert np.array_equal(read_matlab_array(tmp_path / "a.mat", "val"), values + 2)
    with pytest.raises(ValueError, match="'ECG.age', 'ECG.data', 'ECG.part.deep', 'val'"):
        read_matlab_array(tmp_path / "a.mat")


def test_whole_numbers_stored_as_double_take_a_step(tmp_path):
    savemat(tmp_path / "a.mat", {"val": np.array([[200.0, np.nan, -400.0]])})
    declared = {"leads": ["II"], "sampling_rate": 500, "unit": "mV", "axes": "lead,sample"}
    record = read_recording(tmp_path / "a.mat", step=0.005, **declared)
    np.testing.assert_allclose(record.signal, [[1, np.nan, -2]])
    savemat(tmp_path / "a.mat", {"val": np.array([[0.5, 1.0]])})
    with pytest.raises(ValueError, match="leave out step"):
        read_recording(tmp_path / "a.mat", step=0.005, **declared)
