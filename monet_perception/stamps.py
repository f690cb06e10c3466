"""Stamps of message headers, ROS's and rosbags' alike."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

NANOSECONDS = 1_000_000_000
"""In a second."""
DEPTH_WITHIN = 0.02
"""Seconds between an image and the depth image that is taken for it, unless told otherwise."""
STEP_BACK = 0.1
"""Seconds by which the stamps of a topic go back where it starts again; by less they go back where clocks are set, and
where drivers or networks disorder messages."""


def stamp_nanoseconds(header: Any) -> int:
    """The stamp of a std_msgs/Header as one number."""
    return int(header.stamp.sec) * NANOSECONDS + int(header.stamp.nanosec)


def starts_again(stamp: int, newest: int | None) -> bool:
    """Whether a stamp is so far behind the newest, if there is one, that its topic starts again: a replay, or a
    simulation set back."""
    return newest is not None and newest - stamp >= STEP_BACK * NANOSECONDS


def nearest(stamps: Sequence[int], stamp: int) -> int | None:
    """Place of the nearest among stamps in order, the earlier of two; None where there are none."""
    place = bisect_left(stamps, stamp)
    around = range(max(place - 1, 0), min(place + 1, len(stamps)))
    return min(around, key=lambda near: abs(stamps[near] - stamp), default=None)
