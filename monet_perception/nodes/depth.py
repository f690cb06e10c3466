"""Finds the depth image and the camera_info that belong to an image, by stamp."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds

KEPT = 12
"""Messages of each kind that are kept: at 30 Hz the last 0.4 s, longer than a network takes for a frame."""
SILENT = 1.0
"""Seconds without a depth image after which none is waited for any more."""


@dataclass
class DepthMatcher:
    """The last depth images and camera_infos. Filled by one thread, asked by another.

    Attributes:
        tolerance: seconds that the stamps of image and depth may differ.
        patience: seconds that `match` waits for a depth image that is still under way.
    """

    tolerance: float = 0.02
    patience: float = 0.03
    _depths: deque[Image] = field(default_factory=lambda: deque(maxlen=KEPT), init=False, repr=False)
    _infos: deque[CameraInfo] = field(default_factory=lambda: deque(maxlen=KEPT), init=False, repr=False)
    _arrived: float = field(default=float("-inf"), init=False, repr=False)
    _change: threading.Condition = field(default_factory=threading.Condition, init=False, repr=False)

    def add_depth(self, message: Image) -> None:
        """Keeps a depth image; one that is older than the last (a bag that starts again) forgets those before it."""
        with self._change:
            if self._depths and stamp_nanoseconds(message.header) < stamp_nanoseconds(self._depths[-1].header):
                self._depths.clear()
            self._depths.append(message)
            self._arrived = time.monotonic()
            self._change.notify_all()

    def add_info(self, message: CameraInfo) -> None:
        """Keeps a camera_info."""
        with self._change:
            self._infos.append(message)

    def clear(self) -> None:
        """Forgets everything."""
        with self._change:
            self._depths.clear()
            self._infos.clear()
            self._arrived = float("-inf")

    def match(self, header: Header) -> tuple[Image, CameraInfo] | None:
        """Depth image and camera_info of an image, None if either is missing.

        The camera_info is the one nearest in time, however far: some drivers send it once, and a lens doesn't change
        from frame to frame. The depth image has to lie within `tolerance`, or things that move would be
        in the wrong place.
        """
        stamp = stamp_nanoseconds(header)
        with self._change:
            self._change.wait_for(lambda: not self._under_way(stamp), timeout=self.patience)
            depth = min(self._depths, key=lambda message: _apart(message, stamp), default=None)
            info = min(self._infos, key=lambda message: _apart(message, stamp), default=None)
        if depth is None or info is None or _apart(depth, stamp) > self.tolerance * NANOSECONDS:
            return None
        return depth, info

    def _under_way(self, stamp: int) -> bool:
        """Whether a depth image is coming that may fit: they do come, but the last is older than the image."""
        if time.monotonic() - self._arrived > SILENT:
            return False
        return stamp_nanoseconds(self._depths[-1].header) < stamp - self.tolerance * NANOSECONDS


def _apart(message: Image | CameraInfo, stamp: int) -> int:
    return abs(stamp_nanoseconds(message.header) - stamp)
