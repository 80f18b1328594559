"""The notebooks run from top to bottom, and what is stored in them is small and says nothing of a machine.

`python tests/packaging/test_notebooks.py [NAME ...]` runs them and stores their outputs.
"""

import base64
import io
import os
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

import nbclient
import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
QUIET |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
PLACE = re.compile(r"/(home|root|tmp|usr|opt|mnt|var|work|Users|private)/")
MOST_BYTES = {"image/png": 60_000, "text/html": 10_000, "text/plain": 4_000}


def read(path):
    return nbformat.read(path, as_version=4)


def run(path, folder):
    """The notebook with the outputs of a new kernel, without token, cache or network; an error in a cell is raised."""
    notebook = read(path)
    commands = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
    environment = os.environ | QUIET | {"PATH": commands, "TMPDIR": str(folder), "HF_HOME": str(folder / "hf")}
    client = nbclient.NotebookClient(notebook, timeout=1800, record_timing=False)
    client.resources = {"metadata": {"path": path.parent}}
    client.execute(env=environment)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
    return notebook


def tidy(outputs):
    """What is worth keeping: no progress bars, one text instead of its pieces, pictures of few colours."""
    text = "".join(output.text for output in outputs if output.get("name") == "stdout")
    lines = [line.rstrip() for line in text.splitlines()]
    text = re.sub(r"\n{2,}(?=\{')", "\n", "\n".join(lines).strip("\n"))  # between the lines of a training
    kept = [nbformat.v4.new_output("stream", text=text + "\n")] if text else []
    for output in outputs:
        if output.output_type != "stream":
            if "image/png" in output.data:
                output.data["image/png"] = with_few_colours(output.data["image/png"])
            kept.append(output)
    return kept


def with_few_colours(png):
    file = io.BytesIO()
    few = (
        Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(128, Image.Quantize.FASTOCTREE, dither=0)
    )
    few.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def contents(notebook):
    """For each cell with code: kind and text of what it put out."""
    return [
        [(kind, text) for output in cell.outputs for kind, text in sorted(content_of(output).items())]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def content_of(output):
    return {"text/plain": output.text} if output.output_type == "stream" else output.data


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_small_and_names_no_place(path):
    stored = [content for cell in contents(read(path)) for content in cell]
    assert len(stored) >= 5
    for kind, text in stored:
        assert len(text) <= MOST_BYTES[kind] and not PLACE.search(text), text[:300]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_puts_out_what_is_stored(path, tmp_path):
    # Numbers may differ in their last digits between processors; kinds and places of outputs do not.
    kinds = [[[kind for kind, _ in cell] for cell in contents(book)] for book in (run(path, tmp_path), read(path))]
    assert len(NOTEBOOKS) == 3 and kinds[0] == kinds[1]


if __name__ == "__main__":
    for path in NOTEBOOKS:
        if path.stem in sys.argv[1:] or not sys.argv[1:]:
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(run(path, Path(folder)), path)
