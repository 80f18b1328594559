import json

import pytest
import torch

from ecg_transformers.train.benchmark import run
from ecg_transformers.train.cli import main


def test_a_comparison_says_how_much_faster_and_how_different():
    signal = torch.randn(256, 256)
    measure = run.compare("sums", lambda: signal.sum(), lambda: sum(signal.flatten()), "one by one", records=256)
    assert measure.ratio > 2 and measure.difference < 1e-2 and measure.records_per_second > 0
    wrong = run.compare("sums", lambda: 2 * signal.square().sum(), lambda: signal.square().sum(), "the half")
    assert wrong.difference == pytest.approx(1.0)


def test_the_command_prints_a_table_and_writes_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "cpu_measures", lambda: iter([run.masks(8), run.resampling(2)]))
    threads = torch.get_num_threads()
    assert main(["benchmark", "--json", str(tmp_path / "found.json")]) == 0
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "found.json").read_text())
    masks, resampling = found["cpu"]
    assert masks["difference"] == 0 and resampling["difference"] < 1e-5
    lines = capsys.readouterr().out.splitlines()
    assert found["machine"]["torch"] in lines[0]
    assert sum(line.startswith("| segment masks of 8 records |") for line in lines) == 1
    assert ("cuda" in found) == torch.cuda.is_available()


@pytest.mark.slow
def test_every_item_of_a_processor_is_exact():
    for measure in run.cpu_measures():
        assert measure.milliseconds > 0
        assert measure.difference is None or measure.difference < 1e-4, measure
