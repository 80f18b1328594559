"""Every Python snippet of docs/convert.md runs, in order, with a small file in the authors' format."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ..hub.test_convert_ecg_founder import published_state
from .snippets import page_text, run_snippets, snippets_of

REPOSITORY = Path(__file__).parents[2]
PAGE = page_text("convert.md")
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
    snippets = snippets_of(page)
    assert len(snippets) == 3
    names = run_snippets(snippets)
    assert names["output"].pooler_output.shape == (1, 20)
    assert names["table"].features.shape == names["random_table"].features.shape == (2, 20)
    assert not np.allclose(names["table"].features, names["random_table"].features)
    embedded = names["table"].features[names["table"].record_ids.index(headers[0].stem)]
    np.testing.assert_allclose(names["output"].pooler_output[0], embedded, atol=1e-4)
