"""Reads a recorded sequence (MCAP or ROS 2 bag) without ROS: images with depth, labels, camera pose and true objects.

Needs `rosbags` and `rosbags-image` (`pip install monet_perception[demo]`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.image import message_to_cvimage
from scipy.spatial.transform import Rotation

from monet_perception.clip import CAMERA_INFO, DEPTH, IMAGES, LABELS, OBJECTS, POSE
from monet_perception.geometry import Intrinsics
from monet_perception.labels import FIRST_OBJECT_LABEL
from monet_perception.region import Region, centre_square
from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds

NEWEST_STAMPS = 50
"""Stamps that may wait for their remaining messages and the first camera_info; the oldest is left out beyond that."""


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
        depth: [h, w] float32 metres, zero where there is none; None where the recording has no depth.
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


def read_frames(path: str | Path) -> Iterator[Frame]:
    """Frames of a recording in order, each complete with what its topics have for its stamp.

    Frames that were recorded before the first camera_info come as soon as that is there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the recording has no images on one of the topics `IMAGES`, or no camera_info on `CAMERA_INFO`.
    """
    with AnyReader([Path(path)]) as reader:
        topics = {connection.topic for connection in reader.connections}
        image_topic = next((topic for topic in IMAGES if topic in topics), None)
        if image_topic is None:
            raise ValueError(f"{path} has no images on {' or '.join(IMAGES)}; its topics are {sorted(topics)}")
        if CAMERA_INFO not in topics:
            raise _no_camera_info(path, topics)
        wanted = {image_topic} | ({DEPTH, LABELS, POSE} & topics)
        used = [c for c in reader.connections if c.topic in wanted | {CAMERA_INFO, OBJECTS}]
        waiting: dict[int, dict[str, Any]] = {}
        intrinsics: Intrinsics | None = None
        objects: dict[int, TrueObject] = {}
        for connection, _, raw in reader.messages(connections=used):
            message: Any = reader.deserialize(raw, connection.msgtype)
            if connection.topic == CAMERA_INFO:
                intrinsics = camera_intrinsics(message)
            elif connection.topic == OBJECTS:
                objects = true_objects(message)
            else:
                stamp = stamp_nanoseconds(message.header)
                waiting.setdefault(stamp, {})[connection.topic] = message
                if len(waiting) > NEWEST_STAMPS:
                    del waiting[min(waiting)]
            if intrinsics is not None:
                for stamp in sorted(stamp for stamp, parts in waiting.items() if parts.keys() == wanted):
                    yield _frame(waiting.pop(stamp), stamp, image_topic, intrinsics, objects)
        if intrinsics is None:
            raise _no_camera_info(path, topics)


def _no_camera_info(path: str | Path, topics: set[str]) -> ValueError:
    return ValueError(
        f"{path} has no camera_info on {CAMERA_INFO}: record it with the images, or rename the topic that has it; "
        f"its topics are {sorted(topics)}"
    )


def _frame(
    parts: dict[str, Any], stamp: int, image_topic: str, intrinsics: Intrinsics, objects: dict[int, TrueObject]
) -> Frame:
    image = message_to_cvimage(parts[image_topic], "rgb8").astype(np.uint8, copy=False)
    frame = Frame(stamp / NANOSECONDS, image, intrinsics, objects=dict(objects))
    if DEPTH in parts:
        depth = message_to_cvimage(parts[DEPTH])
        frame.depth = depth.astype(np.float32) * (np.float32(0.001) if depth.dtype == np.uint16 else np.float32(1))
    if LABELS in parts:
        frame.labels = message_to_cvimage(parts[LABELS]).astype(np.uint8, copy=False)
    if POSE in parts:
        frame.camera = pose_matrix(parts[POSE].pose)
    return frame


def camera_intrinsics(message: Any) -> Intrinsics:
    """Intrinsics from a CameraInfo; its image has to be rectified.

    Raises:
        ValueError: an uncalibrated camera (zero focal length).
    """
    k = message.k
    return Intrinsics(float(k[0]), float(k[4]), float(k[2]), float(k[5]), int(message.width), int(message.height))


def pose_matrix(pose: Any) -> NDArray[np.float64]:
    """[4, 4] from a geometry_msgs/Pose."""
    matrix = np.eye(4)
    q, p = pose.orientation, pose.position
    matrix[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    matrix[:3, 3] = p.x, p.y, p.z
    return matrix


def true_objects(message: Any) -> dict[int, TrueObject]:
    """Objects by label from the MarkerArray of a rendered scene; markers of background labels are left out."""
    objects = {}
    for marker in message.markers:
        if marker.id >= FIRST_OBJECT_LABEL:
            p, s = marker.pose.position, marker.scale
            objects[int(marker.id)] = TrueObject(np.array([p.x, p.y, p.z]), np.array([s.x, s.y, s.z]))
    return objects


def label_masks(labels: NDArray[np.uint8], size: int) -> tuple[NDArray[np.float32], Region]:
    """Recorded labels as slots, in place of a network's: soft where a mask's pixel covers several labels.

    Args:
        labels: [h, w] at source resolution.
        size: H = W of the masks.
    Returns:
        Masks [K, size, size] over the centre square, summing to one over K; slot k holds label k, K is the highest
        label plus one. And the source pixels that they cover.
    """
    roi = centre_square(*labels.shape)
    cut = roi.cut(labels)
    planes = [
        cv2.resize((cut == label).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        for label in range(int(labels.max()) + 1)
    ]
    return np.stack(planes), roi
