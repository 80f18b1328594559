import numpy as np
import pytest

from ecg_transformers.hub.space_uploads import TOO_MUCH, Declaration, UploadReader, read_upload

from .space_inputs import bad_uploads, csv_file, edf_file, millivolts, wfdb_pair

pytestmark = pytest.mark.slow  # some seconds to start
ONE_LEAD = Declaration(5000, "mV", "I", "a row for each sample")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    found = UploadReader(tmp_path_factory.mktemp("reader"))
    yield found
    found.close()


def test_another_process_reads_what_this_one_reads(reader, tmp_path):
    declared = Declaration(sampling_rate=100, unit="mV")
    for paths, stated in ((wfdb_pair(tmp_path), None), (csv_file(tmp_path), declared), (edf_file(tmp_path), None)):
        found, expected = reader.read(paths, stated), read_upload(paths, stated)
        assert (found.leads, found.sampling_rate, found.unit) == (
            expected.leads,
            expected.sampling_rate,
            expected.unit,
        )
        assert found.signal.dtype == expected.signal.dtype
        np.testing.assert_array_equal(found.to_millivolts(), expected.to_millivolts())
    assert list(reader.folder.iterdir()) == []


def test_sentences_are_the_same_and_nothing_is_left(reader, tmp_path):
    for name, (paths, declared, _) in bad_uploads(tmp_path).items():
        sentences = []
        for read in (reader.read, read_upload):
            try:
                read(paths, Declaration(**declared))
            except ValueError as error:
                sentences.append(str(error))
        assert len(sentences) in (0, 2) and len(set(sentences)) < 2, name
    assert list(reader.folder.iterdir()) == []


def test_what_is_no_sentence_comes_back_by_its_kind_alone(reader, tmp_path):
    with pytest.raises(RuntimeError, match="^TypeError$"):
        reader.read(csv_file(tmp_path), Declaration(sampling_rate={"a": 1}, unit="mV"))


def test_memory_and_time_have_limits_and_the_next_upload_is_read(reader, tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "zeros.npz", a=np.zeros((500_000, 1)))
    np.savez_compressed(tmp_path / "large.npz", a=np.zeros((9_000_000, 1)))
    monkeypatch.setattr(reader, "limits", {"most_bytes": 2**25, "most_seconds": 60})
    assert reader.read([tmp_path / "zeros.npz"], ONE_LEAD).signal.shape == (1, 500_000)
    with pytest.raises(ValueError, match=f"Unable to allocate|{TOO_MUCH[:20]}"):
        reader.read([tmp_path / "large.npz"], ONE_LEAD)
    path = csv_file(tmp_path, signal=np.tile(millivolts(), 200))
    monkeypatch.setattr(reader, "limits", {"most_bytes": 2**30, "most_seconds": 0.05})
    with pytest.raises(ValueError, match=TOO_MUCH[:20]):
        reader.read(path, Declaration(5000, "mV"))
    monkeypatch.setattr(reader, "limits", {"most_bytes": 2**30, "most_seconds": 60})  # whatever else runs here
    assert reader.read([tmp_path / "zeros.npz"], ONE_LEAD).signal.shape == (1, 500_000)
    reader.server.kill()
    reader.server.wait()
    assert reader.read([tmp_path / "zeros.npz"], ONE_LEAD).signal.shape == (1, 500_000)
    assert list(reader.folder.iterdir()) == []
