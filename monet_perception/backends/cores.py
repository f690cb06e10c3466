"""Keeps a library's worker threads off the core of the thread that calls it."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterable
from pathlib import Path

_TASKS = Path("/proc/self/task")


class HelperThreads:
    """Threads that help whoever calls a network, and where they may run.

    The threads of a pool sleep between a network's layers. Linux may wake them on the core of the thread that waits for
    them although another one is idle, and on virtual machines it often does: they then take turns where they should
    run side by side. In the node, with two threads on two cores, a frame took 19 ms to 21 ms that way instead of 16 ms
    (benchmarks.latency). Only Linux says which threads there are; elsewhere nothing is done.

    Args:
        threads: the system's numbers of the threads, as in `running_threads`.
    """

    def __init__(self, threads: Iterable[int]) -> None:
        self._threads = set(threads)
        self._cores = os.sched_getaffinity(0) if self._threads else set()
        self._left: int | None = None

    def leave_core(self) -> None:
        """Has the threads leave the calling thread's core to it until the next call; all others stay free to take."""
        if len(self._cores) < 2 or (core := _current_core()) == self._left:
            return
        self._left = core
        for thread in list(self._threads):
            try:
                os.sched_setaffinity(thread, self._cores - {core})
            except OSError:  # it has ended, or a container forbids it
                self._threads.discard(thread)


def running_threads() -> set[int]:
    """The system's numbers of this process's threads; none where the system doesn't tell."""
    return {int(task.name) for task in _TASKS.iterdir()} if _TASKS.is_dir() else set()


@functools.cache  # opening it takes 17 us, the rest of a call 0.3 us (a busy core)
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _current_core() -> int:
    return int(_c_library().sched_getcpu())
