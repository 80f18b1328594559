"""Fetches the tests of the installed `transformers`, which its wheel lacks and its source distribution has.

pip fetches it once and compares its SHA-256 with the index's; it lies in the cache of `huggingface_hub`, never in this
repository. Its folder `tests` is unpacked for the length of a session under another name, since ours is `tests` too.
Where there is no network, no pip, or no such version, the modules that import this one are skipped.
"""

import atexit
import importlib
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import pytest
import transformers
from huggingface_hub import cached_assets_path

PACKAGE = "transformers_test_suite"

# What the modules that we need import of folders that the source distribution leaves out. Export and generation are
# not what these models offer through `transformers`; common keyword arguments are those of text models.
LEFT_OUT = {
    "__init__.py": "",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}


def source_distribution(version: str) -> Path:
    folder = cached_assets_path("ecg_transformers", "transformers_sdist", version)
    name = f"transformers-{version}.tar.gz"
    if not (folder / name).is_file():
        with tempfile.TemporaryDirectory(dir=folder) as incoming:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", incoming]
            command += ["--no-binary", "transformers", f"transformers=={version}"]
            finished = subprocess.run(command, capture_output=True, text=True)
            if finished.returncode or not (Path(incoming) / name).is_file():
                reason = (finished.stderr.strip() or "no message").splitlines()[-1]
                pytest.skip(f"pip could not fetch {name}, whose tests these are: {reason}", allow_module_level=True)
            (Path(incoming) / name).replace(folder / name)
    return folder / name


def unpack_tests(archive: Path, target: Path):
    with tarfile.open(archive) as files:
        prefix = f"{archive.name.removesuffix('.tar.gz')}/tests/"
        members = [member for member in files.getmembers() if member.name.startswith(prefix)]
        for member in members:
            member.name = member.name.removeprefix(prefix)
        files.extractall(target, members, filter="data")
    for name, source in LEFT_OUT.items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(source)


def _import(module: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)  # theirs are not in our setup.cfg
        return importlib.import_module(f"{PACKAGE}.{module}")


_folder = tempfile.TemporaryDirectory(prefix=PACKAGE)
atexit.register(_folder.cleanup)
unpack_tests(source_distribution(transformers.__version__), Path(_folder.name, PACKAGE))
sys.path.append(_folder.name)

ModelTesterMixin = _import("test_modeling_common").ModelTesterMixin
ConfigTester = _import("test_configuration_common").ConfigTester
FeatureExtractorTests = _import("test_feature_extraction_common").FeatureExtractionSavingTestMixin
