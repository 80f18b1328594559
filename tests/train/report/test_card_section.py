import copy
import re

import pytest

from ecg_transformers.train.publishing.published_card import END, START, published_card, replace_section
from ecg_transformers.train.report.card_section import card_section, eval_results, show_evaluation


def judgement(macro):
    per_class = {"NORM": macro + 0.02, "a|b <i>": macro - 0.02}
    return {
        "macro_auroc": macro,
        "macro_auroc_ci95": [macro - 0.05, macro + 0.04],
        "per_class": per_class,
        "per_class_ci95": {name: [value - 0.1, value + 0.05] for name, value in per_class.items()},
        "macro_auprc": 0.456,
        "per_class_auprc": dict.fromkeys(per_class, 0.4),
        "excluded": {"HYP": "test set: 0 positive of 47 records"},
        "num_train_records": 398,
        "num_test_records": 47,
        "num_test_patients": 45,
        "details": {"C": 0.01},
    }


def make_metrics(**changes):
    metrics = {
        "task": "ptb-xl superdiagnostic",
        "problem_type": "multi_label_classification",
        "label_names": ["NORM", "a|b <i>", "HYP"],
        "model": "runs/tiny",
        "splits": {"train": "folds 1-8", "test": "fold 10"},
        "random_encoder": {"linear": judgement(0.611), "finetuned": judgement(0.7)},
        "pretrained": {"linear": judgement(0.812), "finetuned": judgement(0.88)},
        "difference": {"linear": {"macro_auroc": 0.201, "ci95": [0.11, 0.29], "p_value": 0.0005}},
        "command": "ecg-transformers evaluate --model runs/tiny",
        "versions": {},
    }
    return metrics | changes


def test_section_has_the_random_row_intervals_protocol_excluded_labels_and_caveats():
    text = card_section(make_metrics())
    random, pretrained = text.index("| Random encoder | 0.611 (0.561 to 0.651)"), text.index("| Pretrained encoder |")
    assert random < pretrained
    for statement in (
        "| Difference | +0.201 (+0.110 to +0.290; p &lt; 0.001)",
        "Protocol linear: frozen features, standardised, one logistic regression for each label.",
        "| Trained from scratch | 0.700",
        "Left out: HYP (test set: 0 positive of 47 records).",
        "The test split holds 47 records of 45 patients.",
        "is better than a random one (+0.201 macro AUROC",
        "train: folds 1-8; test: fold 10",
        "ecg-transformers evaluate --model runs/tiny",
    ):
        assert statement in text, statement


def test_rows_of_a_table_have_as_many_cells_as_its_header_whatever_a_label_is_called():
    section = card_section(make_metrics())
    assert "a\\|b &lt;i&gt;" in section and "<i>" not in section
    for table in re.findall(r"(?:^\|.*\n)+", section, flags=re.MULTILINE):
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1, table


def test_second_section_takes_the_place_of_the_first_and_leaves_the_rest():
    first = replace_section("# Card\n\nBefore.\n", card_section(make_metrics()))
    after = first + "\nAfter.\n"
    assert replace_section(after, card_section(make_metrics())) == after
    changed = replace_section(after, card_section(make_metrics(task="another")))
    assert changed.startswith("# Card\n\nBefore.\n") and changed.endswith("\nAfter.\n")
    assert "Task: another." in changed and "superdiagnostic" not in changed and changed.count(START) == 1


@pytest.mark.parametrize("text", [START, END, f"{END}\n{START}", f"{START}{END}{START}{END}"])
def test_card_with_broken_markers_is_refused(text):
    with pytest.raises(ValueError, match="once each"):
        replace_section(text, card_section(make_metrics()))


def test_updating_a_card_twice_gives_the_same_card_and_keeps_other_results():
    text = "---\nlicense: cc-by-4.0\ntags:\n- ecg\n---\n\n# tiny\n\nHow to load it.\n"
    for metrics in (make_metrics(task="ptb-xl form"), make_metrics()):
        text = str(published_card(text, "someone/tiny", "CC BY 4.0", evaluation=show_evaluation(metrics)))
    card = published_card(text, "someone/tiny", "CC BY 4.0", evaluation=show_evaluation(make_metrics()))
    assert str(card) == text
    assert card.data.license == "cc-by-4.0" and "How to load it." in card.text
    assert sorted({result.dataset_name for result in card.data.eval_results}) == [
        "ptb-xl form, test split",
        "ptb-xl superdiagnostic, test split",
    ]
    assert len(card.data.eval_results) == 4


def test_model_index_has_an_entry_a_protocol_with_the_random_encoder_beside_it():
    linear, finetuned = eval_results(make_metrics())
    assert (linear.metric_value, linear.metric_type) == (0.812, "roc_auc")
    assert linear.metric_args == {
        "protocol": "linear",
        "ci95": [0.762, 0.852],
        "random_encoder": 0.611,
        "num_train_records": 398,
        "num_test_records": 47,
        "num_test_patients": 45,
    }
    assert finetuned.metric_args["from_scratch"] == 0.7 and "random_encoder" not in finetuned.metric_args


def test_regression_goes_into_card_and_index_as_an_error():
    target = {"mae": 3.21, "mae_ci95": [2.5, 4.0], "bias": -0.4, "sd": 4.5, "pearson": 0.9, "train_mean_mae": 9.8}
    judged = {"macro_zmae": 0.33, "macro_zmae_ci95": [0.3, 0.36], "per_target": {"heart rate (bpm)": target}}
    judged |= {"num_train_records": 300, "num_test_records": 40, "num_test_patients": 40, "details": {}}
    metrics = make_metrics(problem_type="regression", label_names=["heart rate (bpm)"], difference={})
    metrics |= {"random_encoder": {"linear": copy.deepcopy(judged)}, "pretrained": {"linear": judged}}
    text = card_section(metrics)
    assert "| heart rate (bpm): training mean | 9.80" in text
    assert "| heart rate (bpm): pretrained encoder | 3.21 (2.50 to 4.00) | -0.400 ± 4.50 | 0.900 |" in text
    (result,) = eval_results(metrics)
    assert (result.task_type, result.metric_type, result.metric_value) == ("ecg-regression", "mae", 0.33)
