"""Names of models that a command is given, checked before anything of them is loaded.

Importing this loads neither torch nor transformers, so that a wrong name is refused at once.
"""

import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from .carried_models import CARRIED_MODELS, carried_model

CONFIG_NAME = "config.json"
CONNECTION_SECONDS = 3
UNTRAINED_ENCODERS = {"random-kernels": 1200, "random-kernels-126": 126, "lead-statistics": None}
"""Names that stand for a checkpoint: the number of kernels of [`RandomKernelsModel`], or `None`."""


def find_checkpoint(checkpoint: str) -> str:
    """The folder of a carried model, by its name; anything else, and a folder of that name, as it is."""
    if checkpoint in CARRIED_MODELS and not Path(checkpoint).is_dir():
        return carried_model(checkpoint)
    return checkpoint


def check_checkpoint(checkpoint: str) -> None:
    """Commands load folders and ids of the Hub, by code that is installed or imported and none beside the weights.

    Args:
        checkpoint (`str`): A folder, or an id `OWNER/NAME`.

    Raises:
        ValueError: for what is neither, and for a type of model that neither `transformers` nor this package nor an
            import has registered: `from_pretrained` would ask on the terminal whether to execute its code.
        OSError: for an id that the Hub does not have, or where it cannot be asked.
    """
    check_there(checkpoint)
    if checkpoint in UNTRAINED_ENCODERS:
        return
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    import ecg_transformers.modeling  # noqa: F401  (registers our types)

    model_type = PreTrainedConfig.get_config_dict(checkpoint)[0].get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{checkpoint} is a model of the type {model_type!r}, which nothing installed or imported knows; code "
            "beside the weights is not executed by a command. Import the file that registers the type and call "
            "ecg_transformers.train.cli.main from there (docs/extend.md), or load the model in Python."
        )


def check_there(checkpoint: str) -> None:
    """Raises what [`check_checkpoint`] does for what is neither a folder with a model, nor a name, nor on the Hub."""
    if checkpoint not in UNTRAINED_ENCODERS:
        check_place(checkpoint)
        if not Path(checkpoint).expanduser().is_dir():
            check_hub(checkpoint)


def check_place(checkpoint: str) -> None:
    """Raises `ValueError` for what is neither a folder with a model nor an id of the Hub, before the Hub is asked."""
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG_NAME).is_file():
            raise ValueError(
                f"{folder} is no model: it has no {CONFIG_NAME}. Expected a folder that `pretrain`, `finetune` or "
                "`convert` wrote."
            )
    elif folder.exists() or checkpoint.count("/") != 1 or checkpoint.startswith((".", "~", "/")):
        raise ValueError(f"There is no folder {checkpoint}, and it is no id OWNER/NAME of the Hub.")


def check_hub(checkpoint: str) -> None:
    """Raises `OSError` where neither the Hub nor its cache has a model of an id, or the Hub cannot be asked."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(checkpoint, CONFIG_NAME), str):
        return
    nowhere = f"There is no folder {checkpoint}, and"
    if constants.HF_HUB_OFFLINE:
        raise OSError(f"{nowhere} the Hub is not asked for a model of that id, because HF_HUB_OFFLINE is set.")
    try:
        _connect(constants.ENDPOINT)
    except OSError as error:
        raise OSError(
            f"{nowhere} the Hub cannot be asked for a model of that id: no connection to {constants.ENDPOINT} "
            f"({error})."
        ) from error
    try:
        hf_hub_download(checkpoint, CONFIG_NAME)
    except GatedRepoError as error:
        raise OSError(
            f"The model {checkpoint} of the Hub is for those to whom its owner grants access: {error}"
        ) from error
    except RepositoryNotFoundError as error:
        raise OSError(
            f"{nowhere} the Hub has no model of that id that you may read (a private one needs `hf auth login`)."
        ) from error
    except EntryNotFoundError as error:
        raise OSError(f"{checkpoint} of the Hub is no model: it has no {CONFIG_NAME}.") from error


def _connect(endpoint: str) -> None:
    """Opens and closes a connection to an address, or to the proxy that is set for it: the client of the Hub would try
    for half a minute."""
    address = urlsplit(endpoint)
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not urllib.request.proxy_bypass(address.hostname):
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = address.port or {"https": 443}.get(address.scheme, 80)
    socket.create_connection((address.hostname, port), timeout=CONNECTION_SECONDS).close()
