"""Examples in docstrings run, and every class for pretraining says when to use it."""

import ast
import doctest
import re
from pathlib import Path

import pytest

from ecg_transformers import modeling
from ecg_transformers.modeling import EcgJepaConfig
from ecg_transformers.modeling.method import method_of

FOLDER = Path(modeling.__file__).parent


def examples():
    for path in sorted(FOLDER.glob("*.py")):
        if path.stem == "pipeline_ecg":  # takes a classifier of the reader
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                for snippet in re.findall(r"```python\n(.*?)```", ast.get_docstring(node) or "", flags=re.DOTALL):
                    yield pytest.param(snippet, id=f"{path.stem}.{node.name}")


@pytest.mark.parametrize("snippet", examples())
def test_the_example_of_a_docstring_runs(snippet):
    if ">>>" not in snippet:
        exec(compile(snippet, "docstring", "exec"), {})
        return
    test = doctest.DocTestParser().get_doctest(snippet, {}, "docstring", None, 0)
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


def test_the_words_of_a_method_are_not_saved_with_a_configuration():
    assert "method" not in EcgJepaConfig().to_dict() and "method" not in EcgJepaConfig(mask_type="segments").to_dict()


def test_a_configuration_from_outside_has_the_words_of_no_other_method():
    class MyConfig(EcgJepaConfig):
        model_type = "mine"

    assert method_of(MyConfig()).name == "mine" and method_of(EcgJepaConfig()).name == "ECG-JEPA"
