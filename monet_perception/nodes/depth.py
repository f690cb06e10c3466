"""Finds the depth image and the camera_info that belong to an image, by stamp."""

from __future__ import annotations

import math
import threading
import time
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from monet_perception.stamps import DEPTH_WITHIN, NANOSECONDS, stamp_nanoseconds, starts_again

KEPT = 12
"""Messages of each kind that are kept: what came shortly before the work on an image begins."""
type DepthImage = Image | CompressedImage
"""A depth image as it comes: only its stamp matters here."""
JITTER = 0.1
"""Share of their interval by which depth images may come earlier or later than they are due."""
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
    _depths: list[DepthImage] = field(default_factory=list, init=False, repr=False)
    _infos: list[CameraInfo] = field(default_factory=list, init=False, repr=False)
    _arrived: float = field(default=float("-inf"), init=False, repr=False)
    _expected: int | None = field(default=None, init=False, repr=False)
    _nearest: DepthImage | None = field(default=None, init=False, repr=False)
    _unusable_depth: str = field(default="", init=False, repr=False)
    _unusable_info: str = field(default="", init=False, repr=False)
    _change: threading.Condition = field(default_factory=threading.Condition, init=False, repr=False)

    def add_depth(self, message: DepthImage) -> None:
        """Keeps a depth image; where stamps start again, as of a bag, those before it are forgotten."""
        with self._change:
            _keep(self._depths, message)
            self._unusable_depth = ""
            self._arrived = time.monotonic()
            stamp, nearest = self._expected, self._nearest
            if stamp is not None and (nearest is None or _apart(message, stamp) < _apart(nearest, stamp)):
                self._nearest = message
            self._change.notify_all()

    def add_info(self, message: CameraInfo) -> None:
        """Keeps a camera_info; where stamps start again, those before it are forgotten."""
        with self._change:
            _keep(self._infos, message)
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
        from frame to frame. The depth image has to lie within `tolerance`, or things that move would be in the wrong
        place. Of those equally near (all, if the driver sets no stamps) it is the newest that had come when `expect`
        was called.

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
        """Whether a depth image is coming that may fit better.

        They do come, the last is older than the image, and where they come regularly, one that is due lies within the
        tolerance: slots are not to wait for what can't fit.
        """
        if time.monotonic() - self._arrived > SILENT:
            return False
        stamps = [_stamp(message) for message in self._depths]
        before = stamp - stamps[-1]
        tolerance = self.tolerance * NANOSECONDS
        interval = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
        if interval <= 0:  # not known, or without stamps
            return before > 0
        # The next one is nearer only if the last is more than half an interval away.
        if before <= min(interval / 2, tolerance):
            return False
        since_due = before % interval if before >= interval else math.inf
        until_due = -before % interval
        return min(since_due, until_due) <= tolerance + JITTER * interval

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


def _keep[Message: (DepthImage, CameraInfo)](messages: list[Message], message: Message) -> None:
    """Adds a message to the last `KEPT`, in the order of their stamps; where these start again, in place of them."""
    if messages and starts_again(_stamp(message), _stamp(messages[-1])):
        messages.clear()
    insort(messages, message, key=_stamp)
    del messages[:-KEPT]


def _nearest[Message: (DepthImage, CameraInfo)](messages: Sequence[Message], stamp: int) -> Message | None:
    """The message nearest in time, the last one of those equally near."""
    return min(reversed(messages), key=lambda message: _apart(message, stamp), default=None)


def _apart(message: DepthImage | CameraInfo, stamp: int) -> int:
    return abs(_stamp(message) - stamp)


def _stamp(message: DepthImage | CameraInfo) -> int:
    return stamp_nanoseconds(message.header)
