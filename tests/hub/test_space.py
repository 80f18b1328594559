import configparser
import html
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoFeatureExtractor, AutoModel

from ecg_transformers.data import load_ecg
from ecg_transformers.hub import space, space_app, space_uploads
from ecg_transformers.hub.push import push_model
from ecg_transformers.hub.space_model import SpaceModel, neighbour_table
from ecg_transformers.hub.space_page import markdown_text
from ecg_transformers.modeling import EcgViTModel
from ecg_transformers.train.cli import build_parser, main
from ecg_transformers.train.features import EmbeddingTable, embed

from .space_inputs import CLASSES, save_model

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "space.md").read_text(encoding="utf-8")
CALIBRATION = {"labels": CLASSES, "temperature": 1.5, "thresholds": {}}
CARD = '---\nlicense: {}\ntraining_data_license: CC BY 4.0\n---\n\n# Card\n\nmodel_id = "tiny"\n'


def few_neighbours(model):
    rows = load_ecg("ptb-xl-sample", split="train", decode=False).select(range(5))
    width = model.model.config.hidden_size
    return EmbeddingTable(np.eye(5, width, dtype=np.float32), rows["record_id"], [None] * 5, rows["labels"], [1] * 5)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A run with much beside the model."""
    folder = save_model(tmp_path_factory.mktemp("run") / "tiny", calibration=CALIBRATION)
    (folder / "README.md").write_text(CARD.format("cc-by-4.0"))
    for name in (
        "optimizer.pt",
        "training_args.bin",
        "predictions.parquet",
        "trainer_state.json",
        "pytorch_model.bin",
    ):
        (folder / name).write_text("{}")  # stays at home
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "model.safetensors").write_text("stays at home")
    return folder


@pytest.fixture(scope="module")
def written(model_folder, tmp_path_factory):
    """A Space of that run, with an index of five records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "neighbour_table", few_neighbours)
        return space.write_space(str(model_folder), tmp_path_factory.mktemp("space") / "new")


def header_of(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_the_folder_holds_what_is_needed_and_nothing_else(written):
    expected = {"README.md", "app.py", "requirements.txt", "neighbours.parquet", "model", "ecg_transformers"}
    assert {path.name for path in written.iterdir()} == expected
    assert all(map(space.WRITTEN.fullmatch, expected))  # which --overwrite_output_dir removes
    compile((written / "app.py").read_text(), "app.py", "exec")
    files = {"config.json", "preprocessor_config.json", "model.safetensors", "README.md"}
    assert {path.name for path in (written / "model").iterdir()} == files
    config = json.loads((written / "model" / "config.json").read_text())
    assert config["calibration"]["temperature"] == 1.5
    assert EmbeddingTable.load(written / "neighbours.parquet").record_ids[0] == "00001"


def test_the_copied_package_is_the_installed_one_without_tests_and_caches(written):
    copied = written / "ecg_transformers"
    assert {path.name for path in copied.iterdir()} == {"__init__.py", "LICENSE", *space.PACKAGES}
    assert (copied / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()
    for package in space.PACKAGES:
        source = {path.relative_to(REPOSITORY) for path in (REPOSITORY / package).rglob("*.py")}
        assert source == {path.relative_to(copied) for path in (copied / package).rglob("*.py")}
    assert not list(copied.rglob("__pycache__")) and not list(copied.rglob("*.pyc"))
    for name in ("data/ptb_xl_sample/LICENSE.txt", "hub/space_app.py.j2", "train/report/page_template.html.j2"):
        assert (copied / name).read_bytes() == (REPOSITORY / name).read_bytes()


def test_the_header_of_the_space_states_what_is_known(written):
    header = header_of(written)
    assert (header["sdk"], header["app_file"], header["license"]) == ("gradio", "app.py", "cc-by-4.0")
    assert header["python_version"].startswith("3.") and "models" not in header
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert f"gradio=={header['sdk_version']}" in constraints
    assert "not a medical device" in (written / "README.md").read_text()


HOSTILE = ["<script>alert(1)</script>", "[x](javascript:alert(1))", "a\n# Heading\n", "<img src=x onerror=alert(1)>"]


@pytest.mark.parametrize("name", [*HOSTILE, "`x`", "**bold**", "a_b_c", "NORM"])
def test_a_name_in_markdown_is_shown_as_it_is(name):
    found = markdown_text(name)
    assert "\n" not in found and not set("<>[]()`*!#:_").intersection(re.sub(r"&#\d+;", "", found))
    assert html.unescape(found) == " ".join(name.split())
    assert len(html.unescape(markdown_text(name * 1000))) == 120


def test_names_of_classes_and_folders_are_no_code_in_the_readme(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "neighbour_table", few_neighbours)
    folder = save_model(tmp_path / "<img src=x onerror=alert(1)>", labels=[*HOSTILE, "NORM"])
    text = (space.write_space(str(folder), tmp_path / "new") / "README.md").read_text(encoding="utf-8")
    header, body = text.split("---\n")[1:]
    assert yaml.safe_load(header)["title"].startswith("ECG: <img")  # as a value
    assert not re.search(r"<script|<img|\]\(javascript|^# Heading", body, flags=re.MULTILINE)
    said = space_app._what_it_does(SpaceModel.load(str(tmp_path / "new" / "model")))
    assert not re.search(r"<script|<img|\]\(javascript|^# Heading", said, flags=re.MULTILINE)


def test_data_that_lie_beside_the_modules_stay_at_home(tmp_path, monkeypatch):
    package = tmp_path / "root" / "data"
    for name in ("cohort", "inner", "ptb_xl_sample", "configs"):
        (package / name).mkdir(parents=True)
    kept = ("__init__.py", "loading.py", "inner/__init__.py", "inner/deep.py", "ptb_xl_sample/ptb_xl_sample.parquet")
    names = ("patients.csv", "notes.md", "cohort/ecg.parquet", "cohort/script.py", "inner/x.json", "configs/my.yaml")
    for name in (*kept, *names, "ptb_xl_sample/mine.csv", "page.j2"):
        (package / name).write_text("")
    (package / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    for name in space.PACKAGES:
        (tmp_path / "root" / name).mkdir(exist_ok=True)
    found = space.package_files(tmp_path / "root")
    assert {str(path.relative_to(package)) for path in found} == set(kept)


def test_the_copied_data_files_are_those_of_the_wheel_without_what_type_checkers_read(written):
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    expected = set()
    for package, patterns in settings["options.package_data"].items():
        place = Path(*package.split(".")[1:])
        for pattern in patterns.split(","):
            paths = (REPOSITORY / place).glob(pattern.strip())
            left_out = (".py", ".pyi", ".typed")
            expected |= {path.relative_to(REPOSITORY) for path in paths if path.suffix not in left_out}
    copied = written / "ecg_transformers"
    found = {path.relative_to(copied) for path in copied.rglob("*") if path.is_file() and path.suffix != ".py"}
    assert found == expected | {Path("LICENSE")}


def test_weights_that_would_be_unpickled_are_one_sentence(tmp_path):
    model = save_model(tmp_path / "model")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read \\(safetensors only\\)") as caught:
        space.write_space(str(model), tmp_path / "space")
    assert "\n" not in str(caught.value) and not (tmp_path / "space").exists()


def link_elsewhere(name):
    def link(model):
        (model / name).rename(model.parent / "secret")
        (model / name).symlink_to(model.parent / "secret")

    return link


def name_a_home(model):
    (model / "README.md").write_text(CARD.format("mit") + "Trained in /home/someone/runs.\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (name_a_home, "README.md names a place of this machine, /home/someone"),
        *[
            (link_elsewhere(name), f"{name} is a link to a file outside")
            for name in ("README.md", "model.safetensors", "config.json")
        ],
    ],
)
def test_what_is_of_this_machine_does_not_go_out(model_folder, tmp_path, monkeypatch, spoil, says):
    monkeypatch.setattr(space, "neighbour_table", few_neighbours)
    model = shutil.copytree(model_folder, tmp_path / "model")
    spoil(model)
    with pytest.raises(ValueError, match=says):
        space.write_space(str(model), tmp_path / "space")
    assert not (tmp_path / "space").exists()


@pytest.mark.parametrize(
    "stated, licence",
    [("cc-by-4.0", {"license": "cc-by-4.0"}), ("other\nlicense_name: unknown", {}), (None, {})]
    + [("Creative Commons", {}), ("[mit, apache-2.0]", {})]
    + [("other\nlicense_name: ours", {"license": "other", "license_name": "ours"})],
)
def test_a_licence_is_that_of_the_card_and_never_invented(stated, licence):
    card = None if stated is None else ModelCard(CARD.format(stated))
    assert space.card_licence(card) == licence


def test_paths_of_this_machine_do_not_go_out(written):
    card = (written / "model" / "README.md").read_text()
    assert 'model_id = "tiny"' in card
    texts = [path.read_text() for path in written.glob("*.*") if path.suffix in (".py", ".md", ".txt")]
    assert len(texts) == 3 and not any("/tmp" in text or str(REPOSITORY) in text for text in texts)


def test_requirements_are_pinned_and_on_an_index(written):
    lines = [line for line in (written / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "--extra-index-url https://download.pytorch.org/whl/cpu"
    names = {re.split("[=>]", line)[0] for line in lines[1:]}
    assert {"fsspec", "tqdm"} <= names
    assert {"gradio", "torch", "transformers", "datasets", "wfdb", "matplotlib", "scikit-learn"} <= names
    assert all("+" not in line and "ecg-transformers" not in line for line in lines[1:])
    assert not names & {"pytest", "dask", "onnx", "playwright"}


@pytest.mark.slow
def test_the_index_holds_the_features_of_the_encoder_that_everybody_loads(model_folder, monkeypatch):
    few = load_ecg("ptb-xl-sample", split="train", decode=False).select(range(6))
    monkeypatch.setattr("ecg_transformers.hub.space_model.load_ecg", lambda *args, **kwargs: few)
    table = neighbour_table(SpaceModel.load(model_folder))
    encoder = AutoModel.from_pretrained(model_folder)
    expected = embed(encoder, AutoFeatureExtractor.from_pretrained(model_folder), few, progress=False)
    np.testing.assert_allclose(table.features, expected.features, atol=1e-6)
    np.testing.assert_allclose(
        SpaceModel.load(model_folder).features({"ecg": few[3]["ecg"]}), expected.features[3], atol=1e-5
    )


def test_a_folder_that_is_not_empty_is_left_as_it_is(model_folder, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["space", "--model", str(model_folder), "--output_dir", str(tmp_path)]) == 1
    assert "other files (mine.txt)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_is_no_model_is_refused_with_a_sentence_and_nothing_is_written(tmp_path):
    (tmp_path / "empty").mkdir()
    bare = save_model(tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    unsaid = save_model(tmp_path / "unsaid", problem_type=None)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (other / name).write_text("{}")
    for folder, words in (
        (tmp_path / "empty", "config.json, preprocessor_config.json are not there"),
        (bare, "preprocessor_config.json is not there"),
        (unsaid, "does not say what its labels are: set problem_type"),
        (other, "is no model of this library"),
        (tmp_path / "nowhere", "There is no folder"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            space.write_space(str(folder), tmp_path / "space")
        assert not (tmp_path / "space").exists()


@pytest.mark.slow
def test_an_encoder_gets_a_page_without_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "neighbour_table", few_neighbours)
    monkeypatch.setattr(space, "_copy_package", lambda target: None)
    folder = space.write_space(str(save_model(tmp_path / "encoder", EcgViTModel)), tmp_path / "space")
    assert "probabilities" not in (folder / "README.md").read_text()
    assert SpaceModel.load(folder / "model").classes == []


def test_a_regression_gets_a_page_of_values(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "neighbour_table", few_neighbours)
    monkeypatch.setattr(space, "_copy_package", lambda target: None)
    model = save_model(tmp_path / "age", problem_type="regression")
    folder = space.write_space(str(model), tmp_path / "space")
    read_me = (folder / "README.md").read_text()
    assert "the values of " in read_me and "probabilities" not in read_me
    assert "A model that predicts numbers" in space_app._what_it_does(SpaceModel.load(folder / "model"))


@pytest.mark.slow
def test_a_model_of_the_hub_is_named_with_its_commit_and_not_copied(hub, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "neighbour_table", few_neighbours)
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    push_model(model_folder, "owner/tiny")
    folder = space.write_space("owner/tiny", tmp_path / "space")
    commit = next(iter(reversed(hub.repos["models", "owner/tiny"].messages)))
    text = (folder / "app.py").read_text()
    assert f'revision="{commit}"' in text and 'model="owner/tiny"' in text
    assert header_of(folder)["models"] == ["owner/tiny"] and header_of(folder)["license"] == "cc-by-4.0"
    assert commit in (folder / "README.md").read_text() and not (folder / "model").exists()
    assert SpaceModel.load("owner/tiny", commit).classes == CLASSES
    with pytest.raises(ValueError, match="owner/nothing is no folder, and the Hub does not give it"):
        space.write_space("owner/nothing", tmp_path / "other")


def test_the_command_of_the_page_has_the_flags_that_there_are():
    (command,) = re.findall(r"^ecg-transformers (space .*)$", PAGE, flags=re.MULTILINE)
    args, rest = build_parser().parse_known_args(shlex.split(command.replace("DIR|ID", "DIR")))
    assert args.command == "space" and not rest


def test_the_page_states_the_limits_that_there_are():
    assert f"up to {space_uploads.MAX_MEGABYTES} MB and {space_uploads.MAX_SECONDS} s" in PAGE
    assert f"and {space_uploads.MAX_RATE} Hz" in PAGE and f"last {space_app.MAX_SESSIONS} visitors" in PAGE


@pytest.mark.slow
def test_the_snippet_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model("classifier")
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(snippet, "space.md", "exec"), names)
    assert len(names["scores"]) == 5 and len(names["nearest"]) == 4
    assert names["folder"].is_dir()
