from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecg_transformers.data.formats.wfdb_header import parse_header, read_header
from ecg_transformers.data.formats.wfdb_reader import read_record
from ecg_transformers.data.records import INVALID_SAMPLE


def assert_equals_library(path):
    record, _ = read_record(path)
    expected = wfdb.rdrecord(str(path))
    assert record.sampling_rate == expected.fs
    assert len(record.leads) == expected.n_sig
    scale = np.nanmax(np.abs(expected.p_signal))
    np.testing.assert_allclose(record.to_millivolts(), expected.p_signal.T, rtol=0, atol=3e-7 * scale)
    if record.gain is not None:
        digital = wfdb.rdrecord(str(path), physical=False).d_signal - np.array(expected.baseline)
        missing = record.signal == INVALID_SAMPLE
        np.testing.assert_array_equal(np.where(missing, 0, record.signal), np.where(missing, 0, digital.T))


def write_with_library(folder, fmt, num_samples=101, gain=200.0, **options):
    generator = np.random.default_rng(0)
    signal = generator.integers(-100, 100, size=(num_samples, 2))
    wfdb.wrsamp(
        "made",
        fs=250,
        units=["mV", "mV"],
        sig_name=["I", "II"],
        d_signal=signal,
        fmt=[fmt, fmt],
        adc_gain=[gain, gain],
        baseline=[0, 0],
        write_dir=str(folder),
        **options,
    )
    return folder / "made"


@pytest.mark.parametrize("number", [1, 2, 3, 8, 9])
def test_format_16_equals_the_library_sample_by_sample(wfdb_fixtures, number):
    assert_equals_library(wfdb_fixtures / f"ptb-xl/records100/00000/{number:05d}_lr")


@pytest.mark.parametrize("num_samples", [1, 2, 101])
def test_format_212_equals_the_library_sample_by_sample(tmp_path, num_samples):
    assert_equals_library(write_with_library(tmp_path, "212", num_samples))


@pytest.mark.parametrize("fmt", ["80", "24", "32"])
def test_other_formats_are_read_through_the_library(tmp_path, fmt):
    assert_equals_library(write_with_library(tmp_path, fmt))


def test_header_date_that_the_library_cannot_parse_is_read(wfdb_fixtures):
    path = wfdb_fixtures / "cinc/E00015"
    with pytest.raises(ValueError):
        wfdb.rdrecord(str(path))
    record, comments = read_record(path)
    assert record.signal.shape == (12, 1000)
    assert comments[0] == "Age: 71"


def test_matlab_file_of_the_challenges_starts_after_24_bytes(wfdb_fixtures):
    path = wfdb_fixtures / "cinc/E00015"
    record, _ = read_record(path)
    matrix = np.fromfile(path.with_suffix(".mat"), dtype="<i2", offset=24).reshape(-1, 12)
    np.testing.assert_array_equal(record.signal, matrix.T)
    np.testing.assert_allclose(record.gain, 1e-3)


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        ("200", 100 / 200),
        ("0", 100 / 200),
        ("1000(100)/mV", 0.0),
        ("2/uV", 0.05),
        ("1e3(-100)/mV", 0.2),
        ("0.1/nV", 0.001),
        ("100/V", 1000.0),
    ],
)
def test_gain_baseline_and_unit_give_millivolts(write_record, gain, expected):
    record, _ = read_record(write_record(steps=np.full((2, 4), 100), gain=gain))
    np.testing.assert_allclose(record.to_millivolts(), expected, rtol=1e-6, atol=1e-12)


def test_adc_zero_stands_in_for_a_missing_baseline():
    header = parse_header("100 1 360 10\n100.dat 212 200 11 1024 995 -22131 0 MLII")
    assert header.signals[0].baseline == 1024


def test_channel_without_a_unit_is_in_millivolts():
    assert parse_header("r 1 500 10\nr.dat 16 2000 16 0 0 0 0 i").signals[0].unit == "mV"


def test_invalid_samples_become_nan_not_huge_numbers(write_record):
    steps = np.arange(100).reshape(2, 50)
    steps[1, 7] = -32768
    record, _ = read_record(write_record(steps=steps))
    assert record.num_missing_samples == 1
    assert np.isnan(record.to_millivolts()[1, 7])
    assert np.nanmax(np.abs(record.to_millivolts())) < 1


def test_invalid_samples_of_format_212_become_nan(tmp_path):
    path = write_with_library(tmp_path, "212", 10)
    content = bytearray(path.with_suffix(".dat").read_bytes())
    content[0], content[1] = 0x00, (content[1] & 0xF0) | 0x08  # -2048 as the first sample
    path.with_suffix(".dat").write_bytes(content)
    record, _ = read_record(path, verify_checksum=False)
    assert record.signal[0, 0] == INVALID_SAMPLE


def test_length_follows_from_the_file_where_the_header_is_silent(write_record):
    path = write_record()
    header = path.with_suffix(".hea")
    header.write_text(header.read_text().replace("r1 2 100 50", "r1 2 100"))
    assert read_record(path)[0].signal.shape == (2, 50)


def test_channels_in_several_files_are_put_together(write_record):
    first, second = write_record("a", leads=("I", "II")), write_record("b", leads=("V1", "V2"))
    lines = [path.with_suffix(".hea").read_text().splitlines()[1:] for path in (first, second)]
    both = first.with_name("both.hea")
    both.write_text("\n".join(["both 4 100 50", *lines[0], *lines[1]]))
    record, _ = read_record(both)
    assert record.leads == ("I", "II", "V1", "V2")
    np.testing.assert_array_equal(record.signal[:2], record.signal[2:])


def test_multi_segment_record_is_read_through_the_library(write_record):
    first, _ = write_record("a"), write_record("b")
    multi = first.with_name("multi.hea")
    multi.write_text("multi/2 2 100 100\na 50\nb 50\n")
    assert_equals_library(multi.with_suffix(""))


def test_wrong_checksum_is_refused(write_record):
    path = write_record(checksums=[1, 2])
    with pytest.raises(ValueError, match="Checksum of channel 'I'"):
        read_record(path)
    assert read_record(path, verify_checksum=False)[0].signal.shape == (2, 50)


def test_checksums_that_are_all_zero_count_as_not_stated(write_record):
    assert read_record(write_record(checksums=[0, 0]))[0].signal.shape == (2, 50)


@pytest.mark.parametrize(
    "file_name", ["../secret.dat", "/etc/passwd", "a/../../secret.dat", "..\\secret.dat", "C:\\secret.dat", "~/x.dat"]
)
@pytest.mark.parametrize("storage_format", ["16", "80"])
def test_header_cannot_name_a_file_outside_its_folder(tmp_path, file_name, storage_format):
    (tmp_path / "secret.dat").write_bytes(bytes(400))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/r.hea").write_text(f"r 1 100 50\n{file_name} {storage_format} 200 16 0 0 0 0 I\n")
    with pytest.raises(ValueError, match="not inside the folder"):
        read_record(tmp_path / "in/r")


def test_segment_cannot_lie_outside_the_folder(tmp_path):
    (tmp_path / "r.hea").write_text("r/1 1 100 50\n../other 50\n")
    with pytest.raises(ValueError, match="not inside the folder"):
        read_record(tmp_path / "r")


def test_truncated_signal_file_is_refused(write_record):
    path = write_record()
    path.with_suffix(".dat").write_bytes(bytes(150))
    with pytest.raises(ValueError, match="truncated"):
        read_record(path)


def test_signal_file_without_bytes_is_refused(write_record):
    path = write_record()
    path.with_suffix(".dat").write_bytes(b"")
    with pytest.raises(ValueError, match="truncated or empty"):
        read_record(path)


def test_missing_signal_file_is_refused(write_record):
    path = write_record()
    path.with_suffix(".dat").unlink()
    with pytest.raises(ValueError, match="Cannot read signal file"):
        read_record(path)


def test_missing_header_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Cannot read header file"):
        read_record(tmp_path / "nothing")


def test_promised_length_is_compared_with_the_file_before_memory_is_taken(tmp_path):
    for storage_format in ("16", "212", "32"):
        (tmp_path / "r.hea").write_text(f"r 1 100 999999999999\nr.dat {storage_format} 200 16 0 0 0 0 I\n")
        (tmp_path / "r.dat").write_bytes(bytes(100))
        with pytest.raises(ValueError, match="truncated"):
            read_record(tmp_path / "r")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header is empty"),
        ("# only a comment\n", "header is empty"),
        ("r 2\n", "first line"),
        ("r two 100 10\n", "numbers in the first line"),
        ("r 0 100 10\n", "channels"),
        ("r 9999999 100 10\n", "channels"),
        ("r 1 0 10\nr.dat 16\n", "sampling rate > 0"),
        ("r 1 nan 10\nr.dat 16\n", "sampling rate > 0"),
        ("r 1 100 -5\nr.dat 16\n", "number of samples"),
        ("r 2 100 10\nr.dat 16\n", "2 signal lines, got 1"),
        ("r 1 100 10\nr.dat\n", "file format"),
        ("r 1 100 10\nr.dat sixteen\n", "a format such as"),
        ("r 1 100 10\nr.dat 16 much/mV\n", "gain"),
        ("r 1 100 10\nr.dat 16 200 16 0 0 x 0 I\n", "whole numbers"),
    ],
)
def test_malformed_header_is_refused_with_a_reason(text, message):
    with pytest.raises(ValueError, match=message):
        parse_header(text)


def test_channel_that_is_no_voltage_is_refused(write_record):
    with pytest.raises(ValueError, match="Unknown unit 'mmHg'"):
        read_record(write_record(gain="10/mmHg"))


def test_channels_are_renamed_only_where_the_caller_says_so(write_record):
    path = write_record(leads=("MLII", "V5"))
    assert read_record(path)[0].leads == ("MLII", "V5")
    assert read_record(path, rename_leads={"MLII": "II"})[0].leads == ("II", "V5")


def test_byte_noise_in_a_header_never_raises_anything_but_a_value_error(wfdb_fixtures, tmp_path):
    original = (wfdb_fixtures / "cinc/E00015.hea").read_bytes()
    (tmp_path / "E00015.mat").write_bytes((wfdb_fixtures / "cinc/E00015.mat").read_bytes())
    generator = np.random.default_rng(0)
    for _ in range(300):
        noisy = bytearray(original)
        for position in generator.integers(0, 200, size=3):
            noisy[position] = generator.integers(0, 256)
        (tmp_path / "E00015.hea").write_bytes(noisy)
        try:
            read_record(tmp_path / "E00015")
        except ValueError:
            pass


@pytest.mark.parametrize("corpus", ["ptb-xl", "cinc2017", "cinc2021", "code-15", "cpsc2021", "ludb", "ptbdb", "mitdb"])
def test_shared_recordings_equal_the_library(shared_data, corpus):
    headers = sorted((shared_data / corpus).rglob("*.hea"))
    headers = [path for path in headers if path.parent.name != "original_headers"]
    for path in headers[:: max(1, len(headers) // 4)]:
        assert_equals_library(path.with_suffix(""))


def test_original_headers_of_cinc2017_are_read(shared_data):
    for path in sorted((shared_data / "cinc2017/original_headers").glob("*.hea")):
        assert read_header(path).sampling_rate == 300


@pytest.mark.slow
def test_every_shared_recording_equals_the_library(shared_data):
    for path in sorted(Path(shared_data).rglob("*.hea")):
        if path.parent.name != "original_headers":
            assert_equals_library(path.with_suffix(""))


@pytest.mark.parametrize(
    "text",
    [
        "r 1 0.0000001 500\nr.dat 16 200/mV 16 0 0 0 0 I\n",
        "r 1 1e9 500\nr.dat 16 200/mV 16 0 0 0 0 I\n",
        "r 1 500 500\nr.dat 16:999999999 200/mV 16 0 0 0 0 I\n",
        "r 1 500 500\nr.dat 16x99999 200/mV 16 0 0 0 0 I\n",
        "r/99999999999 1 500 100\n",
    ],
    ids=["slow", "fast", "skew", "frame", "segments"],
)
def test_a_header_does_not_decide_how_much_memory_is_asked_for(text):
    from ecg_transformers.data.formats.wfdb_header import parse_header

    with pytest.raises(ValueError, match="Expected"):
        parse_header(text)


@pytest.mark.parametrize("num_samples", [200_000, 10**9, 10**15])
def test_segments_cannot_ask_for_more_memory_than_their_files_stand_for(write_record, num_samples):
    path = write_record("part").with_name("whole")
    path.with_suffix(".hea").write_text(f"whole/2 2 100 {num_samples}\npart 50\n~ {num_samples - 50}\n")
    with pytest.raises(ValueError, match="declares the shape"):
        read_record(path)
