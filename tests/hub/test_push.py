"""A prepared corpus goes to the Hub and comes back, by the real client and a server on 127.0.0.1."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from ecg_transformers.data import load_ecg, prepare_corpus
from ecg_transformers.data.prepared import read_manifest
from ecg_transformers.hub.push import push_prepared
from ecg_transformers.train.cli import main
from ecg_transformers.train.publishing.model_card import eval_result_files
from ecg_transformers.train.report.ecg_paper import draw_preview
from ecg_transformers.train.results import Result
from ecg_transformers.train.tasks.labelled_splits import task_name

from .conftest import contents
from .test_push_model import comparison

RECORDS = Path(__file__).parents[1] / "fixtures" / "wfdb" / "ptb-xl"
REPO = "owner/ptb-xl"
TOKEN = {"token": "hf_owner"}


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare_corpus("ptb-xl", RECORDS, folder / "ptb-xl", sampling_rate=100, draw_preview=draw_preview)
    prepare_corpus("wfdb", RECORDS, folder / "wfdb")
    return folder


@pytest.fixture
def prepared(prepared_once, tmp_path):
    """Five recordings, with pictures, in four shards of three splits."""
    return Path(shutil.copytree(prepared_once / "ptb-xl", tmp_path / "ptb-xl"))


@pytest.fixture
def own_records(prepared_once, tmp_path):
    """A corpus whose licence is for its owner to state."""
    return Path(shutil.copytree(prepared_once / "wfdb", tmp_path / "wfdb"))


def refusal(folder, repo_id=REPO, **settings):
    with pytest.raises(ValueError) as caught:
        push_prepared(folder, repo_id, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_push_makes_a_repository_of_the_same_files_in_one_commit(hub, prepared):
    assert push_prepared(prepared, REPO, **TOKEN) == "hf://datasets/owner/ptb-xl"
    assert hub.pushed("datasets", REPO) == contents(prepared)
    assert len(hub.commits("datasets", REPO)) == 2 and "ptb-xl, prepared" in hub.commits("datasets", REPO)[1]
    assert not hub.repos["datasets", REPO].private


def test_files_that_are_not_of_the_corpus_are_left_at_home(hub, prepared):
    before = contents(prepared)
    (prepared / "notes.txt").write_text("mine")
    (prepared / ".train.parquet.part").write_text("left by a run that was killed")
    push_prepared(prepared, REPO, **TOKEN)
    assert hub.pushed("datasets", REPO) == before


def test_only_what_changed_is_sent(hub, prepared):
    push_prepared(prepared, REPO, **TOKEN)
    (prepared / "README.md").write_text((prepared / "README.md").read_text() + "\nRead the paper first.\n")
    hub.requests.clear()
    push_prepared(prepared, REPO, **TOKEN)
    assert not hub.puts() and hub.pushed("datasets", REPO) == contents(prepared)


def test_an_interrupted_push_shows_nothing_and_goes_on_where_it_stopped(hub, prepared, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits longer before each retry
    hub.uploads_before_drop = 2
    assert "Run the same command again" in refusal(prepared, **TOKEN)
    assert not hub.pushed("datasets", REPO)
    hub.uploads_before_drop = None
    hub.requests.clear()
    push_prepared(prepared, REPO, **TOKEN)
    num_left = len(list(prepared.rglob("*.parquet"))) - 2
    assert len(hub.puts()) == num_left > 0 and hub.pushed("datasets", REPO) == contents(prepared)


def test_offline_mode_is_named(prepared, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal(prepared, **TOKEN)


@pytest.mark.parametrize("licence", [None, "", "unknown", "n/a", "-"])
def test_a_licence_that_nobody_settled_stops_the_push_before_anything_is_asked(hub, own_records, licence):
    said = refusal(own_records, licence=licence, **TOKEN)
    assert "not settled" in said and "Expected a known licence" in said
    assert not hub.requests


def damage_shard(folder):
    shard = next(folder.glob("train-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")


def state_a_path(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["options"]["ptb_xl_table"] = "/home/me/ptbxl_database.csv"
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damage_shard, "is damaged"),
        (state_a_path, "states a path of this machine in the options ['ptb_xl_table']"),
        (lambda folder: (folder / "manifest.json").unlink(), "unfinished"),
    ],
)
def test_a_folder_that_is_not_whole_is_not_published(hub, prepared, spoil, says):
    spoil(prepared)
    assert says in refusal(prepared, **TOKEN)
    assert not hub.requests


@pytest.mark.parametrize("licence", ["CC BY 4.0", "cc-by-4.0"])
def test_the_licence_that_is_stated_goes_into_card_and_manifest_there_not_here(hub, own_records, licence):
    before = contents(own_records)
    push_prepared(own_records, "owner/mine", licence=licence, **TOKEN)
    there = hub.files("datasets", "owner/mine")
    card = there["README.md"].decode()
    assert "license: cc-by-4.0" in card and "Licence of the recordings: CC BY 4.0." in card
    assert json.loads(there["manifest.json"])["licence"] == "CC BY 4.0"
    assert contents(own_records) == before


def test_another_conversion_is_not_written_over(hub, prepared, own_records):
    push_prepared(prepared, REPO, **TOKEN)
    assert "another conversion (corpus 'ptb-xl'" in refusal(own_records, licence="CC BY 4.0", **TOKEN)
    assert hub.pushed("datasets", REPO) == contents(prepared)


def test_a_repository_with_other_files_is_left_as_it_is(hub, prepared):
    repo = hub.create("datasets", REPO)
    hub.commit(repo, "main", {"table.csv": hub.store(b"a,b\n")}, "mine")
    for revision in (None, "new"):
        assert "other files (table.csv" in refusal(prepared, revision=revision, **TOKEN)
    assert hub.files("datasets", REPO) == {"table.csv": b"a,b\n"} and set(repo.branches) == {"main"}


def test_a_branch_is_made_and_main_stays(hub, prepared):
    for _ in range(2):
        location = push_prepared(prepared, REPO, revision="first/try", **TOKEN)
    assert location == "hf://datasets/owner/ptb-xl@first%2Ftry"
    assert not hub.pushed("datasets", REPO)
    assert hub.pushed("datasets", REPO, "first/try") == contents(prepared)
    assert read_manifest(location) == read_manifest(prepared)


def rows_of(dataset):
    return [
        {**row, "ecg": {**row["ecg"], "gain": list(row["ecg"]["gain"]), "leads": list(row["ecg"]["leads"])}}
        for row in dataset
    ]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_stream_from_the_hub_has_the_records_of_the_folder(hub, prepared, split):
    location = push_prepared(prepared, REPO, **TOKEN)
    streams = [
        load_ecg("prepared", at, split=split, streaming=True, decode=False, verify=True) for at in (location, prepared)
    ]
    there, here = map(rows_of, streams)
    assert here and there == here


PLAIN = """
import datasets, json, sys
rows = []
for split in ("train", "validation", "test"):
    for row in datasets.load_dataset(sys.argv[1], split=split, streaming=True):
        rows.append([split, row["record_id"], row["labels"], row["ecg"]["signal"].hex(), row["ecg"]["leads"]])
        assert row["preview"].width == 480
assert not any(name.startswith("ecg_transformers") for name in sys.modules)
print(json.dumps(rows))
"""


def test_datasets_alone_streams_the_same_records_by_the_card(hub, prepared, tmp_path):
    push_prepared(prepared, REPO, **TOKEN)
    environment = os.environ | hub.client_environment(tmp_path / "home") | {"USE_TORCH": "0"}
    command = [sys.executable, "-c", PLAIN, REPO]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert child.returncode == 0, child.stderr[-2000:]
    expected = [
        [split, row["record_id"], row["labels"], row["ecg"]["signal"].hex(), row["ecg"]["leads"]]
        for split in ("train", "validation", "test")
        for row in load_ecg("prepared", prepared, split=split, streaming=True, decode=False)
    ]
    assert json.loads(child.stdout) == expected and len(expected) == 5


def test_nothing_that_is_pushed_names_a_folder_of_this_machine(hub, tmp_path):
    records = tmp_path / "records" / "ward 3"
    records.mkdir(parents=True)
    np.savetxt(records / "a.csv", np.random.default_rng(0).normal(size=(500, 2)), delimiter=",")
    (records / "broken.edf").write_bytes(b"0       no recording")
    lines = ["path,labels", "ward 3/a.csv,NORM", "ward 3/broken.edf,MI", "ward 3/lost.csv,MI"]
    (records.parent / "table.csv").write_text("\n".join(lines) + "\n")
    declared = {"leads": ["I", "II"], "sampling_rate": 100, "unit": "mV", "table": "table.csv"}
    (records.parent / "ecgfolder.json").write_text(json.dumps(declared))
    prepare_corpus("ecgfolder", records.parent, tmp_path / "out")
    push_prepared(tmp_path / "out", REPO, licence="CC BY 4.0", **TOKEN)
    files = hub.files("datasets", REPO)
    assert b"broken.edf" in files["bad_records.jsonl"] and b"lost.csv" in files["bad_records.jsonl"]
    for name, content in files.items():
        assert str(tmp_path).encode() not in content and f"{Path.home()}/".encode() not in content, name


def test_the_command_pushes_and_says_how_to_load(hub, prepared, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    assert main(["push", "--folder", str(prepared), "--repo_id", REPO, "--private"]) == 0
    said = capsys.readouterr().err
    assert 'load_ecg("prepared", "hf://datasets/owner/ptb-xl"' in said and 'load_dataset("owner/ptb-xl"' in said
    assert hub.repos["datasets", REPO].private


def test_a_benchmark_names_the_task_under_which_models_state_their_scores(hub, prepared):
    push_prepared(prepared, REPO, benchmark=True, **TOKEN)
    files = hub.pushed("datasets", REPO)
    stated = yaml.safe_load(files.pop("eval.yaml"))
    assert files == contents(prepared)
    (task,) = stated["tasks"]
    command = f"ecg-transformers evaluate --dataset prepared --data_dir hf://datasets/{REPO}"
    result = Result.from_json(comparison(command=command, task=task_name("prepared", {})))
    (of_model,) = eval_result_files(result).values()
    assert yaml.safe_load(of_model)[0]["dataset"] == {"id": REPO, "task_id": task["id"]}
    assert (task["config"], task["split"]) == ("default", "test") and REPO in stated["description"]


def test_a_corpus_without_classes_is_no_benchmark(hub, own_records):
    assert "Leave --benchmark" in refusal(own_records, licence="CC BY 4.0", benchmark=True, **TOKEN)
