"""Every Python snippet of the README runs, in order, beside a checkpoint as the quickstart leaves one."""

import re
from pathlib import Path

import wfdb

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS

from ..train.conftest import tiny_encoder

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
TINY = {"hidden_size": 16, "stem_widths": [8, 16], "stem_depths": [1, 1], "num_kernels": 24, "fitting_records": 24}
TINY |= {"use_cpu": True, "disable_tqdm": True}
SMALLER = {
    '"max_steps": 1000}': f'"max_steps": 2}} | {TINY}',
    "max_steps=100,": "max_steps=2, use_cpu=True, disable_tqdm=True,",
}


def write_recordings(folder):
    """Three WFDB records, one of them in a sub-folder."""
    (folder / "ward").mkdir(parents=True)
    for name, row in zip(("a", "b", "c"), load_ecg("ptb-xl-sample", split="test"), strict=False):
        ecg, place = row["ecg"], folder / "ward" if name == "c" else folder
        units = {"units": ["mV"] * 12, "fmt": ["16"] * 12, "write_dir": str(place)}
        wfdb.wrsamp(name, fs=100, sig_name=list(ecg["leads"]), p_signal=ecg["signal"].T.astype(float), **units)


def test_the_snippets_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = {"leads": INDEPENDENT_LEADS, "patch_size": 50, "hidden_size": 32, "intermediate_size": 64}
    tiny_encoder("ecg-transformers-quickstart", extractor={"long_records": "all"}, **encoder)
    write_recordings(tmp_path / "RECORDINGS")
    snippets = "\0".join(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
    for said, instead in SMALLER.items():
        assert snippets.count(said) == 1, said
        snippets = snippets.replace(said, instead)
    names = {}
    for snippet in snippets.split("\0"):
        exec(compile(snippet, "README.md", "exec"), names)
        if 'predict("RECORDINGS")' in snippet:
            assert list(names["scores"].index) == ["a.hea", "b.hea", "ward/c.hea"]
            assert names["features"].shape == (3, 448)
    assert names["features"].shape == (2, 32)
    assert names["inputs"]["input_values"].shape == (2, 8, 500)
    assert names["record"].leads == ("I", "II")
    assert (tmp_path / "runs" / "mine" / "preprocessor_config.json").exists()
    assert {score["label"] for score in names["scores"]} == set(names["labels"])
    assert (tmp_path / "explanation.png").stat().st_size > 10_000
