import numpy as np
import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.ptb import PTB, parse_summary

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]


def write_original(path, age="50", reason="Healthy control", sex="male"):
    """A record of `ptbdb`: twelve leads in `.dat`, the Frank leads in `.xyz`, the summary in comments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.random.default_rng(0).integers(-900, 900, (15, 30)).astype("<i2")
    path.with_suffix(".dat").write_bytes(steps[:12].T.tobytes())
    path.with_suffix(".xyz").write_bytes(steps[12:].T.tobytes())
    lines = [f"{path.name} 15 1000 30"]
    for row, lead in zip(steps, (*LEADS, "vx", "vy", "vz"), strict=True):
        ending = "xyz" if lead in ("vx", "vy", "vz") else "dat"
        total = int(row.sum()) & 0xFFFF
        lines.append(f"{path.name}.{ending} 16 2000 16 0 {row[0]} {total} 0 {lead.lower()}")
    lines += [f"# age: {age}", f"# sex: {sex}", "# ECG date: 01/10/1990", "#", "# Diagnose:"]
    lines += [f"# Reason for admission: {reason}", "# Acute infarction (localization): no"]
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n")
    return steps


def load(folder, tmp_path, **options):
    return load_ecg("ptb", folder, split="all", cache_dir=tmp_path / "cache", **options)


def test_the_real_record_of_ptbdb_has_its_summary_and_twelve_leads_as_wfdb_reads_them(shared_data_dir, tmp_path):
    import wfdb

    (row,) = load(shared_data_dir / "ptbdb", tmp_path)
    assert (row["record_id"], row["age"], row["sex"], row["source"]) == ("s0010_re", 81.0, "female", "ptb")
    assert (row["labels"], row["reason_for_admission"]) == (["Myocardial infarction"], "Myocardial infarction")
    assert (row["acute_infarction"], row["snomed_codes"]) == ("infero-latera", [])
    assert (row["ecg"]["leads"], row["ecg"]["sampling_rate"]) == (LEADS, 1000.0)
    expected = wfdb.rdrecord(str(shared_data_dir / "ptbdb" / "s0010_re")).p_signal.T
    np.testing.assert_allclose(row["ecg"]["signal"], expected[:12], atol=1e-6)
    (row,) = load(shared_data_dir / "ptbdb", tmp_path, frank_leads=True)
    assert row["ecg"]["leads"] == [*LEADS, "VX", "VY", "VZ"]
    np.testing.assert_allclose(row["ecg"]["signal"], expected, atol=1e-6)


def test_the_real_records_of_the_challenges_have_the_codes_of_their_headers(shared_data_dir, tmp_path):
    rows = list(load(shared_data_dir / "cinc2021" / "ptb", tmp_path, task="scored"))
    assert [(row["record_id"], row["snomed_codes"]) for row in rows] == [
        ("S0001", ["251146004", "426783006"]),
        ("S0002", ["426783006"]),
    ]
    assert [row["labels"] for row in rows] == [["LQRSV", "NSR"], ["NSR"]]
    assert [row["ecg"]["signal"].shape for row in rows] == [(12, 38400), (12, 115200)]


def test_the_real_record_is_on_the_same_side_in_both_forms(shared_data_dir, tmp_path):
    """S0001 is s0010_re."""
    (original,) = PTB.index(shared_data_dir / "ptbdb", {"task": "diagnosis", "frank_leads": False})
    entries = PTB.index(shared_data_dir / "cinc2021" / "ptb", {"task": "all", "frank_leads": False})
    assert {entry.split for entry in entries} == {original.split}


def test_the_folder_names_the_patient_who_stays_on_one_side(tmp_path):
    for patient, records in (("patient001", ("s0010_re", "s0014lre")), ("patient002", ("s0015lre",))):
        for number, record in enumerate(records):
            write_original(tmp_path / "data" / patient / record, age=("33", "50")[number])  # alone: train, test
    rows = load(tmp_path / "data", tmp_path)
    assert sorted(zip(rows["record_id"], rows["patient_id"], strict=True)) == [
        ("s0010_re", "patient001"),
        ("s0014lre", "patient001"),
        ("s0015lre", "patient002"),
    ]
    entries = PTB.index(tmp_path / "data", {"task": "diagnosis", "frank_leads": False})
    splits = {(entry.columns["patient_id"], entry.split) for entry in entries}
    assert len(splits) == 2


def test_recordings_of_equal_age_and_sex_share_a_split_whatever_their_names(write_cinc_record, tmp_path):
    for number in range(1, 9):
        write_cinc_record(f"S000{number}", "426783006", age="33", unit="mv")
    entries = PTB.index(tmp_path / "data", {"task": "scored", "frank_leads": False})
    assert len(entries) == 8 and len({entry.split for entry in entries}) == 1


@pytest.mark.parametrize(
    ("reason", "labels"),
    [
        ("Healthy control", ["Healthy control"]),
        ("Heart failure (NYHA 3)", ["Cardiomyopathy/Heart failure"]),
        ("Hypertrophy", ["Myocardial hypertrophy"]),
        ("Stable angina", ["Miscellaneous"]),
        ("n/a", []),
        ("Something else", []),
    ],
)
def test_the_reason_for_admission_becomes_one_of_nine_classes(tmp_path, reason, labels):
    write_original(tmp_path / "data" / "patient001" / "s0010_re", reason=reason)
    (row,) = load(tmp_path / "data", tmp_path)
    assert row["labels"] == labels
    assert row["reason_for_admission"] == (None if reason == "n/a" else reason)
    assert len(label_names("ptb")) == 9 and set(labels) <= set(label_names("ptb"))


def test_a_task_of_the_other_form_is_refused(write_cinc_record, tmp_path):
    write_original(tmp_path / "original" / "patient001" / "s0010_re")
    with pytest.raises(ValueError, match="has no SNOMED CT codes. Use task='diagnosis'"):
        load(tmp_path / "original", tmp_path, task="scored")
    write_cinc_record("S0001", "426783006")
    for options in ({}, {"task": "scored", "frank_leads": True}):
        with pytest.raises(ValueError, match="Choose task from .'scored', 'all', 'codes'. and frank_leads=False"):
            load(tmp_path / "data", tmp_path, **options)


def test_a_copy_without_its_frank_leads_file_is_reported(tmp_path):
    for record in ("patient001/s0010_re", "patient002/s0015lre"):
        write_original(tmp_path / "data" / record)
    (tmp_path / "data" / "patient002" / "s0015lre.xyz").unlink()
    rows = load(tmp_path / "data", tmp_path)
    assert rows["record_id"][:] == ["s0010_re"]


def test_not_available_is_none():
    assert parse_summary(["Reason for admission: n/a", "Acute infarction (localization):"]) == {
        "reason_for_admission": None,
        "acute_infarction": None,
    }
