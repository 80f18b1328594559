"""`ecg-transformers finetune`, on carried recordings and a tiny encoder without training."""

import dataclasses
import json
import subprocess
import sys
from importlib import resources

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification, Trainer

from ecg_transformers import modeling
from ecg_transformers.data import EcgDataCollator, load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTModel
from ecg_transformers.train.cli import main
from ecg_transformers.train.finetune import (
    FINETUNE_PRESETS,
    FineTuningArguments,
    as_taught,
    build_finetuning,
    finish,
    load_classifier,
)
from ecg_transformers.train.finetune_objective import WeightedLoss, WindowRows, class_weights, layer_decay_groups
from ecg_transformers.train.inference import predict
from ecg_transformers.train.metrics import macro_auroc
from ecg_transformers.train.settings import read_config, sort_settings, training_arguments
from ecg_transformers.train.tasks.labelled_splits import (
    MULTI_LABEL,
    SINGLE_LABEL,
    declared_problem_type,
    load_labelled_splits,
    task_name,
)
from ecg_transformers.train.trainer import train_and_save

LEADS = ["I", "II", "V2"]
INPUT = {"leads": LEADS, "sampling_rate": 100, "num_samples": 400}
WEIGHTS = "model.safetensors"
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
QUICK = {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 16, "logging_steps": 50}
QUICK |= {"per_device_eval_batch_size": 64, "eval_strategy": "steps", "eval_steps": 2, "max_steps": 4}
QUICK |= {"learning_rate": 0.01}
FLAGS = [word for key, value in QUICK.items() for word in (f"--{key}", str(value))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An encoder of 4 s with windows that overlap: 4 of a recording of 10 s."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    EcgViTModel(EcgViTConfig(patch_size=100, **SIZE, **INPUT)).save_pretrained(folder)
    extractor = EcgFeatureExtractor(
        **INPUT, normalization="lead", long_records="all", window_stride_samples=250, missing_leads="mask"
    )
    extractor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def splits():
    return load_labelled_splits("ptb-xl-sample")


@pytest.fixture(scope="module")
def few(splits):
    """Fewer records, to train on."""
    parts = {"train": 64, "validation": 39, "test": 20}
    return dataclasses.replace(splits, **{name: vars(splits)[name].select(range(n)) for name, n in parts.items()})


@pytest.fixture(scope="module")
def trained(checkpoint, few, tmp_path_factory):
    trainer = build_finetuning(
        checkpoint, few, QUICK | {"layer_decay": 0.5, "output_dir": str(tmp_path_factory.mktemp("run"))}
    )
    train_and_save(trainer)
    return trainer


# --- data ---------------------------------------------------------------------------------------------------------


def test_records_without_a_label_are_left_out_or_kept_and_counted(splits):
    kept = load_labelled_splits("ptb-xl-sample", unlabelled="keep")
    assert splits.unlabelled == kept.unlabelled == {"train": 1, "validation": 8, "test": 2}
    for split, rows in kept.items():
        assert len(rows) - kept.unlabelled[split] == len(vars(splits)[split])
    assert all(splits.test["labels"]) and not all(kept.test["labels"])


def test_a_carried_task_says_whether_it_is_single_label():
    assert declared_problem_type("ptb-xl-sample", None, {}) == MULTI_LABEL
    assert declared_problem_type("ptb-xl-sample", None, {"task": "superdiagnostic_single"}) == SINGLE_LABEL
    with pytest.raises(ValueError, match="Say it: --problem_type"):
        declared_problem_type("prepared", "somewhere", {})
    assert task_name("ptb-xl-sample", {}) == "ptb-xl-sample superdiagnostic"
    assert task_name("prepared", {}) == "prepared"


@pytest.mark.parametrize(
    ("header", "options", "problem_type"),
    [
        ("path,labels", {}, SINGLE_LABEL),
        ("path,labels", {"label_separator": ";"}, MULTI_LABEL),
        ("path,AF,MI", {"labels": ["AF", "MI"]}, MULTI_LABEL),
    ],
)
def test_a_folder_says_it_by_how_its_labels_are_declared(header, options, problem_type, tmp_path):
    (tmp_path / "records.csv").write_text(f"{header}\n")
    assert declared_problem_type("ecgfolder", str(tmp_path), options) == problem_type


def test_a_single_label_task_refuses_records_of_several_labels():
    with pytest.raises(ValueError, match=r"has the labels \[.*\], expected exactly one"):
        load_labelled_splits("ptb-xl-sample", problem_type=SINGLE_LABEL)
    with pytest.raises(ValueError, match="for multi-label tasks"):
        load_labelled_splits("ptb-xl-sample", problem_type=SINGLE_LABEL, unlabelled="keep")


def test_a_patient_in_two_splits_is_an_error(monkeypatch):
    module = "ecg_transformers.train.tasks.labelled_splits.load_ecg"
    monkeypatch.setattr(module, lambda name, split, **options: load_ecg(name, split="test", decode=False))
    with pytest.raises(ValueError, match="Patient .* has records in the splits 'train' and 'validation'"):
        load_labelled_splits("ptb-xl-sample")


def test_class_weights_are_counted_in_the_training_split_alone(splits):
    weights = class_weights(splits.train, splits.label_names, MULTI_LABEL)
    positives = np.array([sum(name in labels for labels in splits.train["labels"]) for name in splits.label_names])
    assert torch.allclose(weights, torch.tensor((len(splits.train) - positives) / positives).float())
    single = splits.train.select([n for n, labels in enumerate(splits.train["labels"]) if len(labels) == 1])
    weights = class_weights(single, splits.label_names, SINGLE_LABEL)
    counts = torch.tensor([single["labels"][:].count([name]) for name in splits.label_names])
    assert torch.allclose(weights * counts, torch.full((5,), len(single) / 5))


# --- windows ------------------------------------------------------------------------------------------------------


def test_windows_in_evaluation_are_those_of_the_feature_extractor(checkpoint, splits):
    extractor, rows = AutoFeatureExtractor.from_pretrained(checkpoint), splits.test.select(range(3))
    windows = WindowRows(rows, extractor, random=False)
    assert windows.windows[:5] == [(0, 0), (0, 250), (0, 500), (0, 600), (1, 0)]
    batch = EcgDataCollator(extractor, {}, return_sample_id=True)([windows[number] for number in range(len(windows))])
    expected = extractor([row["ecg"] for row in rows])
    assert torch.equal(batch["input_values"], expected["input_values"]) and batch["lead_mask"].all()
    assert len(batch["sample_id"].unique()) == 3 and batch["sample_id"][:4].unique().numel() == 1


def test_a_training_window_is_drawn_anew_by_the_seed(checkpoint, splits):
    extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    windows = WindowRows(splits.test, extractor, random=True)
    torch.manual_seed(0)
    starts = [windows[0]["window_start"] for _ in range(200)]
    torch.manual_seed(0)
    assert [windows[0]["window_start"] for _ in range(200)] == starts
    assert len(windows) == len(splits.test) and 0 <= min(starts) < 60 and 540 < max(starts) <= 600
    row = windows[0]
    cut = EcgFeatureExtractor(**INPUT | {"num_samples": 1000})(row["ecg"])["input_values"][0]
    cut = cut[:, row["window_start"] : row["window_start"] + 400]
    found = EcgDataCollator(EcgFeatureExtractor(**INPUT), {})([row])["input_values"][0]
    assert torch.equal(found, cut)


def test_a_batch_of_windows_takes_several_layouts_and_names_what_it_leaves_out(splits):
    extractor = EcgFeatureExtractor(**INPUT, missing_leads="mask")
    rows = [dict(row) | {"window_start": 100} for row in load_ecg("ptb-xl-sample", split="test").select(range(4))]
    ecg = rows[1]["ecg"]
    rows[1] = rows[1] | {"ecg": ecg | {"signal": ecg["signal"][:2], "leads": ecg["leads"][:2]}}  # without V2
    rows[2] = rows[2] | {"ecg": ecg | {"signal": ecg["signal"][:, :300]}}  # too short
    collator = EcgDataCollator(extractor, {}, return_sample_id=True)
    batch = collator(rows)
    assert batch["lead_mask"].tolist() == [[True] * 3, [True, True, False], [True] * 3]
    assert list(collator.bad_records) == [rows[2]["record_id"]]
    assert "lasts 3 s" in collator.bad_records[rows[2]["record_id"]]


def test_the_trainer_evaluates_windows_of_whole_records(trained, few):
    """Window averages and the last, smaller batch, in the stock loop: as `predict` finds, which has neither."""
    trained.args.per_device_eval_batch_size = 50  # of 156 windows
    found = predict(trained.model, trained.processing_class, few.validation, few.label_names)
    expected = macro_auroc(found.labels, found.scores, few.label_names).value
    assert trained.evaluate()["eval_macro_auroc"] == pytest.approx(expected, abs=1e-9)


# --- training -----------------------------------------------------------------------------------------------------


def test_the_stock_trainer_ends_with_the_weights_that_did_best_on_validation(trained):
    assert type(trained) is Trainer
    assert {group["initial_lr"] for group in trained.optimizer.param_groups} == {0.01, 0.005, 0.0025, 0.00125}
    scores = [entry["eval_macro_auroc"] for entry in trained.state.log_history if "eval_macro_auroc" in entry][:2]
    assert trained.state.best_metric == max(scores)
    assert trained.evaluate()["eval_macro_auroc"] == pytest.approx(max(scores), abs=1e-9)


def test_layers_near_the_input_learn_more_slowly(checkpoint):
    model = load_classifier(checkpoint, ("A", "B"), MULTI_LABEL, {})
    groups = layer_decay_groups(model, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    assert sum(p.requires_grad for p in parameters.values()) == len(rates)
    expected = {
        "classifier.weight": (1.0, 0.1),
        "classifier.bias": (1.0, 0.0),
        "ecg_vit.layernorm.weight": (1.0, 0.0),
        "ecg_vit.layers.1.mlp.fc1.weight": (0.5, 0.1),
        "ecg_vit.layers.0.mlp.fc1.bias": (0.25, 0.0),
        "ecg_vit.embeddings.projection.weight": (0.125, 0.1),
    }
    assert {name: rates[id(parameters[name])] for name in expected} == expected
    assert len(layer_decay_groups(model, 1.0, 0.1)) == len(groups)
    with pytest.raises(ValueError, match="0 < layer_decay <= 1"):
        layer_decay_groups(model, 1.0, 0.1, layer_decay=1.5)


def test_a_weighted_loss_does_not_depend_on_accumulation():
    torch.manual_seed(0)
    logits, multi, single = torch.randn(6, 3), torch.randint(2, (6, 3)).float(), torch.randint(3, (6,))
    for problem_type, labels in ((MULTI_LABEL, multi), (SINGLE_LABEL, single)):
        loss = WeightedLoss(torch.tensor([1.0, 2.0, 5.0]), problem_type)
        parts = sum(
            loss({"logits": logits[part]}, labels[part], labels.numel()) for part in (slice(0, 4), slice(4, 6))
        )
        assert torch.allclose(parts, loss({"logits": logits}, labels))
    unweighted = torch.nn.functional.binary_cross_entropy_with_logits(logits, multi)
    assert not torch.allclose(
        WeightedLoss(torch.tensor([1.0, 2.0, 5.0]), MULTI_LABEL)({"logits": logits}, multi), unweighted
    )


def test_a_frozen_encoder_stays_as_it_is(checkpoint, few, tmp_path):
    settings = QUICK | {"output_dir": str(tmp_path), "freeze_encoder": True, "max_steps": 2}
    trainer = build_finetuning(checkpoint, few, settings | {"class_weights": "balanced"})
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    train_and_save(trainer)
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def with_short_records(rows, start):
    """The rows, those from `start` cut to 1 s, which is too short to become input."""
    short = [dict(row) for row in rows.with_format(None)]
    for row in short[start:]:
        row["ecg"] = row["ecg"] | {"signal": row["ecg"]["signal"][:2400]}
    return rows.from_list(short, features=rows.features)


def test_validation_goes_on_without_a_batch_that_cannot_be_read(checkpoint, few, tmp_path, caplog):
    validation = with_short_records(few.validation.select(range(20)), 16)
    settings = QUICK | {"output_dir": str(tmp_path), "max_steps": 2, "per_device_eval_batch_size": 16}
    trainer = build_finetuning(checkpoint, dataclasses.replace(few, validation=validation), settings)
    assert len(trainer.eval_dataset.rows) == 16 and caplog.text.count("cannot become input") == 4
    assert "eval_macro_auroc" in trainer.evaluate()


@pytest.mark.parametrize("random_windows", [True, False])
def test_records_that_cannot_be_read_neither_train_nor_count(random_windows, checkpoint, few, tmp_path, caplog):
    splits = dataclasses.replace(few, train=with_short_records(few.train, 60))
    settings = QUICK | {"output_dir": str(tmp_path), "random_windows": random_windows}
    trainer = build_finetuning(checkpoint, splits, settings)
    assert caplog.text.count("cannot become input") == 4
    assert trainer.train_dataset.rows["record_id"][:] == few.train["record_id"][:60]
    assert finish(trainer, splits)["training"]["num_train_records"] == 60
    assert (as_taught(splits, trainer).truth_of("train") == few.truth_of("train")[:60]).all()


def test_a_training_split_that_cannot_be_read_is_an_error(checkpoint, few, tmp_path):
    splits = dataclasses.replace(few, train=with_short_records(few.train, 0))
    with pytest.raises(ValueError, match="No record can become input.*Change the feature extractor"):
        build_finetuning(checkpoint, splits, QUICK | {"output_dir": str(tmp_path)})


def test_training_stops_early(checkpoint, few, tmp_path):
    settings = QUICK | {"output_dir": str(tmp_path), "learning_rate": 0.0, "max_steps": 50, "eval_steps": 1}
    trainer = build_finetuning(checkpoint, few, settings | {"early_stopping_patience": 2})
    trainer.train()
    assert trainer.state.global_step == 3 and trainer.state.best_global_step == 1


def test_a_head_of_other_classes_begins_anew(trained, tmp_path):
    trained.save_model(str(tmp_path))
    names = tuple(trained.model.config.id2label.values())
    same = load_classifier(str(tmp_path), names, MULTI_LABEL, {})
    assert torch.equal(same.classifier.weight, trained.model.classifier.weight)
    for others in (("V", "W", "X", "Y", "Z"), ("V", "W")):
        other = load_classifier(str(tmp_path), others, MULTI_LABEL, {})
        assert len(other.classifier.weight) == len(others) and other.config.label2id["W"] == 1
        assert not torch.isin(other.classifier.weight, trained.model.classifier.weight).any()
        encoder = trained.model.ecg_vit.state_dict()
        assert all(torch.equal(value, encoder[name]) for name, value in other.ecg_vit.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dataloader_drop_last": True}, "drop the last batch of the validation split"),
        ({"eval_strategy": "no"}, "keeps the weights that do best"),
        ({"class_weights": "some"}, "class_weights to be one of"),
        ({"fsdp": True}, r"whole weights in each process: leave out fsdp"),
        ({"layer_decoy": 0.5}, "Did you mean layer_decay"),
    ],
)
def test_settings_that_would_mislead_are_refused(settings, reason, checkpoint, few, tmp_path):
    with pytest.raises(ValueError, match=reason):
        build_finetuning(checkpoint, few, QUICK | {"output_dir": str(tmp_path)} | settings)


@pytest.mark.slow
def test_two_processes_learn_and_score_as_one_with_the_whole_batch(checkpoint, tmp_path):
    """All windows of a record in evaluation, and batches that do not divide by the processes."""
    settings = QUICK | {"random_windows": False, "ddp_backend": "gloo", "layer_decay": 0.5}
    found = {}
    for num_processes in (1, 2):
        flags = settings | {"per_device_train_batch_size": 16 // num_processes, "per_device_eval_batch_size": 50}
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}", "-m"]
        command = [sys.executable, *launcher, "ecg_transformers.train.cli", "finetune", "--model", checkpoint]
        folder = tmp_path / str(num_processes)
        finished = subprocess.run(
            [*command, *words, "--output_dir", str(folder)], capture_output=True, text=True, timeout=300
        )
        assert finished.returncode == 0, finished.stderr[-3000:]
        found[num_processes] = json.loads((folder / "metrics.json").read_text()), load_file(folder / WEIGHTS)
    one, two = (facts for facts, _ in found.values())
    assert one["training"]["batch"] == two["training"]["batch"] == 16
    assert one["test"]["macro_auroc"] == pytest.approx(two["test"]["macro_auroc"], abs=1e-3)
    for name, tensor in found[1][1].items():
        torch.testing.assert_close(found[2][1][name], tensor, atol=1e-4, rtol=0, msg=name)


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finetuned(checkpoint, tmp_path_factory):
    """A single-label run of a user's own folder; one class of the table has no training record, and the last test
    record lies there twice."""
    folder, output = tmp_path_factory.mktemp("recordings"), tmp_path_factory.mktemp("finetuned")
    lines = ["path,patient_id,labels,split,leads,sampling_rate,unit,axes"]
    for split, count in (("train", 40), ("validation", 24), ("test", 24)):
        for number, row in enumerate(load_ecg("ptb-xl-sample", split=split).select(range(count))):
            num_samples = 300 if split + str(number) == "test4" else 1000
            np.save(folder / f"{row['record_id']}.npy", row["ecg"]["signal"][:, :num_samples])
            label = "rare" if split == "test" and number < 2 else "NORM" if "NORM" in row["labels"] else "other"
            label = "" if split == "test" and number == 3 else label
            leads, patient = " ".join(row["ecg"]["leads"]), row["patient_id"]
            lines.append(f'{row["record_id"]}.npy,{patient},{label},{split},{leads},100,mV,"lead,sample"')
    last = row["record_id"]
    (folder / "copied.npy").write_bytes((folder / f"{last}.npy").read_bytes())
    lines.append(lines[-1].replace(f"{last}.npy", "copied.npy"))
    (folder / "records.csv").write_text("\n".join(lines))
    command = ["finetune", "--model", checkpoint, "--dataset", "ecgfolder", "--data_dir", str(folder)]
    assert main([*command, "--config", "finetune_cpu", *FLAGS, "--output_dir", str(output), "--debug"]) == 0
    return output, json.loads((output / "metrics.json").read_text())


def test_an_own_folder_becomes_a_classifier_that_loads(finetuned):
    output, metrics = finetuned
    model = AutoModelForSequenceClassification.from_pretrained(output)
    assert model.config.id2label == {0: "NORM", 1: "other", 2: "rare"} and model.config.problem_type == SINGLE_LABEL
    assert AutoFeatureExtractor.from_pretrained(output).num_samples == 400
    assert metrics["problem_type"] == SINGLE_LABEL and metrics["training"]["steps"] == 4
    assert metrics["training"]["unlabelled_records"] == {"train": 0, "validation": 0, "test": 1}


def test_what_cannot_be_evaluated_is_named(finetuned):
    _, metrics = finetuned
    assert metrics["test"]["excluded"]["rare"].startswith("training set: 0 positive")
    assert set(metrics["test"]["per_class"]) == {"NORM", "other"}
    assert len(metrics["training"]["not_judged_records"]["test"]) == 1
    assert list(metrics["training"]["copies_left_out"]["test"]) == ["copied"]
    assert metrics["test"]["num_records"] == 22


def test_predictions_score_the_same_with_scikit_learn_alone(finetuned):
    output, metrics = finetuned
    table = pq.read_table(output / "predictions.parquet").to_pandas()
    for split in ("validation", "test"):
        rows = table[table["split"] == split]
        areas = [roc_auc_score(rows[f"label/{name}"], rows[f"score/{name}"]) for name in ("NORM", "other")]
        assert np.mean(areas) == pytest.approx(metrics[split]["macro_auroc"])
        low, high = metrics[split]["macro_auroc_ci95"]
        assert low <= metrics[split]["macro_auroc"] <= high
    scores = table[[f"score/{name}" for name in metrics["label_names"]]]
    assert np.allclose(scores.sum(axis=1), 1.0) and table["patient_id"].notna().all()


def test_the_card_says_what_was_measured_and_its_snippet_runs(finetuned, monkeypatch):
    output, metrics = finetuned
    card = (output / "README.md").read_text()
    assert f"{metrics['test']['macro_auroc']:.3f}" in card and "training set: 0 positive" in card
    assert "not a medical device" in card and "looked at once" in card and str(output.parent) not in card
    monkeypatch.chdir(output.parent)
    names = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert set(names["scores"]) == {"NORM", "other", "rare"} and sum(names["scores"].values()) == pytest.approx(1.0)


# --- presets ------------------------------------------------------------------------------------------------------

PRESETS = sorted(
    file.name.removesuffix(".yaml") for file in resources.files(FINETUNE_PRESETS).iterdir() if file.suffix == ".yaml"
)
ENCODERS = {
    "kim_finetune": {"model_type": "ecg_jepa", "sampling_rate": 250, "num_samples": 2500, "patch_size": 250},
    "st_mem_finetune": {"model_type": "st_mem", "sampling_rate": 250, "num_samples": 2250, "patch_size": 75},
}
ENCODERS |= dict.fromkeys(
    ("weimann_linear", "weimann_finetune"),
    {"model_type": "ecg_jepa", "sampling_rate": 500, "num_samples": 5000, "patch_size": 25, "num_registers": 1}
    | {"patching": "all_leads", "attention_pattern": "full", "position_embedding": "sincos_interleaved"},
)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_how_to_train(name, tmp_path):
    settings = read_config(name, FINETUNE_PRESETS) | {"output_dir": str(tmp_path)}
    _, _, training = sort_settings(settings, "ecg_jepa", FineTuningArguments)
    args = training_arguments(training, FineTuningArguments)
    assert args.learning_rate == float(settings["learning_rate"]) and args.metric_for_best_model == "macro_auroc"


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_takes_a_step(name, splits, tmp_path):
    encoder = dict(ENCODERS.get(name, {"model_type": "ecg_vit", **INPUT, "patch_size": 100}))
    model_type = encoder.pop("model_type")
    encoder.setdefault("leads", LEADS)
    AutoModel.from_config(AutoConfig.for_model(model_type, **SIZE, **encoder)).save_pretrained(tmp_path / "encoder")
    contract = {key: encoder[key] for key in INPUT}
    EcgFeatureExtractor(**contract).save_pretrained(tmp_path / "encoder")
    command = ["finetune", "--model", str(tmp_path / "encoder"), "--config", name]
    command += ["--output_dir", str(tmp_path / "out")]
    flags = "--max_steps 1 --eval_strategy steps --eval_steps 1 --per_device_train_batch_size 2 --use_cpu true"
    assert main([*command, *flags.split(), "--disable_tqdm", "true", "--debug"]) == 0
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_layer_decay_takes_a_stem_for_the_embeddings_and_refuses_layers_that_it_does_not_know():
    model = modeling.EcgConvForSequenceClassification(modeling.EcgConvConfig(num_labels=2))
    groups = layer_decay_groups(model, 1.0, 0.1, layer_decay=0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == (0.5 if "embeddings" in name else 1.0), name
    config = modeling.EcgFmConfig(**SIZE, num_labels=2)
    model = modeling.EcgFmForSequenceClassification(config)
    with pytest.raises(ValueError, match="Set layer_decay=1"):
        layer_decay_groups(model, 1.0, 0.1, layer_decay=0.5)
    groups = layer_decay_groups(model, 1.0, 0.1)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
