"""Joins by stamp what belongs to one frame of a live map: its slots, the camera's pose and the depth image.

Slots wait until a pose of their stamp or a later one has come: what came before may be up to a period old, and a camera
that turns at 0.5 rad/s is then off by 5 cm at a distance of 3 m with 30 Hz poses. They wait for depth as well, but not
for long. Stamps are in nanoseconds. Where they start again, as a bag's do, what came before is forgotten.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from monet_perception.recording import POSE_WITHIN
from monet_perception.stamps import DEPTH_WITHIN, NANOSECONDS, nearest, starts_again

Array = NDArray[np.float64]

POSES_APART = 0.2
"""Seconds between two poses up to which the camera is interpolated in between: at 10 Hz one may get lost."""
POSES_KEPT = 2000
"""Poses come at up to a kilohertz, and slots a second late."""
DEPTHS_KEPT = 30
DEPTH_PATIENCE = 0.2
"""Seconds by which the poses may be ahead of a frame that waits for its depth image: large images take their time."""
FRAMES_WAITING = 50
"""Frames that may wait for their poses; the oldest is left out beyond that."""


def interpolate(before: Array, after: Array, share: float) -> Array:
    """Pose [4, 4] at a share in [0, 1] of the way between two: linear in position, spherical (slerp) in rotation."""
    pose = np.eye(4)
    pose[:3, 3] = (1 - share) * before[:3, 3] + share * after[:3, 3]
    pose[:3, :3] = Slerp([0, 1], Rotation.from_matrix([before[:3, :3], after[:3, :3]]))(share).as_matrix()
    return pose


class PoseHistory:
    """The camera's poses [4, 4] of late, in the order of their stamps."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[Array] = []

    @property
    def newest(self) -> int | None:
        """Stamp of the last pose."""
        return self._stamps[-1] if self._stamps else None

    def add(self, stamp: int, pose: Array) -> None:
        """Takes a pose, instead of the one that has the same stamp.

        Where stamps start again, those before are forgotten.
        """
        if starts_again(stamp, self.newest):
            self.clear()
        place = bisect_left(self._stamps, stamp)
        if self._stamps[place : place + 1] == [stamp]:
            self._poses[place] = pose
            return
        self._stamps.insert(place, stamp)
        self._poses.insert(place, pose)
        if len(self._stamps) > POSES_KEPT:
            del self._stamps[0], self._poses[0]

    def clear(self) -> None:
        """Forgets all."""
        self._stamps.clear()
        self._poses.clear()

    def passed(self, stamp: int) -> bool:
        """Whether all that `at` needs for a stamp has come: poses come in order."""
        return bool(self._stamps) and self._stamps[-1] >= stamp

    def at(self, stamp: int) -> Array | None:
        """Pose [4, 4] at a stamp: interpolated between the two around it if they are within `POSES_APART`.

        Else it is the nearest within `POSE_WITHIN`, as in recordings; None where there is none.
        """
        place = bisect_left(self._stamps, stamp)
        if 0 < place < len(self._stamps):
            before, after = self._stamps[place - 1], self._stamps[place]
            if after - before <= POSES_APART * NANOSECONDS:
                share = (stamp - before) / (after - before)
                return interpolate(self._poses[place - 1], self._poses[place], share)
        near = nearest(self._stamps, stamp)
        if near is None or abs(self._stamps[near] - stamp) > POSE_WITHIN * NANOSECONDS:
            return None
        return self._poses[near]


@dataclass(frozen=True)
class JoinedFrame:
    """What belongs to one frame.

    Attributes:
        stamp: nanoseconds.
        slots: the message.
        camera: [4, 4], camera optical frame to world.
        depth: the message; None where none within `DEPTH_WITHIN` has come.
    """

    stamp: int
    slots: Any
    camera: Array
    depth: Any | None


class FrameJoiner:
    """Finds for each frame of slots the camera's pose and the depth image.

    Attributes:
        unplaced: how many frames were left out, because no pose was near enough or none came, or because a later frame
            was joined before.
    """

    def __init__(self) -> None:
        self.unplaced = 0
        self._poses = PoseHistory()
        self._depths: list[tuple[int, Any]] = []
        self._waiting: list[tuple[int, Any]] = []
        self._last_slots: int | None = None
        self._last_joined: int | None = None
        self._run_before: int | None = None  # its last slots, while only the poses haven't gone back yet

    def add_pose(self, stamp: int, pose: Array) -> None:
        """Takes the next pose [4, 4], unless it is of the run before and only late."""
        if self._run_before is not None and self._last_slots is not None:
            if abs(stamp - self._run_before) < abs(stamp - self._last_slots):
                return
            self._run_before = None
        self._poses.add(stamp, pose)

    def add_depth(self, stamp: int, message: Any) -> None:
        """Takes the next depth image."""
        if self._depths and starts_again(stamp, self._depths[-1][0]):
            self._depths.clear()
        insort(self._depths, (stamp, message), key=lambda kept: kept[0])
        del self._depths[:-DEPTHS_KEPT]

    def add_slots(self, stamp: int, message: Any) -> None:
        """Takes the next frame of slots; where stamps start again, those that still wait do so in vain."""
        last = self._last_slots
        if last is not None and starts_again(stamp, last):
            self._start_again(last, stamp)
            last = None
        self._last_slots = stamp if last is None else max(last, stamp)
        if self._last_joined is not None and stamp < self._last_joined:  # a map takes them in order
            self.unplaced += 1
            return
        insort(self._waiting, (stamp, message), key=lambda waiting: waiting[0])
        if len(self._waiting) > FRAMES_WAITING:
            del self._waiting[0]
            self.unplaced += 1

    def _start_again(self, last: int, stamp: int) -> None:
        """Forgets the run whose last slots were of `last`; the first of the next are of `stamp`."""
        self._waiting.clear()
        self._last_joined = None
        # The poses may have gone back already: then they are to stay.
        newest = self._poses.newest
        if newest is not None and abs(newest - last) < abs(newest - stamp):
            self._poses.clear()
            self._run_before = last

    def complete(self, *, ended: bool = False) -> Iterator[JoinedFrame]:
        """The frames for which all has come that is expected, in order; `ended`: all that wait."""
        while self._waiting and (ended or self._ready(self._waiting[0][0])):
            stamp, slots = self._waiting.pop(0)
            self._last_joined = stamp
            camera = self._poses.at(stamp)
            if camera is None:
                self.unplaced += 1
            else:
                yield JoinedFrame(stamp, slots, camera, self._depth(stamp))

    def _ready(self, stamp: int) -> bool:
        """Whether the poses around a stamp have come, and the depth image, if any come at all."""
        newest = self._poses.newest
        if newest is None or not self._poses.passed(stamp):
            return False
        under_way = bool(self._depths) and self._depths[-1][0] < stamp
        return not under_way or newest - stamp > DEPTH_PATIENCE * NANOSECONDS

    def _depth(self, stamp: int) -> Any | None:
        stamps = [of_depth for of_depth, _ in self._depths]
        near = nearest(stamps, stamp)
        if near is None or abs(stamps[near] - stamp) > DEPTH_WITHIN * NANOSECONDS:
            return None
        return self._depths[near][1]
