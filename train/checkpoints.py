"""What a command is given as a model, before anything of it is loaded."""

from pathlib import Path

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.utils import CONFIG_NAME

import ecg_transformers.modeling  # noqa: F401  (registers its types of models)


def check_checkpoint(checkpoint: str) -> None:
    """Commands load folders and ids of the Hub, by code that is installed or imported and none beside the weights.

    Args:
        checkpoint (`str`): A folder, or an id `OWNER/NAME`.

    Raises:
        ValueError: for what is neither, and for a type of model that neither `transformers` nor this package nor an
            import has registered: `from_pretrained` would ask on the terminal whether to execute its code.
        OSError: for an id that the Hub does not have.
    """
    check_place(checkpoint)
    model_type = PreTrainedConfig.get_config_dict(checkpoint)[0].get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{checkpoint} is a model of the type {model_type!r}, which nothing installed or imported knows; code "
            "beside the weights is not executed by a command. Import the file that registers the type and call "
            "ecg_transformers.train.cli.main from there (docs/extend.md), or load the model in Python."
        )


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
