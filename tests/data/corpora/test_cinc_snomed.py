import csv

import pytest

from ecg_transformers.data import label_names
from ecg_transformers.data.corpora.cinc_snomed import snomed_label_names, snomed_labels


def test_the_scored_classes_are_those_of_the_challenges_weights_in_their_order(shared_data_dir):
    with open(shared_data_dir / "metadata" / "cinc2021" / "weights_abbreviations.csv", newline="") as file:
        official = tuple(next(csv.reader(file))[1:])
    assert snomed_label_names("scored") == official == label_names("cinc2021")
    assert len(official) == 26


def test_the_carried_table_is_the_official_one(shared_data_dir):
    official = {}
    for part in ("scored", "unscored"):
        with open(shared_data_dir / "metadata" / "cinc2021" / f"dx_mapping_{part}.csv", newline="") as file:
            for row in csv.DictReader(file):
                official[row["SNOMEDCTCode"]] = (row["Abbreviation"], part == "scored")
    assert len(official) == len(snomed_label_names("all")) == len(snomed_label_names("codes")) == 133
    for code, (abbreviation, is_scored) in official.items():
        assert snomed_labels([code], "all") == [abbreviation]
        assert snomed_labels([code], "codes") == [code]
        assert bool(snomed_labels([code], "scored")) == is_scored


@pytest.mark.parametrize(
    ("codes", "label"),
    [
        (("713427006", "59118001"), "CRBBB|RBBB"),
        (("733534002", "164909002"), "CLBBB|LBBB"),
        (("284470004", "63593006"), "PAC|SVPB"),
        (("427172004", "17338001"), "PVC|VPB"),
    ],
)
def test_equivalent_codes_are_one_scored_class_and_two_of_all(codes, label):
    assert [snomed_labels([code]) for code in codes] == [[label]] * 2
    assert snomed_labels(codes) == [label]
    assert len(snomed_labels(codes, "all")) == 2


def test_labels_come_in_the_order_of_the_classes_and_unknown_codes_are_left_out():
    assert snomed_labels(["164934002", "1", "", "164889003"]) == ["AF", "TAb"]
    assert snomed_labels(["59118001", "713427006", "164909002"], "all") == ["LBBB", "CRBBB", "RBBB"]


def test_ventricular_ectopics_and_st_depression_are_not_scored():
    assert snomed_labels(["164884008", "429622005"]) == []
    assert snomed_labels(["164884008", "429622005"], "all") == ["STD", "VEB"]
