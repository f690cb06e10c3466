"""A map of the objects around a moving camera: takes slots in 3D, fuses them into landmarks, prints and draws the map.

Beside a running `decompose` node, until Ctrl-C or --duration:
    python examples/slot_map.py
    python examples/slot_map.py --pose /camera/pose --duration 20 --png map.png
On a recording, without ROS and without a node:
    python examples/slot_map.py --bag monet_perception/data/demo.mcap --png map.png
    python examples/slot_map.py --bag room.mcap --checkpoint mine.safetensors
    python examples/slot_map.py --bag room.mcap --masks truth      # the geometry alone: the recorded labels as slots

The camera's pose has to be known, from SLAM or odometry: a PoseStamped of the optical frame in a world whose z points
up. From topics, it is interpolated between the poses around a frame; in a recording the nearest within 50 ms is taken.
A landmark that isn't seen is taken off the map only where depth shows that nothing stands before it.
Where the true objects are known (`/camera/objects`), each landmark's error is printed.
Needs `pip install monet_perception[demo,train]` (rosbags, matplotlib).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from joining import FrameJoiner, JoinedFrame
from landmarks import LandmarkMap, Observation, View, to_world
from map_report import draw_map, match_landmarks, table
from numpy.typing import NDArray

from monet_perception.calibration import camera_intrinsics, check_size
from monet_perception.clip import CAMERA_INFO, DEPTH, OBJECTS, POSE
from monet_perception.geometry import SlotGeometry, slot_geometry
from monet_perception.labels import FIRST_OBJECT_LABEL, label_scene
from monet_perception.projection import Intrinsics
from monet_perception.recording import Frame, TrueObject, pose_matrix, read_frames, true_objects
from monet_perception.region import Region
from monet_perception.scene_tracker import SceneTracker
from monet_perception.slots import mask_area
from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds
from monet_perception.tracking import TrackerSettings

if TYPE_CHECKING:
    from rclpy.node import Node

Array = NDArray[np.float64]

MIN_OBSERVATIONS = 10
"""Frames from which on a landmark is printed and drawn; what was seen less often is mostly an error of segmentation."""
MAX_SIGMA = 0.25
"""Metres to which a landmark's position has to have been known at least once to be printed and drawn."""


@dataclass
class Survey:
    """What a walk through a scene gave: the map, the camera's path, and the true objects seen, where they are known."""

    map: LandmarkMap = field(default_factory=LandmarkMap)
    path: list[Array] = field(default_factory=list)
    objects: dict[int, TrueObject] = field(default_factory=dict)


# From a recording ----------------------------------------------------------------------------------


Observer = Callable[[Frame], tuple[list[Observation], Region]]
"""Slots of a frame in the world, and the pixels of the image that they come from."""


def survey_recording(path: Path, observe: Observer, *, rectified: bool = False) -> Survey:
    """Fuses a recording frame by frame.

    Args:
        path: MCAP file or bag folder.
        observe: from `network_observer` or `label_observer`.
        rectified: whether its images are.
    Raises:
        ValueError: the recording lacks camera_info, depth or poses, or has none for any image.
    """
    survey = Survey()
    for number, frame in enumerate(read_frames(path, rectified=rectified)):
        if frame.depth is None or frame.camera is None:
            raise ValueError(f"{path} has no depth or no camera poses: landmarks need both")
        observations, roi = observe(frame)
        survey.map.update(observations, frame.stamp, View(frame.camera, frame.intrinsics, roi, frame.depth))
        survey.path.append(frame.camera[:3, 3])
        survey.objects.update(_objects_in_view(frame))
        if sys.stderr.isatty() and number % 10 == 0:
            print(f"\r{number} frames", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    return survey


def network_observer(checkpoint: Path | None) -> Observer:
    """Slots by the network (None: the shipped one), tracked over the frames."""
    from monet_perception.decomposer import Decomposer  # only here: torch takes seconds to import

    decomposer = Decomposer() if checkpoint is None else Decomposer(checkpoint)
    tracker = SceneTracker()

    def observe(frame: Frame) -> tuple[list[Observation], Region]:
        scene = decomposer(frame.image)
        tracks = tracker.follow(scene, frame.stamp)
        geometries = slot_geometry(scene.masks, scene.roi, frame.depth, frame.intrinsics)
        observations = [
            to_world(frame.camera, track, geometry, scene.latent_mean[slot], scene.latent_log_sigma[slot])
            for slot, (track, geometry) in enumerate(zip(tracks.tolist(), geometries, strict=True))
            if track >= 0 and geometry is not None and not geometry.background
        ]
        return observations, scene.roi

    return observe


def label_observer() -> Observer:
    """Slots by the recorded labels; their latents are the prior, which says nothing, so that position alone decides."""

    def observe(frame: Frame) -> tuple[list[Observation], Region]:
        if frame.labels is None:
            raise ValueError("the recording has no labels: use --masks network")
        scene = label_scene(frame.image, frame.labels)
        geometries = slot_geometry(scene.masks, scene.roi, frame.depth, frame.intrinsics)
        large_enough = mask_area(scene.masks) >= TrackerSettings.min_area
        observations = [
            to_world(frame.camera, label, geometry, scene.latent_mean[label], scene.latent_log_sigma[label])
            for label, geometry in enumerate(geometries)
            if label >= FIRST_OBJECT_LABEL and geometry is not None and large_enough[label]
        ]
        return observations, scene.roi

    return observe


def _objects_in_view(frame: Frame) -> dict[int, TrueObject]:
    """True objects of which at least a share of `min_area` of the image shows; all, where there are no labels."""
    if frame.labels is None:
        return frame.objects
    share = np.bincount(frame.labels.ravel(), minlength=256) / frame.labels.size
    return {label: truth for label, truth in frame.objects.items() if share[label] >= TrackerSettings.min_area}


# From a running node -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Topics:
    """Where a running node's slots are, and what belongs to them.

    Attributes:
        slots: of monet_perception_msgs/SlotArray.
        pose: of geometry_msgs/PoseStamped, the camera's optical frame in the world.
        depth: of sensor_msgs/Image, registered to the node's images.
        camera_info: of sensor_msgs/CameraInfo; without it, or without depth, landmarks that are no longer seen stay.
    """

    slots: str = "/scene/slots"
    pose: str = POSE
    depth: str = DEPTH
    camera_info: str = CAMERA_INFO


def survey_topics(topics: Topics, duration: float, *, rectified: bool = False) -> Survey:
    """Fuses what a running `decompose` node publishes, until Ctrl-C or `duration` seconds (infinite: no end).

    Args:
        topics: where it is.
        duration: seconds.
        rectified: whether the node's images are.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException

    rclpy.init()
    node = rclpy.create_node("slot_map")
    survey = Survey()
    listener = _Listener(node, survey, topics, rectified)
    end = time.monotonic() + duration
    try:
        while rclpy.ok() and time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.2)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    listener.finish()
    listener.explain_silence()
    return survey


class _Listener:
    """Subscriptions of the live map: fuses each SlotArray when what belongs to it has come."""

    def __init__(self, node: Node, survey: Survey, topics: Topics, rectified: bool) -> None:
        from geometry_msgs.msg import PoseStamped
        from monet_perception_msgs.msg import SlotArray
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import CameraInfo, Image
        from visualization_msgs.msg import MarkerArray

        from monet_perception.nodes.inputs import LAST_FEW, LATCHED
        from monet_perception.nodes.qos import BestAvailableSubscription

        self._survey, self._topics, self._rectified = survey, topics, rectified
        self._joiner = FrameJoiner()
        self._intrinsics: Intrinsics | None = None
        self._model = ""
        self._came: set[str] = set()
        self._faults: dict[str, str] = {}  # by topic, of its last message that can't be used
        node.create_subscription(SlotArray, topics.slots, self._on_slots, QoSProfile(depth=5))
        for kind, topic, callback, profile in (
            (PoseStamped, topics.pose, self._on_pose, LAST_FEW),
            (Image, topics.depth, self._on_depth, LAST_FEW),
            (CameraInfo, topics.camera_info, self._on_info, LATCHED),  # drivers may send it once, before this starts
            (MarkerArray, OBJECTS, self._on_objects, LATCHED),
        ):
            BestAvailableSubscription(node, kind, topic, callback, profile).open()

    def _on_pose(self, message: Any) -> None:
        self._came.add(self._topics.pose)
        try:
            pose = pose_matrix(message.pose)
        except ValueError as error:  # as SLAM sends before it knows
            self._faults[self._topics.pose] = str(error)
            return
        self._joiner.add_pose(stamp_nanoseconds(message.header), pose)
        self._fuse_complete()

    def _on_depth(self, message: Any) -> None:
        self._came.add(self._topics.depth)
        self._joiner.add_depth(stamp_nanoseconds(message.header), message)
        self._fuse_complete()

    def _on_info(self, message: Any) -> None:
        if message.k[0] > 0:  # zero: a camera that isn't calibrated
            self._came.add(self._topics.camera_info)
            try:
                self._intrinsics = camera_intrinsics(message, rectified=self._rectified)
            except ValueError as error:
                self._faults[self._topics.camera_info] = str(error)

    def _on_objects(self, message: Any) -> None:
        self._survey.objects.update(true_objects(message))

    def _on_slots(self, message: Any) -> None:
        self._came.add(self._topics.slots)
        self._model = self._model or message.model_id
        if message.model_id != self._model:  # neither its tracks nor its latents are those of the map
            self._faults[self._topics.slots] = (
                f"it is of network {message.model_id}, the map of {self._model}: start slot_map again"
            )
            return
        self._joiner.add_slots(stamp_nanoseconds(message.header), message)
        self._fuse_complete()

    def finish(self) -> None:
        """Fuses the frames that still wait, as far as poses are near; the rest counts as unplaced."""
        self._fuse_complete(ended=True)

    def _fuse_complete(self, *, ended: bool = False) -> None:
        for frame in self._joiner.complete(ended=ended):
            observations = message_observations(frame.slots, frame.camera)
            self._survey.map.update(observations, frame.stamp / NANOSECONDS, self._view(frame))
            self._survey.path.append(frame.camera[:3, 3])

    def _view(self, frame: JoinedFrame) -> View | None:
        """What the camera could see; None where it isn't known."""
        from monet_perception.nodes.slot_messages import read_region

        roi = read_region(frame.slots)
        if self._intrinsics is None or not roi.width:
            return None
        try:
            check_size(self._intrinsics, frame.slots.source_width, frame.slots.source_height)
        except ValueError as error:
            self._faults[self._topics.camera_info] = str(error)
            return None
        return View(frame.camera, self._intrinsics, roi, self._metres(frame.depth))

    def _metres(self, message: Any | None) -> NDArray[np.float32] | None:
        """Depth [h, w] of an Image; None where there is none that can be read."""
        from monet_perception.nodes.conversions import to_metres
        from monet_perception.raw_images import MessageError

        try:
            return None if message is None else to_metres(message)
        except MessageError as error:
            self._faults[self._topics.depth] = str(error)
            return None

    def explain_silence(self) -> None:
        """Says on stderr why the map may be empty, or full of what is no longer there."""
        for topic in (self._topics.slots, self._topics.pose):
            if topic not in self._came:
                print(f"nothing came on {topic}", file=sys.stderr)
        for topic in (self._topics.depth, self._topics.camera_info):
            if topic not in self._came:
                print(f"nothing came on {topic}: landmarks that are no longer seen stayed", file=sys.stderr)
        for topic, fault in self._faults.items():
            print(f"a message on {topic} can't be used: {fault}", file=sys.stderr)
        if self._joiner.unplaced:
            print(f"left out {self._joiner.unplaced} frames without poses near their stamps", file=sys.stderr)


def message_observations(message: Any, camera: Array) -> list[Observation]:
    """Slots of a SlotArray in the world: those that have a track and a centroid and are no piece of a background."""
    from monet_perception.nodes.slot_messages import object_slots  # only here: a recording needs no ROS

    observations = []
    for slot, is_object in zip(message.slots, object_slots(message), strict=True):
        if is_object and len(slot.centroid):
            covariance = np.array(slot.covariance).reshape(3, 3)
            geometry = SlotGeometry(np.array(slot.centroid), covariance, np.array(slot.extent))
            observations.append(to_world(camera, slot.track_id, geometry, slot.latent_mean, slot.latent_log_sigma))
    return observations


# ---------------------------------------------------------------------------------------------------


def picture_path(text: str) -> Path:
    """A type of argument for argparse: files in a format that maps are drawn in."""
    path = Path(text)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"{text} has to end in .png, .pdf or .svg: it decides the format")
    return path


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line; see the module's docstring for examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bag", type=Path, help="MCAP file or bag folder to read instead of topics")
    parser.add_argument("--masks", choices=("network", "truth"), default="network", help="with --bag: whose masks")
    parser.add_argument("--checkpoint", type=Path, help="with --bag: network (default: the shipped one)")
    parser.add_argument("--slots", default=Topics.slots, help="SlotArray topic (default: %(default)s)")
    parser.add_argument("--pose", default=Topics.pose, help="PoseStamped topic of the camera (default: %(default)s)")
    parser.add_argument("--depth", default=Topics.depth, help="depth topic: what is hidden (default: %(default)s)")
    parser.add_argument(
        "--camera-info", default=Topics.camera_info, help="CameraInfo topic: what is in view (default: %(default)s)"
    )
    parser.add_argument("--rectified", action="store_true", help="the images are: camera_info's P counts, not K and D")
    parser.add_argument(
        "--duration", type=float, default=float("inf"), help="seconds to listen (default: until Ctrl-C)"
    )
    parser.add_argument(
        "--png", type=picture_path, default=Path("slot_map.png"), help="where the map is drawn (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Surveys, prints the landmarks and draws the map; returns the exit status."""
    options = parse_arguments(argv)
    try:
        if options.bag:
            observer = label_observer() if options.masks == "truth" else network_observer(options.checkpoint)
            survey = survey_recording(options.bag, observer, rectified=options.rectified)
        else:
            topics = Topics(options.slots, options.pose, options.depth, options.camera_info)
            survey = survey_topics(topics, options.duration, rectified=options.rectified)
    except (OSError, ValueError) as error:
        print(f"slot_map: {error}", file=sys.stderr)
        return 1
    landmarks = survey.map.landmarks(MIN_OBSERVATIONS, MAX_SIGMA)
    matches = match_landmarks(landmarks, survey.objects)
    print(table(landmarks, matches))
    try:
        draw_map(options.png, landmarks, survey.objects, survey.path)
    except OSError as error:
        print(f"slot_map: the map can't be written: {error}", file=sys.stderr)
        return 1
    print(f"map: {options.png}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
