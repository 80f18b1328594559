"""Every Python snippet of docs/your_own_data.md runs, in order."""

from ecg_transformers.train.cli import main

from .snippets import page_text, run_snippets, snippets_of

PAGE = page_text("your_own_data.md")


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    snippets = snippets_of(PAGE)
    assert len(snippets) == 2
    names = run_snippets(snippets)
    assert (tmp_path / "finetuned" / "model.safetensors").exists()
    assert names["trainer"].state.global_step == 2
    command = ["info", "recordings", "--dataset", "ecgfolder", "--options", "label_separator=;", "--max_records", "5"]
    assert main(command) == 0
    assert "looked at       5 recordings" in capsys.readouterr().out
