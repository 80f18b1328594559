import h5py
import numpy as np
import pytest

from ecg_transformers.data.formats.array_reader import ArrayDeclaration, records_of_stack
from ecg_transformers.data.formats.hdf5_file import open_dataset
from ecg_transformers.data.formats.hdf5_reader import open_hdf5_array

VALUES = np.random.default_rng(0).normal(size=(3, 2, 50)).astype(np.float32)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["ecg"] = VALUES
        file["group/other"] = VALUES[0]
        file["names"] = np.array([b"a", b"b"])
    return path


def test_arrays_are_found_by_name_in_groups_too(file):
    assert np.array_equal(open_hdf5_array(file, "ecg")[1], VALUES[1])
    assert np.array_equal(open_hdf5_array(file, "/group/other")[()], VALUES[0])


def test_several_arrays_are_listed_and_none_is_chosen(file):
    with pytest.raises(ValueError, match=r"holds several; its arrays: \['ecg', 'group/other'\]"):
        open_hdf5_array(file)
    with pytest.raises(ValueError, match="holds no array 'names'"):
        open_hdf5_array(file, "names")


def test_stacks_are_read_one_recording_at_a_time(file):
    declared = ArrayDeclaration(["I", "II"], 100, "mV", "record,lead,sample")
    records = list(records_of_stack(open_hdf5_array(file, "ecg"), declared, "a.h5", "a"))
    assert len(records) == 3 and all(np.array_equal(r.signal, v) for r, v in zip(records, VALUES, strict=True))


def test_links_to_other_files_are_not_followed(tmp_path, file):
    path = tmp_path / "b.h5"
    with h5py.File(path, "w") as other:
        other["own"] = VALUES[0]
        other["array"] = h5py.ExternalLink(str(file), "ecg")
        other["folder"] = h5py.ExternalLink(str(file), "group")
        other["soft"] = h5py.SoftLink("/own")
    for name in ("array", "folder/other", "soft"):
        with pytest.raises(ValueError, match=r"its arrays: \['own'\]"):
            open_hdf5_array(path, name)


def test_storage_in_other_files_is_refused(tmp_path, file):
    path = tmp_path / "b.h5"
    layout = h5py.VirtualLayout(shape=VALUES.shape, dtype="f4")
    layout[:] = h5py.VirtualSource(str(file), "ecg", shape=VALUES.shape)
    with h5py.File(path, "w") as other:
        other.create_virtual_dataset("virtual", layout)
        other.create_dataset("raw", (10,), "i2", external=[(str(file), 0, 20)])
    for name in ("virtual", "raw"):
        with pytest.raises(ValueError, match="lies in the file itself"):
            open_hdf5_array(path, name)


def test_shapes_that_cannot_lie_in_the_file_are_refused(tmp_path):
    path = tmp_path / "b.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", (12, 10**10), "f4", chunks=(12, 1000), compression="gzip")
    with pytest.raises(ValueError, match="cannot lie in"):
        open_hdf5_array(path)


def test_an_array_behind_a_link_of_its_group_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["group/ecg"] = np.zeros((2, 10), dtype=np.float32)
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["group"] = h5py.ExternalLink("other.h5", "group")
    with pytest.raises(ValueError, match="lies in the file itself"):
        open_dataset(tmp_path / "linked.h5", "group/ecg")
