"""Structs of MATLAB 5 files, against `scipy.io`."""

import struct
import zlib

import numpy as np
import pytest

from ecg_transformers.data.formats.matlab5_struct import MAX_BYTES, read_struct

VALUES = {
    "sex": "Female ",
    "age": np.array([[61]], dtype=np.uint8),
    "data": np.random.default_rng(0).normal(size=(12, 40)),
    "steps": np.arange(6, dtype=np.int16).reshape(2, 3),
    "nothing": np.empty((0, 0)),
}


def save(tmp_path, **variables):
    import scipy.io

    compress = variables.pop("compress", True)
    path = tmp_path / "record.mat"
    scipy.io.savemat(path, variables, do_compression=compress)
    return path


@pytest.mark.parametrize("compress", [True, False])
def test_fields_are_those_that_were_written(tmp_path, compress):
    path = save(tmp_path, other=np.zeros(3), ECG=VALUES, compress=compress)
    fields = read_struct(path, "ECG")
    assert list(fields) == list(VALUES)
    assert fields["sex"] == "Female "
    for name in ("age", "data", "steps", "nothing"):
        assert fields[name].dtype == VALUES[name].dtype
        np.testing.assert_array_equal(fields[name], VALUES[name])


def test_real_recordings_equal_scipys(shared_data_dir):
    import scipy.io

    paths = sorted((shared_data_dir / "cpsc2018-original").glob("*.mat"))
    assert len(paths) == 4
    for path in paths:
        expected, fields = scipy.io.loadmat(path)["ECG"][0, 0], read_struct(path, "ECG")
        assert fields["sex"] == expected["sex"][0]
        np.testing.assert_array_equal(fields["age"], expected["age"])
        np.testing.assert_array_equal(fields["data"], expected["data"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": 1.0}}, "'a' is an array of class 2; expected numbers or a text"),
        ({"a": np.array([1, "x"], dtype=object)}, "'a' is an array of class 1; expected"),
        ({"a": np.array([1j])}, "complex numbers"),
        (np.zeros(3), "class 6, not a struct"),
        ("text", "class 4, not a struct"),
    ],
)
def test_anything_but_a_struct_of_numbers_and_texts_is_refused(tmp_path, value, message):
    with pytest.raises(ValueError, match=message):
        read_struct(save(tmp_path, ECG=value), "ECG")


def test_a_file_without_the_struct_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no struct 'ECG'"):
        read_struct(save(tmp_path, other=VALUES), "ECG")
    with pytest.raises(ValueError, match="Cannot read MATLAB file .*nosuch.mat"):
        read_struct(tmp_path / "nosuch.mat", "ECG")
    (tmp_path / "text.mat").write_text("no MATLAB" * 50)
    with pytest.raises(ValueError, match="no MATLAB 5 file"):
        read_struct(tmp_path / "text.mat", "ECG")


def test_a_file_that_unpacks_without_bound_is_refused(tmp_path):
    packed = zlib.compress(bytes(MAX_BYTES + 1))
    content = b"MATLAB".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed
    (tmp_path / "bomb.mat").write_bytes(content)
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_struct(tmp_path / "bomb.mat", "ECG")
