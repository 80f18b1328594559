"""`push_to_hub=True`: what a run pushes while it trains and when it is done, by the real client and a loopback Hub."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTModel
from ecg_transformers.train.cli import main
from ecg_transformers.train.finetune import build_finetuning
from ecg_transformers.train.pretrain import build_trainer
from ecg_transformers.train.publishing import pushing_trainer
from ecg_transformers.train.publishing.pushing_trainer import PushingTrainer
from ecg_transformers.train.settings import training_arguments
from ecg_transformers.train.tasks.labelled_splits import load_labelled_splits
from ecg_transformers.train.trainer import train_and_save

REPO = "owner/run"
INPUT = {"leads": ["I", "II", "V2"], "sampling_rate": 100, "num_samples": 400}
SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
RUN = {"model_type": "ecg_jepa", "patch_size": 100, "mask_type": "random", "mask_ratio": [0.4, 0.6], **INPUT, **SIZE}
RUN |= {f"predictor_{name}": value for name, value in SIZE.items()}
RUN |= {"per_device_train_batch_size": 4, "max_steps": 4, "logging_steps": 1, "save_strategy": "steps"}
RUN |= {"save_steps": 2, "disable_tqdm": True, "use_cpu": True, "push_to_hub": True, "hub_model_id": REPO}
AGAIN = "the next push sends what this one lacked; by hand, when the run has ended:"
PICKLES = (".bin", ".pt", ".pth", ".pkl")


@pytest.fixture(scope="module")
def recordings():
    return load_ecg("ptb-xl-sample", split="train", decode=False).select(range(8))


@pytest.fixture
def make_trainer(tmp_path, recordings, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    torch.set_num_threads(1)

    def make(data=None, **settings):
        return build_trainer(RUN | {"output_dir": str(tmp_path / "run")} | settings, recordings, data=data)

    return make


def files_of(hub, revision="main"):
    return hub.pushed("models", REPO, revision)


def test_every_save_is_pushed_beside_the_training_and_has_arrived_when_it_ends(hub, make_trainer, tmp_path):
    settings = {"max_steps": 2, "save_steps": 1, "save_total_limit": 1}
    make_trainer(hub_strategy="every_save", hub_always_push=True, **settings).train()
    assert hub.commits("models", REPO)[1:] == ["Training in progress, step 1", "Training in progress, step 2"]
    there = files_of(hub)
    assert there["model.safetensors"] == (tmp_path / "run" / "checkpoint-2" / "model.safetensors").read_bytes()
    assert {"config.json", "preprocessor_config.json", "modeling_ecg_jepa.py", "training_args.json"} <= set(there)
    assert not [name for name in there if name.endswith(PICKLES) or "/" in name]
    card = ModelCard(there["README.md"].decode())
    assert card.data["training_data_license"] == "CC BY 4.0" and "ECG-JEPA" in card.text
    assert not list((tmp_path / "run").glob(".push-*"))


@pytest.mark.slow
def test_the_final_push_has_the_card_of_this_package_and_arguments_without_token(hub, make_trainer):
    trainer = make_trainer(hub_strategy="end", hub_token="hf_owner", weights_licence="cc-by-4.0", learning_rate=2e-3)
    trainer.train()
    assert hub.commits("models", REPO) == ["initial commit"]
    trainer.push_to_hub(tags="tiny", language="en")
    there = files_of(hub)
    card = ModelCard(there["README.md"].decode())
    assert card.data.license == "cc-by-4.0" and "tiny" in card.data.tags and card.data.language == "en"
    assert "generated_from_trainer" not in card.data.tags and "not a medical device" in card.text
    arguments = json.loads(there["training_args.json"])
    assert arguments["learning_rate"] == 2e-3 and "hub_token" not in arguments and "output_dir" not in arguments
    assert not [name for name in there if name.endswith(PICKLES)]


@pytest.mark.slow
def test_private_and_branch_are_those_of_the_arguments(hub, make_trainer):
    trainer = make_trainer(hub_private_repo=True, hub_revision="try", hub_strategy="end", max_steps=1)
    trainer.train()
    trainer.push_to_hub()
    assert hub.repos["models", REPO].private
    assert not files_of(hub) and "config.json" in files_of(hub, revision="try")


def test_without_a_name_the_folder_of_the_run_and_the_owner_of_the_token_make_one(hub, make_trainer):
    assert make_trainer(hub_model_id=None).hub_model_id == "owner/run"


@pytest.mark.parametrize("licence", [None, "that of the recordings"])
def test_an_unsettled_licence_stops_before_the_training(hub, make_trainer, licence):
    data = DataSource("My hospital", licence, "unpublished")
    with pytest.raises(ValueError, match="--data_licence .* Nothing has been trained"):
        make_trainer(data)
    assert not hub.requests
    assert make_trainer(data, data_licence="CC BY 4.0").recordings().licence == "CC BY 4.0"


@pytest.mark.parametrize(("token", "says"), [("hf_wrong", "does not accept"), ("hf_reader", "write permission")])
def test_a_token_that_may_not_write_stops_before_the_training(hub, make_trainer, token, says):
    with pytest.raises(ValueError, match=says):
        make_trainer(hub_token=token)


def test_a_repository_of_another_model_stops_before_the_training(hub, make_trainer):
    repo = hub.create("models", REPO)
    hub.commit(repo, "main", {"config.json": hub.store(b'{"model_type": "bert"}')}, "theirs")
    with pytest.raises(ValueError, match="holds another model"):
        make_trainer()


def test_a_later_run_goes_to_the_repository_of_an_earlier_one_and_not_one_of_another_size(hub, make_trainer, tmp_path):
    trainer = make_trainer(push_to_hub=False)
    trainer.save_model(tmp_path / "earlier")
    repo = hub.create("models", REPO)
    config = hub.store((tmp_path / "earlier" / "config.json").read_bytes())
    hub.commit(repo, "main", {"config.json": config}, "an earlier run")
    make_trainer(mask_ratio=[0.5, 0.6])
    with pytest.raises(ValueError, match="num_attention_heads is 2 there and 4 here"):
        make_trainer(num_attention_heads=4)


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_pickled_states_are_not_published(hub, make_trainer, strategy):
    with pytest.raises(ValueError, match="pickled optimiser states"):
        make_trainer(hub_strategy=strategy)


@pytest.mark.slow
def test_a_push_that_fails_meanwhile_is_logged_and_the_last_one_sends_all(hub, make_trainer, caplog):
    trainer = make_trainer(hub_always_push=True)
    hub.break_commits = True
    trainer.train()
    assert trainer.state.global_step == 4 and not files_of(hub)
    assert "The push of step 2 failed: " in caplog.text and "The push of step 4 failed: " in caplog.text
    assert f"The training goes on, and {AGAIN} ecg-transformers push --folder" in caplog.text
    with pytest.raises(ValueError, match="The push failed: .* What is saved stays; `ecg-transformers push --folder"):
        trainer.push_to_hub()
    hub.break_commits = False
    trainer.push_to_hub()
    assert hub.commits("models", REPO) == ["initial commit", "End of training"] and "model.safetensors" in files_of(
        hub
    )


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "where",
    ["_link_or_copy", pytest.param("upload_model", marks=SLOW), pytest.param("read_shared_folder", marks=SLOW)],
)
def test_whatever_stops_a_push_does_not_stop_the_training(hub, make_trainer, monkeypatch, caplog, tmp_path, where):
    def fail(*args, **settings):
        raise OSError(28, "No space left on device")

    trainer = make_trainer(max_steps=2, save_steps=1, hub_always_push=True)
    monkeypatch.setattr(pushing_trainer, where, fail)
    trainer.train()
    assert trainer.state.global_step == 2 and not files_of(hub)
    for step in (1, 2):
        assert f"The push of step {step} failed: [Errno 28] No space left on device. The training" in caplog.text
        assert (tmp_path / "run" / f"checkpoint-{step}" / "trainer_state.json").is_file()
    assert not list((tmp_path / "run").glob(".push-*"))


def test_a_checkpoint_that_is_pushed_takes_no_room_and_may_be_deleted(tmp_path):
    (tmp_path / "weights").write_bytes(b"0")
    pushing_trainer._link_or_copy(tmp_path / "weights", tmp_path / "kept")
    assert os.path.samefile(tmp_path / "weights", tmp_path / "kept")
    (tmp_path / "weights").unlink()
    assert (tmp_path / "kept").read_bytes() == b"0"


def test_where_the_disk_knows_no_links_it_is_copied(tmp_path, monkeypatch):
    def fail(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    (tmp_path / "weights").write_bytes(b"0")
    pushing_trainer._link_or_copy(tmp_path / "weights", tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"0"


def test_the_model_is_saved_before_a_run_waits_for_a_hub_that_hangs(hub, make_trainer, caplog, tmp_path):
    trainer = make_trainer(hub_strategy="every_save", hub_timeout=1, max_steps=2, save_steps=1)
    hub.hangs_on = "/commit/"
    started = time.monotonic()
    train_and_save(trainer)
    assert (tmp_path / "run" / "model.safetensors").exists() and time.monotonic() - started < 10
    trainer.create_model_card()
    with pytest.raises(ValueError, match=r"has not answered in 1 s \(--hub_timeout\).*ecg-transformers push --folder"):
        trainer.publish()
    assert time.monotonic() - started < 20
    assert "The push of step 1 failed: " in caplog.text and "has not answered in 1 s" in caplog.text


def test_a_hub_that_hangs_at_the_beginning_stops_the_run(hub, make_trainer):
    hub.hangs_on = "/api/"
    with pytest.raises(ValueError, match="has not answered in 1 s .*Nothing has been trained"):
        make_trainer(hub_timeout=1)


@pytest.mark.slow
def test_a_process_ends_although_the_hub_hangs(hub, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN | {"hub_timeout": 3, "max_steps": 2, "save_steps": 1}))
    hub.create("models", REPO)
    hub.hangs_on = "/commit/"
    command = [sys.executable, "-m", "ecg_transformers.train.cli", "pretrain", "--config", str(tmp_path / "run.yaml")]
    environment = os.environ | hub.client_environment(tmp_path / "home", "hf_owner") | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "run")], env=environment, capture_output=True, text=True, timeout=200
    )
    assert finished.returncode == 1 and "has not answered in 3 s" in finished.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_look_ups_that_the_hub_is_too_busy_for_are_tried_again(hub, make_trainer, monkeypatch):
    monkeypatch.setattr("ecg_transformers.train.publishing.hub_client.PAUSES_SECONDS", (0.01, 0.01))
    hub.create("models", REPO)
    hub.busy_answers = 2
    assert make_trainer().hub_model_id == REPO
    hub.busy_answers = 1000
    with pytest.raises(ValueError, match="429"):
        make_trainer()


def test_without_a_feature_extractor_nothing_is_trained_or_created(hub, recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    settings = training_arguments({"output_dir": str(tmp_path), "use_cpu": True, "push_to_hub": True})
    model = EcgViTModel(EcgViTConfig(patch_size=100, **SIZE, **INPUT))
    with pytest.raises(ValueError, match="push_to_hub: expected processing_class=EcgFeatureExtractor"):
        PushingTrainer(model=model, args=settings, train_dataset=recordings)
    assert not hub.requests


@pytest.mark.slow
def test_a_run_whose_last_push_fails_keeps_everything_and_says_so(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RUN | {"save_strategy": "no", "max_steps": 1}))
    hub.break_commits = True
    run = tmp_path / "run"
    assert main(["pretrain", "--config", str(tmp_path / "tiny.yaml"), "--output_dir", str(run)]) == 1
    said = capsys.readouterr().err
    push = ["push", "--folder", str(run), "--repo_id", REPO]
    assert f"What is saved stays; `ecg-transformers {' '.join(push)}` sends it." in said
    assert {"model.safetensors", "README.md", "training.html", "trainer_state.json"} <= set(os.listdir(run))
    hub.break_commits = False
    assert main(push) == 0
    assert files_of(hub)["model.safetensors"] == (run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_save_while_a_push_is_under_way_is_left_to_the_next(hub, make_trainer, monkeypatch):
    go_on, upload = threading.Event(), pushing_trainer.upload_model

    def wait(*args, **settings):
        go_on.wait(30)
        return upload(*args, **settings)

    monkeypatch.setattr(pushing_trainer, "upload_model", wait)
    trainer = make_trainer(save_steps=1)
    finish = trainer._finish_current_push
    monkeypatch.setattr(trainer, "_finish_current_push", lambda: (go_on.set(), finish()))
    trainer.train()
    assert hub.commits("models", REPO)[1:] == ["Training in progress, step 1"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "start"
    EcgViTModel(EcgViTConfig(patch_size=100, **SIZE, **INPUT)).save_pretrained(folder)
    EcgFeatureExtractor(**INPUT, missing_leads="mask").save_pretrained(folder)
    return str(folder)


FINETUNING = {"per_device_train_batch_size": 64, "max_steps": 2, "eval_strategy": "steps", "eval_steps": 1}
FINETUNING |= {"logging_steps": 1, "disable_tqdm": True, "use_cpu": True, "push_to_hub": True, "hub_model_id": REPO}


@pytest.mark.slow
def test_a_fine_tuning_pushes_its_best_weights_and_a_card_of_a_classifier(hub, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    splits = load_labelled_splits("ptb-xl-sample")
    settings = FINETUNING | {"output_dir": str(tmp_path / "run"), "hub_always_push": True}
    trainer = build_finetuning(encoder, splits, settings)
    train_and_save(trainer)
    card = ModelCard(files_of(hub)["README.md"].decode())
    assert "The training goes on; nothing has been tested." in card.text
    assert "A classifier of electrocardiograms" in card.text and ": start," in card.text
    trainer.push_to_hub()
    there = files_of(hub)
    assert there["model.safetensors"] == (tmp_path / "run" / "model.safetensors").read_bytes()
    assert {"preprocessor_config.json", "modeling_ecg_vit.py"} <= set(there)
    assert not [name for name in there if name.endswith((*PICKLES, ".parquet"))]


@pytest.mark.slow
def test_the_commands_push_card_and_scores_when_they_are_done(hub, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    flags = [word for key, value in FINETUNING.items() for word in (f"--{key}", str(value))]
    run = str(tmp_path / "run")
    assert main(["finetune", "--model", encoder, "--output_dir", run, *flags, "--weights_licence", "mit"]) == 0
    there = files_of(hub)
    card = ModelCard(there["README.md"].decode())
    assert card.data.license == "mit" and card.data["training_data_license"] == "CC BY 4.0"
    (result,) = card.data.eval_results
    assert (
        result.metric_type == "roc_auc"
        and "| This model |" in card.text
        and hub.commits("models", REPO)[-1] == "End of training"
    )
    assert {"metrics.json", "preview.png", "training_args.json"} <= set(there)
    assert "predictions.parquet" not in there
    assert "alibrated scores: " in card.text and "Recording 00063 of [PTB-XL]" in card.text
    evaluation = ["evaluate", "--model", run, "--output_dir", str(tmp_path / "scores")]
    assert main(evaluation) == 0
    scores = str(tmp_path / "scores" / "metrics.json")
    assert main(["push", "--folder", run, "--repo_id", REPO, "--results", scores]) == 0
    assert main(["push", "--folder", encoder, "--repo_id", "owner/b", "--licence", "CC0", "--results", scores]) == 1
    there = files_of(hub)
    assert b"Random encoder" in there["README.md"]
    for name, content in there.items():
        for folder in (tmp_path, Path(encoder).parent, f"{Path.home()}/"):
            assert str(folder).encode() not in content, (name, folder)
