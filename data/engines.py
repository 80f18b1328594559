"""Runs many independent jobs: in this process, in processes of this machine, or on a Dask cluster."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from typing import TypeVar

ENGINES = ("processes", "dask")

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    num_proc: int = 1,
    engine: str = "processes",
    scheduler: str | None = None,
) -> Iterator[Result]:
    """Yields `function(job)` of every job, in the order in which they are done.

    Args:
        function (`Callable`): A function of a module, so that other processes can import it.
        num_proc (`int`): Processes; with 1 the jobs run in this one. With `"dask"`, those of a cluster made here.
        engine (`str`): `"processes"` or `"dask"` (`pip install "ecg-transformers[dask]"`).
        scheduler (`str`, *optional*): Address of a running Dask scheduler, such as `"tcp://node1:8786"`; its workers
            need this package and must see the same folders.

    Raises:
        ValueError: for an unknown engine, a number below 1, or a missing Dask. What a job raises is raised here.
    """
    if engine not in ENGINES:
        raise ValueError(f"Unknown engine {engine!r}. Choose from {list(ENGINES)}.")
    if num_proc < 1:
        raise ValueError(f"Expected num_proc >= 1, got {num_proc}.")
    if scheduler is not None and engine != "dask":
        raise ValueError(f"A scheduler ({scheduler}) belongs to engine='dask', not to {engine!r}.")
    if engine == "dask":
        return _run_on_dask(function, jobs, num_proc, scheduler)
    if num_proc == 1 or len(jobs) < 2:
        return map(function, jobs)
    return _run_in_processes(function, jobs, min(num_proc, len(jobs)))


def _run_in_processes(function, jobs, num_proc: int):
    # Forked from a process that has imported the package and started no thread: a fork of this one could inherit
    # locks that are held.
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        context.set_forkserver_preload([function.__module__])
    executor = ProcessPoolExecutor(num_proc, mp_context=context, initializer=_end_with_parent)
    try:
        for future in as_completed([executor.submit(function, job) for job in jobs]):
            yield future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _end_with_parent():
    """A parent that is killed cannot stop its workers; they would wait for its next job for ever."""

    def watch():
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_on_dask(function, jobs, num_proc: int, scheduler: str | None):
    try:
        from dask.distributed import Client, LocalCluster
        from dask.distributed import as_completed as completed
    except ImportError as error:
        raise ValueError('engine="dask" needs Dask. Run: pip install "ecg-transformers[dask]"') from error

    def run():
        cluster = None
        if scheduler is None:
            cluster = LocalCluster(n_workers=num_proc, threads_per_worker=1, dashboard_address=None)
        client = Client(scheduler or cluster)
        try:
            futures = [client.submit(function, job, pure=False) for job in jobs]
            for future in completed(futures):
                yield future.result()
                future.release()
        finally:
            client.close()
            if cluster is not None:
                cluster.close()

    return run()
