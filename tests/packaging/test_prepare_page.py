"""Every Python snippet of docs/prepare_and_stream.md runs, in order; the Hub and PhysioNet are folders here."""

import shutil
from pathlib import Path

from ecg_transformers.data import load_ecg, prepare_corpus

from .snippets import page_text, run_snippets, snippets_of

ROOT = Path(__file__).parents[2]
PAGE = page_text("prepare_and_stream.md")
PTB_XL = ROOT / "tests" / "fixtures" / "wfdb" / "ptb-xl"


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare_corpus("ptb-xl", PTB_XL, "prepared/ptb-xl")
    headers = sorted(PTB_XL.glob("**/*.hea"))[:2]
    for header in headers:
        for file in (header, header.with_suffix(".dat")):
            shutil.copy(file, tmp_path)
    (tmp_path / "RECORDS").write_text("".join(f"{header.stem}\n" for header in headers))
    page = PAGE
    for said, instead in {
        "hf://datasets/owner/ptb-xl": "prepared/ptb-xl",
        "https://physionet.org/files/ludb/1.0.1/": f"{tmp_path.as_uri()}/",
    }.items():
        assert f'"{said}"' in page
        page = page.replace(f'"{said}"', f'"{instead}"')
    snippets = snippets_of(page)
    assert len(snippets) == 4
    whole = load_ecg("prepared", "prepared/ptb-xl", split="all")
    names = {"rank": 0, "world_size": 2, "ptb_xl": whole, "code_15": whole}
    run_snippets([snippets[0]], names)
    assert names["classes"] == ("CD", "HYP", "MI", "NORM", "STTC")
    assert [row["record_id"] for row in names["train"]] and set(names["train"].features) == set(whole.features)
    run_snippets([snippets[1]], names)
    assert [row["record_id"] for row in names["stream"]] == [header.stem for header in headers]
    run_snippets(snippets[2:], names)
    assert [row["record_id"] for row in names["stream"]] == [headers[0].stem]
    assert {row["record_id"] for row in names["mixture"]} == set(whole["record_id"])
