from functools import partial

import numpy as np
import pytest

from ecg_transformers.hub.space_uploads import TOO_MUCH, Declaration, read_apart, read_upload

from .space_inputs import bad_uploads, csv_file, edf_file, millivolts, wfdb_pair

pytestmark = pytest.mark.slow  # a new process for each upload
ONE_LEAD = Declaration(5000, "mV", "I", "a row for each sample")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reader")


def test_another_process_reads_what_this_one_reads(folder, tmp_path):
    declared = Declaration(sampling_rate=100, unit="mV")
    for paths, stated in ((wfdb_pair(tmp_path), None), (csv_file(tmp_path), declared), (edf_file(tmp_path), None)):
        found, expected = read_apart(folder, paths, stated), read_upload(paths, stated)
        assert (found.leads, found.sampling_rate, found.unit) == (
            expected.leads,
            expected.sampling_rate,
            expected.unit,
        )
        assert found.signal.dtype == expected.signal.dtype
        np.testing.assert_array_equal(found.to_millivolts(), expected.to_millivolts())
    assert list(folder.iterdir()) == []


def test_sentences_are_the_same_and_nothing_is_left(folder, tmp_path):
    for name, (paths, declared, _) in bad_uploads(tmp_path).items():
        sentences = []
        for read in (partial(read_apart, folder), read_upload):
            try:
                read(paths, Declaration(**declared))
            except ValueError as error:
                sentences.append(str(error))
        assert len(sentences) in (0, 2) and len(set(sentences)) < 2, name
    assert list(folder.iterdir()) == []


def test_what_is_no_sentence_comes_back_by_its_kind_alone(folder, tmp_path):
    with pytest.raises(RuntimeError, match="^TypeError$"):
        read_apart(folder, csv_file(tmp_path), Declaration(sampling_rate={"a": 1}, unit="mV"))


def test_memory_and_time_have_limits_and_the_next_upload_is_read(folder, tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", a=np.zeros((500_000, 1)))
    np.savez_compressed(tmp_path / "large.npz", a=np.zeros((9_000_000, 1)))
    small = {"most_bytes": 2**25}
    assert read_apart(folder, [tmp_path / "zeros.npz"], ONE_LEAD, **small).signal.shape == (1, 500_000)
    with pytest.raises(ValueError, match=f"Unable to allocate|{TOO_MUCH[:20]}"):
        read_apart(folder, [tmp_path / "large.npz"], ONE_LEAD, **small)
    path = csv_file(tmp_path, signal=np.tile(millivolts(), 200))
    with pytest.raises(ValueError, match=TOO_MUCH[:20]):
        read_apart(folder, path, Declaration(5000, "mV"), most_seconds=0.05)
    assert read_apart(folder, [tmp_path / "zeros.npz"], ONE_LEAD).signal.shape == (1, 500_000)
    assert list(folder.iterdir()) == []
