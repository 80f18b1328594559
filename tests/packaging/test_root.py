"""What the package offers at its top level."""

import ast
import importlib.metadata
from pathlib import Path

import pytest

import ecg_transformers
import ecg_transformers.data
import ecg_transformers.modeling

REPOSITORY = Path(__file__).parents[2]
NAMES = [name for name in ecg_transformers.__all__ if not name.startswith("__")]


def names_of_stub(path):
    """What a stub says that a module has."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname for alias in node.names}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(name):
    assert getattr(ecg_transformers, name).__name__ == name


def test_every_model_is_at_the_top_level():
    classes = {name for name in ecg_transformers.modeling.__all__ if name[0].isupper()}
    assert classes <= set(NAMES)


def test_stubs_name_what_the_modules_have():
    assert names_of_stub(REPOSITORY / "__init__.pyi") == set(NAMES)
    assert names_of_stub(REPOSITORY / "data" / "__init__.pyi") == set(ecg_transformers.data.__all__)
    assert all(getattr(ecg_transformers.data, name) is not None for name in ecg_transformers.data.__all__)


def test_the_version_is_that_of_the_distribution():
    assert ecg_transformers.__version__ == importlib.metadata.version("ecg-transformers")


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'EcgNothing'"):
        ecg_transformers.EcgNothing  # noqa: B018
