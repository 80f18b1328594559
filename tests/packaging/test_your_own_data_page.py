"""Every Python snippet of docs/your_own_data.md runs, in order."""

import re
from pathlib import Path

from ecg_transformers.train.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "your_own_data.md").read_text(encoding="utf-8")


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(snippets) == 2
    names = {}
    for snippet in snippets:
        exec(compile(snippet, "your_own_data.md", "exec"), names)
    assert (tmp_path / "finetuned" / "model.safetensors").exists()
    assert names["trainer"].state.global_step == 2
    command = ["info", "recordings", "--dataset", "ecgfolder", "--options", "label_separator=;", "--max_records", "5"]
    assert main(command) == 0
    assert "looked at       5 recordings" in capsys.readouterr().out
