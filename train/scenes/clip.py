"""A moving room as a ROS 2 recording: an MCAP file that `ros2 bag play` plays.

Topics, all with the stamps of the images:
    /camera/camera_info   sensor_msgs/CameraInfo, no distortion
    /camera/objects       visualization_msgs/MarkerArray: id = label, pose = true centre in the world, scale = full size
    /camera/pose          geometry_msgs/PoseStamped: the optical frame in the world; also on /tf for rviz
    /camera/depth         sensor_msgs/Image 16UC1, millimetres along the view, 0: nothing there (sky)
    /camera/labels        sensor_msgs/Image mono8: 0 sky, 1 floor, 2 and 3 wall, objects from 4
    /camera/image         sensor_msgs/Image rgb8
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from monet_perception.clip import CAMERA_INFO, DEPTH, IMAGE, LABELS, OBJECTS, POSE
from monet_perception.files import replacing
from monet_perception.labels import FIRST_OBJECT_LABEL
from monet_perception.stamps import NANOSECONDS
from train.scenes.drawing import millimetres
from train.scenes.renderer import Rendering, SceneRenderer
from train.scenes.rooms import RoomObject
from train.scenes.scene import Camera, SimulatedScene, quaternion_of
from train.scenes.sequence import RoomSequence

OPTICAL_FRAME, WORLD_FRAME = "camera_optical_frame", "world"
TOPICS = {
    CAMERA_INFO: "sensor_msgs/msg/CameraInfo",
    OBJECTS: "visualization_msgs/msg/MarkerArray",
    POSE: "geometry_msgs/msg/PoseStamped",
    "/tf": "tf2_msgs/msg/TFMessage",
    DEPTH: "sensor_msgs/msg/Image",
    LABELS: "sensor_msgs/msg/Image",
    IMAGE: "sensor_msgs/msg/Image",
}
"""In the order of writing: whoever has an image has all that belongs to it."""
START = 1_700_000_000 * NANOSECONDS
"""Stamp of the first image, nanoseconds; fixed, so that the same command makes the same file."""
_MARKERS = {"box": 1, "sphere": 2, "ellipsoid": 2}
_CYLINDER = 3


def write_clip(
    path: Path,
    sequence: RoomSequence,
    *,
    seconds: float,
    rate: float,
    height: int = 240,
    width: int = 320,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda count: None,
) -> int:
    """Draw a sequence into an MCAP file, which appears at its path when it is complete.

    Args:
        path: of the file, ending in .mcap.
        sequence: what moves.
        seconds: how long.
        rate: images a second.
        height, width: pixels.
        overwrite: replace a file that is there.
        progress: called with 1 after each image.
    Returns:
        Number of images.
    Raises:
        FileExistsError: there is a file, and `overwrite` is off.
        ValueError: `seconds` at that `rate` make no image.
        RenderError: scenes can't be drawn here.
    """
    instants = [number / rate for number in range(round(seconds * rate))]
    if not instants:
        raise ValueError(
            f"{seconds:g} seconds at {rate:g} images a second make no image; take more --seconds or --rate"
        )
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; remove it, choose another path, or replace it (--overwrite)")
    path.parent.mkdir(parents=True, exist_ok=True)
    # rosbags writes a folder with the recording in it; only the recording is wanted, and only when it is whole.
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder:
        bag = Path(folder) / "clip"
        writer = Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP)  # 9: the metadata of Jazzy
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            _record(writer, sequence, instants, height, width, progress)
        with replacing(path) as temporary:
            (bag / "clip.mcap").replace(temporary)
    return len(instants)


def _record(
    writer: Writer,
    sequence: RoomSequence,
    instants: Sequence[float],
    height: int,
    width: int,
    progress: Callable[[int], object],
) -> None:
    messages = _Messages(height, width)
    connections = {
        topic: writer.add_connection(topic, kind, typestore=messages.types) for topic, kind in TOPICS.items()
    }
    renderer = SceneRenderer(height, width)
    try:
        for instant in instants:
            scene, stamp = sequence.scene(instant), START + round(instant * NANOSECONDS)
            picture = renderer.draw(scene)
            for topic, message in messages.of(stamp, scene, sequence.objects(instant), picture).items():
                writer.write(connections[topic], stamp, messages.types.serialize_cdr(message, TOPICS[topic]))
            progress(1)
    finally:
        renderer.close()


class _Messages:
    """Builds the messages of one instant."""

    def __init__(self, height: int, width: int) -> None:
        self.types = get_typestore(Stores.ROS2_JAZZY)
        self._size = height, width

    def of(
        self, stamp: int, scene: SimulatedScene, objects: Sequence[RoomObject], picture: Rendering
    ) -> dict[str, Any]:
        camera = self._header(stamp, OPTICAL_FRAME)
        world = self._header(stamp, WORLD_FRAME)
        position, orientation = self._pose(scene.camera)
        transform = self._make(
            "geometry_msgs/msg/TransformStamped", header=world, child_frame_id=OPTICAL_FRAME,
            transform=self._make(
                "geometry_msgs/msg/Transform", translation=self._vector("Vector3", position), rotation=orientation
            ),
        )  # fmt: skip
        pose = self._make("geometry_msgs/msg/Pose", position=self._vector("Point", position), orientation=orientation)
        markers = [self._marker(world, FIRST_OBJECT_LABEL + place, item) for place, item in enumerate(objects)]
        return {
            CAMERA_INFO: self._camera_info(camera, scene.camera),
            OBJECTS: self._make("visualization_msgs/msg/MarkerArray", markers=markers),
            POSE: self._make("geometry_msgs/msg/PoseStamped", header=world, pose=pose),
            "/tf": self._make("tf2_msgs/msg/TFMessage", transforms=[transform]),
            DEPTH: self._image(camera, "16UC1", millimetres(picture.depth)),
            LABELS: self._image(camera, "mono8", picture.labels),
            IMAGE: self._image(camera, "rgb8", picture.image),
        }

    def _make(self, kind: str, **fields: Any) -> Any:
        return self.types.types[kind](**fields)

    def _header(self, stamp: int, frame: str) -> Any:
        seconds, nanoseconds = divmod(stamp, NANOSECONDS)
        time = self._make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
        return self._make("std_msgs/msg/Header", stamp=time, frame_id=frame)

    def _vector(self, kind: str, values: Sequence[float]) -> Any:
        x, y, z = values
        return self._make(f"geometry_msgs/msg/{kind}", x=x, y=y, z=z)

    def _quaternion(self, rotation: NDArray[np.float64]) -> Any:
        x, y, z, w = quaternion_of(rotation)
        return self._make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def _pose(self, camera: Camera) -> tuple[Sequence[float], Any]:
        return camera.position, self._quaternion(camera.rotation)

    def _image(self, header: Any, encoding: str, pixels: NDArray[Any]) -> Any:
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
        return self._make(
            "sensor_msgs/msg/Image", header=header, height=height, width=width, encoding=encoding, is_bigendian=0,
            step=len(data) // height, data=data,
        )  # fmt: skip

    def _camera_info(self, header: Any, camera: Camera) -> Any:
        height, width = self._size
        fx, fy, cx, cy = camera.intrinsics(height, width)
        whole = self._make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self._make(
            "sensor_msgs/msg/CameraInfo", header=header, height=height, width=width, distortion_model="plumb_bob",
            d=np.zeros(5), k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1]), r=np.eye(3).ravel(),
            p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0]), binning_x=0, binning_y=0, roi=whole,
        )  # fmt: skip

    def _marker(self, header: Any, label: int, item: RoomObject) -> Any:
        thing = item.thing(label)
        red, green, blue = thing.colour
        duration = self._make("builtin_interfaces/msg/Duration", sec=0, nanosec=0)
        no_time = self._make("builtin_interfaces/msg/Time", sec=0, nanosec=0)
        no_texture = self._make(
            "sensor_msgs/msg/CompressedImage", header=self._make("std_msgs/msg/Header", stamp=no_time, frame_id=""),
            format="", data=np.zeros(0, np.uint8),
        )  # fmt: skip
        pose = self._make(
            "geometry_msgs/msg/Pose", position=self._vector("Point", thing.position),
            orientation=self._quaternion(np.array(thing.rotation).reshape(3, 3)),
        )  # fmt: skip
        return self._make(
            "visualization_msgs/msg/Marker", header=header, ns="objects", id=label,
            type=_MARKERS.get(thing.shape, _CYLINDER), action=0, pose=pose,
            scale=self._vector("Vector3", [2 * half for half in thing.size]),
            color=self._make("std_msgs/msg/ColorRGBA", r=red, g=green, b=blue, a=1.0), lifetime=duration,
            frame_locked=False, points=[], colors=[], texture_resource="", texture=no_texture, uv_coordinates=[],
            text=item.shape, mesh_resource="",
            mesh_file=self._make("visualization_msgs/msg/MeshFile", filename="", data=np.zeros(0, np.uint8)),
            mesh_use_embedded_materials=False,
        )  # fmt: skip
