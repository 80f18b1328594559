"""`ecg-transformers space`: a folder that is a Gradio Space for a model, and runs by `python app.py` too."""

import argparse
import importlib
import importlib.metadata
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from packaging.requirements import Requirement
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ecg_transformers.data.dataset_card import CARD_NAME
from ecg_transformers.train.licences import CODE_LICENCE
from ecg_transformers.train.shared_folder import without_private
from ecg_transformers.train.templates import template_environment

from .space_model import SpaceModel, check_place, neighbour_table

logger = logging.getLogger("ecg_transformers")

DISTRIBUTION = "ecg-transformers"
PACKAGES = ("modeling", "data", "train", "hub")
COPIED = (".py", ".j2", ".yaml", ".csv", ".json", ".parquet", ".txt", ".md", ".LICENSE")
GRADIO_VERSION = "6.31.0"  # the one that the page was tried with
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
    check_place(checkpoint)
    revision = None if local else _last_commit(checkpoint)
    model = SpaceModel.load(checkpoint, revision)
    table = neighbour_table(model)
    card = _read_card(checkpoint, local, revision)
    title = f"ECG: {(local.name if local else checkpoint.split('/')[-1])}"

    folder.mkdir(parents=True, exist_ok=True)
    if local:
        _copy_model(local, folder / MODEL_FOLDER)
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
        "has_card": card is not None,
        "licence": _licence_in_words(card),
        "header": yaml.safe_dump(_header(title, None if local else checkpoint, card), sort_keys=False).strip(),
        "python_version": _python_version(),
        "requirements": requirements(),
        "version": importlib.metadata.version(DISTRIBUTION),
    }
    environment = template_environment("ecg_transformers.hub", autoescape=False)
    environment.filters["python"] = _literal
    for name in ("app.py", "readme.md", "requirements.txt"):
        text = environment.get_template(f"space_{name}.j2").render(facts)
        (folder / (CARD_NAME if name == "readme.md" else name)).write_text(text.rstrip() + "\n", encoding="utf-8")
    return folder


def requirements() -> list[str]:
    """What the page needs, pinned to what is installed here; libraries of file formats that are not stay open."""
    lines = [f"gradio=={GRADIO_VERSION}"]
    for text in importlib.metadata.requires(DISTRIBUTION) or ():
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
    if _stated_licence(card) is not None:
        header |= {key: value for key in ("license", "license_name") if (value := card.data.get(key)) is not None}
    return header


def _stated_licence(card: ModelCard | None) -> str | None:
    if card is None:
        return None
    licence = card.data.get("license_name") if card.data.get("license") == "other" else card.data.get("license")
    return None if licence in (None, "unknown") else licence


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
    try:
        if local is None:
            path = hf_hub_download(checkpoint, CARD_NAME, revision=revision)
        else:
            path = local / CARD_NAME
            if not path.is_file():
                return None
        return ModelCard.load(path)
    except EntryNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"The header of {CARD_NAME} of {checkpoint} cannot be read. Correct it by hand.") from error


def _copy_model(source: Path, target: Path):
    """The files that are needed, by their names."""
    if (source / SAFE_WEIGHTS_NAME).is_file():
        names = [SAFE_WEIGHTS_NAME]
    else:
        index = json.loads((source / SAFE_WEIGHTS_INDEX_NAME).read_text(encoding="utf-8"))
        names = [SAFE_WEIGHTS_INDEX_NAME, *sorted(set(index["weight_map"].values()))]
        if outside := [name for name in names if Path(name).name != name]:
            raise ValueError(
                f"{SAFE_WEIGHTS_INDEX_NAME} of {source} names {outside[0]!r}, which is no file beside it."
            )
    target.mkdir()
    for name in (CONFIG_NAME, FEATURE_EXTRACTOR_NAME, *names):
        shutil.copyfile(source / name, target / name)
    if (source / CARD_NAME).is_file():
        text = (source / CARD_NAME).read_text(encoding="utf-8")
        (target / CARD_NAME).write_text(without_private(text), encoding="utf-8")


def _copy_package(target: Path):
    """This package as it is installed, without tests and caches."""
    for name in PACKAGES:
        source = Path(importlib.import_module(f"ecg_transformers.{name}").__file__).parent
        for path in sorted(source.rglob("*")):
            place = target / name / path.relative_to(source)
            if path.is_file() and path.suffix in COPIED and "__pycache__" not in path.parts:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
    version = importlib.metadata.version(DISTRIBUTION)
    note = f'"""A copy of {DISTRIBUTION} {version} ({CODE_LICENCE}), without its tests."""\n'
    (target / "__init__.py").write_text(note, encoding="utf-8")
    for file in importlib.metadata.files(DISTRIBUTION) or ():
        if file.name == "LICENSE" and file.locate().is_file():
            shutil.copyfile(file.locate(), target / "LICENSE")
