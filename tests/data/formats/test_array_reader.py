import io
import pickle
import zipfile

import numpy as np
import pytest

from ecg_transformers.data.formats.array_reader import (
    ArrayDeclaration,
    open_npy,
    open_npz,
    record_of_array,
    records_of_stack,
)
from ecg_transformers.data.formats.steps import record_of_steps

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(size=(2, 30)).astype(np.float32)


def declare(**changes):
    return ArrayDeclaration(
        **({"leads": ["I", "II"], "sampling_rate": 100, "unit": "mV", "axes": "lead,sample"} | changes)
    )


def test_arrays_are_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "a.npy", FLOATS)
    array = open_npy(tmp_path / "a.npy")
    assert isinstance(array, np.memmap)
    record = record_of_array(array, declare(), "a.npy", "r1")
    assert np.array_equal(record.signal, FLOATS) and np.shares_memory(record.signal, array)


def test_both_orders_of_the_axes_are_read():
    record = record_of_array(FLOATS.T, declare(axes="sample,lead", unit="uV"), "a", "r1")
    assert np.array_equal(record.signal, FLOATS) and record.unit == "uV"


def test_one_lead_may_have_one_axis():
    record = record_of_array(FLOATS[0], declare(leads=["MLII"]), "a", "r1")
    assert record.leads == ("MLII",) and record.signal.shape == (1, 30)


@pytest.mark.parametrize("dtype", ["i1", "<i2", ">i2", "<i4", "u2"])
def test_whole_numbers_with_a_step_stay_exact(dtype):
    values = RNG.integers(0, 100, (2, 30)).astype(dtype)
    record = record_of_array(values, declare(step=0.005), "a", "r1")
    assert record.signal.dtype == np.int16 and np.array_equal(record.signal, values)
    assert record.gain == pytest.approx([0.005] * 2)


def test_whole_numbers_beyond_16_bits_become_floats():
    values = np.array([[70_000, -1], [2, 3]], dtype=np.int32)
    record = record_of_array(values, declare(step=0.001), "a", "r1")
    assert record.to_millivolts() == pytest.approx(values * 0.001)


def test_step_minus_32768_is_missing_in_int16_arrays_only():
    values = np.array([[-32768, 1]])
    declared = declare(leads=["I"], step=1.0)
    assert np.isnan(record_of_array(values.astype(np.int16), declared, "a", "r1").to_millivolts()[0, 0])
    assert record_of_array(values.astype(np.int32), declared, "a", "r1").to_millivolts()[0, 0] == -32768


@pytest.mark.parametrize("missing", ["leads", "sampling_rate", "unit", "axes"])
def test_what_is_not_declared_is_named(missing):
    with pytest.raises(ValueError, match=f"does not say its \\['{missing}'\\].*never guessed"):
        record_of_array(FLOATS, declare(**{missing: None}), "a", "r1")


@pytest.mark.parametrize(
    ("array", "changes", "message"),
    [
        (FLOATS, {"leads": "I"}, "list of names"),
        (FLOATS, {"leads": ["I"]}, "2 leads of 30 samples, but 1 leads are declared"),
        (FLOATS, {"axes": "sample,lead"}, "30 leads of 2 samples"),
        (FLOATS, {"axes": "time,lead"}, "expected axes"),
        (FLOATS, {"unit": "mmHg"}, "Unknown unit"),
        (FLOATS, {"sampling_rate": 0}, "sampling rate"),
        (FLOATS, {"step": 0.1}, "leave out step"),
        (FLOATS.astype(int), {}, "pass step"),
        (FLOATS.astype(complex), {}, "complex128"),
        (FLOATS > 0, {}, "bool"),
        (np.zeros((2, 0)), {}, "declares the shape"),
        (np.zeros((3, 2, 30)), {}, "read_recordings"),
        (np.zeros(30), {}, r"got the shape \(30,\)"),
    ],
)
def test_what_does_not_fit_is_said(array, changes, message):
    with pytest.raises(ValueError, match=message):
        record_of_array(array, declare(**changes), "a", "r1")


def test_stacks_give_one_record_a_row_in_either_order():
    stack = RNG.normal(size=(3, 2, 30)).astype(np.float32)
    for array, axes in ((stack, "record,lead,sample"), (stack.transpose(0, 2, 1), "record,sample,lead")):
        records = list(records_of_stack(array, declare(axes=axes), "a", "d"))
        assert [record.record_id for record in records] == ["d-0", "d-1", "d-2"]
        assert all(np.array_equal(record.signal, row) for record, row in zip(records, stack, strict=True))
    with pytest.raises(ValueError, match="three axes"):
        next(records_of_stack(stack, declare(), "a", "d"))


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="without pickle"):
        open_npy(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="archive of arrays"):
        open_npz(tmp_path / "a.npz")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(FLOATS))
    with pytest.raises(ValueError, match="without pickle"):
        open_npy(tmp_path / "b.npy")


def test_truncated_arrays_and_huge_shapes_are_a_value_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, FLOATS)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="no array"):
        open_npy(path)
    path.write_bytes(content.replace(b"(2, 30)", b"(2, 9" + b"0" * 15 + b")")[: len(content)])
    with pytest.raises(ValueError, match="no array"):
        open_npy(path)


def test_an_archive_gives_its_only_array_or_the_one_named(tmp_path):
    np.savez_compressed(tmp_path / "one.npz", ecg=FLOATS)
    assert np.array_equal(open_npz(tmp_path / "one.npz"), FLOATS)
    np.savez(tmp_path / "two.npz", ecg=FLOATS, other=FLOATS[:1])
    assert np.array_equal(open_npz(tmp_path / "two.npz", "ecg"), FLOATS)
    for wanted in (None, "third"):
        with pytest.raises(ValueError, match=r"arrays: \['ecg', 'other'\]. Name one by dataset="):
            open_npz(tmp_path / "two.npz", wanted)


def archive(path, header_shape, content, declared_size=None):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": header_shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("ecg.npy", buffer.getvalue() + content)
    if declared_size is not None:  # in the central directory, which is what is read
        data = bytearray(path.read_bytes())
        at = data.index(b"PK\x01\x02") + 24
        data[at : at + 4] = declared_size.to_bytes(4, "little")
        path.write_bytes(data)
    return path


def test_sizes_that_an_archive_declares_are_checked_before_it_is_unpacked(tmp_path):
    with pytest.raises(ValueError, match="declares"):
        open_npz(archive(tmp_path / "a.npz", (2, 10**12), b"\0" * 1000))
    with pytest.raises(ValueError, match="cannot be read as an archive"):
        open_npz(archive(tmp_path / "b.npz", (2, 10**8), b"\0" * 1000, declared_size=2**30))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PK\x03\x04" + b"\0" * 100])
def test_damaged_archives_are_a_value_error(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="archive of arrays"):
        open_npz(tmp_path / "a.npz")


def test_steps_with_a_whole_zero_stay_int16_and_others_become_floats():
    steps = np.array([[100, 200, 300]], dtype=np.uint16)
    whole = record_of_steps("r", steps, ["I"], 100, "mV", [0.01], [200 + 1e-9])
    assert whole.signal.dtype == np.int16 and whole.signal.tolist() == [[-100, 0, 100]]
    half = record_of_steps("r", steps, ["I"], 100, "mV", [0.01], [200.5])
    assert half.signal.dtype == np.float32 and half.signal == pytest.approx(np.array([[-1.005, -0.005, 0.995]]))
    for gain, zero in (([0.0], [0]), ([np.nan], [0]), ([1.0], [np.inf])):
        with pytest.raises(ValueError, match="finite gains"):
            record_of_steps("r", steps, ["I"], 100, "mV", gain, zero)
