"""The wheel holds exactly the package files that are tracked; the sdist adds tests and metadata."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("modeling", "data", "train", "hub")
ROOT_FILES = ("__init__.py", "__init__.pyi", "py.typed")


@pytest.fixture(scope="module")
def tracked():
    """Files that git tracks or would track; the list of files where the tests run outside a checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return sorted(name for name in listed.stdout.splitlines() if (REPOSITORY / name).is_file())


@pytest.fixture(scope="module")
def distributions(tracked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for git in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "all"]):  # the sdist takes what git holds
        subprocess.run(["git", *git], cwd=folder, check=True)
    command = [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return folder / "dist"


@pytest.mark.slow
def test_the_wheel_holds_exactly_the_tracked_package_files(distributions, tracked):
    expected = {f"ecg_transformers/{name}" for name in tracked if name.split("/")[0] in (*PACKAGES, *ROOT_FILES)}
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected


@pytest.mark.slow
def test_the_source_distribution_adds_tests_and_metadata(distributions, tracked):
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = {name for name in tracked if name.split("/")[0] in (*PACKAGES, "tests", "docs")}
    wanted |= {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"}
    assert wanted <= held


@pytest.mark.slow
def test_the_index_would_take_both(distributions):
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions.iterdir())]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
