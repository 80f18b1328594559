import struct

import numpy as np
import pytest

from ecg_transformers.data import read_recording
from ecg_transformers.data.formats.ishne_reader import read_ishne

RNG = np.random.default_rng(0)


def header(leads=(6, 11), resolution=(5000, 2500), rate=200, stated=50, start=522, num_leads=None):
    """The fields by the offsets of Badilini (1998)."""
    head = bytearray(522)
    head[:8] = b"ISHNE1.0"
    struct.pack_into("<4i", head, 10, 0, stated, 522, start)
    head[108:112] = b"P-12"
    struct.pack_into("<h", head, 128, 2)
    struct.pack_into("<3h", head, 132, 2, 5, 1970)
    struct.pack_into("<3h", head, 138, 1, 5, 2020)
    struct.pack_into("<h", head, 156, len(leads) if num_leads is None else num_leads)
    struct.pack_into(f"<{len(leads)}h", head, 158, *leads)
    struct.pack_into(f"<{len(resolution)}h", head, 206, *resolution)
    struct.pack_into("<h", head, 272, rate)
    return bytes(head)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "a.ecg"
        path.write_bytes(content)
        return path

    return write


def test_steps_leads_rate_and_patient_are_read(write):
    steps = RNG.integers(-900, 900, (2, 50)).astype("<i2")
    steps[1, 7] = -32768
    record = read_recording(write(header() + steps.T.tobytes()))
    assert record.leads == ("II", "V1") and record.sampling_rate == 200
    assert record.unit == "uV" and record.gain.tolist() == [5, 2.5]
    assert np.array_equal(record.signal, steps) and record.num_missing_samples == 1
    assert (record.patient_id, record.age, record.sex) == ("P-12", 49, "female")


def test_samples_begin_behind_a_block_of_any_length(write):
    steps = RNG.integers(-900, 900, (2, 50)).astype("<i2")
    record = read_ishne(write(header(start=600) + bytes(78) + steps.T.tobytes()), "r1")
    assert np.array_equal(record.signal, steps)


def test_leads_without_a_name_are_renamed_by_position_and_chest_leads_are_not_those_of_frank(write):
    content = header(leads=(2, 1), stated=100) + bytes(200)
    assert read_ishne(write(content), "r1").leads == ("X bipolar", "bipolar")
    assert read_ishne(write(content), "r1", rename_leads="channel_1:V5").leads == ("X bipolar", "V5")
    unnamed = read_ishne(write(header(leads=(0, 0)) + bytes(200)), "r1")
    assert unnamed.leads == ("channel_0", "channel_1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header()[:300], "header of 522 bytes"),
        (header(num_leads=13), "1 to 12 leads"),
        (header(rate=0), "a rate > 0"),
        (header(start=5) + bytes(200), "after the header"),
        (header(stated=500) + bytes(200), "truncated"),
        (header(stated=50) + bytes(196), "truncated"),
        (header(stated=100) + bytes(198), "truncated"),
        (header(), "truncated"),
        (header(resolution=(-9, -9)) + bytes(200), "no resolution"),
    ],
)
def test_headers_that_do_not_fit_are_refused(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_ishne(write(content), "r1")
