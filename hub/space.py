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

import yaml
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from packaging.requirements import Requirement
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME, SAFE_WEIGHTS_INDEX_NAME

from ecg_transformers.train.publishing.licences import CODE_LICENCE, hub_licence, is_settled, stated_licence
from ecg_transformers.train.publishing.shared_folder import own_file, read_weights, refuse_places
from ecg_transformers.train.publishing.templates import template_environment
from ecg_transformers.train.run_folder import claim_output_dir

from .space_model import SpaceModel, check_files, neighbour_table
from .space_page import LONGEST_NAME, markdown_text

logger = logging.getLogger("ecg_transformers")

DISTRIBUTION = "ecg-transformers"
PACKAGES = ("modeling", "data", "train", "hub")
DATA_FILES = """data/corpora/cinc2021_labels.* data/ptb_xl_sample/ptb_xl_sample.parquet
data/ptb_xl_sample/scp_statements.csv data/ptb_xl_sample/README.md data/ptb_xl_sample/LICENSE.txt
train/carried_models/[!_]*/* train/configs/*.yaml train/evaluate_metrics/cinc2021_weights.* train/evaluation/*.yaml
train/finetune_configs/*.yaml train/publishing/*.j2 train/report/*.j2 hub/*.j2""".split()
"""Files of the package that are copied beside modules: those that its wheel holds too, and no data beside them."""
GRADIO_VERSION = "6.31.0"  # the one that the page was tried with
ALSO_IMPORTED = ("fsspec", "tqdm")  # which others of the requirements bring
READING_EXTRAS = ("dicom", "hdf5")
MODEL_FOLDER, NEIGHBOURS_NAME = "model", "neighbours.parquet"
WRITTEN = re.compile(
    rf"app\.py|README\.md|requirements\.txt|ecg_transformers|{MODEL_FOLDER}|{re.escape(NEIGHBOURS_NAME)}"
)


def run(args: argparse.Namespace):
    """The command."""
    folder = write_space(args.model, args.output_dir, args.overwrite_output_dir)
    logger.info(
        "Wrote the Space to %s. Try it:\n  pip install -r %s/requirements.txt\n  python %s/app.py\nPublish it:\n"
        "  hf upload OWNER/NAME %s --repo-type space",
        *(folder,) * 4,
    )


def write_space(checkpoint: str, output_dir: str | Path, overwrite: bool = False) -> Path:
    """Writes a Space for a model: `app.py`, `README.md`, `requirements.txt`, this package, the model, the index.

    A local model is copied into `model/`: weights as safetensors, configuration (with the calibration), feature
    extractor and card, nothing else. One of the Hub is named with its commit.

    Args:
        checkpoint (`str`): Folder or id of a classifier, or of an encoder: then the page has no probabilities.
        output_dir (`str`): New or empty folder.
        overwrite (`bool`, *optional*): First remove an earlier Space from there; every other file stays.

    Raises:
        ValueError: for a folder that is not empty, what is no model, or a model that cannot read the carried
            recordings.
    """
    folder = Path(output_dir).expanduser()
    claim_output_dir(str(folder), overwrite, written=WRITTEN, reads=Path(checkpoint).expanduser())
    local = Path(checkpoint).expanduser()
    local = local.resolve() if local.is_dir() else None
    check_files(checkpoint)
    revision = None if local else _last_commit(checkpoint)
    model = SpaceModel.load(checkpoint, revision)
    table = neighbour_table(model)
    card = _read_card(checkpoint, local, revision)
    files = _model_files(local) if local else []
    title, licence = f"ECG: {(local.name if local else checkpoint.split('/')[-1])}"[:LONGEST_NAME], card_licence(card)
    header = {
        "title": title,
        "sdk": "gradio",
        "sdk_version": GRADIO_VERSION,
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
        "pinned": False,
        "tags": ["ecg", "electrocardiogram"],
        **({} if local else {"models": [checkpoint]}),
        **licence,
    }

    folder.mkdir(parents=True, exist_ok=True)
    if local:
        (folder / MODEL_FOLDER).mkdir()
        for path in files:
            shutil.copyfile(path, folder / MODEL_FOLDER / path.name)
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
        "licence": licence.get("license_name", licence.get("license", "unknown: ask whoever trained it")),
        "header": yaml.safe_dump(header, sort_keys=False).strip(),
        "python_version": header["python_version"],
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
    """Requirements of the page, pinned to the installed versions; libraries of file formats that are not stay open."""
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


def card_licence(card: ModelCard | None) -> dict[str, str]:
    """Fields of the header for the licence that the card of the model states as the Hub writes it; else none."""
    stated = None if card is None else stated_licence(card.data.to_dict())
    return hub_licence(stated) if isinstance(stated, str) and is_settled(stated) else {}


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
    names = [CONFIG_NAME, FEATURE_EXTRACTOR_NAME, *read_weights(source)]
    names += [name for name in (SAFE_WEIGHTS_INDEX_NAME, REPOCARD_NAME) if (source / name).is_file()]
    files = [own_file(source / name) for name in names]
    if REPOCARD_NAME in names:
        refuse_places((source / REPOCARD_NAME).read_bytes(), source / REPOCARD_NAME)
    return files


def _copy_package(target: Path):
    """Copies this package as it is installed, without tests and caches: its modules and `DATA_FILES`."""
    names = Path(importlib.import_module("ecg_transformers").__file__)
    for path in package_files(names.parent):
        place = target / path.relative_to(names.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    version = importlib.metadata.version(DISTRIBUTION)
    note = f"# A copy of {DISTRIBUTION} {version} ({CODE_LICENCE}), without its tests.\n"
    (target / "__init__.py").write_text(note + names.read_text(encoding="utf-8"), encoding="utf-8")
    for file in importlib.metadata.files(DISTRIBUTION) or ():
        if file.name == "LICENSE" and file.locate().is_file():
            shutil.copyfile(file.locate(), target / "LICENSE")


def package_files(root: Path) -> list[Path]:
    """The Python files of `PACKAGES` and of the packages in them, and `DATA_FILES`; no links."""
    found = [path for pattern in DATA_FILES for path in root.glob(pattern)]
    folders = [folder for name in PACKAGES for folder in (root / name, *(root / name).rglob("*/"))]
    for folder in folders:
        between = [folder, *folder.parents][: len(folder.relative_to(root).parts)]
        if all((place / "__init__.py").is_file() and not place.is_symlink() for place in between):
            found += folder.glob("*.py")
    return sorted(path for path in found if path.is_file() and not path.is_symlink())
