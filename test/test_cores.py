"""The threads that help a network leave the core of the thread that calls it."""

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from monet_perception.backends.cores import HelperThreads, running_threads
from monet_perception.decomposer import Decomposer
from monet_perception.shipped import DEFAULT_CHECKPOINT

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="needs Linux and two cores")


@pytest.fixture
def caller() -> Iterator[None]:
    """The test's own thread may stay on one core, and gets all of them back."""
    yield
    os.sched_setaffinity(0, CORES)


class Pool:
    """Threads that sleep until told to end."""

    def __init__(self, count: int) -> None:
        self._ends = [threading.Event() for _ in range(count)]
        self._threads = [threading.Thread(target=end.wait, daemon=True) for end in self._ends]
        for thread in self._threads:
            thread.start()

    def numbers(self) -> list[int]:
        return [thread.native_id or 0 for thread in self._threads]

    def end(self, thread: int) -> None:
        self._ends[thread].set()
        self._threads[thread].join()


@pytest.mark.usefixtures("caller")
def test_helpers_go_wherever_their_caller_is_not() -> None:
    pool, bystander = Pool(2), Pool(1)
    helpers = HelperThreads(pool.numbers())
    for core in [*CORES[:2], CORES[0]]:
        os.sched_setaffinity(0, {core})
        helpers.leave_core()
        assert [os.sched_getaffinity(thread) for thread in pool.numbers()] == [set(CORES) - {core}] * 2
    assert os.sched_getaffinity(bystander.numbers()[0]) == set(CORES)


@pytest.mark.usefixtures("caller")
def test_a_helper_that_has_ended_is_forgotten() -> None:
    pool = Pool(2)
    helpers = HelperThreads(pool.numbers())
    pool.end(0)
    os.sched_setaffinity(0, {CORES[1]})
    helpers.leave_core()
    assert os.sched_getaffinity(pool.numbers()[1]) == set(CORES) - {CORES[1]}


@pytest.mark.usefixtures("caller")
def test_callers_held_on_the_only_core_keep_their_helpers_there() -> None:
    os.sched_setaffinity(0, {CORES[0]})
    pool = Pool(1)
    HelperThreads(pool.numbers()).leave_core()
    assert os.sched_getaffinity(pool.numbers()[0]) == {CORES[0]}


@pytest.mark.usefixtures("caller")
def test_the_networks_threads_leave_the_core_that_calls_it() -> None:
    before = running_threads()
    with Decomposer(DEFAULT_CHECKPOINT, device="cpu", threads=2) as decomposer:
        helpers = running_threads() - before
        assert helpers
        for core in CORES[:2]:
            os.sched_setaffinity(0, {core})
            decomposer(np.zeros((64, 64, 3), np.uint8), reconstruct=True)
            assert all(core not in os.sched_getaffinity(thread) for thread in helpers)
