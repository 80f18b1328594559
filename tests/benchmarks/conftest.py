"""Ratios of the CPU time of a plain way and of ours: one thread, default allocator.

What was measured is in `record_property`, shown by `pytest -m slow -rA --junitxml`. The bounds leave room for a busy
machine.
"""

import time

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def seconds(function) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


@pytest.fixture
def times_faster(record_property):
    """Runs two functions in turns: the shortest time of the plain one over that of the fast one, as what else a
    machine does only lengthens times. `records` are how many each works on, where times of one are compared."""

    def measure(plain, fast, rounds: int = 7, name: str = "ratio", records: tuple[int, int] = (1, 1)) -> float:
        plain(), fast()
        pairs = [(seconds(plain), seconds(fast)) for _ in range(rounds)]
        ratio = min(slow for slow, _ in pairs) / records[0] / (min(quick for _, quick in pairs) / records[1])
        record_property(name, round(ratio, 2))
        return ratio

    return measure
