import csv
import json
import os

import numpy as np
import pytest
import wfdb

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.prepare import prepare_corpus

SPLITS = ("train", "validation", "test")
NUM_RECORDS = 36


def write_table(folder, lines, name="records.csv", delimiter=","):
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture(scope="module")
def carried():
    return load_ecg("ptb-xl-sample", split="all").select(range(NUM_RECORDS))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, carried):
    """Carried recordings as WFDB, CSV and npy in turn, in folders of their own; some patients have several."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "recordings").mkdir()
    lines = []
    for number, row in enumerate(carried):
        ecg, name = row["ecg"], f"r{row['record_id']}"
        signal, path = ecg["signal"].astype(np.float64), folder / "recordings" / name
        line = {"file": f"recordings/{name}", "person": f"p{number // 2}", "findings": "; ".join(row["labels"])}
        line |= {"leads": "", "sampling_rate": "", "unit": "", "axes": "", "years": row["age"], "sex": row["sex"]}
        if number % 3 == 0:
            wfdb.wrsamp(name, 100, ["mV"] * 12, ecg["leads"], signal.T, fmt=["16"] * 12, write_dir=str(path.parent))
        elif number % 3 == 1:
            header = ",".join(ecg["leads"])
            np.savetxt(f"{path}.csv", signal.T, delimiter=",", header=header, comments="", fmt="%.6f")
            line |= {"file": f"recordings/{name}.csv", "sampling_rate": 100, "unit": "mV"}
        else:
            np.save(f"{path}.npy", (signal * 1000).T)
            line |= {"file": f"recordings/{name}.npy", "sampling_rate": 100, "unit": "uV", "axes": "sample,lead"}
            line |= {"leads": " ".join(ecg["leads"])}
        lines.append(line)
    write_table(folder, lines)
    declared = {"path": "file", "patient_id": "person", "labels": "findings", "label_separator": ";", "age": "years"}
    (folder / "ecgfolder.json").write_text(json.dumps(declared))
    return folder


@pytest.fixture
def plain(tmp_path):
    """Four npy files of two leads and a table of them; returns the folder and what has to be declared."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for number in range(4):
        np.save(folder / f"r{number}.npy", np.random.default_rng(number).normal(size=(2, 500)))

    def write(*changes, **options):
        lines = [{"path": f"r{number}.npy", "patient_id": f"p{number}", "labels": "MI"} for number in range(4)]
        for number, change in enumerate(changes):
            lines[number] |= change
        keys = dict.fromkeys(key for line in lines for key in line)
        write_table(folder, [{key: line.get(key, "") for key in keys} for line in lines])
        declared = {"leads": ["I", "II"], "sampling_rate": 250, "unit": "mV", "axes": "lead,sample"} | options
        return folder, {name: value for name, value in declared.items() if value is not None}

    return write


@pytest.fixture
def load(tmp_path):
    """Loads `ecgfolder` with a cache of its own."""
    return lambda folder, split="all", **options: load_ecg(
        "ecgfolder", folder, split, cache_dir=tmp_path / "cache", **options
    )


def test_a_folder_of_several_formats_loads_with_table_and_declaration(mixed, load, carried):
    rows = {row["path"]: row for row in load(mixed)}
    assert len(rows) == NUM_RECORDS
    for number, original in enumerate(carried):
        ending = ("", ".csv", ".npy")[number % 3]
        row = rows[f"recordings/r{original['record_id']}{ending}"]
        assert row["ecg"]["leads"] == original["ecg"]["leads"] and row["ecg"]["sampling_rate"] == 100
        np.testing.assert_allclose(row["ecg"]["signal"], original["ecg"]["signal"], atol=2e-3)
        assert row["labels"] == original["labels"] and row["patient_id"] == f"p{number // 2}"
        assert row["record_id"] == f"recordings/r{original['record_id']}"
        assert (row["age"], row["sex"], row["source"]) == (original["age"], original["sex"], "ecgfolder")


def test_splits_share_no_patient_and_have_about_the_usual_shares(mixed, load):
    patients = {split: set(load(mixed, split)["patient_id"]) for split in SPLITS}
    assert not patients["train"] & patients["validation"] and not patients["train"] & patients["test"]
    assert not patients["validation"] & patients["test"]
    assert len(set().union(*patients.values())) == NUM_RECORDS // 2 and len(patients["train"]) > NUM_RECORDS // 4


def test_a_stream_gives_the_rows_of_the_stored_dataset(mixed, load):
    stored = {row["record_id"]: row for row in load(mixed, "train", decode=False)}
    streamed = {row["record_id"]: row for row in load(mixed, "train", decode=False, streaming=True)}
    assert stored == streamed and len(stored) > 0


def test_label_names_are_those_in_the_column_or_the_columns_declared(mixed, plain):
    assert label_names("ecgfolder", mixed) == ("CD", "HYP", "MI", "NORM", "STTC")
    folder, options = plain(*({"b": number % 2, "a": 1} for number in range(4)), labels=["b", "a"])
    assert label_names("ecgfolder", folder, **options) == ("b", "a")
    with pytest.raises(ValueError, match="declares no classes"):
        label_names("ecgfolder", folder, **options | {"labels": ""})


def test_columns_of_0_and_1_are_labels(plain, load):
    folder, options = plain(*({"b": number % 2, "a": "1.0"} for number in range(4)), labels=["b", "a"])
    found = {row["record_id"]: row["labels"] for row in load(folder, **options)}
    assert found == {"r0": ["a"], "r1": ["b", "a"], "r2": ["a"], "r3": ["b", "a"]}


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [("split", ["train", "val", "Test", "validation"], [0, 1, 2, 1]), ("fold", ["8", "9.0", "10", "1"], [0, 1, 2, 0])],
)
def test_a_stated_split_counts(plain, load, column, values, expected):
    folder, options = plain(*({column: value} for value in values))
    found = {name: split for split, part in enumerate(SPLITS) for name in load(folder, part, **options)["record_id"]}
    assert found == {f"r{number}": split for number, split in enumerate(expected)}


def test_a_patient_in_two_splits_is_named(plain, load):
    folder, options = plain(
        {"split": "train"}, {"split": "test", "patient_id": "p0"}, {"split": "train"}, {"split": "train"}
    )
    with pytest.raises(ValueError, match="patient 'p0' has recordings in the splits train and test"):
        load(folder, **options)


def test_without_patients_the_recordings_are_split_and_the_log_says_so(plain, load, caplog):
    folder, options = plain(patient_id="")
    assert len(load(folder, **options)) == 4
    assert "states no patient for 4 of 4 recordings" in caplog.text
    caplog.clear()
    folder, options = plain(*({"split": "train"} for _ in range(4)), patient_id="")
    load(folder, **options)
    assert not caplog.text


@pytest.mark.parametrize("absent", ["leads", "sampling_rate", "unit", "axes"])
def test_what_a_file_does_not_say_is_asked_for(plain, load, absent):
    folder, options = plain()
    del options[absent]
    with pytest.raises(ValueError, match=f"r0.*{absent}"):
        load(folder, on_bad_record="raise", **options)


def test_a_file_that_contradicts_the_declaration_is_a_bad_record(mixed, load):
    with pytest.raises(ValueError, match="500"):
        load(mixed, on_bad_record="raise", sampling_rate=500)


@pytest.mark.parametrize("codes", ["0:female,1:male", {"0": "F", "1": "male"}])
def test_codes_of_the_sex_are_read_as_declared(plain, load, codes):
    folder, options = plain({"sex": "0"}, {"sex": "1"}, {"sex": ""}, {"sex": "male"})
    assert load(folder, sex_codes=codes, **options)["sex"] == ["female", "male", None, "male"]


def test_options_count_before_the_declaration_and_before_columns(mixed, load):
    everyone = load(mixed, patient_id="", age="")
    assert set(everyone["patient_id"]) == {None} and set(everyone["age"]) == {None}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ([{"path": "../outside.npy"}], {}, r"line 2.*not inside.*[^.]\.$"),
        ([{"path": "/etc/passwd"}], {}, "line 2.*not inside"),
        ([{}, {"path": "r0.npy"}], {}, "line 3.*comes twice"),
        ([{"path": ""}], {}, "line 2.*names no file"),
        ([{"labels": "MI;NORM"}], {}, "declare label_separator=';'"),
        ([{"split": "trian"}], {}, "expected the split as one of"),
        ([{"fold": "11"}], {}, "expected a fold from 1 to 10"),
        ([{"sex": "1"}], {}, "say what codes mean by sex_codes="),
        ([{"sex": "2"}], {"sex_codes": "0:female,1:male"}, "expected the sex as"),
        ([{"sex": "1"}], {"sex_codes": {"1": "man"}}, "Expected sex_codes as code:sex"),
        ([{"sex": "1"}], {"sex_codes": "1"}, "Expected sex_codes as code:sex"),
        ([{"age": "old"}], {}, "line 2.*expected a number in the column 'age', got 'old'"),
        (
            [{"rate": "fast"}],
            {"sampling_rate": None, "sampling_rate_column": "rate"},
            "number in the column 'rate', got 'fast'",
        ),
        ([], {"labels": ["MI"]}, r"no columns \['MI'\] of labels"),
        ([{"MI": "yes"}], {"labels": ["MI"]}, "expected 0 or 1"),
        ([], {"patient_id": "subject"}, "no column 'subject', declared as patient_id"),
        ([], {"path": ""}, "no column `path`"),
        ([{"rate": "100"}], {"sampling_rate_column": "rate"}, "not both"),
        ([], {"leads": "I"}, "Expected leads as a list"),
        ([], {"table": "nosuch.csv"}, "There is no table"),
        ([], {"table": "../records.csv"}, "not inside"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(plain, load, changes, options, message):
    folder, options = plain(*changes, **options)
    with pytest.raises(ValueError, match=message):
        load(folder, **options)


def test_of_several_csv_files_the_table_is_asked_for(plain, load):
    folder, options = plain()
    (folder / "other.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match=r"holds 2 CSV files \(other.csv, records.csv\). Say by table=..."):
        load(folder, **options)
    assert len(load(folder, table="records.csv", **options)) == 4
    assert len(load(folder / "records.csv", **options)) == 4


def test_an_unknown_key_in_the_declaration_is_refused(plain, load):
    folder, options = plain()
    (folder / "ecgfolder.json").write_text('{"patient": "patient_id"}')
    with pytest.raises(ValueError, match=r"unknown keys \['patient'\]"):
        load(folder, **options)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_table_may_be_separated_by_semicolons_or_tabs(plain, load, delimiter):
    folder, options = plain()
    write_table(folder, [{"path": "r0.npy", "labels": "MI"}], delimiter=delimiter)
    assert load(folder, **options)["labels"] == [["MI"]]


def test_a_line_of_another_length_is_refused(plain, load):
    folder, options = plain()
    with open(folder / "records.csv", "a") as file:
        file.write("r9.npy,p9\n")
    with pytest.raises(ValueError, match="line 6, has not as many cells as the header, 3"):
        load(folder, **options)


def test_a_changed_table_is_read_again(plain, load):
    folder, options = plain()
    assert set(sum(load(folder, **options)["labels"], [])) == {"MI"}
    plain({"labels": "NORM"})
    os.utime(folder / "records.csv", ns=(1, 1))  # whatever the resolution of the clock
    assert set(sum(load(folder, **options)["labels"], [])) == {"MI", "NORM"}


def test_a_missing_file_is_reported_and_the_others_load(plain, load, caplog):
    folder, options = plain()
    (folder / "r2.npy").unlink()
    assert sorted(load(folder, **options)["record_id"]) == ["r0", "r1", "r3"]
    assert "r2" in caplog.text


def test_ids_lose_the_point_that_a_table_of_floats_gave_them(plain, load):
    folder, options = plain({"patient_id": "17.0"})
    assert "17" in load(folder, **options)["patient_id"]


def test_a_table_without_labels_is_said_to_have_none(plain, load, caplog, tmp_path):
    folder, declared = plain(*[{"labels": "", "lables": "MI"}] * 4)
    table = folder / "records.csv"
    table.write_text(table.read_text().replace("labels", "unused", 1))
    load(folder, **declared)
    assert "has no column `labels`" in caplog.text and "lables" in caplog.text
    with pytest.raises(ValueError, match="no column `labels`, or an empty one. Say by the option labels="):
        label_names("ecgfolder", data_dir=folder, **declared)
    assert prepare_corpus("ecgfolder", folder, tmp_path / "prepared", **declared).label_names is None


MISSING = ("", "nan", "NaN", "NA", "<NA>", "null", "None", " ")


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_label_is_no_class(plain, load, missing):
    folder, declared = plain(*({"labels": label} for label in ("AFIB", missing, "SB", missing)))
    assert set(label_names("ecgfolder", data_dir=folder, **declared)) == {"AFIB", "SB"}
    assert sorted(map(len, load(folder, **declared)["labels"])) == [0, 0, 1, 1]


@pytest.mark.parametrize("missing", MISSING[1:])
def test_a_missing_label_among_several_and_a_missing_patient_are_none(plain, load, missing):
    folder, declared = plain(*[{"labels": f"AFIB;{missing}", "patient_id": missing}] * 4, label_separator=";")
    rows = load(folder, **declared)
    assert rows["labels"][:] == [["AFIB"]] * 4 and rows["patient_id"][:] == [None] * 4
