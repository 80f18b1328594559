import dataclasses
import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import TrainingArguments

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    EcgJepaConfig,
    EcgJepaForSequenceClassification,
    EcgJepaModel,
)
from ecg_transformers.modeling.method import Method
from ecg_transformers.train.publishing.model_card import (
    Authors,
    CardFacts,
    RunCosts,
    ShownResult,
    render_card,
    run_costs,
    write_card,
)
from ecg_transformers.train.results import Result

LEADS = ("I", "II", "V1")
TASK = "PTB-XL superdiagnostic, test fold 10"
PTB_XL = DataSource(
    "PTB-XL 1.0.1", "CC BY 4.0", "Wagner et al., Sci Data 2020;7:154", "https://doi.org/10.13026/kfzx-aw45", "ptb-xl"
)


def evaluated(macro):
    counts = {"num_train_records": 398, "num_test_records": 47, "num_test_patients": 45}
    return {"linear": {"macro_auroc": macro, "macro_auroc_ci95": [macro - 0.05, macro + 0.04]} | counts}


RESULT = Result.from_json({"task": TASK, "random_encoder": evaluated(0.611), "pretrained": evaluated(0.812)})


@pytest.fixture(scope="module")
def config():
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return EcgJepaConfig(leads=LEADS, sampling_rate=100, num_samples=400, patch_size=20, **size)


@pytest.fixture(scope="module")
def feature_extractor():
    return EcgFeatureExtractor(leads=LEADS, sampling_rate=100, num_samples=400, highpass_hz=0.5)


def make_card(config, feature_extractor, model_id="someone/ecg-jepa-small", results=(), **changes):
    facts = {"kind": "pretrained", "data": PTB_XL, "split": "folds 1-8", "weights_licence": "apache-2.0"}
    facts |= {"training": {"Learning rate": 1e-3, "Steps": 600}}
    return render_card(CardFacts(**(facts | changes)), config, feature_extractor, model_id, results)


def test_header_is_valid_hub_metadata_with_the_score_and_what_stands_beside_it(config, feature_extractor, tmp_path):
    card = make_card(config, feature_extractor, results=[ShownResult(RESULT, "| a table |")])
    card.save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "transformers" and data.license == "apache-2.0" and data.datasets == ["ptb-xl"]
    assert {"ecg", "self-supervised-learning", "ecg_jepa"} <= set(data.tags)
    header = yaml.safe_load(str(card).split("---\n")[1])
    (metric,) = header["model-index"][0]["results"][0]["metrics"]
    assert (metric["name"], metric["value"]) == ("Macro AUROC (linear protocol)", 0.812)
    assert metric["args"]["random_encoder"] == 0.611 and metric["args"]["num_test_patients"] == 45
    assert "| a table |" in card.text and "No results" not in card.text


def test_input_contract_comes_from_the_feature_extractor(config, feature_extractor):
    text = make_card(config, feature_extractor).text
    for row in (
        "| Leads, in this order | I, II, V1 |",
        "| Sampling rate after resampling (Hz) | 100 |",
        "| High-pass filter (Hz) | 0.5 |",
        "| Normalisation of a window | none, amplitudes keep their unit |",
    ):
        assert row in text
    assert "Low-pass" not in text and "Clipped" not in text


def test_unknown_licences_are_called_unknown_and_never_invented(config, feature_extractor):
    card = make_card(config, feature_extractor, weights_licence=None, data=DataSource("My hospital", None, "none"))
    assert card.data.license == "other" and card.data.license_name == "unknown" and card.data.datasets is None
    assert "* Training data: **unknown**" in card.text and "Unknown: whoever trained this model" in card.text
    assert "training_data_license" not in card.data.to_dict()


def test_all_three_licences_are_stated_and_that_of_the_data_is_in_the_header(config, feature_extractor):
    card = make_card(config, feature_extractor)
    assert card.data["training_data_license"] == "CC BY 4.0" and card.data.license == "apache-2.0"
    for line in ("* Code beside the weights: Apache-2.0.", "* Weights: apache-2.0.", "* Training data: CC BY 4.0."):
        assert line in card.text


def test_checkpoint_without_results_says_so_and_has_no_model_index(config, feature_extractor):
    card = make_card(config, feature_extractor)
    assert "No results were measured" in card.text and card.data.eval_results is None


HOSTILE = "<img src=x onerror=alert(1)> [a](javascript:b) | `c`\n# d"


def test_names_of_users_are_escaped_wherever_they_stand(config, feature_extractor):
    tuned = EcgJepaConfig(**(config.to_dict() | {"id2label": {0: HOSTILE}}))
    data = DataSource(HOSTILE, "CC BY 4.0", HOSTILE, "javascript:alert(1)")
    facts = {
        "data": data,
        "split": HOSTILE,
        "start": HOSTILE,
        "training": {HOSTILE: HOSTILE},
        "versions": {"a": HOSTILE},
    }
    for kind in ("pretrained", "finetuned"):
        text = make_card(tuned, feature_extractor, kind=kind, **facts).text
        assert "<img" not in text and "\n# d" not in text and not re.search(r"(?<!\\)\]\(javascript", text)
        assert "javascript:alert" not in text


@pytest.mark.parametrize("is_classifier", [False, True])
def test_loading_snippet_runs_as_it_stands(config, feature_extractor, tmp_path, is_classifier):
    model_class = EcgJepaForSequenceClassification if is_classifier else EcgJepaModel
    model_class(config).save_pretrained(tmp_path)
    feature_extractor.save_pretrained(tmp_path)
    kind = "finetuned" if is_classifier else "pretrained"
    text = make_card(config, feature_extractor, str(tmp_path), kind=kind, start="a").text
    snippet = text.split("```python\n")[1].split("```")[0]
    names = {}
    exec(snippet, names)
    assert len(names["scores"]) == 2 if is_classifier else names["features"].shape == (1, 16)


def test_facts_survive_their_file_and_give_the_same_card(config, feature_extractor, tmp_path):
    facts = CardFacts(
        "converted",
        PTB_XL,
        training={"Steps": 3},
        method=Method("Theirs", "It predicts segments.", "Weimann et al.", "https://arxiv.org/abs/2410.13867"),
        authors=Authors("Hub: a/b.", "MIT", "None.", "a.pt"),
        costs=RunCosts(12.0, "CPU", 0.05, 0.0123),
        header={"language": "en", "tags": ["tiny"]},
    )
    card = write_card(tmp_path, facts, config, feature_extractor)
    again = CardFacts.from_json(json.loads((tmp_path / "card.json").read_text()), tmp_path)
    assert again == facts
    assert str(render_card(again, config, feature_extractor, tmp_path.name)) == str(card)
    assert card.data.language == "en" and "tiny" in card.data.tags and "**Theirs**" in card.text
    assert card.data["co2_eq_emissions"]["emissions"] == 12.3
    with pytest.raises(ValueError, match="does not hold the facts of a card"):
        CardFacts.from_json(dataclasses.asdict(facts) | {"kind": "mine"}, tmp_path)


def test_time_hardware_and_carbon_are_what_was_measured_or_said_not_to_be(config, feature_extractor, tmp_path):
    assert "Time and hardware: not recorded." in make_card(config, feature_extractor).text
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    card = make_card(config, feature_extractor, costs=run_costs(61.4, args))
    assert "61 s on" in card.text and "CPU" in card.text and "carbon were not measured" in card.text
    (tmp_path / "emissions.csv").write_text("timestamp,emissions,energy_consumed\nx,0.5,1\ny,0.0123,0.05\n")
    card = make_card(config, feature_extractor, costs=run_costs(61.4, args))
    assert "0.05 kWh and 0.0123 kg of CO2" in card.text
    (tmp_path / "emissions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not what codecarbon writes"):
        run_costs(1.0, args)
    assert RunCosts(1.0, "CPU").metadata() == {}


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "single_label_classification", "regression"])
def test_the_card_of_a_fine_tuning_that_goes_on_says_so(config, feature_extractor, problem_type):
    tuned = EcgJepaConfig(**(config.to_dict() | {"id2label": {0: "A", 1: "B"}, "problem_type": problem_type}))
    card = make_card(tuned, feature_extractor, kind="finetuned", start="start", ongoing=True)
    assert "The training goes on; nothing has been tested." in card.text and card.data.eval_results is None
    assert "A, B." in card.text and ("not in the unit of the target" in card.text) == (problem_type == "regression")
