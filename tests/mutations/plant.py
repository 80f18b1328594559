"""Plants known bugs, one at a time, and says which test sees each: a suite that lets a bug through is worth little.

    python tests/mutations/plant.py                       # checks that every bug of the table can still be planted
    python tests/mutations/plant.py --run                 # plants each and runs the default tests (half an hour)
    python tests/mutations/plant.py --run --only 3 17     # some of them, numbered from 1

The bugs are `mutations.toml`. `--run` copies the package into a temporary folder, plants one bug at a time there and
runs first the tests of the table, then those of the same package, then all others, until one fails, and that one again
without the bug: it has to pass. The working copy is never touched. A row of the table in `docs/reliability.md` is
logged for each bug, and the status is 1 if one survived. `--named` runs the tests of the table only.
"""

import argparse
import importlib
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("mutations.toml")
PACKAGES = ("modeling", "data", "train", "hub")
COPIED = ("*.py", "*.pyi", "py.typed", "setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
LONGEST_SECONDS = 1800
IMPORTED_ONCE = ("torch", "transformers.trainer", "datasets", "sklearn.linear_model", "scipy.optimize", "hypothesis")
"""Libraries that this process imports, so that the one that it forks for each bug does not."""

logger = logging.getLogger("plant")


@dataclass(frozen=True)
class Mutation:
    """One bug: `old` of a file becomes `new`.

    Args:
        name (`str`): The bug in words.
        group (`str`): What it is about.
        file (`str`): Path in the repository.
        old (`str`): Text that stands exactly once in the file.
        new (`str`): Text that takes its place.
        tests (`list[str]`): Tests that should see it, as pytest takes them.
        added (`str`, *optional*): The test that was written because the first run let the bug through.
    """

    name: str
    group: str
    file: str
    old: str
    new: str
    tests: list[str]
    added: str | None = None

    def planted(self, text: str) -> str:
        """The text of the file with the bug.

        Raises:
            ValueError: unless `old` stands there exactly once.
        """
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.file}: expected {self.old!r} exactly once, found it {text.count(self.old)} times. Change the "
                f"mutation {self.name!r} of {TABLE.name} to what the file says now."
            )
        return text.replace(self.old, self.new)


def read_table() -> list[Mutation]:
    return [Mutation(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutation"]]


def check_table(mutations: list[Mutation]) -> None:
    """Raises `ValueError` or `SyntaxError` for a bug that cannot be planted any more, or tests that do not exist."""
    for mutation in mutations:
        compile(mutation.planted((REPOSITORY / mutation.file).read_text(encoding="utf-8")), mutation.file, "exec")
        for test in [*mutation.tests, *([mutation.added] if mutation.added else [])]:
            if not (REPOSITORY / test.split("::")[0]).exists():
                raise ValueError(f"The mutation {mutation.name!r} names {test}, which does not exist.")


def copy_package(root: Path) -> Path:
    """The package with its tests under the name by which it is imported, in `root`."""
    target = root / "ecg_transformers"
    target.mkdir()
    for pattern in COPIED:
        for path in REPOSITORY.glob(pattern):
            shutil.copy(path, target / path.name)
    for folder in (*PACKAGES, "tests", "docs"):
        shutil.copytree(REPOSITORY / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return target


class FirstFailure:
    """A plugin of pytest that remembers the first test, or file, that failed."""

    test: str | None = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.test is None:
            self.test = report.nodeid

    pytest_collectreport = pytest_runtest_logreport


def first_failure(package: Path, tests: list[str]) -> str | None:
    """The first of the default tests that fails, run in a process of its own; `None` if all pass.

    Raises:
        RuntimeError: where no test was run, or pytest did not come to its end.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_pytest, args=(package, tests, sender))
    process.start()
    sender.close()
    if not receiver.poll(LONGEST_SECONDS):
        process.kill()
        return f"no end after {LONGEST_SECONDS} s"
    try:
        status, test = receiver.recv()
    except EOFError:
        return "the process died"
    finally:
        process.join()
    if status != pytest.ExitCode.OK and test is None:
        raise RuntimeError(f"pytest ended with status {status} and no test failed: {tests}")
    return test


def _run_pytest(package: Path, tests: list[str], sender) -> None:
    os.chdir(package)
    sys.path.insert(0, str(package.parent))
    os.environ |= {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    for variable, folder in (("ECG_TRANSFORMERS_DATA", "data"), ("ECG_TRANSFORMERS_GOLDEN", "golden")):
        os.environ.setdefault(variable, str(REPOSITORY.parent / "shared" / folder))
    log = os.open(package.parent / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    failure = FirstFailure()
    options = ["-x", "-n", "0", "-q", "-p", "no:cacheprovider"]
    status = pytest.main([*options, *tests], plugins=[failure])
    sender.send((int(status), failure.test))
    sender.close()
    os._exit(0)


def stages(mutation: Mutation) -> Iterator[tuple[str, list[str]]]:
    """The test that was added, those of the table, those of the same package, and all others."""
    own = mutation.file.split("/")[0]
    others = [f"tests/{name}" for name in (*PACKAGES, "conformance", "packaging") if name != own]
    if mutation.added is not None:
        yield "added", [mutation.added]
    yield "named", mutation.tests
    yield "same package", [f"tests/{own}"]
    yield "elsewhere", others


def try_mutation(package: Path, mutation: Mutation, only_named: bool = False) -> tuple[str, str] | None:
    """Where the bug was seen, and by which test; `None` if it survived."""
    path = package / mutation.file
    text = path.read_text(encoding="utf-8")
    for stage, tests in stages(mutation):
        if only_named and stage not in ("added", "named"):
            break
        path.write_text(mutation.planted(text), encoding="utf-8")
        try:
            test = first_failure(package, tests)
        finally:
            path.write_text(text, encoding="utf-8")
        if test is not None:
            if "::" in test and first_failure(package, [test]) is not None:
                raise RuntimeError(f"{test} fails without any bug: mend it first, or nothing can be told.")
            return stage, test
    return None


def run(mutations: list[Mutation], numbers: list[int], only_named: bool) -> int:
    """Tries the bugs of these numbers; returns how many survived."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        package = copy_package(Path(folder))
        for number in numbers:
            mutation = mutations[number - 1]
            seen = try_mutation(package, mutation, only_named)
            survivors += seen is None
            where = "**survived**" if seen is None else f"`{seen[1].removeprefix('tests/')}` ({seen[0]})"
            logger.info("| %d | %s | %s | %s |", number, mutation.group, mutation.name, where)
    logger.info("%d of %d bugs were seen by the default tests.", len(numbers) - survivors, len(numbers))
    return survivors


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--run", action="store_true", help="plant each bug and run the tests")
    parser.add_argument("--only", nargs="+", type=int, metavar="N", help="these, numbered from 1")
    parser.add_argument("--named", action="store_true", help="run the tests of the table only")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    mutations = read_table()
    check_table(mutations)
    numbers = args.only or list(range(1, len(mutations) + 1))
    return int(args.run and run(mutations, numbers, args.named) > 0)


if __name__ == "__main__":
    sys.exit(main())
