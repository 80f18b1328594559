"""Pages of the site that no file in `docs` is: the README and its companions, the notebooks, and the API reference.

`mkdocs.yml` names this file as a hook (`on_...`) and as an extension of the reader of docstrings (`HouseStyle`).
"""

import ast
import json
import re
from collections import defaultdict
from pathlib import Path
from textwrap import indent

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Those of a `forward`, which transformers writes without a heading.
BARE_ARGUMENTS = re.compile(r"(?:[a-z]\w*(?:, \w+)*(?: \([^\n]+\))?:[^\n]*(?:\n +[^\n]*)*\n?)+")
ABOVE = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}


def imported_names(file: Path) -> dict[str, str]:
    """Name → module, of the lines `from .module import name as name` of a stub."""
    imports = [line for line in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(line, ast.ImportFrom)]
    return {alias.name: line.module for line in imports for alias in line.names}


def public_objects() -> dict[str, str]:
    """Name → full path where it is written, of everything that `import ecg_transformers` offers."""
    found = {"register": "ecg_transformers.register"}
    for name, module in imported_names(ROOT / "__init__.pyi").items():
        while (stub := ROOT / module.replace(".", "/") / "__init__.pyi").is_file():
            module = f"{module}.{imported_names(stub)[name]}"
        found[name] = f"ecg_transformers.{module}.{name}"
    return found


PATHS = public_objects()


def api_pages() -> dict[str, list[str]]:
    """Name of a page → full paths on it: one for what is not a model, one for each family of models."""
    pages = defaultdict(list)
    for path in sorted(PATHS.values(), key=lambda path: path.rsplit(".", 1)[1].lower()):
        module = path.split(".")[-2].removeprefix("modeling_").removeprefix("configuration_")
        is_model = ".modeling." in path and re.search(r"\.(modeling|configuration)_\w+\.\w+$", path)
        pages[module if is_model else "functions_and_training"].append(path)
    return dict(sorted(pages.items(), key=lambda page: (page[0] != "functions_and_training", page[0])))


def notebook_as_markdown(path: Path) -> str:
    """Cells as they are stored: texts, code, tables and pictures."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            content = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in content:
                parts.append(f'<img alt="Output" src="data:image/png;base64,{"".join(content["image/png"]).strip()}">')
            elif "text/html" in content:
                table = re.sub(r"<style.*?</style>", "", "".join(content["text/html"]), flags=re.DOTALL)
                parts.append(re.sub("<table[^>]*>", "<table>", table))
            else:
                parts.append(f"```text\n{''.join(content['text/plain'])}\n```")
    return "\n\n".join(parts)


def on_config(config):
    section = next(part for part in config.nav if "API" in part)
    section["API"] = [f"api/{name}.md" for name in api_pages()]


def on_files(files, config):
    for source, page in ABOVE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = text.replace("](docs/", "](").replace(".ipynb)", ".md)")
        files.append(File.generated(config, page, content=text))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page = f"notebooks/{notebook.stem}.md"
        files.append(File.generated(config, page, content=notebook_as_markdown(notebook)))
    for name, paths in api_pages().items():
        families = [found[1] for path in paths if (found := re.search(r"\.(\w+)Config$", path))]
        title = ", ".join(families) or "Functions, input and training"
        text = f"# {title}\n\n" + "\n\n".join(f"::: {path}" for path in paths)
        files.append(File.generated(config, f"api/{name}.md", content=text))


def on_page_markdown(markdown, page, config, files):
    """Links to files that are not part of the site lead to the repository."""
    in_repository = f"]({config.repo_url}/blob/main/"
    return re.sub(r"\]\(\.\./(?!\w+\.md)(?=tests/)", in_repository, markdown).replace("](../CON", "](CON")


class HouseStyle(griffe.Extension):
    """Makes the docstrings of transformers readable to griffe: [`Name`] leads to its entry, types have no backticks,
    and a default stands once, in the signature where there is one."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring is None:
            return
        has_defaults = obj.is_function or "__init__" in obj.members

        def argument(found):
            kind = re.sub(r"[`*]", "", found[2])
            kind = re.sub(r"\[~?([\w.]+)\]", r"\1", kind)
            return f"{found[1]} ({re.sub(', optional.*', '', kind) if has_defaults else kind}):"

        text = obj.docstring.value
        if obj.is_function and (arguments := BARE_ARGUMENTS.match(text)):
            text = f"Args:\n{indent(arguments[0], '    ')}\n{text[arguments.end() :]}"
        text = re.sub(r"^( +[\w*][\w, *]*) \(([^\n]+?)\):(?=\s)", argument, text, flags=re.MULTILINE)
        text = re.sub(r"^( +)`([^`\n]+)`: ", r"\1\2: ", text, flags=re.MULTILINE)
        obj.docstring.value = re.sub(r"\[`~?([\w.]+)`\](?![\[(])", self._link, text)

    @staticmethod
    def _link(found):
        name = found[1].rsplit(".", 1)[-1]
        return f"[`{name}`][{PATHS[name]}]" if name in PATHS else f"`{name}`"
