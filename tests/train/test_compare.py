import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import roc_auc_score
from transformers import TrainerCallback

from ecg_transformers.data import load_ecg
from ecg_transformers.train.cli import main
from ecg_transformers.train.compare import method_settings, parse_methods, plan_runs
from ecg_transformers.train.comparison import runs as comparison_runs
from ecg_transformers.train.comparison.runs import (
    KERNELS,
    Run,
    RunFolder,
    SupervisedSettings,
    labelled_subset,
    scratch_settings,
)
from ecg_transformers.train.evaluation import protocols

from .conftest import TINY_RUN

LABELS = ["CD", "HYP", "MI", "NORM", "STTC"]
TINY = {name: TINY_RUN[name] for name in ("model_type", "sampling_rate", "num_samples", "mask_type", "mask_ratio")}
TINY |= {name: TINY_RUN[name] for name in TINY_RUN if name.startswith("predictor_")}
TINY |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TINY |= {"leads": ["I", "V2"], "patch_size": 200, "normalization": "lead", "learning_rate": 1e-3, "use_cpu": True}
TINY |= {"per_device_train_batch_size": 8, "logging_steps": 2}


def write_preset(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | changes))
    return str(path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Flags that name 150 of the carried recordings, as an array dump."""
    folder = tmp_path_factory.mktemp("dump")
    parts = {"train": 80, "validation": 30, "test": 40}
    rows = [
        row for name, number in parts.items() for row in load_ecg("ptb-xl-sample", split=name).select(range(number))
    ]
    leads = rows[0]["ecg"]["leads"]
    np.save(folder / "signals.npy", np.stack([row["ecg"]["signal"] for row in rows]))
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "patient", "fold", *LABELS])
        for row in rows:
            flags = [int(name in row["labels"]) for name in LABELS]
            writer.writerow([row["record_id"], row["patient_id"], row["fold"], *flags])
    declaration = {"array": "signals.npy", "table": "labels.csv", "axes": "record,lead,sample", "leads": leads}
    declaration |= {"sampling_rate": 100, "unit": "mV", "labels": LABELS}
    declaration |= {"record_id": "id", "patient_id": "patient", "fold": "fold"}
    (folder / "dump.json").write_text(json.dumps(declaration))
    return ["--dataset", "npy", "--data_dir", str(folder)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory, dataset):
    """One comparison of two variants of a tiny method, and how to ask for it again."""
    folder = tmp_path_factory.mktemp("comparison")
    preset = write_preset(folder)
    command = ["compare", "--methods", f"{preset},{preset}:ema_start=0.5", "--records_seen", "40", *dataset]
    command += ["--low_shot", "0.3", "--output_dir", str(folder / "out"), "--debug"]
    assert main(command) == 0
    return folder / "out", command, json.loads((folder / "out" / "comparison.json").read_text())


def rows_by_kind(comparison):
    return {(row["method"].split(":")[-1], row["row"], row["labelled_fraction"]): row for row in comparison["rows"]}


@pytest.mark.slow
def test_every_number_of_the_table_follows_from_the_predictions_by_scikit_learn_alone(compared):
    folder, _, comparison = compared
    predictions = pq.read_table(folder / "predictions.parquet").to_pandas()
    checked = 0
    for row in comparison["rows"]:
        of_row = predictions[
            (predictions.method == row["method"])
            & (predictions.row == row["row"])
            & (predictions.labelled_fraction == row["labelled_fraction"])
        ]
        scores = [
            np.mean([roc_auc_score(seed[f"label_{name}"], seed[f"score_{name}"]) for name in LABELS])
            for _, seed in of_row.groupby("seed")
        ]
        assert row["macro_auroc"] == pytest.approx(np.mean(scores), abs=1e-9)
        assert set(of_row.C.dropna()) == set(row.get("C", {}).values())
        assert row["num_test_records"] == len(set(of_row.record_id))
        checked += 1
    # two encoders of two methods and two sizes of kernels, with two shares of labels; one from scratch with each
    assert checked == (2 * 2 + 2) * 2 + 2
    sizes = predictions.groupby(["row", "method", "labelled_fraction", "seed"]).size()
    assert sizes["supervised"].nunique() == 1 and sizes["pretrained"].nunique() == 1
    assert sizes["supervised"].iloc[0] < sizes["pretrained"].iloc[0]


@pytest.mark.slow
def test_methods_of_one_encoder_share_its_random_row_and_its_training_from_scratch(compared):
    rows = rows_by_kind(compared[2])
    keys = [key for key in rows if key[1] == "supervised"]
    assert len(keys) == 2 and all(", " in rows[key]["method"] for key in keys)
    randoms = [row["macro_auroc"] for (_, kind, fraction), row in rows.items() if kind == "random" and fraction == 1]
    assert len(randoms) == 2 and randoms[0] == randoms[1]
    assert len(list((compared[0] / "runs").iterdir())) == 2 + 2


@pytest.mark.slow
def test_the_budget_is_kept_and_known_labels_are_counted(compared):
    rows = rows_by_kind(compared[2])
    for (_, kind, fraction), row in rows.items():
        assert row["records_seen"] == {"kernels": 0, "random": 0, "pretrained": 40, "supervised": 40}[kind]
        num_train = compared[2]["data"]["num_labelled_train_records"]
        assert fraction * num_train <= row["num_labelled_records"] <= fraction * num_train + 10


@pytest.mark.slow
def test_the_same_command_again_runs_nothing(compared, monkeypatch):
    folder, command, before = compared
    monkeypatch.setattr(RunFolder, "_pretrain", None)
    monkeypatch.setattr(RunFolder, "_train", None)
    assert main(command) == 0
    again = json.loads((folder / "comparison.json").read_text())
    assert again["rows"] == before["rows"] and again["differences"] == before["differences"]


@pytest.mark.slow
def test_table_and_page_hold_every_row_and_say_how_to_repeat_them(compared):
    folder, command, comparison = compared
    table, page = ((folder / f"comparison.{ending}").read_text() for ending in ("md", "html"))
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    num_rows, num_pairs = len(comparison["rows"]), len(comparison["differences"])
    assert num_rows == 14 and len(lines) == 3 + 2 * num_rows + num_pairs  # scores, encoders, differences
    assert "95 %" in table and "UNFINISHED" not in table
    assert page.count("<tbody>") == 3 and page.count("<tr") == 3 + 2 * num_rows + num_pairs
    assert "--records_seen 40" in page and "http" not in page.split("</style>")[1].split("<img")[0]
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on_and_ends_as_one_that_was_not(tmp_path, monkeypatch, dataset):
    class Interrupt(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.global_step in (2, 3):  # between two steps; between the last step and the result
                raise KeyboardInterrupt

    preset, build = write_preset(tmp_path), comparison_runs.build_trainer

    def build_interrupted(*args):
        trainer = build(*args)
        trainer.add_callback(Interrupt())
        return trainer

    def compare(name):
        command = ["compare", "--methods", preset, "--records_seen", "24", *dataset]
        return main([*command, "--output_dir", str(tmp_path / name)])

    assert compare("straight") == 0
    monkeypatch.setattr(comparison_runs, "build_trainer", build_interrupted)
    for _ in range(2):
        assert compare("killed") == 130
        assert not list((tmp_path / "killed" / "runs").glob("*/result.json"))
    monkeypatch.setattr(comparison_runs, "build_trainer", build)
    assert compare("killed") == 0
    straight, killed = (
        json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("straight", "killed")
    )
    for one, other in zip(straight["rows"], killed["rows"], strict=True):
        assert one["seeds"] == other["seeds"]
    assert not list((tmp_path / "killed" / "runs").glob("*/training"))


def test_a_method_that_fails_is_named_and_leaves_the_others_their_table(tmp_path, capsys, dataset, monkeypatch):
    monkeypatch.setattr(comparison_runs, "KERNELS", KERNELS[:1])  # 1,200 kernels take their time
    monkeypatch.setattr(protocols, "cross_validated_C", lambda *args: 0.01)
    preset = write_preset(tmp_path)
    command = ["compare", "--methods", f"{preset}:per_device_train_batch_size=4000,{preset}", "--records_seen", "16"]
    assert main([*command, *dataset, "--output_dir", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "1 of 3 runs failed" in error and "A step takes 4000 records, there are" in error
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["row"] for row in comparison["rows"] if row["method"] == preset] == ["random", "pretrained"]
    assert [row["method"] for row in comparison["rows"] if row["row"] == "kernels"] == list(KERNELS[:1])
    assert "UNFINISHED: 2 of 3 runs" in (tmp_path / "out" / "comparison.md").read_text()


class SlowFolder(RunFolder):
    """Runs that take a moment and note who did them."""

    def _pretrain(self, run):
        with open(self.folder / "log", "a") as log:
            log.write(f"{run.name} {os.getpid()}\n")
        time.sleep(0.05)
        return {}


def fake_runs(number=8):
    return [Run("pretrain", "m", seed, {}, "data") for seed in range(number)]


def work(folder, runs):
    SlowFolder(folder, data=None).work(runs, report=lambda: None, poll_seconds=0.05)


def start(target, *args):
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


def test_two_processes_share_the_runs_and_do_each_once(tmp_path):
    processes = [start(work, tmp_path, fake_runs()) for _ in range(2)]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    done = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(name for name, _ in done) == sorted(run.name for run in fake_runs())
    assert {pid for _, pid in done} == {str(process.pid) for process in processes}


def test_the_run_of_a_process_that_was_killed_is_free_again(tmp_path):
    def hang(folder, runs):
        SlowFolder._pretrain = lambda self, run: (folder / "started").touch() or time.sleep(60)
        work(folder, runs)

    process = start(hang, tmp_path, fake_runs(1))
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    other = start(work, tmp_path, fake_runs(1))  # waits for the one that does it
    time.sleep(0.3)
    assert other.is_alive() and not (tmp_path / "log").exists()
    os.kill(process.pid, signal.SIGKILL)
    other.join(30)
    assert other.exitcode == 0 and len((tmp_path / "log").read_text().splitlines()) == 1


@pytest.mark.slow
def test_two_commands_on_one_folder_give_the_table_of_one(compared, tmp_path):
    _, command, expected = compared
    command = [str(tmp_path / "out") if part.endswith("/out") else part for part in command]
    commands = [
        subprocess.Popen([sys.executable, "-m", "ecg_transformers.train.cli", *command], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in commands:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-2000:]
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["seeds"] for row in found["rows"]] == [row["seeds"] for row in expected["rows"]]


def test_methods_are_presets_with_changes():
    methods = parse_methods("kim_cpu, a/b.yaml:mask_ratio=[0.6,0.7]:learning_rate=1e-3")
    assert methods["kim_cpu"] == {"preset": "kim_cpu", "changes": {}}
    changed = methods["a/b.yaml:mask_ratio=[0.6,0.7]:learning_rate=1e-3"]
    assert changed == {"preset": "a/b.yaml", "changes": {"mask_ratio": [0.6, 0.7], "learning_rate": 1e-3}}
    for wrong, message in (("kim_cpu:fast", "PRESET"), ("kim_cpu,kim_cpu", "comes twice"), ("kim_cpu,", "PRESET")):
        with pytest.raises(ValueError, match=message):
            parse_methods(wrong)


def test_flags_of_the_input_are_the_whole_treatment_for_all_methods():
    method = parse_methods("kim_hybrid_cpu")["kim_hybrid_cpu"]
    own = method_settings(method, {"weight_decay": 0.1}, seed=3, records_seen=100)
    assert own["normalization"] == "fixed" and own["weight_decay"] == 0.1 and own["seed"] == 3
    assert own["max_steps"] == 4  # of 32 records
    shared = method_settings(method, {"unit": "dimensionless", "clip": 5}, seed=3, records_seen=100)
    assert {"normalization", "lead_stds", "highpass_hz"}.isdisjoint(shared)
    assert shared["clip"] == 5 and shared["leads"] == own["leads"] and shared["long_records"] == "all"


def test_another_budget_setting_seed_or_data_is_another_run(tmp_path):
    methods = parse_methods(write_preset(tmp_path))

    def names(seeds=(0,), records_seen=40, common=(), data="d", **options):
        supervised = SupervisedSettings(records_seen)
        return {run.name for run in plan_runs(methods, seeds, records_seen, dict(common), data, supervised, **options)}

    usual = names()
    assert usual == names() and len(usual) == 2
    assert usual < names(seeds=(0, 1)) and usual < names(low_shot=0.1)
    for other in (names(records_seen=48), names(common={"learning_rate": 1.0}), names(data="e")):
        assert not {name for name in usual if "pretrain" in name} & other
    tuned = names(finetuning=SupervisedSettings(40))
    assert len(tuned - usual) == 1


def test_what_only_the_method_needs_does_not_make_another_encoder():
    settings = scratch_settings(TINY)
    assert settings == scratch_settings(TINY | {"mask_ratio": [0.2, 0.3], "predictor_hidden_size": 32})
    assert settings != scratch_settings(TINY | {"patch_size": 100})
    assert settings != scratch_settings(TINY | {"normalization": "record"})


def test_known_labels_are_drawn_by_patient_and_the_seed_alone():
    train = {"record_id": [f"r{n}" for n in range(100)], "patient_id": [f"p{n // 4}" for n in range(100)]}

    class Rows(dict):
        def __len__(self):
            return 100

    train = Rows(train)
    chosen = labelled_subset(train, 0.1, seed=0)
    assert chosen == labelled_subset(train, 0.1, seed=0) != labelled_subset(train, 0.1, seed=1)
    assert 10 <= len(chosen) < 14 and len(chosen) == 4 * len({number // 4 for number in chosen})
    assert labelled_subset(train, 1, seed=0) == list(range(100))
