"""Examples in docstrings run, and every class for pretraining says when to use it."""

import ast
import doctest
import re
from pathlib import Path

import pytest

import ecg_transformers.modeling

FOLDER = Path(ecg_transformers.modeling.__file__).parent


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
