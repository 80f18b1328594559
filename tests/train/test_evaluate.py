"""`ecg-transformers evaluate`, on carried recordings and a tiny encoder without training."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from transformers import AutoModel

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.train.cli import PROTOCOLS, SETTINGS, build_parser, main
from ecg_transformers.train.evaluate import WRITTEN, name_folds
from ecg_transformers.train.evaluation import protocols, run, settings
from ecg_transformers.train.features import load_encoder
from ecg_transformers.train.inference import find_quality, records_by_finding
from ecg_transformers.train.publishing.shared_folder import public_results
from ecg_transformers.train.settings import pooled_changes
from ecg_transformers.train.tasks import targets
from ecg_transformers.train.tasks.labelled_splits import load_labelled_splits

from .conftest import INPUT, SIZE, tiny_encoder

LABELS = ["CD", "HYP", "MI", "NORM", "STTC"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    tiny_encoder(folder, extractor={"normalization": "lead", "missing_leads": "mask"}, seed=1)
    return str(folder)


def evaluated(checkpoint, output, *words):
    command = ["evaluate", "--model", checkpoint, "--output_dir", str(output), "--debug", *words]
    assert main(command) == 0
    return json.loads((output / "metrics.json").read_text())


def with_a_copy(*choices):
    """The splits, the first test record twice."""
    splits = load_labelled_splits(*choices)
    copy = Dataset.from_list([splits.test.with_format(None)[0] | {"record_id": "copied"}], splits.test.features)
    return dataclasses.replace(splits, test=concatenate_datasets([splits.test, copy], info=splits.test.info))


@pytest.fixture(scope="module")
def evaluation(checkpoint, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "load_labelled_splits", with_a_copy)
        patch.setattr(run, "KERNELS", {"random_kernels_126": 12, "random_kernels": 24})  # faster
        patch.setattr(protocols, "cross_validated_C", lambda *args: 0.01)  # 25 fits fewer a model
        return output, evaluated(checkpoint, output, "--protocol", "linear", "knn", "zero-shot-cluster")


def test_overwriting_would_remove_all_that_an_evaluation_writes(evaluation):
    folder, _ = evaluation
    assert all(WRITTEN.fullmatch(path.name) for path in folder.iterdir())


def test_every_protocol_stands_beside_a_random_encoder(evaluation):
    _, metrics = evaluation
    assert metrics["task"] == "ptb-xl-sample superdiagnostic" and metrics["label_names"] == LABELS
    for part in ("random_encoder", "pretrained", "difference"):
        assert set(metrics[part]) == {"linear", "knn", "zero-shot-cluster"}
    for protocol in ("linear", "knn"):
        for encoder in ("random_encoder", "pretrained"):
            scored = metrics[encoder][protocol]
            low, high = scored["macro_auroc_ci95"]
            assert 0.0 <= low <= scored["macro_auroc"] <= high <= 1.0 and scored["num_test_records"] == 64
        difference = metrics["difference"][protocol]
        areas = [metrics[encoder][protocol]["macro_auroc"] for encoder in ("pretrained", "random_encoder")]
        assert difference["macro_auroc"] == pytest.approx(areas[0] - areas[1])
    assert metrics["splits"]["train"]["which"] == "folds 1-8" and metrics["splits"]["test"]["which"] == "fold 10"
    assert metrics["splits"]["test"]["records"] == 64 and metrics["splits"]["test"]["without_label"] == 2


def test_clean_test_recordings_are_not_named(evaluation):
    assert evaluation[1]["quality_of_test"] == {}  # of I, II and V2 of the carried ones


def test_odd_recordings_are_named_by_what_was_found():
    extractor = EcgFeatureExtractor(**INPUT, missing_leads="mask")
    row = load_labelled_splits("ptb-xl-sample", options={"task": "superdiagnostic"}).test[0]
    ecg = row["ecg"] | {"signal": bytes(len(row["ecg"]["signal"]))}
    rows = [row, row | {"record_id": "flat", "ecg": ecg}, row | {"record_id": "short", "ecg": ecg | {"signal": b""}}]
    quality = find_quality(rows, extractor)
    assert quality[row["record_id"]] == [] and "short" not in quality
    assert records_by_finding(quality)["no_signal"] == ["flat"]


def test_frozen_features_stand_beside_random_kernels_too(evaluation):
    _, metrics = evaluation
    for baseline in ("random_kernels_126", "random_kernels"):
        assert set(metrics[baseline]) == set(metrics[f"difference_to_{baseline}"]) == {"linear", "knn"}
        for protocol, difference in metrics[f"difference_to_{baseline}"].items():
            areas = [metrics[encoder][protocol]["macro_auroc"] for encoder in ("pretrained", baseline)]
            assert difference["macro_auroc"] == pytest.approx(areas[0] - areas[1])


def test_copies_that_are_left_out_are_counted_on_the_page_and_named_in_the_metrics(evaluation):
    output, metrics = evaluation
    first = load_labelled_splits("ptb-xl-sample").test["record_id"][0]
    assert metrics["copies_left_out"] == {"validation": {}, "test": {"copied": first}}
    counts = {split: facts.get("exact_copies") for split, facts in metrics["splits"].items()}
    assert counts == {"train": None, "validation": 0, "test": 1}
    assert "Exact copies" in (output / "evaluation.html").read_text()
    assert "copied" not in pq.read_table(output / "predictions.parquet")["record_id"].to_pylist()
    assert "copied" not in json.dumps(public_results(metrics))


def test_anybody_can_score_the_predictions_again_with_scikit_learn_alone(evaluation):
    output, metrics = evaluation
    table = pq.read_table(output / "predictions.parquet").to_pandas()
    assert set(table["split"]) == {"validation", "test"}
    for encoder in ("random_encoder", "pretrained"):
        for protocol in ("linear", "knn"):
            rows = table[(table.split == "test") & (table.encoder == encoder) & (table.protocol == protocol)]
            scored = metrics[encoder][protocol]
            columns = [(rows[f"label/{name}"], rows[f"score/{name}"]) for name in LABELS]
            assert np.mean([roc_auc_score(*column) for column in columns]) == pytest.approx(scored["macro_auroc"])
            precision = np.mean([average_precision_score(*column) for column in columns])
            assert precision == pytest.approx(scored["macro_auprc"])
            assert np.mean([brier_score_loss(*column) for column in columns]) == pytest.approx(scored["brier"], 1e-4)
            assert scored["num_test_patients"] == rows["patient_id"].nunique()


def test_page_and_card_section_tell_the_numbers(evaluation):
    output, metrics = evaluation
    page, card = ((output / name).read_text() for name in ("evaluation.html", "card_section.md"))
    for encoder in ("random_encoder", "pretrained"):
        score = f"{metrics[encoder]['linear']['macro_auroc']:.3f}"
        assert score in page and score in card
    assert "We know no published number of the task" in page
    assert page.count("data:image/png") >= 3  # attention on ECG paper


def test_the_command_line_names_what_there_is():
    assert PROTOCOLS == run.PROTOCOLS and SETTINGS == settings.SETTINGS


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--protocol", "lineal"], "Unknown --protocol"),
        (["--setting", "dark"], "Unknown --setting"),
        (["--setting", "noise"], "NSTDB|nstdb|noise"),
        (["--target", "age", "--protocol", "zero-shot-cluster"], "a regression has none"),
        (["--target", "age", "--delineator", "x"], "makes the target 'intervals'"),
        (["--feature_extractor", "unti=mV"], "unti"),
        (["--target", "identity", "--setting", "unit"], "does not read --setting"),
        (["--target", "delineation"], "on LUDB"),
        (["--split", "all"], "tested on the test split"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_a_sentence(words, reason, checkpoint, tmp_path):
    with pytest.raises((ValueError, TypeError), match=reason):
        main(["evaluate", "--model", checkpoint, "--output_dir", str(tmp_path), "--debug", *words])


def test_folds_are_named_as_people_do():
    named = [name_folds(folds) for folds in ([1, 2, 3], [9], [1, 3], [])]
    assert named == ["folds 1-3", "fold 9", "folds 1, 3", "its own"]


@pytest.mark.slow
def test_every_other_protocol_runs_from_the_command_line(checkpoint, tmp_path):
    others = [name for name in PROTOCOLS if name not in ("linear", "knn", "zero-shot-cluster")]
    (tmp_path / "quick.yaml").write_text(
        "max_steps: 2\neval_strategy: steps\neval_steps: 2\nper_device_train_batch_size: 16\nlearning_rate: 0.001\n"
    )
    words = ["--protocol", *others, "--finetune_config", str(tmp_path / "quick.yaml")]
    metrics = evaluated(checkpoint, tmp_path / "evaluation", *words)
    assert set(metrics["pretrained"]) == set(metrics["random_encoder"]) == set(others)
    assert (tmp_path / "evaluation" / "finetuned" / "pretrained" / "model.safetensors").exists()


@pytest.mark.slow
def test_settings_and_other_targets_run_from_the_command_line(checkpoint, shared_data_dir, tmp_path):
    nstdb = ["--nstdb", str(shared_data_dir / "nstdb")]
    metrics = evaluated(checkpoint, tmp_path / "settings", "--setting", *SETTINGS, *nstdb)
    assert set(metrics["settings"]) == set(SETTINGS) and all(metrics["settings"].values())
    ages = evaluated(checkpoint, tmp_path / "age", "--target", "age", "--protocol", "linear", "knn")
    assert 0 < ages["pretrained"]["linear"]["per_target"]["age_years"]["mae"] < 40
    sexes = evaluated(checkpoint, tmp_path / "sex", "--target", "sex")
    assert 0 < sexes["pretrained"]["linear"]["accuracy"] <= 1
    people = evaluated(checkpoint, tmp_path / "identity", "--target", "identity", "--split", "all")
    assert people["pretrained"]["identity"]["num_queries"] > 20
    intervals = ["--dataset", "ludb", "--data_dir", str(shared_data_dir / "ludb"), "--target", "intervals"]
    measured = evaluated(checkpoint, tmp_path / "intervals", *intervals)
    assert len(measured["pretrained"]["linear"]["per_target"]) == 5
    for folder in ("settings", "age", "sex", "identity", "intervals"):
        assert (tmp_path / folder / "evaluation.html").stat().st_size > 5_000


@pytest.mark.parametrize("name, width", [("random-kernels-126", 504), ("lead-statistics", 108)])
def test_encoders_without_training_embed_by_their_name(name, width, tmp_path):
    command = ["embed", "--model", name, "--dataset", "ptb-xl-sample", "--split", "test"]
    assert main([*command, "--output_dir", str(tmp_path), "--debug"]) == 0
    table = pq.read_table(tmp_path / "embeddings.parquet")
    assert len(table) == 66 and table["features"].type.list_size == width


def test_layer_and_pooling_replace_what_the_checkpoint_states(checkpoint):
    parsed, _ = build_parser().parse_known_args(
        ["evaluate", "--layer", "0", "--pooling", "statistics", "--output_dir", "out"]
    )
    model, extractor = load_encoder(checkpoint, pooled=pooled_changes(parsed))
    stated = AutoModel.from_pretrained(checkpoint, pooled_layer=0, pooling="statistics").eval()
    inputs = extractor(load_ecg("ptb-xl-sample", split="test")[0]["ecg"])
    with torch.inference_mode():
        torch.testing.assert_close(model(**inputs).pooler_output, stated(**inputs).pooler_output)
        assert model(**inputs).pooler_output.shape[1] == 4 * SIZE["hidden_size"]


def test_a_model_without_layers_has_none_to_choose(tmp_path, capsys):
    command = ["evaluate", "--model", "random-kernels", "--layer", "0", "--output_dir", str(tmp_path / "out")]
    assert main(command) == 1
    assert "--layer" in capsys.readouterr().err
