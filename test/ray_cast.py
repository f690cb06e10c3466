"""Scenes whose geometry is known exactly, cast ray by ray: balls and boxes in a room, and recordings of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from monet_perception.projection import Intrinsics

FLOOR, WALL, FIRST_OBJECT = 1, 2, 4
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ball:
    centre: tuple[float, float, float]
    radius: float

    @property
    def size(self) -> Array:
        return np.full(3, 2 * self.radius)

    def hit(self, origin: Array, rays: Array) -> Array:
        """Distance along each ray [N, 3] to the ball, infinite where it is missed."""
        offset = origin - np.array(self.centre)
        a, b, c = (rays**2).sum(1), rays @ offset, offset @ offset - self.radius**2
        root = b**2 - a * c
        distance = (-b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root >= 0) & (distance > 0), distance, np.inf)


@dataclass(frozen=True)
class Box:
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float = 0.0

    def hit(self, origin: Array, rays: Array) -> Array:
        turn = Rotation.from_euler("z", -self.yaw).as_matrix()
        near, far = _slabs(turn @ (origin - np.array(self.centre)), rays @ turn.T, np.array(self.size) / 2)
        return np.where((near <= far) & (near > 0), near, np.inf)


def _slabs(origin: Array, rays: Array, half: Array) -> tuple[Array, Array]:
    """Where each ray enters and leaves an axis-aligned box around zero."""
    with np.errstate(divide="ignore"):
        first, second = (-half - origin) / rays, (half - origin) / rays
    return np.minimum(first, second).max(1), np.maximum(first, second).min(1)


@dataclass(frozen=True)
class View:
    labels: NDArray[np.uint8]
    depth: NDArray[np.float32]
    image: NDArray[np.uint8]


def cast(
    objects: Sequence[Ball | Box],
    camera: Array,
    intrinsics: Intrinsics,
    room: float = 3.0,
    walls: Sequence[Box] = (),
) -> View:
    """What a camera at pose [4, 4] (optical frame to world, z up) sees: objects in a room of half side `room`.

    Boxes as `walls` divide the room, with the label of its own walls.

    Its lens, if it has one, is a plumb_bob.
    """
    v, u = np.mgrid[: intrinsics.height, : intrinsics.width]
    pixels = np.stack([u, v], -1).reshape(-1, 1, 2).astype(np.float64)
    matrix, coefficients = _lens(intrinsics)
    rays = np.insert(cv2.undistortPoints(pixels, matrix, coefficients)[:, 0], 2, 1.0, axis=1)
    origin, world = camera[:3, 3], rays @ camera[:3, :3].T
    shell = np.array([room, room, room])
    _, depth = _slabs(origin - [0, 0, room], world, shell)
    labels = np.where((origin + depth[:, None] * world)[:, 2] < 1e-6, FLOOR, WALL)
    labelled = [(WALL, wall) for wall in walls] + [(FIRST_OBJECT + i, thing) for i, thing in enumerate(objects)]
    for label, thing in labelled:
        distance = thing.hit(origin, world)
        labels = np.where(distance < depth, label, labels)
        depth = np.minimum(depth, distance)
    shape = (intrinsics.height, intrinsics.width)
    colours = np.random.default_rng(7).integers(60, 256, (256, 3))
    return View(
        labels.reshape(shape).astype(np.uint8),
        depth.reshape(shape).astype(np.float32),
        colours[labels].reshape(*shape, 3).astype(np.uint8),
    )


def _lens(intrinsics: Intrinsics) -> tuple[Array, Array]:
    """OpenCV's camera matrix [3, 3] and the five coefficients of a plumb_bob."""
    matrix = np.array([[intrinsics.fx, 0, intrinsics.cx], [0, intrinsics.fy, intrinsics.cy], [0, 0, 1]])
    return matrix, np.array(intrinsics.distortion.coefficients if intrinsics.distortion else np.zeros(5))


def look_at(position: tuple[float, float, float], target: tuple[float, float, float]) -> Array:
    """Pose [4, 4] of a camera (x right, y down, z forward) in a world whose z points up."""
    forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


KINDS = {
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/objects": "visualization_msgs/msg/MarkerArray",
    "/camera/depth": "sensor_msgs/msg/Image",
    "/camera/labels": "sensor_msgs/msg/Image",
    "/camera/pose": "geometry_msgs/msg/PoseStamped",
    "/camera/image": "sensor_msgs/msg/Image",
}
"""Message types by topic, in the order in which a frame's messages are written."""
COMPRESSED, COMPRESSED_DEPTH = "/camera/image/compressed", "/camera/depth/compressedDepth"
"""Written where they are among the topics asked for."""


def write_recording(
    path: Path,
    objects: list[Ball | Box],
    cameras: list[Array],
    intrinsics: Intrinsics,
    rate: float = 10.0,
    topics: tuple[str, ...] = tuple(KINDS),
    late: Mapping[str, float] = MappingProxyType({}),
    walls: Sequence[Box] = (),
    restart: int | None = None,
    spoil: Callable[[int, dict[str, Any]], object] = lambda number, messages: None,
) -> None:
    """An MCAP with topics of the shipped clip, written by rosbags; each frame's messages in the order of `topics`, with
    stamps `late` by so many seconds, which begin again with the `restart`-th frame. `spoil` may change the messages of
    each frame before they are written."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    kinds = KINDS | dict.fromkeys((COMPRESSED, COMPRESSED_DEPTH), "sensor_msgs/msg/CompressedImage")

    def header(nanoseconds: int):
        time = types["builtin_interfaces/msg/Time"](nanoseconds // 10**9, nanoseconds % 10**9)
        return types["std_msgs/msg/Header"](time, "camera_optical")

    def image(stamp, pixels, encoding):
        flat = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
        height, width = pixels.shape[:2]
        return types["sensor_msgs/msg/Image"](stamp, height, width, encoding, 0, flat.size // height, flat)

    def jpeg(stamp, pixels):
        data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]))[1].ravel()
        return types["sensor_msgs/msg/CompressedImage"](stamp, "jpeg", data)

    def packed_depth(stamp, millimetres):
        data = np.insert(cv2.imencode(".png", millimetres)[1].ravel(), 0, np.zeros(12, np.uint8))
        return types["sensor_msgs/msg/CompressedImage"](stamp, "16UC1; compressedDepth png", data)

    writer = Writer(path.parent / f"{path.stem}_bag", version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        connections = {topic: writer.add_connection(topic, kinds[topic], typestore=store) for topic in topics}
        for number, camera in enumerate(cameras):
            nanoseconds = int(number * 1e9 / rate) + 1_000_000_000
            view = cast(objects, camera, intrinsics, walls=walls)
            taken = nanoseconds if restart is None else int(number % restart * 1e9 / rate) + 1_000_000_000
            millimetres = (view.depth * 1000).astype(np.uint16)
            stamp = {topic: header(taken + round(1e9 * late.get(topic, 0.0))) for topic in kinds}
            messages = {
                "/camera/camera_info": _camera_info(types, stamp["/camera/camera_info"], intrinsics),
                "/camera/objects": types["visualization_msgs/msg/MarkerArray"](
                    [_marker(types, stamp["/camera/objects"], FIRST_OBJECT + i, o) for i, o in enumerate(objects)]
                ),
                "/camera/depth": image(stamp["/camera/depth"], millimetres, "16UC1"),
                COMPRESSED_DEPTH: packed_depth(stamp[COMPRESSED_DEPTH], millimetres),
                "/camera/labels": image(stamp["/camera/labels"], view.labels, "mono8"),
                "/camera/pose": types["geometry_msgs/msg/PoseStamped"](stamp["/camera/pose"], _pose(types, camera)),
                "/camera/image": image(stamp["/camera/image"], view.image, "rgb8"),
                COMPRESSED: jpeg(stamp[COMPRESSED], view.image),
            }
            spoil(number, messages)
            for place, topic in enumerate(topics):
                written = store.serialize_cdr(messages[topic], kinds[topic])
                writer.write(connections[topic], nanoseconds + place, written)
    next((path.parent / f"{path.stem}_bag").glob("*.mcap")).rename(path)


CLIP_FRAMES = 15


def write_clip(path: Path, image_topic: str = "/camera/image", depth_topic: str = "/camera/depth") -> Path:
    """A second and a half of a ball before a camera that goes by: images of 64 x 48 pixels, depth and labels."""
    cameras = [look_at((-2.2, 0.3 - 0.04 * step, 0.8), (0.0, 0.0, 0.4)) for step in range(CLIP_FRAMES)]
    lens = Intrinsics(fx=60.0, fy=60.0, cx=32.0, cy=24.0, width=64, height=48)
    topics = "/camera/camera_info", depth_topic, "/camera/labels", image_topic
    write_recording(path, [Ball((0.0, 0.0, 0.4), 0.4)], cameras, lens, topics=topics)
    return path


def _pose(types, matrix: Array):
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    return types["geometry_msgs/msg/Pose"](
        types["geometry_msgs/msg/Point"](*matrix[:3, 3].tolist()),
        types["geometry_msgs/msg/Quaternion"](float(x), float(y), float(z), float(w)),
    )


def _camera_info(types, header, intrinsics: Intrinsics):
    matrix, coefficients = _lens(intrinsics)
    size = intrinsics.width, intrinsics.height
    # As camera_calibration leaves it: P is there for the rectified images, also beside raw ones.
    rectified = cv2.getOptimalNewCameraMatrix(matrix, coefficients, size, 0)[0] if coefficients.any() else matrix
    return types["sensor_msgs/msg/CameraInfo"](
        header,
        intrinsics.height,
        intrinsics.width,
        "plumb_bob",
        coefficients,
        matrix.ravel(),
        np.eye(3).ravel(),
        np.insert(rectified.ravel(), [3, 6, 9], 0.0),
        0,
        0,
        types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )


def _marker(types, header, label: int, thing: Ball | Box):
    pose = np.eye(4)
    pose[:3, 3] = thing.centre
    zero = types["builtin_interfaces/msg/Duration"](0, 0)
    return types["visualization_msgs/msg/Marker"](
        header=header,
        ns="objects",
        id=label,
        type=1,
        action=0,
        pose=_pose(types, pose),
        scale=types["geometry_msgs/msg/Vector3"](*map(float, thing.size)),
        color=types["std_msgs/msg/ColorRGBA"](1.0, 1.0, 1.0, 1.0),
        lifetime=zero,
        frame_locked=False,
        points=[],
        colors=[],
        texture_resource="",
        texture=types["sensor_msgs/msg/CompressedImage"](header, "", np.zeros(0, np.uint8)),
        uv_coordinates=[],
        text="",
        mesh_resource="",
        mesh_file=types["visualization_msgs/msg/MeshFile"]("", np.zeros(0, np.uint8)),
        mesh_use_embedded_materials=False,
    )
