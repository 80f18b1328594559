import numpy as np
import pytest

from ecg_transformers.data import read_record
from ecg_transformers.data.formats.wfdb_index import WfdbIndex


@pytest.fixture
def paths(write_record):
    generator = np.random.default_rng(0)
    return [
        write_record(
            f"r{number}", steps=generator.integers(-2000, 2000, (2, 50)), gain=f"{1000 + number}({number})/uV"
        )
        for number in range(4)
    ]


def test_batches_equal_records_read_one_by_one(paths):
    index = WfdbIndex(paths)
    numbers = [2, 0, 2]
    steps = index.read_steps(numbers)
    millivolts = (steps - index.baseline[numbers, None]) * index.gain[numbers, None]
    for found, number in zip(millivolts, numbers, strict=True):
        np.testing.assert_allclose(found.T, read_record(paths[number])[0].to_millivolts(), rtol=1e-6)
    assert (len(index), index.leads, index.sampling_rate, index.num_samples) == (4, ("I", "II"), 100, 50)


def test_real_records_equal_those_read_one_by_one(shared_data_dir):
    headers = sorted((shared_data_dir / "ptb-xl" / "records500").rglob("*.hea"))[:5]
    if not headers:
        pytest.skip("there are no recordings at 500 Hz")
    steps = WfdbIndex(headers).read_steps(range(len(headers)))
    for found, path in zip(steps, headers, strict=True):
        np.testing.assert_array_equal(found.T, read_record(path)[0].signal)


def test_given_buffer_is_filled_and_no_more_of_it(paths):
    buffer = np.full((3, 50, 2), 7, dtype=np.int16)
    steps = WfdbIndex(paths).read_steps([1, 3], out=buffer)
    assert np.shares_memory(steps, buffer)
    assert (buffer[2] == 7).all()
    np.testing.assert_array_equal(steps, WfdbIndex(paths).read_steps([1, 3]))


@pytest.mark.parametrize("shape", [(1, 50, 2), (2, 50, 3), (2, 2, 50)])
def test_buffer_of_another_shape_is_refused(paths, shape):
    with pytest.raises(ValueError, match="Expected a buffer of int16"):
        WfdbIndex(paths).read_steps([0, 1], out=np.empty(shape, dtype=np.int16))
    with pytest.raises(ValueError, match="Expected a buffer of int16"):
        WfdbIndex(paths).read_steps([0, 1], out=np.empty((2, 50, 2), dtype=np.float32))


def test_records_of_another_layout_are_refused_by_name(paths, write_record):
    other = write_record("longer", steps=np.zeros((2, 60), dtype=np.int16))
    with pytest.raises(ValueError, match="Record .*longer has .*60.* the first has .*50"):
        WfdbIndex([*paths, other])


def test_other_formats_and_no_records_are_refused(wfdb_fixtures, paths):
    header = paths[0].with_suffix(".hea")
    header.write_text(header.read_text().replace(" 16 1000", " 212 1000"))
    with pytest.raises(ValueError, match="not all of format 16"):
        WfdbIndex(paths)
    with pytest.raises(ValueError, match="at least one record"):
        WfdbIndex([])


def test_header_cannot_lead_out_of_its_folder(paths):
    header = paths[1].with_suffix(".hea")
    header.write_text(header.read_text().replace("r1.dat", "../r1.dat"))
    with pytest.raises(ValueError, match="is not inside"):
        WfdbIndex(paths)


def test_truncated_and_missing_signal_files_are_errors(paths):
    index = WfdbIndex(paths)
    signal = paths[0].with_suffix(".dat")
    signal.write_bytes(signal.read_bytes()[:-2])
    with pytest.raises(ValueError, match="r0.dat is truncated: expected 200 bytes of samples, got 198"):
        index.read_steps([1, 0])
    signal.unlink()
    with pytest.raises(ValueError, match="Cannot read .*r0.dat"):
        index.read_steps([0])
