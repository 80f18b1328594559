import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import TrainingArguments

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling import EcgFeatureExtractor, EcgJepaConfig, EcgJepaModel
from ecg_transformers.train.publishing.licences import hub_licence
from ecg_transformers.train.publishing.model_card import (
    Method,
    loading_snippet,
    render_finetuned_card,
    render_model_card,
)
from ecg_transformers.train.publishing.run_costs import RunCosts, run_costs

LEADS = ("I", "II", "V1")
TASK = "PTB-XL superdiagnostic, test fold 10"
PTB_XL = DataSource(
    "PTB-XL 1.0.1", "CC BY 4.0", "Wagner et al., Sci Data 2020;7:154", "https://doi.org/10.13026/kfzx-aw45", "ptb-xl"
)


def probe(macro, excluded):
    per_class = {"NORM": macro + 0.02, "MI": macro - 0.02}
    return {
        "macro_auroc": macro,
        "macro_auroc_ci95": [macro - 0.05, macro + 0.04],
        "per_class": per_class,
        "per_class_ci95": {name: [value - 0.06, value + 0.05] for name, value in per_class.items()},
        "excluded": excluded,
        "C": 0.01,
        "num_train_records": 398,
        "num_test_records": 47,
        "num_test_patients": 45,
    }


def make_comparison(excluded=None):
    return {
        "random_encoder": {"linear": probe(0.611, excluded or {})},
        "pretrained": {"linear": probe(0.812, excluded or {})},
        "difference": {"linear": {"macro_auroc": 0.201, "ci95": [0.11, 0.29], "p_value": 0.002}},
    }


@pytest.fixture(scope="module")
def config():
    return EcgJepaConfig(
        leads=LEADS,
        sampling_rate=100,
        num_samples=400,
        patch_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )


@pytest.fixture(scope="module")
def feature_extractor():
    return EcgFeatureExtractor(leads=LEADS, sampling_rate=100, num_samples=400, highpass_hz=0.5)


def make_card(config, feature_extractor, **changes):
    arguments = {
        "model_id": "someone/ecg-jepa-small",
        "data": PTB_XL,
        "split": "folds 1-8, 398 records of 371 patients",
        "training": {"Learning rate": 1e-3, "Steps": 600},
        "comparison": make_comparison(),
        "task": TASK,
        "license": "apache-2.0",
    }
    return render_model_card(config, feature_extractor, **(arguments | changes))


def test_header_is_valid_hub_metadata_and_survives_a_file(config, feature_extractor, tmp_path):
    make_card(config, feature_extractor).save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "transformers" and data.license == "apache-2.0" and data.datasets == ["ptb-xl"]
    assert {"ecg", "self-supervised-learning", "ecg_jepa"} <= set(data.tags)
    (result,) = data.eval_results
    assert result.dataset_type == "ptb-xl" and result.dataset_name == TASK
    assert result.metric_type == "roc_auc" and result.metric_value == pytest.approx(0.812)


def test_score_in_the_model_index_carries_protocol_interval_and_random_encoder(config, feature_extractor):
    header = yaml.safe_load(str(make_card(config, feature_extractor)).split("---\n")[1])
    (metric,) = header["model-index"][0]["results"][0]["metrics"]
    assert metric["name"] == "Macro AUROC (linear protocol)"
    assert metric["args"] == {
        "protocol": "linear",
        "ci95": [0.762, 0.852],
        "random_encoder": 0.611,
        "num_train_records": 398,
        "num_test_records": 47,
        "num_test_patients": 45,
    }


def test_results_show_the_random_encoder_above_with_intervals(config, feature_extractor):
    text = make_card(config, feature_extractor).text
    assert "| AUROC | macro | NORM | MI |\n|---|---|---|---|\n| Random encoder | 0.611 (0.561 to 0.651) |" in text
    assert "| Pretrained encoder | 0.812 (0.762 to 0.852) | 0.832 | 0.792 |" in text
    assert f"Task: {TASK}." in text and "Protocol **linear**" in text


def test_excluded_labels_are_named(config, feature_extractor):
    comparison = make_comparison({"HYP": "test set: 0 positive"})
    assert (
        "Labels left out: HYP (test set: 0 positive)."
        in make_card(config, feature_extractor, comparison=comparison).text
    )


def test_input_contract_comes_from_the_feature_extractor(config, feature_extractor):
    text = make_card(config, feature_extractor).text
    for row in (
        "| Leads, in this order | I, II, V1 |",
        "| Sampling rate after resampling (Hz) | 100 |",
        "| Length (samples) | 400 |",
        "| Unit | mV |",
        "| High-pass filter (Hz) | 0.5 |",
        "| Normalisation of a window | none, amplitudes keep their unit |",
    ):
        assert row in text
    assert "Low-pass" not in text and "Clipped" not in text


def test_data_licence_citation_limits_and_training_are_stated(config, feature_extractor):
    text = make_card(config, feature_extractor).text
    for statement in (
        "folds 1-8, 398 records of 371 patients",
        "Licence of the data: CC BY 4.0.",
        "Wagner et al.",
        "arxiv.org/abs/2410.08559",
        "not a medical device",
        "| Learning rate | 0.001 |",
        "torch ",
    ):
        assert statement in text, statement


def test_unknown_licences_are_called_unknown_and_never_invented(config, feature_extractor):
    data = DataSource("My hospital", None, "unpublished")
    card = make_card(config, feature_extractor, license=None, data=data)
    assert card.data.license == "other" and card.data.license_name == "unknown" and card.data.datasets is None
    assert "Licence of the data: **unknown**" in card.text and "Unknown: whoever trained this model" in card.text


def test_checkpoint_without_results_says_so_and_has_no_model_index(config, feature_extractor):
    card = make_card(config, feature_extractor, comparison=None, task=None)
    assert "No results were measured" in card.text and card.data.eval_results is None


def test_results_without_their_task_are_refused(config, feature_extractor):
    with pytest.raises(ValueError, match="task"):
        make_card(config, feature_extractor, task=None)


def test_another_method_can_be_named(config, feature_extractor):
    method = Method(
        "Weimann's ECG-JEPA", "It predicts segments.", "Weimann et al.", "https://arxiv.org/abs/2410.13867"
    )
    assert (
        "pretrained without labels by **Weimann's ECG-JEPA**"
        in make_card(config, feature_extractor, method=method).text
    )


def test_bar_in_a_value_does_not_break_the_table(config, feature_extractor):
    assert "| Command | a \\| b |" in make_card(config, feature_extractor, training={"Command": "a | b"}).text


def test_loading_snippet_runs_as_it_stands(config, feature_extractor, tmp_path):
    EcgJepaModel(config).save_pretrained(tmp_path)
    feature_extractor.save_pretrained(tmp_path)
    snippet = loading_snippet(config, feature_extractor, str(tmp_path))
    assert snippet in make_card(config, feature_extractor, model_id=str(tmp_path)).text
    names = {}
    exec(snippet, names)
    assert names["features"].shape == (1, 16)


def test_all_three_licences_are_stated_and_that_of_the_data_is_in_the_header(config, feature_extractor):
    card = make_card(config, feature_extractor, license="apache-2.0")
    assert card.data["training_data_license"] == "CC BY 4.0" and card.data.license == "apache-2.0"
    for line in ("* Code beside the weights: Apache-2.0.", "* Weights: `apache-2.0`.", "* Training data: CC BY 4.0."):
        assert line in card.text
    unsettled = make_card(config, feature_extractor, data=DataSource("Mine", "verify on its page", "unpublished"))
    assert "training_data_license" not in unsettled.data.to_dict() and "* Training data: **unknown**" in unsettled.text


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("CC BY-NC 4.0", {"license": "cc-by-nc-4.0"}),
        ("MIT", {"license": "mit"}),
        ("Ours 1.0", {"license": "other", "license_name": "Ours 1.0"}),
        ("unknown", {"license": "other", "license_name": "unknown"}),
    ],
)
def test_licences_become_identifiers_of_the_hub(licence, fields):
    assert hub_licence(licence) == fields


def test_results_of_a_regression_are_told_in_its_own_score(config, feature_extractor):
    def of(error):
        found = {"macro_zmae": error, "macro_zmae_ci95": [error - 0.1, error + 0.1], "num_test_records": 47}
        return {"linear": found | {"per_target": {"age (years)": {"mae": 10.0}}, "num_test_patients": 45}}

    comparison = {"random_encoder": of(0.9), "pretrained": of(0.7), "difference": {}}
    card = make_card(config, feature_extractor, comparison=comparison, task="age")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.metric_args["random_encoder"]) == ("mae", 0.7, 0.9)
    assert "| Random encoder | 0.900 (0.800 to 1.000) |\n| Pretrained encoder | 0.700" in card.text


def test_time_hardware_and_carbon_are_what_was_measured_or_said_not_to_be(config, feature_extractor, tmp_path):
    assert "Time and hardware: not recorded." in make_card(config, feature_extractor).text
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    costs = run_costs(61.4, args)
    card = make_card(config, feature_extractor, costs=costs)
    assert "61 s on" in card.text and "CPU" in card.text and "carbon were not measured" in card.text
    (tmp_path / "emissions.csv").write_text("timestamp,emissions,energy_consumed\nx,0.5,1\ny,0.0123,0.05\n")
    card = make_card(config, feature_extractor, costs=run_costs(61.4, args))
    assert "0.05 kWh and 0.0123 kg of CO2" in card.text
    assert ModelCard(str(card)).data["co2_eq_emissions"]["emissions"] == 12.3
    (tmp_path / "emissions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not what codecarbon writes"):
        run_costs(1.0, args)
    assert RunCosts(1.0, "CPU").metadata() == {}


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "single_label_classification", "regression"])
def test_the_card_of_a_fine_tuning_that_goes_on_says_so(config, feature_extractor, problem_type):
    tuned = EcgJepaConfig(**(config.to_dict() | {"id2label": {0: "A", 1: "B"}, "problem_type": problem_type}))
    card = render_finetuned_card(tuned, feature_extractor, "tuned", "start", PTB_XL)
    assert "The training goes on; nothing has been tested." in card.text and card.data.eval_results is None
    assert "A, B." in card.text and ("not in the unit of the target" in card.text) == (problem_type == "regression")
    assert card.data["training_data_license"] == "CC BY 4.0" and "arxiv.org/abs/2410.08559" in card.text
