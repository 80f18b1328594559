"""Every Python snippet of docs/extend.md runs, in order, and what the page says is so."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ..hub.conftest import hub as hub  # the fixture
from .snippets import page_text, snippets_of

PAGE = page_text("extend.md")
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
METHOD, TRAINING, EVALUATING, COMMANDS, TESTING, SHARING = snippets_of(PAGE)
TINY = {
    "max_steps=1000": "max_steps=2",
    "hidden_size=96, num_hidden_layers=4": "hidden_size=16, num_hidden_layers=1",
    "intermediate_size=384": "intermediate_size=32",
    'save_strategy="no"': 'save_strategy="no", use_cpu=True, disable_tqdm=True',
}
WITHOUT_PACKAGE = """
import sys
sys.modules["ecg_transformers"] = None
from transformers import AutoFeatureExtractor, AutoModel
model = AutoModel.from_pretrained("runs/patches", trust_remote_code=True)
AutoFeatureExtractor.from_pretrained("runs/patches", trust_remote_code=True)
print(type(model).__name__, model(__import__("torch").ones(1, 8, 500)).pooler_output.sum().item())
"""


def smaller(snippet, changes=TINY):
    for said, instead in changes.items():
        assert snippet.count(said) == 1, said
        snippet = snippet.replace(said, instead)
    return snippet


def run(folder, *command):
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules"), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the file of the page lies."""
    path = tmp_path_factory.mktemp("extend")
    (path / "patch_regression.py").write_text(METHOD, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(folder):
    """The names that the page has after two small steps of training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        names = {}
        exec(compile(smaller(TRAINING), "extend.md", "exec"), names)
    return names


def test_the_method_of_the_page_trains_and_passes_the_tests_of_the_page(folder, trained, monkeypatch):
    monkeypatch.chdir(folder)
    assert trained["trainer"].state.global_step == 2
    load = "\n".join(line for line in EVALUATING.splitlines() if line.startswith(("from transformers", "encoder =")))
    for snippet in (load, TESTING, SHARING):
        exec(compile(snippet, "extend.md", "exec"), trained)
    assert type(trained["encoder"]).__name__ == "PatchRegressionModel"
    assert "# patches" in (folder / "runs" / "patches" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_evaluates_the_encoder_and_the_commands_know_it(folder, trained, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(EVALUATING, "extend.md", "exec"), trained)
    assert 0 < trained["found"]["pretrained"]["linear"]["macro_auroc"] < 1
    (folder / "mine.py").write_text(COMMANDS, encoding="utf-8")
    named = re.findall(r"^python mine.py (.*)$", PAGE, flags=re.MULTILINE)
    assert [command.split()[0] for command in named] == ["pretrain", "evaluate", "finetune", "embed"]
    run(folder, "mine.py", *named[1].replace(" knn", "").replace("runs/records", "runs/patches").split())
    assert "difference" in json.loads((folder / "evaluation" / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_command_pretrains_a_method_of_a_file(folder):
    (folder / "mine.py").write_text(COMMANDS, encoding="utf-8")
    (folder / "patches.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)[1], encoding="utf-8")
    command = re.search(r"^python mine.py (pretrain .*)$", PAGE, flags=re.MULTILINE)[1]
    command = command.replace("--dataset wfdb --data_dir RECORDS ", "").replace("runs/records", "runs/command")
    small = "--max_steps 2 --hidden_size 16 --num_hidden_layers 1 --intermediate_size 32 --use_cpu true"
    run(folder, "mine.py", *command.split(), *small.split())
    output = folder / "runs" / "command"
    assert json.loads((output / "config.json").read_text(encoding="utf-8"))["model_type"] == "patch_regression"
    assert "Masked patch regression" in (output / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_encoder_loads_without_the_package_and_without_the_file(folder, trained):
    elsewhere = run(folder, "-c", WITHOUT_PACKAGE).split()
    assert elsewhere[0] == "EcgViTModel"
    with torch.inference_mode():
        here = trained["trainer"].model.ecg_vit.eval()(torch.ones(1, 8, 500)).pooler_output.sum().item()
    assert float(elsewhere[1]) == pytest.approx(here, abs=1e-4)


@pytest.mark.slow
def test_the_folder_can_be_pushed(hub, folder, trained, monkeypatch):
    from ecg_transformers.hub.push import push_model

    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    exec(compile(SHARING, "extend.md", "exec"), trained)
    push_model("runs/patches", "owner/patches")
    sent = hub.files("models", "owner/patches")
    assert {"model.safetensors", "preprocessor_config.json", "modeling_ecg_vit.py", "README.md"} <= set(sent)
    assert b"Masked patch regression" in sent["README.md"] and "patch_regression.py" not in sent


@pytest.mark.slow
def test_two_processes_train_the_method_as_one_does(folder):
    weights = {}
    for num_processes, batch in ((1, 32), (2, 16)):
        output = f"runs/{num_processes}"
        changes = TINY | {'"runs/patches"': f'"{output}"', "train_batch_size=32": f"train_batch_size={batch}"}
        changes |= {"use_cpu=True": "use_cpu=True, ddp_backend='gloo'"} if num_processes > 1 else {}
        (folder / "train_patches.py").write_text(smaller(TRAINING, changes), encoding="utf-8")
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
        run(folder, *(launcher if num_processes > 1 else []), "train_patches.py")
        weights[num_processes] = load_file(folder / output / "model.safetensors")
    for name, tensor in weights[1].items():
        torch.testing.assert_close(weights[2][name], tensor, atol=1e-5, rtol=0, msg=name)


def test_every_file_that_the_page_names_exists():
    root = Path(__file__).parents[2]
    named = re.findall(r"`((?:modeling|train|tests)/[\w/.]+)`", PAGE.replace("_NAME.py", ""))
    assert len(named) >= 6
    for path in named:
        assert (root / path).exists() or path in ("modeling/configuration", "modeling/modeling"), path


CONFIGURATION = """
from huggingface_hub.dataclasses import strict

from .configuration_ecg_vit import EcgViTConfig
from .method import Method


@strict
class ToyConfig(EcgViTConfig):
    model_type = "toy"
    method = Method("Toy method", "It predicts the mean of a recording.", use_when="Use it when trying this out.")
"""
MODELS = """
import torch
from torch import nn

from .configuration_toy import ToyConfig
from .modeling_ecg_vit import EcgViTForSequenceClassification, EcgViTModel, EcgViTPreTrainedModel
from .pretraining import PretrainingMixin, PretrainingOutput


class ToyPreTrainedModel(EcgViTPreTrainedModel):
    config_class = ToyConfig
    _keys_to_ignore_on_load_unexpected = ["^head."]


class ToyModel(ToyPreTrainedModel, EcgViTModel):
    pass


class ToyForSequenceClassification(ToyPreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = ToyModel


class ToyForPreTraining(PretrainingMixin, ToyPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.ecg_vit, self.head = ToyModel(config), nn.Linear(config.hidden_size, 1)
        self.post_init()

    def draw_inputs(self, input_values, keys):
        return {}

    def forward(self, input_values=None, lead_mask=None, **kwargs):
        pooled = self.ecg_vit(input_values, lead_mask=lead_mask).pooler_output
        loss = (self.head(pooled)[:, 0] - input_values.mean(dim=(1, 2))).square().mean()
        return PretrainingOutput(loss=loss, pooler_output=pooled)
"""
PRESET = """
model_type: toy
leads: [I, II]
sampling_rate: 100
num_samples: 500
hidden_size: 16
num_hidden_layers: 1
num_attention_heads: 2
intermediate_size: 32
max_steps: 1
per_device_train_batch_size: 8
use_cpu: true
"""
PRETRAIN = (
    "from ecg_transformers.train.cli import main; main(['pretrain', '--config', 'toy', '--output_dir', 'runs/toy'])"
)
LOAD = """
import sys
sys.modules["ecg_transformers"] = None
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification
for auto_class in (AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification):
    print(type(auto_class.from_pretrained("runs/toy", trust_remote_code=True)).__name__)
"""


@pytest.mark.slow
def test_in_the_package_a_method_is_two_files_a_preset_and_a_line(tmp_path, monkeypatch):
    repository, package = Path(__file__).parents[2], tmp_path / "site" / "ecg_transformers"
    for folder in (package, package / "train"):
        folder.mkdir(parents=True)
        for path in (repository / folder.relative_to(package)).iterdir():
            if path.name not in ("modeling", "train", "configs", "__pycache__") and not path.name.startswith("."):
                (folder / path.name).symlink_to(path)
    for name in ("modeling", "train/configs"):
        shutil.copytree(repository / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "modeling" / "configuration_toy.py").write_text(CONFIGURATION, encoding="utf-8")
    (package / "modeling" / "modeling_toy.py").write_text(MODELS, encoding="utf-8")
    (package / "train" / "configs" / "toy.yaml").write_text(PRESET, encoding="utf-8")
    table = package / "modeling" / "__init__.py"
    lines = table.read_text(encoding="utf-8").replace("FAMILIES = {\n", 'FAMILIES = {\n    "Toy": "toy",\n')
    table.write_text(lines, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    run(tmp_path, "-c", PRETRAIN)
    assert "It predicts the mean" in (tmp_path / "runs" / "toy" / "README.md").read_text(encoding="utf-8")
    loaded = run(tmp_path, "-c", LOAD).split()
    assert loaded == ["ToyModel", "ToyForPreTraining", "ToyForSequenceClassification"]
