"""Every Python snippet of docs/convert.md runs, in order, with a small file in the authors' format."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ecg_transformers.train.cli import build_parser

from ..hub.test_convert_ecg_founder import published_state

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "convert.md").read_text(encoding="utf-8")
RECORDS = REPOSITORY / "tests" / "fixtures" / "wfdb" / "ptb-xl" / "records100"


@pytest.mark.slow
def test_the_snippets_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": published_state()}, "12_lead_ECGFounder.pth")
    Path("records").mkdir()
    headers = sorted(RECORDS.glob("**/*.hea"))[:2]
    for header in headers:
        for path in (header, header.with_suffix(".dat")):
            shutil.copy(path, "records")
            shutil.copy(path, ".")
    page = PAGE.replace("record.hea", headers[0].name)
    snippets = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(snippets) == 3
    names = {}
    for snippet in snippets:
        exec(compile(snippet, "convert.md", "exec"), names)
    assert names["output"].pooler_output.shape == (1, 20)
    assert names["table"].features.shape == names["random_table"].features.shape == (2, 20)
    assert not np.allclose(names["table"].features, names["random_table"].features)
    embedded = names["table"].features[names["table"].record_ids.index(headers[0].stem)]
    np.testing.assert_allclose(names["output"].pooler_output[0], embedded, atol=1e-4)


def test_the_commands_of_the_page_have_the_flags_that_there_are():
    commands = re.findall(r"^ecg-transformers (.*)", PAGE, flags=re.MULTILINE)
    assert commands
    for command in commands:
        build_parser().parse_args(shlex.split(command))
