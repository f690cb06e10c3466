"""A thread that always works on the newest item: while one is in work at most one waits, the rest is dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

PATIENCE = 10.0
"""Seconds that the item in work may take when the thread is stopped."""


@dataclass
class NewestFirstWorker[Item]:
    """Hands items to `work` on a thread of its own, the newest first.

    Attributes:
        work: called with each item that is not overtaken. It should not raise.
        failed: called with what `work` raised all the same; the thread lives on.
        name: of the thread, as debuggers show it.
    """

    work: Callable[[Item], None]
    failed: Callable[[Exception], None]
    name: str = "worker"
    _waiting: Item | None = field(default=None, init=False, repr=False)
    _stopping: bool = field(default=False, init=False, repr=False)
    _change: threading.Condition = field(default_factory=threading.Condition, init=False, repr=False)
    _thread: threading.Thread | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Starts the thread."""
        self._stopping = False
        # A daemon, so that a network that hangs doesn't keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> bool:
        """Leaves an item for the thread.

        Returns:
            Whether it took the place of one that waited, which is thereby dropped.
        """
        with self._change:
            overtaken = self._waiting is not None
            self._waiting = item
            self._change.notify()
        return overtaken

    def stop(self) -> int:
        """Ends the thread after the item in work, for which it waits at most `PATIENCE` seconds.

        Returns:
            How many waiting items were dropped, 0 or 1.
        """
        with self._change:
            self._stopping = True
            dropped = int(self._waiting is not None)
            self._waiting = None
            self._change.notify()
        if self._thread is not None:
            self._thread.join(PATIENCE)
            self._thread = None
        return dropped

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                self.work(item)
            except Exception as error:
                self.failed(error)

    def _next(self) -> Item | None:
        with self._change:
            self._change.wait_for(lambda: self._stopping or self._waiting is not None)
            item, self._waiting = self._waiting, None
            return None if self._stopping else item
