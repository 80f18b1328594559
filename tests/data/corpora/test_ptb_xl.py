import csv
import logging

import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.ptb_xl import PTB_XL, ptb_xl_label_names, ptb_xl_labels, split_of_fold


@pytest.mark.parametrize(
    ("task", "count"),
    [("all", 71), ("diagnostic", 44), ("subdiagnostic", 23), ("superdiagnostic", 5), ("form", 19), ("rhythm", 12)]
    + [("superdiagnostic_single", 5)],
)
def test_label_sets_have_the_published_sizes(task, count):
    names = ptb_xl_label_names(task)
    assert len(names) == count
    assert list(names) == sorted(set(names))


def test_superclasses_come_in_alphabetical_order():
    assert label_names("ptb-xl") == ("CD", "HYP", "MI", "NORM", "STTC")
    assert label_names("ptb-xl-sample", task="superdiagnostic") == label_names("ptb-xl")


def test_any_diagnostic_code_counts_whatever_its_likelihood():
    assert ptb_xl_labels({"IMI": 0.0, "LVH": 35.0, "SR": 0.0}) == ["HYP", "MI"]


def test_rhythm_code_has_no_superclass():
    assert ptb_xl_labels(["SR", "ABQRS"]) == []
    assert ptb_xl_labels(["SR", "ABQRS"], "rhythm") == ["SR"]
    assert ptb_xl_labels(["SR", "ABQRS"], "form") == ["ABQRS"]


def test_folds_1_to_8_train_9_validates_10_tests():
    assert [split_of_fold(fold) for fold in range(1, 11)] == ["train"] * 8 + ["validation", "test"]
    with pytest.raises(ValueError, match="from 1 to 10"):
        split_of_fold(0)


def test_row_carries_what_the_table_says(ptb_xl_folder, tmp_path):
    row = load_ecg("ptb-xl", ptb_xl_folder, split="validation", cache_dir=tmp_path / "cache")[0]
    assert row["record_id"] == "00008"
    assert (row["patient_id"], row["fold"], row["age"], row["sex"]) == ("11275", 9, 48.0, "male")
    assert (row["labels"], row["scp_codes"]) == (["MI"], ["IMI", "ABQRS", "SR"])
    assert row["scp_likelihoods"] == [35.0, 0.0, 0.0]
    assert row["ecg"]["signal"].shape == (12, 1000)
    assert (row["ecg"]["sampling_rate"], row["ecg"]["unit"]) == (100.0, "mV")


def test_single_label_task_keeps_the_records_of_exactly_one_superclass(ptb_xl_folder, tmp_path, caplog):
    table = ptb_xl_folder / "ptbxl_database.csv"
    rows = list(csv.reader(table.open()))
    codes = rows[0].index("scp_codes")
    rows[1][codes], rows[2][codes] = "{'IMI': 100.0, 'LVH': 50.0}", "{'SR': 0.0}"
    csv.writer(table.open("w")).writerows(rows)
    several = load_ecg("ptb-xl", ptb_xl_folder, split="all", cache_dir=tmp_path / "cache")
    with caplog.at_level(logging.INFO):
        single = load_ecg(
            "ptb-xl", ptb_xl_folder, split="all", task="superdiagnostic_single", cache_dir=tmp_path / "cache"
        )
    expected = {row["record_id"]: row["labels"] for row in several if len(row["labels"]) == 1}
    assert {row["record_id"]: row["labels"] for row in single} == expected and len(expected) < 4
    assert f"{len(expected)} of 5 records belong to exactly one superclass" in caplog.text
    assert "partial copy of PTB-XL: it lists 5 records" in caplog.text


def test_single_label_task_leaves_records_out_of_the_carried_sample():
    several, single = (load_ecg("ptb-xl-sample", task=task) for task in ("superdiagnostic", "superdiagnostic_single"))
    expected = [row["record_id"] for row in several.select_columns(["record_id", "labels"]) if len(row["labels"]) == 1]
    assert single.select_columns(["record_id"])["record_id"][:] == expected
    assert 0 < len(expected) < len(several)


def test_sampling_rate_chooses_the_files(shared_data, tmp_path):
    rows = load_ecg("ptb-xl", shared_data / "ptb-xl", split="test", sampling_rate=500, streaming=True)
    row = next(iter(rows))
    assert row["ecg"]["sampling_rate"] == 500.0
    assert row["ecg"]["signal"].shape == (12, 5000)


def test_broken_table_is_refused_with_the_row(ptb_xl_folder, tmp_path):
    table = ptb_xl_folder / "ptbxl_database.csv"
    rows = list(csv.reader(table.open()))
    rows[2][rows[0].index("scp_codes")] = "{'NORM': "
    csv.writer(table.open("w")).writerows(rows)
    with pytest.raises(ValueError, match="row 2 .ecg_id 2. cannot be read"):
        load_ecg("ptb-xl", ptb_xl_folder, streaming=True)


def test_a_path_in_the_table_cannot_leave_the_corpus(tmp_path):

    header = "ecg_id,patient_id,age,sex,scp_codes,strat_fold,filename_lr,filename_hr\n"
    (tmp_path / "ptbxl_database.csv").write_text(header + "1,1.0,50,1,\"{'NORM': 100.0}\",3,../elsewhere/00001_lr,x\n")
    with pytest.raises(ValueError, match="not inside the folder"):
        PTB_XL.index(tmp_path, {"sampling_rate": 100, "task": "superdiagnostic"})
