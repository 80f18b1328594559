"""Folders of a run: nothing of another run is written over or gone on with, and a damaged checkpoint is not used."""

import json
import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from datasets import IterableDataset
from safetensors.torch import load_file
from transformers import TrainerCallback

from ecg_transformers.modeling import EcgViTConfig, EcgViTModel
from ecg_transformers.train.callbacks import describe_data
from ecg_transformers.train.cli import main
from ecg_transformers.train.pretrain import build_trainer
from ecg_transformers.train.run_folder import (
    Preempted,
    checkpoints_of,
    claim_output_dir,
    find_damage,
    last_complete_checkpoint,
    seal_checkpoint,
)
from ecg_transformers.train.trainer import record_of, train_and_save

from .conftest import TINY_RUN, StopAt

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
STOPPED = SAVING | {"max_steps": 8}


def killed(trainer, step):
    trainer.add_callback(StopAt(step))
    with pytest.raises(KeyboardInterrupt):
        train_and_save(trainer)
    return Path(trainer.args.output_dir)


def assert_same_weights(straight, folder):
    expected = load_file(Path(straight.args.output_dir) / "model.safetensors")
    assert all(torch.equal(expected[name], value) for name, value in load_file(folder / "model.safetensors").items())


def folder_of(tmp_path, **files):
    folder = tmp_path / "run"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


# --- a folder to write to -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.safetensors", "config.json"], r"a finished model \(model.safetensors\).*another --output_dir"),
        (["checkpoint-5/a", "checkpoint-10/a"], r"did not end \(checkpoint-5, checkpoint-10\).*--resume_from_ch"),
        (["thesis.tex"], r"other files \(thesis.tex\)"),
        ([f"{n}.csv" for n in range(9)], r"0.csv, 1.csv, 2.csv, 3.csv, 4.csv and 4 more"),
    ],
)
def test_a_folder_that_is_not_empty_is_refused_and_told(tmp_path, names, said):
    folder = folder_of(tmp_path, **dict.fromkeys(names, ""))
    with pytest.raises(ValueError, match=said):
        claim_output_dir(str(folder))
    assert all((folder / name).exists() for name in names)


def test_an_empty_or_missing_folder_is_free(tmp_path):
    claim_output_dir(str(tmp_path))
    claim_output_dir(str(tmp_path / "new"))
    claim_output_dir(str(tmp_path), resume_from_checkpoint="last")  # the first start of a job that is queued again


def test_overwriting_removes_the_run_with_its_checkpoints_and_nothing_else(tmp_path):
    own = ["model.safetensors", "config.json", "checkpoint-5/a", "README.md", "modeling_x.py", "training.html"]
    others = ["thesis.tex", "checkpoint-best/a", "checkpoint-50.bak/a", "data/b"]
    folder = folder_of(tmp_path, **dict.fromkeys(own + others, ""))
    claim_output_dir(str(folder), overwrite=True)
    assert sorted(os.listdir(folder)) == ["checkpoint-50.bak", "checkpoint-best", "data", "thesis.tex"]


def test_a_resumed_run_claims_its_own_folder_alone(tmp_path):
    own = folder_of(tmp_path, **{"checkpoint-5/a": ""})
    claim_output_dir(str(own), resume_from_checkpoint="last")
    claim_output_dir(str(own), resume_from_checkpoint=str(own / "checkpoint-5"))
    with pytest.raises(ValueError, match="give one of them"):
        claim_output_dir(str(own), overwrite=True, resume_from_checkpoint="last")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("")
    with pytest.raises(ValueError, match="other files"):
        claim_output_dir(str(tmp_path / "other"), resume_from_checkpoint="last")
    with pytest.raises(ValueError, match="other files"):
        claim_output_dir(str(tmp_path / "other"), resume_from_checkpoint=str(own / "checkpoint-5"))


def test_the_command_writes_over_no_finished_model(tmp_path, capsys, tiny_yaml):
    folder = tmp_path / "run"
    command = ["pretrain", "--config", tiny_yaml, "--max_steps", "1", "--output_dir", str(folder)]
    assert main(command) == 0
    first = (folder / "model.safetensors").read_bytes()
    assert main([*command, "--seed", "1"]) == 1
    assert "holds a finished model (model.safetensors)" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == first
    assert main([*command, "--seed", "1", "--overwrite_output_dir"]) == 0
    assert (folder / "model.safetensors").read_bytes() != first
    model = ["--model", str(folder)]
    (tmp_path / "file.pth").write_bytes(b"")
    for other in (
        ["finetune", *model],
        ["convert", "--source", "kim", "--checkpoint", str(tmp_path / "file.pth")],
        ["evaluate", *model],
        ["embed", *model, "--dataset", "ptb-xl-sample"],
        ["export", *model, "--format", "torch-export"],
        ["space", *model],
    ):
        assert main([*other, "--output_dir", str(folder)]) == 1
        assert "holds a finished model" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "embed", "export", "space"])
def test_a_command_that_reads_a_model_writes_into_no_folder_of_others(tmp_path, capsys, command):
    EcgViTModel(EcgViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(
        tmp_path / "model"
    )
    folder = folder_of(tmp_path, **{"thesis.tex": "mine"})
    words = {"embed": ["--dataset", "ptb-xl-sample"], "export": ["--format", "onnx"]}.get(command, [])
    assert main([command, "--model", str(tmp_path / "model"), *words, "--output_dir", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "other files (thesis.tex)" in said and "--overwrite_output_dir" in said
    assert os.listdir(folder) == ["thesis.tex"]


def test_overwriting_never_removes_what_the_command_reads(tmp_path):
    folder = folder_of(tmp_path, **{"model.safetensors": "", "checkpoint-5/a": "", "data/b": ""})
    for read in (folder, folder / "checkpoint-5", folder / "model.safetensors"):
        with pytest.raises(ValueError, match="which this command reads: give another --output_dir"):
            claim_output_dir(str(folder), overwrite=True, reads=read)
    assert sorted(os.listdir(folder)) == ["checkpoint-5", "data", "model.safetensors"]
    claim_output_dir(str(folder), overwrite=True, reads=folder / "data")
    assert os.listdir(folder) == ["data"]


def test_a_run_in_python_mixes_with_no_other(make_trainer):
    train_and_save(make_trainer(max_steps=1))
    with pytest.raises(ValueError, match=r"holds another run \(model.safetensors\)"):
        train_and_save(make_trainer(max_steps=1))


# --- the same run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory, recordings):
    """The folder of a run that was killed behind its second checkpoint."""
    settings = TINY_RUN | STOPPED | {"output_dir": str(tmp_path_factory.mktemp("stopped") / "run")}
    return killed(build_trainer(settings, recordings), 5)


@pytest.fixture
def stopped(stopped_run, tmp_path):
    """A copy of it where `make_trainer` writes."""
    return Path(shutil.copytree(stopped_run, tmp_path / "run"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"learning_rate": 5e-4}, "training.learning_rate was 0.001 and is 0.0005"),
        ({"seed": 7}, "training.seed was 42 and is 7"),
        ({"mask_ratio": [0.2, 0.3]}, "model.mask_ratio was .*0.4.* and is .*0.2"),
        ({"normalization": "lead"}, "input.normalization was .* and is 'lead'"),
        ({"max_steps": 6}, "training.max_steps was 8 and is 6"),
        ({"hidden_size": 64}, "model.hidden_size was 32 and is 64"),
        ({"dataset": range(12)}, "data.record_ids was .* data.records was 24 and is 12"),
    ],
)
def test_only_the_same_run_goes_on(make_trainer, recordings, stopped, changed, said):
    if "dataset" in changed:
        changed = {"dataset": recordings.select(changed["dataset"])}
    other = make_trainer(**STOPPED | changed, resume_from_checkpoint="last")
    with pytest.raises(ValueError, match=f"checkpoint-4 is of another run: .*{said}"):
        train_and_save(other)
    assert not (stopped / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("facts", "batch", "is_stream", "said"),
    [
        ({"processes": 4}, 1, False, None),
        ({"processes": 4}, 4, False, "training.per_device_train_batch_size x processes was 16 and is 4. A run"),
        ({"processes": 4}, 1, True, "processes was 4 and is 1; training.per_device_train_batch_size was 1"),
        ({"fsdp": True}, 4, False, "fsdp was True and is 'nothing'"),
    ],
    ids=["same batch", "another batch", "stream", "divided model"],
)
def test_another_number_of_processes_goes_on_if_its_batches_hold_the_same_records(
    make_trainer, recordings, stopped, facts, batch, is_stream, said
):
    seal = json.loads((stopped / "checkpoint-4" / "checkpoint.json").read_text())
    run = seal["run"] | facts
    run["training"]["per_device_train_batch_size"] = batch
    if is_stream:
        run["training"]["dataloader_num_workers"] = 0
        run["data"] = {"name": None, "shards": 1}
    (stopped / "checkpoint-4" / "checkpoint.json").write_text(json.dumps(seal | {"run": run}))
    trainer = make_trainer(stream_of(recordings, 24) if is_stream else None, **STOPPED)
    refusal = nullcontext() if said is None else pytest.raises(ValueError, match=f"another run: {said}")
    with refusal:
        record_of(trainer).check_checkpoint(
            str(stopped / "checkpoint-4"), trainer.args, trainer.model, trainer.processing_class
        )


def test_a_run_whose_records_drew_other_random_numbers_does_not_go_on(make_trainer):
    segments = SAVING | {"mask_type": "segments", "min_segment_patches": 2}
    folder = killed(make_trainer(**segments), 3)
    path = folder / "checkpoint-2" / "checkpoint.json"
    seal = json.loads(path.read_text())
    del seal["run"]["random_stream"]
    path.write_text(json.dumps(seal))
    with pytest.raises(ValueError, match="random_stream was 'nothing' and is 'by counter'"):
        train_and_save(make_trainer(**segments, resume_from_checkpoint="last"))


def test_where_and_how_often_a_run_writes_may_change(make_trainer):
    folder = killed(make_trainer(**SAVING), 3)
    train_and_save(make_trainer(**SAVING | {"save_steps": 1, "logging_steps": 2}, resume_from_checkpoint="last"))
    straight = make_trainer(name="straight", **SAVING)
    train_and_save(straight)
    assert_same_weights(straight, folder)


def test_a_run_that_ended_at_its_last_checkpoint_is_saved_without_another_step(make_trainer):
    straight = make_trainer(name="straight", **SAVING)
    train_and_save(straight)
    folder = killed_after_last_save(make_trainer(**SAVING))
    resumed = make_trainer(**SAVING, resume_from_checkpoint="last")
    train_and_save(resumed)
    assert resumed.state.global_step == 4 and [path.name for path in checkpoints_of(folder)][-1] == "checkpoint-4"
    assert_same_weights(straight, folder)


def killed_after_last_save(trainer):
    class DieAtEnd(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    trainer.add_callback(DieAtEnd())
    with pytest.raises(KeyboardInterrupt):
        train_and_save(trainer)
    return Path(trainer.args.output_dir)


def test_data_of_any_kind_can_be_described(recordings):
    class Own(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from range(3)

    assert describe_data(Own(), "mine") == {"name": "mine"}
    assert describe_data(None) == {"name": None}
    assert describe_data([1, 2]) == {"name": None, "records": 2}
    facts = [describe_data(recordings.select(rows)) for rows in ([0, 1], [1, 0], [0, 2])]
    assert [fact["records"] for fact in facts] == [2, 2, 2] and len({fact["record_ids"] for fact in facts}) == 3


# --- damaged checkpoints ------------------------------------------------------------------------------------------

FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]


@pytest.mark.parametrize(
    ("name", "damage", "is_sealed"),
    [
        pytest.param(
            name, damage, is_sealed, id=f"{name}-{damage}-{'sealed' if is_sealed else 'of an earlier version'}"
        )
        for name in FILES
        for damage in ("cut", "missing", "empty", "bit")
        for is_sealed in (True, False)
        # Without a seal a bit is seen in the file alone that has a checksum of its own.
        if is_sealed or damage != "bit" or name == "optimizer.pt"
    ],
)
def test_a_damaged_file_is_named_and_the_newest_whole_checkpoint_is_taken(stopped, caplog, name, damage, is_sealed):
    newest = stopped / "checkpoint-4"
    if not is_sealed:
        (newest / "checkpoint.json").unlink()
    assert last_complete_checkpoint(str(stopped)) == str(newest)
    path, content = newest / name, (newest / name).read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    found = find_damage(newest)
    assert name.split(".")[0] in found or (damage == "missing" and found == "the weights are missing")
    assert last_complete_checkpoint(str(stopped)) == str(stopped / "checkpoint-2")
    assert f"{newest} is not whole" in caplog.text


def test_damage_is_seen_anywhere_in_a_large_file(stopped):
    checkpoint = stopped / "checkpoint-4"
    (checkpoint / "large.bin").write_bytes(bytes(9 << 20))  # read in several blocks
    seal_checkpoint(checkpoint, {})
    assert find_damage(checkpoint) is None
    for place in (0, 5 << 20, (9 << 20) - 1):
        content = bytearray(9 << 20)
        content[place] = 1
        (checkpoint / "large.bin").write_bytes(content)
        assert find_damage(checkpoint) == "large.bin does not hold what was saved"


def test_a_run_that_was_killed_in_its_first_save_begins_anew(make_trainer, tmp_path):
    folder = tmp_path / "run" / "checkpoint-2"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    assert last_complete_checkpoint(str(tmp_path / "run")) is None
    trainer = make_trainer(**SAVING, resume_from_checkpoint="last")
    train_and_save(trainer)
    assert trainer.state.global_step == 4 and find_damage(folder) is None


def test_no_whole_checkpoint_is_an_error_that_names_them(stopped):
    for number in (2, 4):
        (stopped / f"checkpoint-{number}" / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match="no complete checkpoint .*checkpoint-4: optimizer.*checkpoint-2: optimizer"):
        last_complete_checkpoint(str(stopped))


def test_folders_of_other_names_do_no_harm_and_come_to_none(make_trainer):
    settings = SAVING | {"save_steps": 1, "save_total_limit": 1}
    folder = killed(make_trainer(**settings), 3)
    assert [path.name for path in checkpoints_of(folder)] == ["checkpoint-2"]
    for name in ("checkpoint-best", "checkpoint-50.bak", "checkpoint-", "checkpoint-1e3"):
        shutil.copytree(folder / "checkpoint-2", folder / name)
    (folder / "checkpoint-7").write_text("a file")
    train_and_save(make_trainer(**settings, resume_from_checkpoint="last"))
    kept = {path.name for path in folder.glob("checkpoint-*")}
    assert kept == {"checkpoint-4", "checkpoint-best", "checkpoint-50.bak", "checkpoint-", "checkpoint-1e3"} | {
        "checkpoint-7"
    }


def test_a_checkpoint_by_name_is_looked_at_too(stopped, make_trainer):
    (stopped / "checkpoint-4" / "scheduler.pt").unlink()
    for name, said in (("checkpoint-4", "scheduler is missing"), ("checkpoint-9", "no such folder")):
        trainer = make_trainer(**STOPPED, resume_from_checkpoint=str(stopped / name))
        with pytest.raises(ValueError, match=f"{name} cannot be resumed from: .*{said}"):
            train_and_save(trainer)


# --- streams ------------------------------------------------------------------------------------------------------


def stream_of(recordings, num_records):
    return recordings.select(range(num_records)).to_iterable_dataset(num_shards=1)


def test_a_last_short_batch_of_a_stream_is_dropped_where_asked(make_trainer, recordings):
    sizes = {}
    for drops in (True, False):
        trainer = make_trainer(stream_of(recordings, 9), dataloader_drop_last=drops)
        sizes[drops] = [len(batch["sample_id"]) for batch in trainer.get_train_dataloader()]
    assert sizes == {True: [4, 4], False: [4, 4, 1]}


@pytest.mark.parametrize(("num_records", "accumulation"), [(13, 1), (20, 2)])
def test_a_stream_of_several_epochs_resumes_bit_for_bit(make_trainer, recordings, num_records, accumulation):
    settings = {"save_strategy": "steps", "save_steps": 5, "max_steps": 8, "dataloader_drop_last": True}
    settings["gradient_accumulation_steps"] = accumulation

    def stream():
        return stream_of(recordings, num_records).shuffle(seed=1, buffer_size=5)

    straight = make_trainer(stream(), name="straight", **settings)
    train_and_save(straight)
    folder = killed(make_trainer(stream(), **settings), 7)
    train_and_save(make_trainer(stream(), **settings, resume_from_checkpoint="last"))
    assert_same_weights(straight, folder)


def test_a_stream_that_ends_too_early_is_an_error_with_the_step_and_a_checkpoint(make_trainer, recordings):
    left = list(range(8))

    def read_once():
        while left:
            yield recordings[left.pop()]

    stream = IterableDataset.from_generator(read_once, features=recordings.features)
    trainer = make_trainer(stream, **SAVING)
    with pytest.raises(RuntimeError, match="The data ended at step 2 of 4.*checkpoint-2 is saved"):
        train_and_save(trainer)
    assert find_damage(Path(trainer.args.output_dir) / "checkpoint-2") is None
    assert not (Path(trainer.args.output_dir) / "model.safetensors").exists()


# --- SIGTERM ------------------------------------------------------------------------------------------------------


class TermAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_stops_and_the_run_goes_on_bit_for_bit(make_trainer):
    straight = make_trainer(name="straight", max_steps=6)
    train_and_save(straight)
    before = signal.getsignal(signal.SIGTERM)
    trainer = make_trainer(max_steps=6, resume_from_checkpoint="last")
    trainer.add_callback(TermAt(2))
    with pytest.raises(Preempted, match="Ended by SIGTERM at step 3 of 6.*checkpoint-3 is saved"):
        train_and_save(trainer)
    folder = Path(trainer.args.output_dir)
    assert signal.getsignal(signal.SIGTERM) is before and not (folder / "model.safetensors").exists()
    assert find_damage(folder / "checkpoint-3") is None
    train_and_save(make_trainer(max_steps=6, resume_from_checkpoint="last"))
    assert_same_weights(straight, folder)


def test_the_command_exits_as_a_shell_reports_sigterm(monkeypatch, tmp_path, capsys, tiny_yaml):
    def preempted(args):
        raise Preempted("Ended by SIGTERM at step 3 of 6.")

    monkeypatch.setattr("ecg_transformers.train.pretrain.run", preempted)
    assert main(["pretrain", "--config", tiny_yaml, "--output_dir", str(tmp_path / "run")]) == 143
    assert "Ended by SIGTERM at step 3 of 6." in capsys.readouterr().err
