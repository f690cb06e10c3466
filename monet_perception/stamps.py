"""Stamps of message headers, ROS's and rosbags' alike."""

from __future__ import annotations

from typing import Any

NANOSECONDS = 1_000_000_000
"""In a second."""


def stamp_nanoseconds(header: Any) -> int:
    """The stamp of a std_msgs/Header as one number."""
    return int(header.stamp.sec) * NANOSECONDS + int(header.stamp.nanosec)
