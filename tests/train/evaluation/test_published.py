import csv
import json

import pytest

from ecg_transformers.train.evaluation.published import comparable_numbers, is_complete_test, published_tables
from ecg_transformers.train.tasks.labelled_splits import task_name

FOLDS = ("folds 1-8", "fold 10", True)
SUPER = "ptb-xl superdiagnostic"
TASKS = ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm", "superdiagnostic_single")


def models(task, protocol, *split):
    return {number["model"]: number["value"] for number in comparable_numbers(task, protocol, *(split or FOLDS))[0]}


@pytest.mark.parametrize(
    ("task", "protocol", "model", "value"),
    [
        ("ptb-xl all", "from_scratch", "xresnet1d101", 0.925),
        (SUPER, "from_scratch", "resnet1d_wang", 0.930),
        ("ptb-xl all", "attentive", "JEPA ViT-S, MIMIC-IV-ECG", 0.940),
        ("ptb-xl all", "attentive", "ViT-B, random weights", 0.867),
        ("ptb-xl all", "finetuned", "JEPA ViT-S, 1.01 M recordings", 0.945),
        ("ptb-xl all", "finetuned", "ECG-CPC", 0.949),
        (SUPER, "linear", "ECG-JEPA (Kim)", 0.911),
        (SUPER, "attentive", "ST-MEM", 0.923),
        ("ptb-xl rhythm", "linear", "ECG-JEPA (Kim)", 0.969),
        ("ptb-xl superdiagnostic_single", "attentive", "JEPA ViT-S, PTB-XL", 0.917),
    ],
)
def test_a_number_stands_where_task_protocol_and_split_are_its_own(task, protocol, model, value):
    assert models(task, protocol)[model] == value


def test_the_best_comes_first_and_each_has_a_source():
    numbers, sentence = comparable_numbers(SUPER, "linear", *FOLDS)
    values = [number["value"] for number in numbers]
    assert values == sorted(values, reverse=True) and len(values) == 8
    assert all(number["source"] for number in numbers)
    assert sentence.startswith("8 published numbers have the same task, protocol and split.")
    assert json.loads(json.dumps(numbers))[0]["model"] == numbers[0]["model"]


def test_a_part_of_the_test_fold_is_comparable_with_nothing():
    numbers, sentence = comparable_numbers(SUPER, "linear", "folds 1-8", "fold 10", False)
    assert numbers == [] and "only a part of fold 10" in sentence
    assert not is_complete_test(SUPER, 49) and is_complete_test(SUPER, 2158)
    assert not is_complete_test("cpsc2018", 2158)


def test_a_mean_over_fewer_labels_is_comparable_with_nothing():
    numbers, sentence = comparable_numbers("ptb-xl all", "linear", *FOLDS, excluded_labels=["SEHYP"])
    assert numbers == [] and "1 labels are left out of the mean (SEHYP)" in sentence


@pytest.mark.parametrize("split", [("folds 1-9", "fold 10"), ("folds 1-8", "fold 9"), ("80 %", "10 %")])
def test_another_split_has_no_numbers_and_a_sentence_says_why(split):
    numbers, sentence = comparable_numbers(SUPER, "linear", *split, True)
    assert numbers == [] and split[0] in sentence and split[1] in sentence


def test_numbers_of_the_six_tasks_of_ptb_xl_are_never_mixed():
    found = [set(models(f"ptb-xl {task}", "from_scratch").items()) for task in TASKS[:6]]
    assert all(len(numbers) >= 6 for numbers in found)
    assert models("ptb-xl", "from_scratch") == {}
    assert 0.912 not in models("ptb-xl all", "linear").values()


def test_the_linear_of_weimann_is_attentive():
    for task in ("ptb-xl all", "ptb-xl superdiagnostic_single"):
        assert not [model for model in models(task, "linear") if "JEPA ViT" in model]
        assert [model for model in models(task, "attentive") if "JEPA ViT" in model]


def test_kims_linear_stands_nowhere_because_it_learned_from_nine_folds():
    for train in ("folds 1-8", "folds 1-9"):
        numbers, sentence = comparable_numbers(SUPER, "linear-kim", train, "fold 10", True)
        assert numbers == [] and "trained on folds 1-9" in sentence


@pytest.mark.parametrize("train", ["folds 1-8", "folds 1-9"])
@pytest.mark.parametrize("task", [SUPER, "ptb-xl superdiagnostic_single"])
def test_kims_best_epoch_on_the_test_fold_stands_nowhere(train, task):
    numbers, sentence = comparable_numbers(task, "finetuned", train, "fold 10", True)
    assert not [number for number in numbers if "Kim 2024" in number["source"]]
    assert "the epoch was chosen on the test fold" in sentence


def test_numbers_on_the_split_of_st_mem_stand_nowhere():
    for protocol in ("linear", "finetuned"):
        numbers, sentence = comparable_numbers("ptb-xl superdiagnostic_single", protocol, *FOLDS)
        assert not [number for number in numbers if number["model"] in ("ST-MEM", "MoCo v3", "CMSC", "MTAE", "MLAE")]
        assert "split PTB-XL in their own way" in sentence


@pytest.mark.parametrize("task", TASKS[:6])
def test_frozen_rows_that_are_printed_as_fine_tuned_stand_nowhere(task):
    found = models(f"ptb-xl {task}", "finetuned")
    assert not {"ST-MEM", "HuBERT-ECG"} & set(found)
    assert {"ECG-CPC", "ECG-FM"} <= set(found)


def test_a_deviation_over_runs_is_no_interval():
    (weimann,) = [
        number
        for number in comparable_numbers("ptb-xl all", "finetuned", *FOLDS)[0]
        if number["model"] == "JEPA ViT-S, PTB-XL"
    ]
    assert weimann["interval"] is None and weimann["deviation"] == 0.001
    (helme,) = [
        number
        for number in comparable_numbers("ptb-xl all", "from_scratch", *FOLDS)[0]
        if number["model"] == "xresnet1d101"
    ]
    assert helme["interval"] == (0.918, 0.932) and helme["deviation"] is None


def test_names_of_tasks_are_those_of_a_run_and_no_number_is_listed_twice():
    numbers = published_tables()["numbers"]
    assert {number["task"] for number in numbers} == {task_name("ptb-xl", {"task": task}) for task in TASKS}
    keys = [(number["source"], number["model"], number["task"], number["protocol"]) for number in numbers]
    assert len(keys) == len(set(keys)) > 150
    for number in numbers:
        assert 0.5 < number["value"] < 1 and number["source"]
        assert number["interval"] is None or number["interval"][0] < number["value"] < number["interval"][1]


def test_counts_of_the_test_fold_are_those_of_the_labels(shared_data_dir):
    folder = shared_data_dir / "metadata" / "ptbxl_merl_splits"
    tables = {"super_class": "superdiagnostic", "sub_class": "subdiagnostic", "form": "form", "rhythm": "rhythm"}
    for name, task in tables.items():
        with open(folder / f"ptbxl_{name}_test.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["strat_fold"] for row in rows} == {"10"}
        assert is_complete_test(f"ptb-xl {task}", len(rows))
        if task == "superdiagnostic":
            single = [row for row in rows if sum(float(value) for value in list(row.values())[6:]) == 1]
            assert is_complete_test("ptb-xl superdiagnostic_single", len(single))
