"""Reads a recorded sequence (MCAP or ROS 2 bag) without ROS: images with depth, labels, camera pose and true objects.

Needs `rosbags` (`pip install monet_perception[demo]`).
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from monet_perception.bags import (
    BagError,
    choose_images,
    deserialise,
    open_bag,
    raw_messages,
    read_metres,
    read_rgb,
)
from monet_perception.calibration import camera_intrinsics, check_size
from monet_perception.clip import CAMERA_INFO, DEPTHS, LABELS, OBJECTS, POSE
from monet_perception.labels import FIRST_OBJECT_LABEL
from monet_perception.projection import Intrinsics
from monet_perception.raw_images import read_labels
from monet_perception.stamps import DEPTH_WITHIN, NANOSECONDS, nearest, stamp_nanoseconds, starts_again

POSE_WITHIN = 0.05
"""Seconds between an image and the camera's pose that is taken for it."""
WAITING = 50
"""Images that may wait for what belongs to them and for the first camera_info; the oldest is left out beyond that."""
_log = logging.getLogger(__name__)
_WITHIN = {**dict.fromkeys(DEPTHS, DEPTH_WITHIN), LABELS: 0.0, POSE: POSE_WITHIN}
# How much of each topic is kept: what waiting images may still need. Poses are small, and come at up to a kilohertz.
_KEPT = {**dict.fromkeys(DEPTHS, WAITING), LABELS: WAITING, POSE: 40 * WAITING}


@dataclass(frozen=True)
class TrueObject:
    """Where an object of a rendered scene is: centre and size of its box in the world, in metres."""

    position: NDArray[np.float64]
    size: NDArray[np.float64]


@dataclass
class Frame:
    """What was recorded with one image.

    Attributes:
        stamp: seconds.
        image: [h, w, 3] uint8 RGB.
        intrinsics: of the image, by the newest camera_info; before the first one came, by the first one.
        depth: [h, w] float32 metres, zero or NaN where there is none; None where the recording has no depth.
        labels: [h, w] uint8; None where the recording has no labels.
        camera: [4, 4], camera optical frame to world; None where the recording has no poses.
        objects: by label; empty where the recording doesn't know them.
    """

    stamp: float
    image: NDArray[np.uint8]
    intrinsics: Intrinsics
    depth: NDArray[np.float32] | None = None
    labels: NDArray[np.uint8] | None = None
    camera: NDArray[np.float64] | None = None
    objects: dict[int, TrueObject] = field(default_factory=dict)


def read_frames(path: str | Path, *, rectified: bool = False) -> Iterator[Frame]:
    """Frames of a recording in order: each image with what its topics have for it.

    Labels are of the image's own stamp, depth and pose of the nearest within `DEPTH_WITHIN` and `POSE_WITHIN`. An image
    that lacks one of them, or for which one can't be read, is left out; messages that can't be read are counted in a
    warning at the end. Frames that were recorded before the first camera_info come as soon as that is there. Where the
    stamps of a topic start again (`stamps.starts_again`), what came before belongs to nothing that follows.

    Args:
        path: MCAP file or folder of a ROS 2 bag.
        rectified: whether its images are.
    Raises:
        ModuleNotFoundError: rosbags is not installed.
        FileNotFoundError: no such file.
        BagError: the recording is damaged, or has no images on one of the topics `IMAGES`, no camera_info on
            `CAMERA_INFO`, or for none of its images all that its topics should have.
    """
    with open_bag(Path(path)) as reader:
        topics = {connection.topic for connection in reader.connections}
        image_topic = choose_images(Path(path), topics)
        if CAMERA_INFO not in topics:
            raise _no_camera_info(path, topics)
        depth_topic = next((topic for topic in DEPTHS if topic in topics), None)
        joiner = _Joiner(image_topic, [topic for topic in (depth_topic, LABELS, POSE) if topic in topics])
        frames = _Frames(image_topic, rectified=rectified)
        used = [c for c in reader.connections if c.topic in joiner.names | {CAMERA_INFO, OBJECTS}]
        for connection, _, raw in raw_messages(reader, used):
            try:
                message = deserialise(reader, connection, raw)
            except BagError as error:
                frames.lose(str(error))
                continue
            if not frames.take(connection.topic, message):
                joiner.add(connection.topic, message)
            if frames.intrinsics is not None:
                yield from frames.make(joiner.complete())
        if frames.intrinsics is None:
            raise BagError(f"{path}: {frames.fault}") if frames.fault else _no_camera_info(path, topics)
        yield from frames.make(joiner.complete(ended=True))
        if not frames.made:
            faults = ("" if joiner.joined else joiner.fault(), frames.fault)
            raise BagError(f"{path}: {'; '.join(filter(None, faults))}")
        if frames.lost:
            _log.warning("%s: %d messages can't be read, the first: %s", path, frames.lost, frames.fault)


@dataclass
class _Topic:
    """What came on a topic lately, by stamp.

    Attributes:
        name: of the topic.
        stamps: nanoseconds, in order; and the messages.
        misses: images for which nothing came near enough.
        nearest_miss: the smallest time difference among these, in seconds.
    """

    name: str
    stamps: list[int] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    misses: int = 0
    nearest_miss: float = math.inf

    def add(self, message: Any) -> None:
        """Keeps a message, and no more than waiting images may need."""
        stamp = stamp_nanoseconds(message.header)
        place = bisect_left(self.stamps, stamp)
        self.stamps.insert(place, stamp)
        self.messages.insert(place, message)
        if len(self.stamps) > _KEPT[self.name]:
            del self.stamps[0], self.messages[0]

    def forget(self) -> None:
        """Forgets the messages."""
        self.stamps.clear()
        self.messages.clear()

    def passed(self, stamp: int) -> bool:
        """Whether nothing nearer to a stamp can come: messages of a topic come in order."""
        return bool(self.stamps) and self.stamps[-1] >= stamp

    def find(self, stamp: int) -> Any | None:
        """The message nearest to a stamp; None, and a miss, if that is too far away."""
        near = nearest(self.stamps, stamp)
        apart = math.inf if near is None else abs(self.stamps[near] - stamp) / NANOSECONDS
        if near is not None and apart <= _WITHIN[self.name]:
            return self.messages[near]
        self.misses += 1
        self.nearest_miss = min(self.nearest_miss, apart)
        return None


class _Joiner:
    """Finds for each image what belongs to it.

    Args:
        image_topic: of the images.
        others: topics that each image should have something of.
    """

    def __init__(self, image_topic: str, others: Iterable[str]) -> None:
        self._image_topic = image_topic
        self._topics = [_Topic(name) for name in others]
        self._waiting: deque[Any] = deque(maxlen=WAITING)
        self._newest: int | None = None  # image's stamp
        self._finished: list[dict[str, Any]] = []  # of before the recording started again
        self._images = self.joined = 0

    @property
    def names(self) -> set[str]:
        """Of all topics."""
        return {self._image_topic, *(topic.name for topic in self._topics)}

    def add(self, name: str, message: Any) -> None:
        """Takes the next message of a topic."""
        stamp = stamp_nanoseconds(message.header)
        if name == self._image_topic:
            if starts_again(stamp, self._newest):
                self._start_again()
            self._newest = stamp
            self._images += 1
            self._waiting.append(message)
            return
        topic = next(topic for topic in self._topics if topic.name == name)
        if starts_again(stamp, topic.stamps[-1] if topic.stamps else None):
            self._start_again()
        topic.add(message)

    def _start_again(self) -> None:
        """Finishes the images that wait, for which nothing comes any more, and forgets what they were to have."""
        self._finished += self._take(ended=True)
        self._newest = None
        for topic in self._topics:
            topic.forget()

    def complete(self, *, ended: bool = False) -> Iterator[dict[str, Any]]:
        """Messages by topic of each image for which nothing nearer can come; `ended`: nothing comes at all."""
        finished, self._finished = self._finished, []
        yield from finished
        yield from self._take(ended=ended)

    def _take(self, *, ended: bool) -> Iterator[dict[str, Any]]:
        while self._waiting:
            stamp = stamp_nanoseconds(self._waiting[0].header)
            given_up = ended or len(self._waiting) == WAITING
            if not given_up and not all(topic.passed(stamp) for topic in self._topics):
                return
            parts = {topic.name: topic.find(stamp) for topic in self._topics}
            parts[self._image_topic] = self._waiting.popleft()
            if all(message is not None for message in parts.values()):
                self.joined += 1
                yield parts

    def fault(self) -> str:
        """Why no image is complete, as a sentence."""
        if not self._images:
            return f"no image came on {self._image_topic}"
        worst = max(self._topics, key=lambda topic: topic.misses)
        if math.isinf(worst.nearest_miss):
            return f"nothing came on {worst.name}"
        return (
            f"no image has all that belongs to it: {worst.misses} of {self._images} have nothing on {worst.name} "
            f"within {_WITHIN[worst.name]} s of their stamps; the nearest is {worst.nearest_miss:.3f} s away"
        )


def _no_camera_info(path: str | Path, topics: set[str]) -> BagError:
    return BagError(
        f"{path} has no camera_info on {CAMERA_INFO}: record it with the images, or rename the topic that has it; "
        f"its topics are {', '.join(sorted(topics))}"
    )


class _Frames:
    """Makes frames of messages that belong together; one with a message that can't be read is left out.

    Attributes:
        intrinsics: by the newest camera_info that can be used; None before the first.
        made: how many frames.
        lost: how many messages couldn't be read.
        fault: of the first of these, as a sentence.
    """

    def __init__(self, image_topic: str, *, rectified: bool) -> None:
        self.intrinsics: Intrinsics | None = None
        self.made = self.lost = 0
        self.fault = ""
        self._rectified = rectified
        self._image_topic = image_topic
        self._objects: dict[int, TrueObject] = {}
        self._readers: dict[str, Callable[[Any], Any]] = {
            image_topic: read_rgb,
            **dict.fromkeys(DEPTHS, read_metres),
            LABELS: read_labels,
            POSE: lambda message: pose_matrix(message.pose),
        }

    def lose(self, fault: str) -> None:
        """Counts a message that can't be read."""
        self.lost += 1
        self.fault = self.fault or fault

    def take(self, topic: str, message: Any) -> bool:
        """Takes a message that holds until the next one comes; False for any other, which belongs to one image."""
        if topic == CAMERA_INFO:
            try:
                self.intrinsics = camera_intrinsics(message, rectified=self._rectified)
            except ValueError as error:  # as drivers send before they know
                self.lose(f"a message on {CAMERA_INFO} can't be used: {error}")
        elif topic == OBJECTS:
            self._objects = true_objects(message)
        else:
            return False
        return True

    def make(self, joined: Iterable[dict[str, Any]]) -> Iterator[Frame]:
        """Frames of messages by topic."""
        for parts in joined:
            frame = self._frame(parts)
            if frame is not None:
                self.made += 1
                yield frame

    def _frame(self, parts: dict[str, Any]) -> Frame | None:
        assert self.intrinsics is not None
        stamp = stamp_nanoseconds(parts[self._image_topic].header) / NANOSECONDS
        read: dict[str, Any] = {}
        for topic, message in parts.items():
            try:
                read[topic] = self._readers[topic](message)
            except ValueError as error:
                self.lose(f"a message on {topic} for the image at {stamp:.3f} s is broken: {error}")
                return None
        height, width = read[self._image_topic].shape[:2]
        try:
            check_size(self.intrinsics, width, height)
        except ValueError as error:
            self.lose(f"the image at {stamp:.3f} s has no camera_info that fits: {error}")
            return None
        return Frame(
            stamp,
            read[self._image_topic],
            self.intrinsics,
            depth=next((read[topic] for topic in DEPTHS if topic in read), None),
            labels=read.get(LABELS),
            camera=read.get(POSE),
            objects=dict(self._objects),
        )


def pose_matrix(pose: Any) -> NDArray[np.float64]:
    """[4, 4] from a geometry_msgs/Pose.

    Raises:
        ValueError: its quaternion is zero, or its numbers aren't finite.
    """
    matrix = np.eye(4)
    q, p = pose.orientation, pose.position
    matrix[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    matrix[:3, 3] = p.x, p.y, p.z
    if not np.isfinite(matrix).all():
        raise ValueError("the numbers of the pose aren't finite")
    return matrix


def true_objects(message: Any) -> dict[int, TrueObject]:
    """Objects by label from the MarkerArray of a rendered scene; markers of background labels are left out."""
    objects = {}
    for marker in message.markers:
        if marker.id >= FIRST_OBJECT_LABEL:
            p, s = marker.pose.position, marker.scale
            objects[int(marker.id)] = TrueObject(np.array([p.x, p.y, p.z]), np.array([s.x, s.y, s.z]))
    return objects
