"""Ships the source of a model with its weights, so that `trust_remote_code=True` loads it without this package.

`transformers` writes the class that was saved into `auto_map` and nothing else; a folder of ours should serve every
Auto class that makes sense for it.
"""

import shutil
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files


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
