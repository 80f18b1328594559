import sys

import numpy as np
import pytest

from ecg_transformers.data import prepare_corpus
from ecg_transformers.data.engines import run_jobs


def test_jobs_run_in_this_process_by_default():
    assert list(run_jobs(str, [1, 2, 3])) == ["1", "2", "3"]
    assert list(run_jobs(str, [])) == []


def test_what_a_job_raises_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(run_jobs((1).__truediv__, [2, 0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "spark"}, r"engine 'spark'.*\['processes', 'dask'\]"),
        ({"num_proc": 0}, "num_proc >= 1, got 0"),
        ({"scheduler": "tcp://node1:8786"}, "belongs to engine='dask'"),
    ],
)
def test_unknown_engines_and_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run_jobs(str, [1], **options)


def test_missing_dask_is_named_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ValueError, match=r'pip install "ecg-transformers\[dask\]"'):
        run_jobs(str, [1], engine="dask")


@pytest.mark.slow
def test_dask_on_two_processes_or_a_running_cluster_writes_the_same_bytes(write_record, tmp_path):
    from dask.distributed import LocalCluster

    for number in range(13):
        write_record(f"r{number:02d}", steps=np.arange(100).reshape(2, 50) + number)
    prepare_corpus("wfdb", tmp_path / "records", tmp_path / "processes")
    prepare_corpus("wfdb", tmp_path / "records", tmp_path / "dask", engine="dask", num_proc=2)
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        address = cluster.scheduler_address  # a cluster of threads: only the address matters here
        prepare_corpus("wfdb", tmp_path / "records", tmp_path / "cluster", engine="dask", scheduler=address)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "processes").iterdir()}
    for name in ("dask", "cluster"):
        assert {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} == expected
