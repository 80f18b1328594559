from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_transformers.data.formats import wfdb_header, wfdb_reader
from ecg_transformers.data.formats.wfdb_header import parse_header
from ecg_transformers.data.formats.wfdb_reader import read_record
from ecg_transformers.data.formats.wfdb_samples import INVALID
from ecg_transformers.data.records import INVALID_SAMPLE


def assert_equals_library(path):
    record, _ = read_record(path, leads=range(wfdb.rdheader(str(path)).n_sig))
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
    signal = np.random.default_rng(0).integers(-100, 100, size=(num_samples, 2))
    options |= {"units": ["mV"] * 2, "sig_name": ["I", "II"], "fmt": [fmt] * 2, "adc_gain": [gain] * 2}
    wfdb.wrsamp("made", fs=250, d_signal=signal, baseline=[0, 0], write_dir=str(folder), **options)
    return folder / "made"


@pytest.mark.parametrize("number", [1, 2, 3, 8, 9])
def test_format_16_equals_the_library_sample_by_sample(wfdb_fixtures, number):
    assert_equals_library(wfdb_fixtures / f"ptb-xl/records100/00000/{number:05d}_lr")


@pytest.mark.parametrize(
    ("fmt", "num_samples"), [("212", 1), ("212", 2), *((fmt, 101) for fmt in ("212", "508", "516", "524"))]
)
def test_formats_of_odd_lengths_and_of_flac_equal_the_library_sample_by_sample(tmp_path, fmt, num_samples):
    assert_equals_library(write_with_library(tmp_path, fmt, num_samples))


@pytest.mark.parametrize("per_frame", [(1, 1), (3, 3), (4, 1)])
@pytest.mark.parametrize("fmt", ["8", "16", "24", "32", "61", "80", "160", "212", "310", "311"])
def test_random_bytes_in_every_format_equal_the_library_at_every_rate(tmp_path, fmt, per_frame):
    num_frames, skews = 37, ("", "") if fmt == "8" else ("", ":2")
    lines = [f"r 2 50 {num_frames}"]
    for name, per, skew in zip(("I", "II"), per_frame, skews, strict=True):
        lines.append(f"r.dat {fmt}x{per}{skew} 100(3)/mV 16 0 5 0 0 {name}")
    (tmp_path / "r.hea").write_text("\n".join(lines) + "\n")
    content = np.random.default_rng(0).integers(0, 256, size=4 * num_frames * sum(per_frame), dtype=np.uint8)
    if fmt == "311":
        content[3::4] &= 0x3F  # two bits that the format leaves unused
    content.tofile(tmp_path / "r.dat")
    if fmt == "61":  # the library stops at it: the same as format 16 with bytes in the other order
        content.view("<i2").byteswap().tofile(tmp_path / "s.dat")
    header = (tmp_path / "r.hea").read_text().replace(" 61x", " 16x")
    (tmp_path / "s.hea").write_text(header.replace("r.dat", "s.dat" if fmt == "61" else "r.dat"))
    expected = wfdb.rdrecord(str(tmp_path / "s"), smooth_frames=False, physical=False, ignore_skew=True).e_d_signal
    for position, (per, skew) in enumerate(zip(per_frame, skews, strict=True)):
        record, _ = read_record(tmp_path / "r", leads=[position])
        steps = expected[position].astype(np.float64)[2 * per * bool(skew) :]
        steps[steps == INVALID.get(fmt, np.nan)] = np.nan
        filled = np.concatenate([steps, np.full(2 * per * bool(skew), np.nan)])
        assert record.sampling_rate == 50 * per
        np.testing.assert_allclose(record.to_millivolts()[0], (filled - 3) / 100, rtol=1e-6, atol=1e-6)


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
        *(("200", 100 / 200), ("1000(100)/mV", 0.0), ("2/uV", 0.05), ("1e3(-100)/mV", 0.2), ("0.1/nV", 0.001)),
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


def test_segments_of_one_layout_equal_the_library(write_record):
    first, _ = write_record("a"), write_record("b", gain="500(7)/mV")
    multi = first.with_name("multi.hea")
    multi.write_text("multi/2 2 100 100\na 50\nb 50\n")
    assert_equals_library(multi.with_suffix(""))


def test_gaps_between_segments_are_missing_samples_and_each_segment_has_its_own_unit(write_record):
    first, second = write_record("a"), write_record("b", gain="500(7)/uV")
    multi = first.with_name("multi.hea")
    multi.write_text("multi/4 2 100 130\na 50\n~ 20\nb 50\n~ 10\n")
    signal = read_record(multi)[0].signal
    assert np.isnan(signal[:, 50:70]).all() and np.isnan(signal[:, 120:]).all()
    for path, part in ((first, signal[:, :50]), (second, signal[:, 70:120])):
        np.testing.assert_allclose(part, read_record(path)[0].to_millivolts(), rtol=1e-6)


def test_segments_of_different_channels_equal_the_library(write_record):
    first, _ = write_record("a", leads=("I", "II")), write_record("b", leads=("V1", "I"), gain="500(7)/mV")
    first.with_name("layout.hea").write_text(
        "layout 3 100 0\n~ 0 200/mV 12 0 0 0 0 I\n~ 0 200/mV 12 0 0 0 0 II\n~ 0 200/mV 12 0 0 0 0 V1\n"
    )
    multi = first.with_name("multi.hea")
    multi.write_text("multi/5 3 100 120\nlayout 0\na 50\n~ 10\nb 50\n~ 10\n")
    assert_equals_library(multi.with_suffix(""))
    record, _ = read_record(multi.with_suffix(""), leads=["V1"])
    assert np.isnan(record.signal[0, :60]).all() and np.isfinite(record.signal[0, 60:110]).all()


def test_segments_with_channels_that_are_no_ecg_give_the_ecg(write_record):
    first = write_record("a", leads=("II", "ABP"))
    header = first.with_suffix(".hea")
    header.write_text(header.read_text().replace("1000(0)/mV 16 0 50", "10/mmHg 16 0 50"))
    first.with_name("multi.hea").write_text("multi/2 2 100 60\na 50\n~ 10\n")
    record, _ = read_record(first.with_name("multi"))
    assert record.leads == ("II",) and "ABP (mmHg)" in record.notes[0]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("storage_format", ["16", "16x2", "80", "16:1"])
def test_a_micro_sign_means_microvolts_whatever_the_encoding(tmp_path, encoding, storage_format):
    (tmp_path / "r.dat").write_bytes(np.full(40, 0x6464, dtype="<i2").tobytes())
    (tmp_path / "r.hea").write_text(f"r 1 100 10\nr.dat {storage_format} 1/µV 16 0 0 0 0 II\n", encoding=encoding)
    record, _ = read_record(tmp_path / "r")
    assert 0.01 < np.nanmax(np.abs(record.to_millivolts())) < 30


@pytest.mark.parametrize("unit", ["°", "\ufffdV", "ľV", "kV", "NU", "mmHg"])
def test_a_unit_of_a_lead_that_is_not_understood_is_refused(write_record, unit):
    path = write_record(gain="1/?")
    header = path.with_suffix(".hea")
    header.write_text(header.read_text().replace("1/?", f"1/{unit}"), encoding="utf-8")
    with pytest.raises(ValueError, match="Unknown unit of I"):
        read_record(path)


def test_a_channel_in_degrees_beside_a_lead_is_left_out_by_name(write_record):
    path = write_record(leads=("II", "Belt"))
    header = path.with_suffix(".hea")
    header.write_text(header.read_text().replace("1000(0)/mV 16 0 50", "1/° 16 0 50"), encoding="latin-1")
    record, _ = read_record(path)
    assert record.leads == ("II",) and "Belt (°)" in record.notes[0]


@pytest.mark.parametrize("gain", ["0", "0/mV", "0(0)"])
def test_an_uncalibrated_channel_needs_a_declaration(write_record, gain):
    path = write_record(steps=np.full((2, 4), 100), gain=gain)
    with pytest.raises(ValueError, match="uncalibrated.*step= and unit="):
        read_record(path)
    record, _ = read_record(path, step=0.005, unit="mV")
    np.testing.assert_allclose(record.to_millivolts(), 0.5)
    with pytest.raises(ValueError, match=r"leave out step="):
        read_record(write_record("other"), step=0.005)


def test_the_rate_of_most_ecg_channels_wins_and_the_others_are_named(tmp_path):
    lines = [f"r.dat 16x{per} 200 16 0 0 0 0 {name}" for per, name in ((100, "I"), (100, "II"), (50, "V1"))]
    (tmp_path / "r.hea").write_text("\n".join(["r 3 1 20", *lines]))
    np.arange(5000, dtype="<i2").tofile(tmp_path / "r.dat")
    record, _ = read_record(tmp_path / "r")
    assert (record.leads, record.sampling_rate, record.signal.shape) == (("I", "II"), 100, (2, 2000))
    assert "V1 (mV, 50 Hz)" in record.notes[0]
    assert read_record(tmp_path / "r", leads=["V1"])[0].sampling_rate == 50
    with pytest.raises(ValueError, match="Choose those of one rate"):
        read_record(tmp_path / "r", leads=["V1", "I"])


def test_a_record_name_may_have_the_folder_of_its_files(write_record):
    path = write_record("00003")
    header = path.with_suffix(".hea")
    header.write_text(header.read_text().replace("00003", "medians/00003"))
    assert read_record(path)[0].signal.shape == (2, 50)
    path.with_suffix(".dat").unlink()
    with pytest.raises(ValueError, match="Cannot read"):
        read_record(path)


def test_channels_of_one_name_are_numbered_and_chosen_by_position(write_record):
    path = write_record(leads=("ECG", "ECG"))
    assert read_record(path)[0].leads == ("ECG", "ECG_2")
    assert read_record(path, leads=[1])[0].signal[0, 0] == 50
    assert read_record(path, rename_leads="channel_0:II,ECG_2:V5")[0].leads == ("II", "V5")
    path = write_record(leads=("", ""))
    assert read_record(path)[0].leads == ("channel_0", "channel_1")


def test_a_lead_that_comes_twice_is_refused_until_a_position_is_named(write_record):
    path = write_record(leads=("II", "II"))
    with pytest.raises(ValueError, match="different name for every channel"):
        read_record(path)
    with pytest.raises(ValueError, match="comes 2 times.*position"):
        read_record(path, leads=["II"])
    assert read_record(path, leads=[0])[0].leads == ("II",)


def test_names_that_the_file_lacks_are_said(write_record):
    path = write_record()
    record, _ = read_record(path, rename_leads={"MLII": "II"})
    assert "'MLII', which the file lacks" in record.notes[0]
    with pytest.raises(ValueError, match=r"\['V9'\] are not among its channels I \(mV\), II \(mV\)"):
        read_record(path, leads=["V9"])


def test_wrong_checksum_is_refused_and_zeros_count_as_not_stated(write_record):
    path = write_record(checksums=[1, 2])
    with pytest.raises(ValueError, match="Checksum of channel 'I'"):
        read_record(path)
    assert read_record(path, verify_checksum=False)[0].signal.shape == (2, 50)
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


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        (".dat", bytes(150), "truncated"),
        (".dat", b"", "truncated or empty"),
        (".dat", None, "Cannot read"),
        (".hea", None, "Cannot read"),
    ],
)
def test_truncated_and_missing_files_are_refused(write_record, ending, content, message):
    path = write_record()
    path.with_suffix(ending).unlink()
    if content is not None:
        path.with_suffix(ending).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_record(path)


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
        # Headers that ask for much memory.
        ("r 1 0.0000001 500\nr.dat 16 200/mV 16 0 0 0 0 I\n", "Expected"),
        ("r 1 1e9 500\nr.dat 16 200/mV 16 0 0 0 0 I\n", "Expected"),
        ("r 1 500 500\nr.dat 16:999999999 200/mV 16 0 0 0 0 I\n", "Expected"),
        ("r 1 500 500\nr.dat 16x99999 200/mV 16 0 0 0 0 I\n", "Expected"),
        ("r/99999999999 1 500 100\n", "Expected"),
    ],
)
def test_malformed_header_is_refused_with_a_reason(text, message):
    with pytest.raises(ValueError, match=message):
        parse_header(text)


def outcome(path, **options):
    """What a record holds and its notes, or why it is refused."""
    try:
        record, comments = read_record(path, **options)
    except ValueError as error:
        return str(error)
    gain = None if record.gain is None else record.gain.tolist()
    facts = [record.leads, record.sampling_rate, record.unit, gain, record.notes, comments, record.signal.dtype]
    return [*map(str, facts), record.signal.tolist()]


def test_records_of_a_known_layout_are_read_and_refused_as_step_by_step(tmp_path, monkeypatch):
    """Step by step is the slow way: line by line, and channel by channel."""
    choices = [
        ["r.dat", "r.dat", "r.dat", "other.dat", "../r.dat", "sub/r.dat"],
        ["16", "16", "16", "16", "16x2", "16+24", "16:1", "212", "8", "61", "17", "x"],
        ["1000(0)/mV", "1000(0)/mV", "200", "0", "1(-3)/uV", "2(70000)/V", "-5/mV", "5/mmHg", "1e999/mV", "/"],
        ["16", "0"],
        ["0", "0", "12", "x"],
        ["0", "99999999999"],
        ["right", "right", "right", "negative", "7", "0", "x"],
        ["0"],
        ["I", "II", "V1", "V1", "AVR", "ABP", "a name", ""],
    ]
    generator, seen = np.random.default_rng(1), []
    steps = generator.integers(-300, 300, (40, 2)).astype("<i2")
    steps[3] = INVALID_SAMPLE
    for name in ("r.dat", "other.dat"):
        (tmp_path / name).write_bytes(steps.tobytes())
    for number in range(300):
        lines = []
        for channel in range(2):
            usual = generator.random() < 0.8
            fields = [options[0 if usual else int(generator.integers(len(options)))] for options in choices]
            fields[8] = ("I", "II")[channel] if usual else fields[8]
            checksum = int(steps[:, channel].sum(dtype=np.int16))
            fields[6] = {"right": str(checksum & 0xFFFF), "negative": str(checksum)}.get(fields[6], fields[6])
            lines.append(" ".join(fields))
        text = "\n".join([f"r 2 {generator.choice([100, 250])} {generator.choice(['', '40', '39', '41'])}", *lines])
        (tmp_path / "r.hea").write_text(text + "\n# Age: 40\n" * (number % 2))
        options = [{}, {}, {"unit": "mV"}, {"rename_leads": "I:V2"}, {"unit": "dimensionless"}][number % 5]
        found = outcome(tmp_path / "r", **options)
        with monkeypatch.context() as patch:
            patch.setattr(wfdb_reader, "_plain_layout", lambda *_: None)
            patch.setattr(wfdb_header, "_parse_signals", lambda lines: [*map(wfdb_header._parse_signal, lines)])
            patch.setattr(wfdb_header, "_KNOWN_LAYOUTS", [])
            assert found == outcome(tmp_path / "r", **options), text
        seen.append(isinstance(found, list))
    assert 30 < sum(seen) < 270


HEADERS = [
    "a 2 500 5000\nr.dat 16 200(0)/mV 16 0 -5 77 0 I\nr.dat 16 200(0)/mV 16 0 9 -8 0 II x\n# Age: 4\n",
    "b 1 250\r\nr.mat 16+24 1000/uV 0 0 1 2 0 V1",
    "c 2 100 30 10:00:00 1/1/2000\n r.dat 80 20 8\t0 1 3 0 I\n\nq.dat 80 20 8 0 1 3 0 II",
    "d 2 100 30\n# Sex: M\nr.dat 61 20 8 3 1 0 0 V1\nr.dat 61 20 8 3 1 0 0 V1",
]
# What looks like the first: a record of segments, comments, a first line that ends before its number of samples.
SIMILAR = [("a", "m/2"), ("r.dat", "#r.dat"), (" 5000", " \x0b5000")]
PIECES = [
    *"# \t/+-0127:~\n",
    "\r",
    "\r\n",
    "\x0b",
    "\x1c",
    "\x85",
    "\u2028",
    "\u0663",
    "\n#",
    " 9",
    "r.dat",
    "q",
    "8x2",
    "",
]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(HEADERS + [HEADERS[0].replace(*pair) for pair in SIMILAR]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from(PIECES)), max_size=3),
)
def test_a_header_of_a_known_layout_is_the_one_that_is_parsed_anew(text, changes):
    for place, length, piece in changes:
        start = int(place * len(text))
        text = text[:start] + piece + text[start + length :]

    def outcome(known):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wfdb_header, "_KNOWN_LAYOUTS", known)
            try:
                header = parse_header(text)
                return header._replace(signals=list(header.signals))
            except ValueError as error:
                return str(error)

    known = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wfdb_header, "_KNOWN_LAYOUTS", known)
        for header in HEADERS:
            parse_header(header)
    assert len(known) == 3
    assert outcome(known) == outcome([])


@pytest.mark.parametrize("corpus", ["ptb-xl", "cinc2017", "cinc2021", "code-15", "cpsc2021", "ludb", "ptbdb", "mitdb"])
def test_shared_recordings_equal_the_library(shared_data, corpus):
    headers = sorted((shared_data / corpus).rglob("*.hea"))
    headers = [path for path in headers if path.parent.name != "original_headers"]
    for path in headers[:: max(1, len(headers) // 4)]:
        assert_equals_library(path.with_suffix(""))


@pytest.mark.slow
def test_every_shared_recording_equals_the_library(shared_data):
    for path in sorted(Path(shared_data).rglob("*.hea")):
        if path.parent.name != "original_headers" and "real_files" not in path.parts:  # some of which it misreads
            assert_equals_library(path.with_suffix(""))


@pytest.mark.parametrize("num_samples", [200_000, 10**9, 10**15])
def test_segments_cannot_ask_for_more_memory_than_their_files_stand_for(write_record, num_samples):
    path = write_record("part").with_name("whole")
    path.with_suffix(".hea").write_text(f"whole/2 2 100 {num_samples}\npart 50\n~ {num_samples - 50}\n")
    with pytest.raises(ValueError, match="declares the shape"):
        read_record(path)
