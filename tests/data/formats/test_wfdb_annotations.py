import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_transformers.data.formats.wfdb_annotations import parse_annotations, read_annotations

LUDB_LEADS = "i ii iii avr avl avf v1 v2 v3 v4 v5 v6".split()
END = b"\0\0"


def word(code: int, value: int) -> bytes:
    return (code << 10 | value).to_bytes(2, "little")


def assert_equals_wfdb(path):
    import wfdb

    ours, theirs = read_annotations(path), wfdb.rdann(str(path.with_suffix("")), path.suffix[1:])
    assert len(ours.samples) > 0
    assert np.array_equal(ours.samples, theirs.sample)
    assert ours.symbols == list(theirs.symbol)
    assert ours.notes == [note.rstrip("\0") for note in theirs.aux_note]


@pytest.mark.parametrize("name", ["mitdb/100.atr", "mitdb/208.atr", "cpsc2021/data_8_4.atr"])
def test_beats_and_rhythms_equal_those_of_wfdb(shared_data, name):
    assert_equals_wfdb(shared_data / name)


def test_waves_of_every_lead_equal_those_of_wfdb(shared_data):
    for lead in LUDB_LEADS:
        assert_equals_wfdb(shared_data / "ludb" / "data" / f"34.{lead}")


@pytest.mark.slow
def test_annotations_of_every_tenth_subject_and_all_others_equal_those_of_wfdb(shared_data):
    paths = [*shared_data.glob("*/*.atr")]
    paths += [shared_data / "ludb" / "data" / f"{n}.{lead}" for n in range(5, 151, 10) for lead in LUDB_LEADS]
    assert len(paths) > 190
    for path in paths:
        assert_equals_wfdb(path)


def test_long_gaps_texts_and_fields_are_read_as_wfdb_writes_them(tmp_path):
    import wfdb

    wfdb.wrann(
        "r",
        "atr",
        sample=np.array([5, 5, 900, 400_000, 40_000_000]),
        symbol=["+", "N", "V", "~", "/"],
        subtype=np.array([0, 0, 3, -1, 0]),
        chan=np.array([0, 1, 1, 0, 0]),
        num=np.array([0, 2, 0, 0, 1]),
        aux_note=["(AFIB", "", "odd", "", "even"],
        write_dir=str(tmp_path),
    )
    assert_equals_wfdb(tmp_path / "r.atr")


def test_notes_of_the_file_about_itself_are_left_out(tmp_path):
    import wfdb

    samples = np.array([7, 90])
    wfdb.wrann("r", "atr", sample=samples, symbol=["N", "N"], fs=200, write_dir=str(tmp_path))
    assert b"time resolution" in (tmp_path / "r.atr").read_bytes()
    assert read_annotations(tmp_path / "r.atr").samples.tolist() == [7, 90]
    assert_equals_wfdb(tmp_path / "r.atr")


def test_file_that_is_cut_off_is_refused():
    assert parse_annotations(word(1, 10) + word(5, 3) + END).symbols == ["N", "V"]
    with pytest.raises(ValueError, match="cut off"):
        parse_annotations(word(1, 10) + word(5, 3))
    with pytest.raises(ValueError, match="within a long interval"):
        parse_annotations(word(59, 0) + b"\0\0")
    with pytest.raises(ValueError, match="within a text"):
        parse_annotations(word(1, 10) + word(63, 9) + b"(N")


def test_unknown_code_is_refused():
    with pytest.raises(ValueError, match="got 50 after sample 10"):
        parse_annotations(word(1, 10) + word(50, 3) + END)


def test_missing_file_is_refused_with_its_name(tmp_path):
    with pytest.raises(ValueError, match="r.atr: No such file"):
        read_annotations(tmp_path / "r.atr")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    try:
        found = parse_annotations(content)
    except ValueError:
        return
    assert len(found.samples) == len(found.symbols) == len(found.notes)
