"""Files of a checkpoint that go to the Hub: nothing that is unpickled, nothing of this machine, no patients.

A list of allowed files and fields, not of forbidden ones: weights (safetensors), configuration, feature extractor, the
code that both name, card, scores, training arguments and a picture. Optimiser states, pickles, pages of the run and
`predictions.parquet`, which names records and patients, stay at home.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
from .licences import licence_name, require_settled, require_weights_licence, stated_licence
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
PREVIEW_NAME = "preview.png"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ARGUMENTS_NAME = "training_args.json"
RESULTS_NAMES = ("metrics.json", "report.json")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
WEIGHT_NOTES = {"format", "total_size", "total_parameters"}
HOMES = re.compile(rb"(?<![\w.-])(?:/home/|/Users/|/root/|[A-Za-z]:\\+Users\\)[\w.-]*")

PUBLIC_ARGUMENTS = """per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps
num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs
warmup_steps optim optim_args weight_decay adam_beta1
adam_beta2 adam_epsilon max_grad_norm label_smoothing_factor bf16 fp16 tf32 gradient_checkpointing torch_compile
dataloader_drop_last full_determinism seed data_seed eval_strategy eval_steps save_strategy save_steps
load_best_model_at_end metric_for_best_model greater_is_better data_licence weights_licence ema_start ema_end
weight_decay_end published_schedule random_windows collapse_patience layer_decay class_weights early_stopping_patience
freeze_encoder""".split()
"""Training arguments that go out: those that shape the weights."""
PUBLIC_RESULTS = """task problem_type protocol model config label_names splits settings validation test subgroups
training date seconds seed max_steps versions num_pretraining_records""".split()
PUBLIC_RESULTS += [DIGEST_KEY, PRETRAINED, *(name for baseline in BASELINES for name in baseline[:2])]
"""Fields of scores that go out. Command lines and names of records are not among them."""
RECORD_FIELDS = {"not_judged_records", "copies_left_out"}


@dataclass(frozen=True)
class SharedFolder:
    """A checkpoint that can be published, its files by their names.

    Args:
        texts (`dict[str, bytes]`): Everything but weights, card and picture.
        card (`str`): Text of README.md; empty where only facts are there.
        facts ([`CardFacts`], *optional*): Facts that the card is rendered from; `None` where a person wrote its text.
        left_out (`list[str]`): Names of the files that stay at home.
        shown (`tuple[ShownResult]`): Scores with their Markdown, once a command has added it.
    """

    folder: Path
    config: dict[str, Any]
    weights: dict[str, Path]
    texts: dict[str, bytes]
    card: str
    facts: CardFacts | None
    results: dict[str, Result]
    picture: Picture | None
    left_out: list[str]
    shown: tuple[ShownResult, ...] = ()


def is_model_folder(folder: str | os.PathLike) -> bool:
    """Returns `True` for a folder with a configuration and weights, in whatever form."""
    names = set(os.listdir(folder))
    return CONFIG_NAME in names and bool(names & {SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, "pytorch_model.bin"})


def read_shared_folder(
    folder: str | os.PathLike, results: Mapping[str, Any] | None = None, facts: CardFacts | None = None
) -> SharedFolder:
    """Collects the files of a checkpoint that go out, with other scores than those of its `metrics.json` and other
    facts of its card where they are given. What lacks something, is damaged or is pickled is a `ValueError`."""
    folder = Path(folder)
    config = read_json(folder / CONFIG_NAME)
    if not isinstance(config.get("model_type"), str):
        raise ValueError(f"{folder / CONFIG_NAME} names no model: it has no model_type. Save the model again.")
    weights = read_weights(folder)
    if not (folder / FEATURE_EXTRACTOR_NAME).is_file():
        raise ValueError(
            f"{folder} has no {FEATURE_EXTRACTOR_NAME}, without which nobody knows what to feed the model. Save the "
            f"feature extractor of the training beside it: feature_extractor.save_pretrained({str(folder)!r})."
        )
    card = ""
    if facts is None:
        card, facts = _card_in(folder)
        facts = facts if config["model_type"] in CONFIG_MAPPING else None  # code of the folder is not run
    extractor = read_json(folder / FEATURE_EXTRACTOR_NAME)
    texts = _source_files(folder, config, extractor)
    config = without_places({name: value for name, value in config.items() if name != "_name_or_path"})
    texts |= {CONFIG_NAME: _to_json(config), FEATURE_EXTRACTOR_NAME: _to_json(without_places(extractor))}
    if len(weights) > 1:
        texts[SAFE_WEIGHTS_INDEX_NAME] = own_file(folder / SAFE_WEIGHTS_INDEX_NAME).read_bytes()
    stored = {name: (folder / name, read_json(folder / name)) for name in RESULTS_NAMES if (folder / name).is_file()}
    if results is not None:
        stored[RESULTS_NAMES[0]] = ("--results", results)
    found = {}
    for name, (place, scores) in stored.items():
        found[name] = Result.from_json(scores, place)
        _check_scores(scores, weights, place)
        texts[name] = _to_json(public_results(scores))
    if (folder / ARGUMENTS_NAME).is_file():
        texts[ARGUMENTS_NAME] = _to_json(public_arguments(read_json(folder / ARGUMENTS_NAME)))
    picture = None
    if (folder / PREVIEW_NAME).is_file():
        content = own_file(folder / PREVIEW_NAME).read_bytes()
        if not content.startswith(PNG_SIGNATURE):
            raise ValueError(
                f"{folder / PREVIEW_NAME} is no PNG. Save it as one, or remove it: then `push` draws one."
            )
        picture = Picture(content, "A picture of this model", "")
    sent = {*weights, *texts, PREVIEW_NAME, REPOCARD_NAME, CARD_FACTS_NAME}
    left_out = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in sent)
    return SharedFolder(folder, config, weights, texts, card, facts, found, picture, left_out)


# --- The card -----------------------------------------------------------------------------------------------------


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
    """The card as it goes out to a repository: rendered anew from its facts, or the text of a person with its header
    set. Licences and configuration are those that are given, else those of the folder."""
    facts = shared.facts
    header = _header_of(shared.card) if facts is None else {}
    stated = _one_licence(header, DATA_LICENCE_KEY, "--licence") if facts is None else facts.data.licence
    stated = stated if data_licence is None else licence_name(data_licence)
    require_settled(stated, "training data", "--licence")
    require_weights_licence(weights_licence)
    if facts is not None:
        config = AutoConfig.from_pretrained(shared.folder) if config is None else config
        extractor = EcgFeatureExtractor.from_pretrained(shared.folder)
        facts = facts.with_licences(stated, weights_licence)
        return render_card(facts, config, extractor, repo_id, shared.shown, shared.picture)
    names = ("license", "license_name")
    if weights_licence is None:
        weights_licence = stated_licence({name: _one_licence(header, name, "--weights_licence") for name in names})
    replaced = (*names, "model-index") if shared.shown else names
    kept = {name: value for name, value in header.items() if name not in replaced}
    kept = {"library_name": "transformers"} | kept | licence_header(stated, weights_licence)
    body = ModelCard(shared.card).text.strip("\n")
    if "\n## Licences\n" not in f"\n{body}\n":
        body = f"{body}\n\n{licence_section(stated, weights_licence)}"
    return ModelCard(f"---\n{card_header(kept, shared.shown, repo_id).to_yaml()}\n---\n\n{body.rstrip()}\n")


def _header_of(text: str) -> dict[str, Any]:
    try:
        return ModelCard(text).data.to_dict()
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The header of README.md cannot be read: {reason}. Correct it by hand.") from error


def _one_licence(header: Mapping[str, Any], name: str, flag: str) -> str | None:
    """A field that states one licence; a list of one is the same."""
    stated = header.get(name)
    stated = stated[0] if isinstance(stated, list) and len(stated) == 1 else stated
    if stated is not None and not isinstance(stated, str):
        raise ValueError(
            f"Expected one licence as {name} in the header of README.md, got {stated!r}. State the one that holds by "
            f"{flag} NAME, or correct the header by hand."
        )
    return stated


# --- Fields and texts ---------------------------------------------------------------------------------------------


def public_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Training arguments that shape the weights, by `PUBLIC_ARGUMENTS`."""
    return {name: without_places(arguments[name]) for name in PUBLIC_ARGUMENTS if name in arguments}


def shared_arguments(args: TrainingArguments) -> bytes:
    """Training arguments as JSON for the folder of a run."""
    return _to_json(public_arguments(json.loads(args.to_json_string())))


def public_results(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Scores without command line, folders and names of records."""
    public = {name: without_places(value) for name, value in scores.items() if name in PUBLIC_RESULTS}
    public |= {name: PureWindowsPath(public[name]).name for name in ("model", "config") if public.get(name)}
    if "training" in public:
        public["training"] = {name: value for name, value in public["training"].items() if name not in RECORD_FIELDS}
    return public


def without_places(content: Any) -> Any:
    """JSON in which texts that as a whole are paths of a machine have become their last part; all others stay."""
    if isinstance(content, Mapping):
        return {key: without_places(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_places(value) for value in content]
    if not isinstance(content, str):
        return content
    is_absolute = PurePosixPath(content).is_absolute() or PureWindowsPath(content).is_absolute()
    is_place = is_absolute or content.startswith(("~/", "./", "../", "file:", "\\\\"))
    return PureWindowsPath(content).name if is_place else content


def refuse_places(content: bytes, path: Path):
    """Raises `ValueError` for a text that names a home, the working folder or its own folder on this machine."""
    own = {str(place).encode() + b"/" for place in (Path.home(), Path.cwd(), path.parent.absolute())} - {b"//"}
    found = HOMES.search(content)
    places = [found[0]] if found else [place for place in sorted(own) if place in content]
    if places:
        raise ValueError(
            f"{path.name} names a place of this machine, {places[0].decode()}, which would be published. Take it out "
            f"of {path}."
        )


def own_file(path: Path) -> Path:
    """A file of a folder that is to be published, no link to another place; in the Hub's cache, where
    `snapshots/COMMIT` holds links to the `blobs` of the same repository, those too."""
    folder, found = path.parent.resolve(), path.resolve()
    is_cached = folder.parent.name == "snapshots" and found.parent == folder.parent.parent / "blobs"
    if found.parent != folder and not is_cached:
        raise ValueError(
            f"{path} is a link to a file outside of the folder, and would be published: {found}. Put a copy of it "
            "there if it belongs to the model, or remove the link."
        )
    return path


def read_text(path: Path) -> str:
    """Text (UTF-8) of a folder that is to be published."""
    try:
        return own_file(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Cannot read {path} as text in UTF-8 ({error}). Save it again.") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping of a folder that is to be published."""
    text = read_text(path)
    try:
        content, reason = json.loads(text), ""
    except (json.JSONDecodeError, RecursionError) as error:
        content, reason = None, f" ({error})"
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no JSON mapping{reason}. Write it again, or remove it if it is not needed.")
    return content


def _to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _check_scores(scores: Mapping[str, Any], weights: Mapping[str, Path], place: Path | str):
    """Raises `ValueError` for an evaluation of other weights. Scores that do not say which weights they belong to are
    taken for those of the weights beside them, and are refused from elsewhere."""
    stated = scores.get(DIGEST_KEY)
    if (stated is None and isinstance(place, Path)) or stated == weights_digest(weights.values()):
        return
    said = f"do not say by {DIGEST_KEY} which weights they belong to"
    if stated is not None:
        said = "are of another model, or of earlier weights: the SHA-256 of the weights differs"
    raise ValueError(
        f"The scores of {place} {said} (their model was {scores.get('model')!r}). Run `ecg-transformers evaluate "
        "--model` on the folder that is pushed, and give its metrics.json."
    )


# --- Weights and code ---------------------------------------------------------------------------------------------


def read_weights(folder: Path) -> dict[str, Path]:
    """Files of safetensors in which a folder has its weights, by name, without the index of several; none may be
    damaged or have notes."""
    names = [SAFE_WEIGHTS_NAME]
    if not (folder / SAFE_WEIGHTS_NAME).is_file():
        if not (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
            pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
            why = f"only {', '.join(pickled)}, which could run code when it is read" if pickled else "none"
            raise ValueError(
                f"Expected weights as {SAFE_WEIGHTS_NAME} in {folder}, found {why}. Load the model and save it again "
                "with save_pretrained."
            )
        names = _names_in_index(folder / SAFE_WEIGHTS_INDEX_NAME)
    for name in names:
        try:
            with safe_open(own_file(folder / name), framework="pt") as file:
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


def _names_in_index(path: Path) -> list[str]:
    """Names of the files of weights that lie beside their index."""
    weight_map = read_json(path).get("weight_map")
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise ValueError(f"{path} does not name the files of the weights beside it. Save the model again.")
    return names


def _source_files(folder: Path, *configurations: Mapping[str, Any]) -> dict[str, bytes]:
    """The modules that Auto classes and pipelines need, and what these import: all in the folder itself."""
    cure = "Load the model and the feature extractor with this package and save them again with save_pretrained."
    names = set()
    for configuration in configurations:
        auto_map, pipelines = configuration.get("auto_map"), configuration.get("custom_pipelines") or {}
        try:
            references = [*auto_map.values(), *(pipeline["impl"] for pipeline in pipelines.values())]
            names |= {reference.split(".")[0] for reference in references}
        except (AttributeError, TypeError, KeyError) as error:
            raise ValueError(
                f"{CONFIG_NAME} or {FEATURE_EXTRACTOR_NAME} of {folder} names no code: auto_map is "
                f"{auto_map!r}. {cure}"
            ) from error
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


def weights_digest(files: Iterable[Path]) -> str:
    """SHA-256 of the only file of weights; of several, that of their digests in the order of their names."""
    digests = []
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def model_digest(model: str | os.PathLike) -> str | None:
    """The digest of the weights that `from_pretrained` reads from a folder, or has read from the Hub; `None` where
    they are no safetensors."""

    def find(name: str) -> Path | None:
        found = Path(model, name) if os.path.isdir(model) else try_to_load_from_cache(os.fspath(model), name)
        return Path(found) if isinstance(found, (str, Path)) and Path(found).is_file() else None

    if (whole := find(SAFE_WEIGHTS_NAME)) is not None:
        return weights_digest([whole])
    if (index := find(SAFE_WEIGHTS_INDEX_NAME)) is None:
        return None
    files = [find(name) for name in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())]
    return None if None in files else weights_digest(files)
