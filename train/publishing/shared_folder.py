"""What of a checkpoint's folder goes to the Hub: nothing that is unpickled, nothing of this machine, no patients.

A list of what is allowed, of files and of the fields of their JSON, not of what is forbidden: weights (safetensors),
configuration, feature extractor, the code that both name, card, scores, training arguments and pictures. Optimiser
states, pickles, pages of the run and `predictions.parquet`, which names records and patients, stay at home.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import ModelCard, try_to_load_from_cache
from huggingface_hub.constants import REPOCARD_NAME
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, TrainingArguments
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ecg_transformers.modeling import EcgFeatureExtractor

from ..results import BASELINES, PRETRAINED, Result
from .folder_files import own_file, read_json, read_text
from .licences import EXPECTED_LICENCE, is_settled, licence_name, stated_licence
from .model_card import (
    CARD_FACTS_NAME,
    DATA_LICENCE_KEY,
    CardFacts,
    Picture,
    ShownResult,
    card_header,
    licence_header,
    licence_section,
    render_card,
)

DIGEST_KEY = "weights_sha256"
"""In `metrics.json` of `evaluate`."""
PREVIEW_NAME, RUN_PICTURE_NAME = "preview.png", "results.png"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ARGUMENTS_NAME = "training_args.json"
RESULTS_NAMES = ("metrics.json", "report.json")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
WEIGHT_NOTES = {"format", "total_size", "total_parameters"}

PUBLIC_ARGUMENTS = """per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps
num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs
warmup_steps optim optim_args weight_decay adam_beta1
adam_beta2 adam_epsilon max_grad_norm label_smoothing_factor bf16 fp16 tf32 gradient_checkpointing torch_compile
dataloader_drop_last full_determinism seed data_seed eval_strategy eval_steps save_strategy save_steps
load_best_model_at_end metric_for_best_model greater_is_better data_licence weights_licence ema_start ema_end
weight_decay_end published_schedule random_windows collapse_patience layer_decay class_weights early_stopping_patience
freeze_encoder""".split()
"""Training arguments that go out: those that shape the weights."""
PUBLIC_RESULTS = {
    "task",
    "problem_type",
    "protocol",
    "model",
    "config",
    "label_names",
    "splits",
    "settings",
    DIGEST_KEY,
}
PUBLIC_RESULTS |= {"validation", "test", "subgroups", "training", "date", "seconds", "seed", "max_steps", "versions"}
PUBLIC_RESULTS |= {
    "num_pretraining_records",
    PRETRAINED,
    *(b.key for b in BASELINES),
    *(b.difference for b in BASELINES),
}
"""Fields of scores that go out. Command lines and names of records are not among them."""
RECORD_FIELDS = {"not_judged_records", "copies_left_out"}


@dataclass(frozen=True)
class SharedFolder:
    """A checkpoint that can be published.

    Args:
        folder (`Path`): Folder of the checkpoint.
        config (`dict`): Its configuration.
        weights (`dict[str, Path]`): Its weights, by name.
        texts (`dict[str, bytes]`): Everything else but card and pictures, by name.
        card (`str`): Text of README.md; empty where only facts are there.
        facts ([`CardFacts`], *optional*): From which the card is rendered; `None` where its text is a person's.
        results (`dict[str, Result]`): Scores, by file name.
        pictures (`dict[str, Picture]`): Pictures for the card, by name.
        shown (`tuple[ShownResult]`): Scores with their Markdown, once a command has added it.
        left_out (`list[str]`): Names of the files that stay at home.
    """

    folder: Path
    config: dict[str, Any]
    weights: dict[str, Path]
    texts: dict[str, bytes]
    card: str
    facts: CardFacts | None
    results: dict[str, Result]
    pictures: dict[str, Picture]
    left_out: list[str]
    shown: tuple[ShownResult, ...] = field(default=())


def is_model_folder(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a configuration and weights, in whatever form."""
    names = set(os.listdir(folder))
    weights = {SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, "pytorch_model.bin"}
    return CONFIG_NAME in names and bool(names & weights)


def read_shared_folder(
    folder: str | os.PathLike, results: Mapping[str, Any] | None = None, facts: CardFacts | None = None
) -> SharedFolder:
    """Collects what goes out.

    Args:
        folder (`str`): Folder that `pretrain`, `finetune`, `quickstart`, `convert` or `Trainer.save_model` wrote.
        results (`Mapping`, *optional*): Scores to use instead of `metrics.json` of the folder.
        facts ([`CardFacts`], *optional*): For the card, instead of what lies in the folder.

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
    card = ""
    if facts is None:
        card, facts = _card_in(folder)
        facts = facts if config["model_type"] in CONFIG_MAPPING else None  # code of the folder is not run
    extractor = without_places(read_json(folder / FEATURE_EXTRACTOR_NAME))
    texts = {CONFIG_NAME: _to_json(config), FEATURE_EXTRACTOR_NAME: _to_json(extractor)}
    for name, stated in ((CONFIG_NAME, config), (FEATURE_EXTRACTOR_NAME, extractor)):
        if read_json(folder / name) == stated:
            texts[name] = own_file(folder / name).read_bytes()
    if len(weights) > 1:
        texts[SAFE_WEIGHTS_INDEX_NAME] = own_file(folder / SAFE_WEIGHTS_INDEX_NAME).read_bytes()
    texts |= _source_files(folder, *(read_json(folder / name) for name in (CONFIG_NAME, FEATURE_EXTRACTOR_NAME)))
    stored = {name: read_json(folder / name) for name in RESULTS_NAMES if (folder / name).is_file()}
    places = dict.fromkeys(stored, "the folder")
    if results is not None:
        stored[RESULTS_NAMES[0]], places[RESULTS_NAMES[0]] = dict(results), "--results"
    found = {}
    for name, scores in stored.items():
        found[name] = Result.from_json(scores, folder / name if places[name] == "the folder" else "--results")
        _check_scores(scores, weights, places[name], needed=places[name] == "--results")
        texts[name] = _to_json(public_results(scores))
    if (folder / ARGUMENTS_NAME).is_file():
        texts[ARGUMENTS_NAME] = _to_json(public_arguments(read_json(folder / ARGUMENTS_NAME)))
    stored_preview = _stored_picture(folder)
    pictures = {} if stored_preview is None else {PREVIEW_NAME: stored_preview}
    sent = {*weights, *texts, *pictures, RUN_PICTURE_NAME, REPOCARD_NAME, CARD_FACTS_NAME}
    left_out = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in sent)
    return SharedFolder(folder, config, weights, texts, card, facts, found, pictures, left_out)


def _card_in(folder: Path) -> tuple[str, CardFacts | None]:
    """The text of a card and its facts; without facts where a person has written or changed the text."""
    if not (folder / REPOCARD_NAME).is_file():
        raise ValueError(
            f"{folder} has no {REPOCARD_NAME}, the card. `pretrain`, `finetune`, `quickstart` and `convert` write it "
            "into their --output_dir when they end (push that, not a checkpoint in it); for other weights, "
            "ecg_transformers.train.publishing.model_card.write_card does."
        )
    text = read_text(folder / REPOCARD_NAME)
    if not (folder / CARD_FACTS_NAME).is_file():
        return text, None
    content = read_json(folder / CARD_FACTS_NAME)
    is_ours = content.get("readme_sha256") == hashlib.sha256(text.encode()).hexdigest()
    return text, CardFacts.from_json(content, folder / CARD_FACTS_NAME) if is_ours else None


def published_card(
    shared: SharedFolder,
    repo_id: str,
    data_licence: str | None = None,
    weights_licence: str | None = None,
    config: PreTrainedConfig | None = None,
) -> ModelCard:
    """The card as it goes out: rendered anew from its facts, or the text of a person with its header set.

    Args:
        shared ([`SharedFolder`]): Files of a checkpoint.
        repo_id (`str`): Repository; loading snippet, title and model-index get this name.
        data_licence, weights_licence (`str`, *optional*): Licences; by default those that are stated.
        config ([`PreTrainedConfig`], *optional*): Configuration in memory; by default that of the folder.

    Raises:
        ValueError: for a header that cannot be read, and while the licence of the training data is not settled.
    """
    header = {} if shared.facts is not None else _header_of(shared.card)
    stated = _one_text(header, DATA_LICENCE_KEY, "--licence") if shared.facts is None else shared.facts.data.licence
    stated = stated if data_licence is None else licence_name(data_licence)
    if not is_settled(stated):
        says = f"states {stated!r}" if data_licence is None else f"was given as {data_licence!r}, which is none"
        raise ValueError(
            f"The licence of the training data is not settled: {'the card' if data_licence is None else 'it'} {says}. "
            "Look it up where the recordings come from, and if it allows you to publish weights that were trained on "
            f'them, state it: --licence "CC BY 4.0". {EXPECTED_LICENCE}.'
        )
    if weights_licence is not None and not is_settled(weights_licence):
        raise ValueError(
            f"{weights_licence!r} is no licence of weights. Name one, such as cc-by-4.0 or apache-2.0, or "
            "'other: NAME'."
        )
    if shared.facts is not None:
        facts = shared.facts.with_licences(stated, weights_licence)
        config = AutoConfig.from_pretrained(shared.folder) if config is None else config
        extractor = EcgFeatureExtractor.from_pretrained(shared.folder)
        return render_card(facts, config, extractor, repo_id, shared.shown, shared.pictures)
    if weights_licence is None:
        given = {name: _one_text(header, name, "--weights_licence") for name in ("license", "license_name")}
        weights_licence = stated_licence(given)
    kept = {name: value for name, value in header.items() if name not in ("license", "license_name")}
    kept = {"library_name": "transformers"} | kept | licence_header(stated, weights_licence)
    if shared.shown:
        kept.pop("model-index", None)
    data = card_header(kept, shared.shown, repo_id)
    body = ModelCard(shared.card).text.strip("\n")
    if "\n## Licences\n" not in f"\n{body}\n":
        body = f"{body}\n\n{licence_section(stated, weights_licence)}"
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body.rstrip()}\n")


def _header_of(text: str) -> dict[str, Any]:
    try:
        return ModelCard(text).data.to_dict()
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The header of README.md cannot be read: {reason}. Correct it by hand.") from error


def _one_text(header: Mapping[str, Any], name: str, flag: str) -> str | None:
    """A field that states one licence; a list of one is the same.

    Raises:
        ValueError: for anything else.
    """
    stated = header.get(name)
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    if stated is not None and not isinstance(stated, str):
        raise ValueError(
            f"Expected one licence as {name} in the header of README.md, got {stated!r}. State the one that holds by "
            f"{flag} NAME, or correct the header by hand."
        )
    return stated


def public_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Training arguments that shape the weights, by `PUBLIC_ARGUMENTS`."""
    return {name: without_places(arguments[name]) for name in PUBLIC_ARGUMENTS if name in arguments}


def shared_arguments(args: TrainingArguments) -> bytes:
    """Training arguments as JSON for the folder of a run."""
    return _to_json(public_arguments(json.loads(args.to_json_string())))


def public_results(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Scores without command line, folders and names of records."""
    public = {name: without_places(value) for name, value in scores.items() if name in PUBLIC_RESULTS}
    for name in ("model", "config"):
        if isinstance(public.get(name), str):
            public[name] = _last_part(public[name])
    if isinstance(public.get("training"), Mapping):
        public["training"] = {name: value for name, value in public["training"].items() if name not in RECORD_FIELDS}
    return public


def without_places(content: Any) -> Any:
    """JSON in which texts that as a whole are paths of a machine have become their last part; all others stay."""
    if isinstance(content, Mapping):
        return {key: without_places(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_places(value) for value in content]
    return _last_part(content) if isinstance(content, str) and is_place(content) else content


def is_place(text: str) -> bool:
    """Whether a text as a whole is a path of a machine: absolute, of a home, or relative with dots."""
    is_absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return is_absolute or text.startswith(("~/", "./", "../", "file:", "\\\\"))


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name


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
    """The configuration without the folder that a model was loaded from."""
    config = without_places(read_json(folder / CONFIG_NAME))
    config.pop("_name_or_path", None)
    classes = config.get("architectures") or []
    if not isinstance(config.get("model_type"), str) or not (
        isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    ):
        raise ValueError(
            f"{folder / CONFIG_NAME} names no model: expected a text as model_type and a list of texts as "
            f"architectures, got {config.get('model_type')!r} and {classes!r}. Save the model again."
        )
    return config


def _stored_picture(folder: Path) -> Picture | None:
    """The picture that somebody put beside the weights."""
    path = folder / PREVIEW_NAME
    if not path.is_file():
        return None
    content = own_file(path).read_bytes()
    if not content.startswith(PNG_SIGNATURE):
        raise ValueError(f"{path} is no PNG. Save the picture as one, or remove it: then `push` draws one.")
    return Picture(content, "A picture of this model", "")


def weight_names(folder: Path) -> list[str]:
    """The files of safetensors in which a folder has its weights, without the index of several.

    Raises:
        ValueError: if there are none, or the index names what does not lie beside it.
    """
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return [SAFE_WEIGHTS_NAME]
    if not (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        why = f"only {', '.join(pickled)}, which could run code when it is read" if pickled else "none"
        raise ValueError(
            f"Expected weights as {SAFE_WEIGHTS_NAME} in {folder}, found {why}. Load the model and save it again with "
            "save_pretrained."
        )
    try:
        names = sorted(set(read_json(folder / SAFE_WEIGHTS_INDEX_NAME)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / SAFE_WEIGHTS_INDEX_NAME} does not name the files of the weights. Save the model again."
        ) from error
    if outside := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise ValueError(f"{SAFE_WEIGHTS_INDEX_NAME} of {folder} names {outside[0]!r}, which is no file beside it.")
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
        if unknown := sorted(notes.keys() - WEIGHT_NOTES):
            raise ValueError(
                f"The header of {folder / name} has notes that would be published: {unknown[0]!r}. Load the model and "
                "save it again with save_pretrained."
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
