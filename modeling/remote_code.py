"""Ships the source of a model with its weights, so that `trust_remote_code=True` loads it without this package.

`transformers` writes the class that was saved into `auto_map` and nothing else; a folder of ours should serve every
Auto class that makes sense for it, and every pipeline.
"""

import shutil
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

# Imported, so that everything that follows the imports of a model takes the pipelines along.
from .pipeline_ecg import EcgClassificationPipeline, EcgFeatureExtractionPipeline

PIPELINES = {
    "ecg-classification": (EcgClassificationPipeline, "AutoModelForSequenceClassification"),
    "ecg-feature-extraction": (EcgFeatureExtractionPipeline, "AutoModel"),
}
"""Task → pipeline, and the Auto class that loads its model."""

IS_REMOTE_CODE = __name__.split(".")[0] == TRANSFORMERS_DYNAMIC_MODULE_NAME
"""Whether this file was loaded from the folder of a model and not from the installed package."""


def custom_pipelines() -> dict[str, dict[str, Any]]:
    """The entry of `config.json` by which `pipeline(task, model, trust_remote_code=True)` finds the pipelines."""
    return {
        task: {"impl": f"pipeline_ecg.{pipeline_class.__name__}", "pt": [auto_class], "type": "multimodal"}
        for task, (pipeline_class, auto_class) in PIPELINES.items()
    }


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
