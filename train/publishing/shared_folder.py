"""What of a checkpoint's folder goes to the Hub: nothing that is unpickled, nothing of this machine, no patients.

A list of what is allowed, not of what is forbidden: weights (safetensors), configuration, feature extractor, the code
that both name, card, scores, training arguments and pictures. Optimiser states, pickles, pages of the run and
`predictions.parquet`, which names records and patients, stay at home.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, try_to_load_from_cache
from huggingface_hub.constants import REPOCARD_NAME
from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..results import check_evaluation, is_evaluation
from .folder_files import own_file, read_json, read_text
from .pictures import PREVIEW_NAME, RUN_PICTURE_NAME, Picture, stored_picture
from .private_text import is_local, without_places, without_private

DIGEST_KEY = "weights_sha256"
"""In `metrics.json` of `evaluate`."""

ARGUMENTS_NAME = "training_args.json"
RESULTS_NAMES = ("metrics.json", "report.json")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class ShownEvaluation:
    """An evaluation as a card shows it.

    Args:
        section (`str`): Markdown.
        results (`list[EvalResult]`): For the model-index.
    """

    section: str
    results: list[EvalResult]


@dataclass(frozen=True)
class SharedFolder:
    """A checkpoint that can be published.

    Args:
        config (`dict`): Its configuration.
        weights (`dict[str, Path]`): Its weights, by name.
        texts (`dict[str, bytes]`): Everything else but the card, by name.
        card (`str`): The card as it lies there.
        pictures (`dict[str, Picture]`): For the card, by name.
        results (`dict`, *optional*): Scores that lie beside the weights.
        left_out (`list[str]`): Names of the files that stay at home.
        evaluation ([`ShownEvaluation`], *optional*): `results` as the card shows them, where `evaluate` wrote them.
    """

    config: dict[str, Any]
    weights: dict[str, Path]
    texts: dict[str, bytes]
    card: str
    pictures: dict[str, Picture]
    results: dict[str, Any] | None
    left_out: list[str]
    evaluation: ShownEvaluation | None = None


def is_model_folder(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a configuration and weights, in whatever form."""
    names = set(os.listdir(folder))
    weights = {SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, "pytorch_model.bin"}
    return CONFIG_NAME in names and bool(names & weights)


def read_shared_folder(
    folder: str | os.PathLike, results: Mapping[str, Any] | None = None, card: str | None = None
) -> SharedFolder:
    """Collects what goes out.

    Args:
        folder (`str`): What `pretrain`, `finetune`, `quickstart`, `convert` or `Trainer.save_model` wrote.
        results (`Mapping`, *optional*): Scores to use instead of those in the folder.
        card (`str`, *optional*): Card to use instead of the one in the folder.

    Raises:
        ValueError: for a folder that lacks something, or whose weights are damaged or pickled.
    """
    folder = Path(folder)
    config = _configuration(folder)
    weights = _weights(folder)
    if not (folder / FEATURE_EXTRACTOR_NAME).is_file():
        raise ValueError(
            f"{folder} has no {FEATURE_EXTRACTOR_NAME}, without which nobody knows what to feed the model. Save the "
            f"feature extractor of the training beside it: feature_extractor.save_pretrained({str(folder)!r})."
        )
    if card is None and not (folder / REPOCARD_NAME).is_file():
        raise ValueError(
            f"{folder} has no {REPOCARD_NAME}, the card. `pretrain`, `finetune`, `quickstart` and `convert` write it "
            "into their --output_dir when they end (push that, not a checkpoint in it); for other weights, "
            "ecg_transformers.train.publishing.model_card.render_model_card does."
        )
    names = [CONFIG_NAME, FEATURE_EXTRACTOR_NAME, *(n for n in (SAFE_WEIGHTS_INDEX_NAME,) if len(weights) > 1)]
    texts = {name: own_file(folder / name).read_bytes() for name in names}
    for name in (CONFIG_NAME, FEATURE_EXTRACTOR_NAME):
        stated = read_json(folder / name)
        if (public := _public_configuration(stated)) != stated:
            texts[name] = _to_json(public)
    texts |= _source_files(folder, config, read_json(folder / FEATURE_EXTRACTOR_NAME))
    stored = {name: read_json(folder / name) for name in RESULTS_NAMES if (folder / name).is_file()}
    texts |= {name: _to_json(without_private(scores)) for name, scores in stored.items()}
    for name, scores in stored.items():
        check_evaluation(scores, folder / name)
    evaluations = [scores for scores in stored.values() if is_evaluation(scores)]
    found = next(iter([*evaluations, *stored.values()]), None)
    for name, scores in stored.items():
        if is_evaluation(scores) and (results is None or name != RESULTS_NAMES[0]):  # which `results` replaces
            _check_scores(scores, weights, "the folder", needed=False)
    if results is not None:
        found = dict(results)
        check_evaluation(found, "--results")
        _check_scores(found, weights, "--results", needed=True)
        texts[RESULTS_NAMES[0]] = _to_json(without_private(found))
    if (folder / ARGUMENTS_NAME).is_file():
        texts[ARGUMENTS_NAME] = _to_json(without_private(read_json(folder / ARGUMENTS_NAME)))
    stored_preview = stored_picture(folder)
    pictures = {} if stored_preview is None else {PREVIEW_NAME: stored_preview}
    sent = {*weights, *texts, *pictures, RUN_PICTURE_NAME, REPOCARD_NAME}
    left_out = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in sent)
    card = read_text(folder / REPOCARD_NAME) if card is None else card
    return SharedFolder(config, weights, texts, card, pictures, found, left_out)


def _check_scores(scores: Mapping[str, Any], weights: Mapping[str, Path], where: str, needed: bool):
    """Raises `ValueError` for an evaluation of other weights; where it is `needed`, also if it does not say of which.

    In the folder of the weights an evaluation of before this was noted is taken as theirs.
    """
    cure = "Run `ecg-transformers evaluate --model` on the folder that is pushed, and give its metrics.json."
    stated = scores.get(DIGEST_KEY)
    if stated is None and needed:
        raise ValueError(
            f"The scores of {where} do not say by {DIGEST_KEY} which weights they are of (their model was "
            f"{scores.get('model')!r}). {cure}"
        )
    if stated is not None and stated != weights_digest(weights.values()):
        raise ValueError(
            f"The scores of {where} are of another model, {scores.get('model')!r}, or of earlier weights: the SHA-256 "
            f"of the weights differs. {cure}"
        )


def _configuration(folder: Path) -> dict[str, Any]:
    config = _public_configuration(read_json(folder / CONFIG_NAME))
    classes = config.get("architectures") or []
    if not isinstance(config.get("model_type"), str) or not (
        isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    ):
        raise ValueError(
            f"{folder / CONFIG_NAME} names no model: expected a text as model_type and a list of texts as "
            f"architectures, got {config.get('model_type')!r} and {classes!r}. Save the model again."
        )
    return config


def _public_configuration(config: dict[str, Any]) -> dict[str, Any]:
    """Without the folder that a model was loaded from, and without other places of this machine."""
    origin = config.get("_name_or_path")
    left_out = {"_name_or_path"} if isinstance(origin, str) and is_local(origin) else set()
    return {name: without_places(value) for name, value in config.items() if name not in left_out}


def weight_names(folder: Path) -> list[str]:
    """The files of safetensors in which a folder has its weights, without the index of several.

    Raises:
        ValueError: if there are none, or the index names what does not lie beside it.
    """
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        names = [SAFE_WEIGHTS_NAME]
    elif (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        index = read_json(folder / SAFE_WEIGHTS_INDEX_NAME)
        try:
            names = sorted(set(index["weight_map"].values()))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{folder / SAFE_WEIGHTS_INDEX_NAME} does not name the files of the weights. Save the model again."
            ) from error
        if outside := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
            raise ValueError(
                f"{SAFE_WEIGHTS_INDEX_NAME} of {folder} names {outside[0]!r}, which is no file beside it."
            )
    else:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        why = f"only {', '.join(pickled)}, which could run code when it is read" if pickled else "none"
        raise ValueError(
            f"Expected weights as {SAFE_WEIGHTS_NAME} in {folder}, found {why}. Load the model and save it again with "
            "save_pretrained."
        )
    return names


def _weights(folder: Path) -> dict[str, Path]:
    names = weight_names(folder)
    for name in names:
        try:
            with safe_open(own_file(folder / name), framework="pt") as file:
                file.keys()
                notes = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{folder / name} is damaged or was not written to its end ({error}). Save the model again."
            ) from error
        if private := [f"{key}: {note}" for key, note in notes.items() if without_private({key: note}) != {key: note}]:
            raise ValueError(
                f"The header of {folder / name} names a place of this machine, which would be published: "
                f"{private[0]!r}. Load the model and save it again with save_pretrained."
            )
    return {name: folder / name for name in names}


def _source_files(folder: Path, *configurations: Mapping[str, Any]) -> dict[str, bytes]:
    """The modules that Auto classes and pipelines need, and what these import: all in the folder itself."""
    cure = "Load the model and the feature extractor with this package and save them again with save_pretrained."
    references = []
    for configuration in configurations:
        auto_map, pipelines = (configuration.get(name) or {} for name in ("auto_map", "custom_pipelines"))
        if not auto_map:
            raise ValueError(f"{CONFIG_NAME} or {FEATURE_EXTRACTOR_NAME} of {folder} names no code (auto_map). {cure}")
        try:
            references += [*auto_map.values(), *(pipeline["impl"] for pipeline in pipelines.values())]
        except (AttributeError, TypeError, KeyError) as error:
            raise ValueError(
                f"auto_map or custom_pipelines of {folder} (in {CONFIG_NAME} or {FEATURE_EXTRACTOR_NAME}) is no "
                f"mapping to code: {auto_map!r}, {pipelines!r}. {cure}"
            ) from error
    if texts := [reference for reference in references if not isinstance(reference, str)]:
        raise ValueError(f"Expected 'MODULE.CLASS' in auto_map of {folder}, got {texts[0]!r}. {cure}")
    if elsewhere := sorted(reference for reference in references if "--" in reference):
        raise ValueError(f"The code of {folder} lies in another repository ({elsewhere[0]}). {cure}")
    names = {reference.split(".")[0] for reference in references}
    if outside := sorted(name for name in names if not name.isidentifier()):
        raise ValueError(f"{CONFIG_NAME} of {folder} names the code {outside[0]!r}, no module beside it. {cure}")
    modules = {folder / f"{name}.py" for name in names}
    try:
        files = modules | {Path(file) for module in modules for file in get_relative_import_files(module)}
        if outside := [file.name for file in files if file.parent.resolve() != folder.resolve()]:
            raise ValueError(f"The code of {folder} imports {outside[0]}, which lies elsewhere. {cure}")
        return {file.name: own_file(folder / file.name).read_bytes() for file in sorted(files)}
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise ValueError(f"{folder} lacks {name}, which the model needs to load elsewhere. {cure}") from error


def shared_arguments(args: TrainingArguments) -> bytes:
    """Training arguments as JSON, without paths, tokens and names of this machine."""
    return _to_json(without_private(json.loads(args.to_json_string())))


def public_evaluation(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """`metrics.json` of `evaluate` without paths of this machine; the command stays, with the names of its files."""
    words = ["=".join(without_private(word.split("="))) for word in shlex.split(metrics["command"])]
    return without_private(metrics) | {"command": shlex.join(words)}


def _to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def weights_digest(files: Iterable[Path]) -> str:
    """SHA-256 of the only file of weights; of several, that of their digests in the order of their names."""
    digests = []
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def model_digest(model: str | os.PathLike) -> str | None:
    """The digest of the weights that `from_pretrained` reads; `None` where they are no safetensors.

    Args:
        model (`str`): A folder, or the id of a model that was loaded already.
    """
    whole = _find(model, SAFE_WEIGHTS_NAME)
    if whole is not None:
        return weights_digest([whole])
    index = _find(model, SAFE_WEIGHTS_INDEX_NAME)
    if index is None:
        return None
    files = [_find(model, name) for name in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())]
    return None if None in files else weights_digest(files)


def _find(model: str | os.PathLike, name: str) -> Path | None:
    """A file of a folder, or of the Hub as the cache has it."""
    if os.path.isdir(model):
        path = Path(model, name)
        return path if path.is_file() else None
    found = try_to_load_from_cache(os.fspath(model), name)
    return Path(found) if isinstance(found, str) else None
