"""What imports what: `modeling` ships as remote code, and help has to be quick."""

import ast
import functools
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("modeling", "data", "train", "hub")
# What the pipelines import when a path is given, and say in a sentence where it is not installed.
LAZY = {"pipeline_ecg.py": {"ecg_transformers.data"}}


def absolute(path, name):
    """The name of a module that the file at `path` imports, relative imports resolved."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parents = path.relative_to(REPOSITORY).parts[:-level]
    return ".".join(("ecg_transformers", *parents, name.lstrip(".")))


@functools.cache
def nodes(path):
    """All nodes of the syntax tree of a file that import or have a docstring."""
    kinds = (ast.Import, ast.ImportFrom, ast.Module, ast.ClassDef, ast.FunctionDef)
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]


def imports(path):
    """Names of what a file imports; relative imports as `.sibling` or `..package`."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def sources(package):
    return sorted((REPOSITORY / package).glob("**/*.py"))


@pytest.mark.parametrize("path", sources("modeling"), ids=lambda path: path.name)
def test_models_import_only_torch_numpy_transformers_and_siblings(path):
    assert path.parent.name == "modeling", "modeling/ is flat, so that remote code can ship it"
    allowed = set(sys.stdlib_module_names) | {"torch", "numpy", "transformers", "huggingface_hub"}
    for name in set(imports(path)) - LAZY.get(path.name, set()):
        is_sibling = name.startswith(".") and not name.startswith("..") and name.count(".") == 1 and name != "."
        assert is_sibling or name.split(".")[0] in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_dependencies_point_one_way(package):
    later = PACKAGES[PACKAGES.index(package) + 1 :]
    for path in sources(package):
        for name in set(imports(path)) - LAZY.get(path.name, set()):
            parts = absolute(path, name).split(".")
            if parts[0] == "ecg_transformers" and len(parts) > 1:
                assert parts[1] not in later, f"{path.relative_to(REPOSITORY)} imports {name}"


def test_formats_know_no_corpora():
    for path in sources("data/formats"):
        for name in imports(path):
            outside = absolute(path, name).removeprefix("ecg_transformers.data.")
            assert not outside.startswith(("corpora", "builder", "loading", "corpus")), f"{path.name} imports {name}"


def modules_of(package):
    """Every module of a package by its dotted name, with its path."""
    for path in sources(package):
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


MODULES = {name: path for package in PACKAGES for name, path in modules_of(package)}


@functools.cache
def imported_modules(name):
    """The modules of ours that a module imports anywhere, in functions too, and the packages that they lie in."""
    path, found = MODULES[name], set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = absolute(path, "." * node.level + (node.module or "")).rstrip(".")
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    found = {module.removeprefix("ecg_transformers.") for module in found}
    found |= {".".join(module.split(".")[:end]) for module in found for end in range(1, module.count(".") + 1)}
    return found & MODULES.keys()


def reached(name):
    """All modules that following every import from one reaches."""
    found, waiting = set(), [name]
    while waiting:
        if (module := waiting.pop()) not in found:
            found.add(module)
            waiting += imported_modules(module)
            waiting += [module.rpartition(".")[0]] if "." in module else []
    return found


def test_the_trainer_reaches_neither_pages_nor_explanations_nor_evaluation():
    modules = reached("train.trainer")
    folders = {name.split(".")[1] for name in modules if name.count(".") > 1 and name.startswith("train.")}
    assert folders == {"publishing"}
    assert len([name for name in modules if not name.startswith("modeling")]) <= 24


def test_publishing_runs_no_model_and_knows_no_evaluation():
    for name in (name for name in MODULES if name.startswith("train.publishing.")):
        folders = {module.split(".")[1] for module in reached(name) if module.startswith("train.")}
        assert not folders & {"report", "explain", "evaluation", "comparison", "inference", "features"}, name


def test_imports_run_one_way_between_modules_and_between_folders():
    def folder(name):
        return ".".join(name.split(".")[:2]) if name.startswith("train.") else name.split(".")[0]

    modules = {name: {module for module in imported_modules(name) if module != name} for name in MODULES}
    modules = {name: {m for m in found if not name.startswith(f"{m}.")} for name, found in modules.items()}
    folders = {}
    for name, found in modules.items():
        folders.setdefault(folder(name), set()).update(folder(module) for module in found)
    modules["modeling.pipeline_ecg"] -= {"data"}  # LAZY
    folders["modeling"] -= {"data"}
    for graph in (modules, {name: found - {name, "train"} for name, found in folders.items()}):
        assert list(TopologicalSorter(graph).static_order())  # CycleError names a circle


RECORD = str(REPOSITORY / "tests" / "fixtures" / "wfdb" / "ptb-xl" / "records100" / "00000" / "00001_lr.hea")
FEATURES = "datasets.Features.from_dict({'ecg': {'decode': True, '_type': 'Ecg'}})"
# What a new process, then one that has imported torch, then the models of transformers, then its Trainer, may run:
# each in a child of one process.
CHECKS = [
    {
        "the package": "import ecg_transformers; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)",
        "info": f"from ecg_transformers.train.cli import main; main(['info', {RECORD!r}]); assert slow() == []",
        "reading": "from ecg_transformers.data import read_recording\n"
        f"read_recording({RECORD!r}); assert slow() == []",
        "the data package": "import ecg_transformers.data; assert slow() == []",
        "a corpus": "from ecg_transformers.data import load_ecg; assert slow() == ['datasets', 'pandas']",
    },
    {
        "datasets, then ours": f"import datasets, ecg_transformers.data; assert 'Ecg(decode=True)' in str({FEATURES})",
        "ours, then datasets": f"import ecg_transformers.data, datasets; assert 'Ecg(decode=True)' in str({FEATURES})",
        "our models, then transformers": "import importlib.util, ecg_transformers.modeling\n"
        "importlib.util.find_spec('transformers')\n"
        "from transformers import AutoConfig; AutoConfig.for_model('st_mem')",
    },
    {"the models": "before = slow(); import ecg_transformers.modeling; assert slow() == before"},
    {
        "the Trainer": """
before = set(sys.modules)
import ecg_transformers.train.trainer
assert not (set(sys.modules) - before) & {"sklearn", "matplotlib"}
""",
        "the carried recordings": """
import socket, time
from ecg_transformers.data import load_ecg
socket.socket.connect = None
start = time.process_time()
assert len(load_ecg("ptb-xl-sample", split="all")) == 495
assert time.process_time() - start < 3
assert "wfdb" not in sys.modules
""",
    }
    | {
        name: f"import ecg_transformers; ecg_transformers.{name}; AutoConfig.for_model('st_mem')"
        for name in ("register()", "EcgViTModel", "EcgDataCollator", "EcgSslTrainer")
    },
]
PROCESS = """
import json, os, sys

def slow():
    names = ("torch", "transformers", "datasets", "scipy", "pandas", "sklearn", "matplotlib", "h5py", "wfdb")
    return [name for name in names if name in sys.modules]

imports = ("pass", "import torch", "from transformers import AutoConfig, AutoModel, PreTrainedModel",
           "import transformers.trainer")
for line, checks in zip(imports, json.loads(sys.argv[1]), strict=True):
    exec(line)
    for name, code in checks.items():
        if not (child := os.fork()):
            exec(code)
            sys.stdout.flush()
            os._exit(0)
        print(name, os.waitpid(child, 0)[1], sep=": ", flush=True)
"""


@pytest.fixture(scope="module")
def new_process():
    """A line for each check, which ends with 0 where nothing was raised."""
    return subprocess.run([sys.executable, "-c", PROCESS, json.dumps(CHECKS)], capture_output=True, text=True)


@pytest.mark.parametrize("name", [name for checks in CHECKS for name in checks])
def test_imports_load_no_library_before_its_use_and_register_the_models_in_any_order(new_process, name):
    assert f"{name}: 0" in new_process.stdout.splitlines(), new_process.stderr


def test_no_file_is_longer_than_one_can_read():
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines())
        for package in PACKAGES
        for path in sources(package)
    }
    assert not {name: length for name, length in lengths.items() if length > 700}


def docstrings():
    """Every docstring of the packages with its place."""
    for path in (path for package in PACKAGES for path in sources(package)):
        for node in nodes(path):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield path.relative_to(REPOSITORY), text


def test_docstrings_and_arguments_begin_with_a_noun_or_a_verb():
    first_word = re.compile(r"(What|How|Where|Whose|Of|By|Whether|That|As)\b")
    of_argument = re.compile(r"^    \w[^\n:]*:\s+(Of|By|As|Whose|Which|What)\b", flags=re.MULTILINE | re.IGNORECASE)
    found = list(docstrings())
    begun = [(path.as_posix(), text.split("\n")[0]) for path, text in found if first_word.match(text)]
    begun += [
        (path.as_posix(), line)
        for path, text in found
        for line in of_argument.findall(text.partition("Args:\n")[2].partition("\n\n")[0])
    ]
    assert not begun
