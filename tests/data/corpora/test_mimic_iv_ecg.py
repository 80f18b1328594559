import logging
from collections import defaultdict

import numpy as np
import pytest

from ecg_transformers.data import INVALID_SAMPLE, load_ecg
from ecg_transformers.data.corpora.mimic_iv_ecg import MIMIC_IV_ECG

LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")  # as the files have them
REPORTS = ",".join(f"report_{line}" for line in range(18))


@pytest.fixture
def published(write_record, tmp_path):
    """The published layout with two recordings of one patient and one of another; a fourth is listed but absent."""
    rng = np.random.default_rng(0)
    for subject, study in ((10000032, 40689238), (10000032, 44458630), (10000117, 42400000)):
        steps = rng.integers(-500, 500, (12, 500)).astype(np.int16)
        if study == 44458630:
            steps[6, 10:20] = INVALID_SAMPLE
        folder = f"mimic/files/p1000/p{subject}/s{study}"
        write_record(str(study), steps, "200.0(0)/mV", LEADS, folder, lines=(f"#<subject_id>: {subject}",))
    folder = tmp_path / "mimic"
    (folder / "record_list.csv").write_text(
        "subject_id,study_id,file_name,ecg_time,path\n"
        "10000032,40689238,40689238,2180-07-23 08:44:00,files/p1000/p10000032/s40689238/40689238\n"
        "10000032,44458630,44458630,2180-07-23 09:54:00,files/p1000/p10000032/s44458630/44458630\n"
        "10000117,42400000,42400000,2181-03-04 17:14:00,files/p1000/p10000117/s42400000/42400000\n"
        "10000980,45805356,45805356,2184-04-17 12:30:00,files/p1000/p10000980/s45805356/45805356\n"
    )
    (folder / "machine_measurements.csv").write_text(
        f"subject_id,study_id,cart_id,ecg_time,{REPORTS},bandwidth,filtering,rr_interval\n"
        f"10000032,40689238,6848296,2180-07-23 08:44:00,Sinus rhythm,Possible right atrial abnormality{',' * 17}"
        "0.005-150 Hz,60 Hz notch Baseline filter,659\n"
        f"10000032,44458630,6848296,2180-07-23 09:54:00,Sinus rhythm{',' * 18}0.005-150 Hz,<not specified>,722\n"
    )
    return folder


@pytest.fixture
def rows(published):
    return {row["record_id"]: row for row in load_ecg("mimic-iv-ecg", published, split="all", streaming=True)}


def test_leads_are_named_as_the_header_orders_them(published, rows):
    ecg = rows["40689238"]["ecg"]
    assert tuple(ecg["leads"]) == LEADS
    path = published / "files/p1000/p10000032/s40689238/40689238.dat"
    stored = np.fromfile(path, dtype="<i2").reshape(-1, 12) / 200
    assert ecg["signal"][ecg["leads"].index("aVL")] == pytest.approx(stored[:, 5], abs=1e-5)
    assert ecg["signal"][ecg["leads"].index("aVF")] == pytest.approx(stored[:, 4], abs=1e-5)


def test_missing_samples_stay_nan_and_are_reported(published, rows, caplog):
    signal = rows["44458630"]["ecg"]["signal"]
    assert np.argwhere(np.isnan(signal)).tolist() == [[6, sample] for sample in range(10, 20)]
    with caplog.at_level(logging.WARNING):
        list(load_ecg("mimic-iv-ecg", published, split="all", streaming=True))
    assert "44458630 (10 of 6000 samples are missing)" in caplog.text


def test_report_is_a_column_and_no_label(rows):
    row = rows["40689238"]
    assert row["report"] == ["Sinus rhythm", "Possible right atrial abnormality"]
    assert (row["bandwidth"], row["filtering"]) == ("0.005-150 Hz", "60 Hz notch Baseline filter")
    assert (row["labels"], row["age"], row["sex"]) == ([], None, None)
    assert (rows["42400000"]["report"], rows["42400000"]["bandwidth"]) == ([], None)


def test_listed_recordings_that_are_absent_are_left_out_and_said_to_be(published, caplog):
    with caplog.at_level(logging.WARNING):
        entries = MIMIC_IV_ECG.index(published, {})
    assert [entry.record_id for entry in entries] == ["40689238", "44458630", "42400000"]
    assert "holds 3 records of the 4 in its table, the corpus has 800035" in caplog.text


def test_folder_without_measurements_is_read(published):
    (published / "machine_measurements.csv").unlink()
    rows = list(load_ecg("mimic-iv-ecg", published, split="all", streaming=True))
    assert [row["report"] for row in rows] == [[], [], []]


def test_table_cannot_name_a_record_outside_the_folder(published):
    table = published / "record_list.csv"
    table.write_text(table.read_text().replace("files/p1000/p10000117", "../p10000117"))
    with pytest.raises(ValueError, match="row 3 .study_id 42400000.*not inside"):
        MIMIC_IV_ECG.index(published, {})


def test_recordings_of_a_patient_lie_in_one_split(tmp_path):
    lines, splits = ["subject_id,study_id,path"], defaultdict(set)
    for study in range(60):
        lines.append(f"{study % 12},{study},r{study}")
        (tmp_path / f"r{study}.hea").touch()
    (tmp_path / "record_list.csv").write_text("\n".join(lines) + "\n")
    for entry in MIMIC_IV_ECG.index(tmp_path, {}):
        splits[entry.columns["patient_id"]].add(entry.split)
    assert len(splits) == 12
    assert all(len(found) == 1 for found in splits.values())
    assert len(set().union(*splits.values())) > 1
