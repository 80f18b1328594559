"""What imports what: `modeling` ships as remote code, and help has to be quick."""

import ast
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


def modules_of(package):
    """Every module of a package by its dotted name, with its path."""
    for path in sources(package):
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


MODULES = {name: path for package in PACKAGES for name, path in modules_of(package)}


def imported_modules(name):
    """The modules of ours that a module imports anywhere, in functions too, and the packages that they lie in."""
    path, found = MODULES[name], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


@pytest.mark.parametrize(
    "imported, absent",
    [
        ("ecg_transformers", ["torch", "transformers", "numpy"]),
        ("ecg_transformers.train.trainer", ["sklearn", "matplotlib"]),
    ],
)
def test_importing_loads_nothing_that_it_can_do_without(imported, absent):
    # transformers itself loads sklearn where it is installed: its own modules do not count.
    code = f"import sys; import transformers.trainer; before = set(sys.modules); import {imported}; "
    if imported == "ecg_transformers":
        code = f"import sys; before = set(); import {imported}; "
    code += f"print([name for name in {absent!r} if name in set(sys.modules) - before])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def loaded_by(code, *words):
    """The libraries that take long, of those that a program has imported when it ends."""
    code += f"\nimport sys; print([m for m in {SLOW!r} if m in sys.modules], file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return ast.literal_eval(ran.stderr.splitlines()[-1])


SLOW = ("torch", "transformers", "datasets", "scipy", "pandas", "sklearn", "matplotlib", "h5py", "wfdb")
RECORD = REPOSITORY / "tests" / "fixtures" / "wfdb" / "ptb-xl" / "records100" / "00000" / "00001_lr.hea"


def test_looking_at_a_recording_imports_no_library_that_takes_long():
    assert loaded_by("from ecg_transformers.train.cli import main; main()", "info", str(RECORD)) == []
    assert loaded_by(f"from ecg_transformers.data import read_recording; read_recording({str(RECORD)!r})") == []


def test_importing_the_data_package_imports_datasets_when_it_is_used():
    assert loaded_by("import ecg_transformers.data") == []
    assert loaded_by("from ecg_transformers.data import load_ecg") == ["datasets", "pandas"]


@pytest.mark.parametrize(
    "first",
    [
        "import importlib.util, ecg_transformers.modeling; importlib.util.find_spec('transformers')",
        "from ecg_transformers.modeling.modeling_ecg_vit import EcgViTModel",
    ],
)
def test_models_are_known_to_the_auto_classes_whatever_is_imported_first(first):
    code = f"{first}; from transformers import AutoConfig; print(AutoConfig.for_model('st_mem').model_type)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "st_mem\n"


@pytest.mark.parametrize("first", ["ecg_transformers.data, datasets", "datasets, ecg_transformers.data"])
def test_datasets_knows_the_stored_recordings_whatever_is_imported_first(first):
    code = f"import {first}; f = datasets.Features.from_dict({{'ecg': {{'decode': True, '_type': 'Ecg'}}}}); print(f)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "{'ecg': Ecg(decode=True)}\n"


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


def docstrings():
    """Every docstring of the packages with its place."""
    for path in (path for package in PACKAGES for path in sources(package)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield path.relative_to(REPOSITORY), text


def test_docstrings_and_arguments_begin_with_a_noun_or_a_verb():
    first_word = re.compile(r"(What|How|Where|Whose|Of|By|Whether|That|As)\b")
    of_argument = re.compile(r"^    \w[^\n:]*:\s+(Of|By|As|Whose|Which|What)\b", flags=re.MULTILINE | re.IGNORECASE)
    begun = [(path.as_posix(), text.split("\n")[0]) for path, text in docstrings() if first_word.match(text)]
    begun += [
        (path.as_posix(), line)
        for path, text in docstrings()
        for line in of_argument.findall(text.partition("Args:\n")[2].partition("\n\n")[0])
    ]
    assert not begun
