import struct

import numpy as np
import pytest

from ecg_transformers.data import read_recording

STEPS = np.random.default_rng(0).integers(-3000, 3000, (6, 90)).astype("<i2")
NAMES = (b"ecg ", b"ecg2", b"ecg3", b"ecg4", b"ecg5", b"ecg6")


def block(name, content):
    whole = name + struct.pack("<I", len(content)) + content
    return whole + struct.pack("<I", sum(whole))


def document(num_leads=6, rate=300, nanovolts=500, more=b""):
    """A file as the published ATCpy lays it out."""
    content = b"ALIVE\0\0\0" + struct.pack("<I", 3) + block(b"info", bytes(264))
    content += block(b"fmt ", struct.pack("<BHHBH", 1, rate, nanovolts, 2, 0))
    leads = zip(NAMES[:num_leads], STEPS, strict=False)
    return content + b"".join(block(name, steps.tobytes()) for name, steps in leads) + more


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "a.atc"
        path.write_bytes(content)
        return path

    return write


def test_leads_rate_and_resolution_are_read(write):
    record = read_recording(write(document(more=block(b"avg ", bytes(90)) + block(b"ann ", bytes(10)))))
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF")
    assert (record.sampling_rate, record.unit) == (300, "uV")
    np.testing.assert_allclose(record.to_millivolts(), STEPS * 0.0005, rtol=1e-6)


def test_leads_are_chosen_and_renamed(write):
    record = read_recording(write(document()), leads=["II", "I"], rename_leads={"I": "V5"})
    assert record.leads == ("II", "V5") and np.array_equal(record.signal, STEPS[[1, 0]])
    record = read_recording(write(document(num_leads=1)))  # one lead is lead I
    assert record.leads == ("I",) and np.array_equal(record.signal, STEPS[:1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (document()[:-7], "is truncated"),
        (document()[:-2] + b"xy", "the checksum of the block b'ecg6' does not fit"),
        (document(more=block(b"ecg2", STEPS[0].tobytes())), "the block b'ecg2' comes twice"),
        (document(num_leads=0), "expected a block of the format and blocks of leads"),
        (document(rate=0), "expected a rate and a resolution above 0"),
        (document(nanovolts=0), "expected a rate and a resolution above 0"),
        (document(num_leads=1, more=block(b"ecg2", STEPS[1, :80].tobytes())), "leads of one length"),
        (document(num_leads=0, more=block(b"ecg ", b"abc")), "leads of one length"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_recording(write(content))


def test_a_real_recording_of_a_kardia_mobile(shared_data):
    path = shared_data / "real_files" / "kardia_6_lead.atc"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    record = read_recording(path)
    i, ii, iii, avr, *_ = record.to_millivolts()
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF") and record.signal.shape == (6, 9000)
    assert abs(ii - i - iii).max() < 1e-5 and abs(avr + (i + ii) / 2).max() < 1e-3
    assert 1 < np.ptp(i) < 2 and record.sampling_rate == 300
