import copy
import re

import pytest

from ecg_transformers.train.publishing.model_card import index_of
from ecg_transformers.train.publishing.templates import LONGEST_TEXT, escape_markdown
from ecg_transformers.train.report.card_section import results_markdown
from ecg_transformers.train.results import Result


def evaluated(macro):
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


def make_result(**changes):
    metrics = {
        "task": "ptb-xl superdiagnostic",
        "problem_type": "multi_label_classification",
        "label_names": ["NORM", "a|b <i>", "HYP"],
        "model": "runs/tiny",
        "splits": {"train": "folds 1-8", "test": "fold 10"},
        "random_encoder": {"linear": evaluated(0.611), "finetuned": evaluated(0.7)},
        "pretrained": {"linear": evaluated(0.812), "finetuned": evaluated(0.88)},
        "difference": {"linear": {"macro_auroc": 0.201, "ci95": [0.11, 0.29], "p_value": 0.0005}},
        "command": "ecg-transformers evaluate --model runs/tiny",
        "versions": {},
    }
    return Result.from_json(metrics | changes)


def test_markdown_has_the_random_row_intervals_protocol_excluded_labels_and_caveats():
    text = results_markdown(make_result())
    assert text.index("| Random encoder | 0.611 (0.561 to 0.651)") < text.index("| Pretrained encoder |")
    for statement in (
        "| Difference | +0.201 (+0.110 to +0.290; p &lt; 0.001)",
        "| Trained from scratch | 0.700",
        "Label HYP (hypertrophy) (test set: 0 positive of 47 records)",
        "| NORM (normal ECG) |",
        "The test split holds 47 records of 45 patients.",
        "is better than a random one (+0.201 macro AUROC",
    ):
        assert statement in text, statement
    assert "runs/tiny" not in text


def test_rows_of_a_table_have_as_many_cells_as_its_header_whatever_a_label_is_called():
    text = results_markdown(make_result())
    assert "a\\|b &lt;i&gt;" in text and "<i>" not in text
    for table in re.findall(r"(?:^\|.*\n)+", f"{text}\n", flags=re.MULTILINE):
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1, table


def test_a_second_baseline_stands_in_every_table_with_its_difference():
    kernels = {"linear": evaluated(0.9)}
    gained = {"linear": {"macro_auroc": -0.088, "ci95": [-0.12, -0.05], "p_value": 0.001}}
    entry = {"setting": "leads", "value": "I", "label": "I", "num_train_records": 9, "num_test_records": 9}
    entry |= {"pretrained": evaluated(0.8), "random_encoder": evaluated(0.6), "random_kernels": evaluated(0.7)}
    entry |= {"difference": gained["linear"], "difference_to_random_kernels": gained["linear"]}
    changes = {"random_kernels": kernels, "difference_to_random_kernels": gained, "settings": {"leads": [entry]}}
    text = results_markdown(make_result(**changes))
    assert "| 1,200 random kernels | 0.900" in text and "| Difference to 1,200 random kernels | -0.088" in text
    assert "worse than 1,200 random kernels" in text and "AUROC, 1,200 random kernels" in text
    assert "| Setting | Random encoder | 1,200 random kernels | Pretrained encoder |" in text


def test_model_index_has_an_entry_a_protocol_with_the_random_encoder_beside_it():
    linear, finetuned = index_of(make_result())
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
    evaluated = {"macro_zmae": 0.33, "macro_zmae_ci95": [0.3, 0.36], "per_target": {"heart rate (bpm)": target}}
    evaluated |= {"num_train_records": 300, "num_test_records": 40, "num_test_patients": 40, "details": {}}
    result = make_result(
        problem_type="regression",
        label_names=["heart rate (bpm)"],
        difference={},
        random_encoder={"linear": copy.deepcopy(evaluated)},
        pretrained={"linear": evaluated},
    )
    text = results_markdown(result)
    assert "| heart rate (bpm): training mean | 9.80" in text
    assert "| heart rate (bpm): pretrained encoder | 3.21 (2.50 to 4.00) | -0.400 ± 4.50 | 0.900 |" in text
    (entry,) = index_of(result)
    assert (entry.task_type, entry.metric_type, entry.metric_value) == ("ecg-regression", "mae", 0.33)


@pytest.mark.parametrize(
    "text", ["<script>", "[a](javascript:b)", "![x](http://y)", "a\n\n# b", "a|b", "`c`", 999 * "x"]
)
def test_text_from_outside_is_one_short_line_without_tags_links_and_cells(text):
    escaped = escape_markdown(text)
    assert "\n" not in escaped and "<" not in escaped and len(escaped) <= 2 * LONGEST_TEXT
    assert not re.search(r"(?<!\\)[\[\]|`]", escaped)
