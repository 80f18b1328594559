"""Plants known bugs, one at a time, and says which test sees each: a suite that lets a bug through is worth little.

    python tests/mutations/plant.py                       # checks that every bug of the table can still be planted
    python tests/mutations/plant.py --run                 # plants each and runs the default tests (half an hour)
    python tests/mutations/plant.py --run --only 3 17     # some of them, numbered from 1

The bugs are `mutations.toml`. `--run` copies the package into a temporary folder, runs the tests that the table names
there without any bug, then plants one bug at a time and runs first the tests of the table, then those of the same
package, then all others, until one fails; the working copy is never touched. It logs a row of the table in
`docs/reliability.md` for each bug and ends with status 1 if one survived.
"""

import argparse
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("mutations.toml")
PACKAGES = ("modeling", "data", "train", "hub")
COPIED = ("*.py", "*.pyi", "py.typed", "setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
LONGEST_SECONDS = 900
FAILED, PASSED = 1, 0  # exit statuses of pytest; every other one is a mistake of this script or of a name in the table

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


def run_tests(package: Path, tests: list[str]) -> tuple[int, str]:
    """The exit status of the default tests, and the name of the first that failed."""
    environment = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    for variable, folder in (("ECG_TRANSFORMERS_DATA", "data"), ("ECG_TRANSFORMERS_GOLDEN", "golden")):
        environment.setdefault(variable, str(REPOSITORY.parent / "shared" / folder))
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=package, env=environment, capture_output=True, text=True, timeout=LONGEST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return FAILED, f"no end after {LONGEST_SECONDS} s"
    named = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+?)(?:\[.*)?(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode not in (PASSED, FAILED) and named is None:
        raise RuntimeError(f"pytest ended with status {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return (PASSED if done.returncode == PASSED else FAILED), named[1] if named else ""


def stages(mutation: Mutation) -> Iterator[tuple[str, list[str]]]:
    """The tests of the table, those of the same package, and all others."""
    own = mutation.file.split("/")[0]
    others = [f"tests/{name}" for name in (*PACKAGES, "conformance", "packaging") if name != own]
    yield "named", mutation.tests
    yield "same package", [f"tests/{own}"]
    yield "elsewhere", others


def try_mutation(package: Path, mutation: Mutation) -> tuple[str, str] | None:
    """Where the bug was seen, and by which test; `None` if it survived."""
    path = package / mutation.file
    text = path.read_text(encoding="utf-8")
    path.write_text(mutation.planted(text), encoding="utf-8")
    try:
        for stage, tests in stages(mutation):
            status, test = run_tests(package, tests)
            if status == FAILED:
                return stage, test
    finally:
        path.write_text(text, encoding="utf-8")
    return None


def run(mutations: list[Mutation], numbers: list[int]) -> int:
    """Tries the bugs of these numbers; returns how many survived."""
    chosen = {number: mutations[number - 1] for number in numbers}
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        package = copy_package(Path(folder))
        named = sorted({test for mutation in chosen.values() for test in mutation.tests})
        status, test = run_tests(package, named)
        if status != PASSED:
            raise RuntimeError(f"{test} fails without any bug: mend it first, or nothing can be told.")
        for number, mutation in chosen.items():
            started = time.monotonic()
            seen = try_mutation(package, mutation)
            survivors += seen is None
            where = "**survived**" if seen is None else f"`{seen[1]}` ({seen[0]})"
            logger.info("| %d | %s | %s | %s |", number, mutation.group, mutation.name, where)
            logger.debug("%.0f s", time.monotonic() - started)
    logger.info("%d of %d bugs were seen by the default tests.", len(chosen) - survivors, len(chosen))
    return survivors


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--run", action="store_true", help="plant each bug and run the tests")
    parser.add_argument("--only", nargs="+", type=int, metavar="N", help="these, numbered from 1")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    mutations = read_table()
    check_table(mutations)
    numbers = args.only or list(range(1, len(mutations) + 1))
    return int(args.run and run(mutations, numbers) > 0)


if __name__ == "__main__":
    sys.exit(main())
