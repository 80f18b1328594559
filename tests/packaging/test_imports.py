"""What imports what: `modeling` ships as remote code, and help has to be quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("modeling", "data", "train", "hub")
# What the pipelines import when a path is given, and say in a sentence where it is not installed.
LAZY = {"pipeline_ecg.py": {"ecg_transformers.data"}}
HEAVY = ("datasets", "wfdb", "scipy", "pandas", "sklearn", "h5py")


def absolute(path, name):
    """The name of a module that the file at `path` imports, relative imports resolved."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parents = path.relative_to(REPOSITORY).parts[:-level]
    return ".".join(("ecg_transformers", *parents, name.lstrip(".")))


def imports(path):
    """Names of what a file imports; relative imports as `.sibling` or `..package`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def test_importing_the_models_loads_nothing_heavy_beyond_transformers():
    list_heavy = f"print([m for m in {HEAVY!r} if m in sys.modules]); "
    code = "import sys; from transformers import PreTrainedModel, AutoModel, AutoFeatureExtractor; "
    code += list_heavy + "import ecg_transformers.modeling; " + list_heavy
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = ran.stdout.splitlines()
    assert before == after


def test_no_file_is_longer_than_one_can_read():
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines())
        for package in PACKAGES
        for path in sources(package)
    }
    assert not {name: length for name, length in lengths.items() if length > 700}
