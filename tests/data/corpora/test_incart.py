import logging

import numpy as np
import pytest

from ecg_transformers.data import bad_records, load_ecg
from ecg_transformers.data.corpora.incart import INCART_SOURCE, PHYSIONET_FORM, parse_incart_comments

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
I01 = (
    "#<age>: 65 <sex>: F <diagnoses> Coronary artery disease, arterial hypertension",
    "# patient 1",
    "# PVCs, noise",
)


def write_original(folder, name, comments):
    """A record of `incartdb`: format 16, gain without unit, no baseline."""
    folder.mkdir(exist_ok=True)
    steps = np.random.default_rng(0).integers(-900, 900, (12, 30)).astype("<i2")
    (folder / f"{name}.dat").write_bytes(steps.T.tobytes())
    lines = [f"{name} 12 257 30"]
    lines += [
        f"{name}.dat 16 306 16 0 {row[0]} {int(row.sum()) & 0xFFFF} 0 {lead}"
        for row, lead in zip(steps, LEADS, strict=True)
    ]
    (folder / f"{name}.hea").write_text("\n".join([*lines, *comments]) + "\n")
    return steps


def load(tmp_path, **options):
    return load_ecg("incart", tmp_path / "data", split="all", cache_dir=tmp_path / "cache", **options)


def test_the_original_form_tells_patient_and_words_and_says_that_it_has_no_codes(tmp_path, caplog):
    steps = write_original(tmp_path / "data", "I01", I01)
    with caplog.at_level(logging.WARNING):
        (row,) = load(tmp_path)
    assert (row["record_id"], row["patient_id"], row["age"], row["sex"]) == ("I01", "1", 65.0, "female")
    assert row["diagnoses"] == "Coronary artery disease, arterial hypertension"
    assert (row["findings"], row["labels"], row["snomed_codes"]) == ("PVCs, noise", [], [])
    assert (row["ecg"]["sampling_rate"], row["ecg"]["leads"][3:6]) == (257.0, ["aVR", "aVL", "aVF"])
    np.testing.assert_allclose(row["ecg"]["signal"], steps / 306, atol=1e-6)
    assert "labels are empty" in caplog.text and "partial copy of incart" in caplog.text


def test_the_form_of_the_challenges_has_codes_and_the_same_patients(write_cinc_record, tmp_path):
    write_cinc_record("training/st_petersburg_incart/g1/I0008", "164884008,17338001", age="51", sex="F", rate=257)
    (row,) = load(tmp_path, task="all")
    assert (row["record_id"], row["patient_id"], row["age"], row["sex"]) == ("I0008", "4", 51.0, "female")
    assert (row["labels"], row["ecg"]["sampling_rate"]) == (["VPB", "VEB"], 257.0)
    assert (row["diagnoses"], row["findings"]) == (None, None)


def test_the_patients_are_those_of_the_databases_list():
    stated = {"I02": 1, "I05": 2, "I06": 3, "I08": 4, "I09": 5, "I16": 8, "I17": 8, "I32": 14, "I36": 16}
    stated |= {"I49": 22, "I50": 22, "I59": 26, "I60": 26, "I71": 30, "I75": 32}
    assert {record_id: int(PHYSIONET_FORM.patients[record_id]) for record_id in stated} == stated


def test_a_patient_is_on_one_side_and_on_the_same_in_both_forms():
    splits = {}
    for record_id, patient in PHYSIONET_FORM.patients.items():
        original, of_challenge = PHYSIONET_FORM.entry("", record_id), INCART_SOURCE.entry("", f"I00{record_id[1:]}")
        assert original.split == of_challenge.split == splits.setdefault(patient, original.split)
        assert original.columns["patient_id"] == of_challenge.columns["patient_id"] == patient
    assert len(PHYSIONET_FORM.patients) == 75 and len(splits) == 32
    assert set(splits.values()) == {"train", "validation", "test"}


def test_a_header_that_names_another_patient_is_reported(tmp_path):
    write_original(tmp_path / "data", "I01", I01)
    write_original(tmp_path / "data", "I02", (I01[0], "# patient 2", I01[2]))
    rows = load(tmp_path)
    assert rows["record_id"][:] == ["I01"]
    assert "says patient 2, the database's list of patients 1" in bad_records(rows)[0].reason


def test_two_forms_in_one_folder_are_refused(write_cinc_record, tmp_path):
    write_cinc_record("I0001", "164884008")
    write_original(tmp_path / "data", "I01", I01)
    with pytest.raises(ValueError, match="same recordings in two forms"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("comments", "expected"),
    [
        (["<age>: 51 <sex>: F", "patient 4", "ventricular bigeminy,"], (51.0, "female", "4", None)),
        (["<age>: <sex>: M <diagnoses> WPW"], (None, "male", None, "WPW")),
        ([], (None, None, None, None)),
    ],
)
def test_what_a_header_leaves_out_is_none(comments, expected):
    known = parse_incart_comments(comments)
    assert tuple(known[name] for name in ("age", "sex", "patient_id", "diagnoses")) == expected
