import struct
from pathlib import Path

import numpy as np
import pytest

from ecg_transformers.data import read_recording
from ecg_transformers.data.formats.scp_reader import read_scp

EXAMPLE = Path(__file__).parents[2] / "fixtures" / "scp" / "Example.scp"
RNG = np.random.default_rng(0)


def huffman_bits(value):
    if value == 0:
        return "0"
    if abs(value) <= 8:
        return "1" * abs(value) + "0" + "01"[value < 0]
    if -128 <= value < 128:
        return "1" * 9 + "0" + f"{value & 255:08b}"
    return "1" * 10 + f"{value & 65535:016b}"


def packed(values):
    bits = "".join(map(huffman_bits, values))
    bits = bits.ljust(-(-len(bits) // 8) * 8, "1")
    return bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))


def scp_file(steps, huffman=False, differences=0, table=19999, flags=4, bimodal=0, zones=0, numbers=(1, 2, 3)):
    """A file of the sections that the standard asks for, by its field sizes."""
    rows = []
    for row in steps.astype(np.int64):
        second = np.concatenate([row[:2], np.diff(row, 2)])
        values = {0: row, 1: np.concatenate([row[:1], np.diff(row)]), 2: second}[differences].tolist()
        rows.append(packed(values) if huffman else struct.pack(f"<{len(values)}h", *values))
    tags = {2: b"P-12\0", 5: struct.pack("<HBB", 1970, 5, 2), 8: b"\2", 25: struct.pack("<HBB", 2020, 5, 1), 255: b""}
    spans = b"".join(struct.pack("<IIB", 1, steps.shape[1], number) for number in numbers[: len(steps)])
    sections = {
        1: b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in tags.items()),
        3: bytes([len(steps), flags]) + spans,
        6: struct.pack("<HHBB", 2500, 4000, differences, bimodal)
        + struct.pack(f"<{len(rows)}H", *map(len, rows))
        + b"".join(rows),
    }
    if huffman:
        sections[2] = struct.pack("<H", table)
    if bimodal:
        sections[4] = struct.pack("<HHH", 600, 0, zones)
    pointers, place = b"", 6 + 16 + 10 * (len(sections) + 1)
    body = b""
    for number, content in sorted(sections.items()):
        section = struct.pack("<HHIBB6x", 0, number, 16 + len(content), 20, 20) + content
        pointers += struct.pack("<HII", number, len(section), place + len(body) + 1)
        body += section
    size = 16 + 10 * (len(sections) + 1)
    zero = struct.pack("<HHIBB6s", 0, 0, size, 20, 20, b"SCPECG") + struct.pack("<HII", 0, size, 7) + pointers
    return struct.pack("<HI", 0, 6 + len(zero) + len(body)) + zero + body


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "a.scp"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("huffman", [False, True])
@pytest.mark.parametrize("differences", [0, 1, 2])
def test_every_way_of_storing_steps_comes_back_exactly(write, huffman, differences):
    steps = np.cumsum(RNG.integers(-9, 10, (3, 200)), axis=1)
    steps[1, 50:60] += 4000  # beyond the short codes
    record = read_recording(write(scp_file(steps, huffman, differences)))
    assert record.leads == ("I", "II", "V1") and record.sampling_rate == 250 and record.unit == "uV"
    assert np.array_equal(record.signal, steps) and record.gain == pytest.approx([2.5] * 3)
    assert (record.patient_id, record.age, record.sex) == ("P-12", 49, "female")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flags": 5}, "reference beat was subtracted"),
        ({"bimodal": 1, "zones": 3}, "thinned out between the beats"),
        ({"huffman": True, "table": 1}, "Huffman table is one of its own"),
        ({"numbers": (1, 1, 2)}, "different name"),
    ],
)
def test_what_is_not_read_is_refused_with_its_reason(write, options, message):
    with pytest.raises(ValueError, match=message):
        read_scp(write(scp_file(np.ones((3, 50), int), **options)), "r1")


def test_a_public_recording_obeys_the_law_of_einthoven():
    record = read_recording(EXAMPLE)
    assert record.sampling_rate == 500 and record.signal.shape == (12, 5000) and record.age == 49
    signal = dict(zip(record.leads, record.signal.astype(int), strict=True))
    assert np.abs(signal["II"] - signal["I"] - signal["III"]).max() <= 1
    assert np.abs(signal["aVR"] + (signal["I"] + signal["II"]) / 2).max() <= 1


def test_a_public_recording_equals_its_dicom_twin(shared_data):
    path = shared_data / "real_files" / "ecgtoolkit_Example.dcm"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    record = read_recording(EXAMPLE)
    assert np.array_equal(record.signal, read_recording(path, leads=list(record.leads)).signal)
