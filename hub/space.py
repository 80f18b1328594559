"""`ecg-transformers space`: a folder that is a Gradio Space for a model, and runs by `python app.py` too."""

import argparse
import importlib
import importlib.metadata
import json
import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from packaging.requirements import Requirement
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ecg_transformers.train.publishing.licences import CODE_LICENCE
from ecg_transformers.train.publishing.shared_folder import own_file, read_weights, refuse_places
from ecg_transformers.train.publishing.templates import template_environment

from .space_html import LONGEST_NAME, markdown_text
from .space_model import SpaceModel, check_files, neighbour_table

logger = logging.getLogger("ecg_transformers")

DISTRIBUTION = "ecg-transformers"
PACKAGES = ("modeling", "data", "train", "hub")
DATA_FILES = {
    "data/corpora": ("cinc2021_labels.csv", "cinc2021_labels.LICENSE"),
    "data/ptb_xl_sample": ("ptb_xl_sample.parquet", "scp_statements.csv", "README.md", "LICENSE.txt"),
    "train/carried_models": ("*/*",),
    "train/configs": ("*.yaml",),
    "train/evaluate_metrics": ("cinc2021_weights.csv", "cinc2021_weights.LICENSE"),
    "train/evaluation": ("*.yaml",),
    "train/finetune_configs": ("*.yaml",),
    "train/publishing": ("*.j2",),
    "train/report": ("*.j2",),
    "hub": ("*.j2",),
}
"""What is copied of the package beside modules: what its wheel holds too, and no data that lies beside them."""
LICENCE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")  # as the Hub writes them
GRADIO_VERSION = "6.31.0"  # the one that the page was tried with
ALSO_IMPORTED = ("fsspec", "tqdm")  # which others of the requirements bring
READING_EXTRAS = ("edf", "dicom", "hdf5")
MODEL_FOLDER, NEIGHBOURS_NAME = "model", "neighbours.parquet"


def run(args: argparse.Namespace):
    """The command."""
    folder = write_space(args.model, args.output_dir)
    logger.info(
        "Wrote the Space to %s. Try it:\n  pip install -r %s/requirements.txt\n  python %s/app.py\nPublish it:\n"
        "  hf upload OWNER/NAME %s --repo-type space",
        *(folder,) * 4,
    )


def write_space(checkpoint: str, output_dir: str | Path) -> Path:
    """Writes a Space for a model: `app.py`, `README.md`, `requirements.txt`, this package, the model, the index.

    A local model is copied into `model/`: weights as safetensors, configuration (with the calibration), feature
    extractor and card, nothing else. One of the Hub is named with its commit.

    Args:
        checkpoint (`str`): Folder or id of a classifier, or of an encoder: then the page has no probabilities.
        output_dir (`str`): New or empty folder.

    Raises:
        ValueError: for a folder that is not empty, what is no model, or a model that cannot read the carried
            recordings.
    """
    folder = Path(output_dir).expanduser()
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty, and nothing in it is written over. Give a new --output_dir.")
    local = Path(checkpoint).expanduser()
    local = local.resolve() if local.is_dir() else None
    check_files(checkpoint)
    revision = None if local else _last_commit(checkpoint)
    model = SpaceModel.load(checkpoint, revision)
    table = neighbour_table(model)
    card = _read_card(checkpoint, local, revision)
    files = _model_files(local) if local else []
    title = f"ECG: {(local.name if local else checkpoint.split('/')[-1])}"[:LONGEST_NAME]

    folder.mkdir(parents=True, exist_ok=True)
    if local:
        _copy_files(files, folder / MODEL_FOLDER)
    _copy_package(folder / "ecg_transformers")
    table.save(folder / NEIGHBOURS_NAME)
    facts = {
        "title": title,
        "model": f"HERE / {_literal(MODEL_FOLDER)}" if local else _literal(checkpoint),
        "model_id": None if local else checkpoint,
        "revision": revision,
        "neighbours": NEIGHBOURS_NAME,
        "num_neighbours": len(table),
        "classes": model.classes,
        "is_regression": model.is_regression,
        "has_card": card is not None,
        "licence": _licence_in_words(card),
        "header": yaml.safe_dump(_header(title, None if local else checkpoint, card), sort_keys=False).strip(),
        "python_version": _python_version(),
        "requirements": requirements(),
        "version": importlib.metadata.version(DISTRIBUTION),
    }
    environment = template_environment("ecg_transformers.hub", autoescape=False)
    environment.filters |= {"python": _literal, "md": markdown_text}
    for name in ("app.py", "readme.md", "requirements.txt"):
        text = environment.get_template(f"space_{name}.j2").render(facts)
        (folder / (REPOCARD_NAME if name == "readme.md" else name)).write_text(text.rstrip() + "\n", encoding="utf-8")
    return folder


def requirements() -> list[str]:
    """What the page needs, pinned to what is installed here; libraries of file formats that are not stay open."""
    lines = [f"gradio=={GRADIO_VERSION}"]
    for text in [*(importlib.metadata.requires(DISTRIBUTION) or ()), *ALSO_IMPORTED]:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": name}) for name in ("", *READING_EXTRAS)):
            continue
        try:
            version = importlib.metadata.version(requirement.name).split("+")[0]  # "2.13.0+cpu" is on no index by name
            lines.append(f"{requirement.name}=={version}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{requirement.name}{requirement.specifier}")
    return list(dict.fromkeys(lines))


def _header(title: str, model_id: str | None, card: ModelCard | None) -> dict[str, Any]:
    """The YAML header of a Space; a licence only where the card of the model states one."""
    header = {
        "title": title,
        "sdk": "gradio",
        "sdk_version": GRADIO_VERSION,
        "python_version": _python_version(),
        "app_file": "app.py",
        "pinned": False,
        "tags": ["ecg", "electrocardiogram"],
    }
    if model_id is not None:
        header["models"] = [model_id]
    licence = _stated_licence(card)
    if licence is not None:
        is_other = card.data.get("license") == "other"
        header |= {"license": "other", "license_name": licence} if is_other else {"license": licence}
    return header


def _stated_licence(card: ModelCard | None) -> str | None:
    if card is None:
        return None
    licence = card.data.get("license_name") if card.data.get("license") == "other" else card.data.get("license")
    is_name = isinstance(licence, str) and LICENCE_NAME.fullmatch(licence) is not None
    return licence if is_name and licence != "unknown" else None


def _licence_in_words(card: ModelCard | None) -> str:
    return _stated_licence(card) or "unknown: ask whoever trained it"


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _literal(text: str) -> str:
    """A string as Python writes it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _last_commit(model_id: str) -> str:
    try:
        return HfApi().model_info(model_id).sha
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{model_id} is no folder, and the Hub does not give it to this token: {reason}") from error


def _read_card(checkpoint: str, local: Path | None, revision: str | None) -> ModelCard | None:
    if local is not None and not (local / REPOCARD_NAME).is_file():
        return None
    try:
        path = (
            own_file(local / REPOCARD_NAME) if local else hf_hub_download(checkpoint, REPOCARD_NAME, revision=revision)
        )
    except EntryNotFoundError:
        return None
    try:
        return ModelCard.load(path)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"The header of {REPOCARD_NAME} of {checkpoint} cannot be read. Correct it by hand."
        ) from error


def _model_files(source: Path) -> list[Path]:
    """The files that are needed, each in the folder itself."""
    weights = read_weights(source)
    index = [] if SAFE_WEIGHTS_NAME in weights else [SAFE_WEIGHTS_INDEX_NAME]
    names = [
        CONFIG_NAME,
        FEATURE_EXTRACTOR_NAME,
        *index,
        *weights,
        *[REPOCARD_NAME] * (source / REPOCARD_NAME).is_file(),
    ]
    files = [own_file(source / name) for name in names]
    for path in (path for path in files if path.name == REPOCARD_NAME):
        refuse_places(path.read_bytes(), path)
    return files


def _copy_files(files: list[Path], target: Path):
    target.mkdir()
    for path in files:
        shutil.copyfile(path, target / path.name)


def _copy_package(target: Path):
    """This package as it is installed, without tests and caches: its modules and `DATA_FILES`."""
    for name in PACKAGES:
        source = Path(importlib.import_module(f"ecg_transformers.{name}").__file__).parent
        for path in [*_modules(source), *_data_files(source, name)]:
            place = target / name / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    version = importlib.metadata.version(DISTRIBUTION)
    note = f"# A copy of {DISTRIBUTION} {version} ({CODE_LICENCE}), without its tests.\n"
    names = Path(importlib.import_module("ecg_transformers").__file__).read_text(encoding="utf-8")
    (target / "__init__.py").write_text(note + names, encoding="utf-8")
    for file in importlib.metadata.files(DISTRIBUTION) or ():
        if file.name == "LICENSE" and file.locate().is_file():
            shutil.copyfile(file.locate(), target / "LICENSE")


def _modules(folder: Path) -> list[Path]:
    """The Python files of a package and of the packages in it."""
    found = [path for path in sorted(folder.glob("*.py")) if path.is_file() and not path.is_symlink()]
    for inner in sorted(folder.iterdir()):
        if not inner.is_symlink() and (inner / "__init__.py").is_file():
            found += _modules(inner)
    return found


def _data_files(source: Path, package: str) -> list[Path]:
    found = []
    for place, patterns in DATA_FILES.items():
        if place.split("/")[0] == package:
            folder = source.joinpath(*place.split("/")[1:])
            found += [path for pattern in patterns for path in sorted(folder.glob(pattern)) if not path.is_symlink()]
    return found
