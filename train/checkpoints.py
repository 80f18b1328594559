"""What a command is given as a model, before anything of it is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoFeatureExtractor, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME

from ecg_transformers.modeling import (
    EcgFeatureExtractor,
    LeadStatisticsConfig,
    LeadStatisticsModel,
    RandomKernelsConfig,
    RandomKernelsModel,
)
from ecg_transformers.modeling.leads import STANDARD_LEADS

from .carried_models import CARRIED_MODELS, carried_model

UNTRAINED_ENCODERS = {"random-kernels": 1200, "random-kernels-126": 126, "lead-statistics": None}
"""Names that stand for a checkpoint: the number of kernels of [`RandomKernelsModel`], or `None`."""


INPUT_FIELDS = ("leads", "sampling_rate", "num_samples", "long_records", "window_stride_samples", "short_records")
INPUT_FIELDS += ("missing_leads", "derive_limb_leads")
"""Settings of a feature extractor that stay an encoder's own where one treatment of the input holds for several."""


def find_checkpoint(checkpoint: str) -> str:
    """The folder of a carried model, by its name; anything else, and a folder of that name, as it is."""
    if checkpoint in CARRIED_MODELS and not Path(checkpoint).is_dir():
        return carried_model(checkpoint)
    return checkpoint


def load_encoder(
    checkpoint: str, treatment: Mapping[str, Any] | None = None, **settings
) -> tuple[PreTrainedModel, EcgFeatureExtractor]:
    """An encoder in evaluation mode with its feature extractor.

    Args:
        checkpoint (`str`):
            A folder, an id of the Hub, a carried model, or one of `UNTRAINED_ENCODERS`, which read twelve leads
            (missing ones are masked), 10 s windows of 100 Hz, 0.5 to 40 Hz.
        treatment (`Mapping`, *optional*):
            Settings that make one treatment of the input for several encoders: of the stored ones, only `INPUT_FIELDS`
            count beside these. By default, or empty, all stored ones count.
        settings: Settings of the feature extractor that differ from the stored ones.
    """
    if treatment:
        model, extractor = load_encoder(checkpoint)
        own = {name: value for name, value in extractor.to_dict().items() if name in INPUT_FIELDS}
        return model, EcgFeatureExtractor(**(own | dict(treatment) | settings))
    if checkpoint not in UNTRAINED_ENCODERS:
        checkpoint = find_checkpoint(checkpoint)
        model = AutoModel.from_pretrained(checkpoint)
        extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
        return model.eval(), EcgFeatureExtractor(**(extractor.to_dict() | settings))
    num_kernels = UNTRAINED_ENCODERS[checkpoint]
    contract = {"leads": STANDARD_LEADS, "sampling_rate": 100, "num_samples": 1000, "missing_leads": "mask"}
    contract |= {"highpass_hz": 0.5, "lowpass_hz": 40, "filter_order": 4, "long_records": "all"}
    extractor = EcgFeatureExtractor(**(contract | {"normalization": "lead" if num_kernels else None} | settings))
    read = {"leads": extractor.leads, "sampling_rate": extractor.sampling_rate, "num_samples": extractor.num_samples}
    if num_kernels is None:
        return LeadStatisticsModel(LeadStatisticsConfig(**read)).eval(), extractor
    return RandomKernelsModel(RandomKernelsConfig(**read, num_kernels=num_kernels)).eval(), extractor


def check_checkpoint(checkpoint: str) -> None:
    """Commands load folders and ids of the Hub, by code that is installed or imported and none beside the weights.

    Args:
        checkpoint (`str`): A folder, or an id `OWNER/NAME`.

    Raises:
        ValueError: for what is neither, and for a type of model that neither `transformers` nor this package nor an
            import has registered: `from_pretrained` would ask on the terminal whether to execute its code.
        OSError: for an id that the Hub does not have.
    """
    if checkpoint in UNTRAINED_ENCODERS:
        return
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
