import csv

import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.cinc2017 import CINC2017, CLASSES

OPTIONS = {"reference": None, "rename_leads": None}


def read_reference(path):
    with open(path, newline="") as file:
        return dict(csv.reader(file))


@pytest.mark.parametrize("reference", [None, "REFERENCE_training2017.csv"])
def test_labels_are_those_of_the_chosen_table(shared_data, reference):
    folder = shared_data / "cinc2017"
    expected = read_reference(folder / (reference or "REFERENCE.csv"))
    entries = CINC2017.index(folder, OPTIONS | {"reference": reference})
    assert len(entries) == 100
    assert [entry.columns["labels"] for entry in entries] == [[CLASSES[expected[e.record_id]]] for e in entries]


def test_single_lead_keeps_its_name_unless_renamed(shared_data):
    rows = load_ecg("cinc2017", shared_data / "cinc2017", split="all", streaming=True)
    row = next(iter(rows))
    assert (row["ecg"]["leads"], row["ecg"]["sampling_rate"], row["patient_id"]) == (["ECG"], 300.0, None)
    assert row["ecg"]["signal"].shape[0] == 1 and row["labels"][0] in label_names("cinc2017")
    entry = CINC2017.index(shared_data / "cinc2017", OPTIONS)[0]
    assert CINC2017.read(entry, OPTIONS | {"rename_leads": {"ECG": "I"}}).leads == ("I",)


def test_every_sample_record_is_read_although_its_dates_stop_other_readers(shared_data, tmp_path):
    folder = shared_data / "cinc2017"
    entries = CINC2017.index(folder, OPTIONS)
    lengths = {CINC2017.read(entry, OPTIONS).signal.shape[1] / 300 for entry in entries}
    assert min(lengths) >= 9 and max(lengths) <= 61
    for ending in ("hea", "mat"):
        source = folder / ("original_headers" if ending == "hea" else ".") / f"A00018.{ending}"
        (tmp_path / f"A00018.{ending}").write_bytes(source.read_bytes())
    (tmp_path / "REFERENCE.csv").write_text("A00018,N\n")
    assert CINC2017.read(CINC2017.index(tmp_path, OPTIONS)[0], OPTIONS).signal.shape == (1, 9000)


@pytest.mark.parametrize("place", ["", "training", "training2017"])
def test_records_are_found_in_every_published_layout(write_record, tmp_path, place):
    folder = f"cinc/{place}" if place else "cinc"
    write_record("A00001", folder=f"{folder}/A00" if place == "training" else folder, leads=("a", "b"))
    (tmp_path / folder / "REFERENCE.csv").write_text("A00001,~\nA00002,N\n")
    (entry,) = CINC2017.index(tmp_path / "cinc", OPTIONS)
    assert (entry.record_id, entry.columns["labels"]) == ("A00001", ["too noisy"])
    assert CINC2017.read(entry, OPTIONS).signal.shape == (2, 50)


@pytest.mark.parametrize("line", ["A00002,X", "A00001,N", "A00002", "../A00002,N"])
def test_bad_line_of_the_table_is_refused(write_record, tmp_path, line):
    write_record("A00001", folder="cinc")
    (tmp_path / "cinc" / "REFERENCE.csv").write_text(f"A00001,N\n{line}\n")
    with pytest.raises(ValueError, match="line 2: expected a record|not inside"):
        CINC2017.index(tmp_path / "cinc", OPTIONS)


def test_missing_table_is_refused_with_the_source(tmp_path):
    with pytest.raises(ValueError, match="no REFERENCE-v1.csv in .*physionet.org/content/challenge-2017"):
        CINC2017.index(tmp_path, OPTIONS | {"reference": "REFERENCE-v1.csv"})
