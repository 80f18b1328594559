"""`ecg-transformers push`: a prepared corpus becomes a dataset of the Hub, a checkpoint a model."""

import argparse
import logging

from ecg_transformers.data.prepared import MANIFEST_NAME, PREPARED
from ecg_transformers.train.publishing.hub_client import find_folder
from ecg_transformers.train.publishing.shared_folder import is_model_folder

from .push_dataset import push_prepared
from .push_model import push_model

logger = logging.getLogger("ecg_transformers")


def run(args: argparse.Namespace):
    """The command: what the folder holds says which of both it is."""
    folder = find_folder(args.folder)
    settings = {"private": args.private or None, "revision": args.revision, "licence": args.licence}
    at = f", revision={args.revision!r}" if args.revision else ""
    is_model = is_model_folder(folder)
    if not is_model and ((folder / MANIFEST_NAME).is_file() or any(folder.glob("*.parquet"))):
        only_models = {"--weights_licence": args.weights_licence, "--results": args.results}
        if unused := [flag for flag, value in only_models.items() if value is not None]:
            raise ValueError(
                f"{folder} holds a prepared corpus: {' and '.join(unused)} are for models. Leave them out."
            )
        location = push_prepared(folder, args.repo_id, **settings)
        logger.info(
            'Load it:\n  load_ecg("%s", "%s", streaming=True)\n  datasets.load_dataset("%s"%s, streaming=True)',
            *(PREPARED, location, args.repo_id, at),
        )
    elif is_model:
        address = push_model(
            folder, args.repo_id, **settings, weights_licence=args.weights_licence, results=args.results
        )
        logger.info(
            '%s\nLoad it:\n  AutoModel.from_pretrained("%s"%s, trust_remote_code=True)\n'
            '  AutoFeatureExtractor.from_pretrained("%s"%s, trust_remote_code=True)',
            *(address, args.repo_id, at, args.repo_id, at),
        )
    else:
        raise ValueError(
            f"{folder} is neither a model (config.json and model.safetensors, as `pretrain`, `finetune`, `quickstart` "
            "and `convert` write them) nor a prepared corpus (manifest.json, as `prepare` writes it)."
        )
