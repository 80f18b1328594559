"""A checkpoint goes to the Hub and comes back, by the real client and a server on 127.0.0.1."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard, parse_eval_result_entries
from safetensors.torch import load_file, save_file

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.hub.push import push_model
from ecg_transformers.modeling import EcgFeatureExtractor, EcgJepaConfig, EcgJepaForPreTraining, EcgJepaModel
from ecg_transformers.train.cli import main
from ecg_transformers.train.publishing.model_card import CardFacts, RunCosts, write_card
from ecg_transformers.train.publishing.shared_folder import (
    model_digest,
    public_arguments,
    public_results,
    published_card,
    read_shared_folder,
)

from .conftest import contents

REPO = "owner/ecg-jepa-tiny"
TOKEN = {"token": "hf_owner"}
LEADS = ("I", "II", "V1")
PTB_XL = DataSource("PTB-XL", "CC BY 4.0", "Wagner et al., 2020", "https://physionet.org/content/ptb-xl/", "ptb-xl")
LINKED = (
    "preview.png",
    "README.md",
    "card.json",
    "config.json",
    "preprocessor_config.json",
    "metrics.json",
    "leads.py",
)
LINKED += ("training_args.json", "model.safetensors")
CODE = {"modeling_ecg_jepa.py", "configuration_ecg_jepa.py", "feature_extraction_ecg.py", "leads.py", "cropa.py"}


def tiny_config(**changes):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    size |= {f"predictor_{name}": value for name, value in size.items()}
    size |= {"leads": LEADS, "sampling_rate": 100, "num_samples": 400, "patch_size": 50}
    return EcgJepaConfig(**(size | changes))


def write_checkpoint(folder, model_class=EcgJepaForPreTraining, data=PTB_XL, **card):
    torch.manual_seed(0)
    model_class(tiny_config()).save_pretrained(folder)
    extractor = EcgFeatureExtractor(leads=LEADS, sampling_rate=100, num_samples=400)
    extractor.save_pretrained(folder)
    facts = CardFacts("pretrained", data, "folds 1-8", {"Steps": 3}, costs=RunCosts(12.0, "CPU"), **card)
    write_card(folder, facts, tiny_config(), extractor)


def comparison(**changes):
    def of(score):
        found = {"macro_auroc": score, "macro_auroc_ci95": [score - 0.1, score + 0.1], "per_class": {"MI": score}}
        found |= {"per_class_ci95": {"MI": [score - 0.1, score + 0.1]}, "excluded": {}}
        found |= {"macro_auprc": 0.5, "per_class_auprc": {"MI": 0.5}, "num_train_records": 398, "details": {"C": 0.01}}
        return {"linear": found | {"num_test_records": 47, "num_test_patients": 45}}

    difference = {"linear": {"macro_auroc": 0.2, "ci95": [0.1, 0.3], "p_value": 0.002}}
    both = {"random_encoder": of(0.6), "pretrained": of(0.8), "difference": difference}
    facts = {"problem_type": "multi_label_classification", "label_names": ["MI"], "versions": {}, "model": "/me/run"}
    facts |= {"splits": {"train": "folds 1-8", "test": "fold 10"}, "task": "ptb-xl superdiagnostic"}
    return facts | both | {"command": "ecg-transformers evaluate --model=/me/run --data_dir /home/me/data"} | changes


@pytest.fixture(scope="session")
def checkpoint_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(folder / "encoder")
    (folder / "encoder" / "preview.png").write_bytes(b"\x89PNG\r\n\x1a\n of mine")  # else each push draws one
    return folder / "encoder"


@pytest.fixture
def checkpoint(checkpoint_once, tmp_path):
    return Path(shutil.copytree(checkpoint_once, tmp_path / "encoder"))


def files_of(hub, revision="main"):
    return hub.pushed("models", REPO, revision)


def refusal(folder, repo_id=REPO, **settings):
    before = contents(folder) if folder.is_dir() else None
    with pytest.raises(ValueError) as caught:
        push_model(folder, repo_id, **settings)
    assert "\n" not in str(caught.value)
    assert before is None or contents(folder) == before
    return str(caught.value)


# --- what goes up -------------------------------------------------------------------------------------------------


def test_a_push_is_one_commit_of_weights_contract_code_and_card(hub, checkpoint):
    before = contents(checkpoint)
    assert push_model(checkpoint, REPO, **TOKEN) == f"{hub.url}/{REPO}"
    there = files_of(hub)
    assert hub.commits("models", REPO) == ["initial commit", "Upload EcgJepaForPreTraining"]
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md", *CODE} <= set(there)
    assert all(there[name] == content for name, content in before.items() if name in there and name != "README.md")
    assert contents(checkpoint) == before and not hub.repos["models", REPO].private


def test_pickles_patients_and_pages_stay_at_home(hub, checkpoint, caplog):
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth", "predictions.parquet", "training.html"):
        (checkpoint / name).write_bytes(b"mine")
    (checkpoint / "checkpoint-5").mkdir()
    with caplog.at_level("INFO", "ecg_transformers"):
        push_model(checkpoint, REPO, **TOKEN)
    assert not {name for name in files_of(hub) if name.endswith((".bin", ".pt", ".pth", ".parquet", ".html"))}
    assert "Stay at home: optimizer.pt, predictions.parquet, rng_state.pth" in caplog.text


def test_the_card_gets_the_address_and_all_three_licences(hub, checkpoint):
    push_model(checkpoint, REPO, weights_licence="cc-by-4.0", **TOKEN)
    card = ModelCard(files_of(hub)["README.md"].decode())
    assert card.data.license == "cc-by-4.0" and card.data["training_data_license"] == "CC BY 4.0"
    assert card.data.datasets == ["ptb-xl"] and card.data.pipeline_tag == "feature-extraction"
    assert card.text.lstrip().startswith("# ecg-jepa-tiny\n") and f'model_id = "{REPO}"' in card.text
    assert "* Code beside the weights: Apache-2.0.\n* Weights: cc-by-4.0.\n* Training data: CC BY 4.0.\n" in card.text
    assert card.text.count("## Licences") == 1 and "12 s on CPU. Energy and carbon were not measured." in card.text


def test_scores_beside_the_weights_go_into_card_model_index_and_picture_without_paths(hub, checkpoint):
    (checkpoint / "metrics.json").write_text(json.dumps(comparison()))
    push_model(checkpoint, REPO, **TOKEN)
    there = files_of(hub)
    card = ModelCard(there["README.md"].decode())
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, card.data.model_name) == ("roc_auc", 0.8, "ecg-jepa-tiny")
    assert result.metric_args["random_encoder"] == 0.6 and result.metric_args["ci95"] == [0.7, 0.9]
    assert "| Random encoder | 0.600 (0.500 to 0.700)" in card.text
    assert "No results" not in card.text and "/home" not in card.text and "/me" not in card.text
    scores = json.loads(there["metrics.json"])
    assert scores["model"] == "run" and "command" not in scores and b"/home" not in there["metrics.json"]


def test_scores_on_a_dataset_of_the_hub_are_listed_for_it(hub, checkpoint):
    command = "ecg-transformers evaluate --dataset prepared --data_dir hf://datasets/owner/ptb-xl --model /me/run"
    (checkpoint / "metrics.json").write_text(json.dumps(comparison(command=command, date="2026-11-29")))
    push_model(checkpoint, REPO, **TOKEN)
    path = ".eval_results/ecg-transformers_ptb-xl_superdiagnostic_linear.yaml"
    (entry,) = parse_eval_result_entries(yaml.safe_load(files_of(hub)[path]))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("owner/ptb-xl", "superdiagnostic", 0.8)
    assert "linear" in entry.notes and "random_encoder 0.6" in entry.notes and entry.date == "2026-11-29"
    (checkpoint / "metrics.json").unlink()
    push_model(checkpoint, REPO, **TOKEN)
    assert path not in files_of(hub) and "metrics.json" not in files_of(hub)


@pytest.mark.slow
def test_results_of_an_evaluation_elsewhere_can_be_named(hub, checkpoint, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(comparison(weights_sha256=model_digest(checkpoint))))
    push_model(checkpoint, REPO, results=path, **TOKEN)
    assert "metrics.json" in files_of(hub) and b"Random encoder" in files_of(hub)["README.md"]
    path.write_text("{}")
    assert "Expected scores as `evaluate`" in refusal(checkpoint, results=path, **TOKEN)


@pytest.mark.parametrize("where", ["beside the weights", "elsewhere"])
def test_scores_of_other_weights_are_refused(hub, checkpoint, where):
    scores = comparison(weights_sha256="0" * 64)
    if where == "elsewhere":
        assert "do not say by weights_sha256" in refusal(checkpoint, results=comparison(), **TOKEN)
        said = refusal(checkpoint, results=scores, **TOKEN)
    else:
        (checkpoint / "metrics.json").write_text(json.dumps(scores))
        said = refusal(checkpoint, **TOKEN)
    assert "another model, or of earlier weights" in said and "evaluate --model" in said
    assert not hub.requests


def test_scores_that_are_named_replace_older_ones_beside_the_weights(hub, checkpoint):
    (checkpoint / "metrics.json").write_text(json.dumps(comparison(weights_sha256="0" * 64)))
    push_model(checkpoint, REPO, results=comparison(weights_sha256=model_digest(checkpoint)), **TOKEN)
    assert json.loads(files_of(hub)["metrics.json"])["weights_sha256"] == model_digest(checkpoint)


def test_training_arguments_go_without_folders_and_tokens(hub, checkpoint):
    arguments = {"learning_rate": 1e-3, "output_dir": "/home/me/run", "hub_token": "secret", "optim": "adamw_torch"}
    (checkpoint / "training_args.json").write_text(json.dumps(arguments))
    push_model(checkpoint, REPO, **TOKEN)
    assert json.loads(files_of(hub)["training_args.json"]) == {"learning_rate": 1e-3, "optim": "adamw_torch"}


def test_what_a_person_wrote_into_the_card_stays(hub, checkpoint):
    text = "---\nlicense: mit\ntraining_data_license: CC0\nfoo: bar\n---\n\n# Mine\n\nRead the paper \\1 first.\n"
    (checkpoint / "README.md").write_text(text)
    push_model(checkpoint, REPO, **TOKEN)
    card = ModelCard(files_of(hub)["README.md"].decode())
    assert "# Mine\n\nRead the paper \\1 first.\n" in card.text and card.data["foo"] == "bar"
    assert card.data.license == "mit" and "* Training data: CC0." in card.text


def test_a_picture_of_the_run_is_kept_and_shown(hub, checkpoint):
    push_model(checkpoint, REPO, **TOKEN)
    there = files_of(hub)
    assert there["preview.png"] == b"\x89PNG\r\n\x1a\n of mine"
    assert b"\n\n![A picture of this model](preview.png)\n\n" in there["README.md"]


def test_without_one_the_card_shows_what_the_model_makes_of_a_carried_recording(hub, checkpoint):
    (checkpoint / "preview.png").unlink()
    push_model(checkpoint, REPO, **TOKEN)
    there = files_of(hub)
    card = there["README.md"].decode()
    assert there["preview.png"].startswith(b"\x89PNG\r\n")
    assert "hidden patches shaded](preview.png)\n*Shaded: what one mask of the pretraining hides" in card
    assert "(Wagner et al., 2020, CC BY 4.0; test fold 10, at 100 Hz)" in card
    hub.requests.clear()
    push_model(checkpoint, REPO, **TOKEN)  # the same picture again
    assert not hub.uploads()


# --- what is refused, before anything is asked --------------------------------------------------------------------


@pytest.mark.parametrize("stated", [None, "that of the recordings", "ODbL 1.0 or another: verify on its page"])
def test_an_unsettled_licence_of_the_data_stops_the_push_before_anything_is_asked(hub, tmp_path, stated):
    write_checkpoint(tmp_path / "mine", EcgJepaModel, DataSource("My hospital", stated, "unpublished"))
    said = refusal(tmp_path / "mine", **TOKEN)
    assert "licence of the training data is not settled" in said and '--licence "CC BY 4.0"' in said
    assert "not settled" in refusal(tmp_path / "mine", licence="unknown", **TOKEN)
    assert not hub.requests
    (tmp_path / "mine" / "preview.png").write_bytes(b"\x89PNG\r\n\x1a\n of mine")
    push_model(tmp_path / "mine", REPO, licence="cc-by-4.0", **TOKEN)
    card = ModelCard(files_of(hub)["README.md"].decode())
    assert card.data["training_data_license"] == "CC BY 4.0" and "* Training data: CC BY 4.0." in card.text
    assert "* Weights: **unknown**" in card.text and card.data.license_name == "unknown"


def spoil_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickle_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def break_index(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')


def break_shard(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model-1.safetensors").write_bytes(b"\0" * 100)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')


def write(name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / name).write_text(text)


def change(name, **fields):
    def of(folder):
        known = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(known | fields))

    return of


def link_elsewhere(name):
    def link(folder):
        (folder / name).unlink(missing_ok=True)
        (folder.parent / "token").write_text('{"token": "hf_mine"}')
        (folder / name).symlink_to(folder.parent / "token")

    return link


def note_a_path(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", {"format": "pt", "from": "/home/alice/run"})


def header(fields):
    text = "---\n" + ("" if "training" in fields else "training_data_license: CC0\n") + fields + "\n---\n# Mine\n"
    return lambda folder: (folder / "README.md").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "README.md").unlink(), "has no README.md, the card"),
        (lambda folder: (folder / "README.md").write_text("---\n- a\n---\n"), "header of README.md cannot be read"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "feature_extractor.save_pretrained"),
        (lambda folder: (folder / "leads.py").unlink(), "lacks leads.py"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is no JSON mapping"),
        (change("config.json", auto_map=None), "names no code: auto_map is None. Load the model"),
        (spoil_weights, "model.safetensors is damaged or was not written to its end"),
        (break_shard, "model-1.safetensors is damaged"),
        (break_index, "model.safetensors.index.json does not name the files of the weights"),
        (header("license: [mit, cc-by-4.0]"), "one licence as license in the header of README.md, got ['mit'"),
        (header("license: 4.0"), "--weights_licence NAME"),
        (header("license: other\nlicense_name: {a: b}"), "Expected one licence as license_name"),
        (header("training_data_license: [CC0, MIT]"), "State the one that holds by --licence NAME"),
        (header("training_data_license: n/a"), "is not settled: it is 'n/a'"),
        (lambda folder: (folder / "card.json").write_text("[]"), "card.json is no JSON mapping"),
        (change("card.json", data=1), "does not hold the facts of a card"),
        *[(link_elsewhere(name), f"{name} is a link to") for name in LINKED],
        (write("preview.png", "hf_mine"), "preview.png is no PNG"),
        (header("license: !!python/object/apply:os.system ['false']"), "header of README.md cannot be read"),
        (write("config.json", [1]), "config.json is no JSON mapping"),
        (change("config.json", auto_map=["x"]), "names no code: auto_map is ['x']"),
        (change("config.json", auto_map={"AutoModel": 1}), "names no code: auto_map is {'AutoModel': 1}"),
        (change("config.json", model_type=None), "config.json names no model"),
        (write("metrics.json", [1]), "metrics.json is no JSON mapping"),
        (write("metrics.json", comparison(pretrained={})), "no protocol was evaluated"),
        (write("metrics.json", comparison(splits=1)), "The scores are not as `evaluate` writes them"),
        (write("metrics.json", comparison(command="evaluate 'a")), "No closing quotation"),
        (note_a_path, "has notes that would be published: 'from'"),
        (pickle_weights, "only pytorch_model.bin, which could run code"),
        (shutil.rmtree, "There is no folder"),
    ],
)
def test_a_folder_that_is_not_whole_is_not_published(hub, checkpoint, spoil, says):
    spoil(checkpoint)
    assert says in refusal(checkpoint, **TOKEN)
    assert not hub.requests


def test_the_cache_of_the_hub_may_link_to_its_own_blobs(checkpoint, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0f", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(checkpoint, blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert set(read_shared_folder(snapshot).texts) == set(read_shared_folder(checkpoint).texts)


def test_the_configuration_goes_without_paths(checkpoint):
    change("config.json", _name_or_path="/home/alice/secret/run", note="/srv/patients/doe")(checkpoint)
    config = json.loads(read_shared_folder(checkpoint).texts["config.json"])
    assert "_name_or_path" not in config and config["note"] == "doe" and config["leads"] == list(LEADS)


@pytest.mark.parametrize("place", ["/home/alice/run", "/Users/alice/run", "C:\\Users\\alice", f"{Path.cwd()}/run"])
def test_a_card_that_names_a_place_of_a_machine_is_refused_and_not_edited(hub, checkpoint, place):
    path = checkpoint / "README.md"
    path.write_text(f"{path.read_text()}\nTrained in {place}, see https://a.org/home/?id=5 .\n")
    assert "README.md names a place of this machine" in refusal(checkpoint, **TOKEN)
    assert not hub.uploads()


def test_a_card_as_it_was_written_is_rendered_anew_and_one_that_a_person_changed_goes_out_as_it_is(checkpoint):
    rendered = published_card(read_shared_folder(checkpoint), REPO, "CC0 1.0").text
    assert f'model_id = "{REPO}"' in rendered and "Training data: CC0 1.0." in rendered
    path = checkpoint / "README.md"
    path.write_text(path.read_text() + "\nRead the paper first.\n")
    card = published_card(read_shared_folder(checkpoint), REPO, weights_licence="mit")
    assert path.read_text().split("---\n", 2)[2].strip() == card.text.strip() and card.data.license == "mit"


def test_a_list_of_one_licence_is_that_licence_and_a_flag_counts_before_a_list(hub, checkpoint):
    header("license: [mit]")(checkpoint)
    push_model(checkpoint, REPO, **TOKEN)
    assert ModelCard(files_of(hub)["README.md"].decode()).data.license == "mit"
    header("license: [mit, cc-by-4.0]")(checkpoint)
    push_model(checkpoint, REPO, weights_licence="cc-by-4.0", **TOKEN)
    assert ModelCard(files_of(hub)["README.md"].decode()).data.license == "cc-by-4.0"


def test_the_repository_needs_an_owner(checkpoint):
    assert "OWNER/NAME" in refusal(checkpoint, "tiny", **TOKEN)


# --- the Hub says no, or breaks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("hf_wrong", "does not accept the token"),
        (None, "does not accept the token, or there is none"),
        ("hf_reader", "needs write permission for 'owner'"),
        ("hf_stranger", "needs write permission for 'owner'"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_token_that_may_not_write_is_one_sentence(hub, checkpoint, token, says, exists):
    if exists:
        hub.create("models", REPO)
    assert says in refusal(checkpoint, token=token)
    assert not hub.uploads()


def test_a_name_that_is_taken_by_what_the_token_does_not_see_is_one_sentence(hub, checkpoint):
    hub.reserved.add(("models", REPO))
    assert f"The name {REPO} is taken" in refusal(checkpoint, **TOKEN)


def test_a_dataset_of_the_same_name_is_another_repository(hub, checkpoint):
    hub.create("datasets", REPO)
    push_model(checkpoint, REPO, **TOKEN)
    assert set(hub.files("datasets", REPO)) == {".gitattributes"} and "config.json" in files_of(hub)


def test_a_repository_that_vanishes_meanwhile_is_one_sentence(hub, checkpoint, monkeypatch):
    def vanish(self, *args, **settings):
        del hub.repos["models", REPO]
        return upload(self, *args, **settings)

    upload = HfApi.preupload_lfs_files
    monkeypatch.setattr(HfApi, "preupload_lfs_files", vanish)
    assert f"knows no model {REPO}" in refusal(checkpoint, **TOKEN)


def write_without(path, field):
    kept = json.loads(path.read_text())
    del kept[field]
    path.write_text(json.dumps(kept))


def known(hub, **changes):
    """A repository with a configuration of ours in it."""
    config = tiny_config(**{"architectures": ["EcgJepaForPreTraining"]} | changes)
    repo = hub.create("models", REPO)
    hub.commit(repo, "main", {"config.json": hub.store(config.to_json_string().encode())}, "before")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architectures": ["EcgJepaModel"]}, "it is ecg_jepa, EcgJepaModel, this one is ecg_jepa, EcgJepaForPreTr"),
        ({"hidden_size": 32, "num_hidden_layers": 2}, "hidden_size is 32 there and 16 here; num_hidden_layers is 2"),
        ({"sampling_rate": 200}, "sampling_rate is 200 there and 100 here"),
        ({"id2label": {0: "MI", 1: "NORM", 2: "CD"}}, "id2label is ['MI', 'NORM', 'CD'] there and None here"),
    ],
)
def test_a_model_of_another_class_or_size_or_labels_is_not_written_over(hub, checkpoint, changes, says):
    known(hub, **changes)
    said = refusal(checkpoint, **TOKEN)
    assert "another model, and is left as it is" in said
    assert says in said and "Give another --repo_id, or delete that repository first" in said
    assert set(files_of(hub)) == {"config.json"}


def test_what_a_configuration_leaves_to_its_class_is_compared_too(hub, checkpoint):
    known(hub)
    write_without(checkpoint / "config.json", "hidden_size")
    assert f"hidden_size is 16 there and {EcgJepaConfig().hidden_size} here" in refusal(checkpoint, **TOKEN)


def test_a_version_that_was_trained_otherwise_is_written_over(hub, checkpoint):
    known(hub, mask_ratio=[0.13, 0.2], calibration=None, drop_path_rate=0.3)
    push_model(checkpoint, REPO, **TOKEN)
    assert "model.safetensors" in files_of(hub)


@pytest.mark.slow
def test_private_is_private_and_a_public_repository_does_not_get_what_should_be(hub, checkpoint):
    push_model(checkpoint, REPO, private=True, **TOKEN)
    assert hub.repos["models", REPO].private
    hub.create("models", "owner/public")
    assert "is public" in refusal(checkpoint, "owner/public", private=True, **TOKEN)


def test_weights_that_arrived_before_the_break_are_not_sent_again(hub, checkpoint, monkeypatch):
    hub.break_commits = True
    assert "owner/ecg-jepa-tiny was created and is empty" in refusal(checkpoint, **TOKEN)
    assert "Nothing of owner/ecg-jepa-tiny was changed" in refusal(checkpoint, **TOKEN)
    assert len(hub.puts()) == 1 and not files_of(hub)
    hub.break_commits = False
    hub.requests.clear()
    push_model(checkpoint, REPO, **TOKEN)
    assert not hub.puts() and "model.safetensors" in files_of(hub) and len(hub.commits("models", REPO)) == 2


def test_the_second_push_sends_nothing_and_a_third_what_changed(hub, checkpoint):
    push_model(checkpoint, REPO, **TOKEN)
    hub.requests.clear()
    push_model(checkpoint, REPO, **TOKEN)
    assert hub.requests and not hub.uploads()
    (checkpoint / "README.md").write_text((checkpoint / "README.md").read_text() + "\nRead the paper first.\n")
    push_model(checkpoint, REPO, commit_message="A hint", **TOKEN)
    assert (
        not hub.puts()
        and hub.commits("models", REPO)[-1] == "A hint"
        and b"Read the paper" in files_of(hub)["README.md"]
    )


@pytest.mark.slow
def test_weights_in_parts_replace_weights_in_one_file(hub, checkpoint):
    push_model(checkpoint, REPO, **TOKEN)
    model = EcgJepaForPreTraining.from_pretrained(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    model.save_pretrained(checkpoint, max_shard_size="10KB")
    push_model(checkpoint, REPO, **TOKEN)
    there = files_of(hub)
    assert "model.safetensors" not in there and "model.safetensors.index.json" in there
    assert {name for name in there if name.startswith("model-")} == {path.name for path in checkpoint.glob("model-*")}


def test_a_commit_of_someone_else_in_the_meantime_is_kept(hub, checkpoint, monkeypatch):
    upload = HfApi.preupload_lfs_files

    def interfere(self, *args, **settings):
        hub.commit(hub.repos["models", REPO], "main", {"README.md": hub.store(b"theirs")}, "theirs")
        return upload(self, *args, **settings)

    monkeypatch.setattr(HfApi, "preupload_lfs_files", interfere)
    assert "Someone else has committed" in refusal(checkpoint, **TOKEN)
    assert files_of(hub) == {"README.md": b"theirs"}


# --- what comes back ----------------------------------------------------------------------------------------------


LOAD = """
import sys
sys.modules["ecg_transformers"] = None  # importing the package fails, as if it were not installed
import json
import torch
from huggingface_hub import ModelCard
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification
repo = sys.argv[1]
torch.set_num_threads(1)
encoder = AutoModel.from_pretrained(repo, trust_remote_code=True).eval()
extractor = AutoFeatureExtractor.from_pretrained(repo, trust_remote_code=True)
classifier = AutoModelForSequenceClassification.from_pretrained(repo, num_labels=3, trust_remote_code=True)
assert all(type(x).__module__.startswith("transformers_modules.") for x in (encoder, extractor, classifier))
snippet = ModelCard.load(repo).text.split("```python\\n")[1].split("```")[0]
names = {}
exec(snippet, names)
signal = torch.sin(torch.arange(1200, dtype=torch.float64).reshape(3, 400) / 20).numpy()
inputs = extractor(signal, sampling_rate=100, leads=["I", "II", "V1"], unit="mV", return_tensors="pt")
with torch.inference_mode():
    print(json.dumps([encoder(**inputs).pooler_output[0].tolist(), list(names["features"].shape)]))
"""


@pytest.mark.slow
def test_a_process_without_this_package_loads_everything_from_the_hub(hub, checkpoint, tmp_path):
    push_model(checkpoint, REPO, private=True, **TOKEN)
    environment = os.environ | hub.client_environment(tmp_path / "home", "hf_owner")
    command = [sys.executable, "-c", LOAD, REPO]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert child.returncode == 0, child.stderr[-3000:]
    features, shape = json.loads(child.stdout)
    signal = torch.sin(torch.arange(1200, dtype=torch.float64).reshape(1, 3, 400) / 20).float()
    with torch.inference_mode():
        expected = EcgJepaModel.from_pretrained(checkpoint).eval()(signal).pooler_output[0]
    assert torch.allclose(torch.tensor(features), expected, atol=1e-5) and shape == [1, 16]


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_knows_a_model_and_says_how_to_load_it(hub, checkpoint, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    flags = ["--private", "--revision", "v1", "--weights_licence", "apache-2.0"]
    assert main(["push", "--folder", str(checkpoint), "--repo_id", REPO, *flags]) == 0
    said = capsys.readouterr().err
    assert f"AutoModel.from_pretrained(\"{REPO}\", revision='v1', trust_remote_code=True)" in said
    assert hub.repos["models", REPO].private and b"license: apache-2.0" in files_of(hub, revision="v1")["README.md"]


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("notes.txt", [], "is neither a model (config.json and model.safetensors"),
        ("manifest.json", ["--weights_licence", "mit"], "--weights_licence are for models"),
    ],
)
def test_the_command_says_what_a_folder_would_have_to_be(hub, tmp_path, capsys, name, flags, says):
    (tmp_path / name).write_text("{}")
    assert main(["push", "--folder", str(tmp_path), "--repo_id", REPO, *flags]) == 1
    assert says in capsys.readouterr().err


def test_only_fields_that_are_allowed_go_out():
    arguments = {"learning_rate": 1e-3, "output_dir": "/me", "hub_token": "hf", "run_name": "doe", "report_to": ["x"]}
    assert public_arguments(arguments) == {"learning_rate": 1e-3}
    scores = comparison(command="x --data_dir /me", copies_left_out={"test": {"doe": "7"}}, somebodys="/me")
    scores |= {"training": {"steps": 3, "not_judged_records": {"test": {"doe": "NaN"}}}, "config": "runs/doe/my.yaml"}
    public = public_results(scores)
    assert public["training"] == {"steps": 3} and public["config"] == "my.yaml" and public["model"] == "run"
    assert not {"command", "copies_left_out", "somebodys"} & set(public) and "doe" not in json.dumps(public)


@pytest.mark.parametrize("name", ["../secret.Model", "/tmp/secret.Model", "a/b.Model"])
def test_code_outside_of_the_folder_is_not_taken(name, tmp_path):
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_text(json.dumps({"model_type": "a", "auto_map": {"AutoModel": name}}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text("card")
    with pytest.raises(ValueError, match="no module beside it"):
        read_shared_folder(tmp_path)
