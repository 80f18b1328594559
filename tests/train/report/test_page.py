import re

import numpy as np
import pytest
from datasets import Dataset
from matplotlib.figure import Figure

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpus import DataSource
from ecg_transformers.train.predictions import Predictions, ProtocolResult, evaluate_groups, groups_of_people
from ecg_transformers.train.report.evaluation_page import finetune_page
from ecg_transformers.train.report.labels import spelled_out
from ecg_transformers.train.report.page import Cell, Page, ReportFigure, Row, Section, Table, render_page
from ecg_transformers.train.results import MULTI_LABEL, Result

from .test_evaluation_page import text_of

TABLE = Table("Scores.", ("Name", "A"), (Row("one", (Cell("0.5", ("0.4 to 0.6",), best=True),)),))


def make_page(**changes):
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    drawn = ReportFigure(figure, "Curve", "It falls.", "A falling line")
    fields = {
        "title": "ECG-JEPA quickstart",
        "summary": "A small encoder was pretrained.",
        "sections": [Section("Results", tables=(TABLE,), figures=(drawn,)), Section("More", ("Text.",), folded=True)],
        "facts": {"Records": 38400, "Time (s)": 213.4},
        "data": DataSource("PTB-XL", "CC BY 4.0", "Wagner et al., Sci Data 2020;7:154"),
        "command": "ecg-transformers quickstart --seed 0",
        "next_commands": [("Pretrain on more:", "ecg-transformers pretrain --config kim_random")],
    }
    return Page(**(fields | changes))


def test_unknown_licence_is_called_unknown():
    page = render_page(make_page(data=DataSource("My hospital", None, "unpublished", "javascript:alert(1)")))
    assert "Licence: not stated" in text_of(page) and "javascript:" not in page


def test_text_from_outside_is_escaped():
    page = render_page(make_page(title="<script>alert(1)</script>", facts={"<b>": "<img src=http://x>"}))
    assert "<script>" not in page and "<img src=http" not in page and "&lt;script&gt;" in page


def test_a_section_is_the_same_table_in_markdown():
    section = Section("A|b", ("Text.",), (TABLE,), ("Small.",), {"x": "why"}, details=(Section("More", ("In it.",)),))
    text = section.markdown()
    assert "| one | 0.5 (0.4 to 0.6) |" in text and text.startswith("### A\\|b\n\nText.")
    assert "Left out: x (why)." in text and text.endswith("#### More\n\nIn it.")


@pytest.mark.parametrize(
    ("label", "task", "words"),
    [
        ("MI", "ptb-xl superdiagnostic", "MI (myocardial infarction)"),
        ("NORM", "PTB-XL superdiagnostic, test fold 10", "NORM (normal ECG)"),
        ("LNGQT", "ptb-xl-sample all", "LNGQT (long QT-interval)"),
        ("MI", "cpsc2018", "MI"),
        ("mine", "ptb-xl all", "mine"),
    ],
)
def test_codes_of_ptb_xl_are_spelled_out(label, task, words):
    assert spelled_out(label, task) == words


def fine_tuning(num_records=40):
    rows = load_ecg("ptb-xl-sample", split="test", decode=False).select(range(num_records))
    generator, names = np.random.default_rng(0), ("MI", "NORM")
    labels = generator.integers(0, 2, size=(num_records, 2)).astype(np.int8)
    scores = np.clip(0.3 * labels + 0.7 * generator.random(labels.shape), 0.01, 0.99)
    test = Predictions(scores, labels, rows["record_id"][:], rows["patient_id"][:])
    return rows, ProtocolResult("finetuned", names, MULTI_LABEL, labels, test, test)


def test_page_of_a_fine_tuning_has_scores_subgroups_curves_and_each_record_once():
    rows, found = fine_tuning()
    evaluated = found.evaluate(num_resamples=20)
    evaluated |= {"num_records": evaluated["num_test_records"], "num_patients": evaluated["num_test_patients"]}
    groups = groups_of_people(found.test.record_ids, rows)
    about = (found.label_names, MULTI_LABEL, found.train_labels)
    metrics = {"task": "ptb-xl superdiagnostic", "problem_type": MULTI_LABEL, "protocol": "finetuned", "model": "a/b"}
    metrics |= {"label_names": list(found.label_names), "validation": evaluated, "test": evaluated, "seconds": 3.0}
    metrics |= {
        "subgroups": evaluate_groups(found.test, groups, *about, num_resamples=20),
        "versions": {},
        "command": "x",
    }
    page = render_page(finetune_page(Result.from_json(metrics), found, rows, DataSource("P", None, "c"), {}, []))
    text = text_of(page)
    assert f"test {len(rows)} " in text and "men " in text and "ROC curves of 2 labels" in page
    drawn = re.findall(r'alt="Electrocardiogram of record (\S+) ', page)
    assert len(drawn) == len(set(drawn)) > 3


def test_groups_are_evaluated_alone_and_small_ones_are_refused():
    rows, found = fine_tuning()
    groups = {"all": np.ones(40, dtype=bool), "few": np.arange(40) < 3}
    evaluated = evaluate_groups(
        found.test, groups, found.label_names, MULTI_LABEL, found.train_labels, num_resamples=20
    )
    assert evaluated["all"]["macro_auroc"] == found.evaluate(num_resamples=20)["macro_auroc"]
    assert evaluated["all"]["num_labels"] == 2 and "too few" in evaluated["few"]["refused"]


def test_people_are_grouped_by_sex_and_age_and_unknown_ones_by_neither():
    people = {"age": [None, 39.9, 40, 85], "sex": ["male", "female", "male", None], "record_id": ["d", "a", "b", "c"]}
    groups = groups_of_people(["a", "b", "c", "d"], Dataset.from_dict(people))
    assert groups_of_people(["a"], Dataset.from_dict({"record_id": ["a"]})) == {}
    members = {name: np.flatnonzero(rows).tolist() for name, rows in groups.items()}
    expected = {"women": [0], "men": [1, 3], "younger than 40": [0], "40 to 59 years": [1], "80 years and older": [2]}
    assert members == expected
