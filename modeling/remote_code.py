"""Ships the source of a model with its weights, so that `trust_remote_code=True` loads it without this package.

`transformers` writes the class that was saved into `auto_map` and nothing else; a folder of ours should serve every
Auto class that makes sense for it, and every pipeline.
"""

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

# Imported, so that everything that follows the imports of a model takes the pipelines along.
from .pipeline_ecg import EcgClassificationPipeline, EcgFeatureExtractionPipeline

PIPELINES = {
    "ecg-classification": (EcgClassificationPipeline, "AutoModelForSequenceClassification"),
    "ecg-feature-extraction": (EcgFeatureExtractionPipeline, "AutoModel"),
}
"""Task → pipeline, and the Auto class that loads its model."""

AUTO_CLASSES = {
    "AutoModel": "Model",
    "AutoModelForPreTraining": "ForPreTraining",
    "AutoModelForSequenceClassification": "ForSequenceClassification",
    "AutoModelForTokenClassification": "ForTokenClassification",
}
"""Auto class → the ending of the names of the models that it loads."""

IS_REMOTE_CODE = __name__.split(".")[0] == TRANSFORMERS_DYNAMIC_MODULE_NAME
"""Whether this file was loaded from the folder of a model and not from the installed package."""


def custom_pipelines() -> dict[str, dict[str, Any]]:
    """The entry of `config.json` by which `pipeline(task, model, trust_remote_code=True)` finds the pipelines."""
    return {
        task: {"impl": f"pipeline_ecg.{pipeline_class.__name__}", "pt": [auto_class], "type": "multimodal"}
        for task, (pipeline_class, auto_class) in PIPELINES.items()
    }


class ShippedConfigMixin:
    """Base of a configuration whose code is saved beside it."""

    def __post_init__(self, **kwargs):
        """Forgets the pipelines of a folder: an installed package has them registered and asks for no trust."""
        if not IS_REMOTE_CODE:
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Adds where the pipelines are."""
        output = super().to_dict()
        if "auto_map" in output:
            output["custom_pipelines"] = custom_pipelines()
        return output


class ShippedModelMixin:
    """Base of every model here: its code is saved beside its weights, and it tells the Trainer what it needs."""

    # The losses are means over a batch, not sums over tokens: the Trainer must not rescale them by an item count.
    accepts_loss_kwargs = False
    # Whether a `teacher` has to follow after every optimiser step (`update_teacher`).
    has_teacher = False
    # Whether something has to be taken from recordings before the first step (`fit_targets`).
    needs_fitting = False

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):
        """Saves weights and configuration and, for `trust_remote_code`, the source files they need."""
        self.config.auto_map = auto_map_of(self.config_class)
        if is_main_process:
            ship_source_files(self.config.auto_map, save_directory)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)


def auto_map_of(config_class: type[PreTrainedConfig]) -> dict[str, str]:
    """Returns what each Auto class loads from a folder that any class of a family saved, as `module.Class`.

    The family `X` of `configuration_x.XConfig` has its classes in `modeling_x`. For a configuration of another folder
    than this one it is the family that the configuration derives from.
    """
    package = __name__.rpartition(".")[0]
    own = next(base for base in config_class.__mro__ if base.__module__.rpartition(".")[0] == package)
    file = own.__module__.rpartition(".")[2].removeprefix("configuration_")
    family = own.__name__.removesuffix("Config")
    classes = vars(import_module(f".modeling_{file}", package))
    names = {auto_class: f"{family}{ending}" for auto_class, ending in AUTO_CLASSES.items()}
    found = {auto_class: f"modeling_{file}.{name}" for auto_class, name in names.items() if name in classes}
    return {"AutoConfig": f"configuration_{file}.{own.__name__}"} | found


def ship_source_files(auto_map: dict[str, str], save_directory: str | Path) -> None:
    """Copies the modules named in `auto_map` (`{"AutoModel": "module.Class"}`), and what they import, to a folder."""
    folder = Path(save_directory)
    folder.mkdir(parents=True, exist_ok=True)
    sources = Path(__file__).parent
    modules = {sources / f"{reference.split('.')[0]}.py" for reference in auto_map.values()}
    files = modules | {Path(file) for module in modules for file in get_relative_import_files(module)}
    for file in files:
        # A model that was itself loaded as remote code may be saved where its code lies.
        if (folder / file.name).resolve() != file.resolve():
            shutil.copyfile(file, folder / file.name)
