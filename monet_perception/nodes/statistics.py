"""Counters and latencies of a running node."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

WINDOW = 10.0
"""Seconds over which rates and latencies are taken."""


@dataclass(frozen=True)
class Counts:
    """Images since the node started, unless said otherwise.

    received = answered + dropped + broken + failed + at most two under way.

    Attributes:
        received: images that the middleware handed over.
        answered: decomposed, and the slots published where somebody listened to them.
        dropped: overtaken by a newer one, or waiting when the node was deactivated.
        broken: unreadable.
        failed: lost to an error of the network or its device.
        broken_depth: depth images or camera_infos that couldn't be used; their frames were answered without 3D.
        unstamped: images whose stamp isn't set.
        to_locate: answered while somebody wanted 3D.
        located: those of them of which at least one slot got a place in 3D.
        doubtful: those located by depth or camera_info that name another frame than the image does, or depth of another
            shape.
        lost: images that the middleware lost on the way; not among those received.
        received_depth, lost_depth: depth images, likewise.
    """

    received: int = 0
    answered: int = 0
    dropped: int = 0
    broken: int = 0
    failed: int = 0
    broken_depth: int = 0
    unstamped: int = 0
    to_locate: int = 0
    located: int = 0
    doubtful: int = 0
    lost: int = 0
    received_depth: int = 0
    lost_depth: int = 0


@dataclass
class Statistics:
    """Counts and latencies of a running node. Its methods may be called from any thread.

    Attributes:
        counts: since the node started.
        last_received: seconds of time.monotonic() of the last image.
        faults: by name of the count: what was wrong with the last frame that was broken or failed.
        depth_fault: why the last frame without 3D has none, or what is wrong with the depth of one that has.
    """

    counts: Counts = Counts()
    last_received: float = field(default=-math.inf, init=False)
    faults: dict[str, str] = field(default_factory=dict, init=False)
    depth_fault: str = field(default="", init=False)
    _first_received: float = field(default=math.inf, init=False, repr=False)
    _latencies: deque[tuple[float, float]] = field(default_factory=deque, init=False, repr=False)
    _arrivals: deque[float] = field(default_factory=deque, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def count(self, name: str, frames: int = 1, fault: str = "") -> None:
        """Adds to one of the `Counts`; `fault` is what was wrong with the last of these frames."""
        with self._lock:
            self.counts = replace(self.counts, **{name: getattr(self.counts, name) + frames})
            if fault:
                self.faults = {**self.faults, name: fault}
            if name == "received":
                self.last_received = time.monotonic()
                self._first_received = min(self._first_received, self.last_received)
                self._arrivals.append(self.last_received)
                while self._arrivals[0] < self.last_received - WINDOW:
                    self._arrivals.popleft()

    def answered(self, latency: float) -> None:
        """Counts a frame that was answered; `latency`: seconds from its reception to the publication of its slots."""
        with self._lock:
            self.counts = replace(self.counts, answered=self.counts.answered + 1)
            now = time.monotonic()
            self._latencies.append((now, latency))
            while self._latencies[0][0] < now - WINDOW:
                self._latencies.popleft()

    def located(self, *, found: bool, fault: str) -> None:
        """Counts an answered frame for which 3D was wanted; `fault`: why there is none, or what is wrong with it."""
        with self._lock:
            self.counts = replace(
                self.counts,
                to_locate=self.counts.to_locate + 1,
                located=self.counts.located + found,
                doubtful=self.counts.doubtful + (found and bool(fault)),
            )
            self.depth_fault = fault or self.depth_fault

    def latencies(self) -> tuple[float, float, float]:
        """Median, 99th percentile and maximum of the latencies in the window, in seconds; NaN if there are none."""
        recent = self._recent()
        if not recent:
            return math.nan, math.nan, math.nan
        return float(np.median(recent)), float(np.percentile(recent, 99)), max(recent)

    def rates(self) -> tuple[float, float]:
        """Images received and answered a second, over the window or what has passed of it since the first image.

        Of the first second it says what came in it, so that two images at the start aren't a rate of hundreds.
        """
        now = time.monotonic()
        span = min(WINDOW, max(now - self._first_received, 1.0))
        with self._lock:
            received = sum(now - arrival <= WINDOW for arrival in self._arrivals)
            answered = sum(now - done <= WINDOW for done, _ in self._latencies)
        return received / span, answered / span

    def _recent(self) -> list[float]:
        now = time.monotonic()
        with self._lock:
            return [latency for done, latency in self._latencies if now - done <= WINDOW]
