"""`ecg-transformers push`: a checkpoint becomes a model of the Hub, a prepared corpus a dataset, in one commit."""

import argparse
import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import yaml
from huggingface_hub import HfApi
from huggingface_hub.constants import REPOCARD_NAME

from ecg_transformers.data.bad_record_report import REPORT_NAME
from ecg_transformers.data.dataset_card import dataset_card
from ecg_transformers.data.prepared import (
    MANIFEST_NAME,
    PREPARED,
    Manifest,
    read_manifest,
    shard_url,
    verify_shards,
)
from ecg_transformers.train.explain.preview import add_preview, complete_push
from ecg_transformers.train.publishing.hub_client import (
    at_revision,
    find_folder,
    open_model_repository,
    open_repository,
    plain_errors,
    send,
    upload_model,
)
from ecg_transformers.train.publishing.licences import licence_name, require_settled
from ecg_transformers.train.publishing.shared_folder import is_model_folder, published_card, read_shared_folder
from ecg_transformers.train.results import read_result

logger = logging.getLogger("ecg_transformers")


def run(args: argparse.Namespace):
    """The command: the content of the folder decides between model and dataset."""
    folder = find_folder(args.folder, args.repo_id)
    settings = {"private": args.private or None, "revision": args.revision, "licence": args.licence}
    only_models = {"weights_licence": args.weights_licence, "results": args.results}
    at = f", revision={args.revision!r}" if args.revision else ""
    if is_model_folder(folder):
        if args.benchmark:
            raise ValueError(f"{folder} holds a model: --benchmark is for a prepared corpus. Leave it out.")
        address = push_model(folder, args.repo_id, **settings, **only_models)
        load = '  %s.from_pretrained("%s"%s, trust_remote_code=True)'
        loads = "\n".join(load % (name, args.repo_id, at) for name in ("AutoModel", "AutoFeatureExtractor"))
        logger.info("%s\nLoad it:\n%s", address, loads)
    elif (folder / MANIFEST_NAME).is_file() or any(folder.glob("*.parquet")):
        if unused := [f"--{name}" for name, value in only_models.items() if value is not None]:
            raise ValueError(
                f"{folder} holds a prepared corpus: {' and '.join(unused)} are for models. Leave them out."
            )
        location = push_prepared(folder, args.repo_id, **settings, benchmark=args.benchmark)
        logger.info(
            'Load it:\n  load_ecg("%s", "%s", streaming=True)\n  datasets.load_dataset("%s"%s, streaming=True)',
            *(PREPARED, location, args.repo_id, at),
        )
    else:
        raise ValueError(
            f"{folder} is neither a model (config.json and model.safetensors, as `pretrain`, `finetune`, `quickstart` "
            "and `convert` write them) nor a prepared corpus (manifest.json, as `prepare` writes it)."
        )


def push_model(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    licence: str | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    *,
    weights_licence: str | None = None,
    results: Mapping[str, Any] | str | os.PathLike | None = None,
    endpoint: str | None = None,
) -> str:
    """Uploads a checkpoint to a model repository of the Hub: weights (safetensors), configuration, feature extractor,
    code for `trust_remote_code`, card, scores, training arguments and a picture.

    Nothing is pickled, and files that are there already are not sent again.

    Args:
        folder (`str`):
            Folder that `pretrain`, `finetune`, `quickstart`, `convert` or `Trainer.save_model` wrote, with its card.
            Nothing in it is changed.
        repo_id (`str`): `"OWNER/NAME"`. Created if it does not exist.
        private (`bool`, *optional*): `True` makes a new repository private; by default what the owner has set.
        revision (`str`, *optional*): Branch, created if it does not exist; by default the main one.
        licence (`str`, *optional*):
            Licence of the training data, such as `"CC BY 4.0"`, or `"other: NAME"`; needed where the card does not
            state it. Written into the card that goes out.
        token (`str`, *optional*): Token of the Hub; by default `HF_TOKEN`, or the one that `hf auth login` stored.
        commit_message (`str`, *optional*): Message of the commit; by default a sentence with the class of the model.
        weights_licence (`str`, *optional*):
            Licence of the weights, such as `"cc-by-4.0"`; by default what the card states, which may be "unknown".
        results (`str` or `Mapping`, *optional*):
            `metrics.json` of `ecg-transformers evaluate`, or its content, for the card and its model-index; by
            default what lies in the folder.
        endpoint (`str`, *optional*): Another Hub than that of `HF_ENDPOINT`.

    Returns:
        `str`: the address of the repository, with `/tree/REVISION` if given.

    Raises:
        ValueError: for a folder that lacks something, a licence that is not settled, a repository that holds anything
            else or is public where `private` was asked, and for what the Hub refuses.
    """
    folder = find_folder(folder, repo_id)
    if isinstance(results, (str, os.PathLike)):
        results = read_result(Path(results).expanduser())
    shared = complete_push(read_shared_folder(folder, results), with_model=False)
    card = published_card(shared, repo_id, licence, weights_licence)  # refused before all else
    if card.data.get("license_name") == "unknown":
        logger.warning("The card says that the licence of the weights is unknown; --weights_licence NAME states it.")
    if shared.left_out:
        logger.info("Stay at home: %s", ", ".join(shared.left_out))
    name = (shared.config.get("architectures") or [shared.config["model_type"]])[0]
    api = HfApi(endpoint=endpoint, token=token)
    with plain_errors(repo_id, api.endpoint, "model"):
        repository = open_model_repository(api, repo_id, shared.config, revision, private)
        with plain_errors(repo_id, api.endpoint, "model", is_new=repository.is_new):
            shared = add_preview(shared)
            card = published_card(shared, repo_id, licence, weights_licence)
            upload_model(api, repository, shared, card, commit_message or f"Upload {name}")
    return at_revision(f"{api.endpoint}/{repo_id}", "/tree/", revision)


def push_prepared(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    licence: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    benchmark: bool = False,
) -> str:
    """Uploads a prepared corpus to a dataset repository of the Hub; files that are there already are not sent again.

    Args:
        folder (`str`): Finished folder of `ecg-transformers prepare`. Nothing in it is changed.
        licence (`str`, *optional*):
            Licence of the recordings, such as `"CC BY 4.0"` or `"cc-by-4.0"`. Needed where the corpus states none that
            holds for every copy; otherwise the stated one. With it, the card is written anew.
        repo_id, private, revision, token, endpoint: Arguments of [`push_model`].
        benchmark (`bool`, *optional*, defaults to `False`):
            Whether `eval.yaml` goes with it, see [`benchmark_file`].

    Returns:
        the URL by which `load_ecg("prepared", ...)` finds it: `"hf://datasets/OWNER/NAME"`, with `@REVISION` if given.

    Raises:
        ValueError: for a folder that is unfinished or damaged, an unsettled licence, a repository that holds anything
            else or is public where `private` was asked, and for what the Hub refuses.
    """
    folder = find_folder(folder, repo_id)
    manifest = read_manifest(folder)
    # Earlier versions stored the path of a file that an option names; every shard has it too.
    if private_paths := [name for name, value in manifest.options.items() if os.path.isabs(str(value))]:
        raise ValueError(
            f"{folder} states a path of this machine in the options {private_paths}, which would be published. Run "
            "`prepare` into a new folder: this version stores name and checksum of such a file instead."
        )
    chosen = licence_name(manifest.licence if licence is None else licence)
    require_settled(chosen, f"recordings (corpus {manifest.corpus!r}, {manifest.homepage})", "--licence")
    verify_shards(folder, manifest, tuple(manifest.splits))
    files = _dataset_files(folder, manifest, dataclasses.replace(manifest, licence=chosen))
    if benchmark:
        files["eval.yaml"] = benchmark_file(manifest, repo_id)

    def check(text: str):
        known = Manifest.from_json(text, f"{repo_id}/{MANIFEST_NAME}")
        if known.plan != manifest.plan:
            raise ValueError(
                f"{repo_id} holds another conversion (corpus {known.corpus!r}, options {known.options}) and is left "
                "as it is. Give another --repo_id, or delete that repository first."
            )

    api = HfApi(endpoint=endpoint, token=token)
    with plain_errors(repo_id, api.endpoint, "dataset"):
        repository = open_repository(api, repo_id, "dataset", revision, private, MANIFEST_NAME, check)
        with plain_errors(repo_id, api.endpoint, "dataset", is_new=repository.is_new):
            send(api, repository, files, f"{manifest.corpus}, prepared by ecg-transformers {manifest.package_version}")
    return at_revision(f"hf://datasets/{repo_id}", "@", revision)


def _dataset_files(folder: Path, manifest: Manifest, stated: Manifest) -> dict[str, str | bytes]:
    """The shards and the texts beside them; where the licence was stated now, manifest and card say it too."""
    shards = [shard for of_split in manifest.splits.values() for shard in of_split]
    files: dict[str, str | bytes] = {shard.file: shard_url(folder, shard) for shard in shards}
    try:
        files |= {name: (folder / name).read_bytes() for name in (REPORT_NAME, REPOCARD_NAME, MANIFEST_NAME)}
    except OSError as error:
        raise ValueError(f"Cannot read {error.filename}: {error.strerror}. Run the same `prepare` again.") from error
    if stated.licence != manifest.licence:
        features = datasets.Features.from_arrow_schema(pq.read_schema(shard_url(folder, shards[0])))
        files[REPOCARD_NAME] = dataset_card(stated, features).encode()
        files[MANIFEST_NAME] = stated.to_json().encode()
    return files


def benchmark_file(manifest: Manifest, repo_id: str) -> bytes:
    """`eval.yaml`, by which the Hub takes a dataset for a benchmark and lists on its page the scores that models state
    in `.eval_results` (https://huggingface.co/docs/hub/eval-results). Its one task has the id that
    [`~ecg_transformers.train.publishing.model_card.eval_result_files`] gives to an evaluation of the labels.

    No `evaluation_framework` is named: the Hub knows a fixed list of them, and this package is not on it.
    """
    if not manifest.label_names or not all(manifest.splits.get(split) for split in ("train", "test")):
        raise ValueError(
            f"A benchmark has classes and the splits train and test; the corpus {manifest.corpus!r} has the classes "
            f"{manifest.label_names} and the splits {[name for name, shards in manifest.splits.items() if shards]}. "
            "Leave --benchmark (in Python benchmark=True) out."
        )
    task = manifest.options.get("task")
    content = {
        "name": f"{manifest.corpus} {task}" if task else manifest.corpus,
        "description": (
            f"{manifest.description[0].upper()}{manifest.description[1:]}. Macro AUROC over "
            f"{', '.join(manifest.label_names)} on the split test, which nothing but the result may have seen, by "
            f"ecg-transformers evaluate --dataset prepared --data_dir hf://datasets/{repo_id}"
        ),
        "tasks": [{"id": "default", "config": "default", "split": "test"}],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
