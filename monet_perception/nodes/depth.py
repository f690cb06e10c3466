"""Finds the depth image and the camera_info that belong to an image, by stamp."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from monet_perception.stamps import DEPTH_WITHIN, NANOSECONDS, stamp_nanoseconds

KEPT = 12
"""Messages of each kind that are kept: what came shortly before the work on an image begins."""
type DepthImage = Image | CompressedImage
"""A depth image as it comes: only its stamp matters here."""
SILENT = 1.0
"""Seconds without a depth image after which none is waited for any more."""


class NoDepthError(LookupError):
    """An image has no depth; the text says why."""


@dataclass
class DepthMatcher:
    """The last depth images and camera_infos. Filled by one thread, asked by another.

    Attributes:
        tolerance: seconds that the stamps of image and depth may differ.
        patience: seconds that `match` waits for a depth image that is still under way.
    """

    tolerance: float = DEPTH_WITHIN
    patience: float = 0.03
    _depths: deque[DepthImage] = field(default_factory=lambda: deque(maxlen=KEPT), init=False, repr=False)
    _infos: deque[CameraInfo] = field(default_factory=lambda: deque(maxlen=KEPT), init=False, repr=False)
    _arrived: float = field(default=float("-inf"), init=False, repr=False)
    _expected: int | None = field(default=None, init=False, repr=False)
    _nearest: DepthImage | None = field(default=None, init=False, repr=False)
    _unusable_depth: str = field(default="", init=False, repr=False)
    _unusable_info: str = field(default="", init=False, repr=False)
    _change: threading.Condition = field(default_factory=threading.Condition, init=False, repr=False)

    def add_depth(self, message: DepthImage) -> None:
        """Keeps a depth image; one that is older than the last (a bag that starts again) forgets those before it."""
        with self._change:
            if self._depths and stamp_nanoseconds(message.header) < stamp_nanoseconds(self._depths[-1].header):
                self._depths.clear()
            self._depths.append(message)
            self._unusable_depth = ""
            self._arrived = time.monotonic()
            stamp, nearest = self._expected, self._nearest
            if stamp is not None and (nearest is None or _apart(message, stamp) < _apart(nearest, stamp)):
                self._nearest = message
            self._change.notify_all()

    def add_info(self, message: CameraInfo) -> None:
        """Keeps a camera_info."""
        with self._change:
            self._infos.append(message)
            self._unusable_info = ""

    def refuse_depth(self, reason: str) -> None:
        """Notes why a depth image that came can't be used: the answer where nothing better comes."""
        with self._change:
            self._unusable_depth = reason

    def refuse_info(self, reason: str) -> None:
        """Notes why a camera_info that came can't be used, likewise."""
        with self._change:
            self._unusable_info = reason

    def clear_depth(self) -> None:
        """Forgets the depth images; the camera stays what it is."""
        with self._change:
            self._depths.clear()
            self._arrived = float("-inf")
            self._expected = self._nearest = None
            self._unusable_depth = ""

    def clear(self) -> None:
        """Forgets everything."""
        self.clear_depth()
        with self._change:
            self._infos.clear()
            self._unusable_info = ""

    def expect(self, header: Header) -> None:
        """Begins to look for the depth image of an image, which `match` will ask for.

        Called before the network runs: while it does, more depth images may come than are kept.
        """
        with self._change:
            self._expected = stamp_nanoseconds(header)
            self._nearest = _nearest(self._depths, self._expected)

    def match(self, header: Header) -> tuple[DepthImage, CameraInfo]:
        """Depth image and camera_info of an image.

        The camera_info is the one nearest in time, however far: some drivers send it once, and a lens doesn't change
        from frame to frame. The depth image has to lie within `tolerance`, or things that move would be
        in the wrong place. Of those equally near, as all are whose driver doesn't set stamps, the newest is taken that
        was there when it was expected.

        Raises:
            NoDepthError: either is missing.
        """
        stamp = stamp_nanoseconds(header)
        with self._change:
            if self._expected != stamp:
                self._expected, self._nearest = stamp, _nearest(self._depths, stamp)
            self._change.wait_for(lambda: not self._under_way(stamp), timeout=self.patience)
            depth, info = self._nearest, _nearest(self._infos, stamp)
            self._expected = self._nearest = None
            far = depth is None or _apart(depth, stamp) > self.tolerance * NANOSECONDS
            if depth is None or (far and self._unusable_depth):
                raise NoDepthError(_none_came("depth image", self._unusable_depth))
            if far:
                raise NoDepthError(self._too_far(depth, stamp))
            if info is None:
                raise NoDepthError(_none_came("camera_info", self._unusable_info))
        return depth, info

    def _under_way(self, stamp: int) -> bool:
        """Whether a depth image is coming that may fit better: they do come, but the last is older than the image."""
        if time.monotonic() - self._arrived > SILENT:
            return False
        stamps = [stamp_nanoseconds(message.header) for message in self._depths]
        before = stamp - stamps[-1]
        # Where depth comes regularly, the next one is nearer only if the last is more than half an interval away.
        half = float(np.median(np.diff(stamps))) / 2 if len(stamps) > 1 else 0.0
        return before > min(half, self.tolerance * NANOSECONDS)

    def _too_far(self, depth: DepthImage, stamp: int) -> str:
        if not stamp or not stamp_nanoseconds(depth.header):
            return f"{'depth images' if stamp else 'images'} carry no stamp: set header.stamp"
        silent = time.monotonic() - self._arrived
        if silent > SILENT:
            return f"the last depth image came {silent:.1f} s ago"
        apart = (stamp_nanoseconds(depth.header) - stamp) / NANOSECONDS
        side = "after" if apart > 0 else "before"
        return (
            f"the nearest depth image is {1000 * abs(apart):.0f} ms {side} the image, "
            f"more than depth_tolerance ({1000 * self.tolerance:.0f} ms)"
        )


def _none_came(what: str, unusable: str) -> str:
    return f"no {what} has come that can be used: {unusable}" if unusable else f"no {what} has come"


def _nearest[Message: (DepthImage, CameraInfo)](messages: Iterable[Message], stamp: int) -> Message | None:
    """The message nearest in time, the last one of those equally near."""
    return min(reversed(list(messages)), key=lambda message: _apart(message, stamp), default=None)


def _apart(message: DepthImage | CameraInfo, stamp: int) -> int:
    return abs(stamp_nanoseconds(message.header) - stamp)
