import pytest
import yaml
from huggingface_hub import ModelCard

from ecg_transformers.modeling import EcgFeatureExtractor, EcgJepaConfig, EcgJepaModel
from ecg_transformers.train.model_card import Method, loading_snippet, render_model_card
from ecg_transformers.train.report import DataSource

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
        "num_test_records": 47,
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
